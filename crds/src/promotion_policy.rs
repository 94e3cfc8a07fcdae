// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `PromotionPolicy`: what may go from which repositories to which, and what must hold before.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Duration, Glob, ItemName, Labels, PredicateType, PublicKey, Ref, RepositoryTemplateText,
    SignatureProvider, TagSelector, TagTemplateText,
    check::{FieldPath, Violation},
    signatures,
};

/// What may go from which repositories to which, and what must hold before.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "PromotionPolicy",
    plural = "promotionpolicies",
    shortname = "promopol",
    category = "oci",
    namespaced,
    status = "PromotionPolicyStatus",
    derive = "PartialEq",
    doc = "What may go from which repositories of a Registry to which, and what must hold of it before.",
    selectable = ".spec.registryRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Registry", type_ = "string", json_path = ".spec.registryRef.name"),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.to.repository"),
    printcolumn(name = "Last-Promotion", type_ = "date", json_path = ".status.lastPromotion.time"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PromotionPolicySpec {
    /// The Registry it is for, in the same namespace. Cannot change.
    pub registry_ref: Ref,
    /// What may be promoted.
    pub from: PromotionSource,
    /// Where it goes.
    pub to: PromotionTarget,
    /// Who begins a promotion.
    #[serde(default)]
    pub trigger: PromotionTrigger,
    /// What must hold of an artifact. All of them must let it pass; none: everything may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub gates: Vec<PromotionGate>,
    /// What happens when the tag of the target names another digest.
    #[serde(default)]
    pub on_tag_conflict: OnTagConflict,
    /// Whether what refers to an artifact goes with it.
    #[serde(default)]
    pub referrers: PromotionReferrers,
    /// How long something may wait to be promoted by it.
    #[serde(default = "PromotionPolicySpec::a_week")]
    pub deadline: Duration,
    /// While true nothing is promoted.
    #[serde(default)]
    pub suspend: bool,
}

/// What may be promoted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionSource {
    /// From these repositories.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub repositories: Vec<Glob>,
    /// Which of their tags. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagSelector>,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionTarget {
    /// The repository. `{path}` is what `**` at the end of the pattern matched, `{name}` the last part of the name.
    pub repository: RepositoryTemplateText,
    /// The tag. `{tag}` is the one that is promoted.
    #[serde(default = "PromotionTarget::same_tag")]
    pub tag: TagTemplateText,
}

impl PromotionTarget {
    fn same_tag() -> TagTemplateText {
        "{tag}".into()
    }
}

/// Who begins a promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PromotionTrigger {
    /// Somebody who asks for it, with a Promotion.
    #[default]
    Manual,
    /// Also the registry: whatever it is for is promoted when its gates let it, without a Promotion. Those that are there
    /// when the policy comes are, too.
    Automatic,
}

/// What happens when the tag of the target names another digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OnTagConflict {
    /// Nothing is promoted.
    #[default]
    Fail,
    /// The tag moves. So an older digest can be promoted again.
    Overwrite,
}

/// Whether what refers to an artifact goes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PromotionReferrers {
    /// It does: signatures, attestations, SBOMs, also those under tags such as `sha256-….sig`.
    #[default]
    Include,
    /// It does not.
    Exclude,
}

/// What must hold of an artifact; exactly one of the fields beside `name` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionGate {
    /// Its name, once in the list.
    pub name: ItemName,
    /// It is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureGate>,
    /// Something is said about it, and signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationGate>,
    /// It is there for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_age: Option<AgeGate>,
    /// People say yes to its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalGate>,
    /// It has these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelGate>,
    /// It came to its repository by this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_by: Option<PromotedByGate>,
}

/// Signatures that an artifact must have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct SignatureGate {
    /// Whose signatures these are.
    #[serde(default)]
    pub provider: SignatureProvider,
    /// The keys.
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub keys: Vec<PublicKey>,
    /// By how many of them it must be signed.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub required: i32,
}

/// A statement of in-toto about an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AttestationGate {
    /// What it says: the `predicateType` of the statement.
    pub predicate_type: PredicateType,
    /// The keys. What none of them signed does not count: anybody with push can attach a statement.
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub keys: Vec<PublicKey>,
    /// How old the newest one may be: by the time that is signed in it, else since it came to the repository. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

/// For how long an artifact must be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AgeGate {
    /// How long.
    pub duration: Duration,
    /// Counted from when.
    #[serde(default)]
    pub since: AgeSince,
}

/// From when an age is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AgeSince {
    /// When its manifest came to the repository.
    #[default]
    Pushed,
    /// When it was last promoted into the repository.
    PromotedToSource,
}

