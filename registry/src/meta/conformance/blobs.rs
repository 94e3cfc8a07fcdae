// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The commit of a blob, mounts, the leases of links.
#![expect(missing_docs, reason = "a claim is its name")]

use futures::future::join_all;
use uuid::Uuid;

use super::{Fixture, HOUR, OLD, World, digest, facts, fresh, link_key, name, none};
use crate::key::{Form, Key};
use crate::meta::{BlobCommit, CommitOutcome, Location, Plan, Progress, Tail};

pub async fn a_committed_blob_is_seen_by_its_repository_alone(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (stored, commit) = world.receive("a/b", "x").await;
    assert_eq!(world.blob("a/b", stored.digest).await, None, "not before the commit");
    assert_eq!(
        world.store.commit_blob(world.epoch, &commit).await.expect("commit"),
        CommitOutcome::Committed
    );
    let row = world.blob("a/b", stored.digest).await.expect("committed");
    assert_eq!((row.location, row.lease_is_old), (stored.location, false));
    assert_eq!(world.blob("a/c", stored.digest).await, None);
    assert_eq!(world.rows.candidates().await, [('l', row.link.0)], "nothing refers to it yet");
    assert_eq!(world.steps().await, [""; 0], "nothing is left of the upload");
}

pub async fn every_form_of_data_reads_back(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for (content, form) in [("x", Form::Inline), ("y", Form::Upload), ("z", Form::Tail(1))] {
        let key = world.open("a").await;
        let (upload, token) = world.lease(&key).await;
        let location = Location { generation: upload.generation, form, size: 1 << 33 };
        let commit = BlobCommit {
            upload: key.id,
            token,
            digest: digest(content),
            location: Some(location),
            link: upload.generation,
        };
        world.store.commit_blob(world.epoch, &commit).await.expect("commit");
        assert_eq!(world.blob("a", digest(content)).await.map(|row| row.location), Some(location));
    }
}

pub async fn a_commit_without_the_lease_changes_nothing(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (stored, commit) = world.receive("a", "x").await;
    let stale = BlobCommit { token: Uuid::new_v4(), ..commit.clone() };
    assert_eq!(
        world.store.commit_blob(world.epoch, &stale).await.expect("commit"),
        CommitOutcome::UploadGone
    );
    assert_eq!(world.blob("a", stored.digest).await, None);
    world.store.commit_blob(world.epoch, &commit).await.expect("commit");
    let again = world.store.commit_blob(world.epoch, &commit).await.expect("commit");
    assert_eq!(again, CommitOutcome::UploadGone);
}

pub async fn fifty_commits_of_one_digest_leave_one_row_and_queue_the_other_keys(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let received = join_all((0..50).map(|n| {
        let world = &world;
        // Half of them into one repository.
        async move { world.receive(&format!("a/{}", n % 25), "x").await }
    }))
    .await;
    let outcomes =
        join_all(received.iter().map(|(_, commit)| world.store.commit_blob(world.epoch, commit))).await;
    for outcome in outcomes {
        assert_eq!(outcome.expect("commit"), CommitOutcome::Committed);
    }
    assert_eq!(world.rows.blobs().await, 1);
    let winner = world.blob("a/0", digest("x")).await.expect("committed").location;
    let steps = world.steps().await;
    for (stored, _) in &received {
        let removal = format!("-{}", stored.location.blob_key(stored.digest));
        assert_eq!(steps.contains(&removal), stored.generation != winner.generation, "{removal}");
    }
    let links = steps.iter().filter(|step| step.contains("/~b/")).count();
    assert_eq!(links, 25, "of two link records in a repository one stays");
    for row in world.rows.outbox().await {
        assert!(row.due_in > HOUR / 2, "readers of the loser may still be at it: {row:?}");
    }
}

pub async fn a_commit_queues_what_the_upload_staged_besides(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    for lease in 1..=2 {
        let (upload, token) = world.lease(&key).await;
        let mut tails = upload.progress.tails;
        tails.push(Tail { lease, size: 3 });
        let progress = Progress { offset: 3 * u64::from(lease), tails, ..Progress::default() };
        assert!(world.store.store_progress(key.id, token, &progress).await.expect("progress"));
    }
    let (upload, token) = world.lease(&key).await;
    let location = Location { generation: upload.generation, form: Form::Inline, size: 6 };
    let plan = Plan { digest: digest("x"), form: Some(location.form), size: location.size };
    assert!(world.store.record_plan(key.id, token, &plan, &upload.progress).await.expect("plan"));
    let commit = BlobCommit {
        upload: key.id,
        token,
        digest: plan.digest,
        location: Some(location),
        link: upload.generation,
    };
    world.store.commit_blob(world.epoch, &commit).await.expect("commit");
    let tail = |lease| format!("-{}", Key::UploadTail { generation: upload.generation, lease });
    assert_eq!(world.steps().await, [tail(1), tail(2)]);
}

