// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How other registries lost what was pushed again while it was deleted, or never removed what was forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use stowage_registry::blobs::{Effect, Fault, Faulty, Gate, Occasion, Request};
use stowage_registry::jobs::Collector;
use stowage_registry::ops::metrics::CollectionMetrics;

use super::site::{IMAGE, INDEX, Site, described, image, sha256};

async fn assert_whole(site: &Site, layer: &[u8]) {
    assert_eq!(site.get("/v2/a/manifests/v1").await.status, StatusCode::OK);
    let target = format!("/v2/a/blobs/{}", sha256(layer));
    assert_eq!(site.send(Method::HEAD, &target, "text/plain", b"").await.status, StatusCode::OK);
    let blob = site.get(&target).await;
    assert_eq!((blob.status, &blob.body[..]), (StatusCode::OK, layer));
}

/// Pushes an image and deletes it; the collector stands at the removal of the layer's data, and its row is gone. Then
/// the same is pushed again.
async fn push_again_while_it_is_removed(site: &Site, held: impl Fn(Gate) -> Effect) {
    const LAYER: &[u8] = b"again";
    // So that the configuration stays, and the layer goes alone.
    site.push_image("a", "kept", &[b"kept"]).await;
    let digest = site.push_image("a", "v1", &[LAYER]).await;
    site.delete(&format!("/v2/a/manifests/{digest}")).await;
    let (store, faults) = Faulty::over(Arc::clone(&site.store));
    let collector = Collector::new(Arc::clone(&site.meta), Arc::new(store), CollectionMetrics::default());
    let gate = Gate::new();
    // Its data is what goes last.
    let data = sha256(LAYER).to_string().replace("sha256:", "/");
    faults.add(Fault::at(Request::Delete, held(gate.clone())).matching(data).on(Occasion::Nth(1)));
    let collecting = async {
        for _ in 0..500 {
            collector.collect().await.unwrap();
            if faults.struck() > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it was never removed: {:#?}", site.left().await);
    };
    let pushing = async {
        gate.reached().await;
        assert_eq!(site.get(&format!("/v2/a/blobs/{}", sha256(LAYER))).await.status, StatusCode::NOT_FOUND);
        site.push_image("a", "v1", &[LAYER]).await;
        // At once, and when the removal has ended.
        assert_whole(site, LAYER).await;
        gate.release();
    };
    let both = async { tokio::join!(collecting, pushing) };
    tokio::time::timeout(Duration::from_mins(2), both).await.unwrap();
    assert_whole(site, LAYER).await;
    site.collect_all().await;
    assert_whole(site, LAYER).await;
}

async fn l_09_w889_what_is_pushed_while_its_removal_begins_is_there_at_once_and_stays(site: Site) {
    push_again_while_it_is_removed(&site, Effect::HoldBefore).await;
}

async fn l_10_what_is_pushed_while_the_answer_of_its_removal_is_on_its_way_stays(site: Site) {
    push_again_while_it_is_removed(&site, Effect::HoldAfter).await;
}

/// All that a registry ever removed, removed once more.
async fn l_09_l_11_a_removal_that_is_repeated_much_later_hits_nothing(site: Site) {
    let mut removed: BTreeSet<String> = BTreeSet::new();
    let mut ever: BTreeSet<String> = BTreeSet::new();
    for _ in 0..3 {
        let digest = site.push_image("a", "v1", &[b"once", b"more"]).await;
        // Moved, so that the records of a tag are superseded.
        site.push_image("a", "v1", &[b"else"]).await;
        site.put_manifest("a", "v1", &image(&[b"once", b"more"])).await;
        let before: BTreeSet<String> = site.left().await.into_iter().collect();
        assert!(before.is_disjoint(&removed), "a key came back");
        ever.extend(before);
        for digest in [digest, sha256(image(&[b"else"]).to_string().as_bytes())] {
            site.delete(&format!("/v2/a/manifests/{digest}")).await;
        }
        site.collect_all().await;
        let after: BTreeSet<String> = site.left().await.into_iter().collect();
        removed.extend(ever.difference(&after).cloned());
    }
    assert!(removed.len() > 30, "{removed:?}");
    site.push_image("a", "v1", &[b"once", b"more"]).await;
    let removed: Vec<String> = removed.into_iter().collect();
    let present = site.left().await;
    site.store.delete(&removed).await.unwrap();
    assert_eq!(site.left().await, present);
    for layer in [&b"once"[..], b"more", b"{}"] {
        assert_whole(&site, layer).await;
    }
}

/// References go while candidates are looked at, by several collectors at once: a candidate that was lost in between
/// would lie there for ever.
async fn l_21_a_candidate_that_is_queued_while_it_is_looked_at_is_not_lost(site: Site) {
    for round in 0..12_u8 {
        let mut images = Vec::new();
        for number in 0..4_u8 {
            let repository = format!("r{}", number % 2);
            let layers: [&[u8]; 2] = [&[b's', round], &[b'o', round, number]];
            images.push((
                repository.clone(),
                site.push_image(&repository, &format!("t{number}"), &layers).await,
            ));
        }
        let delete = async {
            for (repository, digest) in &images {
                site.delete(&format!("/v2/{repository}/manifests/{digest}")).await;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let collect = async || {
            for _ in 0..4 {
                site.collect().await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::join!(delete, collect(), collect(), collect());
    }
    site.collect_all().await;
    assert_eq!(site.left().await, Vec::<String>::new());
}

super::both_sites! {
    l_09_w889_what_is_pushed_while_its_removal_begins_is_there_at_once_and_stays,
    l_10_what_is_pushed_while_the_answer_of_its_removal_is_on_its_way_stays,
    l_09_l_11_a_removal_that_is_repeated_much_later_hits_nothing,
    l_21_a_candidate_that_is_queued_while_it_is_looked_at_is_not_lost,
}

/// Everybody at the same few rows, in every order. `SQLite` has one writer and no locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_20_writers_and_collectors_of_the_same_rows_never_wait_for_each_other_in_a_circle() {
    const LAYERS: [&[u8]; 4] = [b"one", b"two", b"three", b"four"];
    const ROUNDS: usize = 20;
    let (site, url) = Site::clustered_at().await;
    for repository in ["a", "b"] {
        for layer in LAYERS {
            site.push_blob(repository, layer).await;
        }
        site.push_blob(repository, b"{}").await;
    }
    let writer = async |number: usize| {
        let repository = ["a", "b"][number % 2];
        for round in 0..ROUNDS {
            let mut layers = LAYERS;
            layers.rotate_left((number + round) % LAYERS.len());
            if number.is_multiple_of(3) {
                layers.reverse();
            }
            for layer in &layers[..2] {
                let target = format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(layer));
                let push = || site.send(Method::POST, &target, "application/octet-stream", layer);
                let mut pushed = push().await;
                // What takes longer than the brief times of this site allow is overtaken, and repeated.
                for _ in 0..ROUNDS {
                    if pushed.status == StatusCode::SERVICE_UNAVAILABLE {
                        pushed = push().await;
                    }
                }
                assert!(pushed.status == StatusCode::CREATED, "{:?}", pushed.body);
            }
            let manifest = image(&layers[..2]);
            let (text, digest) = (manifest.to_string(), sha256(manifest.to_string().as_bytes()));
            // Several tags in one request, each time in another order.
            let mut tags = ["t1", "t2", "t3"];
            tags.rotate_left(number % 3);
            let target = format!("/v2/{repository}/manifests/{digest}?tag={}", tags.join("&tag="));
            let put = site.send(Method::PUT, &target, IMAGE, text.as_bytes()).await;
            // What was collected meanwhile is refused, and pushed again in the next round.
            assert!(
                put.status == StatusCode::CREATED || put.status == StatusCode::BAD_REQUEST,
                "{:?}",
                put.body
            );
            let child = described(IMAGE, text.as_bytes());
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [child] }).to_string();
            let target = format!("/v2/{repository}/manifests/{}", tags[0]);
            site.send(Method::PUT, &target, INDEX, index.as_bytes()).await;
            for target in [tags[1].to_owned(), sha256(index.as_bytes()).to_string(), digest.to_string()] {
                let target = format!("/v2/{repository}/manifests/{target}");
                let deleted = site.send(Method::DELETE, &target, "text/plain", b"").await;
                assert!(!deleted.status.is_server_error(), "{target}: {:?}", deleted.body);
            }
        }
    };
    let collector = async || {
        for _ in 0..ROUNDS * 2 {
            site.collect().await.unwrap();
        }
    };
    let writers = futures::future::join_all((0..6).map(writer));
    tokio::join!(writers, collector(), collector());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(&mut connection).await.unwrap();
    assert_eq!(deadlocks, 0);
}