/// How many people must say yes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ApprovalGate {
    /// How many. Who asks for the promotion is none of them.
    #[schemars(range(min = 1, max = 16))]
    pub required: i32,
}

/// Labels that an artifact must have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct LabelGate {
    /// Labels of the image, or annotations of its manifest. Of an index: its annotations, or what every image that it
    /// lists says.
    pub match_labels: Labels,
}

/// How an artifact must have come to its repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct PromotedByGate {
    /// The PromotionPolicy that brought it.
    pub policy_ref: Ref,
}

const fn one() -> i32 {
    1
}

/// What the operator saw of a `PromotionPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionPolicyStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The newest promotion by itself. Written at most every five minutes; the ledger has them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_promotion: Option<LastPromotion>,
    /// Echo of the annotation `stowage.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

/// A promotion that the registry began.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastPromotion {
    /// From where: repository and tag.
    pub source: String,
    /// To where: repository and tag.
    pub target: String,
    /// What.
    pub digest: String,
    /// When.
    pub time: Time,
}

impl PromotionPolicySpec {
    fn a_week() -> Duration {
        "168h".parse().expect("a duration")
    }

    /// The policies that gates name, with their places.
    pub fn named_policies(&self) -> impl Iterator<Item = (FieldPath, &str)> {
        let list = FieldPath::from("spec").field("gates");
        self.gates.iter().enumerate().filter_map(move |(place, gate)| {
            let at = list.item(place).field("promotedBy").field("policyRef").field("name");
            Some((at, gate.promoted_by.as_ref()?.policy_ref.name.as_str()))
        })
    }
}

/// What is wrong with a policy that its schema and rules cannot say: templates, ranges, expressions, keys.
pub(crate) fn problems(spec: &PromotionPolicySpec) -> Vec<Violation> {
    let root = FieldPath::from("spec");
    let tags = spec.from.tags.as_ref();
    let tags = tags.and_then(|tags| tags.parse(&root.field("from").field("tags")).err());
    let list = root.field("gates");
    let gates = spec.gates.iter().enumerate().flat_map(|(place, gate)| {
        let at = list.item(place);
        let signed = gate.signature.iter().map(|gate| ("signature", &gate.keys));
        let attested = gate.attestation.iter().map(|gate| ("attestation", &gate.keys));
        let keys = signed.chain(attested).collect::<Vec<_>>();
        keys.into_iter().flat_map(move |(field, keys)| signatures::keyless(&at.field(field), keys))
    });
    templates(&spec.to, &root.field("to")).into_iter().chain(tags).chain(gates).collect()
}

fn templates(to: &PromotionTarget, at: &FieldPath) -> Vec<Violation> {
    let violation = |name: &str, error: stowage_oci::TemplateError| Violation {
        path: at.field(name),
        message: error.to_string(),
    };
    let repository = to.repository.parse().err().map(|error| violation("repository", error));
    let tag = to.tag.parse().err().map(|error| violation("tag", error));
    repository.into_iter().chain(tag).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems_of(fields: &Value) -> Vec<String> {
        let mut whole = json!({
            "registryRef": { "name": "main" }, "from": { "repositories": ["staging/**"] },
            "to": { "repository": "prod/{path}" },
        });
        whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let spec: PromotionPolicySpec = serde_json::from_value(whole).unwrap();
        problems(&spec).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_schema_cannot_say_is_refused_with_its_place() {
        let key = json!([{ "name": "a", "publicKey": "-----BEGIN PUBLIC KEY-----\nbm8gZGVy\n-----END PUBLIC KEY-----\n" }]);
        for (fields, place) in [
            (json!({ "to": { "repository": "prod/{tag}" } }), "spec.to.repository: "),
            (json!({ "to": { "repository": "prod/{path}-" } }), "spec.to.repository: "),
            (json!({ "to": { "repository": "prod", "tag": "{name}" } }), "spec.to.tag: "),
            (
                json!({ "from": { "repositories": ["a"], "tags": { "semver": { "range": "latest" } } } }),
                "spec.from.tags.semver.range: not a range",
            ),
            (
                json!({ "gates": [{ "name": "a", "signature": { "keys": key } }] }),
                "spec.gates[0].signature.keys[0].publicKey: ",
            ),
            (
                json!({ "gates": [{ "name": "a", "attestation": { "predicateType": "x", "keys": key } }] }),
                "spec.gates[0].attestation.keys[0].publicKey: ",
            ),
        ] {
            let found = problems_of(&fields);
            assert!(found.len() == 1 && found[0].starts_with(place), "{found:?} {place}");
        }
        assert!(problems_of(&json!({})).is_empty());
    }
}
