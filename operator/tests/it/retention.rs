// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `RetentionPolicy` resources: their schedules, runs beside them, and what is said of them.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use stowage_crds::{
    RetentionPolicy, RetentionPolicyStatus,
    conditions::{ConditionType, Reason, find},
};
use stowage_operator::objects::Kind;

use crate::support::scene::{Scene, conditions_of, filesystem_registry, shared_registry, wait};

fn policy(spec: &Value) -> Value {
    let mut body = json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "RetentionPolicy",
        "metadata": { "name": "team" },
        "spec": {
            "registryRef": { "name": "main" },
            "repositories": { "include": ["team/**"] },
            "mode": "Enforce",
            "keep": [{ "name": "recent", "pushedWithin": "30d" }],
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        body["spec"][key] = value.clone();
    }
    body
}

fn says(scene: &Scene, exit: i32, message: &Value) {
    let mut behaviour = scene.kubelet.behaviour.lock().unwrap();
    (behaviour.job_exit, behaviour.job_message) = (exit, Some(message.to_string()));
}

async fn ask(scene: &Scene, with: &str) {
    let asked = json!({ "metadata": { "annotations": { "stowage.dev/run-requested-at": with } } });
    let params = kube::api::PatchParams::default();
    scene.typed::<RetentionPolicy>().patch("team", &params, &kube::api::Patch::Merge(asked)).await.unwrap();
}

async fn runs(scene: &Scene) -> Vec<Job> {
    let labels = ListParams::default().labels("stowage.dev/retentionpolicy=team");
    scene.typed::<Job>().list(&labels).await.unwrap().items
}

async fn status(scene: &Scene) -> RetentionPolicyStatus {
    scene.typed::<RetentionPolicy>().get("team").await.unwrap().status.unwrap_or_default()
}

async fn in_force(scene: &Scene) {
    scene.until_dependent::<RetentionPolicy>("team", ConditionType::Ready, Reason::Reconciled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_a_run_that_is_asked_for_runs_once_and_its_result_stays() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(policy(&json!({}))).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    in_force(&scene).await;
    let counts =
        json!({ "evaluatedTags": 10, "keptTags": 7, "wouldDeleteTags": 3, "overlappingPolicies": 1 });
    says(
        &scene,
        0,
        &json!({ "command": "retention", "result": "Succeeded", "reason": "FirstRunOfRules", "mode": "Enforce", "counts": counts }),
    );
    ask(&scene, "one").await;
    scene
        .until_dependent::<RetentionPolicy>("team", ConditionType::Overlapping, Reason::PoliciesOverlap)
        .await;
    assert!(wait(async || status(&scene).await.last_handled_run_at.as_deref() == Some("one")).await);
    let known = status(&scene).await;
    let last = known.last_result.clone().unwrap();
    assert_eq!((last.counts["wouldDeleteTags"], last.reason.as_deref()), (3, Some("FirstRunOfRules")));
    assert_eq!(known.report.as_deref(), Some("/admin/v1/retention/team/report"));
    assert!(known.last_run_time.is_some() && known.last_successful_time == known.last_run_time);
    in_force(&scene).await;

    let jobs = runs(&scene).await;
    assert_eq!(jobs.len(), 1, "one run for one request");
    let pod = jobs[0].spec.clone().unwrap().template.spec.unwrap();
    let args = pod.containers[0].args.clone().unwrap();
    assert_eq!(
        (args[0].as_str(), &args[args.len() - 2..]),
        ("retention", &["--policy", "team"].map(String::from)[..])
    );
    scene.ready().await;
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;
    scene.delete(Kind::Job, &jobs[0].name_any()).await;
    assert!(wait(async || runs(&scene).await.is_empty()).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&scene).await.last_result, known.last_result, "what a Job said outlives it");
}

