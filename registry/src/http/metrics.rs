// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What of the data port is measured. Labels are operations and status codes, never names of clients.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper ends of the buckets, in seconds: from a look-up in memory to a large layer.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The data port's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<OperationLabel, Histogram>,
    in_flight: Gauge,
    degraded: Family<OperationLabel, Counter>,
    blob_bytes: Family<DirectionLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Direction {
    #[expect(non_camel_case_types, reason = "the variant is the label's text")]
    received,
    #[expect(non_camel_case_types, reason = "the variant is the label's text")]
    sent,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            degraded: Family::default(),
            blob_bytes: Family::default(),
        }
    }
}

impl Metrics {
    /// New metrics, served with `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("stowage_http_requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "stowage_http_request_duration_seconds",
            "Time from a request to the end of its answer",
            metrics.duration.clone(),
        );
        registry.register(
            "stowage_http_requests_in_flight",
            "Requests that are being answered",
            metrics.in_flight.clone(),
        );
        registry.register(
            "stowage_degraded_reads",
            "Reads answered from the blob store, because the database was not available",
            metrics.degraded.clone(),
        );
        registry.register("stowage_blob_bytes", "Bytes of blobs by direction", metrics.blob_bytes.clone());
        metrics
    }

    pub(super) fn request_begins(&self) {
        self.in_flight.inc();
    }

    pub(super) fn request_ends(&self, operation: &'static str, code: u16, seconds: f64) {
        self.in_flight.dec();
        self.requests.get_or_create(&RequestLabels { operation, code }).inc();
        self.duration.get_or_create(&OperationLabel { operation }).observe(seconds);
    }

    pub(super) fn read_degraded(&self, operation: &'static str) {
        self.degraded.get_or_create(&OperationLabel { operation }).inc();
    }

    pub(super) fn blob_bytes_received(&self) -> Counter {
        self.blob_bytes.get_or_create_owned(&DirectionLabel { direction: Direction::received })
    }

    pub(super) fn blob_bytes_sent(&self) -> Counter {
        self.blob_bytes.get_or_create_owned(&DirectionLabel { direction: Direction::sent })
    }
}
