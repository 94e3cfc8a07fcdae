// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How a Promotion stands, and what is to be done about it. Pure.
//!
//! The n-th Job is the n-th evaluation; the number of those that ended is in the status, so that each counts once, and a
//! Job and its pod may go when they were read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt as _;
use stowage_crds::{
    Promotion, PromotionPolicy, PromotionStatus, Registry, RequestedArtifact, Termination,
    conditions::{self, ConditionType, Finding, Reason, Verdict},
};

use super::Seen;
use crate::{
    controllers::registry::{build::promote::COMMAND, jobs},
    names::{MADE_FOR, PromotionNames, RECONCILE_REQUESTED_AT},
};

/// How long after the first evaluation that waits the next one is, when no gate knows.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// What is said while a Job runs, or is about to.
const ASKING: &str = "a Job asks the gates";

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// What is to be written.
    pub(super) status: PromotionStatus,
    /// Whether the next Job is to be made, or is there.
    pub(super) evaluates: bool,
    /// Whether it is to be deleted.
    pub(super) expired: bool,
    /// When to look again, if a clock decides it.
    pub(super) next: Option<Duration>,
}

/// How it ended, or where it stands.
enum Standing {
    /// It is promoted.
    Succeeded(Reason, String),
    /// Nothing will come of it.
    Failed(Reason, String),
    /// It goes on by itself, or when somebody does something.
    Waiting(Reason, String),
}

/// What to do about a Promotion.
pub(super) fn decide(promotion: &Promotion, seen: &Seen, now: Timestamp) -> Decision {
    let mut status = promotion.status.clone().unwrap_or_default();
    status.observed_generation = promotion.metadata.generation;
    status.last_handled_reconcile_at = promotion.annotations().get(RECONCILE_REQUESTED_AT).cloned();
    if let Some(ended) = &status.completion_time {
        let expires = ended.0.checked_add(kept(promotion)).unwrap_or(Timestamp::MAX);
        status.expires_at = Some(Time(expires));
        return Decision {
            status,
            evaluates: false,
            expired: expires <= now,
            next: Some(until(expires, now)),
        };
    }
    let number = status.evaluations.unwrap_or_default();
    let name = PromotionNames::of(&promotion.name_any()).run(number);
    let job = seen.runs.iter().find(|job| job.name_any() == name);
    let ended = job.and_then(|job| Some((job, jobs::ended(job, &seen.pods, COMMAND)?)));
    let runs = job.is_some() && ended.is_none();
    let mut standing = accepted(promotion, seen, &mut status, now);
    if let Some((job, termination)) = ended {
        standing = Some(note(promotion, job, &termination, &mut status, now));
    } else if runs {
        standing = Some(Standing::Waiting(Reason::Progressing, ASKING.to_owned()));
    }
    let standing = match standing {
        Some(standing) => standing,
        None => due(promotion, &status, now),
    };
    let evaluates = job.is_none() && matches!(standing, Standing::Waiting(Reason::Progressing, _));
    if evaluates && status.start_time.is_none() {
        status.start_time = Some(Time(now));
    }
    let set = Set { generation: promotion.metadata.generation, now: Time(now) };
    finish(promotion, &standing, &mut status, &set);
    let deadline = seen.policy.as_ref().and_then(|policy| deadline(promotion, policy));
    let times = status.next_evaluation_time.iter().map(|time| time.0).chain(deadline);
    let next = times.filter(|time| *time > now).min().map(|time| until(time, now));
    Decision { status, evaluates, expired: false, next }
}

fn until(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now)).unwrap_or_default() + Duration::from_millis(50)
}

/// How long it stays when it has ended.
fn kept(promotion: &Promotion) -> Duration {
    Duration::from_secs(u64::try_from(promotion.spec.ttl_seconds_after_finished).unwrap_or_default())
}

fn deadline(promotion: &Promotion, policy: &PromotionPolicy) -> Option<Timestamp> {
    promotion.metadata.creation_timestamp.as_ref()?.0.checked_add(policy.spec.deadline.to_std()).ok()
}

