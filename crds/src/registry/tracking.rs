// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is known of how content is used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, ItemName, Subject};

/// What counts as a pull.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullTracking {
    /// Whose pulls do not count: those of scanners and of whoever else pulls everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub ignore_subjects: Vec<Subject>,
}

/// Whose workloads keep what they run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageProtection {
    /// Where the operator looks.
    pub scope: UsageScope,
    /// The namespaces of scope `Namespaces`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(max = 63)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub namespaces: Vec<String>,
    /// How many revisions before the current one of each workload count as well, so that it can be rolled back.
    #[serde(default = "UsageProtection::default_revisions")]
    #[schemars(range(min = 0, max = 20))]
    pub revisions: i32,
    /// Other clusters, which report what they run. A run that deletes refuses while one of them has not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub remotes: Vec<UsageRemote>,
}

impl UsageProtection {
    fn default_revisions() -> i32 {
        2
    }

    /// Whether the operator is asked, not only other clusters.
    #[must_use]
    pub fn asks_operator(&self) -> bool {
        self.scope != UsageScope::RemotesOnly
    }
}

/// Where the operator looks for what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum UsageScope {
    /// In all namespaces.
    Cluster,
    /// In those that are named.
    Namespaces,
    /// Nowhere: only other clusters report.
    RemotesOnly,
}

/// Another cluster that reports what it runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRemote {
    /// Its name here, in `PUT /admin/v1/usage/<name>`.
    pub name: ItemName,
    /// Who may report for it.
    pub reporter: Subject,
    /// How old its newest report may be.
    #[serde(default = "UsageRemote::default_max_age")]
    pub max_age: Duration,
}

impl UsageRemote {
    fn default_max_age() -> Duration {
        "1h".parse().expect("a duration")
    }
}
