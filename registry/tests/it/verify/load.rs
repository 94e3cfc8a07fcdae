// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Verification beside clients, beside another one, and with a bucket or a database that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use stowage_registry::blobs::{Effect, Failure, Fault, Occasion, Request};
use stowage_registry::config::Scrub;
use stowage_registry::domain::VerifyOptions;
use stowage_registry::jobs::{VerifyError, keep_scrubbed};
use stowage_registry::key::Key;
use stowage_registry::meta::faulty;
use stowage_registry::ops::metrics::{VerificationMetrics, exposition};
use stowage_registry::ops::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::site::{DEEP_REPAIR, REPAIR, SHALLOW, Site};
use crate::rebuild::api::Api;
use crate::rebuild::stand::Stand;

on_both!(
    a_repair_beside_clients_finds_nothing_and_harms_nothing,
    two_verifications_at_once_end_alike,
    l_14_a_read_that_fails_ends_the_run_and_repairs_nothing,
    a_database_that_is_not_trusted_is_not_verified,
    a_scrub_finds_by_reading_and_repairs_nothing,
    reading_keeps_to_its_budget,
);

/// Pushes, moves and deletes, until told to stop; the tags that were pushed last and not deleted.
async fn work(api: Api, client: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut kept = Vec::new();
    for step in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let tag = format!("c{client}-{}", step % 5);
        let digest = api.push_image("app", Some(&tag), &format!("layer {}", (client + step) % 7)).await;
        kept.retain(|one| *one != tag);
        if step % 4 == 0 {
            let target = format!("/v2/app/manifests/{tag}");
            assert_eq!(api.delete(&target).await.status, StatusCode::ACCEPTED);
        } else {
            assert_eq!(api.resolve("app", &tag).await, Some(digest));
            kept.push(tag);
        }
    }
    kept
}

async fn a_repair_beside_clients_finds_nothing_and_harms_nothing(stand: Stand) {
    let site = Site::on(stand).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = Tasks::new();
    let clients: Vec<_> = (0..3)
        .map(|client| tasks.spawn(work(Api(site.replica.registry.router()), client, Arc::clone(&stop))))
        .collect();
    for _ in 0..6 {
        // Objects of requests under way are old at once: only what explains them protects them.
        site.wait_a_week().await;
        assert_eq!(site.found(DEEP_REPAIR).await, Vec::<String>::new());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        for tag in client.await.unwrap() {
            site.replica.api.assert_pullable("app", &tag).await;
        }
    }
    site.wait_a_week().await;
    site.assert_clean().await;
    site.replica.stop().await;
}

async fn two_verifications_at_once_end_alike(stand: Stand) {
    let site = Site::on(stand).await;
    for layer in ["one", "two", "three"] {
        let digest = site.replica.api.push_blob("app", layer.as_bytes()).await;
        site.remove(&site.only(&Key::blob_prefix(&digest), |_| true).await).await;
    }
    let both = async |options| tokio::join!(Box::pin(site.verify(options)), Box::pin(site.verify(options)));
    let (first, second) = both(SHALLOW).await;
    for (verified, _) in [&first, &second] {
        assert_eq!(verified.as_ref().unwrap().total, 3, "{verified:?}");
    }
    let (first, second) = both(REPAIR).await;
    let repaired: u64 = [first, second].map(|(verified, _)| verified.unwrap().repaired).iter().sum();
    assert_eq!(repaired, 3, "each once");
    site.assert_clean().await;
    site.replica.stop().await;
}

