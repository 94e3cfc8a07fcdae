// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is counted beside requests, for Prometheus.
//!
//! Names and labels are promises: base units, counters end in `_total`, labels are words of ours and never a
//! repository, tag, digest or user.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds from one millisecond to beyond the longest transfer that is common.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

#[derive(Clone, Copy)]
struct Timer;

impl MetricConstructor<Histogram> for Timer {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StoreAsked {
    store: &'static str,
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StoreOperation {
    store: &'static str,
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Document {
    hash: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DependencyLabel {
    dependency: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

/// What is counted beside requests. Cheap to clone; clones share the counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    store_requests: Family<StoreAsked, Counter>,
    store_duration: Family<StoreOperation, Histogram, Timer>,
    pool_connections: Gauge,
    pool_wait: Histogram,
    config: Family<Document, Gauge>,
    config_rejected: Gauge,
    dependency_up: Family<DependencyLabel, Gauge>,
    trace_spans: Family<Ended, Counter>,
}

impl Metrics {
    /// New metrics, served with `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            store_requests: Family::default(),
            store_duration: Family::new_with_constructor(Timer),
            pool_connections: Gauge::default(),
            pool_wait: Histogram::new(SECONDS),
            config: Family::default(),
            config_rejected: Gauge::default(),
            dependency_up: Family::default(),
            trace_spans: Family::default(),
        };
        registry.register(
            "stowage_store_requests",
            "Requests to the blob store",
            metrics.store_requests.clone(),
        );
        registry.register(
            "stowage_store_request_duration_seconds",
            "Time that the blob store took",
            metrics.store_duration.clone(),
        );
        registry.register(
            "stowage_db_pool_connections",
            "Connections to the database",
            metrics.pool_connections.clone(),
        );
        registry.register(
            "stowage_db_pool_wait_seconds",
            "Waiting for a connection",
            metrics.pool_wait.clone(),
        );
        registry.register("stowage_config_info", "The document in force", metrics.config.clone());
        registry.register(
            "stowage_config_rejected",
            "Whether the newest configuration was refused",
            metrics.config_rejected.clone(),
        );
        registry.register(
            "stowage_dependency_up",
            "Whether a dependency answers",
            metrics.dependency_up.clone(),
        );
        registry.register(
            "stowage_trace_spans",
            "Spans of traces by what became of them",
            metrics.trace_spans.clone(),
        );
        for result in ["sent", "dropped", "failed"] {
            drop(metrics.trace_spans(result));
        }
        metrics
    }

    /// The blob store was asked.
    pub fn store_asked(
        &self,
        store: &'static str,
        operation: &'static str,
        result: &'static str,
        took: Duration,
    ) {
        self.store_requests.get_or_create(&StoreAsked { store, operation, result }).inc();
        self.store_duration.get_or_create(&StoreOperation { store, operation }).observe(took.as_secs_f64());
    }

    /// Connections that the pool holds.
    pub fn pool_connections(&self, connections: u32) {
        self.pool_connections.set(i64::from(connections));
    }

    /// Somebody waited for a connection.
    pub fn pool_waited(&self, waited: Duration) {
        self.pool_wait.observe(waited.as_secs_f64());
    }

    /// The document in force, and whether a newer one was refused.
    pub fn config(&self, hash: &str, rejected: bool) {
        self.config.clear();
        self.config.get_or_create(&Document { hash: hash.to_owned() }).set(1);
        self.config_rejected.set(i64::from(rejected));
    }

    /// Counts spans that were sent, dropped because too many waited, or failed to be sent.
    #[must_use]
    pub fn trace_spans(&self, result: &'static str) -> Counter {
        self.trace_spans.get_or_create_owned(&Ended { result })
    }

    /// Whether a dependency answers.
    pub fn dependency(&self, dependency: &'static str, up: bool) {
        self.dependency_up.get_or_create(&DependencyLabel { dependency }).set(i64::from(up));
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ObjectKind {
    kind: &'static str,
}

/// What collectors count. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct CollectionMetrics {
    deleted: Family<ObjectKind, Counter>,
    reclaimed: Counter,
    pending: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    frozen: Gauge,
}

/// What retention did, by policy.
#[derive(Clone, Debug, Default)]
pub struct RetentionMetrics {
    kept: Family<OfPolicy, Counter>,
    deleted: Family<OfPolicy, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPolicy {
    policy: String,
}

impl RetentionMetrics {
    /// New metrics, served with `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("stowage_retention_kept", "Tags that a rule kept", metrics.kept.clone());
        registry.register("stowage_retention_deleted", "Tags that a policy deleted", metrics.deleted.clone());
        metrics
    }

    /// There is such a policy: so that its first deletion is an increase.
    pub fn exists(&self, policy: &str) {
        self.ran(policy, 0, 0);
    }

    /// A run of a policy ended.
    pub fn ran(&self, policy: &str, kept: u64, deleted: u64) {
        let of = OfPolicy { policy: policy.to_owned() };
        self.kept.get_or_create(&of).inc_by(kept);
        self.deleted.get_or_create(&of).inc_by(deleted);
    }
}

/// What was promoted without being asked for, by policy and how it ended.
#[derive(Clone, Debug, Default)]
pub struct PromotionMetrics {
    ended: Family<OfPromotion, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPromotion {
    policy: String,
    result: &'static str,
}

impl PromotionMetrics {
    /// New metrics, served with `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Promotions that the registry began, by how they ended";
        registry.register("stowage_promotions", help, metrics.ended.clone());
        metrics
    }

    /// A promotion by a policy ended so.
    pub fn ended(&self, policy: &str, result: &'static str) {
        self.ended.get_or_create(&OfPromotion { policy: policy.to_owned(), result }).inc();
    }
}

impl CollectionMetrics {
    /// New metrics, served with `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        const KINDS: [&str; 10] =
            ["blob", "epoch", "link", "manifest", "marker", "referrer", "run", "tag", "tombstone", "upload"];
        let metrics = Self::default();
        // So that the first deletion is an increase.
        for kind in KINDS {
            metrics.deleted(kind, 0);
        }
        registry.register("stowage_gc_deleted", "Objects deleted", metrics.deleted.clone());
        registry.register("stowage_gc_reclaimed_bytes", "Bytes of deleted blobs", metrics.reclaimed.clone());
        registry.register(
            "stowage_gc_pending",
            "What is due and waits for a collector",
            metrics.pending.clone(),
        );
        registry.register(
            "stowage_gc_oldest_due_seconds",
            "For how long the oldest of what is due has waited",
            metrics.oldest.clone(),
        );
        registry.register(
            "stowage_gc_frozen",
            "Whether collection is refused for safety",
            metrics.frozen.clone(),
        );
        metrics
    }

    /// Objects of a kind were deleted.
    pub fn deleted(&self, kind: &'static str, objects: u64) {
        self.deleted.get_or_create(&ObjectKind { kind }).inc_by(objects);
    }

    /// Bytes of blobs were deleted.
    pub fn reclaimed(&self, bytes: u64) {
        self.reclaimed.inc_by(bytes);
    }

    /// What waits, and for how long the oldest of it.
    pub fn backlog(&self, pending: u64, oldest: Duration) {
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.oldest.set(oldest.as_secs_f64());
    }

    /// Whether collection is refused for safety.
    pub fn frozen(&self, frozen: bool) {
        self.frozen.set(i64::from(frozen));
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FindingKind {
    kind: &'static str,
}

/// What verification in this process looked at and found. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct VerificationMetrics {
    findings: Family<FindingKind, Counter>,
    objects: Counter,
    bytes: Counter,
}

impl VerificationMetrics {
    /// New metrics, served with `registry`; `kinds` are those of findings.
    #[must_use]
    pub fn register(registry: &mut Registry, kinds: impl IntoIterator<Item = &'static str>) -> Self {
        let metrics = Self::default();
        registry.register(
            "stowage_verify_findings",
            "Where database and blob store disagree",
            metrics.findings.clone(),
        );
        registry.register("stowage_verify_objects", "Objects listed to be verified", metrics.objects.clone());
        registry.register("stowage_verify_bytes", "Bytes read to be verified", metrics.bytes.clone());
        // An alert needs to see the rise from nothing.
        for kind in kinds {
            drop(metrics.findings.get_or_create(&FindingKind { kind }));
        }
        metrics
    }

    /// Something was found.
    pub fn found(&self, kind: &'static str) {
        self.findings.get_or_create(&FindingKind { kind }).inc();
    }

    /// So much more was looked at.
    pub fn looked_at(&self, objects: u64, bytes: u64) {
        self.objects.inc_by(objects);
        self.bytes.inc_by(bytes);
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MirrorAsked {
    mirror: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MirrorLabel {
    mirror: String,
}

/// What mirrors do. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct MirrorMetrics {
    requests: Family<MirrorAsked, Counter>,
    bytes: Family<MirrorLabel, Counter>,
}

impl MirrorMetrics {
    /// New metrics, served with `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "stowage_mirror_requests",
            "Requests for manifests and blobs of a mirror, by where the answer came from",
            metrics.requests.clone(),
        );
        registry.register(
            "stowage_mirror_upstream_bytes",
            "Bytes of manifests and blobs received from the upstream of a mirror",
            metrics.bytes.clone(),
        );
        metrics
    }

    /// A mirror that may be asked, and how it may answer: an alert needs to see the rise from nothing.
    pub fn known(&self, mirror: &str, results: impl IntoIterator<Item = &'static str>) {
        for result in results {
            drop(self.requests.get_or_create(&MirrorAsked { mirror: mirror.to_owned(), result }));
        }
        drop(self.bytes.get_or_create(&MirrorLabel { mirror: mirror.to_owned() }));
    }

    /// A request was answered so.
    pub fn answered(&self, mirror: &str, result: &'static str) {
        self.requests.get_or_create(&MirrorAsked { mirror: mirror.to_owned(), result }).inc();
    }

    /// So much came from the upstream.
    pub fn received(&self, mirror: &str, bytes: u64) {
        self.bytes.get_or_create(&MirrorLabel { mirror: mirror.to_owned() }).inc_by(bytes);
    }
}

/// All that is registered, in the text format of `OpenMetrics`.
#[must_use]
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("a String takes any text");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_and_labels_are_those_that_were_promised() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.store_asked("s3", "get", "ok", Duration::from_millis(1));
        metrics.config("sha256:old", false);
        metrics.config("sha256:new", true);
        metrics.dependency("database", true);
        let text = exposition(&registry);
        for line in [
            r#"stowage_store_requests_total{store="s3",operation="get",result="ok"} 1"#,
            r#"stowage_store_request_duration_seconds_count{store="s3",operation="get"} 1"#,
            "stowage_db_pool_connections 0",
            "stowage_db_pool_wait_seconds_count 0",
            r#"stowage_config_info{hash="sha256:new"} 1"#,
            "stowage_config_rejected 1",
            r#"stowage_dependency_up{dependency="database"} 1"#,
            r#"stowage_trace_spans_total{result="dropped"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("sha256:old"));
    }
}
