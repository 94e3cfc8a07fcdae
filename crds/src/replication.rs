// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a `Mirror` of mode `Replicate` has: what is copied, when, and how fast.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    MirrorSpec, Schedule, TagSelector,
    check::{FieldPath, Violation},
    mirror::MirrorMode,
    quantity::Quantity,
    signatures,
    text::{Glob, OrganizationName, PlatformName, Repository},
};

/// Repositories that are copied, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorArtifacts {
    /// One repository, by its name at the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Repositories that the upstream lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<Discover>,
    /// Which tags. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagSelector>,
    /// How many of the highest versions among these tags, in each repository. A tag that is no version is none of
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub newest: Option<i32>,
    /// For which platforms, as `linux/arm64` or `linux/arm/v7`, images of an index are copied; the index itself is
    /// copied as it is. Absent: for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub platforms: Vec<PlatformName>,
}

/// Repositories that the upstream lists: by exactly one of `catalog` and `quayOrganization`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discover {
    /// Those of its catalog (`/v2/_catalog`) that one of these patterns fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub catalog: Vec<Glob>,
    /// Those of an organization of Quay, by Quay's API. Private ones need an OAuth token in `upstream.secretRef`: as
    /// `password` of the `username` `$oauthtoken`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quay_organization: Option<OrganizationName>,
    /// Which of them are not copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<Glob>,
}

/// What happens here to tags that the upstream has no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Prune {
    /// They stay.
    #[default]
    Never,
    /// Those that this mirror set are deleted, after a run without any failure.
    RemovedUpstream,
}

/// Whether what refers to an image is taken from the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MirrorReferrers {
    /// It is: signatures, attestations, SBOMs, also those under tags such as `sha256-….sig`.
    #[default]
    Include,
    /// It is not.
    Exclude,
}

/// How much a run takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorLimits {
    /// Images that are copied at the same time.
    #[serde(default = "MirrorLimits::parallel")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: i32,
    /// Bytes of blobs that a run fetches in a second. Absent: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Quantity>,
}

impl MirrorLimits {
    const fn parallel() -> i32 {
        4
    }
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self { parallelism: Self::parallel(), bytes_per_second: None }
    }
}

/// Something that a run could not do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct SyncFailure {
    /// What it was about: `library/alpine:3.21`, by its name at the upstream.
    pub reference: String,
    /// Why, in one CamelCase word.
    pub reason: String,
}

/// What is wrong with a mirror that its schema and rules cannot say: lines of cron, zones, ranges, expressions.
pub(crate) fn problems(spec: &MirrorSpec) -> Vec<Violation> {
    let root = FieldPath::from("spec");
    let unsigned = spec.verify.iter().flat_map(|wanted| signatures::problems(&root.field("verify"), wanted));
    if spec.mode != MirrorMode::Replicate {
        return unsigned.collect();
    }
    let schedule = spec.schedule.as_ref().map(|cron| Schedule::new(cron, spec.time_zone.as_ref()));
    let schedule = schedule.and_then(Result::err);
    let schedule = schedule.map(|error| Violation { path: root.clone(), message: error.to_string() });
    let list = root.field("artifacts");
    let selections = spec.artifacts.iter().enumerate().filter_map(|(place, artifacts)| {
        artifacts.tags.as_ref()?.parse(&list.item(place).field("tags")).err()
    });
    schedule.into_iter().chain(selections).chain(unsigned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems_of(spec: &serde_json::Value) -> Vec<String> {
        let mut whole = json!({
            "registryRef": { "name": "main" }, "mode": "Replicate", "upstream": { "url": "https://hub.example.com" },
            "artifacts": [{ "repository": "a" }],
        });
        let fields = whole.as_object_mut().unwrap();
        fields.extend(spec.as_object().unwrap().clone());
        let spec: MirrorSpec = serde_json::from_value(whole).unwrap();
        problems(&spec).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_schema_cannot_say_is_refused_with_its_place() {
        let tags = |tags: serde_json::Value| json!({ "artifacts": [{ "repository": "a" }, { "repository": "b", "tags": tags }] });
        for (spec, place) in [
            (json!({ "schedule": "60 3 * * *" }), "spec: schedule: "),
            (json!({ "schedule": "@daily", "timeZone": "Mars/Base" }), "spec: timeZone: "),
            (
                tags(json!({ "semver": { "range": "latest" } })),
                "spec.artifacts[1].tags.semver.range: not a range",
            ),
            (
                tags(json!({ "regex": ["v1", "("] })),
                "spec.artifacts[1].tags.regex[1]: not a regular expression",
            ),
        ] {
            let found = problems_of(&spec);
            assert!(found.len() == 1 && found[0].starts_with(place), "{found:?} {place}");
        }
        let good = json!({ "schedule": "0 */6 * * *", "timeZone": "Europe/Berlin" });
        assert!(problems_of(&good).is_empty());
        assert!(problems_of(&tags(json!({ "glob": ["v*"], "exclude": ["*-rc*"] }))).is_empty());
    }
}
