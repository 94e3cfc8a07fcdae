// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Listeners: connections in, requests answered over HTTP/1.1 and HTTP/2, in clear or over TLS.
//!
//! Guarantees: a client has 10 s to say something that can be a request; an answer that makes no progress for
//! five minutes is cut. A new certificate holds from the next connection on. A request that two parsers could read
//! differently is refused (see `framing`).
//! Ending: first no new connections, while those that answer something finish; then, when time is up, none.

mod framing;
mod head;
mod patient;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use framing::Framed;
use head::{HeadTimer, Said};
use patient::Patient;

/// For the head of a request, and for a TLS handshake.
const HEAD: Duration = Duration::from_secs(10);
/// For a connection to rest between two requests: longer than proxies keep theirs.
const IDLE: Duration = Duration::from_mins(2);
/// For a client to take something of its answer.
const STALL: Duration = Duration::from_mins(5);
/// What HTTP/1 reads and writes at once; longer heads are refused before they are read whole.
const BUFFER: usize = 128 << 10;
const MAX_HEADERS: u32 = 16 << 10;
/// What a client may send on one HTTP/2 stream, and on all of a connection, before we have taken it.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const PING: Duration = Duration::from_secs(20);
/// Before connections are accepted again when the system has no more files to give.
const PAUSE: Duration = Duration::from_millis(100);

/// The certificate in force, if any. Whoever holds it can put in a new one.
pub type Certificate = Arc<ArcSwapOption<ServerConfig>>;

/// When a listener ends. Clones are of the same end.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Clients are asked, with each answer, to take another connection next time.
    pub leave: CancellationToken,
    /// No new connections; those that answer something finish.
    pub drain: CancellationToken,
    /// What is not finished is cut.
    pub cut: CancellationToken,
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    certificate: Certificate,
}

impl Listener {
    /// Opens the port. Where the system has no IPv6, `[::]` is every IPv4 address.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = match TcpListener::bind(address).await {
            Err(error) if address.ip().is_ipv6() && address.ip().is_unspecified() && is_no_ipv6(&error) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?
            }
            bound => bound?,
        };
        Ok(Self { tcp, certificate: Certificate::default() })
    }

    /// Over TLS, when there is a certificate at the time a connection comes in.
    #[must_use]
    pub fn with_certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = certificate;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `end`; each connection by what `service` makes for its peer.
    pub async fn serve<S, B>(self, service: impl Fn(SocketAddr) -> S, end: End)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
    {
        let connections = TaskTracker::new();
        while let Some(accepted) = end.drain.run_until_cancelled(self.tcp.accept()).await {
            match accepted {
                Ok((tcp, peer)) => {
                    let (certificate, end) = (self.certificate.load_full(), end.clone());
                    connections.spawn(connection(tcp, peer, certificate, service(peer), end));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self.tcp);
        connections.close();
        connections.wait().await;
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

async fn connection<S, B>(
    tcp: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<ServerConfig>>,
    service: S,
    end: End,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, client.address = %peer, "a connection keeps its delay");
    }
    let served = match certificate {
        None => converse(tcp, service, &end).await,
        Some(config) => match tokio::time::timeout(HEAD, TlsAcceptor::from(config).accept(tcp)).await {
            Ok(Ok(tls)) => converse(tls, service, &end).await,
            Ok(Err(error)) => Err(error.into()),
            Err(elapsed) => Err(elapsed.into()),
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, client.address = %peer, "a connection broke off");
    }
}

/// Answers the requests of one connection.
async fn converse<I, S, B>(
    io: I,
    service: S,
    end: &End,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    let said = Said::default();
    let builder = builder(Arc::clone(&said));
    let io = Patient::new(Framed::new(io), said, HEAD, STALL);
    let service = leaving(service, end.leave.clone());
    let conversation = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(conversation);
    tokio::select! {
        ended = conversation.as_mut() => return ended,
        () = end.drain.cancelled() => conversation.as_mut().graceful_shutdown(),
    }
    end.cut.run_until_cancelled(conversation).await.unwrap_or(Ok(()))
}

/// Before HTTP/2 a client learns only from an answer that it shall not use the connection again. One that is not told
/// may send its next request while we close.
fn leaving<S, B>(
    service: S,
    leave: CancellationToken,
) -> impl Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
{
    service_fn(move |request: Request<Incoming>| {
        let is_told = request.version() <= Version::HTTP_11;
        let (answering, leave) = (service.call(request), leave.clone());
        async move {
            let mut answer = answering.await?;
            if is_told && leave.is_cancelled() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }
    })
}

fn builder(said: Said) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(HeadTimer::new(said, IDLE)).header_read_timeout(HEAD).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

#[cfg(test)]
mod tests;
