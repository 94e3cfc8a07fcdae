// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! APIs that a cluster gets after the operator has started.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use stowage_crds::conditions::{ConditionType, Reason};
use stowage_operator::objects::Kind;
use tokio::time::sleep;

use crate::support::scene::{Scene, shared_registry, wait};

/// A definition as loose as can be: the shape of these kinds is their owners' matter.
fn definition(group: &str, kind: &str, plural: &str) -> CustomResourceDefinition {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": { "api-approved.kubernetes.io": "unapproved, for a test" },
        },
        "spec": {
            "group": group,
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": {
                    "type": "object", "properties": { "spec": open, "status": open },
                } },
            }],
        },
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_made_when_its_api_appears_and_counts_when_a_gateway_accepts_it() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    let route = json!({ "httpRoute": { "parentRefs": [{ "name": "gw" }] } });
    let monitoring = json!({ "serviceMonitor": {}, "alerts": "Managed" });
    scene.apply(shared_registry(json!({ "replicas": 1, "expose": route, "monitoring": monitoring }))).await;
    scene.until_reason(ConditionType::Exposed, Reason::GatewayAPIMissing).await;
    scene.until_reason(ConditionType::Ready, Reason::GatewayAPIMissing).await;

    let definitions: Api<CustomResourceDefinition> = Api::all(scene.client.clone());
    for (group, kind, plural) in [
        ("gateway.networking.k8s.io", "HTTPRoute", "httproutes"),
        ("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
        ("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
    ] {
        definitions.create(&PostParams::default(), &definition(group, kind, plural)).await.unwrap();
    }
    let routes = scene.api(Kind::HttpRoute);
    let found = async || routes.list(&ListParams::default()).await.is_ok_and(|list| !list.items.is_empty());
    // The operator looks once a minute.
    assert!(wait(found).await || wait(found).await, "no route");
    scene.until_object(Kind::ServiceMonitor, "main", |object| object.is_some()).await;
    scene.until_object(Kind::PrometheusRule, "main", |object| object.is_some()).await;
    scene.until_reason(ConditionType::Exposed, Reason::WaitingForAddress).await;

    let accepted: Value = json!({ "status": { "parents": [{
        "parentRef": { "name": "gw" },
        "conditions": [{ "type": "Accepted", "status": "True" }],
    }] } });
    routes.patch_status("main", &PatchParams::default(), &Patch::Merge(accepted)).await.unwrap();
    scene.ready().await;

    scene.delete(Kind::PrometheusRule, "main").await;
    scene.until_object(Kind::PrometheusRule, "main", |object| object.is_some()).await;
    sleep(Duration::from_secs(2)).await;
    scene.assert_quiet(&operator, Duration::from_secs(8)).await;
}
