// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Traces: the spans of a request, and what takes them to a collector.
//!
//! A span is one of `tracing` with the target [`TARGET`], so an application that embeds the registry sees it with
//! the subscriber it has. In the program they are handed to OpenTelemetry from [`Traces::start`] on; without it
//! they do not exist, and a place that would make one asks a flag.
//! A trace begins with a request, in the trace of its client if there is one. Work in the background has none.
//! Guarantees: no request waits for the collector; spans that find the queue full are counted and lost.
//! Never: credentials, query strings, bodies.

mod export;

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Uri};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanBuilder, TraceContextExt as _, TraceId, Tracer};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span as Started};
use tracing::subscriber::Interest;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context as InSubscriber, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

pub use export::Exporting;

/// The target of every span of a trace.
pub const TARGET: &str = "stowage::traces";

/// Where traces go, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where a collector takes OTLP over HTTP: the whole URL.
    pub collector: Uri,
    /// Which share of the requests whose client has not decided it, from 0 to 1.
    pub share: f64,
    /// Name of the registry.
    pub registry: String,
    /// Its namespace, in a cluster.
    pub namespace: Option<String>,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The exporter, or a variable of the environment that it reads.
    #[error("export of traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// There is nobody to trust.
    #[error("certificate authorities of the system, for spec.telemetry.otlpEndpoint")]
    Authorities(#[source] std::io::Error),
    /// They are sent already.
    #[error("traces are sent already")]
    Twice,
}

/// The traces of a process; none until they are started. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Traces(Arc<OnceLock<SdkTracer>>);

impl Traces {
    /// What takes spans up in a subscriber.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.clone())
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(Wanted(self.clone()))
    }
}

impl Tracer for Traces {
    type Span = Started;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Started {
        let tracer = self.0.get().expect("before there is a tracer, no span is wanted");
        tracer.build_with_context(builder, parent)
    }
}

/// Our spans, as soon as there is somebody to send them.
struct Wanted(Traces);

impl Wanted {
    fn holds(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && metadata.is_span() && self.0.0.get().is_some()
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &InSubscriber<'_, S>) -> bool {
        self.holds(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.holds(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

/// Puts the span of a request into the trace of its client, if the headers name one (W3C Trace Context). To be
/// called before anything else is done with the span.
pub(crate) fn follow(span: &Span, headers: &HeaderMap) {
    let named = headers.get("traceparent").is_some_and(|header| is_traceparent(header.as_bytes()));
    if span.is_disabled() || !named {
        return;
    }
    let client = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    if client.span().span_context().is_valid() {
        // A subscriber without OpenTelemetry has no use for it.
        span.set_parent(client).unwrap_or_default();
    }
}

/// Whether the ids have the length that they must have: the propagator takes shorter ones, and fills them up.
fn is_traceparent(header: &[u8]) -> bool {
    let Some(known) = header.get(..55) else { return false };
    let parts = known.split(|byte| *byte == b'-');
    let is_hex = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    parts.clone().all(is_hex) && parts.map(<[u8]>::len).eq([2, 32, 16, 2])
}

/// Gives the span the name that is known by now.
pub(crate) fn name(span: &Span, name: &'static str) {
    // A field would do only before the span has begun.
    span.context().span().update_name(name);
}

/// The id of the trace that the span is in: 32 hexadecimal digits.
pub(crate) fn id(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// Whether this is done for a request that may be traced: only then is there a span to be a child of.
pub(crate) fn are_taken() -> bool {
    !Span::current().is_none()
}

/// Notes that what the span is about has failed.
pub(crate) fn failed(span: &Span, error: &dyn std::error::Error) {
    if !span.is_disabled() {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_a_client_is_followed_only_if_it_is_whole() {
        let whole = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(whole.as_bytes()));
        assert!(is_traceparent(format!("{}-of-a-later-version", whole.replacen("00", "01", 1)).as_bytes()));
        for broken in [
            "",
            "00-0af7-b7ad-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
        ] {
            assert!(!is_traceparent(broken.as_bytes()), "{broken}");
        }
    }
}
