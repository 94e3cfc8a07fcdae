// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The promotion policies of the document, and requests to promote → values that hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use stowage_crds::document::{Document, Entry, hash};
use stowage_crds::{
    AgeSince, DigestText, OnTagConflict, PromotionGate, PromotionPolicySpec, PromotionReferrers,
    PromotionTrigger, PublicKey, Ref, Repository, TagName,
};
use stowage_oci::{Digest, Glob, Name, RepositoryTemplate, Tag, TagSelection, TagTemplate};

use super::build::{field, globs, tags};
use super::error::ConfigError;
use super::mirrors::public_keys;
use crate::signatures::Keys;

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PromotionPolicy {
    /// Its name.
    pub name: String,
    /// The generation of its specification; `None` standalone.
    pub generation: Option<i64>,
    /// `sha256:` of its specification.
    pub hash: String,
    /// Its specification.
    pub spec: Value,
    /// Repositories that artifacts come from.
    pub from: Vec<Glob>,
    /// Which of their tags.
    pub tags: TagSelection,
    /// The repository that they go to.
    pub to: RepositoryTemplate,
    /// The tag that they have there.
    pub to_tag: TagTemplate,
    /// What must hold before, by name.
    pub gates: Vec<(String, PromotionCondition)>,
    /// Whether a tag that names something else is moved.
    pub overwrites: bool,
    /// Whether what refers to an artifact goes with it.
    pub with_referrers: bool,
    /// How long something may wait for its gates.
    pub deadline: Duration,
    /// Who begins a promotion.
    pub trigger: PromotionTrigger,
    /// Whether nothing is promoted.
    pub is_suspended: bool,
}

/// What a gate asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromotionCondition {
    /// Signatures by so many of these keys.
    Signature {
        /// The keys.
        keys: Keys,
        /// How many of them.
        required: usize,
    },
    /// A statement that one of these keys signed.
    Attestation {
        /// Of which type.
        predicate_type: String,
        /// The keys.
        keys: Keys,
        /// How old the newest one may be.
        max_age: Option<Duration>,
    },
    /// It is there for so long.
    MinimumAge {
        /// How long.
        age: Duration,
        /// Counted from its last promotion rather than from its push.
        since_promotion: bool,
    },
    /// So many people approved.
    Approval {
        /// How many.
        required: usize,
    },
    /// It has these labels.
    Labels(BTreeMap<String, String>),
    /// It came by this policy.
    PromotedBy(String),
}

pub(super) fn policies(document: &Document) -> Result<Vec<PromotionPolicy>, ConfigError> {
    document.promotion_policies.iter().map(policy).collect()
}

fn policy(entry: &Entry<PromotionPolicySpec>) -> Result<PromotionPolicy, ConfigError> {
    let spec = &entry.spec;
    let at = |path: &str| format!("PromotionPolicy {}: spec.{path}", entry.name);
    let tags = tags(&at("from.tags"), spec.from.tags.as_ref())?;
    let gates = spec.gates.iter().enumerate();
    let gates = gates.map(|(place, gate)| condition(&at(&format!("gates[{place}]")), gate));
    let value = serde_json::to_value(spec).expect("a spec is JSON");
    Ok(PromotionPolicy {
        name: entry.name.clone(),
        generation: (entry.generation > 0).then_some(entry.generation),
        hash: hash(value.to_string().as_bytes()),
        from: globs(&at("from.repositories"), &spec.from.repositories)?,
        tags,
        to: spec.to.repository.parse().map_err(|error| field(at("to.repository"), error))?,
        to_tag: spec.to.tag.parse().map_err(|error| field(at("to.tag"), error))?,
        gates: gates.collect::<Result<_, _>>()?,
        overwrites: spec.on_tag_conflict == OnTagConflict::Overwrite,
        with_referrers: spec.referrers == PromotionReferrers::Include,
        deadline: spec.deadline.to_std(),
        trigger: spec.trigger,
        is_suspended: spec.suspend,
        spec: value,
    })
}

