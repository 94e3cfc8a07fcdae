// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Garbage collection of a Registry: its schedule, runs that are asked for, and what is said of them.

use std::time::Duration;

use k8s_openapi::api::{
    batch::v1::{CronJob, Job, JobSpec},
    core::v1::Pod,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use stowage_crds::{
    Registry,
    conditions::{self, ConditionType, Reason, find, is_true},
};
use stowage_operator::objects::Kind;

use crate::support::scene::{Scene, filesystem_registry, of, shared_registry, wait};

const HEALTHY: ConditionType = ConditionType::GarbageCollectionHealthy;

fn summary(result: &str, message: Option<&str>, counts: &Value) -> String {
    json!({ "command": "gc", "result": result, "message": message, "counts": counts }).to_string()
}

async fn ask(scene: &Scene, with: &str) {
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/run-requested-at": with } } })).await;
}

async fn collections(scene: &Scene) -> Vec<Job> {
    let labels = ListParams::default().labels("app.kubernetes.io/component=gc");
    scene.typed::<Job>().list(&labels).await.unwrap().items
}

/// Waits until the last run that is known ended so.
async fn until_reported(scene: &Scene, reason: Reason) -> Registry {
    scene.until_reason(HEALTHY, reason).await
}

fn counted(registry: &Registry, name: &str) -> Option<i64> {
    let status = registry.status.as_ref()?.garbage_collection.as_ref()?;
    status.last_result.as_ref()?.counts.get(name).copied()
}

fn says(scene: &Scene, exit: i32, message: String) {
    let mut behaviour = scene.kubelet.behaviour.lock().unwrap();
    (behaviour.job_exit, behaviour.job_message) = (exit, Some(message));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_asked_for_runs_once_and_its_result_stays() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    until_reported(&scene, Reason::NeverRun).await;
    says(
        &scene,
        0,
        summary("Succeeded", None, &json!({ "deletedBlobs": 812, "reclaimedBytes": 5_100_000_000_i64 })),
    );
    ask(&scene, "one").await;
    let registry = until_reported(&scene, Reason::LastRunSucceeded).await;
    assert_eq!(counted(&registry, "reclaimedBytes"), Some(5_100_000_000));
    let registry = scene
        .until("the request is handled", |registry| {
            registry.status.as_ref().unwrap().last_handled_run_at.as_deref() == Some("one")
        })
        .await;
    let status = registry.status.clone().unwrap().garbage_collection.unwrap();
    assert_eq!(status.last_successful_time, status.last_result.as_ref().unwrap().completion_time);
    assert!(is_true(of(&registry), ConditionType::Ready));

    let jobs = collections(&scene).await;
    assert_eq!(jobs.len(), 1, "one run for one request");
    let spec = jobs[0].spec.clone().unwrap();
    assert_eq!(spec.ttl_seconds_after_finished, Some(86400));
    let args = spec.template.spec.unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args[0], "gc");
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;

    // What its Job and pod said outlives them, and the request is not taken for a new one.
    scene.delete(Kind::Job, &jobs[0].name_any()).await;
    let labels = ListParams::default().labels("app.kubernetes.io/component=gc");
    let pods: kube::Api<Pod> = scene.typed();
    assert!(wait(async || pods.list(&labels).await.unwrap().items.is_empty()).await);
    scene
        .patch(json!({ "metadata": { "annotations": { "stowage.dev/reconcile-requested-at": "now" } } }))
        .await;
    let registry = scene
        .until("it was looked at", |registry| {
            registry.status.as_ref().unwrap().last_handled_reconcile_at.as_deref() == Some("now")
        })
        .await;
    assert_eq!(counted(&registry, "deletedBlobs"), Some(812));
    assert!(collections(&scene).await.is_empty());

    ask(&scene, "two").await;
    assert!(wait(async || collections(&scene).await.len() == 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_fails_or_refuses_is_said_and_the_registry_stays_ready() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    let message = |registry: &Registry| find(of(registry), HEALTHY).unwrap().message.clone();

    let mut refused: Value =
        serde_json::from_str(&summary("Refused", Some("the database is not trusted yet"), &json!({})))
            .unwrap();
    refused["reason"] = "CollectorFrozen".into();
    says(&scene, 3, refused.to_string());
    ask(&scene, "one").await;
    let registry = until_reported(&scene, Reason::Refused).await;
    let database = find(of(&registry), ConditionType::DatabaseReachable).unwrap();
    assert_eq!((database.status.as_str(), database.reason.as_str()), ("True", "CollectorFrozen"));
    assert_eq!(message(&registry), "the database is not trusted yet");
    assert!(is_true(of(&registry), ConditionType::Ready));
    assert!(registry.status.unwrap().garbage_collection.unwrap().last_successful_time.is_none());

    // Times are whole seconds: a run is newer than another that began in an earlier one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    says(&scene, 2, "a line of a log with a password".to_owned());
    ask(&scene, "two").await;
    let registry = until_reported(&scene, Reason::LastRunFailed).await;
    assert!(message(&registry).contains("exit 2") && !message(&registry).contains("password"));
    let result = registry.status.unwrap().garbage_collection.unwrap().last_result.unwrap();
    assert_eq!(result.reason.as_deref(), Some("SummaryMissing"));
    let told = scene.events().await;
    assert!(told.iter().any(|reason| reason == "CollectionRefused"), "{told:?}");
    assert!(wait(async || scene.events().await.iter().any(|reason| reason == "CollectionFailed")).await);

    tokio::time::sleep(Duration::from_secs(1)).await;
    says(&scene, 0, summary("Succeeded", None, &json!({})));
    ask(&scene, "three").await;
    let registry = until_reported(&scene, Reason::LastRunSucceeded).await;
    let database = find(of(&registry), ConditionType::DatabaseReachable).unwrap();
    assert_eq!(database.reason, "ProbeSucceeded");
    scene.told("CollectionRecovered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_runs_the_collector_and_follows_the_spec() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    let schedule = json!({ "schedule": "* * * * *", "timeZone": "Europe/Berlin" });
    scene.apply(shared_registry(json!({ "replicas": 1, "garbageCollection": schedule }))).await;
    scene.ready().await;
    says(&scene, 0, summary("Succeeded", None, &json!({ "deletedManifests": 3 })));
    let crons = scene.typed::<CronJob>();
    let spec = crons.get("main-gc").await.unwrap().spec.unwrap();
    assert_eq!((spec.schedule.as_str(), spec.time_zone.as_deref()), ("* * * * *", Some("Europe/Berlin")));
    assert_eq!(spec.concurrency_policy.as_deref(), Some("Forbid"));
    let reported = async || {
        let registry = scene.registries().get("main").await.unwrap();
        let is_due = |registry: &Registry| {
            registry.status.as_ref()?.garbage_collection.as_ref()?.last_schedule_time.clone()
        };
        is_due(&registry).is_some() && counted(&registry, "deletedManifests") == Some(3)
    };
    // A minute until it is due, and the time that it takes.
    assert!(wait(reported).await || wait(reported).await, "{:#?}", scene.registries().get("main").await);

    scene.patch(json!({ "spec": { "garbageCollection": { "suspend": true } } })).await;
    until_reported(&scene, Reason::Suspended).await;
    assert_eq!(crons.get("main-gc").await.unwrap().spec.unwrap().suspend, Some(true));

    // As `kubectl create job --from=cronjob/main-gc` makes one.
    let cron = crons.get("main-gc").await.unwrap();
    let template = cron.spec.as_ref().unwrap().job_template.clone();
    let by_hand: Job = serde_json::from_value(json!({
        "metadata": {
            "name": "by-hand", "labels": template.metadata.as_ref().unwrap().labels,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": "main-gc", "uid": cron.uid(), "controller": true,
            }],
        },
        "spec": serde_json::to_value::<JobSpec>(template.spec.unwrap()).unwrap(),
    }))
    .unwrap();
    says(&scene, 0, summary("Succeeded", None, &json!({ "deletedManifests": 4 })));
    scene.typed::<Job>().create(&PostParams::default(), &by_hand).await.unwrap();
    scene
        .until("the run by hand is reported", |registry| counted(registry, "deletedManifests") == Some(4))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_never_comes_is_refused_with_its_place() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene
        .apply(shared_registry(json!({ "replicas": 1, "garbageCollection": { "schedule": "0 25 * * *" } })))
        .await;
    let registry = scene.until_reason(ConditionType::Stalled, Reason::InvalidSpec).await;
    let stalled = conditions::find(of(&registry), ConditionType::Stalled).unwrap();
    assert!(stalled.message.starts_with("spec.garbageCollection.schedule: "), "{}", stalled.message);
    scene.assert_quiet(&operator, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_on_a_volume_collects_by_itself_and_says_so() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    let run = |result: &str, begun: &str| {
        json!({
            "command": "gc", "result": result, "message": "the disk is full", "startTime": begun,
            "completionTime": begun, "counts": { "deletedBlobs": 7 },
        })
    };
    scene.kubelet.behaviour.lock().unwrap().runs = vec![run("Succeeded", "2026-01-01T03:17:00Z")];
    scene.apply(filesystem_registry(json!({}))).await;
    scene.ready().await;
    let registry = until_reported(&scene, Reason::LastRunSucceeded).await;
    assert_eq!(counted(&registry, "deletedBlobs"), Some(7));
    assert!(scene.typed::<CronJob>().list(&ListParams::default()).await.unwrap().items.is_empty());
    scene.kubelet.behaviour.lock().unwrap().runs = vec![run("Failed", "2026-01-02T03:17:00Z")];
    let registry = until_reported(&scene, Reason::LastRunFailed).await;
    let status = registry.status.unwrap().garbage_collection.unwrap();
    assert_eq!(status.last_successful_time.unwrap().0.to_string(), "2026-01-01T03:17:00Z");
    scene.assert_quiet(&operator, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_ends_before_the_data_are_purged() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1, "deletionPolicy": "Delete" }))).await;
    scene.ready().await;
    scene.kubelet.behaviour.lock().unwrap().jobs_hang = true;
    ask(&scene, "one").await;
    assert!(wait(async || collections(&scene).await.len() == 1).await);
    scene.registries().delete("main", &DeleteParams::default()).await.unwrap();
    scene.until_object(Kind::Job, "main-purge", |object| object.is_some()).await;
    let labels = ListParams::default().labels("app.kubernetes.io/component=gc");
    let collecting = scene.typed::<Pod>().list(&labels).await.unwrap().items;
    assert!(collecting.is_empty(), "nothing else writes while the data are purged");
    assert!(scene.typed::<CronJob>().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_begin_is_told() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.kubelet.behaviour.lock().unwrap().jobs_hang = true;
    ask(&scene, "one").await;
    let pods: kube::Api<Pod> = scene.typed();
    let labels = ListParams::default().labels("app.kubernetes.io/component=gc");
    assert!(wait(async || !pods.list(&labels).await.unwrap().items.is_empty()).await);
    let pod = pods.list(&labels).await.unwrap().items.remove(0).name_any();
    let no_node = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" });
    let patch = json!({ "status": { "conditions": [no_node] } });
    let params = kube::api::PatchParams::default();
    pods.patch_status(&pod, &params, &kube::api::Patch::Strategic(patch)).await.unwrap();
    let registry = scene.until_reason(ConditionType::RunBlocked, Reason::Unschedulable).await;
    assert!(is_true(of(&registry), ConditionType::Ready), "replicas serve on");
    scene.told("RunBlocked").await;
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;
    scene.kubelet.behaviour.lock().unwrap().jobs_hang = false;
    until_reported(&scene, Reason::LastRunSucceeded).await;
    let is_gone = |registry: &Registry| find(of(registry), ConditionType::RunBlocked).is_none();
    scene.until("the run has begun", is_gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_volume_who_asks_for_a_run_is_told_that_there_is_none() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(filesystem_registry(json!({}))).await;
    scene.ready().await;
    ask(&scene, "one").await;
    let registry = scene.until_reason(ConditionType::RunBlocked, Reason::NoJobs).await;
    assert!(is_true(of(&registry), ConditionType::Ready));
    scene.told("RunBlocked").await;
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/run-requested-at": null } } })).await;
    let is_gone = |registry: &Registry| find(of(registry), ConditionType::RunBlocked).is_none();
    scene.until("nothing is asked for in vain", is_gone).await;
    assert!(collections(&scene).await.is_empty());
}
