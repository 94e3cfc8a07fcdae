// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotion policies beside a Registry.

use std::time::Duration;

use serde_json::{Value, json};
use stowage_crds::{
    PromotionPolicy,
    conditions::{ConditionType, Reason},
};

use crate::support::scene::{Scene, shared_registry};

fn policy(name: &str, gates: &Value) -> Value {
    json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "PromotionPolicy",
        "metadata": { "name": name },
        "spec": {
            "registryRef": { "name": "main" },
            "from": { "repositories": ["staging/**"] },
            "to": { "repository": "prod/{path}" },
            "gates": gates,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_a_promotion_policy_is_in_force_when_every_replica_has_it() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    let until = async |condition, reason| {
        scene.until_dependent::<PromotionPolicy>("to-prod", condition, reason).await;
    };
    let soaked = json!([{ "name": "soaked", "minimumAge": { "duration": "48h" } }]);
    scene.apply(policy("to-prod", &soaked)).await;
    until(ConditionType::Ready, Reason::RegistryNotFound).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    until(ConditionType::Ready, Reason::Reconciled).await;
    assert_eq!(scene.ready().await.status.unwrap().config_resources, Some(2));
    scene.assert_quiet(&operator, Duration::from_secs(20)).await;

    let ordered = json!([{ "name": "order", "promotedBy": { "policyRef": { "name": "to-staging" } } }]);
    scene.apply(policy("to-prod", &ordered)).await;
    until(ConditionType::Stalled, Reason::PolicyNotFound).await;
    scene
        .apply(policy("to-staging", &json!([{ "name": "soaked", "minimumAge": { "duration": "1h" } }])))
        .await;
    until(ConditionType::Ready, Reason::Reconciled).await;

    let mut back = policy("back", &json!([]));
    back["spec"] = json!({
        "registryRef": { "name": "main" }, "trigger": "Automatic", "from": { "repositories": ["prod/**"] },
        "to": { "repository": "staging/{path}" },
    });
    let mut forth = policy("to-prod", &json!([]));
    forth["spec"]["trigger"] = "Automatic".into();
    scene.apply(forth).await;
    until(ConditionType::Ready, Reason::Reconciled).await;
    scene.apply(back.clone()).await;
    scene.until_dependent::<PromotionPolicy>("back", ConditionType::Stalled, Reason::PromotionCycle).await;
    until(ConditionType::Ready, Reason::Reconciled).await;
    scene.apply(policy("to-prod", &json!([]))).await;
    scene.until_dependent::<PromotionPolicy>("back", ConditionType::Ready, Reason::Reconciled).await;

    let mut broken = policy("to-prod", &json!([]));
    broken["spec"]["to"]["repository"] = "prod/{tag}".into();
    scene.apply(broken).await;
    until(ConditionType::Stalled, Reason::InvalidSpec).await;
}
