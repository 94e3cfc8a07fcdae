// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a Registry's status says after an attempt, failed ones included. Pure.
//!
//! Guarantees: `Ready` is always there; `Reconciling` and `Stalled` only while they are true, and never both. What an
//! attempt could not see stays as it was. No message holds a number that moves by itself.

use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt as _;
use stowage_crds::{
    Registry, RegistryStatus,
    conditions::{self, ConditionType, Finding, Reason, Verdict},
};

use super::{
    Outcome, Stage,
    blocked::blocked,
    collection,
    exposed::exposed,
    failure::Failure,
    jobs::JobState,
    replicas::{self, Numbers},
    usage,
    validate::{Gate, Valid, rebuilding, too_large},
};
use crate::{
    names::{Component, RECONCILE_REQUESTED_AT, selector_text},
    objects::Kind,
    policy::Class,
    reports::Snapshot,
};

/// Where a Registry stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Summary {
    Ready,
    Moving(Reason, String),
    Stuck(Reason, String),
    /// Something did not work and is tried again; what was known stays.
    Retrying(String),
}

/// The status after an attempt.
#[must_use]
pub(super) fn status(registry: &Registry, outcome: &Outcome, now: &Time) -> RegistryStatus {
    let mut status = registry.status.clone().unwrap_or_default();
    let generation = registry.metadata.generation;
    status.observed_generation = generation;
    status.last_handled_reconcile_at = registry.annotations().get(RECONCILE_REQUESTED_AT).cloned();
    status.url = Some(registry.spec.external_url.to_string());

    let mut findings = Vec::new();
    if let Some(valid) = &outcome.valid {
        let numbers = numbers(valid, outcome);
        counts(&mut status, valid, numbers);
        reported(&mut status, &outcome.seen.reports, valid);
        status.garbage_collection = collection::seen(valid, &outcome.seen, status.garbage_collection.take());
        if let Some(asked) = collection::started(valid, &outcome.seen) {
            status.last_handled_run_at = Some(asked.to_owned());
        }
        let last = status.garbage_collection.as_ref().and_then(|known| known.last_result.as_ref());
        findings = observations(valid, outcome, numbers, last);
        findings.push(collection::healthy(valid, status.garbage_collection.as_ref()));
        findings.extend(outcome.seen.usage.as_ref().map(|watch| usage::protected(watch, &outcome.seen)));
        if valid.spec().usage_protection.is_none() {
            conditions::clear(&mut status.conditions, ConditionType::UsageProtected);
        }
        match blocked(valid.vain_request(), &outcome.seen.pods) {
            Some(finding) => findings.push(finding),
            None => conditions::clear(&mut status.conditions, ConditionType::RunBlocked),
        }
    }
    let summary = summary(registry, outcome, &findings);
    for finding in findings {
        conditions::set(&mut status.conditions, finding, generation, now);
    }
    summarise(&mut status.conditions, &summary, generation, now);
    suspended(&mut status.conditions, &outcome.result, generation, now);
    status
}

fn numbers(valid: &Valid, outcome: &Outcome) -> Numbers {
    let deployment: Option<Deployment> = outcome.seen.live.typed(Kind::Deployment, &valid.names().main());
    Numbers::of(deployment.as_ref())
}

fn counts(status: &mut RegistryStatus, valid: &Valid, numbers: Numbers) {
    status.replicas = Some(numbers.present);
    status.ready_replicas = Some(numbers.ready);
    status.replica_summary = Some(format!("{}/{}", numbers.ready, numbers.wanted));
    status.selector = Some(selector_text(&valid.pod_selector()));
}

