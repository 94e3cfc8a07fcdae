// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What waits for its promotion: taken when it is due, by one; found among the tags again.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use super::ledger::record;
use super::{Fixture, HOUR, World, digest, facts, name, tag};
use crate::meta::{
    LedgerPolicy, LedgerRecord, PromotionCandidate, RequestedPromotion, TakenCandidate, Unpromoted,
};

const LEASE: Duration = Duration::from_mins(2);

fn candidate(policy: &str, tag_name: &str, content: &str) -> PromotionCandidate {
    PromotionCandidate {
        policy: policy.to_owned(),
        repository: name("staging/app"),
        tag: tag(tag_name),
        digest: digest(content),
        hash: "sha256:x".to_owned(),
    }
}

impl World {
    /// In a registry that has the repository.
    async fn with_staging(fixture: Fixture) -> Self {
        let world = Self::begin(fixture).await;
        world.push_manifest("staging/app", facts("one", &[]), &["v1"]).await;
        world
    }

    async fn wait(&self, policy: &str, tag_name: &str, content: &str) {
        let candidate = candidate(policy, tag_name, content);
        self.store.await_promotion(&candidate).await.expect("await");
    }

    async fn take_candidate(&self, policy: &str) -> Option<TakenCandidate> {
        self.store.take_candidate(&[policy.to_owned()], LEASE).await.expect("take")
    }

    async fn next_candidate(&self, policy: &str) -> Option<Duration> {
        self.store.next_candidate(&[policy.to_owned()]).await.expect("next")
    }

    async fn unpromoted(&self, hash: &str, target: &str) -> Vec<String> {
        let (repository, target) = (name("staging/app"), name(target));
        let wanted = Unpromoted { repository: &repository, policy: "to-prod", hash, target: &target };
        let found = self.store.unpromoted(&wanted, None, 10).await.expect("unpromoted");
        found.into_iter().map(|(tag, _)| tag.to_string()).collect()
    }
}

pub async fn what_waits_is_taken_by_one_and_for_its_policy(fixture: Fixture) {
    let world = World::with_staging(fixture).await;
    assert!(world.take_candidate("p").await.is_none() && world.next_candidate("p").await.is_none());
    world.wait("p", "v1", "one").await;
    world.wait("other", "v1", "one").await;
    assert_eq!(world.next_candidate("p").await, Some(Duration::ZERO));
    let taken = world.take_candidate("p").await.expect("it is due");
    assert_eq!((&taken.candidate, taken.tries), (&candidate("p", "v1", "one"), 1));
    assert!(taken.waiting < HOUR);
    assert!(world.take_candidate("p").await.is_none(), "somebody has it");
    assert!(world.next_candidate("p").await.is_some_and(|wait| !wait.is_zero() && wait <= LEASE));
    world.rows.pass(LEASE).await;
    let again = world.take_candidate("p").await.expect("its taker has gone");
    assert_eq!((again.id, again.tries), (taken.id, 2));
    assert!(again.waiting >= LEASE);
    world.store.end_candidate(&again).await.expect("end");
    world.rows.pass(LEASE).await;
    assert!(world.take_candidate("p").await.is_none() && world.next_candidate("p").await.is_none());
    assert_eq!(
        world.take_candidate("other").await.expect("it waits").candidate,
        candidate("other", "v1", "one")
    );
}

pub async fn a_tag_that_moved_waits_anew(fixture: Fixture) {
    let world = World::with_staging(fixture).await;
    world.wait("p", "v1", "one").await;
    assert!(world.take_candidate("p").await.is_some(), "it is due");
    world.wait("p", "v1", "one").await;
    assert!(world.take_candidate("p").await.is_none(), "it waits already");
    world.rows.pass(HOUR).await;
    let edited = PromotionCandidate { hash: "sha256:y".to_owned(), ..candidate("p", "v1", "one") };
    world.store.await_promotion(&edited).await.expect("await");
    let taken = world.take_candidate("p").await.expect("its policy was edited");
    assert!(taken.candidate == edited && taken.tries == 1 && taken.waiting >= HOUR);
    world.wait("p", "v1", "two").await;
    world.store.postpone_candidate(&taken, HOUR).await.expect("postpone");
    world.store.end_candidate(&taken).await.expect("end");
    let anew = world.take_candidate("p").await.expect("the other one is due");
    assert_eq!((anew.candidate.digest, anew.tries), (digest("two"), 1));
    assert!(anew.waiting < HOUR, "it has just come");
}

