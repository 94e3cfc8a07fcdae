// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What remains of pulls when a process is killed, and when the database is another.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use stowage_oci::{Algorithm, Digest};
use stowage_registry::blobs::Store;
use stowage_registry::jobs::Collector;
use stowage_registry::key::Key;
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::postgres::{Options, PostgresStore};
use stowage_registry::ops::metrics::CollectionMetrics;

use super::{last, today};
use crate::purge::Place;
use crate::rebuild::api::image;
use crate::rebuild::stand::Stand;
use crate::support::program::{Program, program, serve};

on_both!(
    a_rebuild_knows_what_was_pulled_before_an_end_in_order,
    another_incarnation_is_told_all_of_today,
    a_snapshot_is_made_once_a_day_and_a_rebuild_reads_it,
);

async fn objects(store: &dyn Store) -> Vec<Key> {
    let listed = store.list(Key::PULLS, None, 100).await.unwrap();
    listed.iter().map(|object| object.key.parse().unwrap()).collect()
}

async fn a_rebuild_knows_what_was_pulled_before_an_end_in_order(mut stand: Stand) {
    let replica = stand.start().await;
    let image = replica.api.push_image("app", Some("v1"), "layer").await;
    replica.api.assert_pullable("app", "v1").await;
    replica.stop().await;
    assert!(
        objects(&*stand.store().await)
            .await
            .iter()
            .any(|key| matches!(key, Key::Pulls { is_last: true, .. }))
    );
    stand.lose().await;
    stand.adopt().await;
    let meta = stand.meta().await;
    assert_eq!(last(&*meta, "app", &[image]).await, [today(&*meta).await]);
    assert_eq!(meta.pull_gap().await.unwrap(), None);
}

/// A database that was restored to before today has another fence and lacks the pulls.
async fn another_incarnation_is_told_all_of_today(stand: Stand) {
    let replica = stand.start().await;
    let images = [
        replica.api.push_image("app", Some("v1"), "one").await,
        replica.api.push_image("app", Some("v2"), "two").await,
    ];
    for tag in ["v1", "v2"] {
        replica.api.assert_pullable("app", tag).await;
    }
    let (meta, day) = (&*replica.meta, today(&*replica.meta).await);
    let begun = Instant::now();
    let eventually = async |what: &str, stamps: [_; 2], gap| {
        while last(meta, "app", &images).await != stamps || meta.pull_gap().await.unwrap() != gap {
            assert!(begun.elapsed() < Duration::from_secs(90), "never: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    eventually("both are told", [day, day], None).await;
    let told = objects(&*replica.store).await;
    assert!(matches!(told[..], [Key::Pulls { is_last: false, .. }]), "the first at once: {told:?}");
    if let Stand::Postgres { .. } = stand {
        stand.execute("DELETE FROM pulls", "").await;
        stand.restart().await;
        replica.api.push_image("app", Some("v3"), "three").await;
        replica.walked().await;
        eventually("both are told again, and that nothing is missing", [day, day], None).await;
    }
    replica.stop().await;
}

async fn a_snapshot_is_made_once_a_day_and_a_rebuild_reads_it(mut stand: Stand) {
    for (tag, layer) in [("v1", "one"), ("v2", "two")] {
        let replica = stand.start().await;
        replica.api.push_image("app", Some(tag), layer).await;
        replica.api.assert_pullable("app", tag).await;
        replica.walked().await;
        let (meta, store) = (Arc::clone(&replica.meta), Arc::clone(&replica.store));
        replica.registry.clone().close().await;
        let collector = Collector::new(meta, store, CollectionMetrics::default());
        collector.collect().await.unwrap();
        drop(collector);
        replica.stop().await;
    }
    let (meta, store) = (stand.meta().await, stand.store().await);
    let told = objects(&*store).await;
    let snapshots = || told.iter().filter(|key| matches!(key, Key::PullSnapshot { .. }));
    assert_eq!(snapshots().count(), 1, "{told:?}");
    drop(meta);
    // What the snapshot covers is gone some time later.
    let last_of_first = told.iter().find(|key| matches!(key, Key::Pulls { .. })).unwrap();
    store.delete(&[last_of_first.to_string()]).await.unwrap();
    stand.lose().await;
    stand.adopt().await;
    let meta = stand.meta().await;
    let day = today(&*meta).await;
    let images =
        ["one", "two"].map(|layer| Digest::of(Algorithm::Sha256, image(layer).to_string().as_bytes()));
    assert_eq!(last(&*meta, "app", &images).await, [day, day]);
}

/// The database that the configuration names.
async fn database_of(place: &Place) -> Arc<dyn MetaStore> {
    if place.shared.is_none() {
        return place.open().await.meta;
    }
    let url = std::fs::read_to_string(place.path().join("secrets/database/url")).unwrap();
    Arc::new(PostgresStore::connect(&Options::new(url)).await.unwrap())
}

fn push(process: &Program, image: &Value, layer: &str) {
    let blob = |content: &[u8]| {
        let digest = Digest::of(Algorithm::Sha256, content);
        let target = format!("/v2/app/blobs/uploads/?digest={digest}");
        assert_eq!(process.ask("POST", &target, "", content).0, 201);
    };
    blob(b"{}");
    blob(layer.as_bytes());
    let kind = format!("Content-Type: {}\r\n", image["mediaType"].as_str().unwrap());
    let stored = process.ask("PUT", "/v2/app/manifests/v1", &kind, image.to_string().as_bytes());
    assert_eq!(stored.0, 201);
}

/// SIGKILL, and then the database goes, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_seconds_and_with_the_database_leaves_a_gap() {
    for place in [Place::embedded(), Place::clustered().await] {
        let image = image("layer");
        let digest = Digest::of(Algorithm::Sha256, image.to_string().as_bytes());
        let process = Program::start(&mut serve(place.path())).await;
        push(&process, &image, "layer");
        assert_eq!(process.ask("GET", "/v2/app/manifests/v1", "", b"").0, 200);
        let store = place.store().await;
        let begun = Instant::now();
        while objects(&*store).await.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the first is told at once");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(process);

        if place.shared.is_some() {
            let meta = database_of(&place).await;
            assert_eq!(last(&*meta, "app", &[digest]).await, [today(&*meta).await], "the database knows it");
            assert_eq!(meta.pull_gap().await.unwrap(), None);
        }
        place.lose_database().await;
        let mut rebuild: Command = program(&["rebuild", "--adopt"], place.path());
        let done = rebuild.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let meta = database_of(&place).await;
        let day = today(&*meta).await;
        assert_eq!(last(&*meta, "app", &[digest]).await, [day]);
        assert_eq!(meta.pull_gap().await.unwrap(), day, "more may have been pulled");
        drop(meta);

        // Another process does not speak for the one that was killed.
        let process = Program::start(&mut serve(place.path())).await;
        assert_eq!(process.ask("GET", "/v2/app/manifests/v1", "", b"").0, 200);
        process.stop().await;
        let meta = database_of(&place).await;
        assert_eq!(meta.pull_gap().await.unwrap(), day);
    }
}
