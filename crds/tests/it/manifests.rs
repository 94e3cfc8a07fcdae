// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The definitions in `config/crd` are those of the types. `UPDATE=1` rewrites them.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use serde_json::Value;
use stowage_crds::{Kind, OPERATOR_FIELDS, crd, manifests};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/crd")
}

#[test]
fn the_shipped_definitions_are_those_of_the_types() {
    for (file, yaml) in manifests() {
        let path = folder().join(&file);
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &yaml).unwrap();
        }
        let shipped = fs::read_to_string(&path).unwrap_or_default();
        assert!(shipped == yaml, "config/crd/{file} is not up to date: run `make crds`");
    }
}

#[test]
fn the_kustomization_lists_every_definition() {
    let listed = fs::read_to_string(folder().join("kustomization.yaml")).unwrap();
    for (file, _) in manifests() {
        assert!(listed.contains(&format!("- {file}\n")), "{file}");
    }
}

#[test]
fn the_yaml_says_what_the_definition_says() {
    for (kind, (file, yaml)) in Kind::ALL.into_iter().zip(manifests()) {
        let read: Value = serde_saphyr::from_str(&yaml).unwrap();
        let read: Value = serde_json::to_value(
            serde_json::from_value::<
                k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
            >(read)
            .unwrap(),
        )
        .unwrap();
        assert_eq!(read, serde_json::to_value(crd(kind)).unwrap(), "{file}");
    }
}

#[test]
fn a_definition_leaves_room_for_client_side_apply() {
    for (file, yaml) in manifests() {
        assert!(yaml.len() < 60 * 1024, "{file} has {} bytes", yaml.len());
    }
}

#[test]
fn every_field_for_the_operator_alone_exists() {
    let definition = serde_json::to_value(crd(Kind::Registry)).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let fields: BTreeSet<_> = spec.as_object().unwrap().keys().map(String::as_str).collect();
    let (operators, replicas): (BTreeSet<_>, BTreeSet<_>) =
        fields.iter().partition(|field| OPERATOR_FIELDS.contains(field));
    assert_eq!(operators.len(), OPERATOR_FIELDS.len());
    let expected = [
        "aliases",
        "alternateURLs",
        "auth",
        "database",
        "externalURL",
        "garbageCollection",
        "immutability",
        "limits",
        "mode",
        "pullTracking",
        "scrub",
        "storage",
        "strictIndexes",
        "telemetry",
        "tls",
        "trash",
        "usageProtection",
    ];
    assert_eq!(replicas, expected.into_iter().collect());
}

#[test]
fn every_node_of_a_schema_is_described_and_every_text_and_list_of_a_spec_is_bounded() {
    for kind in Kind::ALL {
        let definition = serde_json::to_value(crd(kind)).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        look_at(&schema["properties"]["spec"], "spec");
    }
}

fn look_at(node: &Value, path: &str) {
    match node["type"].as_str() {
        Some("string") => {
            let bounded =
                node["enum"].is_array() || node["maxLength"].is_u64() || node["pattern"].is_string();
            assert!(bounded, "{path} may be of any length");
        }
        Some("array") => {
            assert!(node["maxItems"].is_u64(), "{path} may be of any length");
            assert!(node["x-kubernetes-list-type"].is_string(), "{path} does not say how it merges");
            look_at(&node["items"], &format!("{path}[*]"));
        }
        Some("integer") => {
            assert!(node["minimum"].is_number() && node["maximum"].is_number(), "{path} has no bounds");
        }
        Some("object" | "boolean") => {}
        other => panic!("{path} is of type {other:?}"),
    }
    assert!(node.get("nullable").is_none(), "{path} is nullable");
    assert!(node["default"].is_null() || !node["default"].is_object(), "{path} has an object as default");
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(child["description"].is_string(), "{path} is not described");
        assert!(
            !["y", "n", "yes", "no", "on", "off"].contains(&name.as_str()),
            "{path} is a boolean in YAML 1.1"
        );
        look_at(child, &path);
    }
}
