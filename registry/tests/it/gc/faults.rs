// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A bucket that fails: nothing goes on account of what could not be read.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use stowage_registry::blobs::{Effect, Failure, Fault, Faulty, Occasion, Request};
use stowage_registry::jobs::Collector;
use stowage_registry::ops::metrics::CollectionMetrics;

use super::site::{Site, image, sha256};

async fn filled(site: &Site) {
    site.push_image("kept", "v1", &[b"kept", b"shared"]).await;
    site.push_image("dropped", "v1", &[b"dropped", b"shared"]).await;
    let digest = sha256(image(&[b"dropped", b"shared"]).to_string().as_bytes());
    site.delete(&format!("/v2/dropped/manifests/{digest}")).await;
    // All graces are a moment.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn assert_whole(site: &Site) {
    assert_eq!(site.get("/v2/kept/manifests/v1").await.status, StatusCode::OK);
    for layer in ["{}", "kept", "shared"] {
        let blob = site.get(&format!("/v2/kept/blobs/{}", sha256(layer.as_bytes()))).await;
        assert_eq!((blob.status, &blob.body[..]), (StatusCode::OK, layer.as_bytes()));
    }
}

async fn l_14_while_the_bucket_fails_nothing_goes_and_later_all_does(site: Site) {
    filled(&site).await;
    let (store, faults) = Faulty::over(Arc::clone(&site.store));
    let collector = Collector::new(Arc::clone(&site.meta), Arc::new(store), CollectionMetrics::default());
    let before = site.left().await;
    for request in [Request::Get, Request::List, Request::Delete] {
        for failure in [Failure::Unavailable, Failure::Refused] {
            faults.add(Fault::at(request, Effect::Fail(failure)));
            // What failed is put off: a later pass may find nothing due.
            let failed = loop {
                match collector.collect().await {
                    Err(failed) => break failed,
                    Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            assert!(!failed.is_refusal() && faults.struck() > 0, "{request:?}: {failed}");
            faults.clear();
            let left = site.left().await;
            let gone: Vec<&String> = before.iter().filter(|key| !left.contains(key)).collect();
            assert!(gone.is_empty(), "{request:?}: {gone:?}");
        }
    }
    site.collect_all().await;
    assert_whole(&site).await;
    assert_eq!(site.left().await.len(), 8, "{:#?}", site.left().await);
}

async fn l_02_a_pass_that_ends_at_any_request_is_finished_by_the_next(site: Site) {
    filled(&site).await;
    let (store, faults) = Faulty::over(Arc::clone(&site.store));
    let collector = Collector::new(Arc::clone(&site.meta), Arc::new(store), CollectionMetrics::default());
    for nth in 1..=12 {
        for effect in [Effect::LoseAnswer, Effect::Fail(Failure::Unavailable)] {
            faults.add(Fault::anywhere(effect).on(Occasion::Nth(nth)));
            let _either_way = collector.collect().await;
            faults.clear();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_whole(&site).await;
    site.collect_all().await;
    assert_whole(&site).await;
    assert_eq!(site.left().await.len(), 8, "{:#?}", site.left().await);
}

super::both_sites! {
    l_14_while_the_bucket_fails_nothing_goes_and_later_all_does,
    l_02_a_pass_that_ends_at_any_request_is_finished_by_the_next,
}
