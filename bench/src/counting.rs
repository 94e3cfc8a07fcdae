// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A proxy in front of the S3 server that counts requests. Nothing is timed while it stands between.

use std::cell::Cell;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, client, server};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The proxy, listening.
#[derive(Debug)]
pub(crate) struct Counter {
    listener: TcpListener,
    upstream: String,
    requests: Cell<u64>,
}

impl Counter {
    /// Listens on a free port for requests to `upstream` (`host:port`).
    pub(crate) async fn listen(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for S3 requests")?;
        Ok(Self { listener, upstream: upstream.to_owned(), requests: Cell::new(0) })
    }

    pub(crate) fn address(&self) -> Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Passes requests on for as long as `work` takes.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            ended = self.serve() => ended.map(|never| match never {}),
        }
    }

    async fn serve(&self) -> Result<std::convert::Infallible> {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => connections.push(self.connection(accepted?.0)),
                // Either side may drop a connection whenever it likes; the registry then opens another.
                Some(_) = connections.next() => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream) -> Result<()> {
        let upstream = TcpStream::connect(&self.upstream).await.context("connect to the S3 server")?;
        upstream.set_nodelay(true)?;
        stream.set_nodelay(true)?;
        let (sender, driver) = client::conn::http1::handshake(TokioIo::new(upstream)).await?;
        let sender = Mutex::new(sender);
        let pass = service_fn(async |request: Request<Incoming>| {
            self.requests.set(self.requests.get() + 1);
            let mut sender = sender.lock().await;
            sender.ready().await?;
            sender.send_request(request).await
        });
        let serve = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass);
        // The S3 server may close first, with an answer still on its way to the registry.
        let (served, _) = tokio::join!(serve, driver);
        Ok(served?)
    }
}
