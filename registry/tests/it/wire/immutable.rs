// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Immutable tags: on every way that a tag can change.

use http::Method;
use serde_json::{Value, json};
use stowage_oci::{TagSelection, TagsWanted};
use stowage_registry::domain::{Immutability, ImmutabilityRule};

use super::registry::{Registry, image, sha256};

super::both_stores!(
    w107_w285_w780_w849_the_first_push_is_taken_and_no_other_digest,
    w285_of_many_first_pushes_one_is_taken,
    w286_signatures_are_exempt,
    w344_w782_w788_neither_the_tag_nor_its_digest_is_deleted,
    w441_further_tags_that_are_immutable_are_left_out_and_named,
    n6_an_immutable_tag_that_was_deleted_before_comes_back,
);

fn rule(name: &str, tags: TagSelection) -> ImmutabilityRule {
    ImmutabilityRule {
        name: name.to_owned(),
        repositories: vec!["prod/**".parse().unwrap()],
        tags,
        signature_tags: false,
    }
}

fn protect(registry: &Registry) {
    let wanted = TagsWanted::Exactly(["latest".parse().unwrap(), "v1".parse().unwrap()].into());
    let rules = vec![rule("releases", TagSelection { wanted, ..TagSelection::default() })];
    registry.opened.domain().set_immutability(Immutability(rules));
}

/// Images that differ, and whose blobs are in the repository.
async fn images<const N: usize>(registry: &Registry, repository: &str) -> [Value; N] {
    registry.push_blob(repository, b"{}").await;
    let mut all = std::array::from_fn(|_| image(&[]));
    for (number, image) in all.iter_mut().enumerate() {
        image["annotations"] = json!({ "org.example.number": number.to_string() });
    }
    all
}

async fn w107_w285_w780_w849_the_first_push_is_taken_and_no_other_digest(registry: Registry) {
    protect(&registry);
    let [first, second] = images(&registry, "prod/app").await;
    for tag in ["latest", "v1"] {
        assert_eq!(registry.put_manifest("prod/app", tag, &first).await.status, 201);
        assert_eq!(registry.put_manifest("prod/app", tag, &first).await.status, 201, "the same");
        let refused = registry.put_manifest("prod/app", tag, &second).await;
        assert_eq!(refused.refusal(), (409, "DENIED".to_owned()));
        let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("tag {tag}")) && message.contains("\"releases\""), "{message}");
        let named = registry.get(&format!("/v2/prod/app/manifests/{tag}")).send().await;
        assert_eq!(named.header("docker-content-digest"), sha256(first.to_string().as_bytes()).to_string());
    }
    let [first, second] = images(&registry, "dev/app").await;
    for image in [first, second] {
        assert_eq!(registry.put_manifest("dev/app", "v1", &image).await.status, 201, "elsewhere");
        assert_eq!(registry.put_manifest("dev/app", "v2", &image).await.status, 201);
    }
}

async fn w285_of_many_first_pushes_one_is_taken(registry: Registry) {
    protect(&registry);
    let images: [Value; 8] = images(&registry, "prod/app").await;
    let pushes = images.iter().map(|image| registry.put_manifest("prod/app", "v1", image));
    let answers = futures::future::join_all(pushes).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

async fn w286_signatures_are_exempt(registry: Registry) {
    registry.opened.domain().set_immutability(Immutability(vec![rule("all", TagSelection::default())]));
    let tag = format!("sha256-{}.sig", "0".repeat(64));
    let images: [Value; 2] = images(&registry, "prod/app").await;
    for image in &images {
        assert_eq!(registry.put_manifest("prod/app", &tag, image).await.status, 201);
    }
    assert_eq!(registry.put_manifest("prod/app", "any", &images[0]).await.status, 201);
    assert_eq!(registry.put_manifest("prod/app", "any", &images[1]).await.status, 409);
}

async fn w344_w782_w788_neither_the_tag_nor_its_digest_is_deleted(registry: Registry) {
    protect(&registry);
    let [image] = images(&registry, "prod/app").await;
    let digest = sha256(image.to_string().as_bytes());
    assert_eq!(registry.put_manifest("prod/app", "v1", &image).await.status, 201);
    assert_eq!(registry.put_manifest("prod/app", "other", &image).await.status, 201);
    for reference in ["v1".to_owned(), digest.to_string()] {
        let refused = registry.delete(&format!("/v2/prod/app/manifests/{reference}")).send().await;
        assert_eq!(refused.refusal(), (409, "DENIED".to_owned()), "{reference}");
    }
    assert_eq!(registry.delete("/v2/prod/app/manifests/latest").send().await.status, 404, "there is none");
    assert_eq!(registry.delete("/v2/prod/app/manifests/other").send().await.status, 202);
    assert_eq!(registry.status("/v2/prod/app/manifests/v1").await, 200);
    registry.opened.domain().set_immutability(Immutability::default());
    assert_eq!(registry.delete(&format!("/v2/prod/app/manifests/{digest}")).send().await.status, 202);
}

async fn w441_further_tags_that_are_immutable_are_left_out_and_named(registry: Registry) {
    protect(&registry);
    let [first, second] = images(&registry, "prod/app").await;
    assert_eq!(registry.put_manifest("prod/app", "v1", &first).await.status, 201);
    let digest = sha256(second.to_string().as_bytes());
    let answer =
        registry.put_manifest("prod/app", &format!("{digest}?tag=v1&tag=v2&tag=latest"), &second).await;
    assert_eq!((answer.status, answer.header("oci-tag")), (201, "latest, v2"));
    assert!(
        answer.header("warning").contains("immutable") && answer.header("warning").contains(": v1"),
        "{answer:?}"
    );
    for (tag, named) in [("v1", sha256(first.to_string().as_bytes())), ("v2", digest), ("latest", digest)] {
        let found = registry.get(&format!("/v2/prod/app/manifests/{tag}")).send().await;
        assert_eq!(found.header("docker-content-digest"), named.to_string());
    }
}

async fn n6_an_immutable_tag_that_was_deleted_before_comes_back(registry: Registry) {
    let [first, second] = images(&registry, "prod/app").await;
    assert_eq!(registry.put_manifest("prod/app", "v1", &first).await.status, 201);
    assert_eq!(registry.delete("/v2/prod/app/manifests/v1").send().await.status, 202);
    protect(&registry);
    assert_eq!(registry.put_manifest("prod/app", "v1", &second).await.status, 409, "it is in the trash");
    let domain = registry.opened.domain();
    domain.restore(&"prod/app:v1".parse().unwrap(), false).await.unwrap();
    let answer = registry.ask(Method::GET, "/v2/prod/app/manifests/v1").send().await;
    assert_eq!(answer.json(), first);
}
