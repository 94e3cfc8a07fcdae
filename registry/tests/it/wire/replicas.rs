// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Two replicas over one database and one bucket: what one has acknowledged, the other knows.

use serde_json::json;

use super::registry::{Registry, image, sha256};

super::both_stores!(
    w024_w174_w850_a_tag_that_moved_on_one_has_moved_on_the_other,
    w207_w856_an_upload_goes_on_anywhere,
    w214_a_blob_is_there_at_once_on_the_other,
    w396_a_referrer_is_listed_at_once_on_the_other,
    w341_w725_w774_what_one_deleted_is_gone_on_the_other,
    w223_an_upload_is_cancelled_anywhere,
);

async fn w024_w174_w850_a_tag_that_moved_on_one_has_moved_on_the_other(one: Registry) {
    let other = one.replica().await;
    one.push_blob("a", b"{}").await;
    for n in 0..200 {
        let mut manifest = image(&[]);
        manifest["annotations"] = json!({ "n": n.to_string() });
        let digest = sha256(manifest.to_string().as_bytes()).to_string();
        let (writer, reader) = if n % 2 == 0 { (&one, &other) } else { (&other, &one) };
        assert_eq!(writer.put_manifest("a", "v1", &manifest).await.status, 201);
        let head = reader.head("/v2/a/manifests/v1").send().await;
        assert_eq!(head.header("docker-content-digest"), digest);
        assert_eq!(reader.get("/v2/a/manifests/v1").send().await.json(), manifest);
    }
}

async fn w207_w856_an_upload_goes_on_anywhere(one: Registry) {
    let other = one.replica().await;
    // More than one part on either store.
    let content: Vec<u8> = (0..9_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (first, rest) = content.split_at(20_000_001);
    let (second, last) = rest.split_at(5);
    let upload = one.open_upload("a").await;
    assert_eq!(one.patch(&upload).body(first).send().await.header("range"), "0-20000000");
    assert_eq!(other.patch(&upload).body(second).send().await.header("range"), "0-20000005");
    assert_eq!(one.get(&upload).send().await.header("range"), "0-20000005");
    let digest = sha256(&content);
    let answer = other.put(&format!("{upload}?digest={digest}")).body(last).send().await;
    assert_eq!(answer.status, 201);
    assert!(one.get(&format!("/v2/a/blobs/{digest}")).send().await.body == content);
}

async fn w214_a_blob_is_there_at_once_on_the_other(one: Registry) {
    let other = one.replica().await;
    for content in ["a", "b", "c"] {
        let digest = one.push_blob("a", content.as_bytes()).await;
        let target = format!("/v2/a/blobs/{digest}");
        assert_eq!(other.head(&target).send().await.status, 200);
        assert_eq!(other.get(&target).send().await.body, content);
    }
}

async fn w396_a_referrer_is_listed_at_once_on_the_other(one: Registry) {
    let other = one.replica().await;
    one.push_blob("a", b"{}").await;
    let subject = sha256(b"subject");
    let mut manifest = image(&[]);
    manifest["subject"] = json!({ "digest": subject });
    let digest = sha256(manifest.to_string().as_bytes()).to_string();
    let target = format!("/v2/a/referrers/{subject}");
    assert_eq!(other.get(&target).send().await.json()["manifests"], json!([]));
    assert_eq!(one.put_manifest("a", &digest, &manifest).await.status, 201);
    assert_eq!(other.get(&target).send().await.json()["manifests"][0]["digest"], digest);
}

async fn w341_w725_w774_what_one_deleted_is_gone_on_the_other(one: Registry) {
    let other = one.replica().await;
    let digest = one.push_image("a", "v1").await;
    let blob = one.push_blob("b", b"layer of a:v1").await;
    for target in
        ["/v2/a/manifests/v1".to_owned(), format!("/v2/a/manifests/{digest}"), format!("/v2/a/blobs/{blob}")]
    {
        assert_eq!(other.status(&target).await, 200);
        assert_eq!(one.delete(&target).send().await.status, 202);
        assert_eq!(other.status(&target).await, 404, "{target}");
        assert_eq!(other.head(&target).send().await.status, 404);
    }
    assert_eq!(other.status(&format!("/v2/b/blobs/{blob}")).await, 200);
}

async fn w223_an_upload_is_cancelled_anywhere(one: Registry) {
    let other = one.replica().await;
    let upload = one.open_upload("a").await;
    assert_eq!(other.delete(&upload).send().await.status, 204);
    assert_eq!(one.get(&upload).send().await.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".into()));
}
