// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How the replicas do, as Deployment, pods and reports show it. Pure.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Pod},
};
use stowage_crds::{
    Outcome, Summary,
    conditions::{ConditionType, Finding, Reason, Verdict},
    report::{Check, Checks},
};

use super::jobs::{EXIT_CONFIGURATION, EXIT_REFUSED};
use crate::reports::{Answer, Snapshot};

/// The longest text of a replica's last line that a condition shows.
const LONGEST_LINE: usize = 512;

/// The numbers of a Deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// How many there are to be.
    pub(super) wanted: i32,
    /// How many there are.
    pub(super) present: i32,
    /// How many are ready.
    pub(super) ready: i32,
    /// Whether what the Deployment says now is all that runs, in full number.
    pub(super) complete: bool,
    /// Whether the newest template was complete once and nothing older runs. A pod that dies later, or a scaling,
    /// does not change that.
    pub(super) settled: bool,
}

impl Numbers {
    /// The numbers of a Deployment, or of none.
    #[must_use]
    pub(super) fn of(deployment: Option<&Deployment>) -> Self {
        let Some(deployment) = deployment else { return Self::default() };
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let present = status.replicas.unwrap_or(0);
        let updated = status.updated_replicas.unwrap_or(0);
        let only_newest = status.observed_generation >= deployment.metadata.generation && updated == present;
        let was_complete = status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "Progressing" && condition.reason.as_deref() == Some("NewReplicaSetAvailable")
        });
        Self {
            wanted,
            present,
            ready: status.ready_replicas.unwrap_or(0),
            complete: only_newest && present == wanted && status.available_replicas.unwrap_or(0) == wanted,
            settled: only_newest && was_complete,
        }
    }
}

/// What keeps a replica from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// For the condition.
    pub(super) reason: Reason,
    /// For a human.
    pub(super) message: String,
}

impl Trouble {
    /// Must a human change something?
    #[must_use]
    pub(super) fn is_decided(&self) -> bool {
        matches!(self.reason, Reason::InvalidConfiguration | Reason::StartRefused)
    }
}

/// The gravest trouble of any pod.
#[must_use]
pub(super) fn trouble<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Option<Trouble> {
    let living = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let statuses = living.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    statuses.filter_map(container_trouble).max_by_key(|trouble| match trouble.reason {
        Reason::StartRefused => 3,
        Reason::InvalidConfiguration => 2,
        Reason::ImagePullFailed => 1,
        _ => 0,
    })
}

fn container_trouble(container: &ContainerStatus) -> Option<Trouble> {
    let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    if container.ready || running {
        return None;
    }
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let why = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    if ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"].contains(&why) {
        let message = format!("image {} cannot be pulled", container.image);
        return Some(Trouble { reason: Reason::ImagePullFailed, message });
    }
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        state.and_then(|state| state.terminated.clone()).filter(|end| end.exit_code != 0)
    };
    let end = ended(container.state.as_ref()).or_else(|| ended(container.last_state.as_ref()))?;
    let said = end.message.as_deref().and_then(last_line);
    let (reason, message) = match end.exit_code {
        EXIT_CONFIGURATION => (Reason::InvalidConfiguration, "a replica refuses its configuration"),
        EXIT_REFUSED => (Reason::StartRefused, "a replica refuses to start, for safety"),
        _ => (Reason::CrashLooping, "a replica ends again and again; its log says why"),
    };
    let told = said.filter(|_| reason != Reason::CrashLooping);
    let message = told.map_or_else(|| message.to_owned(), |said| format!("{message}: {said}"));
    Some(Trouble { reason, message })
}

fn last_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(LONGEST_LINE).collect())
}

/// Is a replica ready?
#[must_use]
pub(super) fn available(numbers: Numbers, trouble: Option<&Trouble>) -> Finding {
    let condition = ConditionType::Available;
    if numbers.ready > 0 {
        return Finding::new(condition, true, Reason::MinimumReplicasAvailable, "a replica is ready");
    }
    match trouble {
        Some(trouble) => Finding::new(condition, false, trouble.reason, trouble.message.clone()),
        None if numbers.wanted == 0 => {
            Finding::new(condition, false, Reason::NoReplicas, "no replicas are asked for")
        }
        None => Finding::new(condition, false, Reason::NoReplicas, "no replica is ready yet"),
    }
}

/// Is the database one that was lost, of a bucket that was not?
#[must_use]
pub(super) fn needs_rebuild(reports: &Snapshot) -> bool {
    reports.all().any(|report| report.checks.database == Check::Empty)
}

