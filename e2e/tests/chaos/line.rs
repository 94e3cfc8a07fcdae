// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to a server that can be cut, stalled and slowed down, and led to another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What a line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It carries what comes.
    Up,
    /// It carries what comes, each piece this much later.
    Slow(Duration),
    /// Its connections end, and so does each new one.
    Cut,
    /// Connections that are open hear nothing more, and never will; new ones hear nothing while it lasts. So it looks
    /// when a host vanishes.
    Dead,
}

/// A line on the loopback; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    port: u16,
    server: Arc<AtomicU16>,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line to the server that listens on `port`.
    pub(crate) async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen for a line")?;
        let own = listener.local_addr().context("listen for a line")?.port();
        let (state, watched) = watch::channel(State::Up);
        let server = Arc::new(AtomicU16::new(port));
        let towards = Arc::clone(&server);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, Arc::clone(&towards), watched.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port: own, server, state, _tasks: tasks })
    }

    /// Where it begins.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on connections are made to the server that listens on `port`; those that are open stay where they are.
    pub(crate) fn lead_to(&self, port: u16) {
        self.server.store(port, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

/// Carries one connection to its end.
async fn carry(client: TcpStream, server: Arc<AtomicU16>, mut state: watch::Receiver<State>) {
    // A connection that is made while the line is dead is answered by nobody until it is not.
    let answered = state.wait_for(|state| *state != State::Dead).await.map(|state| *state);
    let Ok(State::Up | State::Slow(_)) = answered else { return };
    let port = server.load(Ordering::Relaxed);
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let slowness = state.clone();
    let both = async {
        tokio::join!(pump(from_client, to_server, slowness.clone()), pump(from_server, to_client, slowness));
    };
    let broken = async {
        let broken = state.wait_for(|state| matches!(state, State::Cut | State::Dead)).await;
        broken.is_ok_and(|state| *state == State::Dead)
    };
    tokio::pin!(both);
    let is_dead = tokio::select! { () = both.as_mut() => false, dead = broken => dead };
    if is_dead {
        // Neither side is told: what carried the bytes still holds both sockets.
        std::future::pending::<()>().await;
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *state.borrow();
        if let State::Slow(delay) = now {
            sleep(delay).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // The other direction may have more to say; whoever gets this knows that nothing else comes.
    drop(to.shutdown().await);
}
