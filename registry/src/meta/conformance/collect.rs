// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Collecting: what goes, what stays, in which order, and who may.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use futures::future::join;
use stowage_oci::Digest;
use uuid::Uuid;

use super::{
    DAY, Fixture, HOUR, World, digest, facts, fresh, index, link_key, manifest_key, marker_key, name, none,
    pin, tag, tag_key,
};
use crate::key::{Form, Key};
use crate::meta::{
    Backlog, BlobCommit, Candidate, CommitOutcome, DeleteOutcome, DueRemoval, Epoch, Error, ExpiredIntent,
    ManifestFacts, Multipart, PinOutcome, Pinned, Plan, Progress, PublishOutcome, Reaped, Swept, TrashedTag,
    Which,
};

const BATCH: u32 = 200;
/// Less than a day.
const NEARLY: Duration = Duration::from_hours(23);
/// Longer than an intent lives.
const LATER: Duration = Duration::from_mins(11);

impl World {
    async fn sweep(&self, kind: Candidate) -> Swept {
        let (store, epoch) = (&self.store, self.epoch);
        let swept = match kind {
            Candidate::Trashed => store.purge_manifests(epoch, BATCH).await,
            Candidate::Manifest => store.sweep_manifests(epoch, Some(DAY), BATCH).await,
            Candidate::Link => store.sweep_links(epoch, BATCH).await,
            Candidate::Blob => store.sweep_blobs(epoch, BATCH).await,
        };
        swept.expect("sweep")
    }

    async fn take(&self) -> Vec<DueRemoval> {
        self.store.take_removals(self.epoch, Which::All, BATCH).await.expect("take")
    }

    /// Carries out what is due, as a worker does, without a bucket; the steps in their order.
    async fn drain(&self) -> Vec<String> {
        let mut steps = Vec::new();
        loop {
            let taken = self.take().await;
            if taken.is_empty() {
                return steps;
            }
            let rows: Vec<i64> = taken.iter().map(|row| row.id).collect();
            self.store.settle_removals(self.epoch, &rows).await.expect("settle");
            steps.extend(taken.into_iter().flat_map(|row| row.steps));
        }
    }

    async fn delete_manifest(&self, content: &str, retain: Duration) {
        let outcome =
            self.store.delete_manifest(self.epoch, &name("a"), &digest(content), retain, &none).await;
        match outcome.expect("delete") {
            DeleteOutcome::Deleted(removal) => self.finish(&removal).await,
            refused => assert_eq!(refused, DeleteOutcome::Unknown, "it is there and free"),
        }
    }

    async fn delete_tag(&self, text: &str, retain: Duration) {
        let removal =
            self.store.delete_tag(self.epoch, &name("a"), &tag(text), retain).await.expect("delete");
        self.finish(&removal.expect("there is one")).await;
    }

    async fn intent(&self) -> ExpiredIntent {
        let mut found = self.store.expired_intents(0, BATCH).await.expect("intents");
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    async fn reap(&self, found: &[Key]) -> Reaped {
        self.store.reap_intent(self.epoch, &self.intent().await, found).await.expect("reap")
    }

    async fn trashed_tag(&self) -> TrashedTag {
        let mut found = self.store.trashed_tags(None, BATCH).await.expect("tags");
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    async fn backlog(&self) -> Backlog {
        self.store.backlog().await.expect("backlog")
    }
}

fn keys(pinned: &Pinned) -> Vec<Key> {
    let mut keys = vec![manifest_key("a", pinned)];
    keys.extend(pinned.tags.first().map(|_| tag_key("a", pinned)));
    keys
}

fn removes(key: &Key) -> String {
    format!("-{key}")
}

pub async fn nothing_is_collected_until_the_walk_has_ended(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(world.store.incarnation().await.expect("trusted").epoch, world.epoch);
    world.rows.restart().await;
    assert!(matches!(world.store.incarnation().await, Err(Error::Untrusted)), "another server");
    let generation = fresh();
    world.rows.pass(HOUR).await;
    let claim = world.store.claim_epoch(0, generation).await.expect("claim").expect("free");
    assert!(world.store.enter_epoch(claim, generation).await.expect("enter"));
    assert!(matches!(world.store.incarnation().await, Err(Error::Untrusted)), "not compared yet");
    let swept = world.store.sweep_links(Epoch(claim), BATCH).await;
    assert!(matches!(swept, Err(Error::Untrusted)), "{swept:?}");
    assert!(world.store.finish_walk(Epoch(claim)).await.expect("walk"));
    let incarnation = world.store.incarnation().await.expect("trusted");
    assert_eq!((incarnation.epoch, incarnation.generation), (Epoch(claim), generation));
}

pub async fn a_blob_that_is_unlinked_goes_level_by_level(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await, Swept { seen: 1, removed: 1, again: 0 });
    assert_eq!(world.blob("a", stored.digest).await, None);
    assert_eq!(world.drain().await, [""; 0], "readers may still be at it");
    assert_eq!(world.sweep(Candidate::Blob).await, Swept::default(), "the record is still there");
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.drain().await, [removes(&link_key("a", stored.digest, stored.generation))]);
    world.rows.pass(HOUR / 2).await;
    assert_eq!(world.sweep(Candidate::Blob).await, Swept::default(), "it was just freed");
    world.rows.pass(HOUR).await;
    assert_eq!(world.sweep(Candidate::Blob).await, Swept { seen: 1, removed: 1, again: 0 });
    assert_eq!(world.rows.blobs().await, 0);
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.drain().await, [removes(&stored.location.blob_key(stored.digest))]);
    assert!(world.rows.outbox().await.is_empty() && world.rows.candidates().await.is_empty());
}

