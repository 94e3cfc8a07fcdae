// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The span of a request: what a trace says of it, in the words of OpenTelemetry's conventions for HTTP and in ours.
//!
//! Never: the query, which may hold what is not for others, and headers beyond host and user agent.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use http::header::{HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};
use stowage_oci::Name;
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::middleware::Facts;
use crate::ops::traces::{self, TARGET};

/// The span of a request, in the trace of its client if it names one.
pub(super) fn of(request: &Request, id: &HeaderValue) -> Span {
    let host = host(request);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer);
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = method(request.method()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method(request.method()),
        http.response.status_code = Empty,
        http.response.body.size = Empty,
        url.path = request.uri().path(),
        url.scheme = request.uri().scheme_str(),
        server.address = host.as_ref().map(Authority::host),
        server.port = host.as_ref().and_then(Authority::port_u16).map(i64::from),
        client.address = peer.map(|peer| tracing::field::display(peer.ip().to_canonical())),
        network.protocol.version = version(request.version()),
        user_agent.original = text(request.headers(), &USER_AGENT),
        request.id = id.to_str().ok(),
        http.operation = Empty,
        repo.name = Empty,
        identity.subject = Empty,
    );
    traces::follow(&span, request.headers());
    span
}

/// Says how the request ended.
pub(super) fn end(span: &Span, facts: &Facts, status: u16, bytes: u64) {
    if span.is_disabled() {
        return;
    }
    // A path that is no operation gives no name: there is no end of such paths.
    if facts.operation != "none" {
        traces::name(span, facts.operation);
    }
    span.record("http.operation", facts.operation);
    span.record("repo.name", facts.repository.as_ref().map(Name::as_str));
    span.record("identity.subject", facts.subject.as_deref());
    span.record("http.response.status_code", i64::from(status));
    span.record("http.response.body.size", i64::try_from(bytes).unwrap_or(i64::MAX));
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The methods that there are; any other is one that a client made up.
fn method(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if known.contains(method) { method.as_str() } else { "_OTHER" }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

fn host(request: &Request) -> Option<Authority> {
    let named = || text(request.headers(), &HOST).and_then(|host| host.parse().ok());
    request.uri().authority().cloned().or_else(named)
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
