// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How the operator runs a registry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::all_defaults;
use crate::{Labels, Quantity, SecretRef};

/// The image of the replicas; absent parts are those of the operator's `--registry-image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Registry and repository, without tag or digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*[A-Za-z0-9]$"))]
    pub repository: Option<String>,
    /// Tag; for people only when there is a digest too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"))]
    pub tag: Option<String>,
    /// Digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135), regex(pattern = r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"))]
    pub digest: Option<String>,
    /// Credentials to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub pull_secret_refs: Vec<SecretRef>,
}

/// Bounds and aim of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// The fewest replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// The most replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// CPU use to aim at, as a percentage of what the replicas ask for.
    #[serde(rename = "targetCPUUtilizationPercentage", default = "Autoscaling::default_target_cpu")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization_percentage: i32,
}

impl Autoscaling {
    fn default_target_cpu() -> i32 {
        70
    }
}

/// The volume of filesystem or sqlite.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Size to ask for.
    #[serde(default = "Volume::default_size")]
    pub size: Quantity,
    /// Class to ask for. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub storage_class_name: Option<String>,
    /// A claim that exists, used as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub claim_name: Option<String>,
}

impl Volume {
    fn default_size() -> Quantity {
        "20Gi".parse().expect("a quantity")
    }
}

impl Default for Volume {
    fn default() -> Self {
        all_defaults()
    }
}

/// How many replicas a node drain may take at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// The most that may be away.
    #[serde(default = "Disruption::default_max_unavailable")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable: i32,
}

impl Disruption {
    fn default_max_unavailable() -> i32 {
        1
    }
}

impl Default for Disruption {
    fn default() -> Self {
        all_defaults()
    }
}

/// Whether the operator keeps an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Managed {
    /// It does not exist.
    #[default]
    None,
    /// The operator makes it and keeps it as it should be.
    Managed,
}

impl Managed {
    /// The default where an object is the rule.
    pub(super) fn by_default() -> Self {
        Self::Managed
    }
}

/// What the operator renders for Prometheus and Grafana.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// A ServiceMonitor. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_monitor: Option<ServiceMonitor>,
    /// A PrometheusRule with alerts.
    #[serde(default)]
    pub alerts: Managed,
    /// A ConfigMap with a dashboard.
    #[serde(default)]
    pub dashboard: Managed,
}

/// A ServiceMonitor of the Prometheus operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ServiceMonitor {
    /// Labels by which a Prometheus selects it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// The ServiceAccount of the replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ServiceAccount {
    /// Its annotations: a cloud's identity is bound here.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
}

/// What happens to the content when the Registry is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Bucket, database and volume stay, and serve a new Registry.
    #[default]
    Retain,
    /// All of it is deleted.
    Delete,
}
