// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The table of good and bad resources, put to a real API server.

use std::collections::BTreeMap;

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::Value;
use stowage_crds::{Kind, check, crd};

use crate::support::scene::Scene;

#[derive(Deserialize)]
struct Table {
    bases: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    claim: String,
    base: String,
    before: Option<Value>,
    #[serde(default)]
    patch: Value,
    refused: Option<String>,
}

/// A JSON merge patch.
fn patched(base: &Value, patch: &Value) -> Value {
    let Some(fields) = patch.as_object() else {
        return if patch.is_null() { base.clone() } else { patch.clone() };
    };
    let mut object = base.as_object().cloned().unwrap_or_default();
    for (name, field) in fields {
        if field.is_null() {
            object.remove(name);
        } else {
            let merged = patched(object.get(name).unwrap_or(&Value::Object(serde_json::Map::new())), field);
            object.insert(name.clone(), merged);
        }
    }
    object.into()
}

fn api(scene: &Scene, kind: Kind) -> Api<DynamicObject> {
    let names = crd(kind).spec.names;
    let mut resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("stowage.dev", "v1alpha1", kind.as_str()));
    resource.plural = names.plural;
    Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_gives_the_verdicts_of_the_table_and_says_why() {
    let Some(scene) = Scene::set().await else { return };
    let table: Table = serde_saphyr::from_str(include_str!("../../../crds/tests/verdicts.yaml")).unwrap();
    let write = PatchParams::apply("test").validation_strict();
    let look = PatchParams { dry_run: true, ..write.clone() };
    for case in table.cases {
        let base = &table.bases[&case.base];
        let kind = Kind::of(base).unwrap();
        let (api, object) = (api(&scene, kind), patched(base, &case.patch));
        let name = object["metadata"]["name"].as_str().unwrap();
        let before = case.before.map(|before| patched(base, &before));
        if let Some(before) = &before {
            api.patch(name, &write, &Patch::Apply(before)).await.unwrap();
        }
        let outcome = api.patch(name, &look, &Patch::Apply(&object)).await;
        assert_eq!(outcome.is_err(), case.refused.is_some(), "{}: {outcome:?}", case.claim);
        if let Err(error) = outcome {
            // What a rule says here it says there. Structure is put into words by each in its own way.
            let violations = check::resource(kind, before.as_ref(), &object).unwrap_err();
            let ours = violations.iter().map(|violation| violation.message.as_str());
            let mut rules = ours.filter(|message| rule_messages(kind).iter().any(|rule| rule == message));
            assert!(rules.all(|message| error.to_string().contains(message)), "{}: {error}", case.claim);
        }
        if before.is_some() {
            api.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
}

/// What the rules of a kind say.
fn rule_messages(kind: Kind) -> Vec<String> {
    fn collect(node: &Value, found: &mut Vec<String>) {
        let rules = node["x-kubernetes-validations"].as_array().into_iter().flatten();
        found.extend(rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned));
        let children = node["properties"].as_object().into_iter().flat_map(|fields| fields.values());
        children.chain(node.get("items")).for_each(|child| collect(child, found));
    }
    let mut found = Vec::new();
    collect(
        &serde_json::to_value(crd(kind)).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        &mut found,
    );
    found
}