fn condition(at: &str, gate: &PromotionGate) -> Result<(String, PromotionCondition), ConfigError> {
    let count = |number: i32| usize::try_from(number).unwrap_or(1).max(1);
    let keys = |name: &str, keys: &[PublicKey]| public_keys(&format!("{at}.{name}"), keys);
    let condition = if let Some(gate) = &gate.signature {
        let required = count(gate.required);
        PromotionCondition::Signature { keys: keys("signature", &gate.keys)?, required }
    } else if let Some(gate) = &gate.attestation {
        PromotionCondition::Attestation {
            predicate_type: gate.predicate_type.to_string(),
            keys: keys("attestation", &gate.keys)?,
            max_age: gate.max_age.as_ref().map(stowage_crds::Duration::to_std),
        }
    } else if let Some(gate) = &gate.minimum_age {
        let since_promotion = gate.since == AgeSince::PromotedToSource;
        PromotionCondition::MinimumAge { age: gate.duration.to_std(), since_promotion }
    } else if let Some(gate) = &gate.approval {
        PromotionCondition::Approval { required: count(gate.required) }
    } else if let Some(gate) = &gate.labels {
        PromotionCondition::Labels(gate.match_labels.0.clone())
    } else if let Some(gate) = &gate.promoted_by {
        PromotionCondition::PromotedBy(gate.policy_ref.name.clone())
    } else {
        return Err(field(at, "the gate asks for nothing that this version knows"));
    };
    Ok((gate.name.to_string(), condition))
}

/// A request to promote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionRequest {
    /// The policy.
    pub policy: String,
    /// How who asks names it.
    pub id: Option<String>,
    /// From where.
    pub repository: Name,
    /// Which tag.
    pub tag: Option<Tag>,
    /// Which digest.
    pub digest: Option<Digest>,
    /// What the tag named when it was looked at first.
    pub pinned: Option<Digest>,
    /// Who asks.
    pub requested_by: Option<String>,
    /// Who said yes to what.
    pub approvals: Vec<(String, Digest)>,
    /// Why.
    pub reason: Option<String>,
}

/// The text is not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY:TAG@DIGEST: {1}")]
pub struct NotAnArtifact(String, String);

impl PromotionRequest {
    /// By hand: `REPOSITORY:TAG`, `REPOSITORY@DIGEST` or `REPOSITORY:TAG@DIGEST`.
    pub fn by_hand(policy: &str, artifact: &str) -> Result<Self, NotAnArtifact> {
        let not = |error: &dyn std::fmt::Display| NotAnArtifact(artifact.to_owned(), error.to_string());
        let (name, digest) =
            artifact.split_once('@').map_or((artifact, None), |(name, digest)| (name, Some(digest)));
        let (name, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
        if tag.is_none() && digest.is_none() {
            return Err(not(&"a tag or a digest is missing"));
        }
        Ok(Self {
            policy: policy.to_owned(),
            id: None,
            repository: name.parse().map_err(|error| not(&error))?,
            tag: tag.map(str::parse).transpose().map_err(|error| not(&error))?,
            digest: digest.map(str::parse).transpose().map_err(|error| not(&error))?,
            pinned: None,
            requested_by: None,
            approvals: Vec::new(),
            reason: None,
        })
    }

    /// By a file with a `Promotion`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let file: File = serde_saphyr::from_str(&text)
            .map_err(|source| ConfigError::Yaml { file: path.to_owned(), source: Box::new(source) })?;
        file.into_request(path)
    }
}

