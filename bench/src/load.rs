// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The load: keep-alive connections over HTTP/1.1, each of which sends one request after another.
//!
//! Everything runs on one thread and a connection is driven by the client that uses it, so that the load
//! generator takes little of the processor that it shares with the registry. Bodies are counted, not kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context as Waker, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderName, HeaderValue, LOCATION, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use stowage_oci::{Algorithm, Digest, Hasher};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::tls::Tls;
use crate::work::{Data, Work};

/// A body in pieces that are shared, never copied.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    is_open_ended: bool,
}

impl Pieces {
    /// Does not tell its length: it goes in chunks (RFC 9112, 7.1), one for each piece.
    pub(crate) fn of_unknown_length(self) -> Self {
        Self { is_open_ended: true, ..self }
    }
}

impl<const N: usize> From<[Bytes; N]> for Pieces {
    fn from(pieces: [Bytes; N]) -> Self {
        pieces.into_iter().collect()
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        Self { pieces, is_open_ended: false }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_open_ended {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.remaining() as u64).sum())
    }
}

/// The one header that most requests have besides those every request has.
pub(crate) type Header = Option<(HeaderName, &'static str)>;
/// All of them.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// No such header.
pub(crate) const NOTHING: Header = None;

/// What a registry answered, its body drained.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    location: Option<HeaderValue>,
    length: u64,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Refuses every other status.
    pub(crate) fn expect(self, status: StatusCode) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        bail!("{} where {} was expected", self.status, status)
    }

    /// Refuses a body of another length.
    pub(crate) fn of_length(self, length: u64) -> Result<Self> {
        if self.length == length {
            return Ok(self);
        }
        bail!("{} bytes where {length} were expected", self.length)
    }

    /// Where the client is told to go on, as path and query.
    pub(crate) fn location(&self) -> Result<&str> {
        let location = self.location.as_ref().context("no Location in the answer")?.to_str()?;
        let Some((_, rest)) = location.split_once("://") else { return Ok(location) };
        rest.find('/').and_then(|path| rest.get(path..)).context("no path in the Location of the answer")
    }
}

/// How long a download took, from its request on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Download {
    /// Until the first bytes of its body.
    pub(crate) first: Duration,
    /// Until the last.
    pub(crate) all: Duration,
}

/// Sends requests over one connection.
pub(crate) struct Client {
    sender: http1::SendRequest<Pieces>,
    host: HeaderValue,
}

impl Client {
    /// Sends a request that is all in its path, and drains the answer.
    pub(crate) async fn send(&mut self, method: Method, path: &str) -> Result<Answer> {
        self.send_with(method, path, NOTHING, Pieces::default()).await
    }

    /// Sends a request and drains the answer.
    pub(crate) async fn send_with(
        &mut self,
        method: Method,
        path: &str,
        header: Header,
        body: Pieces,
    ) -> Result<Answer> {
        self.send_headers(method, path, headers(header), body).await
    }

    /// Sends a request that has several headers of its own, or one made for it, and drains the answer.
    pub(crate) async fn send_headers(
        &mut self,
        method: Method,
        path: &str,
        headers: Headers,
        body: Pieces,
    ) -> Result<Answer> {
        let (head, mut body) = self.begin(method, path, headers, body).await?.into_parts();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(Answer { status: head.status, location: head.headers.get(LOCATION).cloned(), length })
    }

    /// Gets a body of a length and forgets it; when its first bytes came, and its last.
    pub(crate) async fn download(&mut self, path: &str, length: u64) -> Result<Download> {
        let begun = Instant::now();
        let response = self.get(path, NOTHING).await?;
        let (mut body, mut first, mut came) = (response.into_body(), None, 0);
        while let Some(frame) = body.frame().await {
            came += frame?.data_ref().map_or(0, |data| data.len() as u64);
            first = first.or_else(|| (came > 0).then(|| begun.elapsed()));
        }
        if came != length {
            bail!("{came} bytes where {length} were expected");
        }
        let all = begun.elapsed();
        Ok(Download { first: first.unwrap_or(all), all })
    }

    /// Gets a body and keeps it.
    pub(crate) async fn fetch(&mut self, path: &str, header: Header) -> Result<Bytes> {
        Ok(self.get(path, header).await?.into_body().collect().await?.to_bytes())
    }

    /// Gets a body of any length and forgets it; its digest.
    pub(crate) async fn digest(&mut self, path: &str) -> Result<Digest> {
        let mut body = self.get(path, NOTHING).await?.into_body();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        while let Some(frame) = body.frame().await {
            frame?.data_ref().into_iter().for_each(|data| hasher.update(data));
        }
        Ok(hasher.finish())
    }

