// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a Registry's status says of its collections. Pure.
//!
//! A run is known by when it began. Its Job and its pod go after a while; what was read from them stays.
//! Guarantees: the same runs again, or fewer of them, change nothing. Text of a log never enters a status.

use std::cmp::Reverse;

use k8s_openapi::api::batch::v1::CronJob;
use stowage_crds::{
    GarbageCollectionStatus, Outcome as RunOutcome, Summary,
    conditions::{ConditionType, Finding, Reason},
};

use super::{
    jobs::{self, EXIT_REFUSED},
    observe::Observed,
    validate::{Backing, Valid},
};
use crate::{names::Component, objects::Kind};

const COMMAND: &str = "gc";

/// What a collection was asked for with, once its Job is there.
pub(super) fn started<'a>(valid: &'a Valid, seen: &Observed) -> Option<&'a str> {
    let name = valid.requested_collection()?;
    seen.live.get(Kind::Job, &name).and_then(|_| valid.run_request())
}

/// What is known of the collections now; what is seen no longer stays as it was.
pub(super) fn seen(
    valid: &Valid,
    seen: &Observed,
    known: Option<GarbageCollectionStatus>,
) -> Option<GarbageCollectionStatus> {
    let mut status = known.unwrap_or_default();
    let schedule: Option<CronJob> = seen.live.typed(Kind::CronJob, &valid.names().garbage_collection());
    if let Some(due) = schedule.and_then(|schedule| schedule.status?.last_schedule_time) {
        status.last_schedule_time = Some(due);
    }
    let mut runs = match valid.backing {
        Backing::Shared => of_jobs(seen),
        Backing::Volume { .. } => of_replica(seen),
    };
    let ends = runs.iter().filter(|run| run.result == RunOutcome::Succeeded);
    let succeeded = ends.filter_map(|run| run.completion_time.clone());
    status.last_successful_time = succeeded.chain(status.last_successful_time).max();
    runs.sort_by_key(|run| Reverse(run.start_time.clone()));
    let newest = runs.into_iter().next();
    let known = status.last_result.as_ref().and_then(|run| run.start_time.as_ref());
    if let Some(run) = newest.filter(|run| known.is_none_or(|known| run.start_time.as_ref() > Some(known))) {
        status.last_result = Some(run);
    }
    (status != GarbageCollectionStatus::default()).then_some(status)
}

fn of_jobs(seen: &Observed) -> Vec<Summary> {
    let runs = seen.runs_of(Component::GarbageCollection);
    runs.filter_map(|job| jobs::ended(job, &seen.pods, COMMAND)).map(|run| run.summary).collect()
}

/// A replica that runs the schedule itself says what its last run did.
fn of_replica(seen: &Observed) -> Vec<Summary> {
    let runs = seen.reports.ready().flat_map(|report| &report.runs);
    runs.filter(|run| run.command == COMMAND && run.start_time.is_some()).cloned().collect()
}

/// The condition: what the last run came to.
pub(super) fn healthy(valid: &Valid, known: Option<&GarbageCollectionStatus>) -> Finding {
    let found = |holds: bool, reason, message: &str| {
        Finding::new(ConditionType::GarbageCollectionHealthy, holds, reason, message)
    };
    if valid.spec().garbage_collection().suspend {
        return found(true, Reason::Suspended, "collection is suspended");
    }
    let Some(last) = known.and_then(|known| known.last_result.as_ref()) else {
        return found(true, Reason::NeverRun, "no collection has run yet");
    };
    let said = last.message.as_deref();
    match last.result {
        RunOutcome::Succeeded => found(true, Reason::LastRunSucceeded, "the last collection succeeded"),
        RunOutcome::Refused => {
            found(false, Reason::Refused, said.unwrap_or(jobs::meaning(Some(EXIT_REFUSED))))
        }
        RunOutcome::Failed => found(false, Reason::LastRunFailed, said.unwrap_or(jobs::meaning(Some(1)))),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::{Value, from_value, json};
    use stowage_crds::Registry;

    use super::*;
    use crate::controllers::registry::validate::{Settings, validate};

    fn valid(seen: &Observed) -> Valid {
        let registry: Registry = from_value(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Registry",
            "metadata": { "name": "main", "namespace": "ns", "uid": "u", "generation": 1 },
            "spec": {
                "externalURL": "https://registry.example.com",
                "storage": { "s3": { "bucket": "blobs" } },
                "database": { "postgres": { "urlSecretRef": { "name": "pg", "key": "uri" } } },
            },
        }))
        .unwrap();
        let settings = Settings {
            registry_image: "a/b:1".parse().unwrap(),
            operator_namespace: "stowage-system".into(),
        };
        validate(&registry.into(), seen, &settings).unwrap()
    }

    fn job(name: &str, hour: u32, end: Option<&str>) -> Job {
        let at = |minute: u32| format!("2026-01-01T{hour:02}:{minute:02}:00Z");
        let conditions: Vec<Value> = end
            .iter()
            .map(|end| json!({ "type": end, "status": "True", "lastTransitionTime": at(5) }))
            .collect();
        from_value(json!({
            "metadata": { "name": name, "labels": { "app.kubernetes.io/component": "gc" } },
            "status": { "startTime": at(0), "conditions": conditions, "completionTime": (end == Some("Complete")).then(|| at(5)) },
        }))
        .unwrap()
    }

    fn pod(job: &str, exit: i32, message: &str) -> k8s_openapi::api::core::v1::Pod {
        from_value(json!({
            "metadata": { "name": job, "labels": { "batch.kubernetes.io/job-name": job } },
            "status": { "containerStatuses": [{
                "name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": exit, "message": message } },
            }] },
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_run_that_ended_is_told_and_stays_when_its_pod_is_gone() {
        let said = r#"{"command":"gc","result":"Succeeded","counts":{"deletedBlobs":2},"startTime":"1999-01-01T00:00:00Z"}"#;
        let mut now = Observed {
            runs: vec![job("b", 4, Some("Complete")), job("a", 3, Some("Failed")), job("c", 5, None)],
            pods: vec![pod("a", 1, ""), pod("b", 0, said)],
            ..Observed::default()
        };
        let valid = valid(&now);
        let first = seen(&valid, &now, None);
        let last = first.clone().unwrap().last_result.unwrap();
        assert_eq!((last.result, last.counts["deletedBlobs"]), (RunOutcome::Succeeded, 2));
        assert_eq!(last.start_time.unwrap().0.to_string(), "2026-01-01T04:00:00Z");
        assert_eq!(healthy(&valid, first.as_ref()).reason, Reason::LastRunSucceeded);
        now.pods.clear();
        assert_eq!(seen(&valid, &now, first.clone()), first);
        now.runs.clear();
        assert_eq!(seen(&valid, &now, first.clone()), first);
        now.runs.push(job("d", 6, Some("Failed")));
        let failed = seen(&valid, &now, first.clone());
        assert_eq!(healthy(&valid, failed.as_ref()).reason, Reason::LastRunFailed);
        assert_eq!(failed.unwrap().last_successful_time, first.unwrap().last_successful_time);
    }

    #[test]
    fn without_a_run_nothing_is_known() {
        let now = Observed { runs: vec![job("a", 3, None)], ..Observed::default() };
        let valid = valid(&now);
        assert_eq!(seen(&valid, &now, None), None);
        assert_eq!(healthy(&valid, None).reason, Reason::NeverRun);
    }
}
