// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What goes into a document, and which documents a replica reads.

use serde_json::{Value, json};
use stowage_crds::{
    AccessPolicy, Dependents, Document, Kind, Mirror, PromotionPolicy, Registry, RetentionPolicy,
    VirtualRepository,
    conditions::Reason,
    document::{self, Compiled, DocumentVersion, ParseError, Schedules, Sources, compile},
};

fn registry() -> Registry {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Registry",
        "metadata": { "name": "main", "namespace": "oci", "uid": "u-1", "generation": 7 },
        "spec": {
            "externalURL": "https://registry.example.com",
            "storage": { "s3": { "bucket": "blobs" } },
            "database": { "postgres": { "urlSecretRef": { "name": "pg", "key": "uri" } } },
            "replicas": 3,
            "image": { "tag": "0.1.0" },
        },
    }))
    .unwrap()
}

fn policy(name: &str, generation: i64) -> AccessPolicy {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "AccessPolicy",
        "metadata": { "name": name, "namespace": "oci", "generation": generation },
        "spec": {
            "registryRef": { "name": "main" }, "repositories": ["team/**"],
            "subjects": [{ "user": "alice" }], "actions": ["Pull"],
        },
    }))
    .unwrap()
}

fn mirror(name: &str, path: &str) -> Mirror {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Mirror",
        "metadata": { "name": name, "namespace": "oci", "generation": 1 },
        "spec": {
            "registryRef": { "name": "main" }, "path": path, "mode": "PullThrough",
            "upstream": { "url": "https://hub.example.com" },
        },
    }))
    .unwrap()
}

fn retention(name: &str) -> RetentionPolicy {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "RetentionPolicy",
        "metadata": { "name": name, "namespace": "oci", "generation": 1 },
        "spec": { "registryRef": { "name": "main" }, "repositories": { "include": ["**"] } },
    }))
    .unwrap()
}

fn all(path: &str) -> VirtualRepository {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "VirtualRepository",
        "metadata": { "name": "all", "namespace": "oci", "generation": 1 },
        "spec": {
            "registryRef": { "name": "main" }, "path": path,
            "members": [{ "name": "hub", "mirrorRef": { "name": "gone" } }],
        },
    }))
    .unwrap()
}

fn promotions() -> PromotionPolicy {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "PromotionPolicy",
        "metadata": { "name": "to-prod", "namespace": "oci", "generation": 1 },
        "spec": {
            "registryRef": { "name": "main" }, "from": { "repositories": ["staging/**"] },
            "to": { "repository": "prod/{path}" },
        },
    }))
    .unwrap()
}

fn compiled(registry: &Registry, access_policies: &[AccessPolicy], previous: Option<&Document>) -> Compiled {
    let access_policies = access_policies.to_vec();
    with(registry, &Dependents { access_policies, ..Dependents::default() }, previous)
}

fn with(registry: &Registry, dependents: &Dependents, previous: Option<&Document>) -> Compiled {
    compile(&Sources { registry, dependents, schedules: Schedules::Jobs, previous }).unwrap()
}

fn names(document: &Document) -> Vec<(&str, i64)> {
    document.access_policies.iter().map(|entry| (entry.name.as_str(), entry.generation)).collect()
}

#[test]
fn the_order_of_the_resources_leaves_no_trace() {
    let one = compiled(&registry(), &[policy("a", 1), policy("b", 2)], None).document;
    let other = compiled(&registry(), &[policy("b", 2), policy("a", 1)], None).document;
    assert_eq!(one.encode(), other.encode());
    assert_eq!(names(&one), [("a", 1), ("b", 2)]);
    assert_eq!(one.resource_count(), 3);
}

