// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What protects a database from a bucket that is not its own, or only half there.

use http::StatusCode;
use stowage_registry::domain::WalkError;
use stowage_registry::jobs::{RebuildError, RebuildOptions};
use stowage_registry::meta::Kind;

use super::stand::Stand;

on_both!(
    a_bucket_that_lost_most_of_its_data_stops_the_walk_until_the_loss_is_accepted,
    a_bucket_that_cannot_be_read_loses_nothing,
    a_database_that_is_ahead_of_the_bucket_is_refused,
);

async fn remove(stand: &Stand, belongs: impl Fn(&str) -> bool) {
    let store = stand.store().await;
    let keys = store.list("v1/", None, 100_000).await.unwrap().into_iter().map(|object| object.key);
    let keys: Vec<String> = keys.filter(|key| belongs(key)).collect();
    assert!(!keys.is_empty());
    for some in keys.chunks(500) {
        store.delete(some).await.unwrap();
    }
}

async fn a_bucket_that_lost_most_of_its_data_stops_the_walk_until_the_loss_is_accepted(stand: Stand) {
    let replica = stand.start().await;
    replica.walked().await;
    for n in 0..150 {
        replica.api.push_blob("app", format!("content {n}").as_bytes()).await;
    }
    let kept = replica.api.push_image("other", Some("v1"), "kept").await;
    replica.stop().await;
    let before = stand.rows().await;
    remove(&stand, |key| key.starts_with("v1/r/app/")).await;
    let refused = stand.rebuild(RebuildOptions::default()).await;
    let Err(error @ RebuildError::Walk(WalkError::TooManyLosses(loss))) = refused else {
        panic!("{refused:?}")
    };
    assert!(error.is_refusal() && loss.kind == Kind::Links && loss.lost > 100, "{loss:?}");
    assert!(error.to_string().contains("--accept-loss"), "{error}");
    let after = stand.rows().await;
    assert!(after[1].1.len() + 100 >= before[1].1.len(), "at most what the breaker lets through");

    let accepted = RebuildOptions { accept_loss: true, ..RebuildOptions::default() };
    let walked = stand.rebuild(accepted).await.unwrap();
    assert!(walked.changes["lostLinks"] > 0, "{walked:?}");
    let replica = stand.start().await;
    assert_eq!(replica.api.resolve("other", "v1").await, Some(kept));
    replica.api.assert_pullable("other", "v1").await;
    let digest = super::api::sha256(b"content 7");
    assert_eq!(replica.api.head(&format!("/v2/app/blobs/{digest}")).await.status, StatusCode::NOT_FOUND);
    replica.stop().await;
}

async fn a_bucket_that_cannot_be_read_loses_nothing(mut stand: Stand) {
    use stowage_registry::blobs::{Effect, Failure, Fault, Request};

    let replica = stand.start().await;
    let digest = replica.api.push_image("app", Some("v1"), "layer").await;
    let copy = stand.copy().await;
    replica.stop().await;
    stand.restore(&copy).await;
    let before = stand.rows().await;
    let replica = stand.start().await;
    for request in [Request::Head, Request::List, Request::Get] {
        replica.bucket.add(Fault::at(request, Effect::Fail(Failure::Unavailable)));
    }
    for target in ["/v2/app/manifests/v1", "/v2/app/tags/list"] {
        let status = replica.api.get(target).await.status;
        assert!(matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE), "{target}: {status}");
    }
    stand.assert_rows(&before).await;
    replica.bucket.clear();
    replica.walked().await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(digest));
    stand.assert_rows(&before).await;
    replica.stop().await;
}

async fn a_database_that_is_ahead_of_the_bucket_is_refused(stand: Stand) {
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "layer").await;
    replica.stop().await;
    remove(&stand, |key| key.starts_with("v1/epoch/")).await;
    let before = stand.rows().await;
    let refused = stand.rebuild(RebuildOptions::default()).await;
    let Err(error @ RebuildError::DatabaseAhead { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.is_refusal());
    stand.assert_rows(&before).await;
}