/// What the replicas say, where they agree; else what was known stays.
fn reported(status: &mut RegistryStatus, reports: &Snapshot, valid: &Valid) {
    let keep = |agreed: Option<String>, known: &mut Option<String>| {
        if agreed.is_some() {
            *known = agreed;
        }
    };
    keep(agreed(reports.ready().map(|report| Some(report.version.clone()))), &mut status.version);
    keep(agreed(reports.ready().map(|report| report.registry_id.clone())), &mut status.registry_id);
    let schema = agreed(reports.ready().map(|report| report.schema.as_ref().map(|schema| schema.applied)));
    status.schema_version = schema.or(status.schema_version);
    let ready = reports.0.iter().filter(|replica| replica.ready);
    if let Some(hash) = agreed(ready.map(|replica| replica.report()?.hash.clone())) {
        if hash == valid.document.hash {
            status.config_resources = i32::try_from(valid.resource_count).ok();
        }
        status.config_hash = Some(hash);
    }
}

fn agreed<T: PartialEq>(mut answers: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = answers.next()??;
    answers.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// Every condition but the summaries and the collector's. `last` is what the last collection did.
fn observations(
    valid: &Valid,
    outcome: &Outcome,
    numbers: Numbers,
    last: Option<&stowage_crds::Summary>,
) -> Vec<Finding> {
    let (seen, reports) = (&outcome.seen, &outcome.seen.reports);
    let trouble = replicas::trouble(seen.pods_of(Component::Registry));
    let applied = match valid.gate {
        Gate::TooLarge => not_applied(Reason::DocumentTooLarge, too_large()),
        Gate::ReplicasTooOld => not_applied(
            Reason::WaitingForReplicas,
            "a replica is too old for the newest document; the previous one stays".into(),
        ),
        Gate::Open => replicas::applied(reports, &valid.document.hash),
    };
    let mut findings = vec![
        migrated(valid, outcome),
        replicas::available(numbers, trouble.as_ref()),
        replicas::storage(reports),
        replicas::database(reports, last),
        applied,
        exposed(valid, &seen.live),
    ];
    findings.retain(|finding| !finding.message.is_empty());
    findings
}

fn not_applied(reason: Reason, message: String) -> Finding {
    Finding::new(ConditionType::ConfigurationApplied, false, reason, message)
}

fn migrated(valid: &Valid, outcome: &Outcome) -> Finding {
    let found = |verdict: Verdict, reason, message: &str| {
        Finding::new(ConditionType::DatabaseMigrated, verdict, reason, message)
    };
    match &outcome.result {
        Ok(Stage::MigrationRunning) => {
            found(Verdict::False, Reason::MigratingDatabase, "the migration runs; the rollout waits for it")
        }
        Ok(Stage::MigrationRequired) => found(
            Verdict::False,
            Reason::MigrationRequired,
            &format!("annotate stowage.dev/approve-migration={} to let it run", valid.image.version),
        ),
        Err(Failure::Migration(failure)) => found(
            Verdict::False,
            Reason::MigrationFailed,
            &format!("the migration failed: {}", failure.message),
        ),
        Ok(Stage::Applied) if valid.rebuild.is_some() => match rebuilding(&valid.name, &outcome.seen) {
            Some(JobState::Failed(failure)) => found(
                Verdict::False,
                Reason::RebuildRequired,
                &format!("the rebuild of the database failed: {}", failure.message),
            ),
            _ => {
                found(Verdict::False, Reason::Rebuilding, "the database is being made again from the storage")
            }
        },
        Ok(Stage::Applied) if replicas::needs_rebuild(&outcome.seen.reports) => found(
            Verdict::False,
            Reason::RebuildRequired,
            "the database is empty and the storage is not: restore the database, or annotate \
             stowage.dev/rebuild=REGISTRY-ID to make it again; until then only pulls are answered",
        ),
        Ok(Stage::Applied) => found(Verdict::True, Reason::SchemaCurrent, "the schema fits the image"),
        // What is true of the database is not known here; what was said of it stays.
        Ok(Stage::Suspended | Stage::Deleting(_)) | Err(_) => {
            found(Verdict::Unknown, Reason::Progressing, "")
        }
    }
}

fn summary(registry: &Registry, outcome: &Outcome, findings: &[Finding]) -> Summary {
    match &outcome.result {
        Err(failure) => match failure.class() {
            Class::Terminal => Summary::Stuck(failure.reason(), failure.describe()),
            Class::Waiting(_) => Summary::Moving(failure.reason(), failure.describe()),
            Class::Transient => Summary::Retrying(failure.describe()),
        },
        Ok(Stage::Deleting(what)) => Summary::Moving(Reason::Progressing, (*what).to_owned()),
        Ok(Stage::MigrationRequired) => of_finding(findings, ConditionType::DatabaseMigrated, Summary::Stuck),
        Ok(Stage::MigrationRunning) => of_finding(findings, ConditionType::DatabaseMigrated, Summary::Moving),
        Ok(Stage::Applied | Stage::Suspended) => of_replicas(registry, outcome, findings),
    }
}

fn of_finding(
    findings: &[Finding],
    condition: ConditionType,
    as_what: fn(Reason, String) -> Summary,
) -> Summary {
    match findings.iter().find(|finding| finding.condition == condition) {
        Some(finding) => as_what(finding.reason, finding.message.clone()),
        None => Summary::Moving(Reason::Progressing, "work goes on".into()),
    }
}

/// Is the rollout of this generation over? Once it was, it stays so: a pod that dies and an autoscaler that acts
/// are no rollouts.
fn is_rolled_out(registry: &Registry, numbers: Numbers) -> bool {
    let conditions = registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let was_over = conditions::find(conditions, ConditionType::Ready).is_some_and(|ready| {
        ready.observed_generation == registry.metadata.generation && ready.status == Verdict::True.as_str()
    });
    numbers.complete || (was_over && numbers.settled)
}

fn of_replicas(registry: &Registry, outcome: &Outcome, findings: &[Finding]) -> Summary {
    let Some(valid) = &outcome.valid else {
        return Summary::Moving(Reason::Progressing, "work goes on".into());
    };
    let numbers = numbers(valid, outcome);
    let trouble = replicas::trouble(outcome.seen.pods_of(Component::Registry));
    let unavailable = findings
        .iter()
        .find(|finding| finding.condition == ConditionType::Available && finding.verdict != Verdict::True);
    let rolled_out = is_rolled_out(registry, numbers);
    if !rolled_out || unavailable.is_some() {
        return match (trouble, unavailable) {
            (Some(trouble), _) if trouble.is_decided() => Summary::Stuck(trouble.reason, trouble.message),
            (Some(trouble), _) => Summary::Moving(trouble.reason, trouble.message),
            (None, Some(finding)) if rolled_out => Summary::Moving(finding.reason, finding.message.clone()),
            (None, _) => Summary::Moving(Reason::RollingOut, "replicas are being rolled out".into()),
        };
    }
    let unmet = findings.iter().find(|finding| {
        finding.verdict != Verdict::True && finding.condition != ConditionType::GarbageCollectionHealthy
    });
    match unmet {
        None => Summary::Ready,
        Some(finding) => {
            let stuck = matches!(
                finding.reason,
                Reason::ConfigurationRejected | Reason::DocumentTooLarge | Reason::RebuildRequired
            );
            let summary = if stuck { Summary::Stuck } else { Summary::Moving };
            summary(finding.reason, finding.message.clone())
        }
    }
}

fn summarise(conditions: &mut Vec<Condition>, summary: &Summary, generation: Option<i64>, now: &Time) {
    use ConditionType::{Ready, Reconciling, Stalled};
    let mut set = |condition, verdict: bool, reason, message: &str| {
        conditions::set(conditions, Finding::new(condition, verdict, reason, message), generation, now);
    };
    match summary {
        Summary::Ready => set(Ready, true, Reason::Reconciled, "everything asked for is in force"),
        Summary::Moving(reason, message) => {
            set(Ready, false, *reason, message);
            set(Reconciling, true, *reason, message);
        }
        Summary::Stuck(reason, message) => {
            set(Ready, false, *reason, message);
            set(Stalled, true, *reason, message);
        }
        Summary::Retrying(message) => set(Reconciling, true, Reason::Retrying, message),
    }
    if !matches!(summary, Summary::Moving(..) | Summary::Retrying(_)) {
        conditions::clear(conditions, Reconciling);
    }
    if !matches!(summary, Summary::Stuck(..)) {
        conditions::clear(conditions, Stalled);
    }
    if conditions::find(conditions, Ready).is_none() {
        let finding = Finding::new(Ready, Verdict::Unknown, Reason::Progressing, "nothing is known yet");
        conditions::set(conditions, finding, generation, now);
    }
}

fn suspended(
    conditions: &mut Vec<Condition>,
    result: &Result<Stage, Failure>,
    generation: Option<i64>,
    now: &Time,
) {
    if matches!(result, Ok(Stage::Suspended)) {
        let message = "nothing is changed while it is suspended";
        let finding = Finding::new(ConditionType::Suspended, true, Reason::Suspended, message);
        conditions::set(conditions, finding, generation, now);
    } else if result.is_ok() {
        conditions::clear(conditions, ConditionType::Suspended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::api::DynamicObject;
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::{
        apply,
        controllers::registry::{
            jobs::JobFailure,
            observe::Observed,
            validate::{Refusal, Settings, validate},
        },
        reports::{Answer, Replica},
    };

    fn registry() -> Arc<Registry> {
        let registry: Registry = from_value(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Registry",
            "metadata": { "name": "main", "namespace": "ns", "uid": "u", "generation": 4 },
            "spec": {
                "externalURL": "https://registry.example.com",
                "storage": { "s3": { "bucket": "blobs" } },
                "database": { "postgres": { "urlSecretRef": { "name": "pg", "key": "uri" } } },
                "replicas": 1,
            },
        }))
        .unwrap();
        Arc::new(registry)
    }

    fn deployment(available: i32) -> DynamicObject {
        from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "main", "generation": 2 },
            "spec": { "replicas": 1, "selector": {}, "template": {} },
            "status": {
                "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
                "readyReplicas": available, "availableReplicas": available,
            },
        }))
        .unwrap()
    }

    fn outcome(available: i32, report: &Value, result: Result<Stage, Failure>) -> Outcome {
        let settings = Settings {
            registry_image: "a/b:1".parse().unwrap(),
            operator_namespace: "stowage-system".into(),
        };
        let mut seen = Observed::default();
        seen.live.insert(Kind::Deployment, deployment(available));
        let valid = validate(&registry(), &seen, &settings).unwrap();
        let mut whole = json!({
            "version": "0.1.0", "maxVersion": "1.0", "hash": valid.document.hash,
            "checks": { "storage": "Ok", "database": "Ok" },
        });
        whole.as_object_mut().unwrap().extend(report.as_object().unwrap().clone());
        let answer = Answer::Report(Box::new(from_value(whole).unwrap()));
        seen.reports.0.push(Replica { pod: "a".into(), ready: available > 0, answer });
        Outcome { seen, valid: Some(valid), result, notices: Vec::new() }
    }

    fn refused() -> Outcome {
        let refusal = Refusal { reason: Reason::InvalidSpec, message: "no".into() };
        Outcome::early(Observed::default(), refusal)
    }

    fn unreachable() -> Failure {
        let source = kube::Error::Service("gone".into());
        apply::Error::Api { verb: "apply", kind: Kind::Service, name: "main".into(), source }.into()
    }

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn reason_of(status: &RegistryStatus, condition: ConditionType) -> Option<&str> {
        conditions::find(&status.conditions, condition).map(|found| found.reason.as_str())
    }

    #[test]
    fn every_outcome_has_its_place_in_the_summary() {
        use ConditionType::{Ready, Reconciling, Stalled};
        let migration = |exit| Failure::Migration(JobFailure { exit, message: "no".into() });
        let (none, lost) = (json!({}), json!({ "checks": { "storage": "Ok", "database": "Unreachable" } }));
        let empty = json!({ "checks": { "storage": "Ok", "database": "Empty" } });
        let old = json!({ "hash": "sha256:old" });
        for (outcome, ready, abnormal) in vec![
            (outcome(1, &none, Ok(Stage::Applied)), "Reconciled", None),
            (outcome(0, &none, Ok(Stage::Applied)), "RollingOut", Some(Reconciling)),
            (outcome(1, &lost, Ok(Stage::Applied)), "DatabaseUnreachable", Some(Reconciling)),
            (outcome(1, &empty, Ok(Stage::Applied)), "RebuildRequired", Some(Stalled)),
            (outcome(1, &old, Ok(Stage::Applied)), "WaitingForReplicas", Some(Reconciling)),
            (outcome(1, &none, Ok(Stage::MigrationRunning)), "MigratingDatabase", Some(Reconciling)),
            (outcome(1, &none, Ok(Stage::MigrationRequired)), "MigrationRequired", Some(Stalled)),
            (outcome(1, &none, Err(migration(Some(2)))), "MigrationFailed", Some(Stalled)),
            (outcome(1, &none, Err(migration(Some(1)))), "MigrationFailed", Some(Reconciling)),
            (outcome(1, &none, Ok(Stage::Suspended)), "Reconciled", None),
            (outcome(1, &none, Ok(Stage::Deleting("purging"))), "Progressing", Some(Reconciling)),
            (refused(), "InvalidSpec", Some(Stalled)),
        ] {
            let status = status(&registry(), &outcome, &at(1));
            assert_eq!(reason_of(&status, Ready), Some(ready), "{:?}", outcome.result);
            for condition in [Reconciling, Stalled] {
                let found = reason_of(&status, condition).is_some();
                assert_eq!(found, abnormal == Some(condition), "{condition}: {:?}", outcome.result);
            }
            assert_eq!(status.observed_generation, Some(4));
            assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(4)));
        }
    }

    #[test]
    fn the_same_outcome_again_changes_nothing_however_late() {
        for outcome in [
            outcome(1, &json!({}), Ok(Stage::Applied)),
            outcome(1, &json!({}), Err(unreachable())),
            refused(),
        ] {
            let mut registry = Registry::clone(&registry());
            registry.status = Some(status(&registry, &outcome, &at(1)));
            assert_eq!(Some(status(&registry, &outcome, &at(1000))), registry.status);
        }
    }

    #[test]
    fn a_failure_that_may_pass_leaves_what_was_known() {
        let mut registry = Registry::clone(&registry());
        registry.status = Some(status(&registry, &outcome(1, &json!({}), Ok(Stage::Applied)), &at(1)));
        let failed = status(&registry, &outcome(1, &json!({}), Err(unreachable())), &at(2));
        assert_eq!(reason_of(&failed, ConditionType::Ready), Some("Reconciled"));
        assert_eq!(reason_of(&failed, ConditionType::Reconciling), Some("Retrying"));
        assert_eq!(reason_of(&failed, ConditionType::DatabaseMigrated), Some("SchemaCurrent"));
        registry.status = Some(failed);
        let again = status(&registry, &outcome(1, &json!({}), Ok(Stage::Applied)), &at(3));
        assert_eq!(reason_of(&again, ConditionType::Reconciling), None);
    }

    #[test]
    fn a_pod_that_dies_in_a_settled_generation_leaves_it_ready() {
        let mut registry = Registry::clone(&registry());
        registry.status = Some(status(&registry, &outcome(1, &json!({}), Ok(Stage::Applied)), &at(1)));
        let numbers = |settled| Numbers { settled, ..Numbers::default() };
        assert!(is_rolled_out(&registry, numbers(true)));
        assert!(!is_rolled_out(&registry, numbers(false)));
        registry.metadata.generation = Some(5);
        assert!(!is_rolled_out(&registry, numbers(true)));
    }

    #[test]
    fn what_replicas_disagree_about_stays_as_it_was() {
        let agree = [Some("1"), Some("1")];
        assert_eq!(agreed(agree.into_iter()), Some("1"));
        for other in [vec![], vec![None], vec![Some("1"), None], vec![Some("1"), Some("2")]] {
            assert_eq!(agreed(other.into_iter()), None);
        }
    }
}
