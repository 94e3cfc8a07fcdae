// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was promoted: recorded in one step with the tag, finished by whoever, made again from the bucket.
#![expect(missing_docs, reason = "a claim is its name")]
#![expect(clippy::panic, reason = "these are tests, compiled into the library")]

use std::time::Duration;

use stowage_oci::Digest;

use super::reconcile::unwalked;
use super::{Fixture, HOUR, World, digest, facts, fresh, name, pin, tag, tag_key};
use crate::key::{Key, Version};
use crate::meta::{
    Difference, DigestSpan, ExpiredIntent, LedgerClaim, LedgerEntry, LedgerFilter, LedgerFound, LedgerPlace,
    LedgerPolicy, LedgerRecord, LedgerSource, LedgerTarget, Mode, Outcome, PROMOTED, Pin, PinOutcome, Pinned,
    PublishOutcome, Reaped, Scope,
};

pub(super) fn record(content: &str, previous: Option<Digest>) -> LedgerRecord {
    LedgerRecord {
        v: 1,
        promotion: Some("prod/x".to_owned()),
        at: "2026-03-01T06:00:00Z".to_owned(),
        digest: digest(content),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        source: LedgerSource { repository: name("staging/app"), tag: Some(tag("v1")) },
        target: LedgerTarget { repository: name("prod/app"), tag: tag("v1"), previous_digest: previous },
        policy: LedgerPolicy {
            name: "to-prod".to_owned(),
            generation: Some(3),
            hash: "sha256:x".to_owned(),
            spec: None,
        },
        requested_by: Some("carol".to_owned()),
        actor: "operator".to_owned(),
        approvals: Vec::new(),
        gates: Vec::new(),
        referrers: Vec::new(),
        reason: None,
    }
}

fn promotion(content: &str, previous: Option<Digest>) -> Pin {
    let ledger = Some(Box::new(record(content, previous)));
    Pin { ledger, ..pin("prod/app", facts(content, &[]), &["v1"]) }
}

fn ledger_key(pinned: &Pinned) -> Key {
    let (set, digest) = (pinned.tags.first().expect("it has a tag"), pinned.pin.facts.digest);
    Key::Ledger { repository: name("prod/app"), digest, version: set.version, generation: set.generation }
}

impl World {
    pub(super) async fn pin_promotion(&self, content: &str, previous: Option<Digest>) -> Option<Pinned> {
        match self.store.pin_manifest(self.epoch, &promotion(content, previous)).await.expect("pin") {
            PinOutcome::Pinned(pinned) => Some(*pinned),
            PinOutcome::Moved | PinOutcome::Immutable(_) => None,
            PinOutcome::Missing(missing) => panic!("{missing:?}"),
        }
    }

    async fn promoted(&self, content: &str) -> Vec<LedgerEntry> {
        self.store.promotions_into(&name("prod/app"), &digest(content), 10).await.expect("promotions")
    }

    /// The outcomes of what fits, newest first, read in pages of two.
    async fn listed(&self, filter: &LedgerFilter) -> Vec<String> {
        let (mut outcomes, mut after) = (Vec::new(), LedgerPlace::START);
        loop {
            let page = self.store.list_promotions(filter, after, 2).await.expect("list");
            let Some((last, _)) = page.last() else { return outcomes };
            after = *last;
            outcomes.extend(page.into_iter().map(|(_, entry)| entry.outcome));
        }
    }

    async fn expired(&self) -> ExpiredIntent {
        self.rows.pass(HOUR).await;
        self.store.expired_intents(0, 10).await.expect("intents").pop().expect("one is expired")
    }

    async fn ledger_claims(&self) -> Vec<LedgerClaim> {
        self.store.ledger_claims(&name("prod/app"), &DigestSpan::all(), 10).await.expect("claims")
    }
}