pub async fn what_is_relied_on_is_not_ripe(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.rows.pass(DAY + HOUR).await;
    let link = world.blob("a", stored.digest).await.expect("there").link;
    assert!(world.store.renew_link(link).await.expect("renew"));
    assert_eq!(world.sweep(Candidate::Link).await, Swept { seen: 1, removed: 0, again: 1 });
    assert!(world.blob("a", stored.digest).await.is_some());
    assert_eq!(world.sweep(Candidate::Link).await, Swept::default(), "not before it is ripe");
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await.removed, 1);
}

pub async fn what_is_referenced_is_forgotten_and_queued_again_when_it_is_not(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[stored.digest]), &[]).await;
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await, Swept { seen: 1, removed: 0, again: 0 });
    world.delete_manifest("m", HOUR).await;
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await, Swept::default(), "the trash holds it");
    assert_eq!(world.sweep(Candidate::Trashed).await.removed, 1);
    assert_eq!(world.sweep(Candidate::Link).await, Swept::default(), "the record is still there");
    world.rows.pass(2 * HOUR).await;
    world.drain().await;
    assert!(world.rows.candidates().await.iter().any(|(kind, _)| *kind == 'l'));
    assert_eq!(world.sweep(Candidate::Link).await, Swept::default(), "its lease has begun again");
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await.removed, 1);
}

pub async fn a_child_that_is_a_blob_is_held_by_the_digest_that_is_wanted(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", index("i", &[digest("x")]), &["v1"]).await;
    let stored = world.push("a", "x").await;
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await, Swept { seen: 1, removed: 0, again: 0 });
    world.delete_manifest("i", HOUR).await;
    world.rows.pass(DAY).await;
    purge_the_tag(&world).await;
    assert_eq!(world.sweep(Candidate::Trashed).await.removed, 1);
    world.rows.pass(2 * HOUR).await;
    world.drain().await;
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await.removed, 1, "queued when its index went");
    assert_eq!(world.blob("a", stored.digest).await, None);
}

pub async fn a_hidden_link_goes_without_a_record(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[stored.digest]), &[]).await;
    world.delete_manifest("m", HOUR).await;
    let hidden = world.store.delete_blob(world.epoch, &name("a"), &stored.digest).await.expect("delete");
    assert!(matches!(hidden, DeleteOutcome::Deleted(_)), "{hidden:?}");
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.sweep(Candidate::Trashed).await.removed, 1);
    world.rows.pass(2 * HOUR).await;
    world.drain().await;
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await.removed, 1);
    world.rows.pass(2 * HOUR).await;
    let steps = world.drain().await;
    assert!(!steps.iter().any(|step| step.contains("/~b/")), "{steps:?}");
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.sweep(Candidate::Blob).await.removed, 1);
}

