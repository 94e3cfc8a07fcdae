// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions: each carried out once, by Jobs.

use std::time::Duration;

use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use stowage_crds::{
    Promotion, PromotionPolicy, PromotionStatus,
    conditions::{ConditionType, Reason},
};

use crate::admission::{allow_user, promotions};
use crate::support::scene::{Scene, mirror, shared_registry, wait};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn policy(fields: &Value) -> Value {
    let mut body = json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "PromotionPolicy", "metadata": { "name": "to-prod" },
        "spec": {
            "registryRef": { "name": "main" }, "from": { "repositories": ["staging/**"] },
            "to": { "repository": "prod/{path}" },
            "gates": [{ "name": "approved", "approval": { "required": 1 } }],
        },
    });
    body["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn promotion() -> Value {
    json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Promotion", "metadata": { "name": "x" },
        "spec": {
            "policyRef": { "name": "to-prod" }, "requestedBy": "admin", "reason": "CHG-1",
            "artifact": { "repository": "staging/app", "tag": "1.0" },
        },
    })
}

/// The next Jobs end so.
fn says(scene: &Scene, exit: i32, reason: &str, promoted: bool) {
    let status = if promoted { "True" } else { "Unknown" };
    let mut message = json!({
        "command": "promote", "result": if exit == 0 { "Succeeded" } else { "Refused" }, "reason": reason,
        "message": format!("it is {reason}"),
        "evaluation": {
            "digest": DIGEST, "gates": [{ "name": "approved", "status": status, "reason": "Some", "message": "so" }],
        },
    });
    if promoted {
        message["evaluation"]["promoted"] =
            json!({ "repository": "prod/app", "tag": "1.0", "digest": DIGEST, "referrers": 3 });
    }
    let mut behaviour = scene.kubelet.behaviour.lock().unwrap();
    (behaviour.job_exit, behaviour.job_message) = (exit, Some(message.to_string()));
}

async fn status(scene: &Scene) -> PromotionStatus {
    scene.typed::<Promotion>().get("x").await.unwrap().status.unwrap_or_default()
}

async fn until(scene: &Scene, condition: ConditionType, verdict: &str, reason: Reason) {
    let mut last = PromotionStatus::default();
    let found = wait(async || {
        last = status(scene).await;
        last.conditions.iter().any(|found| {
            found.type_ == condition.as_str() && found.status == verdict && found.reason == reason.as_str()
        })
    })
    .await;
    assert!(found, "{condition} is {verdict} for {reason}: {last:#?}");
}

async fn jobs(scene: &Scene) -> Vec<Job> {
    let labels = ListParams::default().labels("stowage.dev/promotion=x");
    scene.typed::<Job>().list(&labels).await.unwrap().items
}

