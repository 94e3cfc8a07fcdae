// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Referrers.

use serde_json::{Value, json};
use stowage_registry::domain::Limits;

use super::registry::{OCI_IMAGE, OCI_INDEX, Registry, descriptor, image, index, sha256};

super::both_stores!(
    w390_w391_w830_the_list_of_what_was_never_seen_is_empty,
    w392_w393_w551_w795_a_referrer_is_described,
    w394_types_filter,
    w395_w529_pages_are_full_and_link_to_the_next,
    w398_a_referrer_belongs_to_its_repository,
    w341_a_deleted_referrer_is_not_listed,
    w735_annotations_of_a_referrer_are_limited,
    w735_w906_a_subject_has_so_many_referrers_and_no_more,
    a_nul_character_is_refused_where_lists_would_show_it,
);

fn referrer(of: &[u8], artifact_type: &str) -> Value {
    let mut manifest = image(&[]);
    manifest["subject"] = descriptor(OCI_IMAGE, of);
    manifest["artifactType"] = Value::from(artifact_type);
    manifest
}

async fn push(registry: &Registry, manifest: &Value) -> String {
    registry.push_blob("a", b"{}").await;
    let digest = sha256(manifest.to_string().as_bytes()).to_string();
    assert_eq!(registry.put_manifest("a", &digest, manifest).await.status, 201);
    digest
}

async fn list(registry: &Registry, query: &str) -> Vec<String> {
    let target = format!("/v2/a/referrers/{}{query}", sha256(b"subject"));
    let list = registry.get(&target).send().await.json();
    let digests = list["manifests"].as_array().unwrap().iter();
    digests.map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned()).collect()
}

async fn w390_w391_w830_the_list_of_what_was_never_seen_is_empty(registry: Registry) {
    registry.push_image("a", "v1").await;
    let zeros = format!("sha256:{}", "0".repeat(64));
    for target in [
        format!("/v2/a/referrers/{zeros}"),
        format!("/v2/never/referrers/{zeros}"),
        "/v2/a/referrers/blake3:00".into(),
    ] {
        let answer = registry.get(&target).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, OCI_INDEX), "{target}");
        assert_eq!(answer.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
        assert!(!answer.has("oci-filters-applied"));
    }
    for digest in ["sha256:abc", "abc", "sha256:"] {
        let answer = registry.get(&format!("/v2/a/referrers/{digest}")).send().await;
        assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()));
    }
}