pub async fn data_that_is_missing_goes_with_all_that_may_be_left_of_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    let location = crate::meta::Location { generation: upload.generation, form: Form::Tail(1), size: 1 };
    let digest = digest("x");
    let plan = Plan { digest, form: Some(location.form), size: 1 };
    assert!(world.store.record_plan(key.id, token, &plan, &Progress::default()).await.expect("plan"));
    let commit =
        BlobCommit { upload: key.id, token, digest, location: Some(location), link: upload.generation };
    world.store.commit_blob(world.epoch, &commit).await.expect("commit");
    world.store.mark_absent(&digest, upload.generation).await.expect("mark");
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Link).await.removed, 1);
    world.rows.pass(2 * HOUR).await;
    world.drain().await;
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.sweep(Candidate::Blob).await.removed, 1);
    world.rows.pass(2 * HOUR).await;
    let expected = [removes(&location.blob_key(digest)), removes(&location.data_key(digest))];
    assert_eq!(world.drain().await, expected);
}

pub async fn a_trashed_manifest_goes_when_its_time_is_over(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let facts = ManifestFacts { subject: Some(digest("subject")), ..facts("m", &[]) };
    let pinned = world.push_manifest("a", facts, &[]).await;
    world.delete_manifest("m", DAY).await;
    world.rows.pass(NEARLY).await;
    assert_eq!(world.sweep(Candidate::Trashed).await, Swept::default());
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.sweep(Candidate::Trashed).await, Swept { seen: 1, removed: 1, again: 0 });
    world.rows.pass(2 * HOUR).await;
    let steps = world.drain().await;
    let marked = format!("+{}", marker_key("a", &pinned));
    assert_eq!(steps.get(..2), Some(&[marked, removes(&manifest_key("a", &pinned))][..]), "{steps:?}");
    assert!(steps.len() == 3 && steps[2].contains("/~s/"), "{steps:?}");
    let again = world.push_manifest("a", super::facts("m", &[]), &[]).await;
    assert!(again.manifest > pinned.manifest);
}

pub async fn a_trashed_manifest_whose_last_tag_moved_away_goes(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for policy in [None, Some(DAY)] {
        world.push_manifest("a", facts("m", &[]), &["v1"]).await;
        world.delete_manifest("m", HOUR).await;
        world.rows.pass(2 * HOUR).await;
        assert_eq!(world.sweep(Candidate::Trashed).await.removed, 0, "its tag is in the trash, too");
        world.push_manifest("a", facts("n", &[]), &["v1"]).await;
        world.rows.pass(DAY + HOUR).await;
        world.store.sweep_manifests(world.epoch, policy, BATCH).await.expect("sweep");
        assert_eq!(world.sweep(Candidate::Trashed).await.removed, 1, "{policy:?}");
        world.rows.pass(2 * HOUR).await;
        world.drain().await;
    }
}

pub async fn a_manifest_whose_evidence_is_owed_stays(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &[]).await;
    let outcome = world.store.delete_manifest(world.epoch, &name("a"), &digest("m"), HOUR, &none).await;
    let DeleteOutcome::Deleted(removal) = outcome.expect("delete") else {
        return assert_eq!(1, 0, "it is free");
    };
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.sweep(Candidate::Trashed).await, Swept { seen: 1, removed: 0, again: 1 });
    world.finish(&removal).await;
    world.rows.pass(HOUR).await;
    assert_eq!(world.sweep(Candidate::Trashed).await.removed, 1);
}

pub async fn untagged_manifests_stay_without_a_policy(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &[]).await;
    world.rows.pass(DAY + HOUR).await;
    let swept = world.store.sweep_manifests(world.epoch, None, BATCH).await.expect("sweep");
    assert_eq!(swept, Swept { seen: 1, removed: 0, again: 0 });
    assert!(world.manifest("a", &digest("m").to_string()).await.is_some());
    assert!(world.rows.candidates().await.is_empty(), "nobody asks for them");
}

pub async fn an_untagged_manifest_goes_to_the_trash_by_policy(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.push_manifest("a", facts("m", &[]), &[]).await;
    world.rows.pass(HOUR).await;
    assert_eq!(world.sweep(Candidate::Manifest).await, Swept::default(), "its lease is not over");
    world.rows.pass(DAY).await;
    assert_eq!(world.sweep(Candidate::Manifest).await.removed, 1);
    assert_eq!(world.manifest("a", &digest("m").to_string()).await, None);
    let owed = world.store.take_removals(world.epoch, Which::Owed, BATCH).await.expect("take");
    assert_eq!(owed[0].steps, [format!("+{}", marker_key("a", &pinned))]);
    world.store.settle_removals(world.epoch, &[owed[0].id]).await.expect("settle");
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Trashed).await.removed, 1);
}

