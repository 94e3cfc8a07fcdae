// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The admin port: what was deleted, and bringing it back.

use http::Method;
use serde_json::{Value, json};
use stowage_oci::Digest;
use stowage_registry::http::Settings;
use stowage_registry::operation::Mode;
use stowage_registry::ops::clock;

use super::registry::{Answer, OCI_IMAGE, Registry, descriptor, image, index, sha256};
use super::rights::{As as _, access, token};

super::both_stores!(
    w120_w884_the_admin_port_serves_nobody_without_a_name,
    n6_a_deleted_tag_comes_back_as_it_was,
    n6_a_manifest_deleted_by_digest_comes_back_without_its_tags,
    n6_an_index_comes_back_with_its_children_and_on_demand_its_referrers,
    n6_blobs_that_were_deleted_as_well_come_back,
    n6_a_tag_that_was_set_again_stays,
    n6_a_restored_tag_is_the_newest_and_can_be_deleted_again,
    n6_the_trash_is_read_in_pages,
    what_cannot_be_restored_is_said_so,
    a_registry_that_only_reads_restores_nothing,
);

const BOB: &str = "bob";

async fn administered(registry: Registry) -> Registry {
    registry.reopened(stowage_registry::Registry::builder().access(access())).await
}

async fn trash(registry: &Registry, query: &str) -> Value {
    let answer = registry.administer(Method::GET, &format!("/admin/v1/trash{query}")).user(BOB).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn restore(registry: &Registry, request: Value) -> Answer {
    let ask = registry.administer(Method::POST, "/admin/v1/trash/restore").user(BOB);
    ask.body(request.to_string()).send().await
}

async fn restored(registry: &Registry, reference: &str) -> Value {
    let answer = restore(registry, json!({ "reference": reference })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn delete(registry: &Registry, target: &str) {
    let answer = registry.delete(target).user(BOB).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

async fn status(registry: &Registry, target: &str) -> u16 {
    registry.get(target).user(BOB).send().await.status
}

async fn digest(registry: &Registry, target: &str) -> Digest {
    let answer = registry.head(target).user(BOB).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("docker-content-digest").parse().unwrap()
}

async fn w120_w884_the_admin_port_serves_nobody_without_a_name(registry: Registry) {
    let target = "/admin/v1/trash";
    let open = registry.administer(Method::GET, target).send().await;
    assert_eq!(open.refusal(), (403, "DENIED".to_owned()), "without authentication nobody has one");
    let registry = administered(registry).await;
    for target in [target, "/admin/v1/nothing", "/v2/", "/metrics"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert_eq!(registry.administer(method, target).send().await.status, 401, "{target}");
        }
    }
    let wrong = registry.administer(Method::GET, target).header("authorization", "Basic Ym9iOng=");
    assert_eq!(wrong.send().await.status, 401);
    let anonymous = token(&registry, "", "repository:pub/a:pull").await;
    let anonymous = registry.administer(Method::GET, target).header("authorization", anonymous);
    assert_eq!(anonymous.send().await.status, 401);
    let alice = registry.administer(Method::GET, target).user("alice").send().await;
    assert_eq!(alice.refusal(), (403, "DENIED".to_owned()), "who may push may not restore");
    let nothing = registry.administer(Method::GET, "/admin/v1/nothing").user(BOB).send().await;
    assert_eq!(nothing.status, 404);
    let elsewhere = registry.get(target).user(BOB).start().await;
    assert_eq!(elsewhere.status(), 404, "and nothing of it is on the data port");
}

async fn n6_a_deleted_tag_comes_back_as_it_was(registry: Registry) {
    let pushed = registry.push_image("team/a", "v1").await;
    let registry = administered(registry).await;
    delete(&registry, "/v2/team/a/manifests/v1").await;
    let listed = trash(&registry, "").await;
    let entry = &listed["items"][0];
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&entry["repository"], &entry["tag"]), (&json!("team/a"), &json!("v1")));
    assert_eq!((&entry["digest"], &entry["mediaType"]), (&json!(pushed), &json!(OCI_IMAGE)));
    let until: jiff::Timestamp = entry["restorableUntil"].as_str().unwrap().parse().unwrap();
    let now = i64::try_from(clock::seconds()).unwrap();
    let seconds = until.as_second() - now;
    assert!((167 * 3600..=168 * 3600 + 1).contains(&seconds), "{until}");
    assert_eq!(restored(&registry, "team/a:v1").await, json!({ "digest": pushed, "restored": [pushed] }));
    assert_eq!(digest(&registry, "/v2/team/a/manifests/v1").await, pushed);
    assert_eq!(trash(&registry, "").await, json!({ "items": [] }));
}

async fn n6_a_manifest_deleted_by_digest_comes_back_without_its_tags(registry: Registry) {
    let pushed = registry.push_image("a", "v1").await;
    registry.push_image("a", "v2").await;
    let registry = administered(registry).await;
    let by_digest = format!("/v2/a/manifests/{pushed}");
    delete(&registry, &by_digest).await;
    assert_eq!(trash(&registry, "?repository=a").await["items"][0]["tag"], "v1", "its tag names it");
    restored(&registry, &format!("a@{pushed}")).await;
    assert_eq!(digest(&registry, &by_digest).await, pushed);
    assert_eq!(status(&registry, "/v2/a/manifests/v1").await, 404);
    restored(&registry, "a:v1").await;
    assert_eq!(digest(&registry, "/v2/a/manifests/v1").await, pushed);
}

/// A signature of `subject`.
fn referrer(subject: &Value) -> Value {
    let mut manifest = image(&[]);
    manifest["artifactType"] = json!("application/vnd.example.signature");
    manifest["subject"] = descriptor(OCI_IMAGE, subject.to_string().as_bytes());
    manifest
}

async fn n6_an_index_comes_back_with_its_children_and_on_demand_its_referrers(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    registry.push_blob("a", b"layer").await;
    let child = image(&[b"layer"]);
    let list = index(&[&child]);
    let signature = referrer(&list);
    let digests = [&child, &list, &signature].map(|manifest| sha256(manifest.to_string().as_bytes()));
    let [child_digest, list_digest, signature_digest] = digests;
    for (reference, manifest) in
        [(child_digest.to_string(), &child), ("v1".to_owned(), &list), ("signed".to_owned(), &signature)]
    {
        assert_eq!(registry.put_manifest("a", &reference, manifest).await.status, 201);
    }
    let registry = administered(registry).await;
    for digest in [signature_digest, list_digest, child_digest] {
        delete(&registry, &format!("/v2/a/manifests/{digest}")).await;
    }
    let both = json!({ "digest": list_digest, "restored": [child_digest, list_digest] });
    assert_eq!(restored(&registry, "a:v1").await, both);
    assert_eq!(digest(&registry, &format!("/v2/a/manifests/{child_digest}")).await, child_digest);
    let referrers = format!("/v2/a/referrers/{list_digest}");
    let none = registry.get(&referrers).user(BOB).send().await.json();
    assert_eq!(none["manifests"], json!([]), "nobody asked for it");
    delete(&registry, "/v2/a/manifests/v1").await;
    let answer = restore(&registry, json!({ "reference": "a:v1", "referrers": true })).await;
    assert_eq!(answer.json()["restored"], json!([list_digest, signature_digest]), "{answer:?}");
    let one = registry.get(&referrers).user(BOB).send().await.json();
    assert_eq!(one["manifests"][0]["digest"], json!(signature_digest));
}

async fn n6_blobs_that_were_deleted_as_well_come_back(registry: Registry) {
    let pushed = registry.push_image("a", "v1").await;
    let layer = sha256(b"layer of a:v1");
    let registry = administered(registry).await;
    delete(&registry, &format!("/v2/a/manifests/{pushed}")).await;
    let blob = format!("/v2/a/blobs/{layer}");
    delete(&registry, &blob).await;
    assert_eq!(status(&registry, &blob).await, 404);
    restored(&registry, "a:v1").await;
    assert_eq!(status(&registry, &blob).await, 200);
    assert_eq!(digest(&registry, "/v2/a/manifests/v1").await, pushed);
}

async fn n6_a_tag_that_was_set_again_stays(registry: Registry) {
    registry.push_image("a", "v1").await;
    assert_eq!(registry.delete("/v2/a/manifests/v1").send().await.status, 202);
    let image = image(&[]);
    assert_eq!(registry.put_manifest("a", "v1", &image).await.status, 201);
    let registry = administered(registry).await;
    let answer = restore(&registry, json!({ "reference": "a:v1" })).await;
    assert_eq!(answer.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()));
    let set = sha256(image.to_string().as_bytes());
    assert_eq!(digest(&registry, "/v2/a/manifests/v1").await, set);
}

