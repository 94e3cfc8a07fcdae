// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulling blobs.

use axum::body::to_bytes;
use futures::TryStreamExt as _;

use super::registry::{Registry, sha256, sha512};

super::both_stores!(
    w023_w140_w491_a_blob_comes_with_all_its_headers_and_exactly_its_bytes,
    w141_w840_a_blob_of_another_repository_is_unknown,
    w142_w464_w526_an_empty_blob_is_whole_whatever_is_asked,
    w020_w835_content_is_known_only_by_the_digest_it_was_pushed_with,
    w144_w855_data_that_is_gone_is_unknown_and_the_next_push_heals_it,
    w146_w524_a_read_that_is_given_up_does_no_harm,
    w539_a_blob_that_is_not_here_is_404_to_a_head,
);

async fn w023_w140_w491_a_blob_comes_with_all_its_headers_and_exactly_its_bytes(registry: Registry) {
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = registry.push_blob("a", &content).await;
    let answer = registry.get(&format!("/v2/a/blobs/{digest}")).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), content.len().to_string());
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    assert!(answer.body == content);
}

async fn w141_w840_a_blob_of_another_repository_is_unknown(registry: Registry) {
    let digest = registry.push_blob("a", b"content").await;
    registry.push_blob("b", b"other").await;
    for repository in ["b", "c"] {
        let target = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!(registry.get(&target).send().await.refusal(), (404, "BLOB_UNKNOWN".into()));
        assert_eq!(registry.head(&target).send().await.status, 404);
        assert_eq!(registry.delete(&target).send().await.refusal(), (404, "BLOB_UNKNOWN".into()));
    }
}

async fn w142_w464_w526_an_empty_blob_is_whole_whatever_is_asked(registry: Registry) {
    let digest = sha256(b"");
    let upload = registry.open_upload("a").await;
    let answer = registry.put(&format!("{upload}?digest={digest}")).chunked("").send().await;
    assert_eq!(answer.status, 201);
    for range in ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=5-2"] {
        let answer = registry.get(&format!("/v2/a/blobs/{digest}")).header("range", range).send().await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "0"), "{range}");
    }
}

async fn w020_w835_content_is_known_only_by_the_digest_it_was_pushed_with(registry: Registry) {
    let digest = sha512(b"content");
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let answer = registry.post(&target).body("content").send().await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, digest.to_string().as_str()));
    let answer = registry.get(&format!("/v2/a/blobs/{digest}")).send().await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (200, digest.to_string().as_str()));
    assert_eq!(registry.status(&format!("/v2/a/blobs/{}", sha256(b"content"))).await, 404);
}

async fn w144_w855_data_that_is_gone_is_unknown_and_the_next_push_heals_it(registry: Registry) {
    let digest = registry.push_blob("a", b"content").await;
    let objects = registry.store.list("v1/blob/", None, 10).await.unwrap();
    let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
    registry.store.delete(&keys).await.unwrap();
    let target = format!("/v2/a/blobs/{digest}");
    assert_eq!(registry.get(&target).send().await.refusal(), (404, "BLOB_UNKNOWN".into()));
    assert_eq!(registry.head(&target).send().await.status, 404);
    registry.push_blob("a", b"content").await;
    assert_eq!(&registry.get(&target).send().await.body[..], b"content");
}

async fn w146_w524_a_read_that_is_given_up_does_no_harm(registry: Registry) {
    let content = vec![7; 3_000_000];
    let digest = registry.push_blob("a", &content).await;
    let target = format!("/v2/a/blobs/{digest}");
    for _ in 0..20 {
        let response = registry.get(&target).header("range", "bytes=1-").start().await;
        let first = response.into_body().into_data_stream().try_next().await.unwrap();
        assert!(first.is_some_and(|piece| !piece.is_empty()));
    }
    let response = registry.get(&target).start().await;
    assert!(to_bytes(response.into_body(), usize::MAX).await.unwrap() == content);
}

async fn w539_a_blob_that_is_not_here_is_404_to_a_head(registry: Registry) {
    let answer = registry.head(&format!("/v2/a/blobs/{}", sha256(b"x"))).send().await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.is_empty());
}
