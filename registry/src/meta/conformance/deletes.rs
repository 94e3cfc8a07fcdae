// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deleting: what it hides, what it queues, what it refuses.
#![expect(missing_docs, reason = "a claim is its name")]

use futures::future::join;
use stowage_oci::Tag;

use super::{
    DAY, Fixture, HOUR, World, digest, facts, index, link_key, manifest_key, marker_key, name, none, pin,
    tag, tag_key,
};
use crate::meta::{DeleteOutcome, ManifestFacts, Pin, PinOutcome, PublishOutcome, Removal};

/// What a tombstone step looks like.
fn is_tombstone(step: &str) -> bool {
    step.starts_with('+') && step.contains("/~t/") && step.ends_with(".-")
}

async fn delete_tag(world: &World, repository: &str, text: &str) -> Option<Removal> {
    world.store.delete_tag(world.epoch, &name(repository), &tag(text), DAY).await.expect("delete")
}

async fn delete_manifest(world: &World, repository: &str, content: &str) -> DeleteOutcome {
    world
        .store
        .delete_manifest(world.epoch, &name(repository), &digest(content), DAY, &none)
        .await
        .expect("delete")
}

async fn delete_blob(world: &World, repository: &str, content: &str) -> DeleteOutcome {
    world.store.delete_blob(world.epoch, &name(repository), &digest(content)).await.expect("delete")
}

fn removal(outcome: DeleteOutcome) -> Removal {
    match outcome {
        DeleteOutcome::Deleted(removal) => Some(removal),
        DeleteOutcome::Referenced | DeleteOutcome::Spared(_) | DeleteOutcome::Unknown => None,
    }
    .expect("it can be deleted")
}

pub async fn a_deleted_tag_is_gone_and_its_tombstone_is_queued(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert_eq!(delete_tag(&world, "a", "v2").await, None);
    assert_eq!(delete_tag(&world, "b", "v1").await, None);
    let removal = delete_tag(&world, "a", "v1").await.expect("there is one");
    assert_eq!(world.tag("a", "v1").await, None);
    assert_eq!(world.store.tags(world.epoch, &name("a"), None, 10).await.expect("tags"), Some(vec![]));
    assert!(world.manifest("a", &digest("m").to_string()).await.is_some(), "the manifest stays");
    assert!(removal.steps.len() == 1 && is_tombstone(&removal.steps[0]), "{removal:?}");
    let record = tag_key("a", &pinned).to_string();
    assert!(removal.steps[0].trim_start_matches('+') < record.as_str(), "it is listed before what it hides");
    let queued = world.queued(&removal.steps[0]).await.expect("until it is carried out");
    assert!(queued.lane.is_some() && queued.id == removal.outbox && queued.due_in < HOUR, "{queued:?}");
    assert_eq!(delete_tag(&world, "a", "v1").await, None, "there is no such tag any more");
    world.finish(&removal).await;
    assert!(world.rows.outbox().await.is_empty());
}

pub async fn a_push_pinned_before_a_delete_loses_to_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let early = world.pin("a", facts("n", &[]), &["v1"]).await;
    delete_tag(&world, "a", "v1").await.expect("there is one");
    assert_eq!(world.publish(&early).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, None, "in the bucket the tombstone is higher, too");
    assert!(world.queued(&format!("-{}", tag_key("a", &early))).await.is_some());
}

pub async fn a_push_pinned_after_a_delete_brings_the_tag_back(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let old = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let removal = delete_tag(&world, "a", "v1").await.expect("there is one");
    world.finish(&removal).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    let tombstone = removal.steps[0].replacen('+', "-", 1);
    let row = world.queued(&tombstone).await.expect("the tombstone goes");
    let hidden = format!("-{}", tag_key("a", &old));
    assert_eq!(row.steps, [hidden, tombstone], "what it hides goes before it");
    assert!(row.lane.is_some() && row.due_in > HOUR / 2, "{row:?}");
}

pub async fn a_deleted_manifest_takes_its_tags_with_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.push_manifest("a", facts("m", &[]), &["v1", "v2"]).await;
    world.push_manifest("a", facts("n", &[]), &["v3"]).await;
    let removal = removal(delete_manifest(&world, "a", "m").await);
    for reference in ["v1", "v2", &digest("m").to_string()] {
        assert_eq!(world.manifest("a", reference).await, None, "{reference}");
    }
    assert_eq!(world.tag("a", "v3").await, Some(digest("n")));
    let [first, second, marker] = &removal.steps[..] else {
        assert!(removal.steps.is_empty(), "two tombstones and a marker: {:?}", removal.steps);
        return;
    };
    assert!(is_tombstone(first) && is_tombstone(second), "{removal:?}");
    assert_eq!(*marker, format!("+{}", marker_key("a", &pinned)), "last");
    assert_eq!(delete_manifest(&world, "a", "m").await, DeleteOutcome::Unknown);
    assert_eq!(delete_manifest(&world, "b", "n").await, DeleteOutcome::Unknown);
    world.finish(&removal).await;
    assert!(world.queued(marker).await.is_none());
}