/// A `Promotion` as it is handed over: what is asked for, and what was found of it before.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Asked,
    #[serde(default)]
    status: Known,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Asked {
    policy_ref: Ref,
    artifact: Artifact,
    requested_by: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    approvals: Vec<Approval>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Artifact {
    repository: Repository,
    #[serde(default)]
    tag: Option<TagName>,
    #[serde(default)]
    digest: Option<DigestText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    user: String,
    digest: DigestText,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Known {
    artifact: Option<Artifact>,
}

impl File {
    fn into_request(self, path: &Path) -> Result<PromotionRequest, ConfigError> {
        let at = |name: &str| format!("{}: {name}", path.display());
        if self.api_version != stowage_crds::API_VERSION || self.kind != "Promotion" {
            let problem = format!("expected Promotion of {}", stowage_crds::API_VERSION);
            return Err(field(at("kind"), problem));
        }
        let Asked { policy_ref, artifact, requested_by, reason, approvals } = self.spec;
        let digest = |name: &str, text: &DigestText| {
            text.as_str().parse::<Digest>().map_err(|error| field(at(name), error))
        };
        if artifact.tag.is_none() && artifact.digest.is_none() {
            return Err(field(at("spec.artifact"), "one of tag and digest must be set"));
        }
        let given = approvals.iter().enumerate().map(|(place, approval)| {
            let name = format!("spec.approvals[{place}]");
            if approval.user == requested_by {
                return Err(field(at(&name), "who asks for a promotion cannot approve it"));
            }
            Ok((approval.user.clone(), digest(&format!("{name}.digest"), &approval.digest)?))
        });
        let tag = artifact.tag.as_ref().map(|tag| tag.as_str().parse());
        let pinned = self.status.artifact.and_then(|artifact| artifact.digest);
        let namespace = self.metadata.namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        Ok(PromotionRequest {
            policy: policy_ref.name,
            id: Some(format!("{namespace}{}", self.metadata.name)),
            repository: artifact
                .repository
                .parse()
                .map_err(|error| field(at("spec.artifact.repository"), error))?,
            tag: tag.transpose().map_err(|error| field(at("spec.artifact.tag"), error))?,
            digest: artifact.digest.map(|text| digest("spec.artifact.digest", &text)).transpose()?,
            pinned: pinned.map(|text| digest("status.artifact.digest", &text)).transpose()?,
            approvals: given.collect::<Result<_, _>>()?,
            requested_by: Some(requested_by),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn an_artifact_is_named_by_tag_digest_or_both() {
        let named = |text: &str| {
            let asked = PromotionRequest::by_hand("to-prod", text).ok()?;
            Some((asked.repository.to_string(), asked.tag.is_some(), asked.digest.is_some()))
        };
        let expected = |tag, digest| Some(("staging/app".to_owned(), tag, digest));
        assert_eq!(named("staging/app:1.0"), expected(true, false));
        assert_eq!(named(&format!("staging/app@{DIGEST}")), expected(false, true));
        assert_eq!(named(&format!("staging/app:1.0@{DIGEST}")), expected(true, true));
        for text in ["staging/app", "Staging/app:1", "staging/app:", "staging/app@sha256:1", ""] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_is_refused_with_the_place_that_is_wrong() {
        let read = |spec: &str, status: &str| {
            let text = format!(
                "apiVersion: stowage.dev/v1alpha1\nkind: Promotion\nmetadata: {{name: x, namespace: prod, uid: u}}\nspec: {spec}\n{status}"
            );
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            PromotionRequest::read(file.path()).map_err(|error| super::super::explained(&error))
        };
        let spec = |rest: &str| format!("{{policyRef: {{name: to-prod}}, requestedBy: carol, {rest}}}");
        let artifact = "artifact: {repository: staging/app, tag: \"1.0\"}";
        let status = format!(
            "status: {{artifact: {{repository: staging/app, digest: \"{DIGEST}\"}}, evaluations: 1}}"
        );
        let good = read(&spec(&format!("{artifact}, reason: CHG-1")), &status).unwrap();
        assert_eq!((good.policy.as_str(), good.id.as_deref()), ("to-prod", Some("prod/x")));
        assert_eq!(
            (good.pinned.unwrap().to_string().as_str(), good.reason.as_deref()),
            (DIGEST, Some("CHG-1"))
        );
        for (rest, place) in [
            ("artifact: {repository: staging/app}".to_owned(), "spec.artifact: one of tag and digest"),
            ("artifact: {repository: A, tag: x}".to_owned(), "spec.artifact.repository"),
            (
                format!("{artifact}, approvals: [{{user: carol, digest: \"{DIGEST}\"}}]"),
                "spec.approvals[0]: who asks for a promotion cannot approve it",
            ),
            (format!("{artifact}, approvals: [{{user: a, digest: x}}]"), "spec.approvals[0].digest"),
            (format!("{artifact}, gate: x"), "gate"),
        ] {
            let error = read(&spec(&rest), "").unwrap_err();
            assert!(error.contains(place), "{error} lacks {place}");
        }
    }
}
