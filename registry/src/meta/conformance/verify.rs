// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Verification: passes, and records that are written again.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use uuid::Uuid;

use super::reconcile::unwalked;
use super::{DAY, Fixture, World, facts, fresh, name, none};
use crate::key::{Generation, Key};
use crate::meta::{Difference, DigestSpan, Error, Job, Mode, Restoration, RestoreOutcome, Scope};

const JOB: Job = Job::Verify { deep: false, repair: false };

fn parts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Some process takes a part.
async fn claim(world: &World, job: Job, spread: Duration) -> Option<(String, Uuid)> {
    let owner = Uuid::new_v4();
    let part = world.store.claim_part(job, owner, spread).await.expect("claim");
    part.map(|part| (part, owner))
}

pub async fn a_pass_is_shared_and_each_of_its_parts_is_done_by_one(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let store = &world.store;
    assert_eq!(store.pass(JOB).await.expect("pass").total, 0);
    assert_eq!(claim(&world, JOB, Duration::ZERO).await, None);
    store.begin_pass(JOB, &parts(&["b", "a"]), Duration::ZERO).await.expect("begin");
    store.begin_pass(JOB, &parts(&["other"]), Duration::ZERO).await.expect("somebody is at it");
    assert_eq!(store.parts(JOB).await.expect("parts"), ["a", "b"]);
    let (first, one) = claim(&world, JOB, Duration::ZERO).await.expect("free");
    let (second, other) = claim(&world, JOB, Duration::ZERO).await.expect("free");
    assert_eq!((first.as_str(), second.as_str()), ("a", "b"));
    assert_eq!(claim(&world, JOB, Duration::ZERO).await, None);
    assert!(store.keep_part(JOB, "a", one).await.expect("keep"));
    assert!(!store.keep_part(JOB, "a", other).await.expect("keep"));
    assert!(!store.finish_part(JOB, "a", other, 9).await.expect("finish"));
    assert!(store.finish_part(JOB, "a", one, 2).await.expect("finish"));
    // What was let go is taken by the next.
    store.release_parts(JOB, &[one, other]).await.expect("release");
    let (again, third) = claim(&world, JOB, Duration::ZERO).await.expect("free");
    assert!(again == "b" && store.finish_part(JOB, "b", third, 3).await.expect("finish"));
    let pass = store.pass(JOB).await.expect("pass");
    assert_eq!((pass.done, pass.total, pass.findings), (2, 2, 5));
    // Passes of other kinds are their own.
    assert_eq!(store.pass(Job::Scrub).await.expect("pass").total, 0);
    store.begin_pass(JOB, &parts(&["c"]), Duration::ZERO).await.expect("begin");
    let pass = store.pass(JOB).await.expect("pass");
    assert_eq!((pass.done, pass.total, pass.findings), (0, 1, 0));
}

pub async fn the_parts_of_a_pass_in_the_background_are_spread(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.store.begin_pass(Job::Scrub, &parts(&["a", "b"]), DAY).await.expect("begin");
    let (part, owner) = claim(&world, Job::Scrub, DAY).await.expect("the first is due at once");
    assert_eq!(claim(&world, Job::Scrub, DAY).await, None, "half a day has not passed");
    assert!(world.store.finish_part(Job::Scrub, &part, owner, 0).await.expect("finish"));
    assert_eq!(claim(&world, Job::Scrub, DAY).await, None);
    let (part, owner) = claim(&world, Job::Scrub, Duration::from_micros(1)).await.expect("its time has come");
    assert!(world.store.finish_part(Job::Scrub, &part, owner, 0).await.expect("finish"));
    world.store.begin_pass(Job::Scrub, &parts(&["c"]), DAY).await.expect("too early");
    assert_eq!(world.store.parts(Job::Scrub).await.expect("parts"), ["a", "b"]);
}

fn scope(world: &World, mode: Mode) -> Scope {
    Scope { epoch: world.epoch, retain: DAY, mode }
}

pub async fn nothing_is_inspected_in_an_epoch_that_is_not_walked(fixture: Fixture) {
    let world = unwalked(fixture).await;
    for mode in [Mode::Verify, Mode::Repair] {
        let refused = world.store.settle(&scope(&world, mode), &Difference::Uploads(&[])).await;
        assert!(matches!(refused, Err(Error::Superseded)), "{refused:?}");
    }
    let lost = fresh();
    let digest = facts("m", &[]).digest;
    let refused = world.store.begin_restore(world.epoch, &name("a"), &digest, lost, fresh()).await;
    assert!(matches!(refused, Err(Error::Superseded)), "{refused:?}");
}

/// A live manifest whose record is found to be lost, and its restoration.
async fn restoring(world: &World) -> (Generation, Restoration) {
    let facts = facts("m", &[]);
    let lost = world.push_manifest("a", facts.clone(), &[]).await.pin.generation;
    let generation = fresh();
    let begun = world.store.begin_restore(world.epoch, &name("a"), &facts.digest, lost, generation).await;
    match begun.expect("begin") {
        RestoreOutcome::Write(restoration) => Some((lost, *restoration)),
        _ => None,
    }
    .expect("the row has the bytes")
}

pub async fn a_record_is_restored_by_intent_and_the_lost_one_is_queued(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (lost, restoration) = restoring(&world).await;
    assert_eq!(Some(&restoration.body), facts("m", &[]).body.as_ref());
    assert!(world.store.finish_restore(world.epoch, &restoration).await.expect("finish"));
    assert!(!world.store.finish_restore(world.epoch, &restoration).await.expect("only once"));
    let digest = restoration.digest;
    let lost = Key::Manifest { repository: name("a"), digest, generation: lost };
    let queued: Vec<String> = world.rows.outbox().await.into_iter().flat_map(|row| row.steps).collect();
    assert_eq!(queued, [format!("+{lost}.x"), format!("-{lost}")]);
    let claims = world.store.manifest_claims(&name("a"), &DigestSpan::all(), 9).await;
    assert_eq!(claims.expect("claims")[0].generation, Some(restoration.generation));
}

pub async fn a_restored_record_of_a_row_that_went_is_queued(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (_, restoration) = restoring(&world).await;
    let digest = restoration.digest;
    world.store.delete_manifest(world.epoch, &name("a"), &digest, DAY, &none).await.expect("delete");
    assert!(!world.store.finish_restore(world.epoch, &restoration).await.expect("finish"));
    let written = Key::Manifest { repository: name("a"), digest, generation: restoration.generation };
    let queued: Vec<String> = world.rows.outbox().await.into_iter().flat_map(|row| row.steps).collect();
    assert!(queued.contains(&format!("-{written}")), "{queued:?}");
}
