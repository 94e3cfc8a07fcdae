// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A Registry through its life.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use stowage_operator::objects::Kind;

use crate::support::scene::{Scene, shared_registry};

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_becomes_ready_and_then_nothing_is_written() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(shared_registry(json!({}))).await;
    let registry = scene.ready().await;
    let status = registry.status.unwrap();
    assert_eq!(status.replica_summary.as_deref(), Some("2/2"));
    assert_eq!(status.registry_id.as_deref(), Some("6f1c0000-0000-4000-8000-000000000000"));
    assert_eq!(status.config_resources, Some(1));
    scene.assert_quiet(&operator, Duration::from_secs(40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_rolls_the_deployment_and_drift_is_put_back() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.patch(json!({ "spec": { "replicas": 3, "image": { "tag": "0.1.1" } } })).await;
    scene.ready().await;
    let deployment = scene.typed::<Deployment>().get("main").await.unwrap();
    let spec = deployment.spec.unwrap();
    assert_eq!(spec.replicas, Some(3));
    let image = spec.template.spec.unwrap().containers[0].image.clone();
    assert_eq!(image.as_deref(), Some("registry.test/stowage/registry:0.1.1"));

    for (kind, name) in
        [(Kind::Service, "main"), (Kind::ConfigMap, "main-config"), (Kind::NetworkPolicy, "main")]
    {
        scene.delete(kind, name).await;
        scene.until_object(kind, name, |object| object.is_some()).await;
    }
}
