// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a registry tells about its requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::HttpUrl;

/// Where traces of requests are sent, and of how many.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// URL of an OpenTelemetry collector that takes OTLP over HTTP, as `http://otel.monitoring:4318`. Traces go
    /// to `/v1/traces` below it. OTLP over gRPC is not spoken.
    pub otlp_endpoint: HttpUrl,
    /// Of how many in a hundred requests a trace is made, where the client has not decided it by its `traceparent`.
    #[serde(default = "Telemetry::default_sampling_percentage")]
    #[schemars(range(min = 0, max = 100))]
    pub sampling_percentage: i32,
}

impl Telemetry {
    fn default_sampling_percentage() -> i32 {
        10
    }
}
