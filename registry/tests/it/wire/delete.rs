// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deleting.

use stowage_registry::blobs::{Effect, Fault, Gate, Occasion, Request};
use stowage_registry::operation::Mode;

use super::registry::{OCI_IMAGE, Registry, descriptor, image, index, sha256};

super::both_stores!(
    w340_w343_w558_w833_a_tag_goes_alone,
    w341_w343_a_manifest_goes_with_its_tags,
    a_tag_that_is_pushed_while_what_it_named_is_deleted_keeps_what_was_pushed,
    w342_what_is_not_there_cannot_be_deleted,
    w344_w108_a_child_of_an_index_stays,
    w346_w108_a_blob_stays_while_a_manifest_refers_to_it,
    w347_after_its_manifest_a_blob_can_go,
    w345_w401_referrers_of_a_deleted_subject_stay_readable,
    w108_w348_w775_a_registry_that_does_not_delete,
    w108_w478_a_registry_that_only_reads,
    w229_w889_what_was_deleted_can_be_pushed_again,
    w774_a_blob_deleted_in_one_repository_stays_in_the_other,
);

fn refused() -> (u16, String) {
    (405, "UNSUPPORTED".to_owned())
}

async fn w340_w343_w558_w833_a_tag_goes_alone(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let manifest = registry.get("/v2/a/manifests/v1").send().await.json();
    assert_eq!(registry.put_manifest("a", "v2", &manifest).await.status, 201);
    assert_eq!(registry.delete("/v2/a/manifests/v1").send().await.status, 202);
    assert_eq!(registry.status("/v2/a/manifests/v1").await, 404);
    assert_eq!(registry.status("/v2/a/manifests/v2").await, 200);
    assert_eq!(registry.status(&format!("/v2/a/manifests/{digest}")).await, 200);
}

async fn w341_w343_a_manifest_goes_with_its_tags(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let manifest = registry.get("/v2/a/manifests/v1").send().await.json();
    assert_eq!(registry.put_manifest("a", "v2", &manifest).await.status, 201);
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).send().await.status, 202);
    for reference in ["v1", "v2", &digest.to_string()] {
        assert_eq!(registry.status(&format!("/v2/a/manifests/{reference}")).await, 404);
    }
}

async fn a_tag_that_is_pushed_while_what_it_named_is_deleted_keeps_what_was_pushed(registry: Registry) {
    let old = registry.push_image("a", "latest").await;
    registry.push_blob("a", b"new").await;
    let new = image(&[b"new"]);
    let gate = Gate::new();
    let hold = Fault::at(Request::Put, Effect::HoldBefore(gate.clone())).matching("/~t/latest/");
    registry.faults.add(hold.on(Occasion::Nth(1)));
    let delete = async {
        gate.reached().await;
        let deleted = registry.delete(&format!("/v2/a/manifests/{old}")).send().await;
        gate.release();
        deleted
    };
    let (pushed, deleted) = tokio::join!(registry.put_manifest("a", "latest", &new), delete);
    assert_eq!((pushed.status, deleted.status), (201, 202));
    // The push was placed before the deletion, and published after it.
    let answer = registry.get("/v2/a/manifests/latest").send().await;
    assert_eq!((answer.status, answer.json()), (200, new.clone()));
    assert_eq!(registry.status(&format!("/v2/a/manifests/{old}")).await, 404);
    // The bucket alone says so, too.
    let records = registry.store.list("v1/r/a/~t/latest/", None, 10).await.unwrap();
    let highest = records.first().unwrap().key.clone();
    assert!(highest.ends_with(&sha256(new.to_string().as_bytes()).hex()), "{highest}");
}

