// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Restores from the trash: what was deleted a moment ago comes back as it was, with all its content, whatever
//! collectors do meanwhile.

use std::time::Instant;

use rand::Rng as _;
use stowage_oci::{Digest, Name, Reference, Tag};
use stowage_registry::domain::Error;
use stowage_registry::meta::TrashItem;

use super::clients::{Recorded, Shelf, judge, pull_content, pull_tag};
use super::history::{Begun, Change};
use super::world::{Actor, World};

/// Something that a client was told is deleted.
pub(super) struct Deleted {
    pub(super) item: TrashItem,
    /// Of a tag: the deletion in its history.
    pub(super) by: Option<Begun>,
    /// Before the deletion began.
    pub(super) at: Instant,
}

/// Brings back what somebody deleted.
pub(super) async fn restore(world: &World, shelf: &Shelf, actor: &mut Actor) {
    let Some(deleted) = shelf.take_deleted(actor) else { return };
    match (&deleted.item.reference, &deleted.by) {
        (Reference::Tag(tag), Some(by)) => restore_tag(world, actor, &deleted, tag, by).await,
        (Reference::Digest(digest), _) => restore_manifest(world, actor, &deleted.item, *digest).await,
        (Reference::Tag(_), None) => {}
    }
}

async fn restore_tag(world: &World, actor: &mut Actor, deleted: &Deleted, tag: &Tag, by: &Begun) {
    let Deleted { item, at, .. } = deleted;
    let repository = &item.repository;
    let with_referrers = actor.chance(0.3);
    let recorded = Recorded::begin(&world.history, repository, std::slice::from_ref(tag), Change::Restore);
    let restored = actor.domain.restore(item, with_referrers).await;
    let is_alone = world.history.is_alone(&[by, recorded.first()]);
    match restored {
        Ok(restored) => {
            recorded.restored(restored.digest);
            world.count("tags restored");
            if is_alone && let Err(why) = world.history.check_before(by, restored.digest) {
                world.violation(format!("restored {item}: {why}"));
            }
            pull_tag(world, actor, repository, tag).await;
        }
        Err(Error::NotInTrash) => {
            drop(recorded);
            world.count("not in the trash");
            if is_alone && at.elapsed() < world.setting.times.trash {
                let age = at.elapsed();
                world.violation(format!("{item} was deleted {age:?} ago and is not in the trash"));
            }
        }
        Err(error) => judge(world, "restore of a tag", &error),
    }
}

/// A manifest that no tag names may be collected again at any time; as long as it is there, it is whole.
async fn restore_manifest(world: &World, actor: &mut Actor, item: &TrashItem, digest: Digest) {
    match actor.domain.restore(item, actor.random.random()).await {
        Ok(_) => {
            world.count("manifests restored");
            is_whole(world, actor, &item.repository, digest).await;
        }
        Err(Error::NotInTrash) => world.count("not in the trash"),
        Err(error) => judge(world, "restore of a manifest", &error),
    }
}

async fn is_whole(world: &World, actor: &Actor, repository: &Name, digest: Digest) {
    /// It may be deleted and pushed again while it is pulled.
    const ATTEMPTS: u32 = 6;
    let mut missing = Vec::new();
    for _ in 0..ATTEMPTS {
        let answer = match actor.domain.manifest(repository, &Reference::Digest(digest), false).await {
            Ok(answer) => answer,
            Err(error) => return judge(world, "read of a restored manifest", &error),
        };
        let body = answer.body.expect("it was asked for");
        match pull_content(world, &actor.domain, repository, &body).await {
            Ok(()) | Err(None) => return,
            Err(Some(what)) => missing.push(what),
        }
    }
    world.violation(format!("restored {repository}@{digest} lacks {missing:?}"));
}
