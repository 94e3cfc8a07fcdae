// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What no real registry here does, before the content of one that is: the list of an organization, as Quay's public
//! API documents it, and wrong bytes.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stowage_registry::domain::{Repositories, SyncMode};

use super::site::{replication, request, run};
use crate::upstream::servers::{Asked, Scripted, answer, distribution, handed_on, push, secret, settings};

/// `GET /api/v1/repository?namespace=acme&public=true[&next_page=…]`: two pages.
fn listing(asked: &Asked) -> Vec<u8> {
    let line = asked.line();
    let entry = |namespace: &str, name: &str| {
        format!(
            r#"{{"namespace":"{namespace}","name":"{name}","is_public":true,"kind":"image","description":null}}"#
        )
    };
    let is_login = asked.field("authorization") == Some("Bearer oauth-token");
    let body = if line.contains("next_page=second") {
        let private = if is_login { format!(",{}", entry("acme", "private")) } else { String::new() };
        format!(r#"{{"repositories":[{}{private}]}}"#, entry("acme", "web"))
    } else {
        let page = [entry("acme", "app"), entry("acme", "tmp-1"), entry("others", "app")].join(",");
        format!(r#"{{"repositories":[{page}],"next_page":"second"}}"#)
    };
    assert!(line.starts_with("GET /api/v1/repository?namespace=acme&public=true"), "{line}");
    answer(200, "Content-Type: application/json\r\n", body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f21_the_repositories_of_an_organization_of_quay_are_copied() {
    let content = distribution(&serde_json::Value::Null, &[]).await;
    for name in ["acme/app", "acme/web", "acme/private", "acme/tmp-1", "others/app"] {
        push(content.address(), "", name, "1", name.as_bytes());
    }
    let address = content.address().to_owned();
    let quay = Scripted::answering(move |asked| {
        if asked.line().contains("/api/") { listing(asked) } else { handed_on(asked, &address) }
    });
    let registry = stowage_registry::testing::start().await;
    let exclude = vec!["acme/tmp-*".parse().unwrap()];
    let organization = Repositories::Organization { name: "acme".to_owned(), exclude };
    let mut asked = replication(settings(&quay.origin()), organization);
    let told = run(registry.registry(), &asked, SyncMode::Copy).await;
    assert_eq!(told.items, ["copied acme/app:1", "copied acme/web:1"]);
    let token = secret(&[("username", "$oauthtoken"), ("password", "oauth-token")]);
    asked.upstream.credentials = Some(token.path().to_owned());
    let told = run(registry.registry(), &asked, SyncMode::Copy).await;
    assert_eq!(told.items, ["copied acme/private:1", "unchanged acme/app:1", "unchanged acme/web:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w881_wrong_bytes_are_named_and_nothing_of_their_image_is_seen() {
    let content = distribution(&serde_json::Value::Null, &[]).await;
    let wrong = push(content.address(), "", "team/app", "wrong", b"layer that comes wrong");
    let right = push(content.address(), "", "team/app", "right", b"layer that comes right");
    let (address, layer) = (content.address().to_owned(), wrong.layer_digest.to_string());
    let upstream = Scripted::answering(move |asked| {
        let mut answer = handed_on(asked, &address);
        if asked.line().starts_with("GET") && asked.line().ends_with(&layer) {
            *answer.last_mut().unwrap() ^= 1;
        }
        answer
    });
    let registry = stowage_registry::testing::start().await;
    let app = Repositories::One("team/app".parse().unwrap());
    let asked = replication(settings(&upstream.origin()), app);
    let told = run(registry.registry(), &asked, SyncMode::Copy).await;
    assert_eq!(told.synced.failures, [("team/app:wrong".to_owned(), "WrongContent")]);
    let get = async |rest: String| {
        let target = format!("/v2/base/team/app/{rest}");
        request(registry.registry(), "GET", &target, "", Vec::new()).await.status
    };
    assert_eq!(get("manifests/right".to_owned()).await, 200);
    assert_eq!(get(format!("blobs/{}", right.layer_digest)).await, 200);
    assert_eq!(get("manifests/wrong".to_owned()).await, 404);
    assert_eq!(get(format!("manifests/{}", wrong.digest)).await, 404);
    assert_eq!(get(format!("blobs/{}", wrong.layer_digest)).await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_an_upstream_that_wants_to_be_left_alone_is_asked_again_when_it_says() {
    let content = distribution(&serde_json::Value::Null, &[]).await;
    push(content.address(), "", "team/app", "1", b"layer");
    let address = content.address().to_owned();
    let left = AtomicU32::new(3);
    let upstream = Scripted::answering(move |asked| {
        let is_limited = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if is_limited.is_ok() { answer(429, "Retry-After: 1\r\n", "") } else { handed_on(asked, &address) }
    });
    let registry = stowage_registry::testing::start().await;
    let app = Repositories::One("team/app".parse().unwrap());
    let asked = replication(settings(&upstream.origin()), app);
    let told = run(registry.registry(), &asked, SyncMode::Copy).await;
    assert_eq!(told.items, ["copied team/app:1"]);
    assert!(upstream.asked().iter().any(|asked| asked.line().contains("/blobs/")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_a_run_leaves_an_upstream_alone_that_told_so_to_another() {
    let upstream = Scripted::answering(|_| answer(429, "Retry-After: 3600\r\n", ""));
    let registry = stowage_registry::testing::start().await;
    let app = Repositories::One("team/app".parse().unwrap());
    let asked = replication(settings(&upstream.origin()), app);
    for run_of_two in 1..=2 {
        let told = run(registry.registry(), &asked, SyncMode::Copy).await;
        assert!(told.failed("team/app", "RateLimited"), "run {run_of_two}: {:?}", told.synced.failures);
        assert_eq!(upstream.asked().len(), 1, "the first run asks once, the second never");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_a_run_asks_no_more_often_than_its_mirror_allows() {
    const PER_SECOND: u32 = 20;
    let content = distribution(&serde_json::Value::Null, &[]).await;
    for tag in ["1", "2", "3", "4"] {
        push(content.address(), "", "team/app", tag, tag.as_bytes());
    }
    let address = content.address().to_owned();
    let upstream = Scripted::answering(move |asked| handed_on(asked, &address));
    let registry = stowage_registry::testing::start().await;
    let app = Repositories::One("team/app".parse().unwrap());
    let mut asked = replication(settings(&upstream.origin()), app);
    asked.upstream.requests_per_second = NonZeroU32::new(PER_SECOND);
    let begun = Instant::now();
    let told = run(registry.registry(), &asked, SyncMode::Copy).await;
    let took = begun.elapsed();
    assert_eq!(told.items.len(), 4, "{:?}", told.items);
    let requests = u32::try_from(upstream.asked().len()).unwrap();
    assert!(requests > 10, "a list, tags, manifests, blobs: {requests}");
    let least = Duration::from_secs(1) / PER_SECOND * (requests - 1);
    assert!(took >= least, "{requests} requests in {took:?}");
}
