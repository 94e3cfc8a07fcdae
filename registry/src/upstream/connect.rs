// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Connections: directly to addresses that may be connected to, or through a proxy.
//!
//! Guarantees: what a name resolves to is judged in the same step in which it is connected to, so that a name cannot
//! mean one address when it is looked at and another when it is used. Addresses that are written out are judged by
//! [`literal`], which every hop goes through. Behind a proxy, names are the proxy's to resolve, and which networks it
//! reaches is for whoever runs it; its own address is configured, so it may be private.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;
use url::{Host, Url};

use super::settings::{Network, Settings};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests, over connections that it keeps for the next ones.
pub(super) type Http = Client<HttpsConnector<Dial>, Full<Bytes>>;

/// How long a connection that nobody uses is kept: shorter than servers keep theirs, mostly.
const IDLE: Duration = Duration::from_secs(30);

/// A client over such connections.
pub(super) fn client(settings: &Settings, proxy: Option<&Proxy>, tls: ClientConfig) -> Http {
    let network = if proxy.is_some() { Network::Any } else { settings.network };
    let mut tcp = HttpConnector::new_with_resolver(Guarded { network, resolver: GaiResolver::new() });
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_mins(1)));
    tcp.set_connect_timeout(Some(settings.patience.connect));
    let dial = match proxy {
        None => Dial::Direct(tcp),
        Some(proxy) => Dial::Tunnel(proxy.tunnel(tcp)),
    };
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(dial);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(settings.max_concurrent)
        .build(connector)
}

/// An address that must not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not on the public internet; set network to Any if it may be reached there")]
pub(super) struct NotPublic(String);

/// Judges an address that stands in a URL itself, which no resolver sees.
pub(super) fn literal(url: &Url, network: Network) -> Result<(), NotPublic> {
    let address: IpAddr = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if network.allows(address) { Ok(()) } else { Err(NotPublic(address.to_string())) }
}

/// The system's resolver, without the addresses that must not be connected to.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    network: Network,
    resolver: GaiResolver,
}

type Resolving = Pin<Box<dyn Future<Output = Result<std::vec::IntoIter<SocketAddr>, BoxError>> + Send>>;

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Resolving;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.resolver.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Resolving {
        let (host, network) = (name.to_string(), self.network);
        let resolving = self.resolver.call(name);
        Box::pin(async move {
            let all: Vec<SocketAddr> = resolving.await?.collect();
            let (allowed, refused): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|address| network.allows(address.ip()));
            match refused.first() {
                Some(address) if allowed.is_empty() => {
                    Err(NotPublic(format!("{host}, which is {},", address.ip())).into())
                }
                _ => Ok(allowed.into_iter()),
            }
        })
    }
}

/// How a connection is made.
#[derive(Clone, Debug)]
pub(super) enum Dial {
    Direct(HttpConnector<Guarded>),
    /// What goes through it, the proxy cannot see, requests without TLS apart.
    Tunnel(Tunnel<HttpConnector<Guarded>>),
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let connecting = tcp.call(target);
                Box::pin(async move { Ok(connecting.await?) })
            }
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(with_port(target));
                Box::pin(async move { Ok(connecting.await?) })
            }
        }
    }
}

/// A tunnel goes to port 443 where none is given, whatever the scheme.
fn with_port(target: Uri) -> Uri {
    let host = target.host().unwrap_or_default();
    if target.port().is_some() || target.scheme() != Some(&http::uri::Scheme::HTTP) {
        return target;
    }
    let named = format!("http://{host}:80/").parse();
    named.unwrap_or(target)
}

/// A proxy by `CONNECT`.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    address: Uri,
    authorization: Option<HeaderValue>,
}

/// What is wrong with the URL of a proxy. It may hold a password, so it is not shown.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the URL of the proxy must be http://[USER:PASSWORD@]HOST[:PORT]")]
pub(super) struct ProxyError;

impl Proxy {
    pub(super) fn parse(text: &str) -> Result<Self, ProxyError> {
        let url = Url::parse(text.trim()).map_err(|_shown| ProxyError)?;
        let (Some(host), "http") = (url.host_str(), url.scheme()) else { return Err(ProxyError) };
        let port = url.port_or_known_default().unwrap_or(80);
        let address = format!("http://{host}:{port}/").parse().map_err(|_shown| ProxyError)?;
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
        let authorization = url.password().map(|password| {
            let both = [decoded(url.username()), decoded(password)].join(&b':');
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(both)))
                .expect("base64 is visible ASCII");
            value.set_sensitive(true);
            value
        });
        Ok(Self { address, authorization })
    }

    fn tunnel(&self, tcp: HttpConnector<Guarded>) -> Tunnel<HttpConnector<Guarded>> {
        let tunnel = Tunnel::new(self.address.clone(), tcp);
        match &self.authorization {
            Some(value) => tunnel.with_auth(value.clone()),
            None => tunnel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(network: Network) -> Result<usize, String> {
        let mut guarded = Guarded { network, resolver: GaiResolver::new() };
        let found = guarded.call("localhost".parse().unwrap()).await;
        found.map(Iterator::count).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn w728_w787_a_name_of_a_private_address_does_not_resolve() {
        assert!(resolved(Network::Any).await.unwrap() > 0);
        let error = resolved(Network::Public).await.unwrap_err();
        assert!(error.starts_with("localhost, which is "), "{error}");
    }

    #[test]
    fn w728_w787_an_address_in_a_url_is_judged_however_it_is_spelled() {
        for private in [
            "http://127.0.0.1",
            "http://0x7f.1",
            "http://2130706433",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
            "http://169.254.169.254/latest",
        ] {
            let url = Url::parse(private).unwrap();
            assert!(literal(&url, Network::Public).is_err(), "{private}");
            assert!(literal(&url, Network::Any).is_ok(), "{private}");
        }
        assert!(literal(&Url::parse("http://8.8.8.8").unwrap(), Network::Public).is_ok());
    }

    #[test]
    fn a_proxy_is_a_plain_url_whose_password_is_not_shown() {
        let proxy = Proxy::parse("http://me:p%40ss@proxy.example.com:3128\n").unwrap();
        assert_eq!(proxy.address, "http://proxy.example.com:3128/");
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic bWU6cEBzcw==");
        assert!(!format!("{proxy:?}").contains("bWU6"));
        assert!(Proxy::parse("http://proxy.example.com").unwrap().authorization.is_none());
        for bad in ["", "proxy:3128", "https://proxy", "socks5://proxy"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tunnel_goes_to_the_port_of_the_scheme() {
        let of = |uri: &'static str| with_port(Uri::from_static(uri)).port_u16();
        assert_eq!(of("http://hub.example.com/v2/"), Some(80));
        assert_eq!(of("http://hub.example.com:5000/v2/"), Some(5000));
        assert_eq!(of("https://hub.example.com/v2/"), None);
    }
}
