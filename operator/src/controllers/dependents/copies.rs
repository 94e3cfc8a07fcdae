// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the status of a Mirror says of its runs. Pure.
//!
//! A run is known by when it began. Its Job and its pod go after a while; what was read from them stays.
//! Guarantees: the same runs again, or fewer of them, change nothing; a time in the status is that of a run, or follows
//! from one.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use stowage_crds::{
    Mirror, MirrorStatus, Outcome, Schedule, Summary, SyncFailure, Termination,
    conditions::{self, ConditionType, Reason, Verdict},
};

use super::{Seen, Set, Standing};
use crate::{
    controllers::registry::{
        jobs,
        replication::{COMMAND, asked_for},
    },
    names::RUN_REQUESTED_AT,
};

/// What of the upstream the failure of a run can tell.
const OF_UPSTREAM: [Reason; 6] = [
    Reason::UpstreamUnreachable,
    Reason::RateLimited,
    Reason::AuthenticationFailed,
    Reason::CertificateInvalid,
    Reason::NotARegistry,
    Reason::MirrorLoop,
];

/// Writes what is known of the runs. Where the Mirror stands is worse for an upstream that refuses us or is none.
pub(super) fn judge(
    mirror: &Mirror,
    seen: &Seen,
    standing: Standing,
    status: &mut MirrorStatus,
    set: &Set<'_>,
) -> Standing {
    note_request(mirror, seen, status);
    note_runs(ended(mirror, seen), status);
    status.next_sync_time = next(mirror, seen, status).map(Time);
    let last = status.last_result.clone();
    let (verdict, reason, message) = synced(last.as_ref());
    set.put(&mut status.conditions, ConditionType::Synced, verdict, (reason, message));
    match last {
        Some(last) if standing == Standing::InForce => {
            of_upstream(trouble(&last, &status.failures), message_of(&last), status, set)
        }
        _ => {
            conditions::clear(&mut status.conditions, ConditionType::UpstreamReachable);
            standing
        }
    }
}

/// A request is handled when its Job is there.
fn note_request(mirror: &Mirror, seen: &Seen, status: &mut MirrorStatus) {
    if asked_for(mirror).is_some_and(|run| seen.runs.iter().any(|job| job.name_any() == run)) {
        status.last_handled_run_at = mirror.annotations().get(RUN_REQUESTED_AT).cloned();
    }
}

/// The runs that have ended: those of Jobs, and what a replica says that runs them by itself.
fn ended(mirror: &Mirror, seen: &Seen) -> Vec<Termination> {
    let jobs = seen.runs.iter().filter_map(|job| jobs::ended(job, &seen.pods, COMMAND));
    let said = seen.said_of(mirror).into_iter().flatten().filter_map(|said| said.run.clone());
    jobs.chain(said).filter(|run| run.summary.start_time.is_some()).collect()
}

fn note_runs(runs: Vec<Termination>, status: &mut MirrorStatus) {
    let ends = |of: &dyn Fn(&Summary) -> bool| {
        let some = runs.iter().filter(|run| of(&run.summary));
        some.filter_map(|run| run.summary.completion_time.clone()).max()
    };
    let successful = ends(&|summary| summary.result == Outcome::Succeeded);
    status.last_sync_time = ends(&|_| true).max(status.last_sync_time.take());
    status.last_successful_sync_time = successful.max(status.last_successful_sync_time.take());
    let known = status.last_result.as_ref().and_then(|run| run.start_time.clone());
    let newest = runs.into_iter().max_by_key(|run| run.summary.start_time.clone());
    if let Some(run) = newest.filter(|run| run.summary.start_time > known) {
        status.last_result = Some(run.summary);
        status.failures = run.failures;
    }
}

/// When the next run begins, as far as a clock decides it.
fn next(mirror: &Mirror, seen: &Seen, status: &MirrorStatus) -> Option<Timestamp> {
    let spec = &mirror.spec;
    if spec.suspend {
        return None;
    }
    if let Some(pause) = &spec.interval {
        let last = status.last_sync_time.as_ref()?;
        return last.0.checked_add(pause.to_std()).ok();
    }
    let schedule = Schedule::new(spec.schedule.as_ref()?, spec.time_zone.as_ref()).ok()?;
    let began = status.last_result.as_ref().and_then(|run| run.start_time.clone());
    let known = [seen.last_scheduled.clone(), began, mirror.creation_timestamp()];
    schedule.next_after(known.into_iter().flatten().max()?.0)
}

