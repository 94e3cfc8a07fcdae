// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What runs, as runs that delete are told it.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Pod},
    rbac::v1::RoleBinding,
};
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, from_value, json};
use stowage_crds::{
    conditions::{ConditionType, Reason, is_true},
    usage::UsageAnswer,
};

use crate::support::scene::{Scene, filesystem_registry, mirror, of, shared_registry, wait};

const TENANT: &str = "operator-that-sees-what-runs";

/// A Registry that protects what runs in these namespaces, and a mirror from which a collection evicts.
async fn protected(scene: &Scene, protection: Value) {
    let mut hub = mirror("hub", "hub", json!({}));
    hub["spec"]["cache"] = json!({ "eviction": { "unusedFor": "30d" } });
    scene.apply(hub).await;
    scene.apply(shared_registry(json!({ "replicas": 1, "usageProtection": protection }))).await;
}

fn namespaces(scene: &Scene) -> Value {
    json!({ "scope": "Namespaces", "namespaces": [scene.namespace] })
}

async fn answer(scene: &Scene) -> Option<UsageAnswer> {
    let config = scene.typed::<ConfigMap>().get_opt("main-usage").await.unwrap()?;
    Some(serde_json::from_str(&config.data?["usage.json"]).unwrap())
}

/// Workloads that run nothing now, and a pod of nobody that runs something.
async fn workloads(scene: &Scene) {
    let template = |image: &str| {
        json!({
            "metadata": { "labels": { "app": "a" } },
            "spec": { "restartPolicy": "Always", "containers": [{ "name": "c", "image": image }] },
        })
    };
    let deployment: Deployment = from_value(json!({
        "metadata": { "name": "asleep" },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": { "app": "a" } },
            "template": template("registry.example.com/team/asleep:1"),
        },
    }))
    .unwrap();
    let deployments = scene.typed::<Deployment>();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let is_known = async || {
        deployments
            .get("asleep")
            .await
            .unwrap()
            .annotations()
            .contains_key("deployment.kubernetes.io/revision")
    };
    assert!(wait(is_known).await);
    let next = json!({ "spec": { "template": template("registry.example.com/team/asleep:2") } });
    deployments.patch("asleep", &PatchParams::default(), &Patch::Merge(next)).await.unwrap();
    let mut nightly = template("registry.example.com/team/nightly:1");
    nightly["spec"]["restartPolicy"] = json!("Never");
    let cron: CronJob = from_value(json!({
        "metadata": { "name": "nightly" },
        "spec": { "schedule": "@daily", "suspend": true, "jobTemplate": { "spec": { "template": nightly } } },
    }))
    .unwrap();
    scene.typed::<CronJob>().create(&PostParams::default(), &cron).await.unwrap();
    // The nodes of the test leave it alone.
    scene.kubelet.behaviour.lock().unwrap().nothing_starts = true;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pod: Pod = from_value(json!({
        "metadata": { "name": "runs" },
        "spec": { "containers": [{ "name": "c", "image": "registry.example.com/team/runs:1" }] },
    }))
    .unwrap();
    let pods = scene.typed::<Pod>();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
        "name": "c", "image": "i", "ready": true, "restartCount": 0,
        "imageID": format!("registry.example.com/team/runs@sha256:{}", "a".repeat(64)),
    }] } });
    pods.patch_status("runs", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    scene.kubelet.behaviour.lock().unwrap().nothing_starts = false;
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_a_run_that_asks_is_told_what_runs_and_nothing_is_written_for_nobody() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    workloads(&scene).await;
    protected(&scene, namespaces(&scene)).await;
    let registry = scene.until_reason(ConditionType::UsageProtected, Reason::Watching).await;
    assert!(is_true(of(&registry), ConditionType::UsageProtected));
    scene.ready().await;
    assert_eq!(answer(&scene).await, None, "nobody asks");

    scene.kubelet.behaviour.lock().unwrap().jobs_hang = true;
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/run-requested-at": "one" } } })).await;
    assert!(wait(async || answer(&scene).await.is_some()).await, "it is answered");
    let labels = ListParams::default().labels("stowage.dev/asks-usage=true");
    let asking = scene.typed::<Job>().list(&labels).await.unwrap().items;
    let answer_of_one = answer(&scene).await.unwrap();
    assert_eq!(answer_of_one.answers, asking.iter().filter_map(kube::ResourceExt::uid).collect::<Vec<_>>());
    assert_eq!(answer_of_one.answers.len(), 1);
    for image in ["asleep:1", "asleep:2", "nightly:1"] {
        let reference = format!("registry.example.com/team/{image}");
        assert!(answer_of_one.references.contains(&reference), "{reference}: {answer_of_one:?}");
    }
    assert!(answer_of_one.digests.contains(&format!("sha256:{}", "a".repeat(64))), "{answer_of_one:?}");
    let spec = asking[0].spec.clone().unwrap().template.spec.unwrap();
    let container = &spec.containers[0];
    let uid = container.env.iter().flatten().find(|env| env.name == "STOWAGE_RUN_UID").unwrap();
    let path = &uid.value_from.as_ref().unwrap().field_ref.as_ref().unwrap().field_path;
    assert_eq!(path, "metadata.labels['batch.kubernetes.io/controller-uid']");
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.name == "usage").unwrap();
    assert_eq!(mount.mount_path, "/etc/stowage/usage");
    scene.assert_quiet(&operator, Duration::from_secs(3)).await;

    scene.kubelet.behaviour.lock().unwrap().jobs_hang = false;
    scene.until_reason(ConditionType::GarbageCollectionHealthy, Reason::LastRunSucceeded).await;
    scene.kubelet.behaviour.lock().unwrap().jobs_hang = true;
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/run-requested-at": "two" } } })).await;
    let is_another =
        async || answer(&scene).await.is_some_and(|answer| answer.answers != answer_of_one.answers);
    assert!(wait(is_another).await, "another run is another question");
    scene.patch(json!({ "spec": { "usageProtection": null } })).await;
    assert!(wait(async || answer(&scene).await.is_none()).await, "it is pruned");
    scene
        .until("the condition is gone", |registry| {
            stowage_crds::conditions::find(of(registry), ConditionType::UsageProtected).is_none()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_may_not_look_the_condition_says_so_and_nobody_is_answered() {
    let Some(scene) = Scene::set().await else { return };
    let bind = async |role: &str| {
        let binding: RoleBinding = from_value(json!({
            "metadata": { "name": role },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "User", "name": TENANT }],
        }))
        .unwrap();
        scene.typed::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
    };
    bind("stowage-operator").await;
    let _operator = Scene::operator_of(&[&scene], scene.cluster.user(TENANT));
    protected(&scene, namespaces(&scene)).await;
    scene.until_reason(ConditionType::UsageProtected, Reason::PermissionDenied).await;
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/run-requested-at": "one" } } })).await;
    bind("stowage-operator-usage").await;
    let touch = json!({ "metadata": { "annotations": { "stowage.dev/reconcile-requested-at": "now" } } });
    scene.patch(touch).await;
    scene.until_reason(ConditionType::UsageProtected, Reason::Watching).await;
    let all = json!({ "spec": { "usageProtection": { "scope": "Cluster", "namespaces": null } } });
    scene.patch(all).await;
    let registry = scene.until_reason(ConditionType::UsageProtected, Reason::UsageScopeNotCovered).await;
    assert!(!is_true(of(&registry), ConditionType::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_collects_by_itself_is_answered_as_well() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(filesystem_registry(json!({ "usageProtection": namespaces(&scene) }))).await;
    scene.ready().await;
    assert_eq!(answer(&scene).await, None);
    let pods = scene.typed::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let volumes = pods[0].spec.as_ref().unwrap().volumes.iter().flatten();
    assert_eq!(volumes.filter(|volume| volume.name == "usage").count(), 1);
    scene.kubelet.behaviour.lock().unwrap().usage_wanted = Some("a-run-of-its-own".to_owned());
    let is_answered =
        async || answer(&scene).await.is_some_and(|answer| answer.answers == ["a-run-of-its-own"]);
    assert!(wait(is_answered).await);
}
