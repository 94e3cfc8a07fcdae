// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Comparing rows with the bucket: what is adopted, what goes, what is left to others; parts of a walk, its breaker
//! and its end.
#![expect(missing_docs, reason = "a claim is its name")]
#![expect(clippy::panic, reason = "these are tests, compiled into the library")]

use std::time::Duration;

use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::{
    DAY, Fixture, HOUR, Stored, World, digest, facts, fresh, index, link_key, manifest_key, name, none, tag,
};
use crate::key::{Form, Generation, Version};
use crate::meta::{
    BlobCommit, BlobFound, CommitOutcome, Difference, Epoch, Error, Kind, LinkFound, Location, ManifestFacts,
    ManifestFound, Mode, Outcome, PinOutcome, Plan, PublishOutcome, ReferrersFound, Scope, Settled, Shard,
    ShardOutcome, TagEntry, TagFound, UploadFound,
};

/// A world in an epoch that is not walked.
pub(super) async fn unwalked(fixture: Fixture) -> World {
    let mut world = World::begin(fixture).await;
    renew(&mut world).await;
    world
}

/// The database restarts.
async fn renew(world: &mut World) {
    world.rows.restart().await;
    let generation = fresh();
    let claim = world.store.claim_epoch(0, generation).await.expect("claim").expect("free");
    assert!(world.store.enter_epoch(claim, generation).await.expect("enter"));
    world.epoch = Epoch(claim);
}

impl World {
    fn scope(&self, mode: Mode) -> Scope {
        Scope { epoch: self.epoch, retain: DAY, mode }
    }

    async fn outcome(&self, mode: Mode, difference: Difference<'_>) -> Outcome {
        self.store.settle(&self.scope(mode), &difference).await.expect("settle")
    }

    async fn settle(&self, difference: Difference<'_>) -> Settled {
        match self.outcome(Mode::OnDemand, difference).await {
            Outcome::Settled(settled) => Some(settled),
            _ => None,
        }
        .expect("it is settled")
    }

    /// Ends the walk, and lets a worker take all that is queued: what a row names would be refused.
    async fn assert_nothing_live_is_queued(&self) {
        assert!(self.store.finish_walk(self.epoch).await.expect("walk"));
        self.rows.pass(3 * DAY).await;
        let taken = self.store.take_removals(self.epoch, crate::meta::Which::All, 100).await;
        taken.expect("nothing of it is live");
    }

    async fn settle_manifest(&self, found: ManifestFound) -> Settled {
        self.settle(Difference::Manifests(&name("a"), &[found])).await
    }

    async fn settle_tag(&self, records: &[TagEntry], gone: &[TagEntry]) -> Settled {
        let found =
            TagFound { tag: tag("v1"), records: records.to_vec(), withdrawn: vec![], gone: gone.to_vec() };
        self.settle(Difference::Tags(&name("a"), &[found])).await
    }
}

fn at(generation: Generation) -> Location {
    Location { generation, form: Form::Inline, size: 1 }
}

fn data(digest: Digest, listed: &[Location], gone: &[Location]) -> BlobFound {
    BlobFound { digest, listed: listed.to_vec(), gone: gone.to_vec(), damaged: vec![] }
}

fn link(digest: Digest, listed: &[Generation], gone: &[Generation], compared: bool) -> LinkFound {
    LinkFound {
        digest,
        listed: listed.to_vec(),
        gone: gone.to_vec(),
        manifests_compared: compared,
        lacks_data: false,
    }
}

fn found(facts: ManifestFacts, records: &[Generation]) -> ManifestFound {
    ManifestFound {
        digest: facts.digest,
        records: records.to_vec(),
        markers: vec![],
        gone: vec![],
        damaged: vec![],
        facts: Some(facts),
        owes_referrer: false,
    }
}

fn entry(seq: u64, target: Option<Digest>) -> TagEntry {
    TagEntry { version: Version { epoch: 1, seq }, generation: fresh(), target }
}

