// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lines between a registry and its storage that count what is asked. Nothing is timed while they stand between.

use std::cell::Cell;
use std::convert::Infallible;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, client, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The lines of one registry, listening; each where there is something to count.
#[derive(Debug)]
pub(crate) struct Counters {
    s3: Option<Line>,
    postgres: Option<Line>,
}

/// What has been asked so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests to the S3 server.
    pub(crate) s3: Option<u64>,
    /// Round trips to Postgres: how often it said that it waits for the next statement.
    pub(crate) postgres: Option<u64>,
}

impl Counters {
    /// Listens on free ports for an S3 server and a Postgres (`host:port`).
    pub(crate) async fn listen(s3: Option<&str>, postgres: Option<&str>) -> Result<Self> {
        Ok(Self { s3: Line::before(s3).await?, postgres: Line::before(postgres).await? })
    }

    /// Where the S3 server is reached now.
    pub(crate) fn s3(&self) -> Result<Option<String>> {
        self.s3.as_ref().map(Line::address).transpose()
    }

    /// Where Postgres is reached now.
    pub(crate) fn postgres(&self) -> Result<Option<String>> {
        self.postgres.as_ref().map(Line::address).transpose()
    }

    pub(crate) fn counts(&self) -> Counts {
        let count = |line: &Option<Line>| line.as_ref().map(|line| line.count.get());
        Counts { s3: count(&self.s3), postgres: count(&self.postgres) }
    }

    async fn serve(&self) -> Result<Infallible> {
        let s3 = async {
            match &self.s3 {
                Some(line) => line.serve(async |stream| line.requests(stream).await).await,
                None => std::future::pending().await,
            }
        };
        let postgres = async {
            match &self.postgres {
                Some(line) => line.serve(async |stream| line.round_trips(stream).await).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { ended = s3 => ended, ended = postgres => ended }
    }
}

impl Counts {
    /// What was asked since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        let between = |after: Option<u64>, before: Option<u64>| Some(after?.saturating_sub(before?));
        Self { s3: between(self.s3, before.s3), postgres: between(self.postgres, before.postgres) }
    }
}

/// Passes everything on for as long as `work` takes.
pub(crate) async fn during<'a, T>(
    counters: impl IntoIterator<Item = &'a Counters>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut lines: FuturesUnordered<_> = counters.into_iter().map(Counters::serve).collect();
    tokio::select! {
        done = work => done,
        Some(ended) = lines.next() => ended.map(|never| match never {}),
    }
}

/// A line to one server.
#[derive(Debug)]
struct Line {
    listener: TcpListener,
    upstream: String,
    count: Cell<u64>,
}

impl Line {
    async fn before(upstream: Option<&str>) -> Result<Option<Self>> {
        let Some(upstream) = upstream else { return Ok(None) };
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen before the storage")?;
        Ok(Some(Self { listener, upstream: upstream.to_owned(), count: Cell::new(0) }))
    }

    fn address(&self) -> Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    fn add(&self, more: u64) {
        self.count.set(self.count.get() + more);
    }

    async fn serve(&self, connection: impl AsyncFn(TcpStream) -> Result<()>) -> Result<Infallible> {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => connections.push(connection(accepted?.0)),
                // Either side may drop a connection whenever it likes; the registry then opens another.
                Some(_) = connections.next() => {}
            }
        }
    }

    async fn connect(&self, stream: &TcpStream) -> Result<TcpStream> {
        let upstream = TcpStream::connect(&self.upstream).await.context("connect to the storage")?;
        upstream.set_nodelay(true)?;
        stream.set_nodelay(true)?;
        Ok(upstream)
    }

    /// Counts the requests of an HTTP connection.
    async fn requests(&self, stream: TcpStream) -> Result<()> {
        let upstream = self.connect(&stream).await?;
        let (sender, driver) = client::conn::http1::handshake(TokioIo::new(upstream)).await?;
        let sender = Mutex::new(sender);
        let pass = service_fn(async |request: Request<Incoming>| {
            self.add(1);
            let mut sender = sender.lock().await;
            sender.ready().await?;
            sender.send_request(request).await
        });
        let serve = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass);
        // The S3 server may close first, with an answer still on its way to the registry.
        let (served, _) = tokio::join!(serve, driver);
        Ok(served?)
    }

    /// Counts the round trips of a connection that speaks Postgres's protocol without TLS.
    async fn round_trips(&self, mut stream: TcpStream) -> Result<()> {
        let mut upstream = self.connect(&stream).await?;
        let (mut asked, mut answered) = stream.split();
        let (mut answers, mut asks) = upstream.split();
        let there = async {
            copy(&mut asked, &mut asks).await?;
            asks.shutdown().await
        };
        let back = async {
            let (mut messages, mut piece) = (Messages::default(), vec![0; 16 << 10]);
            loop {
                let length = answers.read(&mut piece).await?;
                if length == 0 {
                    return answered.shutdown().await;
                }
                self.add(messages.ready(&piece[..length]));
                answered.write_all(&piece[..length]).await?;
            }
        };
        tokio::try_join!(there, back)?;
        Ok(())
    }
}

/// What Postgres says: messages of a letter, a length that counts itself but not the letter, and the rest
/// (PostgreSQL, "Message Formats").
#[derive(Debug, Default)]
struct Messages {
    head: Vec<u8>,
    rest: usize,
}

impl Messages {
    /// How many messages in these bytes, which follow those before, say that the server is ready for a query.
    fn ready(&mut self, mut bytes: &[u8]) -> u64 {
        const READY_FOR_QUERY: u8 = b'Z';
        let mut ready = 0;
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let Some((first, others)) = bytes.split_first() else { return ready };
            self.head.push(*first);
            bytes = others;
            if let [letter, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                ready += u64::from(*letter == READY_FOR_QUERY);
                self.rest = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_counted_however_the_bytes_arrive() {
        // A data row that holds the letter, two ends of a query.
        let said = b"D\0\0\0\x09ZZZZZZ\0\0\0\x05IC\0\0\0\x06okZ\0\0\0\x05I";
        let mut whole = Messages::default();
        assert_eq!(whole.ready(said), 2);
        let mut single = Messages::default();
        assert_eq!(said.iter().map(|byte| single.ready(&[*byte])).sum::<u64>(), 2);
    }

    #[tokio::test]
    async fn requests_are_counted_and_answered() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counters = Counters::listen(Some(&server.local_addr().unwrap().to_string()), None).await.unwrap();
        let answer = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = [0; 64];
            let _read = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        };
        let ask = async {
            let mut stream = TcpStream::connect(counters.s3()?.unwrap()).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: s3\r\n\r\n").await?;
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            Ok(())
        };
        let asked = during([&counters], ask);
        tokio::select! { asked = asked => asked.unwrap(), () = answer => {} }
        assert_eq!(counters.counts(), Counts { s3: Some(1), postgres: None });
    }
}