    /// Gets a part of a body and keeps it.
    pub(crate) async fn fetch_range(&mut self, path: &str, range: Range<usize>) -> Result<Bytes> {
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        let headers = vec![(RANGE, HeaderValue::try_from(range)?)];
        let response = self.begin(Method::GET, path, headers, Pieces::default()).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            bail!("{} where {} was expected", response.status(), StatusCode::PARTIAL_CONTENT);
        }
        Ok(response.into_body().collect().await?.to_bytes())
    }

    async fn get(&mut self, path: &str, header: Header) -> Result<Response<Incoming>> {
        let response = self.begin(Method::GET, path, headers(header), Pieces::default()).await?;
        if response.status() != StatusCode::OK {
            bail!("GET {path}: {} where {} was expected", response.status(), StatusCode::OK);
        }
        Ok(response)
    }

    async fn begin(
        &mut self,
        method: Method,
        path: &str,
        headers: Headers,
        body: Pieces,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(body)?).await?)
    }
}

fn headers(header: Header) -> Headers {
    header.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// As it is, or over TLS.
type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection and the client that uses it.
pub(crate) struct Connection {
    client: Client,
    driver: http1::Connection<TokioIo<Stream>, Pieces>,
}

impl Connection {
    /// Connects to `address` (`host:port`).
    pub(crate) async fn open(address: &str) -> Result<Self> {
        Self::open_over(None, address).await
    }

    /// The same, over TLS if there is one.
    pub(crate) async fn open_over(tls: Option<&Tls>, address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let stream = match tls {
            None => Either::Left(stream),
            Some(tls) => Either::Right(Box::new(tls.connect(stream).await?)),
        };
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { client: Client { sender, host: HeaderValue::from_str(address)? }, driver })
    }

    /// Lets the client do `work`.
    pub(crate) async fn with<T>(&mut self, work: impl AsyncFnOnce(&mut Client) -> Result<T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work(&mut self.client) => done,
            ended = &mut self.driver => {
                ended?;
                Err(anyhow!("the registry closed the connection"))
            }
        }
    }
}

/// What came of one stretch of load.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// How long each unit of work took, in nanoseconds, shortest first.
    pub(crate) latencies: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
}

/// Opens the connections of `work`; each has answered once, where repeating the work leaves nothing behind.
pub(crate) async fn connect(address: &str, work: &Work, data: &Data) -> Result<Vec<Connection>> {
    connect_over(None, address, work, data).await
}

/// The same, over TLS if there is one.
pub(crate) async fn connect_over(
    tls: Option<&Tls>,
    address: &str,
    work: &Work,
    data: &Data,
) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(work.clients);
    for _ in 0..work.clients {
        let mut connection = Connection::open_over(tls, address).await?;
        if !work.task.writes() {
            connection.with(async |client| work.task.once(data, client).await).await?;
        }
        connections.push(connection);
    }
    Ok(connections)
}

/// Repeats `work` on every connection until `length` has passed; what was begun is finished.
pub(crate) async fn repeat(
    connections: &mut [Connection],
    work: &Work,
    data: &Data,
    length: Duration,
) -> Result<Stretch> {
    let end = Instant::now() + length;
    repeat_while(connections, work, data, &|| Instant::now() < end).await
}

/// Repeats `work` on every connection as long as it is to go on; what was begun is finished.
pub(crate) async fn repeat_while(
    connections: &mut [Connection],
    work: &Work,
    data: &Data,
    goes_on: &dyn Fn() -> bool,
) -> Result<Stretch> {
    let start = Instant::now();
    let clients: FuturesUnordered<_> = connections
        .iter_mut()
        .map(|connection| connection.with(async |client| again(goes_on, work, data, client).await))
        .collect();
    let mut latencies: Vec<u64> = clients.try_concat().await?;
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    Ok(Stretch { latencies, elapsed })
}

async fn again(
    goes_on: &dyn Fn() -> bool,
    work: &Work,
    data: &Data,
    client: &mut Client,
) -> Result<Vec<u64>> {
    let mut latencies = Vec::with_capacity(1 << 12);
    let mut begun = Instant::now();
    loop {
        work.task.once(data, client).await?;
        let now = Instant::now();
        latencies.push(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
        begun = now;
        if !goes_on() {
            return Ok(latencies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_length_unless_it_must_not() {
        let pieces = || Pieces::from([Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
        assert_eq!(pieces().size_hint().exact(), Some(3));
        assert_eq!(pieces().of_unknown_length().size_hint().exact(), None);
    }
}