#[tokio::test(flavor = "multi_thread")]
async fn l_48_a_run_beyond_its_limits_stalls_its_policy_until_that_is_edited() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(policy(&json!({}))).await;
    in_force(&scene).await;
    let refused = json!({
        "command": "retention", "result": "Refused", "reason": "LimitExceeded", "message": "30 of 40 tags would go",
    });
    says(&scene, 3, &refused);
    ask(&scene, "one").await;
    for condition in [ConditionType::LimitExceeded, ConditionType::Stalled] {
        scene.until_dependent::<RetentionPolicy>("team", condition, Reason::LimitExceeded).await;
    }
    scene.told("LimitExceeded").await;
    assert!(!scene.events().await.iter().any(|event| event == "RunRefused"), "the same is told once");
    scene.apply(policy(&json!({ "limits": { "maxDeletePercent": 90 } }))).await;
    in_force(&scene).await;
    let found = scene.typed::<RetentionPolicy>().get("team").await.unwrap();
    let conditions = conditions_of(&found);
    assert!(find(&conditions, ConditionType::LimitExceeded).is_none(), "{conditions:?}");
    assert!(find(&conditions, ConditionType::Stalled).is_none(), "{conditions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_is_an_event_and_so_is_the_next_one_that_does_not() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(policy(&json!({}))).await;
    in_force(&scene).await;
    says(&scene, 2, &json!({ "command": "retention", "result": "Failed", "message": "no such host" }));
    ask(&scene, "one").await;
    scene.told("RunFailed").await;
    // Times are whole seconds: a run is newer than another that began in an earlier one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    says(&scene, 0, &json!({ "command": "retention", "result": "Succeeded" }));
    ask(&scene, "two").await;
    scene.told("RunRecovered").await;
    let told = scene.events().await;
    assert_eq!(told.iter().filter(|event| event.starts_with("Run")).count(), 2, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_follows_the_policy_and_goes_with_it() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(policy(&json!({ "timeZone": "Europe/Berlin" }))).await;
    in_force(&scene).await;
    let crons = scene.typed::<CronJob>();
    assert!(wait(async || crons.get_opt("team-retention").await.unwrap().is_some()).await);
    let spec = crons.get("team-retention").await.unwrap().spec.unwrap();
    assert_eq!((spec.schedule.as_str(), spec.time_zone.as_deref()), ("30 2 * * *", Some("Europe/Berlin")));
    assert_eq!((spec.concurrency_policy.as_deref(), spec.suspend), (Some("Forbid"), Some(false)));
    scene.apply(policy(&json!({ "schedule": "0 1 * * *", "suspend": true }))).await;
    scene.until_dependent::<RetentionPolicy>("team", ConditionType::Suspended, Reason::Suspended).await;
    let follows = async || {
        let spec = crons.get("team-retention").await.unwrap().spec.unwrap();
        spec.schedule == "0 1 * * *" && spec.suspend == Some(true)
    };
    assert!(wait(follows).await);
    scene.typed::<RetentionPolicy>().delete("team", &kube::api::DeleteParams::default()).await.unwrap();
    assert!(wait(async || crons.get_opt("team-retention").await.unwrap().is_none()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_schema_can_refuse_is_a_condition_that_names_the_field() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    let broken = json!([{ "name": "a", "tags": { "semver": { "range": ">=1 <" } } }]);
    scene.apply(policy(&json!({ "keep": broken }))).await;
    scene.until_dependent::<RetentionPolicy>("team", ConditionType::Stalled, Reason::InvalidSpec).await;
    let found = scene.typed::<RetentionPolicy>().get("team").await.unwrap();
    let stalled = find(&conditions_of(&found), ConditionType::Stalled).unwrap().message.clone();
    assert!(stalled.contains("spec.keep[0].tags.semver.range"), "{stalled}");
    scene.apply(policy(&json!({}))).await;
    in_force(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_volume_who_asks_for_a_run_of_a_policy_is_told_that_there_is_none() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(filesystem_registry(json!({}))).await;
    scene.apply(policy(&json!({}))).await;
    in_force(&scene).await;
    ask(&scene, "one").await;
    scene.until_dependent::<RetentionPolicy>("team", ConditionType::RunBlocked, Reason::NoJobs).await;
    scene.told("RunBlocked").await;
    in_force(&scene).await;
    assert!(runs(&scene).await.is_empty());
}