/// The condition: what the last run came to.
fn synced(last: Option<&Summary>) -> (Verdict, Reason, &str) {
    let Some(last) = last else {
        return (Verdict::Unknown, Reason::NeverRun, "no run has ended yet");
    };
    match last.result {
        Outcome::Succeeded => {
            (Verdict::True, Reason::LastRunSucceeded, "the last run copied all that it was to")
        }
        Outcome::Refused => (Verdict::False, Reason::Refused, message_of(last)),
        Outcome::Failed if last.reason.as_deref() == Some(Reason::PartialFailure.as_str()) => {
            (Verdict::False, Reason::PartialFailure, message_of(last))
        }
        Outcome::Failed => (Verdict::False, Reason::LastRunFailed, message_of(last)),
    }
}

fn message_of(last: &Summary) -> &str {
    last.message.as_deref().unwrap_or("the last run failed; the log of its pod says why")
}

/// What of the upstream kept a run from doing anything. One that did a part of it met an upstream that answers.
fn trouble(last: &Summary, failures: &[SyncFailure]) -> Option<Reason> {
    if last.result == Outcome::Succeeded || last.reason.as_deref() == Some(Reason::PartialFailure.as_str()) {
        return None;
    }
    let first = failures.first().map(|failure| failure.reason.as_str());
    let words = [last.reason.as_deref(), first];
    OF_UPSTREAM.into_iter().find(|reason| words.contains(&Some(reason.as_str())))
}