async fn n6_a_restored_tag_is_the_newest_and_can_be_deleted_again(registry: Registry) {
    let pushed = registry.push_image("a", "v1").await;
    let registry = administered(registry).await;
    for _ in 0..3 {
        delete(&registry, "/v2/a/manifests/v1").await;
        assert_eq!(status(&registry, "/v2/a/manifests/v1").await, 404);
        restored(&registry, "a:v1").await;
        assert_eq!(digest(&registry, "/v2/a/manifests/v1").await, pushed);
    }
}

async fn n6_the_trash_is_read_in_pages(registry: Registry) {
    let mut names = Vec::new();
    for (repository, tag) in [("a", "v1"), ("a", "v2"), ("b/c", "v1")] {
        let pushed = registry.push_image(repository, tag).await;
        names.push(format!("{repository}:{tag}"));
        let target = format!("/v2/{repository}/manifests/{tag}");
        assert_eq!(registry.delete(&target).send().await.status, 202, "{pushed}");
    }
    let untagged = registry.push_image("a", "v3").await;
    let moved = image(&[]);
    assert_eq!(registry.put_manifest("a", "v3", &moved).await.status, 201);
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{untagged}")).send().await.status, 202);
    names.insert(0, format!("a@{untagged}"));
    let registry = administered(registry).await;
    let mut found = Vec::new();
    let mut query = "?n=1".to_owned();
    loop {
        let page = trash(&registry, &query).await;
        for item in page["items"].as_array().unwrap() {
            let repository = item["repository"].as_str().unwrap();
            found.push(match item["tag"].as_str() {
                Some(tag) => format!("{repository}:{tag}"),
                None => format!("{repository}@{}", item["digest"].as_str().unwrap()),
            });
        }
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?n=1&last={next}");
    }
    assert_eq!(found, names);
    assert_eq!(trash(&registry, "?repository=b/c").await["items"].as_array().unwrap().len(), 1);
}

