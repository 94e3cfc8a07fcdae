// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which runs of `RetentionPolicy` resources are wanted now. Pure.

use kube::ResourceExt as _;
use stowage_crds::{Cron, RetentionPolicy, RetentionPolicySpec, TimeZone, document::Document};

use super::observe::Observed;
use crate::names::{RUN_REQUESTED_AT, RetentionNames};

/// The command of a run.
pub const COMMAND: &str = "retention";

/// A `RetentionPolicy` whose runs judge tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Its name.
    pub policy: String,
    /// When runs begin.
    pub schedule: Cron,
    /// In which time zone; without one, UTC.
    pub time_zone: Option<TimeZone>,
    /// Whether no run may begin.
    pub suspended: bool,
    /// The name of the run that is asked for.
    pub requested: Option<String>,
}

/// The policies of a document, and what is wanted of each.
pub(super) fn retentions(document: &Document, seen: &Observed) -> Vec<Retention> {
    let of = |name: &str, spec: &RetentionPolicySpec| {
        let policy = seen.dependents.retention_policies.iter().find(|policy| policy.name_any() == name);
        Retention {
            policy: name.to_owned(),
            schedule: spec.schedule.clone(),
            time_zone: spec.time_zone.clone(),
            suspended: spec.suspend,
            requested: policy.filter(|_| !spec.suspend).and_then(asked_for),
        }
    };
    document.retention_policies.iter().map(|entry| of(&entry.name, &entry.spec)).collect()
}

/// The run that a policy asks for, if it is not known to have been started. What was handled before it is a part of its
/// name, so that a request can be made again with the words of an earlier one.
#[must_use]
pub fn asked_for(policy: &RetentionPolicy) -> Option<String> {
    let asked = policy.annotations().get(RUN_REQUESTED_AT)?;
    let handled = policy.status.as_ref().and_then(|status| status.last_handled_run_at.as_ref());
    let seed = format!("{}|{asked}", handled.map(String::as_str).unwrap_or_default());
    (handled != Some(asked)).then(|| RetentionNames::of(&policy.name_any()).run(&seed))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_request_is_a_run_of_its_own_until_it_is_handled() {
        let asked = |annotation: Option<&str>, handled: Option<&str>| {
            let policy: RetentionPolicy = from_value(json!({
                "apiVersion": "stowage.dev/v1alpha1", "kind": "RetentionPolicy",
                "metadata": {
                    "name": "team",
                    "annotations": annotation.map(|asked| json!({ "stowage.dev/run-requested-at": asked })),
                },
                "spec": { "registryRef": { "name": "main" }, "repositories": { "include": ["**"] } },
                "status": { "lastHandledRunAt": handled },
            }))
            .unwrap();
            asked_for(&policy)
        };
        let one = asked(Some("one"), None);
        assert!(one.is_some() && asked(None, None).is_none());
        assert_eq!(asked(Some("one"), Some("one")), None);
        let two = asked(Some("two"), Some("one"));
        assert!(two.is_some() && two != one);
        assert_ne!(asked(Some("one"), Some("two")), one, "the same words again are another request");
    }
}