pub async fn a_push_of_a_tag_outlives_the_deletion_of_the_manifest_that_it_named(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let early = world.pin("a", facts("n", &[]), &["v1", "v2"]).await;
    removal(delete_manifest(&world, "a", "m").await);
    assert_eq!(world.publish(&early).await, PublishOutcome::StartOver, "the tombstone is higher");
    for reference in ["v1", "v2", &digest("n").to_string()] {
        assert_eq!(world.manifest("a", reference).await, None, "{reference}: nothing of it has taken effect");
    }
    let marker = format!("+{}", marker_key("a", &early));
    let row = world.queued(&marker).await.expect("its record is taken back");
    assert_eq!(row.steps.get(1), Some(&format!("-{}", manifest_key("a", &early))));
    assert!(world.queued(&format!("-{}", tag_key("a", &early))).await.is_some(), "and that of its tag");
    world.push_manifest("a", facts("n", &[]), &["v1", "v2"]).await;
    for text in ["v1", "v2"] {
        assert_eq!(world.tag("a", text).await, Some(digest("n")), "{text}");
    }
}

pub async fn a_live_manifest_whose_tag_was_swept_stays_live(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let live = world.push_manifest("a", facts("n", &[]), &[]).await;
    let early = world.pin("a", facts("n", &[]), &["v1"]).await;
    removal(delete_manifest(&world, "a", "m").await);
    assert_eq!(world.publish(&early).await, PublishOutcome::StartOver);
    assert!(world.manifest("a", &digest("n").to_string()).await.is_some());
    assert!(world.queued(&format!("-{}", manifest_key("a", &live))).await.is_none(), "its record stays");
    let again = world.push_manifest("a", facts("n", &[]), &["v1"]).await;
    assert!(!again.writes_record);
    assert_eq!(world.tag("a", "v1").await, Some(digest("n")));
}

pub async fn a_manifest_with_a_tag_that_is_spared_is_not_deleted(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1", "v2"]).await;
    let (repository, wanted) = (name("a"), digest("m"));
    let spared = |one: &Tag| *one == tag("v2");
    let delete = || world.store.delete_manifest(world.epoch, &repository, &wanted, DAY, &spared);
    assert_eq!(delete().await.expect("delete"), DeleteOutcome::Spared(tag("v2")));
    assert_eq!((world.tag("a", "v1").await, world.steps().await), (Some(digest("m")), Vec::new()));
    delete_tag(&world, "a", "v2").await;
    assert!(matches!(delete().await.expect("delete"), DeleteOutcome::Deleted(_)), "it has it no more");
}

pub async fn a_manifest_that_an_index_lists_is_not_deleted(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    world.push_manifest("b", facts("m", &[]), &[]).await;
    let pending = world.pin("a", index("i", &[digest("m")]), &[]).await;
    assert_eq!(delete_manifest(&world, "a", "m").await, DeleteOutcome::Referenced, "by a push under way");
    world.publish(&pending).await;
    assert_eq!(delete_manifest(&world, "a", "m").await, DeleteOutcome::Referenced);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    removal(delete_manifest(&world, "b", "m").await);
    removal(delete_manifest(&world, "a", "i").await);
    removal(delete_manifest(&world, "a", "m").await);
}

pub async fn the_markers_of_deleted_parents_come_before_that_of_the_child(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let child = world.push_manifest("a", facts("m", &[]), &[]).await;
    let parent = world.push_manifest("a", index("i", &[digest("m")]), &["v1"]).await;
    let first = removal(delete_manifest(&world, "a", "i").await);
    let second = removal(delete_manifest(&world, "a", "m").await);
    let (parents, childs) = (marker_key("a", &parent), marker_key("a", &child));
    assert_eq!(second.steps.last(), Some(&format!("+{childs}")));
    assert!(second.steps.contains(&format!("+{parents}")), "{second:?}");
    assert_eq!(second.steps[..first.steps.len()], first.steps, "with the tombstones that it owes");

    // Carried out, it owes nothing any more.
    world.push_manifest("b", facts("m", &[]), &[]).await;
    world.push_manifest("b", index("i", &[digest("m")]), &[]).await;
    world.finish(&removal(delete_manifest(&world, "b", "i").await)).await;
    assert_eq!(removal(delete_manifest(&world, "b", "m").await).steps.len(), 1);
}

pub async fn a_deleted_manifest_can_be_pushed_again(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let first = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    removal(delete_manifest(&world, "a", "m").await);
    let second = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert!(second.writes_record && second.manifest > first.manifest, "nothing is resurrected");
    let row = world.manifest("a", "v1").await.expect("it is back");
    assert_eq!((row.id, row.generation), (second.manifest, second.pin.generation));
    assert!(!world.steps().await.contains(&format!("-{}", manifest_key("a", &second))));
}

