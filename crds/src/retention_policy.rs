// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `RetentionPolicy`: which tags of some repositories of a Registry stay.
//!
//! A tag stays if a rule of any policy that matches its repository keeps it. What a user deletes goes to the same trash.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stowage_oci::TagGroups;

use crate::{
    Cron, Duration, Glob, ItemName, Labels, Ref, RegexText, Schedule, Summary, TagSelector, TimeZone,
    check::{FieldPath, Violation},
};

/// Which tags of some repositories stay.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "RetentionPolicy",
    plural = "retentionpolicies",
    shortname = "retpol",
    category = "oci",
    namespaced,
    status = "RetentionPolicyStatus",
    derive = "PartialEq",
    doc = "Which tags of some repositories of a Registry stay. A rule of any policy keeps; what no rule keeps is deleted, or told.",
    selectable = ".spec.registryRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Last-Run", type_ = "date", json_path = ".status.lastRunTime"),
    printcolumn(name = "Deleted", type_ = "integer", json_path = ".status.lastResult.counts.deletedTags"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Would-Delete",
        type_ = "integer",
        json_path = ".status.lastResult.counts.wouldDeleteTags",
        priority = 1
    ),
    printcolumn(
        name = "Reclaimable",
        type_ = "integer",
        json_path = ".status.lastResult.counts.reclaimableBytes",
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
pub struct RetentionPolicySpec {
    /// The Registry it is for, in the same namespace. Cannot change.
    pub registry_ref: Ref,
    /// The repositories it is for.
    pub repositories: RetentionRepositories,
    /// Whether it deletes, or only tells what it would delete. The first run of changed rules only tells.
    #[serde(default)]
    pub mode: RetentionMode,
    /// When runs begin: five fields of cron.
    #[serde(default = "RetentionPolicySpec::nightly")]
    pub schedule: Cron,
    /// The time zone of the schedule. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// A tag stays if one of these rules keeps it. Absent: none does, which mode Enforce refuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub keep: Vec<KeepRule>,
    /// Nothing younger is deleted; the largest of all policies that match a repository counts.
    #[serde(default = "RetentionPolicySpec::three_days")]
    pub min_age: Duration,
    /// When manifests without a tag are deleted. Absent: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged: Option<Untagged>,
    /// What becomes of what refers to a manifest that is deleted. Keep in any policy that matches keeps.
    #[serde(default)]
    pub referrers: RetentionReferrers,
    /// How much a run may delete. Absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RetentionLimits>,
    /// While true it deletes nothing; its rules keep all the same.
    #[serde(default)]
    pub suspend: bool,
}

impl RetentionPolicySpec {
    fn nightly() -> Cron {
        "30 2 * * *".into()
    }

    fn three_days() -> Duration {
        "72h".parse().expect("a duration")
    }

    /// How much a run may delete, with the defaults where the spec has none.
    #[must_use]
    pub fn limits(&self) -> RetentionLimits {
        self.limits.clone().unwrap_or_default()
    }
}

/// The repositories that a policy is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct RetentionRepositories {
    /// Which: `*` and `?` within a component, `**` for one or more whole components.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub include: Vec<Glob>,
    /// Which of these not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<Glob>,
}

/// Whether a policy deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RetentionMode {
    /// It tells what it would delete.
    #[default]
    DryRun,
    /// It deletes what no rule keeps.
    Enforce,
}

impl RetentionMode {
    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DryRun => "DryRun",
            Self::Enforce => "Enforce",
        }
    }
}

/// Conditions that hold together for tags that stay; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeepRule {
    /// Its name, once in the list: reports give it as the reason.
    pub name: ItemName,
    /// Which tags it is about. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagSelector>,
    /// What the labels of the image or the annotations of its manifest say; of an index its annotations, or what every
    /// image that it lists says. What cannot be read is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelMatch>,
    /// It was pushed less than so long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed_within: Option<Duration>,
    /// It was pulled less than so long ago; what was never pulled counts from its push. While the record of pulls may
    /// lack some of that time, everything is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled_within: Option<Duration>,
    /// What it names was promoted from this repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<PromotedTo>,
    /// It is among the first of those that all this holds for, in each repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_recent: Option<MostRecent>,
    /// Whether the rule keeps whatever it is about, without another condition.
    #[serde(default)]
    pub always: bool,
}

/// Labels that must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct LabelMatch {
    /// All of these, with these values.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: Labels,
}

/// Where to something was promoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct PromotedTo {
    /// Repositories; any of them.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<Glob>,
    /// Less than so long ago. Absent: ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
}