pub async fn l_04_what_an_index_a_subject_or_a_tag_holds_is_not_untagged(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let signature = ManifestFacts { subject: Some(digest("child")), ..facts("signature", &[]) };
    world.push_manifest("a", facts("child", &[]), &[]).await;
    world.push_manifest("a", signature, &[]).await;
    world.push_manifest("a", index("i", &[digest("child")]), &["v1"]).await;
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.sweep(Candidate::Manifest).await, Swept { seen: 3, removed: 0, again: 0 });
    // In the trash the tag holds, too.
    world.delete_tag("v1", 3 * DAY).await;
    world.rows.pass(2 * DAY).await;
    assert_eq!(world.sweep(Candidate::Manifest).await.removed, 0);
    world.rows.pass(2 * DAY).await;
    purge_the_tag(&world).await;
    for held in ["child", "signature"] {
        assert!(world.manifest("a", &digest(held).to_string()).await.is_some(), "{held}");
    }
    let mut gone = 0;
    // Index, child, signature: each when the record above it is gone.
    for _ in 0..3 {
        world.rows.pass(DAY + HOUR).await;
        gone += world.sweep(Candidate::Manifest).await.removed;
        world.drain().await;
        world.rows.pass(DAY + HOUR).await;
        world.sweep(Candidate::Trashed).await;
        world.rows.pass(2 * HOUR).await;
        world.drain().await;
    }
    assert_eq!(gone, 3);
}

async fn purge_the_tag(world: &World) {
    let deleted = world.trashed_tag().await;
    assert!(world.store.purge_tag(world.epoch, &deleted, &[]).await.expect("purge"));
}

pub async fn a_deleted_tag_goes_with_its_records_oldest_first(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let first = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let second = world.push_manifest("a", facts("n", &[]), &["v1"]).await;
    world.delete_tag("v1", DAY).await;
    assert_eq!(world.store.trashed_tags(None, BATCH).await.expect("tags"), [], "not yet");
    world.rows.pass(2 * HOUR).await;
    world.drain().await;
    world.rows.pass(DAY).await;
    let deleted = world.trashed_tag().await;
    let listed = [tag_key("a", &second), tag_key("a", &first)];
    assert!(world.store.purge_tag(world.epoch, &deleted, &listed).await.expect("purge"));
    assert!(!world.store.purge_tag(world.epoch, &deleted, &listed).await.expect("it is gone"));
    assert_eq!(world.store.trashed_tags(Some(&deleted), BATCH).await.expect("tags"), []);
    world.rows.pass(2 * HOUR).await;
    let steps = world.drain().await;
    let tombstone = steps.first().expect("steps").replacen('+', "-", 1);
    let expected = [removes(&tag_key("a", &first)), removes(&tag_key("a", &second)), tombstone];
    assert_eq!(steps[1..], expected, "{steps:?}");
    assert!(world.manifest("a", &digest("n").to_string()).await.is_some(), "what it named stays");
    assert!(world.rows.candidates().await.contains(&('m', second.manifest.0)));
}

pub async fn a_deleted_tag_stays_while_a_push_below_it_is_under_way(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let early = world.pin("a", facts("n", &[]), &["v1"]).await;
    world.delete_tag("v1", Duration::ZERO).await;
    assert_eq!(world.store.trashed_tags(None, BATCH).await.expect("tags"), [], "as long as a push may last");
    world.rows.pass(LATER).await;
    let deleted = world.trashed_tag().await;
    assert!(!world.store.purge_tag(world.epoch, &deleted, &[]).await.expect("purge"), "it may still publish");
    let late = world.pin("a", facts("o", &[]), &["v1"]).await;
    assert_eq!(world.publish(&early).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, None);
    assert!(
        world.store.purge_tag(world.epoch, &deleted, &[]).await.expect("purge"),
        "what is above may come"
    );
    assert_eq!(world.publish(&late).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, Some(digest("o")));
}

pub async fn a_deleted_tag_that_was_pushed_again_is_not_purged(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    world.delete_tag("v1", HOUR).await;
    world.rows.pass(2 * HOUR).await;
    let deleted = world.trashed_tag().await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert!(!world.store.purge_tag(world.epoch, &deleted, &[]).await.expect("purge"));
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
}