/// Do the replicas reach the bucket or volume?
#[must_use]
pub(super) fn storage(reports: &Snapshot) -> Finding {
    reachable(
        reports,
        ConditionType::StorageReachable,
        |checks| checks.storage,
        (Reason::StorageUnreachable, "a replica does not reach the storage"),
    )
}

/// Do the replicas reach the database? Whether collection trusts it is what the last collection said.
#[must_use]
pub(super) fn database(reports: &Snapshot, last: Option<&Summary>) -> Finding {
    let found = reachable(
        reports,
        ConditionType::DatabaseReachable,
        |checks| checks.database,
        (Reason::DatabaseUnreachable, "a replica does not reach the database"),
    );
    let frozen = Reason::CollectorFrozen.as_str();
    let is_frozen =
        last.is_some_and(|run| run.result == Outcome::Refused && run.reason.as_deref() == Some(frozen));
    if found.verdict == Verdict::True && is_frozen {
        let message = "the last collection did not trust the database: GarbageCollectionHealthy says why";
        return Finding { reason: Reason::CollectorFrozen, message: message.into(), ..found };
    }
    found
}

fn reachable(
    reports: &Snapshot,
    condition: ConditionType,
    check: fn(&Checks) -> Check,
    (unreachable, message): (Reason, &str),
) -> Finding {
    let checks: Vec<_> = reports.all().map(|report| check(&report.checks)).collect();
    if checks.contains(&Check::Unreachable) {
        Finding::new(condition, false, unreachable, message)
    } else if checks.contains(&Check::Ok) || checks.contains(&Check::Empty) {
        Finding::new(condition, true, Reason::ProbeSucceeded, "the replicas reach it")
    } else {
        Finding::new(condition, Verdict::Unknown, Reason::WaitingForReplicas, "no replica has reported yet")
    }
}