#[test]
fn the_document_is_canonical_json_with_defaults_and_without_the_operators_part() {
    let encoded = compiled(&registry(), &[policy("a", 1)], None).document.encode();
    let expected = concat!(
        r#"{"accessPolicies":[{"generation":1,"name":"a","spec":{"actions":["Pull"],"registryRef":{"name":"main"},"#,
        r#""repositories":["team/**"],"subjects":[{"user":"alice"}],"suspend":false}}],"#,
        r#""apiVersion":"stowage.dev/v1alpha1","kind":"Document","registry":{"name":"main","namespace":"oci","#,
        r#""spec":{"database":{"postgres":{"maxConnections":16,"urlSecretRef":{"key":"uri","name":"pg"}},"#,
        r#""writeHold":"20s"},"externalURL":"https://registry.example.com","mode":"ReadWrite","#,
        r#""storage":{"s3":{"bucket":"blobs","forcePathStyle":false,"prefix":"","region":"us-east-1"}}},"#,
        r#""uid":"u-1"},"runtime":{"schedules":"Jobs"},"version":"1.0"}"#,
    );
    assert_eq!(encoded.json, expected);
    assert_eq!(encoded.hash, document::hash(expected.as_bytes()));
    assert!(!encoded.is_too_large());
}

#[test]
fn scaling_and_a_new_image_do_not_move_the_hash() {
    let before = compiled(&registry(), &[], None).document.encode().hash;
    let mut scaled = registry();
    scaled.spec.replicas = Some(7);
    scaled.spec.image = None;
    scaled.spec.suspend = true;
    scaled.metadata.generation = Some(8);
    assert_eq!(compiled(&scaled, &[], None).document.encode().hash, before);
}

#[test]
fn a_document_that_was_encoded_is_read_as_it_was() {
    let document = compiled(&registry(), &[policy("a", 1)], None).document;
    let encoded = document.encode();
    assert_eq!(Document::parse_checked(encoded.json.as_bytes(), &encoded.hash).unwrap(), document);
    let wrong = Document::parse_checked(encoded.json.as_bytes(), "sha256:0");
    assert!(matches!(wrong, Err(ParseError::HashMismatch { .. })));
}

#[test]
fn only_what_names_the_registry_and_stays_goes_in() {
    let mut foreign = policy("foreign", 1);
    foreign.spec.registry_ref.name = "other".to_owned();
    let mut elsewhere = policy("elsewhere", 1);
    elsewhere.metadata.namespace = Some("elsewhere".to_owned());
    let mut leaving = policy("leaving", 1);
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let mut suspended = policy("suspended", 1);
    suspended.spec.suspend = true;
    let document = compiled(&registry(), &[foreign, elsewhere, leaving, suspended], None).document;
    assert_eq!(names(&document), [("suspended", 1)]);
    assert!(document.access_policies[0].spec.suspend);
}

#[test]
fn an_invalid_edit_keeps_the_entry_that_was_in_force() {
    let before = compiled(&registry(), &[policy("a", 1), policy("b", 1)], None).document;
    let mut broken = policy("a", 2);
    broken.spec.subjects[0].group = Some("both".to_owned());
    let after = compiled(&registry(), &[broken.clone(), policy("b", 2)], Some(&before));
    assert_eq!(names(&after.document), [("a", 1), ("b", 2)]);
    assert_eq!(after.invalid.len(), 1);
    assert_eq!(after.invalid[0].violations[0].path.as_str(), "spec.subjects[0]");
    let without = compiled(&registry(), &[broken], None);
    assert_eq!(names(&without.document), []);
}

#[test]
fn an_invalid_registry_makes_no_document() {
    let mut broken = registry();
    broken.spec.storage.s3 = None;
    let dependents = Dependents::default();
    let sources =
        Sources { registry: &broken, dependents: &dependents, schedules: Schedules::Jobs, previous: None };
    let refusal = compile(&sources).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the Registry is invalid: spec.storage: exactly one of s3 and filesystem must be set"
    );
}

#[test]
fn a_newer_minor_version_is_read_and_a_newer_major_is_not() {
    let json = |version: &str| {
        let encoded = compiled(&registry(), &[], None).document.encode();
        let mut value: Value = serde_json::from_str(&encoded.json).unwrap();
        value["version"] = version.into();
        value["thingsToCome"] = json!([{ "name": "old" }]);
        value["registry"]["spec"]["quotas"] = json!([]);
        value.to_string()
    };
    let read = Document::parse(json("1.9").as_bytes()).unwrap();
    assert_eq!(read.version, DocumentVersion { major: 1, minor: 9 });
    let refused = Document::parse(json("2.0").as_bytes()).unwrap_err();
    assert_eq!(refused.to_string(), "document version 2.0 is not understood; the highest that is: 1.2");
    assert!(matches!(Document::parse(json("1").as_bytes()), Err(ParseError::Malformed(_))));
    assert!(matches!(Document::parse(b"{}"), Err(ParseError::Malformed(_))));
}

