// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `Registry`: one registry, what it stores where, and how the operator runs it.
//!
//! The spec has two parts. The first is for the replicas and goes into their document; the second,
//! [`OPERATOR_FIELDS`], is for the operator alone, and a standalone process skips it.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

mod access;
mod backing;
mod exposure;
mod immutability;
mod secrets;
mod serving;
mod status;
mod telemetry;
mod tracking;
mod workload;

pub use access::{Anonymous, Auth, Htpasswd, Tls, Tokens};
pub use backing::{Database, MigrationPolicy, Migrations, Postgres, Redirect, RedirectMode, S3, Storage};
pub use exposure::{Expose, HttpRoute, Ingress, ParentRef, ServiceExposure, ServiceType};
pub use immutability::{ImmutabilityRule, ImmutableDeletion, SignatureTags};
use kube::CustomResource;
use schemars::JsonSchema;
pub use secrets::SecretUse;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
pub use serving::{GarbageCollection, Limits, Mode, Scrub, Trash};
pub use status::{GarbageCollectionStatus, RegistryStatus};
pub use telemetry::Telemetry;
pub use tracking::{PullTracking, UsageProtection, UsageRemote, UsageScope};
pub use workload::{
    Autoscaling, DeletionPolicy, Disruption, Image, Managed, Monitoring, ServiceAccount, ServiceMonitor,
    Volume,
};

use crate::{
    BaseUrl, Freeform, Glob, HostName,
    check::{FieldPath, Violation},
};

/// The fields of the spec that only the operator reads: no document holds them.
pub const OPERATOR_FIELDS: [&str; 14] = [
    "image",
    "replicas",
    "autoscaling",
    "volume",
    "expose",
    "disruption",
    "networkPolicy",
    "monitoring",
    "serviceAccount",
    "resources",
    "jobResources",
    "template",
    "deletionPolicy",
    "suspend",
];

/// One registry: what it stores where, who may use it, and how the operator runs it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "Registry",
    plural = "registries",
    shortname = "ocireg",
    category = "oci",
    namespaced,
    status = "RegistryStatus",
    derive = "PartialEq",
    doc = "One OCI registry: what it stores where, who may use it, and how it is run.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.replicaSummary"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Last-GC",
        type_ = "date",
        json_path = ".status.garbageCollection.lastSuccessfulTime",
        priority = 1
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// Where clients reach it: `scheme://host[:port]` without a path. Realm of its tokens and base of Location.
    #[serde(rename = "externalURL")]
    pub external_url: BaseUrl,
    /// Further URLs under which it answers. The names of its Service are always added.
    #[serde(rename = "alternateURLs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub alternate_urls: Vec<BaseUrl>,
    /// Other hosts whose content this registry answers for, where a client says by `ns` which it means, as containerd does
    /// for the host in the name of an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub aliases: Vec<HostName>,
    /// Which changes clients may make.
    #[serde(default)]
    pub mode: Mode,
    /// Where content lies. Which kind of store it is cannot change.
    pub storage: Storage,
    /// Where names and links lie. Which kind of database it is cannot change.
    pub database: Database,
    /// Who may use it. Absent in a cluster: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// TLS on the data and admin ports. Absent: plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What one replica takes on at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Repositories in which every child of an index must exist when the index is pushed. Elsewhere an index may
    /// be sparse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub strict_indexes: Vec<Glob>,
    /// Tags that never name a second digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub immutability: Vec<ImmutabilityRule>,
    /// When what nothing names any more is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub garbage_collection: Option<GarbageCollection>,
    /// Looks for damage of the content in the background. Absent: only `verify` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrub>,
    /// Where traces of requests are sent. Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// How long what was deleted can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<Trash>,
    /// What counts as a pull, where policies ask when something was pulled last. Absent: every pull does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_tracking: Option<PullTracking>,
    /// Keeps what workloads run, or would run again, from runs that delete. Absent: they do not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_protection: Option<UsageProtection>,

    /// The image of the replicas. Absent parts: those of the operator's `--registry-image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// How many replicas run. Absent: 2, or 1 with filesystem or sqlite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler choose the number of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The volume of filesystem or sqlite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// How it is reached from outside the cluster. Absent: by its ClusterIP Service only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
    /// How many replicas a node drain may take at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// Whether the operator keeps a NetworkPolicy for the replicas.
    #[serde(default = "Managed::by_default")]
    pub network_policy: Managed,
    /// What the operator renders for Prometheus and Grafana, where their APIs exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// The ServiceAccount of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// ResourceRequirements of the replicas. Absent: 100m CPU and 256Mi asked for, at most 1Gi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Freeform>,
    /// ResourceRequirements of Jobs. Absent: those of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_resources: Option<Freeform>,
    /// A partial PodTemplateSpec that is merged over the rendered one, last; the container is `registry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Freeform>,
    /// What happens to the content when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// While true the operator changes nothing but the status.
    #[serde(default)]
    pub suspend: bool,
}

impl RegistrySpec {
    /// The limits, with their defaults where the spec has none.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.clone().unwrap_or_default()
    }

    /// The garbage collection, with its defaults where the spec has none.
    #[must_use]
    pub fn garbage_collection(&self) -> GarbageCollection {
        self.garbage_collection.clone().unwrap_or_default()
    }

    /// The trash, with its defaults where the spec has none.
    #[must_use]
    pub fn trash(&self) -> Trash {
        self.trash.clone().unwrap_or_default()
    }

    /// What is wrong with its rules of immutability that schema and CEL cannot say: ranges, expressions.
    pub(crate) fn immutability_problems(&self) -> Vec<Violation> {
        let list = FieldPath::from("spec").field("immutability");
        let rules = self.immutability.iter().enumerate();
        rules.filter_map(|(place, rule)| rule.problem(&list.item(place))).collect()
    }

    /// Whether the data lies on a volume that one replica holds.
    #[must_use]
    pub fn is_single_replica(&self) -> bool {
        self.storage.filesystem.is_some() || self.database.sqlite.is_some()
    }
}

/// A value with every field at its default, for blocks that may be absent.
fn all_defaults<T: DeserializeOwned>() -> T {
    serde_json::from_str("{}").expect("every field of the block has a default")
}
