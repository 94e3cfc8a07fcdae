// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the status of a `RetentionPolicy` says of its runs. Pure.
//!
//! A run is known by when it began. Its Job and its pod go after a while; what was read from them stays.
//! Guarantees: the same runs again, or fewer of them, change nothing. What a run refused for stands until the next run, or
//! until the policy is edited.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use stowage_crds::{
    Outcome, RetentionPolicy, RetentionPolicyStatus, Summary,
    conditions::{self, ConditionType, Reason},
};

use super::{Seen, Set, Standing};
use crate::{
    controllers::registry::{
        jobs,
        retention::{COMMAND, asked_for},
    },
    names::RUN_REQUESTED_AT,
};

/// How a run counts that other policies match what this one matches.
const OVERLAPPING: &str = "overlappingPolicies";

/// Writes what is known of the runs. Where the policy stands is worse for a run that did not do what it was to.
pub(super) fn judge(
    policy: &RetentionPolicy,
    seen: &Seen,
    standing: Standing,
    status: &mut RetentionPolicyStatus,
    set: &Set<'_>,
) -> Standing {
    note_request(policy, seen, status);
    let is_new = note_runs(ended(policy, seen), status);
    judge_known(policy, standing, status, set, is_new)
}

/// The same of what is known; whether the last run was not known before.
fn judge_known(
    policy: &RetentionPolicy,
    standing: Standing,
    status: &mut RetentionPolicyStatus,
    set: &Set<'_>,
    is_new: bool,
) -> Standing {
    let Some(last) = status.last_result.clone() else { return standing };
    status.report = Some(format!("/admin/v1/retention/{}/report", policy.name_any()));
    overlap(&last, status, set);
    let trouble = trouble(&last).filter(|(reason, _)| is_new || stands(*reason, status, set));
    let reason = trouble.map(|(reason, _)| reason);
    let message = last.message.as_deref().unwrap_or("the log of its pod says why");
    let refused = |reason| matches!(reason, Reason::UsageReportMissing | Reason::UsageReportStale);
    match reason {
        Some(Reason::LimitExceeded) => {
            let found = (Reason::LimitExceeded, message);
            set.put(&mut status.conditions, ConditionType::LimitExceeded, true, found);
        }
        _ => conditions::clear(&mut status.conditions, ConditionType::LimitExceeded),
    }
    match reason.filter(|reason| refused(*reason)) {
        Some(reason) => {
            set.put(&mut status.conditions, ConditionType::Protected, false, (reason, message));
        }
        None => conditions::clear(&mut status.conditions, ConditionType::Protected),
    }
    match (standing, trouble) {
        (Standing::InForce, Some((reason, true))) => Standing::Stuck(reason, message.to_owned()),
        (Standing::InForce, Some((reason, false))) => Standing::Waiting(reason, message.to_owned()),
        (standing, _) => standing,
    }
}

/// A request is handled when its Job is there.
fn note_request(policy: &RetentionPolicy, seen: &Seen, status: &mut RetentionPolicyStatus) {
    if asked_for(policy).is_some_and(|run| seen.runs.iter().any(|job| job.name_any() == run)) {
        status.last_handled_run_at = policy.annotations().get(RUN_REQUESTED_AT).cloned();
    }
}

/// The runs that have ended: those of Jobs, and what a replica says that runs them by itself.
fn ended(policy: &RetentionPolicy, seen: &Seen) -> Vec<Summary> {
    let jobs = seen.runs.iter().filter_map(|job| jobs::ended(job, &seen.pods, COMMAND));
    let said = seen.said_of(policy).into_iter().flatten().filter_map(|said| said.run.clone());
    jobs.chain(said).map(|run| run.summary).filter(|run| run.start_time.is_some()).collect()
}

/// Whether one of them is newer than what was known.
fn note_runs(runs: Vec<Summary>, status: &mut RetentionPolicyStatus) -> bool {
    let ends = |of: &dyn Fn(&Summary) -> bool| {
        let some = runs.iter().filter(|run| of(run));
        some.filter_map(|run| run.completion_time.clone()).max()
    };
    let successful = ends(&|summary| summary.result == Outcome::Succeeded);
    status.last_run_time = ends(&|_| true).max(status.last_run_time.take());
    status.last_successful_time = successful.max(status.last_successful_time.take());
    let known = status.last_result.as_ref().and_then(|run| run.start_time.clone());
    let newest = runs.into_iter().max_by_key(|run| run.start_time.clone());
    let newer = newest.filter(|run| run.start_time > known);
    let is_new = newer.is_some();
    status.last_result = newer.or(status.last_result.take());
    is_new
}

/// Whether this was told of this generation.
fn stands(reason: Reason, status: &RetentionPolicyStatus, set: &Set<'_>) -> bool {
    let told =
        |found: &&Condition| found.reason == reason.as_str() && found.observed_generation == set.generation;
    status.conditions.iter().any(|found| told(&found))
}

