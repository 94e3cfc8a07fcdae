// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulls of blobs that are answered with the address of the bytes in the bucket.

use axum::body::to_bytes;
use axum::response::Response;
use http::header::LOCATION;
use stowage_oci::Digest;
use stowage_registry::http::{Redirect, Settings};

use super::registry::{Ask, Registry};
use crate::support::s3::ask;

const MIN_SIZE: u64 = 1 << 20;

async fn redirecting(registry: Registry) -> Registry {
    let redirect = Redirect { min_size: MIN_SIZE, exclude_user_agents: vec!["renovate".to_owned()] };
    let settings = Settings { redirect: Some(redirect), ..Default::default() };
    registry.reopened(stowage_registry::Registry::builder().settings(settings)).await
}

/// Just large enough to be redirected.
fn content() -> Vec<u8> {
    (0..u32::try_from(MIN_SIZE / 4).unwrap()).flat_map(u32::to_le_bytes).collect()
}

/// A registry that redirects, and the path of a blob in it.
async fn with_blob() -> (Registry, String, Digest) {
    let registry = redirecting(Registry::clustered().await).await;
    let digest = registry.push_blob("a", &content()).await;
    (registry, format!("/v2/a/blobs/{digest}"), digest)
}

fn location(response: &Response) -> String {
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn w053_w147_a_large_blob_is_read_from_the_store_itself() {
    let (registry, path, digest) = with_blob().await;
    let response = registry.get(&path).start().await;
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["docker-content-digest"], digest.to_string());
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["content-length"], "0");
    let address = location(&response);
    // Nothing of the request but the method and the object is in it.
    assert!(
        address.contains("X-Amz-Signature=") && address.contains("X-Amz-SignedHeaders=host&"),
        "{address}"
    );
    let seconds = address.split("X-Amz-Expires=").nth(1).unwrap().split('&').next().unwrap();
    assert!(seconds.parse::<u32>().unwrap() >= 15 * 60, "{address}");
    assert!(to_bytes(response.into_body(), 1).await.unwrap().is_empty());

    let answer = ask(&address, "GET", "").await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&content()));
    let head = String::from_utf8_lossy(&answer[..1000]).to_lowercase();
    assert!(head.contains("content-type: application/octet-stream"), "{head}");
    for method in ["DELETE", "HEAD"] {
        assert!(ask(&address, method, "").await.starts_with(b"HTTP/1.1 403"), "{method}");
    }
}

#[tokio::test]
async fn w468_a_single_range_is_repeated_at_the_store() {
    let (registry, path, _) = with_blob().await;
    let response = registry.get(&path).header("range", "bytes=4-7").start().await;
    assert_eq!(response.status(), 307);
    let answer = ask(&location(&response), "GET", "Range: bytes=4-7\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 206") && answer.ends_with(&[1, 0, 0, 0]));
}

#[tokio::test]
async fn w148_w567_what_a_store_cannot_answer_or_a_client_cannot_follow_is_answered_here() {
    let (registry, path, _) = with_blob().await;
    assert_eq!(registry.head(&path).send().await.status, 200);
    let answered = async |ask: Ask<'_>| ask.send().await.status;
    assert_eq!(answered(registry.get(&path).header("range", "bytes=0-1,9-10")).await, 206);
    assert_eq!(answered(registry.get(&path).header("range", "bytes=9999999-")).await, 416);
    assert_eq!(answered(registry.get(&path).header("user-agent", "renovate/41.2")).await, 200);
    let small = registry.push_blob("a", &content()[1..]).await;
    assert_eq!(registry.status(&format!("/v2/a/blobs/{small}")).await, 200);
    // Others are redirected, whatever they are called.
    for agent in ["containerd/2.2", "Renovate", ""] {
        assert_eq!(registry.get(&path).header("user-agent", agent).start().await.status(), 307, "{agent:?}");
    }
}

#[tokio::test]
async fn w053_manifests_and_uploads_are_never_redirected() {
    let registry = redirecting(Registry::clustered().await).await;
    registry.push_image("a", "v1").await;
    assert_eq!(registry.status("/v2/a/manifests/v1").await, 200);
    let upload = registry.open_upload("a").await;
    assert_eq!(registry.get(&upload).send().await.status, 204);
}

#[tokio::test]
async fn w053_a_blob_that_is_not_there_is_unknown_and_not_redirected() {
    let (registry, path, _) = with_blob().await;
    assert_eq!(registry.status(&path.replace("/a/", "/b/")).await, 404);
}

#[tokio::test]
async fn a_store_without_addresses_is_read_here() {
    let registry = redirecting(Registry::embedded().await).await;
    let digest = registry.push_blob("a", &content()).await;
    assert_eq!(registry.status(&format!("/v2/a/blobs/{digest}")).await, 200);
}
