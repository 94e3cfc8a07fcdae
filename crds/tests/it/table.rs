// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The table of good and bad resources. The operator's tests put the same one to a real API server.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use stowage_crds::{Kind, crd};

#[derive(Deserialize)]
struct Table {
    bases: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    claim: String,
    base: String,
    before: Option<Value>,
    #[serde(default)]
    patch: Value,
    refused: Option<String>,
}

pub(crate) struct Verdict {
    pub(crate) claim: String,
    pub(crate) kind: Kind,
    pub(crate) before: Option<Value>,
    pub(crate) object: Value,
    /// Where, if it is.
    pub(crate) refused: Option<String>,
}

pub(crate) fn verdicts() -> Vec<Verdict> {
    let table: Table = serde_saphyr::from_str(include_str!("../verdicts.yaml")).unwrap();
    let verdict = |case: Case| {
        let base = &table.bases[&case.base];
        Verdict {
            claim: case.claim,
            kind: Kind::of(base).unwrap(),
            before: case.before.map(|patch| patched(base, &patch)),
            object: patched(base, &case.patch),
            refused: case.refused,
        }
    };
    table.cases.into_iter().map(verdict).collect()
}

/// A JSON merge patch.
pub(crate) fn patched(base: &Value, patch: &Value) -> Value {
    let Some(fields) = patch.as_object() else {
        return if patch.is_null() { base.clone() } else { patch.clone() };
    };
    let mut object = base.as_object().cloned().unwrap_or_default();
    for (name, field) in fields {
        if field.is_null() {
            object.remove(name);
        } else {
            let merged = patched(object.get(name).unwrap_or(&json!({})), field);
            object.insert(name.clone(), merged);
        }
    }
    object.into()
}

/// The schema that ships for a kind.
pub(crate) fn schema(kind: Kind) -> Value {
    serde_json::to_value(crd(kind)).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// What the rules of a kind say.
pub(crate) fn messages(kind: Kind) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&schema(kind), &mut found);
    found
}

fn collect(node: &Value, found: &mut BTreeSet<String>) {
    for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.insert(rule["message"].as_str().unwrap().to_owned());
    }
    let children = node["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    children.chain(node.get("items")).for_each(|child| collect(child, found));
}