pub async fn an_expired_push_whose_records_are_there_is_finished(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let facts = ManifestFacts { subject: Some(digest("subject")), ..facts("m", &[]) };
    let pinned = world.pin("a", facts, &["v1"]).await;
    world.rows.pass(LATER).await;
    // The referrer entry was not written any more.
    assert_eq!(world.reap(&keys(&pinned)).await, Reaped::Finished);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published, "its writer finds it done");
    let steps = world.steps().await;
    assert!(steps.len() == 1 && steps[0].starts_with('+') && steps[0].contains("/~s/"), "{steps:?}");
    let owed = world.store.take_removals(world.epoch, Which::Owed, BATCH).await.expect("take");
    assert_eq!(owed[0].steps, steps);
}

pub async fn an_expired_push_without_its_record_is_withdrawn(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let blob = world.push("a", "x").await;
    let pinned = world.pin("a", facts("m", &[blob.digest]), &["v1"]).await;
    world.rows.pass(LATER).await;
    assert_eq!(world.reap(&[tag_key("a", &pinned)]).await, Reaped::Withdrawn);
    assert_eq!(world.tag("a", "v1").await, None);
    let (record, of_tag) = (manifest_key("a", &pinned), tag_key("a", &pinned));
    let steps = world.drain().await;
    let expected = [format!("+{record}.x"), removes(&record), format!("+{of_tag}.x"), removes(&of_tag)];
    assert_eq!(steps, expected, "marked before they go");
    assert!(world.rows.candidates().await.iter().any(|(kind, _)| *kind == 'l'), "the blob is free again");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::StartOver);
    world.push_manifest("a", facts("m", &[blob.digest]), &["v1"]).await;
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
}

pub async fn an_expired_push_of_a_live_manifest_withdraws_the_tag_that_is_not_there(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let pinned = world.pin("a", facts("m", &[]), &["v2"]).await;
    world.rows.pass(LATER).await;
    assert_eq!(world.reap(&[]).await, Reaped::Finished);
    assert_eq!((world.tag("a", "v1").await, world.tag("a", "v2").await), (Some(digest("m")), None));
    assert!(world.queued(&removes(&tag_key("a", &pinned))).await.is_some());
    let nothing = world.pin("a", facts("m", &[]), &[]).await;
    assert!(!nothing.writes_record);
    world.rows.pass(LATER).await;
    assert_eq!(world.reap(&[]).await, Reaped::Finished);
}

pub async fn a_pending_manifest_that_another_push_is_at_is_not_doomed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.pin("a", facts("m", &[]), &[]).await;
    world.rows.pass(LATER).await;
    let second = world.pin("a", facts("m", &[]), &["v1"]).await;
    assert_eq!(world.reap(&[]).await, Reaped::Withdrawn);
    world.drain().await;
    assert_eq!(world.publish(&second).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
}

pub async fn an_expired_mount_is_finished_or_withdrawn(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    for (to, there) in [("b", true), ("c", false)] {
        let generation = fresh();
        let begun =
            world.store.begin_mount(world.epoch, &name("a"), &name(to), &stored.digest, generation).await;
        begun.expect("begin").expect("the source sees it");
        world.rows.pass(LATER).await;
        let key = link_key(to, stored.digest, generation);
        let found: Vec<Key> = there.then_some(key.clone()).into_iter().collect();
        let expected = if there { Reaped::Finished } else { Reaped::Withdrawn };
        assert_eq!(world.reap(&found).await, expected);
        assert_eq!(world.blob(to, stored.digest).await.is_some(), there);
        assert_eq!(world.queued(&removes(&key)).await.is_some(), !there);
    }
}

pub async fn an_intent_that_is_not_expired_is_left_to_its_writer(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.pin("a", facts("m", &[]), &["v1"]).await;
    assert_eq!(world.store.expired_intents(0, BATCH).await.expect("intents"), []);
    world.rows.pass(LATER).await;
    let expired = world.intent().await;
    assert_eq!(world.store.expired_intents(expired.id, BATCH).await.expect("intents"), []);
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    assert_eq!(world.store.reap_intent(world.epoch, &expired, &[]).await.expect("reap"), Reaped::Gone);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
}

async fn expired_uploads(world: &World) -> Vec<Uuid> {
    world.store.expired_uploads(Uuid::nil(), BATCH).await.expect("uploads")
}

