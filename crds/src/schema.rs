// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The CustomResourceDefinitions: what the derive makes of the types, finished for an API server.
//!
//! The derive marks optional fields `nullable`, which breaks merge patches and server-side apply, and knows
//! neither the rules beyond structure nor how lists of foreign types merge; one pass sets that right.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Map, Value, json};

use crate::{
    AccessPolicy, Kind, Mirror, Promotion, PromotionPolicy, Registry, RetentionPolicy, VirtualRepository,
    rules, yaml,
};

const HEADER: &str = "# SPDX-FileCopyrightText: The Stowage authors\n# SPDX-License-Identifier: EUPL-1.2\n#\n\
                      # Generated from the types by `stowage-operator crds`; changes are made there.\n---\n";

/// The CustomResourceDefinition of a kind.
#[must_use]
pub fn crd(kind: Kind) -> CustomResourceDefinition {
    typed(definition(kind))
}

fn typed(definition: Value) -> CustomResourceDefinition {
    serde_json::from_value(definition).expect("a finished definition is a definition")
}

/// Every CustomResourceDefinition as YAML, with the name of its file in `config/crd`.
#[must_use]
pub fn manifests() -> Vec<(String, String)> {
    Kind::ALL.into_iter().map(manifest).collect()
}

fn manifest(kind: Kind) -> (String, String) {
    let definition = definition(kind);
    let plural = definition["spec"]["names"]["plural"].as_str().expect("the derive names a plural");
    let file = format!("{}_{plural}.yaml", crate::GROUP);
    (file, format!("{HEADER}{}", yaml::to_string(&definition)))
}

/// The schema of the objects of a kind.
pub(crate) fn schema(kind: Kind) -> Value {
    definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

fn definition(kind: Kind) -> Value {
    let derived = match kind {
        Kind::Registry => Registry::crd(),
        Kind::AccessPolicy => AccessPolicy::crd(),
        Kind::Mirror => Mirror::crd(),
        Kind::VirtualRepository => VirtualRepository::crd(),
        Kind::PromotionPolicy => PromotionPolicy::crd(),
        Kind::Promotion => Promotion::crd(),
        Kind::RetentionPolicy => RetentionPolicy::crd(),
    };
    let mut definition = serde_json::to_value(derived).expect("a definition is JSON");
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema);
    finish_status(&mut schema["properties"]["status"]);
    for rule in rules::of(kind) {
        let node = resolve(schema, rule.at);
        let validations = node.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        let validation = json!({ "rule": rule.cel, "message": rule.message });
        validations.as_array_mut().expect("only rules are put there").push(validation);
    }
    definition
}

/// Drops what must not be in a schema, here and below.
fn tidy(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("nullable");
    // A default list or object could never be told from one that was written; null means no default at all.
    if node
        .get("default")
        .is_some_and(|default| !default.is_string() && !default.is_i64() && !default.is_boolean())
    {
        node.remove("default");
    }
    for bound in ["minimum", "maximum"] {
        if let Some(value) = node.get_mut(bound) {
            *value = whole(value);
        }
    }
    for child in ["items", "additionalProperties"] {
        node.get_mut(child).into_iter().for_each(tidy);
    }
    node.get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(Map::values_mut)
        .for_each(tidy);
}

/// The bound as the integer it is; the type of definitions holds it as a float.
fn whole(bound: &Value) -> Value {
    let float = bound.as_f64().expect("a bound is a number");
    // Formatting is exact for what is a whole number, where a cast would have to be argued for.
    format!("{float:.0}").parse::<i64>().expect("every bound is a whole number").into()
}

/// A status is present from the first moment, and says that nothing has been observed.
fn finish_status(status: &mut Value) {
    status["default"] = json!({ "observedGeneration": -1 });
    let conditions = &mut status["properties"]["conditions"];
    conditions["x-kubernetes-list-type"] = "map".into();
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
}

/// The schema node at a rule's place.
fn resolve<'a>(schema: &'a mut Value, at: &str) -> &'a mut Map<String, Value> {
    let node = steps(at).fold(schema, |node, step| match step {
        Step::Field(name) => &mut node["properties"][name],
        Step::Items => &mut node["items"],
    });
    node.as_object_mut().expect("a rule looks at a place that exists")
}

/// One step of a rule's place.
pub(crate) enum Step<'a> {
    /// Into a field.
    Field(&'a str),
    /// Into every item of a list.
    Items,
}

/// The steps of `spec.subjects[*]`.
pub(crate) fn steps(at: &str) -> impl Iterator<Item = Step<'_>> {
    at.split('.').filter(|part| !part.is_empty()).flat_map(|part| match part.strip_suffix("[*]") {
        Some(name) => [Some(Step::Field(name)), Some(Step::Items)].into_iter().flatten(),
        None => [Some(Step::Field(part)), None].into_iter().flatten(),
    })
}
