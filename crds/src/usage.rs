// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What runs in a cluster, as the operator tells the runs that delete.
//!
//! A run is known by the uid of its Job, and asks by being there; an answer is one to the runs that it names. It is
//! written for them and never on its own account: an old one is no answer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// The file of the answer, in its folder and as a key of its ConfigMap.
pub const USAGE_FILE: &str = "usage.json";
/// The most bytes that an answer may have: a ConfigMap holds 1 MiB with all its metadata.
pub const MOST_USAGE_BYTES: usize = 900 * 1024;

/// What runs in a cluster, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageAnswer {
    /// The runs that it answers: uids of Jobs, or what processes made up.
    pub answers: Vec<String>,
    /// When it was looked.
    pub observed_at: Time,
    /// Digests of manifests, or of configurations where a runtime reports those.
    pub digests: Vec<String>,
    /// References of images as they are written in workloads.
    pub references: Vec<String>,
}

impl UsageAnswer {
    /// The file.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and times are JSON")
    }
}

/// What another cluster runs: the body of `PUT /admin/v1/usage/<remote>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoteUsage {
    /// Digests of manifests, or of configurations where a runtime reports those.
    #[serde(default)]
    pub digests: Vec<String>,
    /// References of images as they are written in workloads.
    #[serde(default)]
    pub references: Vec<String>,
}
