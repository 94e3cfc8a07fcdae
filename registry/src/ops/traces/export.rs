// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! From the end of a span to a collector: a bounded queue, and a task that empties it.
//!
//! Guarantees: whoever ends a span never waits. Every span is counted once: sent, dropped (the queue was full), or
//! failed (the collector did not take it, after a few attempts). The log says when spans begin to be lost and
//! when that is over, and nothing in between.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Settings, Traces, TracesError};
use crate::ops::metrics::Metrics;
use crate::ops::tasks::Tasks;

/// Spans that wait at most.
const QUEUE: usize = 4096;
/// Spans in one export at most.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const GATHERING: Duration = Duration::from_secs(1);
/// For one export, with all its attempts.
const PATIENCE: Duration = Duration::from_secs(10);

impl Traces {
    /// From now on there are spans, and they are sent.
    pub fn start(&self, settings: &Settings, metrics: &Metrics) -> Result<Exporting, TracesError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let resource = resource(settings);
        let mut exporter = exporter(settings)?;
        exporter.set_resource(&resource);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.share)));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler)
            .with_span_processor(Queue { sender, dropped: metrics.trace_spans("dropped") })
            .build();
        let scope = InstrumentationScope::builder("stowage").with_version(env!("CARGO_PKG_VERSION")).build();
        self.0.set(provider.tracer_with_scope(scope)).map_err(|_already| TracesError::Twice)?;
        // Places that were told that nobody wants their spans are told anew.
        tracing::callsite::rebuild_interest_cache();
        let exporting = Exporting { tasks: Tasks::new() };
        let export = Export::new(exporter, receiver, metrics);
        drop(exporting.tasks.spawn(export.run(exporting.tasks.stopping())));
        Ok(exporting)
    }
}

/// Who sends the traces, by the conventions of OpenTelemetry; `OTEL_RESOURCE_ATTRIBUTES` can say more.
fn resource(settings: &Settings) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let facts = [
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("service.instance.id", Some(Uuid::new_v4().to_string())),
        ("host.name", Some(host)),
        ("k8s.namespace.name", settings.namespace.clone()),
        ("stowage.registry", Some(settings.registry.clone())),
    ];
    let known = facts.into_iter().filter_map(|(name, value)| Some(KeyValue::new(name, value?)));
    Resource::builder().with_service_name("stowage-registry").with_attributes(known).build()
}

fn exporter(settings: &Settings) -> Result<OtlpExporter, TracesError> {
    let builder = OtlpExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(PATIENCE)
        .with_endpoint(settings.collector.to_string());
    let builder = if settings.collector.scheme() == Some(&http::uri::Scheme::HTTPS) {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(TracesError::Authorities)?
            .https_only()
            .enable_http1()
            .build();
        builder.with_http_client(HyperClient::new(connector, PATIENCE, None))
    } else {
        builder.with_http_client(HyperClient::with_default_connector(PATIENCE, None))
    };
    Ok(builder.build()?)
}

/// Where spans end.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    // What is queued is sent by the task, which `Exporting` waits for without holding a thread.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that sends spans.
#[derive(Debug)]
pub struct Exporting {
    tasks: Tasks,
}

impl Exporting {
    /// Sends what has ended by now, for as long as `grace` at most. Spans that end later are lost.
    pub async fn finish(self, grace: Duration) {
        self.tasks.stop();
        if !self.tasks.wait(grace).await {
            tracing::warn!("some traces were not sent");
        }
    }
}

struct Export {
    exporter: OtlpExporter,
    receiver: mpsc::Receiver<SpanData>,
    batch: Vec<SpanData>,
    sent: Counter,
    dropped: Counter,
    failed: Counter,
    /// Spans lost before the last export.
    lost: u64,
    losing: bool,
}

impl Export {
    fn new(exporter: OtlpExporter, receiver: mpsc::Receiver<SpanData>, metrics: &Metrics) -> Self {
        let [sent, dropped, failed] = ["sent", "dropped", "failed"].map(|result| metrics.trace_spans(result));
        Self { exporter, receiver, batch: Vec::new(), sent, dropped, failed, lost: 0, losing: false }
    }

    /// Sends until it is told to stop, then what is left.
    async fn run(mut self, stopping: CancellationToken) {
        while stopping.run_until_cancelled(self.gather()).await.is_some() && !self.batch.is_empty() {
            self.send().await;
        }
        self.receiver.close();
        while self.receive().await > 0 || !self.batch.is_empty() {
            self.send().await;
        }
    }

    /// Waits for spans, and a little for more. Cancelled, it keeps what it has.
    async fn gather(&mut self) {
        self.receive().await;
        let more = async { while self.receive().await > 0 {} };
        // Either way there is something to send.
        timeout(GATHERING, more).await.unwrap_or_default();
    }

    /// Adds what is queued to the batch; waits for it if that is nothing. The number of spans received: none when
    /// the batch is full, or no more will come.
    async fn receive(&mut self) -> usize {
        match BATCH.saturating_sub(self.batch.len()) {
            0 => 0,
            room => self.receiver.recv_many(&mut self.batch, room).await,
        }
    }

    async fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        let counter = if outcome.is_ok() { &self.sent } else { &self.failed };
        counter.inc_by(count);
        self.note(outcome.err().as_ref());
    }

    /// Logs when spans begin to be lost, and when that is over.
    fn note(&mut self, error: Option<&OTelSdkError>) {
        let lost = self.dropped.get() + self.failed.get();
        let losing = lost > self.lost;
        self.lost = lost;
        if losing && !self.losing {
            let error =
                error.map_or_else(|| "they come faster than they are taken".to_owned(), ToString::to_string);
            tracing::warn!(error, "traces are lost");
        } else if self.losing && !losing {
            tracing::info!(spans = lost, "traces are sent again");
        }
        self.losing = losing;
    }
}