pub async fn a_blob_that_a_manifest_lists_is_not_deleted(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for content in ["x", "y", "z"] {
        world.push("a", content).await;
    }
    assert_eq!(delete_blob(&world, "b", "x").await, DeleteOutcome::Unknown);
    world.pin("a", facts("m", &[digest("x")]), &[]).await;
    assert_eq!(delete_blob(&world, "a", "x").await, DeleteOutcome::Referenced, "by a push under way");
    world.push_manifest("a", facts("n", &[digest("y")]), &[]).await;
    assert_eq!(delete_blob(&world, "a", "y").await, DeleteOutcome::Referenced);
    world.push_manifest("a", index("i", &[digest("z")]), &[]).await;
    assert_eq!(delete_blob(&world, "a", "z").await, DeleteOutcome::Referenced, "as a child");
}

pub async fn a_deleted_blob_that_nothing_holds_becomes_a_candidate(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push("b", "x").await;
    let removal = removal(delete_blob(&world, "a", "x").await);
    assert_eq!(removal.steps, [format!("-{}", link_key("a", stored.digest, stored.generation))]);
    assert_eq!(world.blob("a", stored.digest).await, None);
    assert!(world.blob("b", stored.digest).await.is_some());
    assert_eq!(delete_blob(&world, "a", "x").await, DeleteOutcome::Unknown);
    let queued = world.queued(&removal.steps[0]).await.expect("until it is carried out");
    assert!(matches!(queued.then, Some(('b', _))), "{queued:?}");
    world.finish(&removal).await;
    assert!(world.queued(&removal.steps[0]).await.is_none());
    assert_eq!(world.rows.candidates().await.last().copied(), queued.then);
    world.finish(&removal).await;
    world.push("a", "x").await;
    assert!(world.blob("a", stored.digest).await.is_some());
}

pub async fn a_blob_that_the_trash_holds_is_hidden_and_comes_back(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[stored.digest]), &["v1"]).await;
    removal(delete_manifest(&world, "a", "m").await);
    let link = world.blob("a", stored.digest).await.expect("still there").link;
    let removal = removal(delete_blob(&world, "a", "x").await);
    assert_eq!(world.blob("a", stored.digest).await, None);
    assert!(!world.store.renew_link(link).await.expect("renew"), "a hidden link cannot be relied on");
    assert_eq!(world.queued(&removal.steps[0]).await.and_then(|row| row.then), None, "the trash holds it");
    assert_eq!(delete_blob(&world, "a", "x").await, DeleteOutcome::Unknown);
    let again = world.push("a", "x").await;
    let row = world.blob("a", stored.digest).await.expect("it is back");
    assert_eq!((row.link, row.location), (link, stored.location));
    let record = format!("-{}", link_key("a", stored.digest, again.generation));
    assert!(world.queued(&record).await.is_none(), "its new record is the one that shows it");
}

/// Enough that without the locks some round goes wrong.
const ROUNDS: u32 = 25;

/// Whether a push of `facts`, begun at the same moment as a delete, was pinned.
async fn is_pinned(world: &World, facts: ManifestFacts) -> bool {
    let outcome = world.store.pin_manifest(world.epoch, &pin("a", facts, &[])).await.expect("pin");
    matches!(outcome, PinOutcome::Pinned(_))
}

pub async fn a_push_and_a_delete_of_its_blob_never_both_succeed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for round in 0..ROUNDS {
        let content = format!("blob {round}");
        world.push("a", &content).await;
        let facts = facts(&format!("manifest {round}"), &[digest(&content)]);
        let (pinned, deleted) = join(is_pinned(&world, facts), delete_blob(&world, "a", &content)).await;
        let refused = deleted == DeleteOutcome::Referenced;
        assert_eq!(pinned, refused, "{round}: {deleted:?}");
        assert_eq!(world.blob("a", digest(&content)).await.is_some(), pinned, "{round}");
    }
}

pub async fn a_push_and_a_delete_of_its_child_never_both_succeed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for round in 0..ROUNDS {
        let child = format!("child {round}");
        world.push_manifest("a", facts(&child, &[]), &["v1"]).await;
        let strict =
            Pin { strict: true, ..pin("a", index(&format!("index {round}"), &[digest(&child)]), &[]) };
        let push = async {
            let outcome = world.store.pin_manifest(world.epoch, &strict).await.expect("pin");
            matches!(outcome, PinOutcome::Pinned(_))
        };
        let (pinned, deleted) = join(push, delete_manifest(&world, "a", &child)).await;
        assert_eq!(pinned, deleted == DeleteOutcome::Referenced, "{round}: {deleted:?}");
    }
}

pub async fn pushes_and_deletes_of_one_tag_end_as_its_order_says(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for round in 0..ROUNDS {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        world.push_manifest("a", facts(&old, &[]), &["v1"]).await;
        let push = world.push_manifest("a", facts(&new, &[]), &["v1"]);
        let (pushed, removal) = join(push, delete_tag(&world, "a", "v1")).await;
        let removal = removal.expect("there was one all the time");
        // The newest comes first in the bucket.
        let record = tag_key("a", &pushed).to_string();
        let pushed_last = record.as_str() < removal.steps[0].trim_start_matches('+');
        let expected = pushed_last.then(|| digest(&new));
        assert_eq!(world.tag("a", "v1").await, expected, "{round}");
    }
}