pub async fn l_25_an_expired_upload_ends_and_its_multipart_upload_is_aborted(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    let multipart = Multipart { id: "an id".to_owned(), part_size: 1 };
    assert!(world.store.record_multipart(key.id, token, &multipart).await.expect("multipart"));
    world.rows.pass(NEARLY).await;
    assert_eq!(expired_uploads(&world).await.len(), 0, "not yet");
    assert!(world.lease_as(&key, token).await.is_some());
    world.rows.pass(Duration::from_secs(30)).await;
    world.rows.pass(HOUR).await;
    assert_eq!(expired_uploads(&world).await, vec![key.id]);
    assert!(world.store.reap_upload(world.epoch, key.id).await.expect("reap"));
    assert!(!world.store.reap_upload(world.epoch, key.id).await.expect("once"));
    let target = Key::Upload { generation: upload.generation };
    let steps = world.steps().await;
    assert!(steps.contains(&format!("!{target} an id")) && steps.contains(&removes(&target)), "{steps:?}");
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.drain().await.len(), steps.len());
}

pub async fn the_data_of_a_live_blob_outlives_its_upload_row(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (stored, commit) = world.receive("a", "x").await;
    world.store.commit_blob(world.epoch, &commit).await.expect("commit");
    let removal = removes(&stored.location.blob_key(stored.digest));
    // As after a failover that lost the commit, but not what came of it.
    let key = stored.location.blob_key(stored.digest);
    let refused = world.store.discard(world.epoch, &[key]).await;
    assert!(matches!(refused, Err(Error::Live { .. })), "{refused:?}");
    assert!(world.queued(&removal).await.is_none());
}

pub async fn a_link_record_that_was_all_of_a_push_goes_with_its_upload(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    let key = world.open("b").await;
    let (upload, token) = world.lease(&key).await;
    let plan = Plan { digest: stored.digest, form: None, size: 1 };
    assert!(world.store.record_plan(key.id, token, &plan, &Progress::default()).await.expect("plan"));
    world.store.release_upload(key.id, token).await.expect("release");
    let (again, token) = world.lease(&key).await;
    assert_eq!(again.plan, Some(plan));
    world.store.release_upload(key.id, token).await.expect("release");
    world.rows.pass(DAY + HOUR).await;
    assert!(world.store.reap_upload(world.epoch, key.id).await.expect("reap"));
    let record = link_key("b", stored.digest, upload.generation);
    assert!(world.queued(&removes(&record)).await.is_some(), "{:?}", world.steps().await);

    // Committed, its record is live and stays.
    let key = world.open("b").await;
    let (upload, token) = world.lease(&key).await;
    assert!(world.store.record_plan(key.id, token, &plan, &Progress::default()).await.expect("plan"));
    let (digest, link) = (stored.digest, upload.generation);
    let commit = BlobCommit { upload: key.id, token, digest, location: None, link };
    let outcome = world.store.commit_blob(world.epoch, &commit).await.expect("commit");
    assert_eq!(outcome, CommitOutcome::Committed);
    assert!(world.queued(&removes(&link_key("b", digest, link))).await.is_none());
}

pub async fn a_lane_runs_strictly_in_its_order(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for content in ["m", "n", "o"] {
        world.push_manifest("a", facts(content, &[]), &["v1"]).await;
    }
    let removal = world.store.delete_tag(world.epoch, &name("a"), &tag("v1"), DAY).await.expect("delete");
    let tombstone = removal.expect("there is one").outbox;
    world.rows.pass(HOUR / 2).await;
    assert_eq!(world.take().await, [], "the tombstone is due, what is before it in its lane is not");
    world.rows.pass(HOUR).await;
    let taken = world.take().await;
    assert_eq!(taken.last().map(|row| row.id), Some(tombstone));
    assert!(taken.len() == 3 && taken.is_sorted_by_key(|row| row.id), "{taken:?}");
    assert!(taken.iter().all(|row| row.lane == taken[0].lane && row.tries == 1), "{taken:?}");
    // The first one failed: what follows waits for it.
    let followers: Vec<i64> = taken[1..].iter().map(|row| row.id).collect();
    world.rows.pass(HOUR).await;
    world.store.settle_removals(world.epoch, &followers[..1]).await.expect("settle");
    let again = world.take().await;
    assert_eq!(
        again.iter().map(|row| (row.id, row.tries)).collect::<Vec<_>>(),
        [(taken[0].id, 2), (tombstone, 2)]
    );
}