async fn l_14_a_read_that_fails_ends_the_run_and_repairs_nothing(stand: Stand) {
    let site = Site::on(stand).await;
    site.replica.api.push_image("app", Some("v1"), "layer").await;
    let before = (site.stand.rows().await, site.keys("v1/").await);
    for request in [Request::List, Request::Get, Request::ListMultiparts] {
        for nth in 1..4 {
            let fault = Fault::at(request, Effect::Fail(Failure::Unavailable)).on(Occasion::Nth(nth));
            site.stand.execute("DELETE FROM shards", "DELETE FROM shards").await;
            site.replica.bucket.add(fault);
            let (verified, findings) = site.verify(DEEP_REPAIR).await;
            site.replica.bucket.clear();
            assert!(findings.is_empty(), "{request:?} {nth}: {findings:?}");
            if let Err(error) = verified {
                assert!(!error.is_refusal(), "{error}");
            } else {
                assert!(request == Request::ListMultiparts && nth > 1, "{request:?} {nth}: nobody noticed");
            }
        }
    }
    for step in
        ["blob_claims", "link_claims", "manifest_claims", "tag_claims", "settle", "parts", "finish_part"]
    {
        site.stand.execute("DELETE FROM shards", "DELETE FROM shards").await;
        site.replica.database.inject(step, faulty::Occasion::First(1), faulty::Effect::Fail);
        let (verified, findings) = site.verify(DEEP_REPAIR).await;
        assert!(verified.is_err() && findings.is_empty(), "{step}: {verified:?} {findings:?}");
    }
    assert_eq!((site.stand.rows().await, site.keys("v1/").await), before);
    assert_eq!(site.queued().await, Vec::<String>::new());
    site.assert_clean().await;
    site.replica.stop().await;
}

async fn a_database_that_is_not_trusted_is_not_verified(stand: Stand) {
    let site = Site::on(stand).await;
    site.replica.api.push_image("app", Some("v1"), "layer").await;
    // Not even its replica knows it yet.
    site.stand.restart().await;
    let (refused, _) = site.verify(REPAIR).await;
    let Err(error @ VerifyError::Untrusted(_)) = refused else { panic!("{refused:?}") };
    assert!(error.is_refusal() && error.to_string().contains("run `rebuild`"), "{error}");
    site.replica.stop().await;
}

async fn a_scrub_finds_by_reading_and_repairs_nothing(stand: Stand) {
    let site = Site::on(stand).await;
    let digest = site.replica.api.push_blob("app", b"right").await;
    let key = site.only(&Key::blob_prefix(&digest), |_| true).await;
    site.put(&key, b"wrong").await;
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = VerificationMetrics::register(&mut registry, ["wrong_content", "missing"]);
    let (meta, store) = (Arc::clone(&site.replica.meta), Arc::clone(&site.replica.store));
    let stopping = CancellationToken::new();
    let interval = Duration::from_millis(1);
    let settings = move || Some(Scrub { interval, bytes_per_second: 1_000_000.try_into().unwrap() });
    let scrub = Tasks::new().spawn(keep_scrubbed(meta, store, settings, metrics, stopping.clone()));
    // What was read is counted when its part is done.
    let is_counted =
        |text: &str, name: &str| text.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
    let is_found = |text: &str| {
        is_counted(text, "stowage_verify_findings_total{kind=\"wrong_content\"}")
            && is_counted(text, "stowage_verify_bytes_total")
    };
    let found = async {
        while !is_found(&exposition(&registry)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), found).await.unwrap();
    stopping.cancel();
    scrub.await.unwrap();
    let text = exposition(&registry);
    assert!(text.contains("stowage_verify_findings_total{kind=\"missing\"} 0"), "{text}");
    assert_eq!(site.replica.api.head(&format!("/v2/app/blobs/{digest}")).await.status, StatusCode::OK);
    site.replica.stop().await;
}

async fn reading_keeps_to_its_budget(stand: Stand) {
    let site = Site::on(stand).await;
    site.replica.api.push_blob("app", &vec![7; 100_000]).await;
    let slow = VerifyOptions { deep: true, bytes_per_second: 50_000.try_into().ok(), ..SHALLOW };
    let begun = tokio::time::Instant::now();
    let (verified, _) = site.verify(slow).await;
    assert_eq!(verified.unwrap().bytes, 100_000);
    // Not a claim about speed: less would break the budget.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    site.replica.stop().await;
}