async fn what_cannot_be_restored_is_said_so(registry: Registry) {
    registry.push_image("a", "v1").await;
    let registry = administered(registry).await;
    for reference in ["a:v1", "a:v2", "b:v1", &format!("a@{}", sha256(b"nothing"))] {
        let answer = restore(&registry, json!({ "reference": reference })).await;
        assert_eq!(answer.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()), "{reference}");
        let message = &answer.json()["errors"][0]["message"];
        assert_eq!(message, "it is not in the trash of this repository");
    }
    for (request, told) in [
        (json!({ "reference": "a" }), "team/app:1.0"),
        (json!({ "reference": "A:v1" }), "team/app:1.0"),
        (json!({ "reference": "a@sha256:00" }), "team/app:1.0"),
        (json!({}), "missing field `reference`"),
        (json!({ "reference": "a:v1", "children": true }), "unknown field `children`"),
    ] {
        let answer = restore(&registry, request.clone()).await;
        assert_eq!(answer.refusal(), (400, "UNSUPPORTED".to_owned()), "{request}");
        let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(told), "{message}");
    }
    for query in ["?repository=A", "?n=x", "?last=a"] {
        let target = format!("/admin/v1/trash{query}");
        let answer = registry.administer(Method::GET, &target).user(BOB).send().await;
        assert_eq!(answer.refusal(), (400, "UNSUPPORTED".to_owned()), "{query}");
    }
}

async fn a_registry_that_only_reads_restores_nothing(registry: Registry) {
    registry.push_image("a", "v1").await;
    let registry = administered(registry).await;
    delete(&registry, "/v2/a/manifests/v1").await;
    registry.opened.apply(Settings { mode: Mode::ReadOnly, ..Settings::default() }, Vec::new());
    let answer = restore(&registry, json!({ "reference": "a:v1" })).await;
    assert_eq!(answer.refusal(), (405, "UNSUPPORTED".to_owned()));
    assert_eq!(trash(&registry, "").await["items"].as_array().unwrap().len(), 1, "what is there can be seen");
}