pub async fn the_next_commit_heals_an_absent_blob(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let lost = world.push("a", "x").await;
    world.store.mark_absent(&lost.digest, lost.generation).await.expect("mark");
    assert_eq!(world.blob("a", lost.digest).await, None);
    assert!(!world.store.touch_stored(&lost.digest).await.expect("touch"));
    let healed = world.push("b", "x").await;
    assert_eq!(world.blob("b", lost.digest).await.map(|row| row.location), Some(healed.location));
    assert_eq!(world.blob("a", lost.digest).await.map(|row| row.location), Some(healed.location));
    assert_eq!(world.rows.blobs().await, 1);
}

pub async fn marking_absent_spares_another_generation(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    world.store.mark_absent(&stored.digest, fresh()).await.expect("mark");
    assert!(world.blob("a", stored.digest).await.is_some());
}

pub async fn content_stored_already_is_only_linked(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let first = world.push("a", "x").await;
    let (_, commit) = world.receive("b", "x").await;
    let commit = BlobCommit { location: None, ..commit };
    assert_eq!(
        world.store.commit_blob(world.epoch, &commit).await.expect("commit"),
        CommitOutcome::Committed
    );
    assert_eq!(world.blob("b", first.digest).await.map(|row| row.location), Some(first.location));
}

pub async fn content_that_went_meanwhile_ends_the_upload(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("b").await;
    let (upload, token) = world.lease(&key).await;
    let commit =
        BlobCommit { upload: key.id, token, digest: digest("x"), location: None, link: upload.generation };
    assert_eq!(world.store.commit_blob(world.epoch, &commit).await.expect("commit"), CommitOutcome::DataGone);
    assert_eq!(world.blob("b", digest("x")).await, None);
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), None);
    let link = format!("-{}", link_key("b", digest("x"), upload.generation));
    assert!(world.queued(&link).await.is_some(), "its link record was written");
}

pub async fn stored_content_is_known_when_it_is_linked(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert!(!world.store.touch_stored(&digest("x")).await.expect("touch"));
    let stored = world.push("a", "x").await;
    assert!(world.store.touch_stored(&stored.digest).await.expect("touch"));
}

pub async fn a_mount_shows_the_blob_once_it_is_finished(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    let (from, to, generation) = (name("a"), name("new/b"), fresh());
    let mount = world.store.begin_mount(world.epoch, &from, &to, &stored.digest, generation).await;
    let mount = mount.expect("begin").expect("the source sees it");
    let record = link_key("new/b", stored.digest, generation).to_string();
    assert_eq!(world.rows.intents().await, [vec![record]]);
    assert_eq!(world.blob("new/b", stored.digest).await, None, "not before its record is there");
    let lost = crate::meta::Mount { generation: fresh(), ..mount.clone() };
    assert!(
        !world.store.finish_mount(world.epoch, &lost).await.expect("finish"),
        "the number was given again"
    );
    assert_eq!(world.rows.intents().await.len(), 1);
    assert!(world.store.finish_mount(world.epoch, &mount).await.expect("finish"));
    assert_eq!(world.blob("new/b", stored.digest).await.map(|row| row.location), Some(stored.location));
    assert!(world.rows.intents().await.is_empty());
    assert!(!world.store.finish_mount(world.epoch, &mount).await.expect("the intent is taken once"));
}

pub async fn a_mount_needs_a_source_that_sees_the_blob(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    for from in ["b", "a/b"] {
        let mount =
            world.store.begin_mount(world.epoch, &name(from), &name("c"), &stored.digest, fresh()).await;
        assert!(mount.expect("begin").is_none());
    }
    assert!(world.rows.intents().await.is_empty());
}

pub async fn a_mount_whose_source_went_queues_its_record(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    let (from, to, generation) = (name("a"), name("b"), fresh());
    let mount = world.store.begin_mount(world.epoch, &from, &to, &stored.digest, generation).await;
    let mount = mount.expect("begin").expect("the source sees it");
    world.store.delete_blob(world.epoch, &from, &stored.digest).await.expect("delete");
    assert!(!world.store.finish_mount(world.epoch, &mount).await.expect("finish"));
    assert_eq!(world.blob("b", stored.digest).await, None);
    let record = format!("-{}", link_key("b", stored.digest, generation));
    assert!(world.queued(&record).await.is_some());
    assert!(world.rows.intents().await.is_empty());
}

pub async fn an_old_lease_is_renewed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    let pinned = world.push_manifest("a", facts("m", &[stored.digest]), &["v1"]).await;
    world.rows.pass(OLD).await;
    let link = world.blob("a", stored.digest).await.expect("there");
    let manifest = world.manifest("a", "v1").await.expect("there");
    assert!(link.lease_is_old && manifest.lease_is_old);
    assert!(world.store.renew_link(link.link).await.expect("renew"));
    assert!(world.store.renew_manifest(manifest.id).await.expect("renew"));
    assert!(!world.blob("a", stored.digest).await.expect("there").lease_is_old);
    assert!(!world.manifest("a", "v1").await.expect("there").lease_is_old);
    world.rows.pass(OLD).await;
    let digest = pinned.pin.facts.digest;
    world.store.delete_manifest(world.epoch, &name("a"), &digest, HOUR, &none).await.expect("delete");
    assert!(!world.store.renew_manifest(manifest.id).await.expect("renew"), "it is gone");
}