fn of_upstream(trouble: Option<Reason>, message: &str, status: &mut MirrorStatus, set: &Set<'_>) -> Standing {
    let conditions = &mut status.conditions;
    let Some(reason) = trouble else {
        let text = "the last run met no failure of it";
        set.put(conditions, ConditionType::UpstreamReachable, true, (Reason::Reachable, text));
        return Standing::InForce;
    };
    set.put(conditions, ConditionType::UpstreamReachable, false, (reason, message));
    match reason {
        Reason::UpstreamUnreachable | Reason::RateLimited => Standing::Waiting(reason, message.to_owned()),
        _ => Standing::Stuck(reason, message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::{Value, from_value, json};

    use super::*;

    fn mirror(timing: &Value) -> Mirror {
        let mut mirror: Value = json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Mirror",
            "metadata": { "name": "base", "creationTimestamp": "2026-01-01T00:30:00Z", "generation": 1 },
            "spec": {
                "registryRef": { "name": "main" }, "mode": "Replicate",
                "upstream": { "url": "https://quay.example.com" }, "artifacts": [{ "repository": "a/b" }],
            },
        });
        for (key, value) in timing.as_object().unwrap() {
            mirror["spec"][key] = value.clone();
        }
        from_value(mirror).unwrap()
    }

    fn run(hour: u32, result: Outcome, reason: Option<&str>) -> Termination {
        let at = |minute: u32| Some(Time(format!("2026-01-01T{hour:02}:{minute:02}:00Z").parse().unwrap()));
        let summary = Summary {
            reason: reason.map(str::to_owned),
            message: Some("so it was".to_owned()),
            start_time: at(0),
            completion_time: at(5),
            ..Summary::new("sync", result)
        };
        Termination { summary, failures: Vec::new(), evaluation: None }
    }

    fn judged(mirror: &Mirror, runs: Vec<Termination>, status: &mut MirrorStatus) -> Standing {
        let now = Time(Timestamp::UNIX_EPOCH);
        let set = Set { generation: Some(1), now: &now };
        note_runs(runs, status);
        judge(mirror, &Seen::default(), Standing::InForce, status, &set)
    }

    fn shown(status: &MirrorStatus, condition: ConditionType) -> Option<(&str, &str)> {
        let found = conditions::find(&status.conditions, condition)?;
        Some((found.status.as_str(), found.reason.as_str()))
    }

    #[test]
    fn the_newest_run_is_told_and_stays_when_its_job_is_gone() {
        let (mirror, mut status) = (mirror(&json!({})), MirrorStatus::default());
        assert_eq!(judged(&mirror, vec![], &mut status), Standing::InForce);
        assert_eq!(shown(&status, ConditionType::Synced), Some(("Unknown", "NeverRun")));
        let runs = vec![run(4, Outcome::Failed, Some("PartialFailure")), run(3, Outcome::Succeeded, None)];
        assert_eq!(judged(&mirror, runs, &mut status), Standing::InForce);
        assert_eq!(shown(&status, ConditionType::Synced), Some(("False", "PartialFailure")));
        assert_eq!(shown(&status, ConditionType::UpstreamReachable), Some(("True", "Reachable")));
        let hour = |time: &Option<Time>| time.as_ref().unwrap().0.strftime("%H:%M").to_string();
        assert_eq!(hour(&status.last_sync_time), "04:05");
        assert_eq!(hour(&status.last_successful_sync_time), "03:05");
        let before = status.clone();
        judged(&mirror, vec![run(3, Outcome::Succeeded, None)], &mut status);
        assert_eq!(status, before);
    }

    #[test]
    fn an_upstream_that_refuses_us_needs_a_human_and_one_that_is_away_does_not() {
        for (reason, expected) in [
            ("AuthenticationFailed", "Stuck"),
            ("CertificateInvalid", "Stuck"),
            ("NotARegistry", "Stuck"),
            ("MirrorLoop", "Stuck"),
            ("RateLimited", "Waiting"),
            ("UpstreamUnreachable", "Waiting"),
            ("SummaryMissing", "InForce"),
        ] {
            let mut status = MirrorStatus::default();
            let standing =
                judged(&mirror(&json!({})), vec![run(3, Outcome::Failed, Some(reason))], &mut status);
            assert!(format!("{standing:?}").starts_with(expected), "{reason}: {standing:?}");
            assert_eq!(shown(&status, ConditionType::Synced), Some(("False", "LastRunFailed")));
        }
        let refused = SyncFailure { reference: "a/b".to_owned(), reason: "AuthenticationFailed".to_owned() };
        for (reason, expected) in
            [("RunFailed", Some(Reason::AuthenticationFailed)), ("PartialFailure", None)]
        {
            let last = run(3, Outcome::Failed, Some(reason)).summary;
            assert_eq!(trouble(&last, std::slice::from_ref(&refused)), expected);
        }
    }

    #[test]
    fn the_next_run_follows_from_the_last_one() {
        let next = |mirror: &Mirror, runs: Vec<Termination>| {
            let mut status = MirrorStatus::default();
            judged(mirror, runs, &mut status);
            status.next_sync_time.map(|time| time.0.strftime("%H:%M").to_string())
        };
        let hourly = mirror(&json!({ "schedule": "10 * * * *" }));
        assert_eq!(next(&hourly, vec![]).as_deref(), Some("01:10"));
        assert_eq!(next(&hourly, vec![run(4, Outcome::Succeeded, None)]).as_deref(), Some("04:10"));
        let continuous = mirror(&json!({ "interval": "1m" }));
        assert_eq!(next(&continuous, vec![]), None, "it is due now");
        assert_eq!(next(&continuous, vec![run(4, Outcome::Failed, None)]).as_deref(), Some("04:06"));
        let suspended = mirror(&json!({ "interval": "1m", "suspend": true }));
        assert_eq!(next(&suspended, vec![run(4, Outcome::Succeeded, None)]), None);
    }

    #[test]
    fn a_request_is_handled_when_its_job_is_there() {
        let mut asked = mirror(&json!({}));
        asked.annotations_mut().insert(RUN_REQUESTED_AT.to_owned(), "one".to_owned());
        let mut status = MirrorStatus::default();
        note_request(&asked, &Seen::default(), &mut status);
        assert_eq!(status.last_handled_run_at, None);
        let job: Job = from_value(json!({ "metadata": { "name": asked_for(&asked).unwrap() } })).unwrap();
        let seen = Seen { runs: vec![job], ..Seen::default() };
        note_request(&asked, &seen, &mut status);
        assert_eq!(status.last_handled_run_at.as_deref(), Some("one"));
    }
}
