// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `Promotion`: somebody asks that one artifact be promoted by one policy. It is carried out once, by Jobs.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DigestText, Ref, Repository, TagName, UserName};

/// Somebody asks that one artifact be promoted by one policy.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "Promotion",
    plural = "promotions",
    shortname = "promo",
    category = "oci",
    namespaced,
    status = "PromotionStatus",
    derive = "PartialEq",
    doc = "Somebody asks that one artifact be promoted by a PromotionPolicy. It is carried out once.",
    selectable = ".spec.policyRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policyRef.name"),
    printcolumn(name = "Artifact", type_ = "string", json_path = ".spec.artifact.repository"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.shortDigest"),
    printcolumn(
        name = "Succeeded",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Succeeded')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Succeeded')].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PromotionSpec {
    /// The PromotionPolicy, in the same namespace. Cannot change.
    pub policy_ref: Ref,
    /// What is to be promoted. Cannot change.
    pub artifact: RequestedArtifact,
    /// Who asks: the user who creates this. Cannot change.
    pub requested_by: UserName,
    /// Why. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Who says yes to the digest in `status.artifact`. Only added to, each by the user who says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["user"])
    )]
    pub approvals: Vec<PromotionApproval>,
    /// How long it stays when it has ended, in seconds.
    #[serde(default = "PromotionSpec::a_week")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: i32,
    /// While true nothing is done. Deleting an unfinished one cancels it.
    #[serde(default)]
    pub suspend: bool,
}

impl PromotionSpec {
    const fn a_week() -> i32 {
        7 * 24 * 3600
    }
}

/// What is to be promoted: by its tag, by its digest, or both; with a digest the tag is only a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct RequestedArtifact {
    /// The repository it is in.
    pub repository: Repository,
    /// Its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<TagName>,
    /// Its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestText>,
}

/// Somebody says yes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct PromotionApproval {
    /// Who.
    pub user: UserName,
    /// To what.
    pub digest: DigestText,
    /// In other words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub comment: Option<String>,
}

/// How a `Promotion` stands.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Echo of the annotation `stowage.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// What is promoted: pinned once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<RequestedArtifact>,
    /// The beginning of its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_digest: Option<String>,
    /// Which generation was evaluated last: a later one has another approval, and is evaluated at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_generation: Option<i64>,
    /// How often the gates were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<i32>,
    /// What each gate said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// Where it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<PromotionResult>,
    /// When the first evaluation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the gates are asked again, unless an approval comes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_evaluation_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// What a gate said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// The gate.
    pub name: String,
    /// `True`: it lets the artifact pass. `Unknown`: not yet. `False`: it never will.
    pub status: String,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// The same for a human.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When to ask it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
}

/// Where an artifact was promoted to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionResult {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What it names now.
    pub digest: String,
    /// How many manifests that refer to it came with it.
    pub referrers: i32,
    /// What the tag named before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<String>,
}

/// What one Job came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// What is promoted, if it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What each gate said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// Where it is now, if it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<PromotionResult>,
}