pub async fn a_difference_is_settled_only_in_its_epoch_and_before_it_is_walked(fixture: Fixture) {
    let mut world = unwalked(fixture).await;
    let adopted = [data(digest("x"), &[at(fresh())], &[])];
    let difference = Difference::Blobs(&adopted);
    let old = Scope { epoch: Epoch(1), ..world.scope(Mode::OnDemand) };
    assert!(matches!(world.store.settle(&old, &difference).await, Err(Error::Superseded)));
    assert!(world.store.finish_walk(world.epoch).await.expect("walk"));
    assert!(matches!(world.outcome(Mode::OnDemand, difference).await, Outcome::Walked));
    assert!(matches!(world.store.claim_shard(world.epoch, Uuid::new_v4()).await, Ok(ShardOutcome::Walked)));
    assert_eq!(world.rows.blobs().await, 0);
    renew(&mut world).await;
    let counted = world.outcome(Mode::DryRun, difference).await;
    assert!(matches!(counted, Outcome::Settled(settled) if settled.changes["adoptedBlobs"] == 1));
    assert_eq!(world.rows.blobs().await, 0, "a dry run changes nothing");
    assert!(matches!(world.outcome(Mode::OnDemand, difference).await, Outcome::Settled(_)));
    assert_eq!(world.rows.blobs().await, 1);
}

pub async fn data_is_adopted_moved_and_lost_as_the_bucket_shows(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let x = digest("x");
    let (first, second, spare) = (at(fresh()), at(fresh()), at(fresh()));
    world.settle(Difference::Blobs(&[data(x, &[first], &[])])).await;
    world.settle(Difference::Links(&name("a"), &[link(x, &[fresh()], &[], false)])).await;
    let seen = async || world.blob("a", x).await.map(|row| row.location);
    assert_eq!(seen().await, Some(first));
    let settled = world.settle(Difference::Blobs(&[data(x, &[first, spare], &[])])).await;
    assert_eq!((seen().await, settled.changes["queuedObjects"]), (Some(first), 1));
    let queued = world.queued(&format!("-{}", spare.blob_key(x))).await.expect("a duplicate");
    assert!(queued.due_in > DAY / 2, "{queued:?}");
    world.settle(Difference::Blobs(&[data(x, &[second, spare], &[first])])).await;
    assert_eq!(seen().await, Some(second), "what is queued is no evidence");
    world.settle(Difference::Blobs(&[data(x, &[spare], &[second])])).await;
    assert_eq!(seen().await, None, "absent");
    let changed = world.settle(Difference::Blobs(&[data(x, &[second], &[])])).await;
    assert!(changed.again.is_empty());
    assert_eq!(seen().await, Some(second));
    let unsought = world.settle(Difference::Blobs(&[data(x, &[], &[first])])).await;
    assert_eq!((unsought.again, seen().await), (vec![0], Some(second)), "what was not looked for stays");
}

