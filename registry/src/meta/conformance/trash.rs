// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was deleted and may come back.
#![expect(missing_docs, reason = "a claim is its name")]

use stowage_oci::Reference;

use super::{DAY, Fixture, World, digest, facts, fresh, name, none, tag};
use crate::meta::{Copied, DeleteOutcome, ManifestFacts, Pin, PinOutcome, PublishOutcome, TrashItem};

fn tagged(repository: &str, text: &str) -> TrashItem {
    TrashItem { repository: name(repository), reference: Reference::Tag(tag(text)) }
}

fn untagged(repository: &str, content: &str) -> TrashItem {
    TrashItem { repository: name(repository), reference: Reference::Digest(digest(content)) }
}

async fn delete_manifest(world: &World, repository: &str, content: &str) {
    let deleted = world
        .store
        .delete_manifest(world.epoch, &name(repository), &digest(content), DAY, &none)
        .await
        .expect("delete");
    assert!(matches!(deleted, DeleteOutcome::Deleted(_)), "{deleted:?}");
}

async fn delete_tag(world: &World, repository: &str, text: &str) {
    let deleted =
        world.store.delete_tag(world.epoch, &name(repository), &tag(text), DAY).await.expect("delete");
    assert!(deleted.is_some());
}

async fn listed(
    world: &World,
    repository: Option<&str>,
    after: Option<&TrashItem>,
    limit: u32,
) -> Vec<TrashItem> {
    let repository = repository.map(name);
    let page = world.store.trash(world.epoch, repository.as_ref(), after, limit).await.expect("trash");
    page.into_iter().map(|found| found.item).collect()
}

pub async fn the_trash_lists_deleted_tags_and_manifests_that_none_names(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("b", facts("m", &[]), &["v1", "v2"]).await;
    world.push_manifest("a", facts("n", &[]), &[]).await;
    assert_eq!(listed(&world, None, None, 10).await, []);
    delete_tag(&world, "b", "v1").await;
    delete_manifest(&world, "a", "n").await;
    let all = [untagged("a", "n"), tagged("b", "v1")];
    assert_eq!(listed(&world, None, None, 10).await, all);
    assert_eq!(listed(&world, Some("b"), None, 10).await, all[1..]);
    assert_eq!(listed(&world, None, None, 1).await, all[..1]);
    assert_eq!(listed(&world, None, Some(&all[0]), 10).await, all[1..]);
    assert_eq!(listed(&world, None, Some(&all[1]), 10).await, []);
    delete_manifest(&world, "b", "m").await;
    assert_eq!(listed(&world, Some("b"), None, 10).await, [tagged("b", "v1"), tagged("b", "v2")]);
    let found = world.store.trash(world.epoch, None, None, 1).await.expect("trash").remove(0);
    assert_eq!((found.digest, found.size), (digest("n"), facts("n", &[]).size));
    assert!(found.until > fresh().milliseconds(), "{found:?}");
}

pub async fn what_lives_again_is_not_in_the_trash(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    delete_manifest(&world, "a", "m").await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert_eq!(listed(&world, None, None, 10).await, []);
    for item in [tagged("a", "v1"), untagged("a", "m")] {
        assert_eq!(world.store.trashed(world.epoch, &item).await.expect("look"), None);
    }
    delete_manifest(&world, "a", "m").await;
    assert_eq!(listed(&world, None, None, 10).await, [tagged("a", "v1")], "once, by its tag");
}

pub async fn a_deleted_tag_is_set_again_over_its_tombstone_alone(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pushed = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    delete_tag(&world, "a", "v1").await;
    let found =
        world.store.trashed(world.epoch, &tagged("a", "v1")).await.expect("look").expect("it is there");
    assert_eq!((found.digest, found.generation), (digest("m"), pushed.pin.generation));
    assert!(found.body.is_some() && found.tombstone.is_some());
    let copied = Copied { mark: None, at: None, over: found.tombstone };
    let pin = |content: &str| Pin { copied: Some(copied), ..super::pin("a", facts(content, &[]), &["v1"]) };
    let restoring = world.pin_as(&pin("m")).await.expect("nobody has set it");
    assert_eq!(world.publish(&restoring).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    let again = world.store.pin_manifest(world.epoch, &pin("m")).await.expect("pin");
    assert!(matches!(again, PinOutcome::Moved), "{again:?}");
}

pub async fn deleted_referrers_of_a_subject_are_known(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let signature = || ManifestFacts { subject: Some(digest("m")), ..facts("signature", &[]) };
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    world.push_manifest("a", signature(), &[]).await;
    let referrers =
        async || world.store.trashed_referrers(world.epoch, &name("a"), &digest("m")).await.expect("look");
    assert_eq!(referrers().await, []);
    delete_manifest(&world, "a", "signature").await;
    assert_eq!(referrers().await, [digest("signature")]);
    world.push_manifest("a", signature(), &[]).await;
    assert_eq!(referrers().await, []);
}

pub async fn a_blob_that_was_deleted_and_is_kept_is_shown_again(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.push_manifest("a", facts("m", &[stored.digest]), &[]).await;
    delete_manifest(&world, "a", "m").await;
    let deleted = world.store.delete_blob(world.epoch, &name("a"), &stored.digest).await.expect("delete");
    assert!(matches!(deleted, DeleteOutcome::Deleted(_)), "{deleted:?}");
    assert_eq!(world.blob("a", stored.digest).await, None);
    let generation = fresh();
    let show = world.store.begin_showing(world.epoch, &name("a"), &stored.digest, generation).await;
    let show = show.expect("begin").expect("it is kept");
    assert_eq!(world.blob("a", stored.digest).await, None, "its record is not there yet");
    assert!(world.store.finish_mount(world.epoch, &show).await.expect("finish"));
    assert!(world.blob("a", stored.digest).await.is_some());
    for repository in ["a", "b"] {
        let nothing = world
            .store
            .begin_showing(world.epoch, &name(repository), &digest("y"), fresh())
            .await
            .expect("begin");
        assert!(nothing.is_none(), "{repository}");
    }
}