async fn patch(scene: &Scene, spec: Value) {
    let all = scene.typed::<Promotion>();
    all.patch("x", &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await.unwrap();
}

/// Alice, who may, approves it.
async fn approve(scene: &Scene) {
    allow_user(scene, "alice", "approver", promotions("approve")).await;
    let api: kube::Api<Promotion> = kube::Api::namespaced(scene.cluster.user("alice"), &scene.namespace);
    let patch = json!({ "spec": { "approvals": [{ "user": "alice", "digest": DIGEST }] } });
    let mut last = None;
    let approved = wait(async || {
        last = api.patch("x", &PatchParams::default(), &Patch::Merge(&patch)).await.err();
        last.is_none()
    })
    .await;
    assert!(approved, "{last:?}");
}

/// A registry and a policy that are in force.
async fn prepared(scene: &Scene, fields: &Value) {
    scene.apply(policy(fields)).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.until_dependent::<PromotionPolicy>("to-prod", ConditionType::Ready, Reason::Reconciled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_a_promotion_waits_for_its_gates_and_is_carried_out_once() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(mirror("hub", "hub", json!({ "secretRef": { "name": "login" } }))).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.apply(promotion()).await;
    until(&scene, ConditionType::Accepted, "False", Reason::PolicyNotFound).await;
    says(&scene, 3, "WaitingForGates", false);
    prepared(&scene, &json!({})).await;
    until(&scene, ConditionType::Succeeded, "Unknown", Reason::WaitingForGates).await;
    until(&scene, ConditionType::Accepted, "True", Reason::Accepted).await;
    let known = status(&scene).await;
    assert_eq!(known.artifact.unwrap().digest.unwrap().as_str(), DIGEST);
    assert_eq!((known.short_digest.as_deref(), known.evaluations), (Some("aaaaaaaaaaaa"), Some(1)));
    assert_eq!((known.gates[0].reason.as_str(), known.gates[0].status.as_str()), ("Some", "Unknown"));
    assert!(known.next_evaluation_time.is_some());
    scene.assert_quiet(&operator, Duration::from_secs(10)).await;
    assert_eq!(jobs(&scene).await.len(), 1);
    let request = scene.typed::<ConfigMap>().get("x-request").await.unwrap().data.unwrap();
    let request: Value = serde_json::from_str(&request["request.json"]).unwrap();
    assert_eq!((&request["spec"]["reason"], &request["kind"]), (&"CHG-1".into(), &"Promotion".into()));

    says(&scene, 0, "Promoted", true);
    approve(&scene).await;
    until(&scene, ConditionType::Succeeded, "True", Reason::Promoted).await;
    until(&scene, ConditionType::Ready, "True", Reason::Promoted).await;
    until(&scene, ConditionType::GatesPassed, "True", Reason::AllPassed).await;
    scene.told("Promoted").await;
    let ended = status(&scene).await;
    assert_eq!((ended.evaluations, ended.result.as_ref().unwrap().referrers), (Some(2), 3));
    let request = scene.typed::<ConfigMap>().get("x-request").await.unwrap().data.unwrap();
    let request: Value = serde_json::from_str(&request["request.json"]).unwrap();
    assert_eq!(request["status"]["artifact"]["digest"], DIGEST, "it is pinned");
    assert_eq!(request["spec"]["approvals"][0]["user"], "alice");
    let pod = jobs(&scene).await.remove(0).spec.unwrap().template.spec.unwrap();
    let args = pod.containers[0].args.clone().unwrap();
    assert_eq!((args[0].as_str(), args[args.len() - 2].as_str()), ("promote", "--request"));
    let mut secrets = pod.volumes.iter().flatten().filter_map(|volume| volume.secret.as_ref());
    let login = secrets.find(|secret| secret.secret_name.as_deref() == Some("login"));
    assert_eq!(login.unwrap().optional, Some(true), "it may fetch through the mirror");
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;

    patch(&scene, json!({ "ttlSecondsAfterFinished": 0 })).await;
    let all = scene.typed::<Promotion>();
    assert!(wait(async || all.get_opt("x").await.unwrap().is_none()).await, "its time is over");
    assert!(wait(async || jobs(&scene).await.is_empty()).await, "its Jobs go with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_a_promotion_that_failed_is_stalled_and_not_tried_again() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    prepared(&scene, &json!({})).await;
    says(&scene, 3, "TagConflict", false);
    scene.apply(promotion()).await;
    until(&scene, ConditionType::Stalled, "True", Reason::TagConflict).await;
    until(&scene, ConditionType::Succeeded, "False", Reason::TagConflict).await;
    let ended = status(&scene).await;
    assert!(ended.completion_time.is_some() && ended.expires_at.is_some());
    scene.told("PromotionFailed").await;
    says(&scene, 0, "Promoted", true);
    approve(&scene).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((status(&scene).await.evaluations, jobs(&scene).await.len()), (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_a_promotion_goes_on_or_ends_with_its_policy() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    prepared(&scene, &json!({ "suspend": true })).await;
    says(&scene, 3, "WaitingForGates", false);
    scene.apply(promotion()).await;
    until(&scene, ConditionType::Accepted, "False", Reason::PolicySuspended).await;
    assert!(jobs(&scene).await.is_empty());
    patch(&scene, json!({ "suspend": true })).await;
    scene.apply(policy(&json!({}))).await;
    until(&scene, ConditionType::Suspended, "True", Reason::Suspended).await;
    until(&scene, ConditionType::Accepted, "True", Reason::Accepted).await;
    assert!(jobs(&scene).await.is_empty());
    patch(&scene, json!({ "suspend": false })).await;
    until(&scene, ConditionType::GatesPassed, "False", Reason::WaitingForGates).await;
    let policies = scene.typed::<PromotionPolicy>();
    policies.delete("to-prod", &kube::api::DeleteParams::default()).await.unwrap();
    until(&scene, ConditionType::Succeeded, "False", Reason::PolicyNotFound).await;
    until(&scene, ConditionType::Stalled, "True", Reason::PolicyNotFound).await;
    assert!(!scene.typed::<Promotion>().get("x").await.unwrap().name_any().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_a_promotion_that_waits_too_long_expires() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    prepared(&scene, &json!({ "deadline": "3s" })).await;
    says(&scene, 3, "WaitingForGates", false);
    scene.apply(promotion()).await;
    until(&scene, ConditionType::Succeeded, "False", Reason::Expired).await;
}