/// Why nothing is evaluated, if so; writes the condition `Accepted`.
fn accepted(
    promotion: &Promotion,
    seen: &Seen,
    status: &mut PromotionStatus,
    now: Timestamp,
) -> Option<Standing> {
    let set = Set { generation: promotion.metadata.generation, now: Time(now) };
    let mut put = |verdict: bool, reason: Reason, message: &str| {
        set.put(&mut status.conditions, ConditionType::Accepted, verdict, (reason, message));
    };
    let name = &promotion.spec.policy_ref.name;
    let present = |policy: &&PromotionPolicy| policy.metadata.deletion_timestamp.is_none();
    let Some(policy) = seen.policy.as_ref().filter(present) else {
        let text = format!("there is no PromotionPolicy {name} here");
        put(false, Reason::PolicyNotFound, &text);
        // One that has begun ends with its policy; one that has not may have come before it.
        return Some(match status.start_time {
            Some(_) => Standing::Failed(Reason::PolicyNotFound, text),
            None => Standing::Waiting(Reason::PolicyNotFound, text),
        });
    };
    if deadline(promotion, policy).is_some_and(|deadline| deadline <= now) {
        let text = format!(
            "it waited for longer than the {} of PromotionPolicy {name}",
            policy.spec.deadline.as_str()
        );
        return Some(Standing::Failed(Reason::Expired, text));
    }
    if policy.spec.suspend {
        let text = format!("PromotionPolicy {name} is suspended");
        put(false, Reason::PolicySuspended, &text);
        return Some(Standing::Waiting(Reason::PolicySuspended, text));
    }
    if seen.registry.as_ref().is_some_and(is_on_a_volume) {
        let text = "the Registry is on a volume, beside which no Job can run: use stowage-registry promote";
        put(false, Reason::NoJobs, text);
        return Some(Standing::Failed(Reason::NoJobs, text.to_owned()));
    }
    let ready =
        policy.status.as_ref().and_then(|found| conditions::find(&found.conditions, ConditionType::Ready));
    if ready.is_none_or(|ready| ready.status != "True") {
        let text = format!("PromotionPolicy {name} is not in force yet");
        put(true, Reason::Accepted, "its policy is there");
        return Some(Standing::Waiting(Reason::WaitingForReplicas, text));
    }
    put(true, Reason::Accepted, "its policy is in force");
    if promotion.spec.suspend {
        return Some(Standing::Waiting(Reason::Suspended, "it is suspended".to_owned()));
    }
    None
}

fn is_on_a_volume(registry: &Registry) -> bool {
    registry.spec.storage.filesystem.is_some() || registry.spec.database.sqlite.is_some()
}

/// Whether the next evaluation is due: at its time, or as the request is another since the last one.
fn due(promotion: &Promotion, status: &PromotionStatus, now: Timestamp) -> Standing {
    let is_new = status.evaluated_generation != promotion.metadata.generation;
    let is_time = status.next_evaluation_time.as_ref().is_none_or(|time| time.0 <= now);
    if is_new || is_time {
        return Standing::Waiting(Reason::Progressing, ASKING.to_owned());
    }
    let told = conditions::find(&status.conditions, ConditionType::Succeeded);
    let reason = told.and_then(|told| Reason::ALL.iter().find(|reason| reason.as_str() == told.reason));
    match (reason, told) {
        (
            Some(reason @ (Reason::WaitingForGates | Reason::ArtifactNotFound | Reason::LastRunFailed)),
            Some(told),
        ) => Standing::Waiting(*reason, told.message.clone()),
        // What held it up is over.
        _ => Standing::Waiting(Reason::WaitingForGates, "the gates are asked again".to_owned()),
    }
}

/// Writes what an evaluation came to.
fn note(
    promotion: &Promotion,
    job: &Job,
    termination: &Termination,
    status: &mut PromotionStatus,
    now: Timestamp,
) -> Standing {
    let number = status.evaluations.unwrap_or_default();
    status.evaluations = Some(number + 1);
    status.evaluated_generation = job.annotations().get(MADE_FOR).and_then(|text| text.parse().ok());
    let ended = termination.summary.completion_time.clone().map_or(now, |time| time.0);
    let told = termination.evaluation.clone().unwrap_or_default();
    let knows = told.gates.iter().filter_map(|gate| gate.not_before.as_ref().map(|time| time.0)).max();
    let next = knows.unwrap_or_else(|| ended.checked_add(pause(number)).unwrap_or(Timestamp::MAX));
    let artifact = told.digest.as_ref().filter(|_| status.artifact.is_none());
    if let Some(digest) = artifact {
        status.short_digest = digest.split_once(':').map(|(_, hex)| hex.chars().take(12).collect());
        status.artifact = Some(RequestedArtifact {
            digest: Some(digest.as_str().into()),
            ..promotion.spec.artifact.clone()
        });
    }
    if !told.gates.is_empty() {
        status.gates.clone_from(&told.gates);
    }
    status.result = told.promoted.or_else(|| status.result.take());
    let word = termination.summary.reason.as_deref().unwrap_or_default();
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == word).copied();
    let message = termination.summary.message.clone().unwrap_or_default();
    match reason {
        Some(reason @ (Reason::Promoted | Reason::AlreadyPromoted)) => {
            status.completion_time = Some(Time(ended));
            Standing::Succeeded(reason, message)
        }
        Some(
            reason @ (Reason::GateFailed
            | Reason::ArtifactChanged
            | Reason::TagConflict
            | Reason::TagImmutable
            | Reason::InvalidTarget
            | Reason::NotCovered),
        ) => {
            status.completion_time = Some(Time(ended));
            Standing::Failed(reason, message)
        }
        _ => {
            status.next_evaluation_time = Some(Time(next));
            let reason = reason.filter(|reason| *reason != Reason::SummaryMissing);
            Standing::Waiting(reason.unwrap_or(Reason::LastRunFailed), message)
        }
    }
}

