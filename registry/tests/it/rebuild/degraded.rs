// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! N11: database or bucket away; what is still answered, and that it ends by itself.

use http::{Method, StatusCode};
use stowage_registry::blobs::{Effect, Failure, Fault, Request};
use stowage_registry::domain::Limits;
use stowage_registry::http::Metrics;
use stowage_registry::ops::metrics::exposition;
use stowage_registry::{Registry, meta};

use super::api::{Api, sha256};
use super::stand::Stand;

on_both!(
    w475_without_a_database_reads_say_where_they_come_from_and_are_counted,
    w476_without_a_bucket_metadata_is_answered_and_blobs_are_503_until_it_is_back,
);

async fn w475_without_a_database_reads_say_where_they_come_from_and_are_counted(stand: Stand) {
    let (faulty, faults) = meta::faulty::Faulty::over(stand.meta().await);
    let mut counted = prometheus_client::registry::Registry::default();
    let builder = Registry::builder()
        .metrics(Metrics::register(&mut counted))
        .limits(Limits { write_hold: std::time::Duration::ZERO, ..Limits::default() });
    let registry = builder.over(std::sync::Arc::new(faulty), stand.store().await).await.unwrap();
    let api = Api(registry.router());
    let digest = api.push_image("app", Some("v1"), "layer").await;
    faults.cut();
    for target in [
        "/v2/app/manifests/v1".to_owned(),
        format!("/v2/app/manifests/{digest}"),
        format!("/v2/app/blobs/{}", sha256(b"layer")),
        format!("/v2/app/referrers/{digest}"),
    ] {
        let answer = api.get(&target).await;
        assert!(answer.status == StatusCode::OK && answer.is_degraded(), "{target}: {answer:?}");
    }
    let refused = api.send(Method::POST, "/v2/app/blobs/uploads/", "", b"").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(api.get("/v2/app/tags/list").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let text = exposition(&counted);
    for line in [
        r#"stowage_degraded_reads_total{operation="get_manifest"} 2"#,
        r#"stowage_degraded_reads_total{operation="get_blob"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    faults.mend();
    let begun = std::time::Instant::now();
    while api.get("/v2/app/manifests/v1").await.is_degraded() {
        assert!(begun.elapsed().as_secs() < 10, "still degraded");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    api.push_image("app", Some("v2"), "another").await;
    registry.close().await;
}

async fn w476_without_a_bucket_metadata_is_answered_and_blobs_are_503_until_it_is_back(stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_image("app", Some("v1"), "layer").await;
    let blob = format!("/v2/app/blobs/{}", sha256(b"layer"));
    for request in Request::ALL {
        replica.bucket.add(Fault::at(request, Effect::Fail(Failure::Unavailable)));
    }
    for target in [
        "/v2/app/manifests/v1".to_owned(),
        format!("/v2/app/manifests/{digest}"),
        "/v2/app/tags/list".to_owned(),
        format!("/v2/app/referrers/{digest}"),
        "/v2/_catalog".to_owned(),
    ] {
        let answer = replica.api.get(&target).await;
        assert!(answer.status == StatusCode::OK && !answer.is_degraded(), "{target}: {answer:?}");
    }
    assert_eq!(replica.api.head(&blob).await.status, StatusCode::OK);
    assert_eq!(replica.api.get(&blob).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let target = format!("/v2/app/blobs/uploads/?digest={}", sha256(b"new"));
    let refused = replica.api.send(Method::POST, &target, "", b"new").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    replica.bucket.clear();
    replica.api.assert_pullable("app", "v1").await;
    replica.api.push_image("app", Some("v2"), "new").await;
    replica.stop().await;
}