async fn w342_what_is_not_there_cannot_be_deleted(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let target = format!("/v2/a/manifests/{digest}");
    assert_eq!(registry.delete("/v2/a/manifests/v1").send().await.status, 202);
    assert_eq!(
        registry.delete("/v2/a/manifests/v1").send().await.refusal(),
        (404, "MANIFEST_UNKNOWN".into())
    );
    assert_eq!(registry.delete(&target).send().await.status, 202);
    assert_eq!(registry.delete(&target).send().await.refusal(), (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(registry.delete("/v2/never/manifests/v1").send().await.status, 404);
    let blob = format!("/v2/a/blobs/{}", sha256(b"{}"));
    assert_eq!(registry.delete(&blob).send().await.status, 202);
    assert_eq!(registry.delete(&blob).send().await.refusal(), (404, "BLOB_UNKNOWN".into()));
}

async fn w344_w108_a_child_of_an_index_stays(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let child = registry.get("/v2/a/manifests/v1").send().await.json();
    let list = index(&[&child]);
    assert_eq!(registry.put_manifest("a", "list", &list).await.status, 201);
    let target = format!("/v2/a/manifests/{digest}");
    assert_eq!(registry.delete(&target).send().await.refusal(), refused());
    let parent = format!("/v2/a/manifests/{}", sha256(list.to_string().as_bytes()));
    assert_eq!(registry.delete(&parent).send().await.status, 202);
    assert_eq!(registry.delete(&target).send().await.status, 202);
}

async fn w346_w108_a_blob_stays_while_a_manifest_refers_to_it(registry: Registry) {
    registry.push_image("a", "v1").await;
    let blob = format!("/v2/a/blobs/{}", sha256(b"{}"));
    assert_eq!(registry.delete(&blob).send().await.refusal(), refused());
    assert_eq!(registry.status(&blob).await, 200);
}

async fn w347_after_its_manifest_a_blob_can_go(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).send().await.status, 202);
    let blob = format!("/v2/a/blobs/{}", sha256(b"{}"));
    assert_eq!(registry.delete(&blob).send().await.status, 202);
    assert_eq!(registry.head(&blob).send().await.status, 404);
}

async fn w345_w401_referrers_of_a_deleted_subject_stay_readable(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let subject = registry.get("/v2/a/manifests/v1").send().await.body;
    let mut referrer = image(&[]);
    referrer["subject"] = descriptor(OCI_IMAGE, &subject);
    let fallback = format!("sha256-{}", digest.hex());
    assert_eq!(registry.put_manifest("a", &fallback, &referrer).await.status, 201);
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).send().await.status, 202);
    assert_eq!(registry.status(&format!("/v2/a/manifests/{fallback}")).await, 200);
    let list = registry.get(&format!("/v2/a/referrers/{digest}")).send().await.json();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    // A fallback tag is a tag.
    assert_eq!(registry.put_manifest("a", &fallback, &image(&[])).await.status, 201);
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{fallback}")).send().await.status, 202);
}

async fn in_mode(registry: Registry, mode: Mode) -> Registry {
    let settings = stowage_registry::http::Settings { mode, ..Default::default() };
    registry.reopened(stowage_registry::Registry::builder().settings(settings)).await
}

async fn w108_w348_w775_a_registry_that_does_not_delete(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let registry = in_mode(registry, Mode::NoDelete).await;
    for target in [
        "/v2/a/manifests/v1",
        &format!("/v2/a/manifests/{digest}"),
        &format!("/v2/a/blobs/{}", sha256(b"{}")),
    ] {
        assert_eq!(registry.delete(target).send().await.refusal(), refused());
        assert_eq!(registry.status(target).await, 200);
    }
    let upload = registry.open_upload("a").await;
    assert_eq!(registry.delete(&upload).send().await.status, 204);
    registry.push_image("a", "v2").await;
}

async fn w108_w478_a_registry_that_only_reads(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let upload = registry.open_upload("a").await;
    let registry = in_mode(registry, Mode::ReadOnly).await;
    assert_eq!(registry.post("/v2/a/blobs/uploads/").send().await.refusal(), refused());
    assert_eq!(registry.patch(&upload).body("x").send().await.refusal(), refused());
    assert_eq!(registry.put_manifest("a", "v2", &image(&[])).await.refusal(), refused());
    assert_eq!(registry.delete("/v2/a/manifests/v1").send().await.refusal(), refused());
    for target in [
        "/v2/",
        "/v2/a/tags/list",
        "/v2/_catalog",
        "/v2/a/manifests/v1",
        &format!("/v2/a/referrers/{digest}"),
    ] {
        assert_eq!(registry.status(target).await, 200);
    }
}

async fn w229_w889_what_was_deleted_can_be_pushed_again(registry: Registry) {
    for _ in 0..3 {
        let digest = registry.push_image("a", "v1").await;
        let blob = format!("/v2/a/blobs/{}", sha256(b"layer of a:v1"));
        assert_eq!(registry.status(&blob).await, 200);
        assert_eq!(registry.status("/v2/a/manifests/v1").await, 200);
        assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).send().await.status, 202);
        assert_eq!(registry.delete(&blob).send().await.status, 202);
        assert_eq!(registry.status(&blob).await, 404);
    }
}

async fn w774_a_blob_deleted_in_one_repository_stays_in_the_other(registry: Registry) {
    let digest = registry.push_blob("a", b"content").await;
    registry.push_blob("b", b"content").await;
    assert_eq!(registry.delete(&format!("/v2/a/blobs/{digest}")).send().await.status, 202);
    assert_eq!(registry.status(&format!("/v2/b/blobs/{digest}")).await, 200);
    assert_eq!(registry.status(&format!("/v2/a/blobs/{digest}")).await, 404);
}