pub async fn what_was_postponed_is_due_then_or_when_it_is_hastened(fixture: Fixture) {
    let world = World::with_staging(fixture).await;
    world.wait("p", "v1", "one").await;
    let taken = world.take_candidate("p").await.expect("it is due");
    world.store.postpone_candidate(&taken, 2 * HOUR).await.expect("postpone");
    world.rows.pass(HOUR).await;
    assert!(world.take_candidate("p").await.is_none());
    world.store.hasten_promotions(&name("staging/app"), &digest("other")).await.expect("hasten");
    world.store.hasten_promotions(&name("other"), &digest("one")).await.expect("hasten");
    assert!(world.take_candidate("p").await.is_none(), "that is about something else");
    world.store.hasten_promotions(&name("staging/app"), &digest("one")).await.expect("hasten");
    let taken = world.take_candidate("p").await.expect("it was hastened");
    world.store.hasten_promotions(&name("staging/app"), &digest("one")).await.expect("hasten");
    world.store.postpone_candidate(&taken, HOUR).await.expect("postpone");
    let taken = world.take_candidate("p").await.expect("it was hastened while it was looked at");
    world.store.postpone_candidate(&taken, HOUR).await.expect("postpone");
    world.rows.pass(HOUR).await;
    assert!(world.take_candidate("p").await.is_some(), "its time has come");
}

pub async fn what_was_asked_for_counts_as_waiting_and_nobody_takes_it(fixture: Fixture) {
    let world = World::with_staging(fixture).await;
    let (repository, first) = (name("staging/app"), tag("v1"));
    let asked = |id, tag| {
        let (repository, digest) = (&repository, digest("one"));
        RequestedPromotion { id, policy: "p", hash: "sha256:x", repository, tag, digest }
    };
    let pending = async || world.store.retention_facts(&repository).await.expect("facts").pending;
    world.store.keep_requested(&asked("prod/a", Some(&first)), HOUR).await.expect("keep");
    world.store.keep_requested(&asked("prod/b", None), 2 * HOUR).await.expect("keep");
    assert_eq!(pending().await, [digest("one")]);
    assert!(world.take_candidate("p").await.is_none() && world.next_candidate("p").await.is_none());
    world.store.end_requested("prod/b").await.expect("end");
    world.store.end_requested("").await.expect("end");
    assert_eq!(pending().await, [digest("one")], "the other one still waits");
    world.wait("p", "v1", "one").await;
    let taken = world.take_candidate("p").await.expect("it waits by itself, too");
    world.store.end_candidate(&taken).await.expect("end");
    world.store.hasten_promotions(&repository, &digest("one")).await.expect("hasten");
    world.store.forget_candidates(&[]).await.expect("forget");
    assert_eq!(pending().await, [digest("one")], "whoever asked knows its policy, and asks again");
    world.rows.pass(HOUR).await;
    world.store.forget_candidates(&[]).await.expect("forget");
    assert!(pending().await.is_empty(), "nobody said anything for so long");
}

pub async fn what_waits_for_no_policy_is_forgotten(fixture: Fixture) {
    let world = World::with_staging(fixture).await;
    world.wait("p", "v1", "one").await;
    world.wait("other", "v1", "one").await;
    world.store.forget_candidates(&["other".to_owned()]).await.expect("forget");
    assert!(world.take_candidate("p").await.is_none());
    assert!(world.take_candidate("other").await.is_some());
}

pub async fn a_tag_that_was_promoted_or_judged_is_not_found_again(fixture: Fixture) {
    let world = World::with_staging(fixture).await;
    world.push_manifest("staging/app", facts("two", &[]), &["v2", "v3"]).await;
    assert_eq!(world.unpromoted("sha256:x", "prod/app").await, ["v1", "v2", "v3"]);

    let pinned = world.pin_promotion("one", None).await.expect("nothing is in the way");
    world.publish(&pinned).await;
    assert_eq!(world.unpromoted("sha256:y", "prod/app").await, ["v2", "v3"], "whatever the rules were");
    assert_eq!(world.unpromoted("sha256:y", "elsewhere").await, ["v1", "v2", "v3"]);

    let judged = record("two", None);
    let judged = LedgerRecord {
        source: crate::meta::LedgerSource { tag: Some(tag("v2")), ..judged.source },
        policy: LedgerPolicy { hash: "sha256:y".to_owned(), ..judged.policy },
        ..judged
    };
    world.store.note_promotion(&judged, "GateFailed").await.expect("note");
    assert_eq!(world.unpromoted("sha256:y", "prod/app").await, ["v3"]);
    assert_eq!(world.unpromoted("sha256:z", "prod/app").await, ["v2", "v3"], "other rules may let it");

    world.push_manifest("staging/app", facts("three", &[]), &["v1"]).await;
    let removal = world.store.delete_tag(world.epoch, &name("staging/app"), &tag("v3"), HOUR).await;
    world.finish(&removal.expect("delete").expect("there is one")).await;
    assert_eq!(world.unpromoted("sha256:y", "prod/app").await, ["v1"], "it names something else");
}