/// The first tags in an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct MostRecent {
    /// How many of each group.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: i32,
    /// In which order. By Version, tags that are no version are not among them.
    #[serde(default)]
    pub by: RecentBy,
    /// A regular expression whose first group names the group of a tag. A tag that it does not fit is kept, as a group of
    /// its own. Absent: all tags are one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<RegexText>,
}

/// An order of tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RecentBy {
    /// What was pushed last comes first.
    #[default]
    Pushed,
    /// What was pulled last comes first.
    Pulled,
    /// The highest version comes first.
    Version,
}

/// When manifests without a tag are deleted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Untagged {
    /// So long after the last tag, index or pull that named them; the largest of all policies that match counts.
    #[serde(default = "Untagged::a_week")]
    pub delete_after: Duration,
}

impl Untagged {
    fn a_week() -> Duration {
        "168h".parse().expect("a duration")
    }
}

/// What becomes of what refers to a manifest that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RetentionReferrers {
    /// It goes, once it has no tag either.
    #[default]
    FollowSubject,
    /// It stays.
    Keep,
}

/// How much a run may delete: more, and it deletes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct RetentionLimits {
    /// Tags.
    #[serde(default = "RetentionLimits::a_thousand")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_deletions_per_run: i32,
    /// Of a hundred tags that a run looks at; ten are always allowed.
    #[serde(default = "RetentionLimits::a_fifth")]
    #[schemars(range(min = 1, max = 100))]
    pub max_delete_percent: i32,
}

impl RetentionLimits {
    const fn a_thousand() -> i32 {
        1000
    }

    const fn a_fifth() -> i32 {
        20
    }
}

impl Default for RetentionLimits {
    fn default() -> Self {
        Self { max_deletions_per_run: Self::a_thousand(), max_delete_percent: Self::a_fifth() }
    }
}

/// What the operator saw of a `RetentionPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicyStatus {
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
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_time: Option<Time>,
    /// When the last run ended that did what it was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// What the last run reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<Summary>,
    /// Where, on the admin port, the plan of the last run is: a line a tag with its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// What is wrong with a policy that its schema and rules cannot say: lines of cron, zones, ranges, expressions.
pub(crate) fn problems(spec: &RetentionPolicySpec) -> Vec<Violation> {
    let root = FieldPath::from("spec");
    let schedule = Schedule::new(&spec.schedule, spec.time_zone.as_ref()).err();
    let schedule = schedule.map(|error| Violation { path: root.clone(), message: error.to_string() });
    let list = root.field("keep");
    let rules = spec.keep.iter().enumerate().flat_map(|(place, rule)| problems_of(&list.item(place), rule));
    schedule.into_iter().chain(rules).collect()
}

fn problems_of(at: &FieldPath, rule: &KeepRule) -> Vec<Violation> {
    let tags = rule.tags.as_ref().and_then(|tags| tags.parse(&at.field("tags")).err());
    let groups = rule.most_recent.as_ref().and_then(|recent| recent.group_by.as_ref()).and_then(|groups| {
        let message = groups.as_str().parse::<TagGroups>().err()?.to_string();
        Some(Violation { path: at.field("mostRecent").field("groupBy"), message })
    });
    tags.into_iter().chain(groups).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_cannot_say_is_refused_with_its_place() {
        let problems_of = |spec: serde_json::Value| {
            let mut whole =
                json!({ "registryRef": { "name": "main" }, "repositories": { "include": ["**"] } });
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let spec: RetentionPolicySpec = serde_json::from_value(whole).unwrap();
            problems(&spec).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let keep = |rule: serde_json::Value| json!({ "keep": [{ "name": "a", "always": true }, rule] });
        for (spec, place) in [
            (json!({ "schedule": "60 3 * * *" }), "spec: schedule: "),
            (json!({ "timeZone": "Mars/Base" }), "spec: timeZone: "),
            (
                keep(json!({ "name": "b", "tags": { "semver": { "range": "latest" } } })),
                "spec.keep[1].tags.semver.range: not a range",
            ),
            (
                keep(json!({ "name": "b", "tags": { "regex": ["("] } })),
                "spec.keep[1].tags.regex[0]: not a regular expression",
            ),
            (
                keep(json!({ "name": "b", "mostRecent": { "count": 1, "groupBy": "v[0-9]+" } })),
                "spec.keep[1].mostRecent.groupBy: \"v[0-9]+\" has no group",
            ),
        ] {
            let found = problems_of(spec);
            assert!(found.len() == 1 && found[0].starts_with(place), "{found:?} {place}");
        }
        let good = keep(
            json!({ "name": "b", "mostRecent": { "count": 1, "by": "Version", "groupBy": "^([0-9]+)" } }),
        );
        assert!(problems_of(good).is_empty());
    }
}