/// The pause after an evaluation that nobody knows the end of.
fn pause(number: i32) -> Duration {
    let doublings = u32::try_from(number).unwrap_or_default().min(16);
    LONGEST_PAUSE.min(FIRST_PAUSE.saturating_mul(1 << doublings))
}

/// Sets conditions about one generation.
struct Set {
    generation: Option<i64>,
    now: Time,
}

impl Set {
    fn put(
        &self,
        conditions: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
        condition: ConditionType,
        verdict: impl Into<Verdict>,
        (reason, message): (Reason, &str),
    ) {
        let finding = Finding::new(condition, verdict, reason, message);
        conditions::set(conditions, finding, self.generation, &self.now);
    }
}

/// Writes the conditions that sum it up.
fn finish(promotion: &Promotion, standing: &Standing, status: &mut PromotionStatus, set: &Set) {
    use ConditionType::{Accepted, Ready, Reconciling, Stalled, Succeeded, Suspended};
    gates(standing, status, set);
    let all = &mut status.conditions;
    match standing {
        Standing::Succeeded(reason, message) => {
            set.put(all, Succeeded, true, (*reason, message));
            set.put(all, Ready, true, (*reason, message));
            conditions::clear(all, Reconciling);
            conditions::clear(all, Stalled);
        }
        Standing::Failed(reason, message) => {
            if *reason == Reason::NotCovered {
                set.put(all, Accepted, false, (*reason, message));
            }
            set.put(all, Succeeded, false, (*reason, message));
            set.put(all, Ready, false, (*reason, message));
            set.put(all, Stalled, true, (*reason, message));
            conditions::clear(all, Reconciling);
        }
        Standing::Waiting(reason, message) => {
            set.put(all, Succeeded, Verdict::Unknown, (*reason, message));
            set.put(all, Ready, false, (*reason, message));
            set.put(all, Reconciling, true, (*reason, message));
            conditions::clear(all, Stalled);
        }
    }
    if promotion.spec.suspend {
        set.put(all, Suspended, true, (Reason::Suspended, "nothing is evaluated"));
    } else {
        conditions::clear(all, Suspended);
    }
    if !matches!(standing, Standing::Waiting(..)) {
        let ended = status.completion_time.get_or_insert_with(|| set.now.clone()).0;
        status.next_evaluation_time = None;
        status.expires_at = ended.checked_add(kept(promotion)).ok().map(Time);
    }
}

