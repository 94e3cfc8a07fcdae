// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mirrors whose runs copy: their schedules, runs beside them, and what is said of them.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use stowage_crds::{
    Mirror, MirrorStatus,
    conditions::{ConditionType, Reason, find},
};
use stowage_operator::objects::Kind;

use crate::support::scene::{Scene, conditions_of, shared_registry, wait};

const SYNCED: ConditionType = ConditionType::Synced;

/// Without a `timing` it copies when it is asked to.
fn copying(timing: &Value) -> Value {
    let mut body = json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "Mirror",
        "metadata": { "name": "base" },
        "spec": {
            "registryRef": { "name": "main" },
            "path": "base",
            "mode": "Replicate",
            "upstream": { "url": "https://quay.example.com", "secretRef": { "name": "login" } },
            "artifacts": [{ "repository": "library/alpine" }],
        },
    });
    for (key, value) in timing.as_object().unwrap() {
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
    scene.typed::<Mirror>().patch("base", &params, &kube::api::Patch::Merge(asked)).await.unwrap();
}

async fn runs(scene: &Scene) -> Vec<Job> {
    let labels = ListParams::default().labels("stowage.dev/mirror=base");
    scene.typed::<Job>().list(&labels).await.unwrap().items
}

async fn status(scene: &Scene) -> MirrorStatus {
    scene.typed::<Mirror>().get("base").await.unwrap().status.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn f34_a_run_that_is_asked_for_runs_once_and_its_result_and_failures_stay() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(copying(&json!({}))).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.until_dependent::<Mirror>("base", ConditionType::Ready, Reason::Reconciled).await;
    scene.until_dependent::<Mirror>("base", SYNCED, Reason::NeverRun).await;
    says(
        &scene,
        1,
        &json!({
            "command": "sync", "result": "Failed", "reason": "PartialFailure", "message": "1 of 353 failed",
            "counts": { "copied": 12, "skipped": 340, "failed": 1 },
            "failures": [{ "reference": "library/alpine:3.21", "reason": "TagSetLocally" }],
        }),
    );
    ask(&scene, "one").await;
    scene.until_dependent::<Mirror>("base", SYNCED, Reason::PartialFailure).await;
    assert!(wait(async || status(&scene).await.last_handled_run_at.as_deref() == Some("one")).await);
    let known = status(&scene).await;
    assert_eq!(known.failures[0].reference, "library/alpine:3.21");
    assert_eq!(known.last_result.as_ref().unwrap().counts["skipped"], 340);
    assert_eq!((known.last_sync_time.is_some(), known.last_successful_sync_time), (true, None));
    let ready = scene.typed::<Mirror>().get("base").await.unwrap();
    let ready = find(&conditions_of(&ready), ConditionType::Ready).unwrap().status.clone();
    assert_eq!(ready, "True", "what was copied can be pulled");

    let jobs = runs(&scene).await;
    assert_eq!(jobs.len(), 1, "one run for one request");
    let pod = jobs[0].spec.clone().unwrap().template.spec.unwrap();
    let args = pod.containers[0].args.clone().unwrap();
    assert_eq!(
        (args[0].as_str(), &args[args.len() - 2..]),
        ("sync", &["--mirror", "base"].map(String::from)[..])
    );
    let secrets = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name);
    assert!(secrets.collect::<Vec<_>>().contains(&"login".to_owned()));
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;

    scene.delete(Kind::Job, &jobs[0].name_any()).await;
    assert!(wait(async || runs(&scene).await.is_empty()).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&scene).await.failures.len(), 1, "what a Job said outlives it");
    says(&scene, 0, &json!({ "command": "sync", "result": "Succeeded", "counts": { "skipped": 353 } }));
    ask(&scene, "two").await;
    scene.until_dependent::<Mirror>("base", SYNCED, Reason::LastRunSucceeded).await;
    let known = status(&scene).await;
    assert!(known.failures.is_empty() && known.last_successful_sync_time == known.last_sync_time);
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_a_schedule_follows_the_spec_and_goes_with_its_mirror() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(copying(&json!({ "schedule": "0 */6 * * *", "timeZone": "Europe/Berlin" }))).await;
    scene.until_dependent::<Mirror>("base", ConditionType::Ready, Reason::Reconciled).await;
    let crons = scene.typed::<CronJob>();
    assert!(wait(async || crons.get_opt("base-sync").await.unwrap().is_some()).await);
    let spec = crons.get("base-sync").await.unwrap().spec.unwrap();
    assert_eq!((spec.schedule.as_str(), spec.time_zone.as_deref()), ("0 */6 * * *", Some("Europe/Berlin")));
    assert_eq!((spec.concurrency_policy.as_deref(), spec.suspend), (Some("Forbid"), Some(false)));
    assert!(wait(async || status(&scene).await.next_sync_time.is_some()).await);

    scene.apply(copying(&json!({ "schedule": "0 1 * * *", "suspend": true }))).await;
    scene.until_dependent::<Mirror>("base", ConditionType::Suspended, Reason::Suspended).await;
    let follows = async || {
        let spec = crons.get("base-sync").await.unwrap().spec.unwrap();
        spec.schedule == "0 1 * * *" && spec.suspend == Some(true)
    };
    assert!(wait(follows).await);
    assert!(wait(async || status(&scene).await.next_sync_time.is_none()).await);

    scene.typed::<Mirror>().delete("base", &kube::api::DeleteParams::default()).await.unwrap();
    assert!(wait(async || crons.get_opt("base-sync").await.unwrap().is_none()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_a_continuous_mirror_runs_again_after_its_pause_until_it_is_suspended() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    says(&scene, 0, &json!({ "command": "sync", "result": "Succeeded", "counts": { "skipped": 1 } }));
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(copying(&json!({ "interval": "2s" }))).await;
    scene.until_dependent::<Mirror>("base", SYNCED, Reason::LastRunSucceeded).await;
    assert!(wait(async || runs(&scene).await.len() >= 3).await, "{:?}", status(&scene).await);

    scene.apply(copying(&json!({ "interval": "2s", "suspend": true }))).await;
    scene.until_dependent::<Mirror>("base", ConditionType::Suspended, Reason::Suspended).await;
    let all_ended = async || {
        let ended = |job: &Job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        runs(&scene).await.iter().all(ended)
    };
    assert!(wait(all_ended).await);
    let before = runs(&scene).await.len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(runs(&scene).await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_a_run_stalls_its_mirror_until_a_run_succeeds() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(copying(&json!({}))).await;
    scene.until_dependent::<Mirror>("base", ConditionType::Ready, Reason::Reconciled).await;
    let refused = json!({
        "command": "sync", "result": "Failed", "reason": "RunFailed", "message": "1 could not be copied",
        "failures": [{ "reference": "library/alpine", "reason": "AuthenticationFailed" }],
    });
    says(&scene, 1, &refused);
    ask(&scene, "one").await;
    for condition in [ConditionType::Stalled, ConditionType::UpstreamReachable] {
        scene.until_dependent::<Mirror>("base", condition, Reason::AuthenticationFailed).await;
    }
    // Times are whole seconds: a run is newer than another that began in an earlier one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    says(&scene, 0, &json!({ "command": "sync", "result": "Succeeded" }));
    ask(&scene, "two").await;
    scene.until_dependent::<Mirror>("base", ConditionType::UpstreamReachable, Reason::Reachable).await;
    scene.until_dependent::<Mirror>("base", ConditionType::Ready, Reason::Reconciled).await;
}
