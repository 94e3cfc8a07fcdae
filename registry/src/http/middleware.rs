// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every request goes through, whatever it asks for.
//!
//! Outermost first: count, trace and log, when the last byte of the answer is gone → the headers that every answer
//! has → a panic becomes a 500, so that the connection lives → limits on the request's head → a slot, held
//! until the answer is gone. Limits come inside the headers, so that refusals have them too.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use stowage_oci::Name;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument as _, Span};
use uuid::{Builder, Uuid};

use super::error::Failure;
use super::metrics::Metrics;
use super::{DataPort, respond, span};
use crate::ops::traces;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request target, in bytes.
const MAX_URI: usize = 8 << 10;
/// The longest headers together, in bytes.
const MAX_HEADERS: usize = 16 << 10;
/// The longest request id that is taken over from a client or proxy.
const MAX_REQUEST_ID: usize = 128;

/// What the access line says of a request, as far as it came. Travels with the response.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) operation: &'static str,
    pub(super) repository: Option<Name>,
    pub(super) subject: Option<String>,
    /// The policies that grant it.
    pub(super) granted_by: Vec<Arc<str>>,
    /// What a mirror did for it.
    pub(super) mirror: Option<MirrorFacts>,
}

/// Which mirror answered, and from where.
#[derive(Clone, Debug)]
pub(super) struct MirrorFacts {
    pub(super) name: String,
    pub(super) result: &'static str,
}

impl Facts {
    /// Those of a request that is no operation.
    fn of_path(path: &str) -> Self {
        let operation = if path == "/token" { "token" } else { "none" };
        Self { operation, repository: None, subject: None, granted_by: Vec::new(), mirror: None }
    }
}

/// The layer.
pub(super) async fn around(State(port): State<DataPort>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    port.metrics.request_begins();
    let path = request.uri().path();
    let (is_api, no_operation) = (is_api(path), Facts::of_path(path));
    let id = request_id(request.headers());
    let client = client(&request);
    let span = span::of(&request, &id);
    let (mut response, slot) = guarded(&port, request, next).instrument(span.clone()).await;
    let facts = response.extensions_mut().remove::<Facts>().unwrap_or(no_operation);
    let headers = response.headers_mut();
    if is_api {
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, id.clone());
    if respond::is_degraded(headers) {
        port.metrics.read_degraded(facts.operation);
    }
    let code = response.status().as_u16();
    let metrics = Arc::clone(&port.metrics);
    let record = Record { metrics, begun, id, client, code, facts, bytes: 0, span, _slot: slot };
    response.map(|body| Body::new(Observed { body, record }))
}

fn is_api(path: &str) -> bool {
    path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Who is at the other end of the connection. What a header says of it anybody could have written.
fn client(request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(address)| address.ip().to_canonical())
}

/// The client's own id, if it is one that a log can take, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |value: &&HeaderValue| {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(plain)
    };
    let own = || HeaderValue::from_str(&new_id().to_string()).expect("a UUID is visible ASCII");
    headers.get(REQUEST_ID).filter(is_plain).cloned().unwrap_or_else(own)
}

/// From the generator of this thread: the system's costs a call of the kernel for each request.
fn new_id() -> Uuid {
    Builder::from_random_bytes(rand::random()).into_uuid()
}

/// The answer, and the slot it holds.
async fn guarded(port: &DataPort, request: Request, next: Next) -> (Response, Option<OwnedSemaphorePermit>) {
    if let Err(failure) = check_head(&request) {
        return (failure.into_response(None), None);
    }
    let Some(slot) = port.slots.try_one() else {
        return (Failure::Busy.into_response(None), None);
    };
    // What a panic left half-done is dropped with the request; what is shared guards itself.
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answer.unwrap_or_else(|panic| {
        tracing::error!(error = panic_text(&*panic), "request panicked");
        Failure::Panicked.into_response(None)
    });
    (response, Some(slot))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic without a text")
}

fn check_head(request: &Request) -> Result<(), Failure> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_URI {
        return Err(Failure::UriTooLong(MAX_URI));
    }
    // Each line has a colon, a space and a line break.
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if lines.sum::<usize>() > MAX_HEADERS { Err(Failure::HeadersTooLarge(MAX_HEADERS)) } else { Ok(()) }
}

/// An answer on its way; when it is gone, the request is counted and logged.
struct Observed {
    body: Body,
    record: Record,
}

struct Record {
    /// Not all of the port: an answer may outlive it.
    metrics: Arc<Metrics>,
    begun: Instant,
    id: HeaderValue,
    client: Option<IpAddr>,
    code: u16,
    facts: Facts,
    bytes: u64,
    span: Span,
    _slot: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, record } = self.get_mut();
        let frame = record.span.in_scope(|| Pin::new(body).poll_frame(cx));
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                // The head is sent; all that is left is to break the connection.
                tracing::error!(error = error as &dyn std::error::Error, request.id = ?record.id, "answer broke off");
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        span::end(&self.span, &self.facts, self.code, self.bytes);
        let granted_by = &self.facts.granted_by;
        let granted_by = (!granted_by.is_empty()).then(|| granted_by.join(" "));
        self.metrics.request_ends(self.facts.operation, self.code, duration.as_secs_f64());
        tracing::info!(
            request.id = self.id.to_str().unwrap_or_default(),
            http.operation = self.facts.operation,
            http.status = self.code,
            client.address = self.client.map(tracing::field::display),
            identity.subject = self.facts.subject,
            access.policies = granted_by,
            repo.name = self.facts.repository.as_ref().map(Name::as_str),
            mirror.name = self.facts.mirror.as_ref().map(|mirror| mirror.name.as_str()),
            mirror.result = self.facts.mirror.as_ref().map(|mirror| mirror.result),
            trace_id = traces::id(&self.span),
            bytes = self.bytes,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "request answered"
        );
    }
}