pub async fn a_promotion_is_recorded_in_one_step_with_its_tag(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.pin_promotion("one", None).await.expect("nothing is in the way");
    assert!(world.promoted("one").await.is_empty(), "it did not take effect");
    let keys = world.rows.intents().await.pop().expect("an intent");
    assert!(keys.contains(&ledger_key(&pinned).to_string()), "{keys:?}");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    assert_eq!(world.tag("prod/app", "v1").await, Some(digest("one")));
    let entries = world.promoted("one").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].outcome.as_str(), &entries[0].record), (PROMOTED, &record("one", None)));
    assert_eq!(entries[0].at, pinned.tags[0].generation.milliseconds());

    let back = world.pin_promotion("two", Some(digest("one"))).await.expect("the tag is what it was");
    assert_eq!(world.publish(&back).await, PublishOutcome::Published);
    let again = world.pin_promotion("one", Some(digest("two"))).await.expect("a rollback");
    assert_eq!(world.publish(&again).await, PublishOutcome::Published);
    let entries = world.promoted("one").await;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].record.target.previous_digest, Some(digest("two")), "the newest is first");
    assert!(world.store.promotions_into(&name("other"), &digest("one"), 10).await.expect("other").is_empty());
}

pub async fn nothing_is_promoted_over_a_tag_that_has_become_another(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("prod/app", facts("pushed", &[]), &["v1"]).await;
    assert!(world.pin_promotion("one", None).await.is_none(), "it was decided when there was no tag");
    assert!(world.pin_promotion("one", Some(digest("other"))).await.is_none());
    let under_way = world.pin("prod/app", facts("pushed later", &[]), &["v1"]).await;
    assert!(
        world.pin_promotion("one", Some(digest("pushed"))).await.is_none(),
        "somebody is about to set it"
    );
    assert_eq!(world.publish(&under_way).await, PublishOutcome::Published);
    let pinned = world.pin_promotion("one", Some(digest("pushed later"))).await;
    assert!(pinned.is_some());
    assert!(world.pin_promotion("one", Some(digest("pushed later"))).await.is_none(), "so are we");
}

pub async fn a_deleted_tag_is_no_tag_to_a_promotion(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("prod/app", facts("pushed", &[]), &["v1"]).await;
    let removal = world.store.delete_tag(world.epoch, &name("prod/app"), &tag("v1"), HOUR).await;
    world.finish(&removal.expect("delete").expect("there is one")).await;
    assert!(world.pin_promotion("one", Some(digest("pushed"))).await.is_none());
    let pinned = world.pin_promotion("one", None).await.expect("there is none");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    assert_eq!(world.tag("prod/app", "v1").await, Some(digest("one")));
}

pub async fn an_expired_promotion_whose_records_are_there_is_finished(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.pin_promotion("one", None).await.expect("nothing is in the way");
    let intent = world.expired().await;
    assert_eq!(intent.ledger.as_deref(), pinned.pin.ledger.as_deref());
    let found: Vec<Key> = intent.keys.iter().map(|key| key.parse().expect("a key")).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    let reaped = world.store.reap_intent(world.epoch, &intent, &found).await.expect("reap");
    assert_eq!(reaped, Reaped::Finished);
    assert_eq!(world.tag("prod/app", "v1").await, Some(digest("one")));
    assert_eq!(world.promoted("one").await.len(), 1);
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published, "its writer learns of it");
    assert_eq!(world.promoted("one").await.len(), 1);
}

pub async fn an_expired_promotion_without_its_record_is_not_recorded(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.pin_promotion("one", None).await.expect("nothing is in the way");
    let intent = world.expired().await;
    let keys: Vec<Key> = intent.keys.iter().map(|key| key.parse().expect("a key")).collect();
    let found: Vec<Key> = keys.into_iter().filter(|key| *key != ledger_key(&pinned)).collect();
    let reaped = world.store.reap_intent(world.epoch, &intent, &found).await.expect("reap");
    assert_eq!(reaped, Reaped::Finished, "the tag was seen, perhaps");
    assert!(world.promoted("one").await.is_empty());
    assert!(world.queued(&format!("-{}", ledger_key(&pinned))).await.is_some());
    let late = world.publish(&pinned).await;
    assert_eq!(late, PublishOutcome::StartOver, "its writer is not told that it is done");

    let other = world.pin_promotion("two", Some(digest("one"))).await.expect("nothing is in the way");
    let intent = world.expired().await;
    let reaped = world.store.reap_intent(world.epoch, &intent, &[]).await.expect("reap");
    assert_eq!(reaped, Reaped::Withdrawn);
    for key in [ledger_key(&other), tag_key("prod/app", &other)] {
        assert!(world.queued(&format!("-{key}")).await.is_some(), "{key}");
    }
    assert!(world.promoted("two").await.is_empty());
}

