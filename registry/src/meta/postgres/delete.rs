// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deleting: what a client no longer sees is in the trash or hidden, and its evidence is queued.
//!
//! The caller has seen that the epoch is walked: before that a parent may not be known yet.

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use super::error::Fault;
use super::queue::{Removals, candidates};
use super::receive::repository as repository_row;
use super::tx::Connection;
use super::{PostgresStore, row, seconds, tags};
use crate::key::{Generation, Key};
use crate::meta::steps::{evidence, lane, remove_link, write};
use crate::meta::{Candidate, DeleteOutcome, Epoch, Error, Removal, RepositoryId, Spared};

/// Locks the live tags of a manifest whose row is locked.
async fn lock_tags(tx: &mut Connection, manifest: i64) -> Result<Vec<Tag>, Fault> {
    let names: Vec<String> =
        sqlx::query_scalar(include_str!("sql/lock_tags_of.sql")).bind(manifest).fetch_all(tx).await?;
    let tags = names.iter().map(|name| row::parsed("tags", name));
    Ok(tags.collect::<Result<_, Error>>()?)
}

/// Whether a live or pending manifest lists the digest as a child.
async fn is_listed(tx: &mut Connection, repo_id: RepositoryId, digest: Digest) -> Result<bool, Fault> {
    let listed = sqlx::query_scalar(include_str!("sql/is_listed.sql")).bind(repo_id).bind(digest.to_bytes());
    Ok(listed.fetch_one(tx).await?)
}

/// What deleted parents still owe the bucket: it must not show a live index without its child.
async fn owed(tx: &mut Connection, repo_id: RepositoryId, child: Digest) -> Result<Vec<String>, Fault> {
    let rows: Vec<Vec<String>> = sqlx::query_scalar(include_str!("sql/owed_by_parents.sql"))
        .bind(repo_id)
        .bind(child.to_bytes())
        .fetch_all(tx)
        .await?;
    Ok(evidence(rows.concat()).collect())
}

impl PostgresStore {
    /// Queues a removal that its request carries out now; a worker does if it dies.
    async fn owe(&self, tx: &mut Connection, removals: Removals) -> Result<Removal, Fault> {
        let steps = removals.steps.clone();
        let outbox = removals.queue(tx, self.timings.take_over).await?;
        Ok(Removal { outbox, steps })
    }

    /// A push that was placed below a tombstone is over before the tombstone can go.
    pub(super) fn tag_rest(&self, retain: Duration) -> Duration {
        retain.max(self.timings.intent)
    }

    pub(super) async fn try_delete_tag(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        of: Option<Generation>,
        retain: Duration,
    ) -> Result<Option<Removal>, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let live: Option<(i32, uuid::Uuid)> = sqlx::query_as(include_str!("sql/lock_live_tag.sql"))
            .bind(repository.as_str())
            .bind(tag.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let is_meant = |(_, found): &(i32, uuid::Uuid)| of.is_none_or(|of| of.to_uuid() == *found);
        let Some((repo_id, _)) = live.filter(is_meant) else { return tx.undo(None).await };
        let tag_of_it = std::slice::from_ref(tag);
        let trashed = tags::trash(&mut tx, epoch, repo_id, tag_of_it, self.tag_rest(retain)).await?;
        let steps = trashed.iter().map(|record| tags::write_tombstone(repository, record)).collect();
        let lane = Some(lane(repository, tag));
        let removal = self.owe(&mut tx, Removals { steps, lane, ..Removals::default() }).await?;
        tx.commit().await?;
        Ok(Some(removal))
    }

    pub(super) async fn try_delete_manifest(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: Digest,
        retain: Duration,
        spared: &Spared<'_>,
    ) -> Result<DeleteOutcome, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let found: Option<(i32, i64, uuid::Uuid)> =
            sqlx::query_as(include_str!("sql/lock_live_manifest.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
                .fetch_optional(&mut *tx)
                .await?;
        let Some((repo_id, manifest, generation)) = found else {
            return tx.undo(DeleteOutcome::Unknown).await;
        };
        // In a statement after the lock: a push that was quicker is seen.
        if is_listed(&mut tx, repo_id, digest).await? {
            return tx.undo(DeleteOutcome::Referenced).await;
        }
        let names = lock_tags(&mut tx, manifest).await?;
        if let Some(tag) = names.iter().find(|tag| spared(tag)) {
            return tx.undo(DeleteOutcome::Spared(tag.clone())).await;
        }
        sqlx::query(include_str!("sql/trash_manifest.sql"))
            .bind(manifest)
            .bind(seconds(retain))
            .execute(&mut *tx)
            .await?;
        let trashed = tags::trash(&mut tx, epoch, repo_id, &names, self.tag_rest(retain)).await?;
        let generation = Generation::from_uuid(generation);
        let marker = Key::ManifestDeleted { repository: repository.clone(), digest, generation };

        // A marker in the bucket means that all before it is there, too.
        let tombstones = trashed.iter().map(|record| tags::write_tombstone(repository, record));
        let mut steps: Vec<String> = tombstones.collect();
        for step in owed(&mut tx, repo_id, digest).await? {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        steps.push(write(&marker));
        let then_ref = Some(manifest);
        let removal = self.owe(&mut tx, Removals { steps, then_ref, ..Removals::default() }).await?;
        candidates(&mut tx, Candidate::Trashed, &[manifest], retain).await?;
        tx.commit().await?;
        Ok(DeleteOutcome::Deleted(removal))
    }

    pub(super) async fn try_delete_blob(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: Digest,
    ) -> Result<DeleteOutcome, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let Some(repo_id) = repository_row(&mut tx, repository).await? else {
            return tx.undo(DeleteOutcome::Unknown).await;
        };
        let found: Option<(i64, i64, uuid::Uuid)> = sqlx::query_as(include_str!("sql/lock_visible_link.sql"))
            .bind(repo_id)
            .bind(digest.to_bytes())
            .fetch_optional(&mut *tx)
            .await?;
        let Some((link, blob, generation)) = found else { return tx.undo(DeleteOutcome::Unknown).await };
        // In a statement after the lock: a push that was quicker is seen.
        let (wanted, held): (bool, bool) = sqlx::query_as(include_str!("sql/link_references.sql"))
            .bind(link)
            .bind(repo_id)
            .bind(digest.to_bytes())
            .fetch_one(&mut *tx)
            .await?;
        if wanted {
            return tx.undo(DeleteOutcome::Referenced).await;
        }
        let steps = vec![remove_link(repository, digest, Generation::from_uuid(generation))];
        let mut removals = Removals::from(steps);
        if held {
            sqlx::query("UPDATE repo_blobs SET gen = NULL WHERE id = $1")
                .bind(link)
                .execute(&mut *tx)
                .await?;
        } else {
            sqlx::query("DELETE FROM repo_blobs WHERE id = $1").bind(link).execute(&mut *tx).await?;
            removals = Removals { then_kind: Some("b"), then_ref: Some(blob), ..removals };
        }
        let removal = self.owe(&mut tx, removals).await?;
        tx.commit().await?;
        Ok(DeleteOutcome::Deleted(removal))
    }
}