/// Why a run did not do what it was to, and whether a human must change something.
fn trouble(last: &Summary) -> Option<(Reason, bool)> {
    let said = |reason: Reason| last.reason.as_deref() == Some(reason.as_str());
    match last.result {
        Outcome::Succeeded => None,
        Outcome::Failed => Some((Reason::RunFailed, false)),
        Outcome::Refused => {
            let known = [Reason::LimitExceeded, Reason::UsageReportMissing, Reason::UsageReportStale];
            let reason = known.into_iter().find(|reason| said(*reason)).unwrap_or(Reason::Refused);
            Some((reason, reason == Reason::LimitExceeded))
        }
    }
}

fn overlap(last: &Summary, status: &mut RetentionPolicyStatus, set: &Set<'_>) {
    if last.counts.get(OVERLAPPING).is_some_and(|count| *count > 0) {
        let text = "other policies match repositories that it matches: what one of them keeps stays";
        let found = (Reason::PoliciesOverlap, text);
        set.put(&mut status.conditions, ConditionType::Overlapping, true, found);
    } else if last.counts.contains_key(OVERLAPPING) {
        conditions::clear(&mut status.conditions, ConditionType::Overlapping);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{from_value, json};

    use super::*;

    fn policy() -> RetentionPolicy {
        from_value(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "RetentionPolicy",
            "metadata": { "name": "team", "generation": 1 },
            "spec": { "registryRef": { "name": "main" }, "repositories": { "include": ["**"] } },
        }))
        .unwrap()
    }

    fn run(hour: u32, result: Outcome, reason: Option<&str>) -> Summary {
        let at = |minute: u32| Some(Time(format!("2026-01-01T{hour:02}:{minute:02}:00Z").parse().unwrap()));
        Summary {
            reason: reason.map(str::to_owned),
            message: Some("so it was".to_owned()),
            start_time: at(0),
            completion_time: at(5),
            ..Summary::new("retention", result)
        }
    }

    /// As a reconciliation does it, with what sums the status up.
    fn judged(runs: Vec<Summary>, generation: i64, status: &mut RetentionPolicyStatus) -> Standing {
        let now = Time(Timestamp::UNIX_EPOCH);
        let set = Set { generation: Some(generation), now: &now };
        let is_new = note_runs(runs, status);
        let standing = judge_known(&policy(), Standing::InForce, status, &set, is_new);
        super::super::summarise(&mut status.conditions, &standing, &set);
        standing
    }

    fn shown(status: &RetentionPolicyStatus, condition: ConditionType) -> Option<(&str, &str)> {
        let found = conditions::find(&status.conditions, condition)?;
        Some((found.status.as_str(), found.reason.as_str()))
    }

    #[test]
    fn a_run_beyond_its_limits_needs_a_human_until_the_next_run_or_an_edit() {
        let mut status = RetentionPolicyStatus::default();
        assert_eq!(judged(vec![], 1, &mut status), Standing::InForce);
        let exceeded = run(3, Outcome::Refused, Some("LimitExceeded"));
        assert!(matches!(
            judged(vec![exceeded.clone()], 1, &mut status),
            Standing::Stuck(Reason::LimitExceeded, _)
        ));
        assert_eq!(shown(&status, ConditionType::LimitExceeded), Some(("True", "LimitExceeded")));
        assert_eq!(status.report.as_deref(), Some("/admin/v1/retention/team/report"));
        let before = status.clone();
        judged(vec![], 1, &mut status);
        assert_eq!(status, before, "nothing moves while nothing happens");
        let mut edited = status.clone();
        assert_eq!(judged(vec![], 2, &mut edited), Standing::InForce, "the limits were raised");
        assert_eq!(shown(&edited, ConditionType::LimitExceeded), None);
        assert_eq!(judged(vec![run(4, Outcome::Succeeded, None)], 1, &mut status), Standing::InForce);
        assert_eq!(shown(&status, ConditionType::LimitExceeded), None);
        assert_eq!(status.last_successful_time, status.last_run_time);
    }

    #[test]
    fn what_may_pass_by_itself_is_waited_for() {
        for (result, reason, expected) in [
            (Outcome::Failed, None, Reason::RunFailed),
            (Outcome::Refused, None, Reason::Refused),
            (Outcome::Refused, Some("UsageReportMissing"), Reason::UsageReportMissing),
        ] {
            let mut status = RetentionPolicyStatus::default();
            let standing = judged(vec![run(3, result, reason)], 1, &mut status);
            assert_eq!(standing, Standing::Waiting(expected, "so it was".to_owned()));
            let protected = shown(&status, ConditionType::Protected);
            assert_eq!(protected.is_some(), expected == Reason::UsageReportMissing);
        }
    }

    #[test]
    fn policies_that_overlap_are_told() {
        let mut status = RetentionPolicyStatus::default();
        let counted = |count| Summary {
            counts: [(OVERLAPPING.to_owned(), count)].into(),
            ..run(3, Outcome::Succeeded, None)
        };
        assert_eq!(judged(vec![counted(1)], 1, &mut status), Standing::InForce);
        assert_eq!(shown(&status, ConditionType::Overlapping), Some(("True", "PoliciesOverlap")));
        let later = Summary { start_time: run(4, Outcome::Succeeded, None).start_time, ..counted(0) };
        judged(vec![later], 1, &mut status);
        assert_eq!(shown(&status, ConditionType::Overlapping), None);
    }
}
