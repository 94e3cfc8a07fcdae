// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What replicas do for clients, and what they do beside that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::all_defaults;
use crate::{Cron, Duration, Quantity, TimeZone};

/// Which changes clients may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mode {
    /// All that they are granted.
    #[default]
    ReadWrite,
    /// Pushes, but no deletes.
    NoDelete,
    /// None.
    ReadOnly,
}

/// What one replica takes on at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The largest blob that may be pushed. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_blob_size: Option<Quantity>,
    /// Requests in flight; more are asked to come back.
    #[serde(default = "Limits::default_max_concurrent_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: i32,
    /// Uploads that receive bytes at once; more are asked to come back.
    #[serde(default = "Limits::default_max_concurrent_uploads")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_uploads: i32,
    /// Memory for the bytes of all uploads together.
    #[serde(default = "Limits::default_upload_memory")]
    pub upload_memory: Quantity,
    /// Memory for cached facts that never change.
    #[serde(default = "Limits::default_cache_memory")]
    pub cache_memory: Quantity,
}

impl Limits {
    fn default_max_concurrent_requests() -> i32 {
        4096
    }

    fn default_max_concurrent_uploads() -> i32 {
        256
    }

    fn default_upload_memory() -> Quantity {
        "256Mi".parse().expect("a quantity")
    }

    fn default_cache_memory() -> Quantity {
        "64Mi".parse().expect("a quantity")
    }
}

impl Default for Limits {
    fn default() -> Self {
        all_defaults()
    }
}

/// Looking for damage in the background: names are compared with the store and content is read, spread over time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scrub {
    /// Over how much time one look at everything is spread, at least an hour.
    #[serde(default = "Scrub::default_interval")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,4}[hdw]$"))]
    pub interval: Duration,
    /// How many bytes of content a second are read, at most, while a part is looked at.
    #[serde(default = "Scrub::default_bytes_per_second")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,11}(Ki|Mi|Gi|k|M|G)?$"))]
    pub bytes_per_second: Quantity,
}

impl Scrub {
    fn default_interval() -> Duration {
        "30d".parse().expect("a duration")
    }

    fn default_bytes_per_second() -> Quantity {
        "20M".parse().expect("a quantity")
    }
}

/// When what nothing names any more is removed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GarbageCollection {
    /// When it runs, as a line of cron or a name such as `@daily`.
    #[serde(default = "GarbageCollection::default_schedule")]
    pub schedule: Cron,
    /// Time zone of the schedule. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// How long something must have been unnamed before it is removed. What clients were told exists they can rely
    /// on for half of it: 12 hours from `24h` on.
    #[serde(default = "GarbageCollection::default_grace_period")]
    pub grace_period: Duration,
    /// While true no run is started but those that are asked for.
    #[serde(default)]
    pub suspend: bool,
}

impl GarbageCollection {
    fn default_schedule() -> Cron {
        "17 3 * * *".into()
    }

    fn default_grace_period() -> Duration {
        "24h".parse().expect("a duration")
    }
}

impl Default for GarbageCollection {
    fn default() -> Self {
        all_defaults()
    }
}

/// How long what was deleted can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trash {
    /// How long deleted tags and manifests are kept before they are removed; `0s` keeps none.
    #[serde(default = "Trash::default_retain_for")]
    pub retain_for: Duration,
}

impl Trash {
    fn default_retain_for() -> Duration {
        "168h".parse().expect("a duration")
    }
}

impl Default for Trash {
    fn default() -> Self {
        all_defaults()
    }
}