/// The condition `GatesPassed`, once they were asked.
fn gates(standing: &Standing, status: &mut PromotionStatus, set: &Set) {
    let (verdict, reason, message) = match standing {
        Standing::Succeeded(..) => (Verdict::True, Reason::AllPassed, "every gate let it pass"),
        Standing::Failed(Reason::GateFailed, message) => {
            (Verdict::False, Reason::GateFailed, message.as_str())
        }
        Standing::Waiting(Reason::WaitingForGates, message) => {
            (Verdict::False, Reason::WaitingForGates, message.as_str())
        }
        _ => return,
    };
    set.put(&mut status.conditions, ConditionType::GatesPassed, verdict, (reason, message));
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, from_value, json};

    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn at(minute: u32) -> Timestamp {
        format!("2026-01-01T03:{minute:02}:00Z").parse().unwrap()
    }

    fn promotion(status: &PromotionStatus) -> Promotion {
        from_value(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Promotion",
            "metadata": { "name": "x", "generation": 1, "creationTimestamp": "2026-01-01T03:00:00Z" },
            "spec": {
                "policyRef": { "name": "to-prod" }, "requestedBy": "carol",
                "artifact": { "repository": "staging/app", "tag": "1.0" },
            },
            "status": status,
        }))
        .unwrap()
    }

    fn seen(runs: Vec<(Job, Pod)>) -> Seen {
        let policy = json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "PromotionPolicy", "metadata": { "name": "to-prod" },
            "spec": {
                "registryRef": { "name": "main" }, "from": { "repositories": ["staging/**"] },
                "to": { "repository": "prod/{path}" }, "deadline": "50m",
            },
            "status": { "conditions": [{
                "type": "Ready", "status": "True", "reason": "Reconciled", "message": "",
                "lastTransitionTime": "2026-01-01T03:00:00Z",
            }] },
        });
        let (runs, pods) = runs.into_iter().unzip();
        Seen { policy: Some(from_value(policy).unwrap()), registry: None, runs, pods }
    }

    /// A Job that ended at that minute, and what it said.
    fn run(number: i32, minute: u32, reason: &str, gates: &Value) -> (Job, Pod) {
        let name = format!("x-promote-{number}");
        let end = at(minute).to_string();
        let message = json!({
            "command": "promote", "result": "Refused", "reason": reason, "message": "so",
            "evaluation": { "digest": DIGEST, "gates": gates },
        });
        let job = json!({
            "metadata": { "name": name, "annotations": { "stowage.dev/made-for": "1" } },
            "status": { "completionTime": end, "conditions": [{ "type": "Complete", "status": "True" }] },
        });
        let pod = json!({
            "metadata": { "name": "p", "labels": { "batch.kubernetes.io/job-name": name } },
            "status": { "containerStatuses": [{
                "name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 0, "message": message.to_string(), "finishedAt": end } },
            }] },
        });
        (from_value(job).unwrap(), from_value(pod).unwrap())
    }

    fn succeeded(status: &PromotionStatus) -> (&str, &str) {
        let found = conditions::find(&status.conditions, ConditionType::Succeeded).unwrap();
        (found.status.as_str(), found.reason.as_str())
    }

    #[test]
    fn the_gates_are_asked_again_after_pauses_that_double_or_when_a_gate_says() {
        let first = decide(&promotion(&PromotionStatus::default()), &seen(vec![]), at(0));
        assert!(first.evaluates && first.status.start_time.is_some());
        let one =
            decide(&promotion(&first.status), &seen(vec![run(0, 1, "WaitingForGates", &json!([]))]), at(1));
        assert!(!one.evaluates);
        assert_eq!(
            (succeeded(&one.status), one.status.evaluations),
            (("Unknown", "WaitingForGates"), Some(1))
        );
        assert_eq!(one.status.next_evaluation_time, Some(Time(at(2))));
        let waits = decide(&promotion(&one.status), &seen(vec![]), at(1));
        assert_eq!((waits.evaluates, &waits.status), (false, &one.status), "nothing changes meanwhile");
        let due = decide(&promotion(&one.status), &seen(vec![]), at(2));
        assert!(due.evaluates);
        let gates = json!([{
            "name": "soaked", "status": "Unknown", "reason": "TooYoung", "notBefore": "2026-01-01T03:40:00Z",
        }]);
        let two = decide(&promotion(&due.status), &seen(vec![run(1, 3, "WaitingForGates", &gates)]), at(3));
        assert_eq!(two.status.next_evaluation_time, Some(Time(at(40))));
        let three =
            decide(&promotion(&two.status), &seen(vec![run(2, 41, "ArtifactNotFound", &json!([]))]), at(41));
        assert_eq!(three.status.next_evaluation_time, Some(Time(at(45))));
        let late = decide(&promotion(&three.status), &seen(vec![]), at(51));
        assert_eq!(succeeded(&late.status), ("False", "Expired"));
        assert_eq!((pause(0), pause(5), pause(30)), (FIRST_PAUSE, 32 * FIRST_PAUSE, LONGEST_PAUSE));
    }

    #[test]
    fn what_has_ended_is_told_once_and_never_begun_again() {
        let run = run(0, 1, "TagConflict", &json!([]));
        let ended = decide(&promotion(&PromotionStatus::default()), &seen(vec![run.clone()]), at(2));
        assert_eq!(succeeded(&ended.status), ("False", "TagConflict"));
        assert_eq!(ended.status.completion_time, Some(Time(at(1))));
        assert_eq!(ended.status.artifact.as_ref().unwrap().digest.as_ref().unwrap().as_str(), DIGEST);
        let later = decide(&promotion(&ended.status), &seen(vec![run]), at(30));
        assert_eq!((later.evaluates, later.expired, &later.status), (false, false, &ended.status));
        let mut brief = promotion(&ended.status);
        brief.spec.ttl_seconds_after_finished = 60;
        assert!(decide(&brief, &seen(vec![]), at(3)).expired);
    }

    #[test]
    fn another_generation_is_evaluated_at_once() {
        let one = decide(
            &promotion(&PromotionStatus::default()),
            &seen(vec![run(0, 1, "WaitingForGates", &json!([]))]),
            at(1),
        );
        let mut approved = promotion(&one.status);
        approved.metadata.generation = Some(2);
        assert!(decide(&approved, &seen(vec![]), at(1)).evaluates);
        approved.spec.suspend = true;
        let suspended = decide(&approved, &seen(vec![]), at(1));
        assert_eq!((suspended.evaluates, succeeded(&suspended.status)), (false, ("Unknown", "Suspended")));
    }
}