pub async fn owed_evidence_is_taken_apart_from_the_rest(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let blob = world.store.delete_blob(world.epoch, &name("a"), &stored.digest).await.expect("delete");
    assert!(matches!(blob, DeleteOutcome::Deleted(_)));
    world.store.delete_manifest(world.epoch, &name("a"), &digest("m"), DAY, &none).await.expect("delete");
    world.rows.pass(HOUR).await;
    assert_eq!((world.backlog().await.removals, world.backlog().await.owed), (2, 1));
    let owed = world.store.take_removals(world.epoch, Which::Owed, BATCH).await.expect("take");
    assert!(owed.len() == 1 && owed[0].steps.iter().all(|step| step.starts_with('+')), "{owed:?}");
    assert_eq!(world.take().await.len(), 1, "the other one");
}

pub async fn a_removal_is_taken_by_one_worker_at_a_time(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for content in 0..20 {
        let content = format!("m{content}");
        world.push_manifest("a", facts(&content, &[]), &[]).await;
        world
            .store
            .delete_manifest(world.epoch, &name("a"), &digest(&content), DAY, &none)
            .await
            .expect("delete");
    }
    world.rows.pass(HOUR).await;
    let (one, other) = join(world.take(), world.take()).await;
    assert_eq!(one.len() + other.len(), 20);
    assert!(one.iter().all(|row| !other.contains(row)));
    assert_eq!(world.take().await, [], "they are taken");
    world.rows.pass(HOUR).await;
    assert_eq!(world.take().await.len(), 20, "whoever took them has died");
}

pub async fn a_removal_of_what_is_live_is_refused(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    let pinned = world.push_manifest("a", facts("m", &[stored.digest]), &["v1"]).await;
    let open = world.open("a").await;
    let (upload, _) = world.lease(&open).await;
    let live = [
        stored.location.blob_key(stored.digest),
        link_key("a", stored.digest, stored.generation),
        manifest_key("a", &pinned),
        tag_key("a", &pinned),
        Key::UploadTail { generation: upload.generation, lease: 1 },
        Key::Upload { generation: upload.generation },
        Key::Format,
        Key::Epoch { epoch: world.epoch.0, generation: fresh() },
    ];
    for key in live {
        let refused = world
            .store
            .discard(world.epoch, &[Key::Epoch { epoch: 0, generation: fresh() }, key.clone()])
            .await;
        assert!(
            matches!(&refused, Err(Error::Live { key: named }) if *named == key.to_string()),
            "{key}: {refused:?}"
        );
    }
    assert!(world.rows.outbox().await.is_empty(), "nothing of it was queued");
    let elsewhere = [
        link_key("b", stored.digest, stored.generation),
        link_key("a", stored.digest, fresh()),
        Key::UploadTail { generation: stored.generation, lease: 1 },
        Key::Manifest { repository: name("a"), digest: digest("m"), generation: fresh() },
    ];
    world.store.discard(world.epoch, &elsewhere).await.expect("nobody's");
    world.rows.pass(2 * HOUR).await;
    assert_eq!(world.drain().await, elsewhere.map(|key| removes(&key)));
}

pub async fn markers_go_a_day_after_their_record(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.push_manifest("a", facts("m", &[]), &[]).await;
    world.delete_manifest("m", HOUR).await;
    assert!(world.rows.outbox().await.is_empty(), "the record is still there");
    world.rows.pass(2 * HOUR).await;
    world.sweep(Candidate::Trashed).await;
    world.rows.pass(2 * HOUR).await;
    world.drain().await;
    // A PUT that came late, or twice, does not come to life with it.
    let steps = [manifest_key("a", &pinned), marker_key("a", &pinned)].map(|key| removes(&key));
    let queued = world.queued(&steps[1]).await.expect("queued");
    assert!(queued.due_in > NEARLY, "{queued:?}");
    world.rows.pass(DAY + HOUR).await;
    assert_eq!(world.drain().await, steps);
    assert!(world.rows.outbox().await.is_empty());
}

/// Every collector once, in the first epoch.
async fn collect_everything(world: &World, intent: &ExpiredIntent, upload: Uuid) -> Vec<Result<(), Error>> {
    let (store, epoch) = (&world.store, world.epoch);
    vec![
        store.reap_intent(epoch, intent, &[]).await.map(drop),
        store.reap_upload(epoch, upload).await.map(drop),
        store.purge_manifests(epoch, BATCH).await.map(drop),
        store.sweep_manifests(epoch, None, BATCH).await.map(drop),
        store.sweep_links(epoch, BATCH).await.map(drop),
        store.sweep_blobs(epoch, BATCH).await.map(drop),
        store.postpone(epoch, Candidate::Link).await,
        store.discard(epoch, &[]).await,
        store.take_removals(epoch, Which::All, BATCH).await.map(drop),
        store.settle_removals(epoch, &[1]).await,
    ]
}

