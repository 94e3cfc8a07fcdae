// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Faults: what a client learns when something of ours is away.

use futures::TryStreamExt as _;
use stowage_registry::blobs::{Effect, Failure, Fault, Request};

use super::registry::{Registry, image, sha256};

super::both_stores!(
    w091_w092_w117_w119_what_is_missing_is_missing_with_get_and_head,
    w145_a_blob_that_cannot_be_completed_breaks_the_connection,
    w114_w118_w476_w869_without_the_bucket_the_database_answers_what_it_can,
);

async fn w091_w092_w117_w119_what_is_missing_is_missing_with_get_and_head(registry: Registry) {
    registry.push_image("a", "v1").await;
    let digest = sha256(b"missing");
    for (target, code) in [
        (format!("/v2/a/blobs/{digest}"), "BLOB_UNKNOWN"),
        (format!("/v2/a/manifests/{digest}"), "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/missing".to_owned(), "MANIFEST_UNKNOWN"),
    ] {
        let (get, head) = (registry.get(&target).send().await, registry.head(&target).send().await);
        assert_eq!((get.status, get.code(), head.status), (404, code.into(), 404));
        assert_eq!(get.header("content-length"), head.header("content-length"));
    }
}

async fn w145_a_blob_that_cannot_be_completed_breaks_the_connection(registry: Registry) {
    let digest = registry.push_blob("a", &vec![7; 100_000]).await;
    registry.faults.add(Fault::at(Request::Get, Effect::BreakAfter(50_000)));
    for range in ["", "bytes=0-", "bytes=0-99,200-80000"] {
        let ask = registry.get(&format!("/v2/a/blobs/{digest}")).header("range", range);
        let response = ask.start().await;
        assert!(response.status().is_success());
        let read: Result<Vec<_>, _> = response.into_body().into_data_stream().try_collect().await;
        assert!(read.is_err(), "{range}");
    }
}

async fn w114_w118_w476_w869_without_the_bucket_the_database_answers_what_it_can(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let blob = registry.push_blob("a", b"{}").await;
    registry.faults.add(Fault::anywhere(Effect::Fail(Failure::Unavailable)));
    for target in
        ["/v2/a/manifests/v1", &format!("/v2/a/manifests/{digest}"), "/v2/a/tags/list", "/v2/_catalog"]
    {
        assert_eq!(registry.status(target).await, 200, "{target}");
    }
    assert_eq!(registry.status(&format!("/v2/a/referrers/{digest}")).await, 200);
    let target = format!("/v2/a/blobs/{blob}");
    assert_eq!(registry.head(&target).send().await.status, 200);
    let away = (503, "UNAVAILABLE".to_owned());
    assert_eq!(registry.get(&target).send().await.refusal(), away);
    let push = registry.post(&format!("/v2/a/blobs/uploads/?digest={}", sha256(b"x"))).body("x");
    assert_eq!(push.send().await.refusal(), away);
    assert_eq!(registry.put_manifest("a", "v2", &image(&[])).await.refusal(), away);
    registry.faults.clear();
    assert_eq!(registry.status("/v2/a/manifests/v2").await, 404);
    assert_eq!(registry.put_manifest("a", "v2", &image(&[])).await.status, 201);
}
