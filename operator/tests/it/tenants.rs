// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Several registries in one cluster, and an operator that is let into some namespaces only.

use std::collections::BTreeSet;

use k8s_openapi::api::{core::v1::ConfigMap, rbac::v1::RoleBinding};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use serde_json::json;
use stowage_crds::{
    AccessPolicy,
    conditions::{ConditionType, Reason},
};
use stowage_operator::objects::Kind;

use crate::support::scene::{Scene, shared_registry};

const TENANT: &str = "operator-of-some-namespaces";

/// What `config/rbac/operator.yaml` says to do for each of the namespaces.
async fn let_in(scene: &Scene) {
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "stowage-operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "stowage-operator" },
        "subjects": [{ "kind": "User", "name": TENANT }],
    }))
    .unwrap();
    scene.typed::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
}

fn registry(prefix: &str) -> serde_json::Value {
    shared_registry(json!({ "replicas": 1, "storage": { "s3": { "prefix": prefix } } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_some_namespaces_needs_no_right_elsewhere_and_touches_nothing_there() {
    let Some(one) = Scene::set().await else { return };
    let (Some(two), Some(other)) = (Scene::set().await, Scene::set().await) else { return };
    let client = one.cluster.user(TENANT);
    let_in(&one).await;
    let_in(&two).await;
    let seen = kube::Api::<ConfigMap>::namespaced(client.clone(), &other.namespace);
    assert!(seen.list(&ListParams::default()).await.is_err(), "the test gives it no right there");

    other.apply(registry("other")).await;
    let _operator = Scene::operator_of(&[&one, &two], client);
    one.apply(registry("one")).await;
    two.apply(registry("two")).await;
    let policy = json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": { "name": "team" },
        "spec": {
            "registryRef": { "name": "main" }, "repositories": ["team/**"],
            "subjects": [{ "user": "alice" }], "actions": ["Pull"],
        },
    });
    one.apply(policy).await;
    one.until_dependent::<AccessPolicy>("team", ConditionType::Ready, Reason::Reconciled).await;
    let (first, second) = (one.ready().await, two.ready().await);
    let resources = |registry: &stowage_crds::Registry| registry.status.as_ref().unwrap().config_resources;
    assert_eq!((resources(&first), resources(&second)), (Some(2), Some(1)), "the policy is for one of them");

    let owners = |objects: Vec<kube::api::DynamicObject>| -> BTreeSet<String> {
        let all = objects.iter().flat_map(kube::ResourceExt::owner_references);
        all.map(|owner| owner.uid.clone()).collect()
    };
    for (scene, registry) in [(&one, &first), (&two, &second)] {
        for kind in [Kind::ConfigMap, Kind::Deployment, Kind::Service, Kind::CronJob] {
            let objects = scene.api(kind).list(&ListParams::default()).await.unwrap().items;
            assert_eq!(owners(objects), [registry.uid().unwrap()].into(), "{kind:?}");
        }
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.needs().is_none()) {
        let objects = other.api(kind).list(&ListParams::default()).await.unwrap().items;
        assert!(objects.is_empty(), "{kind:?} where the operator is not let in");
    }
    let ignored = other.registries().get("main").await.unwrap();
    assert_eq!(ignored.status.and_then(|status| status.observed_generation), Some(-1));
}
