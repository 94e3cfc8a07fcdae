// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What holds for the objects of any valid Registry.

use std::collections::BTreeSet;

use proptest::{collection::btree_set, option, prelude::*};
use serde_json::{Value, json};
use stowage_operator::{
    apis::Apis, controllers::registry::validate::Settings, names, objects::OptionalApi, render::render,
};

fn settings() -> Settings {
    Settings {
        registry_image: "registry.example.com/stowage/registry:0.1.0".parse().unwrap(),
        operator_namespace: "stowage-system".into(),
    }
}

fn objects(registry: &Value) -> Vec<Value> {
    let text = serde_json::to_string(registry).unwrap();
    let rendered = render(&text, &settings(), &Apis::from(OptionalApi::ALL)).unwrap();
    serde_saphyr::from_multiple(&rendered).unwrap()
}

fn secret() -> impl Strategy<Value = String> {
    "[a-z0-9]([-a-z0-9.]{0,100}[a-z0-9])?".prop_filter("dots stand alone", |name| {
        name.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
    })
}

fn backing() -> impl Strategy<Value = (Value, Value)> {
    let shared = (option::of(secret()), secret()).prop_map(|(credentials, url)| {
        let mut s3 = json!({ "bucket": "blobs" });
        if let Some(name) = credentials {
            s3["credentialsSecretRef"] = json!({ "name": name });
        }
        (json!({ "s3": s3 }), json!({ "postgres": { "urlSecretRef": { "name": url, "key": "uri" } } }))
    });
    prop_oneof![shared, Just((json!({ "filesystem": {} }), json!({ "sqlite": {} })))]
}

fn expose() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "ingress": { "className": "nginx", "tlsSecretRef": { "name": "web" } } })),
        Just(json!({ "httpRoute": { "parentRefs": [{ "name": "gw" }] } })),
        (1..65535).prop_map(|port| json!({ "service": { "type": "NodePort", "nodePort": port } })),
        Just(json!({ "service": { "type": "LoadBalancer" } })),
    ]
}

fn registry() -> impl Strategy<Value = Value> {
    let parts = (
        "[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
        backing(),
        option::of(expose()),
        option::of(0..20_i32),
        option::of(btree_set(secret(), 3)),
        any::<[bool; 3]>(),
    );
    parts.prop_map(|(name, (storage, database), expose, replicas, secrets, [monitored, open, deletes])| {
        let single = storage.get("filesystem").is_some();
        let mut spec = json!({
            "externalURL": "https://registry.example.com", "storage": storage, "database": database,
        });
        if let Some(expose) = expose {
            spec["expose"] = expose;
        }
        if let Some(replicas) = replicas {
            spec["replicas"] = json!(if single { replicas.min(1) } else { replicas });
        } else if !single {
            spec["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 9 });
        }
        if let Some(secrets) = secrets {
            let secrets: Vec<_> = secrets.into_iter().collect();
            spec["auth"] = json!({ "htpasswd": { "secretRef": { "name": secrets[0], "key": "htpasswd" } } });
            spec["tls"] = json!({ "secretRef": { "name": secrets[1] } });
            spec["image"] = json!({ "pullSecretRefs": [{ "name": secrets[2] }] });
        }
        if monitored {
            spec["monitoring"] = json!({ "serviceMonitor": {}, "alerts": "Managed", "dashboard": "Managed" });
        }
        if open {
            spec["networkPolicy"] = json!("None");
        }
        if deletes {
            spec["deletionPolicy"] = json!("Delete");
        }
        json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Registry",
            "metadata": { "name": name, "namespace": "registry" }, "spec": spec,
        })
    })
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn names_are_legal_and_unique_and_every_object_is_ours(registry in registry()) {
        let name = text(&registry, "/metadata/name");
        let mut seen = BTreeSet::new();
        for object in objects(&registry) {
            let own = text(&object, "/metadata/name");
            prop_assert!(is_label(own), "{own}");
            prop_assert!(seen.insert((text(&object, "/kind").to_owned(), own.to_owned())), "{own} twice");
            prop_assert_eq!(&object["metadata"]["labels"][names::REGISTRY_LABEL], name);
            for (key, value) in object["metadata"]["labels"].as_object().unwrap() {
                prop_assert!(value.as_str().unwrap().len() <= 63, "{key}");
            }
            let owned = object.pointer("/metadata/ownerReferences/0/name").is_some();
            let retained = object["kind"] == "PersistentVolumeClaim"
                && registry.pointer("/spec/deletionPolicy").is_none();
            prop_assert_eq!(owned, !retained, "{}", own);
        }
    }

    #[test]
    fn every_volume_that_is_mounted_exists_and_no_volume_twice(registry in registry()) {
        for object in objects(&registry) {
            let of_a_schedule = || object.pointer("/spec/jobTemplate/spec/template/spec");
            let Some(pod) = object.pointer("/spec/template/spec").or_else(of_a_schedule) else { continue };
            let volumes: Vec<_> =
                pod["volumes"].as_array().unwrap().iter().map(|volume| text(volume, "/name")).collect();
            let distinct: BTreeSet<_> = volumes.iter().collect();
            prop_assert_eq!(distinct.len(), volumes.len());
            prop_assert!(volumes.iter().all(|name| is_label(name)), "{volumes:?}");
            let containers = ["containers", "initContainers"].map(|kind| pod[kind].as_array());
            for mount in containers.into_iter().flatten().flatten().flat_map(|container| {
                container["volumeMounts"].as_array().unwrap()
            }) {
                prop_assert!(volumes.contains(&text(mount, "/name")), "{mount}");
            }
        }
    }

    #[test]
    fn what_selects_the_replicas_is_the_same_whatever_the_spec_says(registry in registry()) {
        let name = text(&registry, "/metadata/name").to_owned();
        let wanted = json!({
            "app.kubernetes.io/name": "stowage",
            "app.kubernetes.io/instance": name,
            "app.kubernetes.io/component": "registry",
        });
        for object in objects(&registry) {
            match text(&object, "/kind") {
                "Deployment" | "PodDisruptionBudget" => {
                    prop_assert_eq!(&object["spec"]["selector"]["matchLabels"], &wanted);
                }
                "Service" => prop_assert_eq!(&object["spec"]["selector"], &wanted),
                _ => {}
            }
        }
    }

    #[test]
    fn the_same_input_gives_the_same_output(registry in registry()) {
        prop_assert_eq!(objects(&registry), objects(&registry));
    }
}