/// Do all ready replicas run the document with this hash?
#[must_use]
pub(super) fn applied(reports: &Snapshot, wanted: &str) -> Finding {
    let found = |verdict: bool, reason, message: String| {
        Finding::new(ConditionType::ConfigurationApplied, verdict, reason, message)
    };
    let rejection = reports.0.iter().find_map(|replica| {
        let rejected = replica.report()?.rejected.as_ref()?;
        let concerns_this = rejected.hash.as_deref().is_none_or(|hash| hash == wanted);
        concerns_this.then(|| format!("replica {} refuses the document: {}", replica.pod, rejected.message))
    });
    if let Some(message) = rejection {
        return found(false, Reason::ConfigurationRejected, message);
    }
    let mut ready = reports.0.iter().filter(|replica| replica.ready).peekable();
    if ready.peek().is_none() {
        return found(false, Reason::WaitingForReplicas, "no replica is ready".into());
    }
    for replica in ready {
        match &replica.answer {
            Answer::Unreachable => {
                return found(
                    false,
                    Reason::ReplicaUnreachable,
                    format!("replica {} does not answer on its operations port", replica.pod),
                );
            }
            Answer::Report(report) if report.hash.as_deref() == Some(wanted) => {}
            Answer::Report(_) | Answer::Unknown => {
                return found(
                    false,
                    Reason::WaitingForReplicas,
                    "a replica does not run the newest document yet".into(),
                );
            }
        }
    }
    found(true, Reason::Applied, "every ready replica runs the newest document".into())
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};
    use stowage_crds::Report;

    use super::*;
    use crate::reports::Replica;

    fn replica(ready: bool, answer: Answer) -> Replica {
        Replica { pod: "a".into(), ready, answer }
    }

    fn report(value: &serde_json::Value) -> Answer {
        let mut whole = json!({ "version": "0.1.0", "maxVersion": "1.0" });
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        Answer::Report(Box::new(from_value::<Report>(whole).unwrap()))
    }

    #[test]
    fn a_document_is_applied_when_every_ready_replica_runs_it() {
        let (new, old) = (report(&json!({ "hash": "new" })), report(&json!({ "hash": "old" })));
        let refused = report(&json!({ "hash": "old", "rejected": { "hash": "new", "message": "no" } }));
        let refused_another =
            report(&json!({ "hash": "new", "rejected": { "hash": "older", "message": "no" } }));
        for (replicas, reason) in [
            (vec![], Reason::WaitingForReplicas),
            (vec![replica(false, new.clone())], Reason::WaitingForReplicas),
            (vec![replica(true, new.clone()), replica(true, old.clone())], Reason::WaitingForReplicas),
            (vec![replica(true, new.clone()), replica(false, old)], Reason::Applied),
            (
                vec![replica(true, new.clone()), replica(true, Answer::Unreachable)],
                Reason::ReplicaUnreachable,
            ),
            (vec![replica(true, Answer::Unknown)], Reason::WaitingForReplicas),
            (vec![replica(true, refused)], Reason::ConfigurationRejected),
            (vec![replica(true, refused_another)], Reason::Applied),
        ] {
            assert_eq!(applied(&Snapshot(replicas.clone()), "new").reason, reason, "{replicas:?}");
        }
    }

    #[test]
    fn one_replica_without_a_database_is_enough_to_say_so() {
        let ok = report(&json!({ "checks": { "database": "Ok" } }));
        let lost = report(&json!({ "checks": { "database": "Unreachable" } }));
        let reason = |replicas: Vec<Answer>| {
            let replicas = replicas.into_iter().map(|answer| replica(true, answer)).collect();
            database(&Snapshot(replicas), None).reason
        };
        let empty = report(&json!({ "checks": { "database": "Empty" } }));
        assert_eq!(reason(vec![ok.clone(), lost]), Reason::DatabaseUnreachable);
        assert_eq!(reason(vec![empty]), Reason::ProbeSucceeded);
        assert_eq!(reason(vec![ok]), Reason::ProbeSucceeded);
        assert_eq!(reason(vec![]), Reason::WaitingForReplicas);
    }

    #[test]
    fn whether_the_database_is_trusted_is_what_the_last_collection_said() {
        let refused = |reason: Option<&str>| Summary {
            reason: reason.map(str::to_owned),
            ..Summary::new("gc", Outcome::Refused)
        };
        let reason = |checks: serde_json::Value, last: Option<&Summary>| {
            let answer = report(&json!({ "checks": checks }));
            database(&Snapshot(vec![replica(true, answer)]), last).reason
        };
        let (ok, lost) = (json!({ "database": "Ok" }), json!({ "database": "Unreachable" }));
        let frozen = refused(Some("CollectorFrozen"));
        assert_eq!(reason(ok.clone(), Some(&frozen)), Reason::CollectorFrozen);
        assert_eq!(reason(lost, Some(&frozen)), Reason::DatabaseUnreachable);
        for other in
            [refused(None), refused(Some("UsageReportMissing")), Summary::new("gc", Outcome::Succeeded)]
        {
            assert_eq!(reason(ok.clone(), Some(&other)), Reason::ProbeSucceeded, "{other:?}");
        }
    }

    #[test]
    fn a_rollout_is_over_when_nothing_older_runs() {
        let deployment = |status: serde_json::Value| -> Deployment {
            from_value(json!({
                "metadata": { "name": "a", "generation": 3 },
                "spec": { "replicas": 2, "selector": {}, "template": {} },
                "status": status,
            }))
            .unwrap()
        };
        let done =
            json!({ "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 });
        assert!(Numbers::of(Some(&deployment(done.clone()))).complete);
        for (field, value) in [("observedGeneration", 2), ("replicas", 3), ("updatedReplicas", 1)] {
            let mut status = done.clone();
            status[field] = json!(value);
            assert!(!Numbers::of(Some(&deployment(status))).complete, "{field}");
        }
        assert!(!Numbers::of(None).complete);
    }

    #[test]
    fn a_pod_that_dies_after_a_rollout_starts_no_new_one() {
        let deployment: Deployment = from_value(json!({
            "metadata": { "name": "a", "generation": 3 },
            "spec": { "replicas": 2, "selector": {}, "template": {} },
            "status": {
                "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1,
                "conditions": [{ "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" }],
            },
        }))
        .unwrap();
        let numbers = Numbers::of(Some(&deployment));
        assert!(numbers.settled && !numbers.complete);
    }

    #[test]
    fn the_gravest_trouble_is_shown_with_the_last_line_of_a_decision() {
        let pod = |state: serde_json::Value| -> Pod {
            from_value(json!({
                "metadata": { "name": "p" },
                "status": { "containerStatuses": [{
                    "name": "registry", "image": "i:1", "imageID": "", "ready": false, "restartCount": 1,
                    "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": state,
                }] },
            }))
            .unwrap()
        };
        let crash = pod(json!({ "terminated": { "exitCode": 1, "message": "secret" } }));
        let bad =
            pod(json!({ "terminated": { "exitCode": 2, "message": "log\nspec.auth: no such file\n" } }));
        let found = trouble([&crash, &bad]).unwrap();
        assert_eq!(found.reason, Reason::InvalidConfiguration);
        assert!(found.message.ends_with("spec.auth: no such file"), "{}", found.message);
        assert!(!trouble([&crash]).unwrap().message.contains("secret"));
    }
}