pub async fn another_incarnation_stops_every_collector(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push("a", "x").await;
    world.pin("a", facts("m", &[]), &[]).await;
    let upload = world.open("a").await;
    world.rows.pass(2 * DAY).await;
    let intent = world.intent().await;
    let before = (world.rows.candidates().await, world.rows.intents().await);
    world.rows.restart().await;
    let outcomes = collect_everything(&world, &intent, upload.id).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Untrusted))), "{outcomes:?}");

    let generation = fresh();
    let claim = world.store.claim_epoch(0, generation).await.expect("claim").expect("free");
    assert!(world.store.enter_epoch(claim, generation).await.expect("enter"));
    assert!(world.store.finish_walk(Epoch(claim)).await.expect("walk"));
    let outcomes = collect_everything(&world, &intent, upload.id).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Superseded))), "{outcomes:?}");
    assert_eq!((world.rows.candidates().await, world.rows.intents().await), before);
    assert!(world.rows.outbox().await.is_empty());
}

pub async fn a_candidate_is_put_off(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push("a", "x").await;
    world.rows.pass(DAY + HOUR).await;
    world.store.postpone(world.epoch, Candidate::Blob).await.expect("there is none");
    world.store.postpone(world.epoch, Candidate::Link).await.expect("postpone");
    assert_eq!(world.sweep(Candidate::Link).await, Swept::default());
    world.rows.pass(HOUR + LATER).await;
    assert_eq!(world.sweep(Candidate::Link).await.removed, 1);
}

pub async fn the_backlog_counts_what_is_due(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(world.backlog().await, Backlog::default());
    world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    world.delete_tag("v1", DAY).await;
    world.pin("a", facts("n", &[]), &[]).await;
    world.open("a").await;
    assert_eq!(world.backlog().await.pending(), 0);
    world.rows.pass(2 * DAY).await;
    let backlog = world.backlog().await;
    let expected = Backlog { intents: 1, uploads: 1, tags: 1, manifests: 1, links: 1, ..Backlog::default() };
    assert_eq!(Backlog { oldest: Duration::ZERO, ..backlog }, expected);
    assert_eq!(backlog.pending(), 5);
    assert!(backlog.oldest > DAY && backlog.oldest < 2 * DAY, "{backlog:?}");
}

/// Enough that without the locks some round goes wrong.
const ROUNDS: u32 = 25;

pub async fn l_01_l_03_a_push_and_a_sweep_of_its_link_never_both_succeed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for round in 0..ROUNDS {
        let content = format!("blob {round}");
        world.push("a", &content).await;
        world.rows.pass(DAY + HOUR).await;
        let wanted = pin("a", facts(&format!("manifest {round}"), &[digest(&content)]), &[]);
        let push = async {
            let outcome = world.store.pin_manifest(world.epoch, &wanted).await.expect("pin");
            matches!(outcome, PinOutcome::Pinned(_))
        };
        let (pinned, swept) = join(push, world.sweep(Candidate::Link)).await;
        assert!(swept.seen > 0);
        assert_eq!(world.blob("a", digest(&content)).await.is_some(), pinned, "{round}: {swept:?}");
    }
}

pub async fn l_06_an_answer_that_it_exists_restarts_the_lease(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored: Vec<Digest> = {
        let mut digests = Vec::new();
        for content in ["head", "again", "mount"] {
            digests.push(world.push("a", content).await.digest);
        }
        digests
    };
    world.rows.pass(NEARLY).await;
    let link = world.blob("a", stored[0]).await.expect("there").link;
    assert!(world.store.renew_link(link).await.expect("renew"));
    world.push("a", "again").await;
    let generation = fresh();
    let from_b = world.push("b", "mount").await;
    let mount =
        world.store.begin_mount(world.epoch, &name("b"), &name("a"), &from_b.digest, generation).await;
    let mount = mount.expect("begin").expect("the source sees it");
    assert!(world.store.finish_mount(world.epoch, &mount).await.expect("finish"));
    world.rows.pass(2 * HOUR).await;
    let swept = world.sweep(Candidate::Link).await;
    assert_eq!(swept.removed, 0, "{swept:?}");
    world.push_manifest("a", facts("m", &stored), &["v1"]).await;
}
