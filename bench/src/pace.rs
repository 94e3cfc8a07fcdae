// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to a server over which answers come no faster than so many bytes a second.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::measure::precise;

/// How late the clock may wake us.
const LATE: Duration = Duration::from_millis(20);

/// The line, listening. Each connection has the pace for itself.
#[derive(Debug)]
pub(crate) struct Paced {
    listener: TcpListener,
    upstream: String,
    bytes_per_second: u64,
}

impl Paced {
    /// Listens on a free port for connections to `upstream` (`host:port`).
    pub(crate) async fn listen(upstream: &str, bytes_per_second: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the slow line")?;
        Ok(Self { listener, upstream: upstream.to_owned(), bytes_per_second })
    }

    pub(crate) fn address(&self) -> Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    /// Passes bytes on for as long as `work` takes.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            ended = self.serve() => ended.map(|never| match never {}),
        }
    }

    async fn serve(&self) -> Result<Infallible> {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => connections.push(self.connection(accepted?.0)),
                // Either side may drop a connection whenever it likes.
                Some(_) = connections.next() => {}
            }
        }
    }

    async fn connection(&self, mut client: TcpStream) -> Result<()> {
        let mut server = TcpStream::connect(&self.upstream).await.context("connect through the slow line")?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let (mut asked, mut answered) = client.split();
        let (mut answers, mut asks) = server.split();
        let there = async { copy(&mut asked, &mut asks).await.context("pass a request on") };
        let back = async {
            let mut piece = vec![0; 64 << 10];
            let mut free = Instant::now();
            loop {
                let length = answers.read(&mut piece).await?;
                if length == 0 {
                    return Ok::<_, anyhow::Error>(answered.shutdown().await?);
                }
                answered.write_all(&piece[..length]).await?;
                let time = Duration::from_secs_f64(precise(length as u64) / precise(self.bytes_per_second));
                // What rested longer than a clock is late has not saved anything up.
                free = free.max(Instant::now() - LATE) + time;
                sleep_until(free).await;
            }
        };
        tokio::try_join!(there, back).map(drop)
    }
}
