// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Requests over plain HTTP/1.1, on one connection a client and replica.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Load;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) header: Option<(HeaderName, &'static str)>,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), header: None, body: Bytes::new() }
    }

    pub(super) fn with_header(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(super) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }
}

/// No answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broke {
    /// No connection could be made: nothing was sent.
    Unreachable,
    /// It ended, or nothing came for too long.
    Midway,
}

type Sender = SendRequest<Full<Bytes>>;

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Connections {
    timeout: Duration,
    authorization: Option<HeaderValue>,
    idle: HashMap<String, Sender>,
    /// They carry the connections, and end with them.
    drivers: JoinSet<()>,
}

impl Connections {
    pub(super) fn of(load: &Load) -> Self {
        let basic = |(user, password): &(String, String)| {
            let encoded = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("{user}:{password}"),
            );
            HeaderValue::try_from(format!("Basic {encoded}")).expect("base64 is visible ASCII")
        };
        Self {
            timeout: load.timeout,
            authorization: load.login.as_ref().map(basic),
            idle: HashMap::new(),
            drivers: JoinSet::new(),
        }
    }

    /// Closes all: whatever is on its way is broken off.
    pub(super) fn close(&mut self) {
        self.idle.clear();
        self.drivers.abort_all();
    }

    /// Sends a request to `address` and reads the answer. The connection is kept for the next one; one that was closed
    /// meanwhile has carried nothing of the request, which goes over a new one then.
    pub(super) async fn ask(&mut self, address: &str, ask: &Ask) -> Result<Answer, Broke> {
        while self.drivers.try_join_next().is_some() {}
        if let Some(mut idle) = self.idle.remove(address)
            && idle.ready().await.is_ok()
        {
            match self.exchange(idle, address, ask).await {
                Err(Broke::Unreachable) => {}
                done => return done,
            }
        }
        let new = self.connect(address).await?;
        self.exchange(new, address, ask).await
    }

    async fn exchange(&mut self, mut sender: Sender, address: &str, ask: &Ask) -> Result<Answer, Broke> {
        let exchange = async {
            let (head, body) = sender.send_request(self.request(address, ask)).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        match timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => {
                self.idle.insert(address.to_owned(), sender);
                Ok(answer)
            }
            // hyper tells when it did not begin to send.
            Ok(Err(error)) if error.is_canceled() => Err(Broke::Unreachable),
            Ok(Err(_)) | Err(_) => Err(Broke::Midway),
        }
    }

    async fn connect(&mut self, address: &str) -> Result<Sender, Broke> {
        let connected = timeout(self.timeout, async {
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            http1::handshake(TokioIo::new(stream)).await.ok()
        });
        let (sender, driver) = connected.await.ok().flatten().ok_or(Broke::Unreachable)?;
        // How it ended is told to whoever waits for an answer.
        self.drivers.spawn(async move { drop(driver.await) });
        Ok(sender)
    }

    fn request(&self, address: &str, ask: &Ask) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.target.parse().expect("targets are made of names, digests and locations");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(address).expect("an address is visible ASCII"));
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        headers.extend(ask.header.clone().map(|(name, value)| (name, HeaderValue::from_static(value))));
        request
    }
}