pub async fn the_record_of_a_promotion_is_never_removed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.pin_promotion("one", None).await.expect("nothing is in the way");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    let discarded = world.store.discard(world.epoch, &[ledger_key(&pinned)]).await;
    assert!(matches!(discarded, Err(crate::meta::Error::Live { .. })), "{discarded:?}");
}

pub async fn a_promotion_that_did_not_take_effect_is_no_promotion(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.store.note_promotion(&record("one", None), "TagConflict").await.expect("note");
    assert!(world.promoted("one").await.is_empty());
    assert!(world.ledger_claims().await.is_empty(), "it has no record");
}

pub async fn promotions_are_listed_newest_first_by_what_is_asked_for(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.pin_promotion("one", None).await.expect("nothing is in the way");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    let by_other = LedgerPolicy { name: "other".to_owned(), ..record("one", None).policy };
    let from_other = LedgerSource { repository: name("other/app"), tag: None };
    for (record, outcome) in [
        (record("two", None), "TagConflict"),
        (LedgerRecord { policy: by_other, ..record("one", None) }, "GateFailed"),
        (LedgerRecord { source: from_other, ..record("one", None) }, "Expired"),
    ] {
        world.store.note_promotion(&record, outcome).await.expect("note");
    }
    let all = LedgerFilter::default();
    let of = |repository: &str| LedgerFilter { repository: Some(name(repository)), ..all.clone() };
    let by = |policy: &str| LedgerFilter { policy: Some(policy.to_owned()), ..all.clone() };
    assert_eq!(world.listed(&all).await, ["Expired", "GateFailed", "TagConflict", PROMOTED]);
    assert_eq!(world.listed(&of("prod/app")).await, world.listed(&all).await, "where they went");
    assert_eq!(world.listed(&of("other/app")).await, ["Expired"], "where it came from");
    assert_eq!(world.listed(&by("other")).await, ["GateFailed"]);
    let two = LedgerFilter { digest: Some(digest("two")), ..all.clone() };
    assert_eq!(world.listed(&two).await, ["TagConflict"]);
    let one_by = LedgerFilter { digest: Some(digest("one")), ..by("to-prod") };
    assert_eq!(world.listed(&one_by).await, ["Expired", PROMOTED]);
    assert!(world.listed(&LedgerFilter { digest: two.digest, ..by("other") }).await.is_empty());
    let (_, newest) =
        world.store.list_promotions(&one_by, LedgerPlace::START, 9).await.expect("list").remove(1);
    assert_eq!(newest.record, record("one", None));
    assert_eq!(newest.at, pinned.tags[0].generation.milliseconds());
}

pub async fn promotions_are_made_again_from_their_records(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let claim = |content: &str, seq| LedgerClaim {
        digest: digest(content),
        version: Version { epoch: 1, seq },
        generation: fresh(),
    };
    let (one, two) = (claim("one", 7), claim("two", 8));
    let unknown = vec![(one, record("one", None)), (two, record("two", Some(digest("one"))))];
    let found = LedgerFound { unknown, gone: Vec::new() };
    let repository = name("prod/app");
    let settle = |mode, found: LedgerFound| {
        let (world, repository) = (&world, repository.clone());
        async move {
            let scope = Scope { epoch: world.epoch, retain: Duration::ZERO, mode };
            let difference = Difference::Ledger(&repository, &found);
            match world.store.settle(&scope, &difference).await.expect("settle") {
                Outcome::Settled(settled) => settled.changes,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(settle(Mode::DryRun, found.clone()).await.get("insertedPromotions"), Some(&2));
    assert!(world.ledger_claims().await.is_empty(), "a dry run changes nothing");
    settle(Mode::OnDemand, found.clone()).await;
    settle(Mode::OnDemand, found).await;
    let mut claims = world.ledger_claims().await;
    claims.sort_by_key(|claim| claim.version);
    assert_eq!(claims, [one, two]);
    let entries = world.promoted("two").await;
    assert_eq!((entries.len(), &entries[0].record), (1, &record("two", Some(digest("one")))));
    assert_eq!(entries[0].at, two.generation.milliseconds());
    let lost = LedgerFound { unknown: Vec::new(), gone: vec![one] };
    assert_eq!(settle(Mode::OnDemand, lost).await.get("lostPromotions"), Some(&1));
    assert_eq!(world.ledger_claims().await, [two]);
}
