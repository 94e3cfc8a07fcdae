// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A door from the machine's loopback into a cluster's network, for people.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};

use crate::network;
use crate::state::State;

/// Passes connections made to `listener` on to `target` in the cluster's network, until cancelled.
pub async fn forward(state: &State, listener: TcpListener, target: SocketAddr) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.context("accept a connection")?;
        let state = state.clone();
        connections.spawn(async move {
            let mut server = connect_within(state, target).await?;
            copy_bidirectional(&mut client, &mut server).await.context("pass bytes on")
        });
        while connections.try_join_next().is_some() {} // a connection that ends badly is its client's affair
    }
}

/// A socket belongs to the network of the thread that makes it; what is made can be used anywhere.
async fn connect_within(state: State, target: SocketAddr) -> Result<TcpStream> {
    let connected = spawn_blocking(move || {
        network::within(&state, || async move {
            let stream = TcpStream::connect(target).await.context("connect")?;
            stream.into_std().context("take the socket")
        })
    });
    let stream: std::net::TcpStream = connected.await.context("connect")??;
    stream.set_nonblocking(true).context("set the socket up")?;
    TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(stream))).context("use the socket")
}