#[test]
fn a_document_needs_no_newer_version_than_its_resources_do() {
    let before = compiled(&registry(), &[policy("a", 1)], None).document;
    assert_eq!(before.version.to_string(), "1.0");
    assert!(!before.encode().json.contains("mirrors"));
    let hub = Dependents { mirrors: vec![mirror("hub", "hub")], ..Dependents::default() };
    let all = Dependents { virtual_repositories: vec![all("all")], ..Dependents::default() };
    let to_prod = Dependents { promotion_policies: vec![promotions()], ..Dependents::default() };
    let retention = Dependents { retention_policies: vec![retention("old")], ..Dependents::default() };
    for (dependents, version) in [(hub, "1.1"), (all, "1.1"), (to_prod, "1.2"), (retention, "1.2")] {
        let document = with(&registry(), &dependents, None).document;
        assert_eq!((document.version.to_string().as_str(), document.resource_count()), (version, 2));
        let encoded = document.encode();
        assert_eq!(Document::parse_checked(encoded.json.as_bytes(), &encoded.hash).unwrap(), document);
    }
}

#[test]
fn what_is_in_the_way_of_something_older_stays_out_and_is_named() {
    let mut younger = mirror("a-younger", "all/hub");
    younger.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-02T00:00:00Z")).unwrap();
    let mut elder = all("all");
    elder.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let dependents = Dependents {
        mirrors: vec![younger, mirror("hub", "hub")],
        virtual_repositories: vec![elder],
        ..Dependents::default()
    };
    let compiled = with(&registry(), &dependents, None);
    let names: Vec<_> = compiled.document.mirrors.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!((names, compiled.document.virtual_repositories.len()), (vec!["hub"], 1));
    let [conflict] = &compiled.conflicts[..] else { panic!("{:?}", compiled.conflicts) };
    assert_eq!((conflict.kind, conflict.name.as_str()), (Kind::Mirror, "a-younger"));
    assert_eq!(conflict.reason, Reason::PathConflict);
    assert_eq!(conflict.message, "VirtualRepository all has the path all");
}

#[test]
fn a_promotion_policy_that_leads_back_is_not_in_force() {
    let mut back = promotions();
    back.metadata.name = Some("back".to_owned());
    back.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    back.spec = serde_json::from_value(json!({
        "registryRef": { "name": "main" }, "trigger": "Automatic", "from": { "repositories": ["prod/**"] },
        "to": { "repository": "staging/{path}" },
    }))
    .unwrap();
    let mut forth = promotions();
    let both = |forth: &PromotionPolicy| {
        let dependents =
            Dependents { promotion_policies: vec![back.clone(), forth.clone()], ..Dependents::default() };
        let Compiled { document, conflicts, .. } = with(&registry(), &dependents, None);
        let names: Vec<_> = document.promotion_policies.into_iter().map(|entry| entry.name).collect();
        (names, conflicts)
    };
    assert_eq!(both(&forth).0, ["back", "to-prod"], "one of them must be asked for");
    forth.spec.trigger = stowage_crds::PromotionTrigger::Automatic;
    let (names, conflicts) = both(&forth);
    assert_eq!(names, ["to-prod"], "nobody knows when it was made: it counts as the elder");
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!((conflict.name.as_str(), conflict.reason), ("back", Reason::PromotionCycle));
    assert!(conflict.message.ends_with("back → to-prod → back"), "{}", conflict.message);
}

#[test]
fn an_invalid_edit_of_a_mirror_keeps_its_place() {
    let dependents = |hub| Dependents { mirrors: vec![hub], ..Dependents::default() };
    let before = with(&registry(), &dependents(mirror("hub", "hub")), None).document;
    let mut broken = mirror("hub", "hub");
    broken.metadata.generation = Some(2);
    broken.spec.upstream.max_concurrent = 0;
    let after = with(&registry(), &dependents(broken), Some(&before));
    assert_eq!(after.document, before);
    assert_eq!((after.invalid[0].kind, after.invalid[0].name.as_str()), (Kind::Mirror, "hub"));
}
