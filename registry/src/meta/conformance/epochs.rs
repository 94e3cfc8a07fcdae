// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Incarnations of the database: founding, taking over, and what a change of them stops.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use uuid::Uuid;

use super::{DAY, Fixture, World, digest, facts, fresh, name, none, pin, tag};
use crate::meta::{Epoch, Error};

fn superseded<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Superseded))
}

pub async fn an_empty_database_is_founded_once(fixture: Fixture) {
    let store = &fixture.store;
    store.ping().await.expect("ping");
    assert_eq!(store.envelope().await.expect("envelope"), None);
    let registry = Uuid::new_v4();
    assert!(store.found(registry).await.expect("found"));
    assert!(!store.found(Uuid::new_v4()).await.expect("found"));
    let envelope = store.envelope().await.expect("envelope").expect("it is founded");
    assert_eq!((envelope.registry, envelope.epoch), (registry, Epoch(0)));
    assert!(!envelope.ours && !envelope.walked, "nobody has taken it over yet");
}

pub async fn an_epoch_is_claimed_above_database_and_bucket(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(world.epoch, Epoch(1));
    let store = &world.store;
    assert_eq!(store.claim_epoch(9, fresh()).await.expect("claim"), None, "the incarnation is known");
    world.rows.restart().await;
    world.rows.pass(DAY).await;
    let generation = fresh();
    assert_eq!(store.claim_epoch(9, generation).await.expect("claim"), Some(10));
    let envelope = store.envelope().await.expect("envelope").expect("founded");
    assert_eq!((envelope.epoch, envelope.ours), (Epoch(1), false), "a claim is not yet an epoch");
    assert!(!store.enter_epoch(10, fresh()).await.expect("somebody else's claim"));
    assert!(store.enter_epoch(10, generation).await.expect("enter"));
    let envelope = store.envelope().await.expect("envelope").expect("founded");
    assert_eq!((envelope.epoch, envelope.ours, envelope.walked), (Epoch(10), true, false));
}

pub async fn one_claim_stands_until_it_runs_out(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.rows.restart().await;
    world.rows.pass(DAY).await;
    let (crashed, next) = (fresh(), fresh());
    let first = world.store.claim_epoch(0, crashed).await.expect("claim").expect("free");
    assert_eq!(world.store.claim_epoch(0, next).await.expect("claim"), None, "another claim stands");
    world.rows.pass(Duration::from_secs(31)).await;
    let second = world.store.claim_epoch(0, next).await.expect("claim").expect("it ran out");
    assert!(second > first);
    assert!(!world.store.enter_epoch(first, crashed).await.expect("enter"), "a later claim won");
    assert!(world.store.enter_epoch(second, next).await.expect("enter"));
}

pub async fn a_restart_supersedes_every_deciding_step(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let (_, commit) = world.receive("a", "y").await;
    let pinned = world.pin("a", facts("n", &[]), &["v1"]).await;
    let (a, b, old, store) = (name("a"), name("b"), world.epoch, &world.store);
    let mount = store.begin_mount(old, &a, &b, &stored.digest, fresh()).await.expect("begin").expect("seen");

    world.rows.restart().await;
    for entered in [false, true] {
        if entered {
            world.rows.pass(DAY / 2).await;
            let generation = fresh();
            let claim = store.claim_epoch(0, generation).await.expect("claim").expect("free");
            assert!(store.enter_epoch(claim, generation).await.expect("enter"));
        }
        assert!(superseded(&store.commit_blob(old, &commit).await), "{entered}");
        assert!(superseded(&store.begin_mount(old, &a, &b, &stored.digest, fresh()).await), "{entered}");
        assert!(superseded(&store.finish_mount(old, &mount).await), "{entered}");
        assert!(superseded(&store.pin_manifest(old, &pin("a", facts("o", &[]), &[])).await), "{entered}");
        assert!(superseded(&store.publish_manifest(&pinned).await), "{entered}");
        assert!(superseded(&store.delete_tag(old, &a, &tag("v1"), DAY).await), "{entered}");
        assert!(superseded(&store.delete_manifest(old, &a, &digest("m"), DAY, &none).await), "{entered}");
        assert!(superseded(&store.delete_blob(old, &a, &stored.digest).await), "{entered}");
        assert!(!store.finish_walk(old).await.expect("walk"), "{entered}");
        let stored = &stored.digest;
        for count in 1..3 {
            let tags = vec![(a.clone(), tag("v1")); count];
            assert!(superseded(&store.tagged(old, &tags).await), "{entered} {count}");
            let manifests = vec![(a.clone(), digest("m")); count];
            assert!(superseded(&store.manifests(old, &manifests).await), "{entered} {count}");
            let blobs = vec![(a.clone(), *stored); count];
            assert!(superseded(&store.blobs(old, &blobs).await), "{entered} {count}");
        }
        assert!(superseded(&store.tags(old, &a, None, 10).await), "{entered}");
        assert!(superseded(&store.referrers(old, &a, stored, &[], None, 10).await), "{entered}");
        assert!(superseded(&store.repositories(old, None, 10).await), "{entered}");
    }
    let current = store.envelope().await.expect("envelope").expect("founded").epoch;
    let rows = store.tagged(current, &[(a, tag("v1"))]).await.expect("tagged");
    assert_eq!(rows[0].as_ref().map(|row| row.digest), Some(digest("m")), "nothing has changed");
    assert_eq!(world.rows.intents().await.len(), 2, "what was begun is left to the walk");
}

pub async fn an_epoch_is_walked_when_its_walk_has_ended(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let walked = async || world.store.envelope().await.expect("envelope").is_some_and(|it| it.walked);
    assert!(walked().await);
    world.rows.restart().await;
    world.rows.pass(DAY).await;
    let generation = fresh();
    let claim = world.store.claim_epoch(0, generation).await.expect("claim").expect("free");
    assert!(world.store.enter_epoch(claim, generation).await.expect("enter"));
    assert!(!walked().await);
    assert!(world.store.finish_walk(Epoch(claim)).await.expect("walk"));
    assert!(walked().await);
}
