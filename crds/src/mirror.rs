// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `Mirror`: repositories of another registry under a path of a Registry.
//!
//! In mode `PullThrough` content is fetched when somebody asks for it, kept, and served on while the other registry
//! does not answer. In mode `Replicate` runs copy what is chosen, by a schedule ([`crate::replication`]).

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    BaseUrl, Cron, Duration, HostName, KeyRef, MirrorArtifacts, MirrorLimits, MirrorReferrers, MountPath,
    Prune, Quantity, Ref, SecretRef, Summary, SyncFailure, TimeZone, Verification,
};

/// Repositories of another registry under a path of a Registry.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "Mirror",
    plural = "mirrors",
    category = "oci",
    namespaced,
    status = "MirrorStatus",
    derive = "PartialEq",
    doc = "Repositories of another registry: fetched when asked for, kept, and served on while it is away; or copied by a schedule.",
    selectable = ".spec.registryRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".spec.upstream.url"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Last-Sync", type_ = "date", json_path = ".status.lastSuccessfulSyncTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct MirrorSpec {
    /// The Registry it is for, in the same namespace. Cannot change.
    pub registry_ref: Ref,
    /// Where its repositories are: `library/alpine` of the upstream is `<path>/library/alpine` here. Needed with
    /// PullThrough. Absent with Replicate: names are kept, and clients may push to its repositories. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<MountPath>,
    /// When content is fetched. Cannot change.
    pub mode: MirrorMode,
    /// The registry it mirrors.
    pub upstream: MirrorUpstream,
    /// Whether it takes the names that nothing else has. One of a Registry can, with PullThrough.
    #[serde(default)]
    pub default: bool,
    /// How long what was fetched counts as current, with PullThrough. Absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<MirrorCache>,
    /// When runs begin, with Replicate: five fields of cron. Absent, as `interval`: only when one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Cron>,
    /// The time zone of the schedule. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// The pause from the end of a run to the next, with Replicate, instead of a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// What is copied, with Replicate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub artifacts: Vec<MirrorArtifacts>,
    /// What happens here to tags that the upstream has no longer, with Replicate.
    #[serde(default)]
    pub prune: Prune,
    /// How much a run takes, with Replicate. Absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<MirrorLimits>,
    /// Whether what refers to an image is copied with it, with Replicate; whether the upstream is asked what refers to
    /// one, with PullThrough.
    #[serde(default)]
    pub referrers: MirrorReferrers,
    /// Which signatures an image must have. What does not verify is not accepted. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// While true the upstream is never asked, and what was fetched is served as it is; no run begins.
    #[serde(default)]
    pub suspend: bool,
}

/// When a mirror fetches content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MirrorMode {
    /// When somebody asks for it.
    PullThrough,
    /// By runs that copy what is chosen.
    Replicate,
}

/// The registry that is mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorUpstream {
    /// Where it is: `scheme://host[:port]` without a path.
    pub url: BaseUrl,
    /// Further hosts by which clients know it, in `ns=` and as the first part of a name. The three names of Docker Hub
    /// are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub hosts: Vec<HostName>,
    /// Secret with `.dockerconfigjson`, or `username` and `password`, or `token`. Read again when it changes. Absent:
    /// anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Certificate authorities, in PEM, that are believed beside the public ones.
    #[serde(rename = "caSecretRef", default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyRef>,
    /// Secret with `tls.crt` and `tls.key`: the certificate to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<SecretRef>,
    /// Whether its certificate is verified.
    #[serde(default)]
    pub tls_verification: TlsVerification,
    /// The URL of an HTTP proxy, with its user and password if it asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<KeyRef>,
    /// Which addresses its host may have. Private ones have to be allowed in so many words.
    #[serde(default)]
    pub network: UpstreamNetwork,
    /// Requests to it at the same time, per replica.
    #[serde(default = "MirrorUpstream::max_concurrent")]
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrent: i32,
    /// Requests to it a second, over all replicas and runs together; more wait for their turn. Absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub requests_per_second: Option<i32>,
}

impl MirrorUpstream {
    const fn max_concurrent() -> i32 {
        16
    }
}

/// Whether the certificate of an upstream is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsVerification {
    /// It is.
    #[default]
    Verify,
    /// Any certificate will do.
    Skip,
}

/// Which addresses the host of an upstream may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum UpstreamNetwork {
    /// Those of the public internet.
    #[default]
    Public,
    /// Private, loopback and link-local ones too.
    Any,
}

/// How long what was fetched counts as current.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorCache {
    /// How long a tag is answered without asking the upstream again.
    #[serde(rename = "tagTTL", default = "MirrorCache::default_tag_ttl")]
    pub tag_ttl: Duration,
    /// How long the upstream is not asked again for what it does not have.
    #[serde(rename = "negativeTTL", default = "MirrorCache::default_negative_ttl")]
    pub negative_ttl: Duration,
    /// How long past `tagTTL` a tag is answered while the upstream fails or refuses us; `0s` is not at all.
    #[serde(default = "MirrorCache::default_stale_for")]
    pub stale_for: Duration,
    /// How long a tag stays what it was, with a `Warning`, after the upstream moved it; a tag that was never here is 404
    /// for so long. A digest is answered at once. Absent: tags move as the upstream moves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Duration>,
    /// Whether the upstream is never asked.
    #[serde(default)]
    pub offline: bool,
    /// What goes from the cache by itself, at each garbage collection. Nothing does where it is absent, or while the
    /// upstream is never asked (`offline`, `suspend`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<MirrorEviction>,
}