async fn w392_w393_w551_w795_a_referrer_is_described(registry: Registry) {
    let mut own = referrer(b"subject", "application/x.own");
    own["annotations"] = json!({ "org.example": "<svg onload=1>" });
    let mut by_config = image(&[]);
    by_config["subject"] = descriptor(OCI_IMAGE, b"subject");
    let mut list = index(&[]);
    list["subject"] = descriptor(OCI_IMAGE, b"subject");
    for manifest in [&own, &by_config, &list] {
        push(&registry, manifest).await;
    }
    let answer = registry.get(&format!("/v2/a/referrers/{}", sha256(b"subject"))).send().await;
    let described = |manifest: &Value, more: Value| {
        let mut described =
            descriptor(manifest["mediaType"].as_str().unwrap(), manifest.to_string().as_bytes());
        described.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        described
    };
    let expected = [
        described(&list, json!({})),
        described(&by_config, json!({ "artifactType": "application/vnd.oci.image.config.v1+json" })),
        described(&own, json!({ "artifactType": "application/x.own", "annotations": own["annotations"] })),
    ];
    assert_eq!(answer.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": expected }));
}

async fn w394_types_filter(registry: Registry) {
    let one = push(&registry, &referrer(b"subject", "a/one+json")).await;
    let two = push(&registry, &referrer(b"subject", "a/two")).await;
    assert_eq!(list(&registry, "").await, [&*two, &*one]);
    assert_eq!(list(&registry, "?artifactType=").await.len(), 2);
    assert_eq!(list(&registry, "?artifactType=a/one%2Bjson").await, [&*one]);
    assert_eq!(list(&registry, "?artifactType=a/one+json").await, [&*one]);
    assert_eq!(list(&registry, "?artifactType=a/two&artifactType=a/one%2Bjson").await.len(), 2);
    assert_eq!(list(&registry, "?artifactType=a/none").await.len(), 0);
    let target = |query| format!("/v2/a/referrers/{}{query}", sha256(b"subject"));
    let answer = registry.get(&target("?artifactType=a/two&other=x")).send().await;
    assert_eq!(answer.header("oci-filters-applied"), "artifactType");
    assert!(!registry.get(&target("?other=x")).send().await.has("oci-filters-applied"));
}

async fn w395_w529_pages_are_full_and_link_to_the_next(registry: Registry) {
    let mut pushed = Vec::new();
    for n in 0..6 {
        let mut manifest = referrer(b"subject", "a/large");
        manifest["annotations"] = json!({ "n": n.to_string(), "x": "x".repeat(900_000) });
        pushed.push(push(&registry, &manifest).await);
    }
    pushed.reverse();
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    let mut target = Some(format!("/v2/a/referrers/{}?artifactType=a/large", sha256(b"subject")));
    while let Some(next) = target {
        let answer = registry.get(&next).send().await;
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        sizes.push(answer.body.len());
        let list = answer.json();
        let digests = list["manifests"].as_array().unwrap().iter();
        found.extend(digests.map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned()));
        target =
            answer.has("link").then(|| answer.header("link").split(['<', '>']).nth(1).unwrap().to_owned());
    }
    assert_eq!(found, pushed);
    assert_eq!(sizes.len(), 2);
    assert!(sizes[0] <= 4_194_304 && sizes[0] > 3_000_000, "{sizes:?}");
}

async fn w398_a_referrer_belongs_to_its_repository(registry: Registry) {
    push(&registry, &referrer(b"subject", "a/b")).await;
    registry.push_image("b", "v1").await;
    let answer = registry.get(&format!("/v2/b/referrers/{}", sha256(b"subject"))).send().await;
    assert_eq!(answer.json()["manifests"], json!([]));
}

async fn w341_a_deleted_referrer_is_not_listed(registry: Registry) {
    let digest = push(&registry, &referrer(b"subject", "a/b")).await;
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).send().await.status, 202);
    assert_eq!(list(&registry, "").await.len(), 0);
}

async fn w735_annotations_of_a_referrer_are_limited(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let mut manifest = referrer(b"subject", "a/b");
    manifest["annotations"] = json!({ "x": "x".repeat(1 << 20) });
    assert_eq!(registry.put_manifest("a", "v1", &manifest).await.refusal(), (400, "MANIFEST_INVALID".into()));
}

async fn w735_w906_a_subject_has_so_many_referrers_and_no_more(registry: Registry) {
    let limits = Limits { max_referrers: 2, ..Limits::default() };
    let registry = registry.reopened(stowage_registry::Registry::builder().limits(limits)).await;
    for artifact_type in ["a/1", "a/2"] {
        push(&registry, &referrer(b"subject", artifact_type)).await;
    }
    let third = referrer(b"subject", "a/3");
    assert_eq!(registry.put_manifest("a", "v1", &third).await.refusal(), (403, "DENIED".into()));
    push(&registry, &referrer(b"another subject", "a/3")).await;
    assert_eq!(list(&registry, "").await.len(), 2);
}

async fn a_nul_character_is_refused_where_lists_would_show_it(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let mut manifest = image(&[]);
    manifest["annotations"] = json!({ "x": "a\0b" });
    assert_eq!(registry.put_manifest("a", "v1", &manifest).await.refusal(), (400, "MANIFEST_INVALID".into()));
    let manifest = referrer(b"subject", "a/\0");
    assert_eq!(registry.put_manifest("a", "v1", &manifest).await.refusal(), (400, "MANIFEST_INVALID".into()));
}