pub async fn data_that_a_given_up_upload_had_queued_is_live_again_when_its_pointer_is_found(
    fixture: Fixture,
) {
    let world = unwalked(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    let multipart = crate::meta::Multipart { id: "m".to_owned(), part_size: 5 };
    assert!(world.store.record_multipart(upload.id, token, &multipart).await.expect("multipart"));
    assert!(world.store.drop_upload(upload.id, token).await.expect("drop"));
    let location = Location { generation: upload.generation, form: Form::Upload, size: 9 };
    let removal = format!("-{}", location.data_key(digest("x")));
    assert!(world.steps().await.contains(&removal));
    world.settle(Difference::Blobs(&[data(digest("x"), &[location], &[])])).await;
    assert_eq!(
        world.steps().await,
        [format!("-{}", crate::key::Key::UploadTail { generation: upload.generation, lease: 1 })],
        "nor is its multipart upload aborted"
    );
    assert_eq!(world.rows.blobs().await, 1);
}

/// What was written under its generation may be more than its row says.
pub async fn an_upload_of_an_earlier_incarnation_is_known_as_such_until_it_has_another_generation(
    fixture: Fixture,
) {
    let mut world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    assert!(!upload.restored);
    world.store.release_upload(key.id, token).await.expect("release");
    renew(&mut world).await;
    let plan = Plan { digest: digest("x"), form: Some(Form::Tail(upload.lease)), size: 1 };
    let planned = world.store.plan_paused(key.id, upload.lease, Uuid::new_v4(), &plan).await.expect("plan");
    assert!(!planned, "who remembers it knows nothing of that");
    let (upload, token) = world.lease(&key).await;
    assert!(upload.restored);
    assert!(world.store.restart_upload(key.id, token, fresh()).await.expect("restart"));
    world.store.release_upload(key.id, token).await.expect("release");
    assert!(!world.lease(&key).await.0.restored);
}

/// The commit of an upload was lost, its data was adopted, and the request that holds it is gone.
pub async fn a_blob_is_not_swept_while_its_upload_counts_as_open(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    let location = at(upload.generation);
    world.settle(Difference::Blobs(&[data(digest("x"), &[location], &[])])).await;
    assert!(world.store.finish_walk(world.epoch).await.expect("walk"));
    world.store.queue_unreferenced(world.epoch).await.expect("queue");
    world.rows.pass(3 * DAY).await;
    let swept = world.store.sweep_blobs(world.epoch, 100).await.expect("sweep");
    assert_eq!((swept.removed, swept.again), (0, 1), "{swept:?}");
    assert!(world.store.drop_upload(upload.id, token).await.expect("drop"));
    world.rows.pass(HOUR).await;
    let swept = world.store.sweep_blobs(world.epoch, 100).await.expect("sweep");
    assert_eq!(swept.removed, 1);
    assert!(world.queued(&format!("-{}", location.blob_key(digest("x")))).await.is_some());
    world.rows.pass(HOUR * 2).await;
    let taken = world.store.take_removals(world.epoch, crate::meta::Which::All, 100).await.expect("take");
    assert!(!taken.is_empty());
}

/// Its commit was lost, and somebody else has stored the same content since.
pub async fn what_an_upload_wrote_that_was_restored_to_before_its_end_goes_with_it(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    let (x, generation, shown) = (digest("x"), upload.generation, fresh());
    let (other, ours) = (at(fresh()), Location { generation, form: Form::Upload, size: 9 });
    world.settle(Difference::Links(&name("a"), &[link(x, &[shown], &[], false)])).await;
    world.settle(Difference::Links(&name("a"), &[link(x, &[shown, generation], &[], false)])).await;
    world.settle(Difference::Blobs(&[data(x, &[other], &[])])).await;
    world.settle(Difference::Blobs(&[data(x, &[other, ours], &[])])).await;
    assert!(world.steps().await.is_empty(), "of an open upload everything may be in use");
    assert!(world.store.drop_upload(upload.id, token).await.expect("drop"));
    let steps = world.steps().await;
    for gone in [link_key("a", x, generation), ours.blob_key(x), ours.data_key(x)] {
        assert!(steps.contains(&format!("-{gone}")), "{gone}: {steps:?}");
    }
    world.assert_nothing_live_is_queued().await;
}

/// The content was stored already when the upload was closed, and is gone when its commit comes.
pub async fn a_link_that_was_adopted_outlives_a_commit_that_finds_no_data(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    let (x, generation) = (digest("x"), upload.generation);
    world.settle(Difference::Links(&name("a"), &[link(x, &[generation], &[], false)])).await;
    let commit = BlobCommit { upload: upload.id, token, digest: x, location: None, link: generation };
    assert_eq!(world.store.commit_blob(world.epoch, &commit).await.expect("commit"), CommitOutcome::DataGone);
    world.assert_nothing_live_is_queued().await;
}

/// It may yet take it back.
pub async fn the_record_of_a_mount_under_way_is_left_to_it(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let (from, to) = (name("a"), name("b"));
    let stored = world.push("a", "x").await;
    let (x, generation) = (stored.digest, fresh());
    let begun = world.store.begin_mount(world.epoch, &from, &to, &x, generation).await.expect("begin");
    let mount = begun.expect("the source is there");
    let settled = world.settle(Difference::Links(&to, &[link(x, &[generation], &[], false)])).await;
    assert!(settled.changes.is_empty(), "{settled:?}");
    world.settle(Difference::Links(&from, &[link(x, &[], &[stored.generation], true)])).await;
    assert!(!world.store.finish_mount(world.epoch, &mount).await.expect("finish"), "the source went");
    assert!(world.queued(&format!("-{}", link_key("b", x, generation))).await.is_some());
    world.assert_nothing_live_is_queued().await;
}

/// A row of another incarnation may have the same number.
pub async fn a_removal_that_is_not_known_any_more_ends_no_other(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push("a", "x").await;
    let deleted = world.store.delete_blob(world.epoch, &name("a"), &digest("x")).await.expect("delete");
    let crate::meta::DeleteOutcome::Deleted(removal) = deleted else { panic!("{deleted:?}") };
    let other = crate::meta::Removal { steps: vec![removes_nothing()], ..removal.clone() };
    assert!(!world.store.finish_removal(&other).await.expect("finish"));
    assert_eq!(world.steps().await, removal.steps);
    assert!(world.store.finish_removal(&removal).await.expect("finish"));
    assert!(!world.store.finish_removal(&removal).await.expect("finish"), "it is done");
}

fn removes_nothing() -> String {
    format!("-{}", link_key("b", digest("x"), fresh()))
}

pub async fn a_link_without_a_record_is_what_those_who_refer_to_it_need(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let mut stored: Vec<Stored> = Vec::new();
    for content in ["wanted", "held", "free"] {
        stored.push(world.push("a", content).await);
    }
    world.push_manifest("a", facts("live", &[stored[0].digest]), &["v1"]).await;
    world.push_manifest("a", facts("trashed", &[stored[1].digest]), &[]).await;
    let a = name("a");
    let deleted = world.store.delete_manifest(world.epoch, &a, &digest("trashed"), DAY, &none).await;
    deleted.expect("delete");
    let mut world = world;
    renew(&mut world).await;
    let gone = |one: &Stored, compared| link(one.digest, &[], &[one.generation], compared);
    let all: Vec<LinkFound> = stored.iter().map(|one| gone(one, false)).collect();
    let settled = world.settle(Difference::Links(&a, &all)).await;
    assert_eq!(settled.after, [(0, vec![digest("live")])], "first it is seen whether that lives");
    assert!(world.blob("a", stored[0].digest).await.is_some());
    assert_eq!(world.blob("a", stored[1].digest).await, None, "hidden");
    assert_eq!(world.blob("a", stored[2].digest).await, None, "deleted");
    let settled = world.settle(Difference::Links(&a, &[gone(&stored[0], true)])).await;
    let [errand] = &settled.errands[..] else { panic!("{settled:?}") };
    let prefix = format!("+{}", crate::key::Key::link_prefix(&a, &stored[0].digest));
    assert!(errand.steps.iter().all(|step| step.starts_with(&prefix)), "{errand:?}");
    assert!(world.blob("a", stored[0].digest).await.is_some());
    world.finish(errand).await;
    assert_eq!(world.queued(&errand.steps[0]).await.map(|row| row.id), None);
}

pub async fn a_manifest_is_adopted_with_all_it_refers_to_and_never_judged_incomplete(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let (a, generation) = (name("a"), fresh());
    let (there, hidden, absent) = (digest("there"), digest("hidden"), digest("absent"));
    world.settle(Difference::Blobs(&[data(there, &[at(fresh())], &[])])).await;
    world.settle(Difference::Blobs(&[data(hidden, &[at(fresh())], &[])])).await;
    world.settle(Difference::Links(&a, &[link(there, &[fresh()], &[], false)])).await;
    let facts = ManifestFacts {
        subject: Some(digest("subject")),
        children: vec![digest("child")],
        ..facts("m", &[there, hidden, absent])
    };
    let adopted = ManifestFound { owes_referrer: true, ..found(facts.clone(), &[generation]) };
    let settled = world.settle_manifest(adopted).await;
    assert_eq!(settled.changes["adoptedManifests"], 1);
    let [errand] = &settled.errands[..] else { panic!("{settled:?}") };
    assert_eq!(errand.steps.len(), 3, "two links and the entry below the subject: {errand:?}");
    let row = world.manifest("a", &digest("m").to_string()).await.expect("it is live");
    assert_eq!(
        (row.generation, row.media_type, row.body),
        (generation, facts.media_type.clone(), facts.body.clone())
    );
    assert!(world.blob("a", there).await.is_some() && world.blob("a", hidden).await.is_some());
    assert_eq!(world.blob("a", absent).await, None, "until it is pushed again");
    let referrers = world.store.referrers(world.epoch, &a, &digest("subject"), &[], None, 10).await;
    assert_eq!(referrers.expect("referrers").len(), 1);
    let healed = world.push("b", "absent").await;
    assert!(world.blob("a", healed.digest).await.is_some(), "the next push heals it");
    assert!(world.store.finish_walk(world.epoch).await.expect("walk"));
    let refused = world.store.delete_blob(world.epoch, &a, &there).await.expect("delete");
    assert_eq!(refused, crate::meta::DeleteOutcome::Referenced);
}

pub async fn a_marked_or_missing_record_sends_its_manifest_to_the_trash_and_its_tags_away(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let marked = world.push_manifest("a", facts("marked", &[]), &["v1"]).await;
    let lost = world.push_manifest("a", facts("lost", &[]), &["v2"]).await;
    let mut world = world;
    renew(&mut world).await;
    let (one, other) = (marked.pin.generation, lost.pin.generation);
    let found_marked = ManifestFound { markers: vec![one], ..found(facts("marked", &[]), &[one]) };
    let found_lost = ManifestFound { gone: vec![other], ..found(facts("lost", &[]), &[]) };
    let settled = world.settle(Difference::Manifests(&name("a"), &[found_marked, found_lost])).await;
    assert_eq!(settled.changes["trashedManifests"], 2);
    for reference in ["v1", "v2"] {
        assert_eq!(world.manifest("a", reference).await, None);
    }
    let again = fresh();
    world.settle_manifest(found(facts("lost", &[]), &[again])).await;
    let row = world.manifest("a", &digest("lost").to_string()).await.expect("another record makes it live");
    assert_eq!(row.generation, again);
    assert!(world.rows.candidates().await.iter().filter(|(kind, _)| *kind == 'x').count() >= 2);
}

pub async fn a_pending_manifest_becomes_live_by_a_record_that_was_lost_and_its_push_goes_on(
    fixture: Fixture,
) {
    let world = unwalked(fixture).await;
    let pinned = world.pin("a", facts("m", &[]), &["v1"]).await;
    let record = fresh();
    world.settle_manifest(found(facts("m", &[]), &[record])).await;
    let row = world.manifest("a", &digest("m").to_string()).await.expect("live");
    assert_eq!(row.generation, record);
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    let own = format!("-{}", manifest_key("a", &pinned));
    assert!(world.queued(&own).await.is_some(), "its own record is superfluous");
}

pub async fn what_an_open_push_has_announced_is_left_to_it(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let pinned = world.pin("a", facts("m", &[]), &["v1"]).await;
    let record = pinned.tags.first().expect("one tag");
    let settled = world.settle_manifest(found(facts("m", &[]), &[pinned.pin.generation])).await;
    assert!(settled.changes.is_empty(), "{settled:?}");
    let announced =
        TagEntry { version: record.version, generation: record.generation, target: Some(digest("m")) };
    let settled = world.settle_tag(&[announced], &[]).await;
    assert!(settled.changes.is_empty(), "{settled:?}");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    assert!(world.steps().await.is_empty());
}

pub async fn a_tag_is_its_highest_record_that_names_what_lives(fixture: Fixture) {
    let world = unwalked(fixture).await;
    for content in ["m", "n"] {
        world.settle_manifest(found(facts(content, &[]), &[fresh()])).await;
    }
    let (low, high) = (entry(5, Some(digest("m"))), entry(9, Some(digest("n"))));
    let nothing = entry(11, Some(digest("never came")));
    world.settle_tag(&[low, high, nothing], &[]).await;
    assert_eq!(world.tag("a", "v1").await, Some(digest("n")));
    let steps = world.steps().await;
    let withdrawn = steps.iter().filter(|step| step.trim_end_matches(".x") != step.as_str()).count();
    assert_eq!(
        (steps.len(), withdrawn),
        (4, 2),
        "one is superseded, one withdrawn, its marker at once: {steps:?}"
    );

    let tombstone = entry(20, None);
    world.settle_tag(&[tombstone, high], &[]).await;
    assert_eq!(world.tag("a", "v1").await, None, "deleted");
    let pushed = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert!(pushed.tags[0].version > tombstone.version, "a later epoch is above all of an earlier one");
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    let own = TagEntry {
        version: pushed.tags[0].version,
        generation: pushed.tags[0].generation,
        target: Some(digest("m")),
    };
    let settled = world.settle_tag(&[tombstone, high], &[]).await;
    assert_eq!(settled.again, [0], "the row's record was not looked for");
    // What the push superseded is queued, and no evidence any more; this is.
    let other = entry(7, Some(digest("n")));
    world.settle_tag(&[high, other], &[own]).await;
    assert_eq!(world.tag("a", "v1").await, Some(digest("n")), "its record is gone: the bucket wins");
}

pub async fn entries_below_a_subject_follow_their_manifests(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let (a, record) = (name("a"), fresh());
    let facts = ManifestFacts { subject: Some(digest("subject")), ..facts("note", &[]) };
    world.settle_manifest(found(facts, &[record])).await;
    let below = ReferrersFound {
        subject: digest("subject"),
        listed: vec![(digest("note"), fresh()), (digest("unknown"), fresh())],
        missing: vec![(digest("note"), record)],
    };
    let settled = world.settle(Difference::Referrers(&a, &[below])).await;
    assert_eq!(settled.changes["queuedObjects"], 2);
    let [errand] = &settled.errands[..] else { panic!("{settled:?}") };
    assert!(errand.steps[0].contains(&record.to_string()), "{errand:?}");
}

pub async fn staged_bytes_of_no_upload_and_no_blob_are_queued(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let key = world.open("a").await;
    let (upload, _) = world.lease(&key).await;
    let blob = Location { generation: fresh(), form: Form::Tail(3), size: 1 };
    world.settle(Difference::Blobs(&[data(digest("x"), &[blob], &[])])).await;
    let stray = UploadFound { generation: fresh(), lease: None };
    let all = [
        UploadFound { generation: upload.generation, lease: Some(1) },
        UploadFound { generation: blob.generation, lease: Some(3) },
        UploadFound { generation: blob.generation, lease: Some(2) },
        stray,
    ];
    let settled = world.settle(Difference::Uploads(&all)).await;
    assert_eq!(settled.changes["queuedObjects"], 2, "{:?}", world.steps().await);
    assert!(world.steps().await.iter().any(|step| step.ends_with(&stray.generation.to_string())));
}

pub async fn too_many_losses_stop_the_walk_for_everybody_until_they_are_accepted(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let all: Vec<BlobFound> = (0..250).map(|n| data(digest(&format!("{n}")), &[at(fresh())], &[])).collect();
    world.settle(Difference::Blobs(&all)).await;
    let shard = Shard { phase: 1, name: "v1/blob/".to_owned() };
    assert!(world.store.plan_walk(world.epoch, std::slice::from_ref(&shard)).await.expect("plan"));
    let gone = |range: std::ops::Range<usize>| -> Vec<BlobFound> {
        all[range].iter().map(|one| data(one.digest, &[], &one.listed)).collect()
    };
    assert!(matches!(world.outcome(Mode::Walk, Difference::Blobs(&gone(0..100))).await, Outcome::Settled(_)));
    let outcome = world.outcome(Mode::Walk, Difference::Blobs(&gone(100..150))).await;
    let Outcome::TooManyLosses(loss) = outcome else { panic!("{outcome:?}") };
    assert_eq!((loss.kind, loss.lost, loss.total), (Kind::Blobs, 150, 250));
    let claims = world.store.blob_claims(&crate::meta::DigestSpan::all(), 1000).await.expect("claims");
    assert_eq!(claims.len(), 150, "the last step was not taken");
    let owner = Uuid::new_v4();
    let claimed = world.store.claim_shard(world.epoch, owner).await.expect("claim");
    assert_eq!(claimed, ShardOutcome::Stopped(loss));
    world.store.accept_loss(world.epoch).await.expect("accept");
    assert_eq!(
        world.store.claim_shard(world.epoch, owner).await.expect("claim"),
        ShardOutcome::Claimed(shard)
    );
    assert!(matches!(
        world.outcome(Mode::Walk, Difference::Blobs(&gone(100..250))).await,
        Outcome::Settled(_)
    ));
}

pub async fn a_part_is_one_replicas_until_its_lease_ends_and_phases_wait_for_each_other(fixture: Fixture) {
    let world = unwalked(fixture).await;
    let (store, epoch, [one, other]) = (&world.store, world.epoch, [Uuid::new_v4(), Uuid::new_v4()]);
    let claim = async |owner| store.claim_shard(epoch, owner).await.expect("claim");
    assert_eq!(claim(one).await, ShardOutcome::Unplanned);
    assert_eq!(store.end_walk(epoch).await.expect("end"), None, "nothing was compared");
    let shards = [(1, "first"), (2, "second")].map(|(phase, name)| Shard { phase, name: name.to_owned() });
    assert!(store.plan_walk(epoch, &shards).await.expect("plan"));
    assert!(!store.plan_walk(epoch, &[]).await.expect("plan"), "one plan");
    assert_eq!(claim(one).await, ShardOutcome::Claimed(shards[0].clone()));
    assert_eq!(claim(other).await, ShardOutcome::Wait);
    assert_eq!(claim(one).await, ShardOutcome::Claimed(shards[0].clone()), "it broke off and comes back");
    store.release_shards(epoch, &[other]).await.expect("release");
    assert_eq!(claim(other).await, ShardOutcome::Wait, "what another has is not given back");
    store.release_shards(epoch, &[one, other]).await.expect("release");
    assert_eq!(claim(other).await, ShardOutcome::Claimed(shards[0].clone()), "it was given back");
    store.release_shards(epoch, &[other]).await.expect("release");
    assert_eq!(claim(one).await, ShardOutcome::Claimed(shards[0].clone()));
    assert!(!store.keep_shard(epoch, "first", other).await.expect("keep"));
    world.rows.pass(Duration::from_secs(61)).await;
    assert_eq!(claim(other).await, ShardOutcome::Claimed(shards[0].clone()), "the other is dead");
    assert!(!store.finish_shard(epoch, "first", one).await.expect("finish"), "and comes too late");
    assert!(store.keep_shard(epoch, "first", other).await.expect("keep"));
    assert!(store.finish_shard(epoch, "first", other).await.expect("finish"));
    store.release_shards(epoch, &[other]).await.expect("release");
    assert_eq!(claim(one).await, ShardOutcome::Claimed(shards[1].clone()), "what is done stays done");
    assert_eq!(store.end_walk(epoch).await.expect("end"), None, "a part is not compared");
    assert!(store.finish_shard(epoch, "second", one).await.expect("finish"));
    assert_eq!(claim(other).await, ShardOutcome::Done);
    let progress = store.walk_progress(epoch).await.expect("progress");
    assert_eq!((progress.done, progress.total), (2, 2));
    store.queue_unreferenced(epoch).await.expect("queue");
    assert!(store.end_walk(epoch).await.expect("end").is_some());
    assert_eq!(claim(other).await, ShardOutcome::Walked);
    assert_eq!(store.end_walk(epoch).await.expect("end"), None, "once");
}

/// Compares nothing and ends the walk.
async fn end_walk(world: &World) -> crate::meta::Changes {
    let (store, epoch, owner) = (&world.store, world.epoch, Uuid::new_v4());
    let shard = Shard { phase: 1, name: "all".to_owned() };
    assert!(store.plan_walk(epoch, &[shard]).await.expect("plan"));
    assert!(matches!(store.claim_shard(epoch, owner).await, Ok(ShardOutcome::Claimed(_))));
    assert!(store.finish_shard(epoch, "all", owner).await.expect("finish"));
    store.end_walk(epoch).await.expect("end").expect("it is the last part")
}

pub async fn the_end_of_a_walk_takes_back_what_pushes_of_earlier_epochs_left(fixture: Fixture) {
    let mut world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    let whole = world.pin("a", facts("whole", &[]), &["v1"]).await;
    let broken = world.pin("a", facts("broken", &[]), &["v2"]).await;
    let (a, b, link) = (name("a"), name("b"), fresh());
    let mount = world.store.begin_mount(world.epoch, &a, &b, &stored.digest, link).await;
    mount.expect("mount").expect("seen");
    renew(&mut world).await;
    let kept = world.pin("a", facts("kept", &[]), &[]).await;
    // The records of the first are whole: they are adopted.
    world.settle_manifest(found(facts("whole", &[]), &[whole.pin.generation])).await;
    let record = &whole.tags[0];
    let entry =
        TagEntry { version: record.version, generation: record.generation, target: Some(digest("whole")) };
    world.settle_tag(&[entry], &[]).await;
    let changes = end_walk(&world).await;
    assert_eq!(changes["endedPushes"], 1);
    assert_eq!(world.tag("a", "v1").await, Some(digest("whole")));
    let own = manifest_key("a", &broken).to_string();
    let row = world.queued(&format!("-{own}")).await.expect("it is taken back");
    assert_eq!(row.steps, [format!("+{own}.x"), format!("-{own}")]);
    assert_eq!(row.then.map(|(_, manifest)| manifest).or(Some(broken.manifest.0)), Some(broken.manifest.0));
    assert!(world.queued(&format!("-{}", link_key("b", stored.digest, link))).await.is_some());
    assert!(world.queued(&format!("-{}", manifest_key("a", &whole))).await.is_none());
    assert_eq!(world.rows.intents().await.len(), 1, "that of this epoch stays");
    assert_eq!(world.publish(&kept).await, PublishOutcome::Published);
    assert!(matches!(world.store.publish_manifest(&broken).await, Err(Error::Superseded)));
    let again = super::pin("a", facts("broken", &[]), &["v2"]);
    assert!(matches!(world.store.pin_manifest(world.epoch, &again).await, Ok(PinOutcome::Pinned(_))));
}

pub async fn an_upload_that_became_a_blob_ends_with_the_walk_and_others_go_on(fixture: Fixture) {
    let mut world = World::begin(fixture).await;
    let open = world.open("a").await;
    let (stored, _commit) = world.receive("a", "x").await;
    // The commit was lost with the database; the bucket shows it.
    renew(&mut world).await;
    world.settle(Difference::Blobs(&[data(stored.digest, &[stored.location], &[])])).await;
    world.rows.pass(HOUR).await;
    let changes = end_walk(&world).await;
    assert_eq!(changes["endedUploads"], 1);
    assert_eq!(world.store.upload_offset(&open).await.expect("offset"), Some(0), "clients resume");
    let data = format!("-{}", stored.location.blob_key(stored.digest));
    assert!(!world.steps().await.contains(&data), "what is live stays");
}

pub async fn one_rebuild_at_a_time(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    let hold = async |owner| world.store.hold_rebuild(owner).await.expect("hold");
    assert!(hold(one).await && !hold(other).await && hold(one).await);
    world.rows.pass(Duration::from_secs(61)).await;
    assert!(hold(other).await, "the first has died");
    assert!(!hold(one).await);
    world.store.end_rebuild(one).await.expect("end");
    assert!(!hold(one).await, "it was not its own");
    world.store.end_rebuild(other).await.expect("end");
    assert!(hold(one).await);
    world.store.forget_incarnation().await.expect("forget");
    assert!(!world.store.envelope().await.expect("envelope").expect("founded").ours);
}

pub async fn rows_are_claimed_in_the_order_of_the_bucket(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let manifest = facts("m", &[]);
    for text in ["a", "a-b", "a.b", "B", "aa"] {
        world.push_manifest("a", manifest.clone(), &[text]).await;
    }
    world.push_manifest("a", index("i", &[digest("m")]), &[]).await;
    let a: Name = name("a");
    let tags = async |span| {
        let claims = world.store.tag_claims(&a, &span, 10).await.expect("claims");
        claims.into_iter().map(|(tag, _)| tag.to_string()).collect::<Vec<_>>()
    };
    let all = crate::meta::TagSpan::all;
    assert_eq!(tags(all()).await, ["B", "a-b", "a.b", "a", "aa"]);
    assert_eq!(tags(all().after(&tag("a.b"))).await, ["a", "aa"]);
    assert_eq!(tags(all().through(&tag("a-b"))).await, ["B", "a-b"]);
    let digests = crate::meta::DigestSpan::all();
    let claims = world.store.manifest_claims(&a, &digests, 10).await.expect("claims");
    let mut sorted = [digest("m"), digest("i")];
    sorted.sort();
    assert_eq!(claims.iter().map(|claim| claim.digest).collect::<Vec<_>>(), sorted);
    let page = world.store.manifest_claims(&a, &digests.after(&sorted[0]), 10).await.expect("claims");
    assert_eq!(page.len(), 1);
    assert_eq!(world.tag("a", "a").await, Some(digest("m")));
}