/// What goes from a cache by itself. Never what a virtual repository pins, what was promoted, or what runs, where that
/// is protected.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorEviction {
    /// Images that were not pulled for longer go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_for: Option<Duration>,
    /// Images that were fetched longer ago go, however often they are pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// While the cache has more than so many bytes, the least recently pulled images go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Quantity>,
}

impl MirrorCache {
    fn default_tag_ttl() -> Duration {
        "10m".parse().expect("a duration")
    }

    fn default_negative_ttl() -> Duration {
        "30s".parse().expect("a duration")
    }

    fn default_stale_for() -> Duration {
        "30d".parse().expect("a duration")
    }
}

impl Default for MirrorCache {
    fn default() -> Self {
        Self {
            tag_ttl: Self::default_tag_ttl(),
            negative_ttl: Self::default_negative_ttl(),
            stale_for: Self::default_stale_for(),
            quarantine: None,
            offline: false,
            eviction: None,
        }
    }
}

/// A Secret of a mirror: the folder `<secrets-dir>/<name>/`. One that is missing stops its mirror alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSecret {
    /// The field of the spec that names it.
    pub path: &'static str,
    /// Its name.
    pub name: String,
    /// Sets of keys, of one of which it must have all.
    pub forms: Vec<Vec<String>>,
}

impl MirrorSpec {
    /// The cache, with its defaults where the spec has none.
    #[must_use]
    pub fn cache(&self) -> MirrorCache {
        self.cache.clone().unwrap_or_default()
    }

    /// How much a run takes, with its defaults where the spec has none.
    #[must_use]
    pub fn limits(&self) -> MirrorLimits {
        self.limits.clone().unwrap_or_default()
    }

    /// Whether the upstream may be asked.
    #[must_use]
    pub fn asks_upstream(&self) -> bool {
        !self.suspend && !self.cache.as_ref().is_some_and(|cache| cache.offline)
    }

    /// The Secrets that it names, in the order of its fields.
    #[must_use]
    pub fn secrets(&self) -> Vec<MirrorSecret> {
        let upstream = &self.upstream;
        let secret = |path, secret: Option<&SecretRef>, forms: &[&[&str]]| {
            let forms = forms.iter().map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
            secret.map(|secret| MirrorSecret { path, name: secret.name.clone(), forms: forms.collect() })
        };
        let key = |path, key: Option<&KeyRef>| {
            let forms = |key: &KeyRef| vec![vec![key.key.clone()]];
            key.map(|key| MirrorSecret { path, name: key.name.clone(), forms: forms(key) })
        };
        let credentials: [&[&str]; 3] = [&[".dockerconfigjson"], &["username", "password"], &["token"]];
        let certificate: [&[&str]; 1] = [&["tls.crt", "tls.key"]];
        [
            secret("spec.upstream.secretRef", upstream.secret_ref.as_ref(), &credentials),
            key("spec.upstream.caSecretRef", upstream.ca_secret_ref.as_ref()),
            secret(
                "spec.upstream.clientCertSecretRef",
                upstream.client_cert_secret_ref.as_ref(),
                &certificate,
            ),
            key("spec.upstream.proxySecretRef", upstream.proxy_secret_ref.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What the operator saw of a `Mirror`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Echo of the annotation `stowage.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Echo of the annotation `stowage.dev/run-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_run_at: Option<String>,
    /// Host and path under which clients pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// When the last run that copied everything ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_sync_time: Option<Time>,
    /// When the next run is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_time: Option<Time>,
    /// What the last run reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<Summary>,
    /// What the last run could not do, the first of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<SyncFailure>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(upstream: &serde_json::Value) -> MirrorSpec {
        serde_json::from_value(json!({
            "registryRef": { "name": "main" }, "path": "hub", "mode": "PullThrough", "upstream": upstream,
        }))
        .unwrap()
    }

    #[test]
    fn every_secret_of_a_mirror_is_listed_with_the_keys_it_may_have() {
        let spec = spec(&json!({
            "url": "https://hub.example.com", "secretRef": { "name": "login" },
            "caSecretRef": { "name": "ca", "key": "ca.crt" }, "clientCertSecretRef": { "name": "mtls" },
            "proxySecretRef": { "name": "proxy", "key": "url" },
        }));
        let shown = |secret: MirrorSecret| {
            let forms: Vec<_> = secret.forms.iter().map(|keys| keys.join("+")).collect();
            format!("{} {} {}", secret.path.rsplit('.').next().unwrap(), secret.name, forms.join("|"))
        };
        let expected = [
            "secretRef login .dockerconfigjson|username+password|token",
            "caSecretRef ca ca.crt",
            "clientCertSecretRef mtls tls.crt+tls.key",
            "proxySecretRef proxy url",
        ];
        assert_eq!(spec.secrets().into_iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_suspended_or_offline_mirror_asks_nobody() {
        let mut spec = spec(&json!({ "url": "https://hub.example.com" }));
        assert!(spec.asks_upstream() && spec.secrets().is_empty());
        spec.cache = Some(MirrorCache { offline: true, ..MirrorCache::default() });
        assert!(!spec.asks_upstream());
        spec.cache = None;
        spec.suspend = true;
        assert!(!spec.asks_upstream());
    }
}
