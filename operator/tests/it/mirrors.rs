// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mirrors and virtual repositories beside a Registry.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};
use stowage_crds::{
    Mirror, VirtualRepository,
    conditions::{ConditionType, Reason},
};

use crate::support::scene::{Scene, conditions_of, mirror, shared_registry, virtual_repository, wait};

fn login() -> Value {
    json!({ "secretRef": { "name": "login" } })
}

async fn mounted(scene: &Scene) -> Vec<(String, Option<bool>)> {
    let deployment = scene.typed::<Deployment>().get("main").await.unwrap();
    let volumes = deployment.spec.unwrap().template.spec.unwrap().volumes.unwrap();
    let secrets = volumes.into_iter().filter_map(|volume| volume.secret);
    secrets.map(|secret| (secret.secret_name.unwrap(), secret.optional)).collect()
}

async fn document(scene: &Scene) -> Value {
    let config = scene.typed::<ConfigMap>().get("main-config").await.unwrap();
    serde_json::from_str(&config.data.unwrap()["document.json"]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_and_a_virtual_repository_become_ready_and_then_nothing_is_written() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(mirror("hub", "hub", login())).await;
    scene.apply(virtual_repository("hub")).await;
    scene.until_dependent::<Mirror>("hub", ConditionType::Ready, Reason::RegistryNotFound).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.until_dependent::<Mirror>("hub", ConditionType::Ready, Reason::Reconciled).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
    let registry = scene.ready().await;
    assert_eq!(registry.status.unwrap().config_resources, Some(3));
    scene.until_dependent::<Mirror>("hub", ConditionType::UpstreamReachable, Reason::Reachable).await;
    scene
        .until_dependent::<VirtualRepository>("all", ConditionType::MembersResolved, Reason::AllResolved)
        .await;
    let status = scene.typed::<Mirror>().get("hub").await.unwrap().status.unwrap();
    assert_eq!(status.url.as_deref(), Some("registry.example.com/hub"));
    assert!(mounted(&scene).await.contains(&("login".to_owned(), Some(true))));
    assert_eq!(document(&scene).await["version"], "1.1");
    scene.assert_quiet(&operator, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_replicas_say_of_an_upstream_is_said_of_its_mirror_and_degrades_a_member() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(mirror("hub", "hub", json!({}))).await;
    scene.apply(virtual_repository("hub")).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
    let say = |reason: &str| {
        let trouble = Some(("hub".to_owned(), reason.to_owned(), "it is so".to_owned()));
        scene.kubelet.behaviour.lock().unwrap().trouble = trouble;
    };
    for (reason, condition) in [
        (Reason::UpstreamUnreachable, ConditionType::Reconciling),
        (Reason::AuthenticationFailed, ConditionType::Stalled),
    ] {
        say(reason.as_str());
        scene.until_dependent::<Mirror>("hub", condition, reason).await;
        scene.until_dependent::<Mirror>("hub", ConditionType::UpstreamReachable, reason).await;
        scene.until_dependent::<VirtualRepository>("all", ConditionType::MembersDegraded, reason).await;
        scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
    }
    say(Reason::SecretNotFound.as_str());
    scene.until_dependent::<Mirror>("hub", ConditionType::Reconciling, Reason::SecretNotFound).await;
    scene.kubelet.behaviour.lock().unwrap().trouble = None;
    scene.until_dependent::<Mirror>("hub", ConditionType::Ready, Reason::Reconciled).await;
    let recovered = wait(async || {
        let all = scene.typed::<VirtualRepository>().get("all").await.unwrap();
        let degraded = conditions_of(&all).iter().any(|found| found.type_ == "MembersDegraded");
        !degraded && all.status.unwrap().members.is_empty()
    })
    .await;
    assert!(recovered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_conflict_stalls_the_younger_until_the_elder_goes() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(mirror("elder", "all/hub", json!({}))).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    scene.apply(virtual_repository("elder")).await;
    scene.until_dependent::<Mirror>("elder", ConditionType::Ready, Reason::Reconciled).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Stalled, Reason::PathConflict).await;
    let found = document(&scene).await;
    assert_eq!(
        (found["mirrors"][0]["name"].as_str(), found.get("virtualRepositories")),
        (Some("elder"), None)
    );

    scene.typed::<Mirror>().delete("elder", &DeleteParams::default()).await.unwrap();
    scene
        .until_dependent::<VirtualRepository>("all", ConditionType::MembersResolved, Reason::MirrorNotFound)
        .await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::MirrorNotFound).await;
    scene.apply(mirror("elder", "hub", json!({}))).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
    scene.apply(mirror("loops", "loops", json!({ "url": "https://registry.example.com" }))).await;
    scene.until_dependent::<Mirror>("loops", ConditionType::Stalled, Reason::MirrorLoop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_knows_no_mirrors_keeps_the_previous_document() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.kubelet.behaviour.lock().unwrap().max_version = Some("1.0".to_owned());
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.apply(mirror("hub", "hub", login())).await;
    scene.until_reason(ConditionType::ConfigurationApplied, Reason::WaitingForReplicas).await;
    scene.until_dependent::<Mirror>("hub", ConditionType::Ready, Reason::WaitingForReplicas).await;
    assert_eq!(document(&scene).await["version"], "1.0");
    scene.kubelet.behaviour.lock().unwrap().max_version = None;
    scene.until_dependent::<Mirror>("hub", ConditionType::Ready, Reason::Reconciled).await;
    assert_eq!(document(&scene).await["version"], "1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_stalls_its_mirror_and_its_place_is_named() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    let mut body = mirror("hub", "hub", json!({}));
    let key = "-----BEGIN PUBLIC KEY-----\nbm8ga2V5\n-----END PUBLIC KEY-----\n";
    body["spec"]["verify"] = json!({ "keys": [{ "name": "release", "publicKey": key }] });
    scene.apply(body).await;
    scene.until_dependent::<Mirror>("hub", ConditionType::Stalled, Reason::InvalidSpec).await;
    let hub = scene.typed::<Mirror>().get("hub").await.unwrap();
    let stalled = conditions_of(&hub).iter().find(|found| found.type_ == "Stalled").cloned().unwrap();
    assert!(stalled.message.contains("spec.verify.keys[0].publicKey"), "{}", stalled.message);
    assert!(document(&scene).await.get("mirrors").is_none(), "it mirrors nothing unverified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_mirror_says_so_and_claims_nothing_of_its_upstream() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    let mut body = mirror("hub", "hub", json!({}));
    body["spec"]["suspend"] = json!(true);
    scene.apply(body).await;
    scene.until_dependent::<Mirror>("hub", ConditionType::Suspended, Reason::Suspended).await;
    scene.until_dependent::<Mirror>("hub", ConditionType::Ready, Reason::Reconciled).await;
    let hub = scene.typed::<Mirror>().get("hub").await.unwrap();
    assert!(conditions_of(&hub).iter().all(|found| found.type_ != "UpstreamReachable"), "{}", hub.name_any());
}

#[tokio::test(flavor = "multi_thread")]
async fn w451_what_a_virtual_repository_shadows_or_hides_is_told_and_it_stays_ready() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(mirror("hub", "hub", json!({}))).await;
    let mut all = virtual_repository("hub");
    all["spec"]["remoteShadowing"] = "Allow".into();
    all["spec"]["members"].as_array_mut().unwrap().reverse();
    scene.apply(all).await;
    let resolved = ConditionType::MembersResolved;
    scene.until_dependent::<VirtualRepository>("all", resolved, Reason::RemoteShadowsLocal).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
    scene.apply(virtual_repository("hub")).await;
    scene.until_dependent::<VirtualRepository>("all", resolved, Reason::AllResolved).await;
    let hidden = Reason::PathHidesRepositories.to_string();
    let trouble = Some(("all".to_owned(), hidden, "all/before among them".to_owned()));
    scene.kubelet.behaviour.lock().unwrap().trouble = trouble;
    scene.until_dependent::<VirtualRepository>("all", resolved, Reason::PathHidesRepositories).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_virtual_stalls_the_younger_and_the_way_is_named() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.apply(mirror("hub", "hub", json!({}))).await;
    scene.apply(virtual_repository("hub")).await;
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
    let mut over = virtual_repository("hub");
    over["metadata"]["name"] = "over".into();
    over["spec"]["path"] = "over".into();
    over["spec"]["members"][0]["repository"] = "all/apps".into();
    scene.apply(over).await;
    for condition in [ConditionType::Stalled, ConditionType::MembersResolved] {
        scene.until_dependent::<VirtualRepository>("over", condition, Reason::MemberIsVirtual).await;
    }
    let over = scene.typed::<VirtualRepository>().get("over").await.unwrap();
    let stalled = conditions_of(&over).iter().find(|found| found.type_ == "Stalled").cloned().unwrap();
    let way = "VirtualRepository over → member team (all/apps) → VirtualRepository all (all)";
    assert!(stalled.message.contains(way), "{}", stalled.message);
    scene.until_dependent::<VirtualRepository>("all", ConditionType::Ready, Reason::Reconciled).await;
}
