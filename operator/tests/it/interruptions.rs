// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whatever breaks, and wherever: the end is the same.
//!
//! A call that an operator makes on its way breaks, in one of four ways in turn, and an operator dies after each of its
//! writes. Of the calls every third is broken; `STOWAGE_THOROUGH=1` breaks them all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use http::StatusCode;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use stowage_crds::{
    Mirror, VirtualRepository,
    conditions::{ConditionType, Reason, is_true},
};
use stowage_operator::{controllers::dependents::Reconciled, objects::Kind};
use tokio::time::timeout;

use crate::support::{
    faults::{Break, Calls},
    scene::{Scene, conditions_of, mirror, of, shared_registry, virtual_repository, wait},
};

/// So many worlds at once.
const ABREAST: usize = 10;
const WAYS: [Break; 4] = [
    Break::Answer(StatusCode::CONFLICT),
    Break::Answer(StatusCode::INTERNAL_SERVER_ERROR),
    Break::LoseAnswer,
    Break::Answer(StatusCode::TOO_MANY_REQUESTS),
];

/// Everything, by name, without what a server adds.
type World = BTreeMap<String, Value>;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_anywhere_ends_in_the_same_world() {
    let Some((wanted, calls, _)) = undisturbed().await else { return };
    let step = if std::env::var_os("STOWAGE_THOROUGH").is_some() { 1 } else { 3 };
    let worlds = stream::iter((0..calls).step_by(step)).map(|at| {
        let wanted = wanted.clone();
        async move {
            let way = WAYS[at % WAYS.len()];
            let scene = Scene::set().await.unwrap();
            let operator = scene.operator_with(Calls::breaking(at, way));
            scene.apply_all().await;
            scene.assert_becomes(&wanted, &format!("call {at} broke with {way:?}")).await;
            drop(operator);
        }
    });
    worlds.buffer_unordered(ABREAST).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_any_write_is_followed_by_one_that_finishes() {
    let Some((wanted, _, writes)) = undisturbed().await else { return };
    let worlds = stream::iter(0..writes).map(|at| {
        let wanted = wanted.clone();
        async move {
            let scene = Scene::set().await.unwrap();
            let calls = Calls::breaking(at, Break::Die);
            let doomed = scene.operator_with(Arc::clone(&calls));
            scene.apply_all().await;
            // An operator that was faster than this number of writes has converged and dies as well.
            let died = timeout(Duration::from_secs(15), calls.broke.notified()).await.is_ok();
            drop(doomed);
            let _successor = scene.operator();
            scene.assert_becomes(&wanted, &format!("died after write {at}: {died}")).await;
        }
    });
    worlds.buffer_unordered(ABREAST).collect::<Vec<()>>().await;
}

/// Without replicas there is nothing to wait for but the operator.
fn quick() -> Value {
    shared_registry(json!({ "replicas": 0, "disruption": { "maxUnavailable": 2 } }))
}

/// The world as it should become, and how many calls and writes that takes.
async fn undisturbed() -> Option<(World, usize, usize)> {
    let scene = Scene::set().await?;
    let operator = scene.operator();
    scene.apply_all().await;
    scene.until_reason(ConditionType::DatabaseMigrated, Reason::SchemaCurrent).await;
    let (calls, writes) = (operator.calls.count(), operator.calls.writes());
    let mut last = scene.world().await;
    let settled = wait(async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = scene.world().await;
        let same = now == last;
        last = now;
        same
    })
    .await;
    assert!(settled);
    println!("{calls} calls, {writes} writes");
    Some((last, calls, writes))
}

impl Scene {
    /// A Registry with one resource of each kind that names one, and one that is in the way of another.
    async fn apply_all(&self) {
        self.apply(quick()).await;
        self.apply(mirror("hub", "hub", json!({ "secretRef": { "name": "login" } }))).await;
        self.apply(mirror("self", "self", json!({ "url": "https://registry.example.com" }))).await;
        self.apply(virtual_repository("hub")).await;
    }

    async fn conditions<K: Reconciled>(&self, world: &mut World) {
        for object in self.typed::<K>().list(&ListParams::default()).await.unwrap() {
            let conditions: BTreeMap<_, _> = conditions_of(&object)
                .into_iter()
                .map(|condition| (condition.type_, (condition.status, condition.reason)))
                .collect();
            world.insert(format!("{} {}", K::KIND, object.name_any()), json!(conditions));
        }
    }

    /// Everything there is, without what differs by itself.
    async fn world(&self) -> World {
        let mut world = World::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.needs().is_none()) {
            for object in self.api(kind).list(&ListParams::default()).await.unwrap() {
                let mut data = object.data.clone();
                strip(&mut data);
                if kind == Kind::Secret {
                    data = Value::Null;
                }
                let labels = object.labels().clone();
                world.insert(
                    format!("{kind:?} {}", object.name_any()),
                    json!({ "labels": labels, "data": data }),
                );
            }
        }
        for registry in self.registries().list(&ListParams::default()).await.unwrap() {
            let conditions: BTreeMap<_, _> = of(&registry)
                .iter()
                .map(|c| (c.type_.clone(), (c.status.clone(), c.reason.clone())))
                .collect();
            world.insert("Registry".into(), json!(conditions));
        }
        self.conditions::<Mirror>(&mut world).await;
        self.conditions::<VirtualRepository>(&mut world).await;
        world
    }

    async fn assert_becomes(&self, wanted: &World, what: &str) {
        let mut last = World::new();
        let same = wait(async || {
            // Looking at everything is dear, so only what has come to its end is looked at.
            let registry = self.registries().get("main").await.unwrap();
            if !is_true(of(&registry), ConditionType::DatabaseMigrated) {
                return false;
            }
            last = self.world().await;
            last == *wanted
        })
        .await;
        if !same {
            let differs: Vec<_> = wanted
                .iter()
                .map(|(name, body)| (name, body, last.get(name)))
                .filter(|(_, wanted, found)| Some(*wanted) != *found)
                .collect();
            panic!("{what}: {differs:#?}");
        }
    }
}

/// Takes away what a server chooses.
fn strip(data: &mut Value) {
    let Some(fields) = data.as_object_mut() else { return };
    fields.remove("status");
    // The document names the uid of its Registry, and so its hash.
    fields.remove("data");
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        for chosen in ["clusterIP", "clusterIPs", "selector"] {
            spec.remove(chosen);
        }
        if let Some(labels) =
            spec.get_mut("template").and_then(|template| template["metadata"]["labels"].as_object_mut())
        {
            labels.retain(|name, _| !name.contains("controller-uid"));
        }
    }
}
