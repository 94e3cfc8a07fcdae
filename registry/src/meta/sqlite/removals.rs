// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What clients delete: the row changes and the evidence is queued in one transaction; the caller brings the
//! evidence into the bucket and then answers. If it dies, the queue has it, a minute later.

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tags::TagRow;
use super::tx::Tx;
use super::values::{from_json, micros, to_json};
use crate::key::{Generation, Key};
use crate::meta::steps::{evidence, lane, remove_link, write};
use crate::meta::{Candidate, DeleteOutcome, Epoch, Error, Removal, Spared};

impl Tx<'_> {
    /// Queues a removal that the caller carries out now.
    async fn removal(&mut self, store: &SqliteStore, owed: Owed) -> Result<Removal, Error> {
        let owed = Owed { after: store.timings.take_over, ..owed };
        Ok(Removal { outbox: self.owe(&owed).await?, steps: owed.steps })
    }

    /// What must be in the bucket before the marker of a child of deleted indexes.
    async fn owed_of_parents(&mut self, repository_id: i32, child: Digest) -> Result<Vec<String>, Error> {
        let select = sqlx::query_as(include_str!("sql/owed_of_parents.sql"))
            .bind(repository_id)
            .bind(child.to_bytes());
        let rows: Vec<(String,)> = self.all(select).await?;
        let mut owed: Vec<String> = Vec::new();
        for (steps,) in rows {
            let steps: Vec<String> = from_json("outbox", &steps)?;
            owed.extend(evidence(steps));
        }
        Ok(owed)
    }

    /// All live tags of a manifest.
    async fn live_tags(&mut self, manifest: i64) -> Result<Vec<TagRow>, Error> {
        let select = sqlx::query_as(include_str!("sql/live_tags_of.sql")).bind(manifest);
        let rows: Vec<super::tags::TagColumns> = self.all(select).await?;
        rows.into_iter().map(super::tags::TagColumns::into_row).collect()
    }
}

impl SqliteStore {
    /// A push that was placed below a tombstone is over before the tombstone can go.
    fn tag_rest(&self, retain: Duration) -> Duration {
        retain.max(self.timings.intent)
    }

    pub(super) async fn remove_tag(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        of: Option<Generation>,
        retain: Duration,
    ) -> Result<Option<Removal>, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let select = "SELECT id FROM repositories WHERE name = ?1";
        let row: Option<(i32,)> = tx.one(sqlx::query_as(select).bind(repository.as_str())).await?;
        let live = match row {
            Some((id,)) => tx.tag(id, tag).await?.filter(|row| !row.is_trashed()).map(|live| (id, live)),
            None => None,
        };
        let is_meant = |(_, live): &(i32, TagRow)| of.is_none_or(|of| of == live.generation);
        let Some((id, live)) = live.filter(is_meant) else {
            tx.rollback().await?;
            return Ok(None);
        };
        let tombstone = tx.trash_tag(epoch, (id, repository), &live, self.tag_rest(retain)).await?;
        let lane = Some(lane(repository, tag));
        let removal =
            tx.removal(self, Owed { steps: vec![write(&tombstone)], lane, ..Owed::default() }).await?;
        tx.commit().await?;
        Ok(Some(removal))
    }

    pub(super) async fn remove_manifest(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: Digest,
        retain: Duration,
        spared: &Spared<'_>,
    ) -> Result<DeleteOutcome, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let select = sqlx::query_as(include_str!("sql/manifest_to_delete.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes());
        let row: Option<(i64, i32, Uuid, bool)> = tx.one(select).await?;
        let (id, repository_id, generation) = match row {
            Some((id, repository_id, generation, false)) => (id, repository_id, generation),
            refused => {
                tx.rollback().await?;
                return Ok(refused.map_or(DeleteOutcome::Unknown, |_| DeleteOutcome::Referenced));
            }
        };
        let live = tx.live_tags(id).await?;
        if let Some(tag) = live.iter().map(|row| &row.tag).find(|tag| spared(tag)) {
            tx.rollback().await?;
            return Ok(DeleteOutcome::Spared(tag.clone()));
        }
        let update =
            sqlx::query(include_str!("sql/delete_manifests.sql")).bind(to_json(&[id])).bind(micros(retain));
        tx.run(update).await?;
        let mut steps = Vec::with_capacity(live.len() + 1);
        for row in &live {
            let of = (repository_id, repository);
            steps.push(write(&tx.trash_tag(epoch, of, row, self.tag_rest(retain)).await?));
        }
        steps.extend(tx.owed_of_parents(repository_id, digest).await?);
        let generation = Generation::from_uuid(generation);
        steps.push(write(&Key::ManifestDeleted { repository: repository.clone(), digest, generation }));
        let removal = tx.removal(self, Owed { steps, about: Some(id), ..Owed::default() }).await?;
        tx.candidate(Candidate::Trashed, id, retain).await?;
        tx.commit().await?;
        Ok(DeleteOutcome::Deleted(removal))
    }

    pub(super) async fn remove_blob(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: Digest,
    ) -> Result<DeleteOutcome, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let select = sqlx::query_as(include_str!("sql/link_to_delete.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes());
        let row: Option<(i64, Uuid, i64, bool, bool)> = tx.one(select).await?;
        let (link, generation, blob, held) = match row {
            Some((link, generation, blob, false, held)) => (link, generation, blob, held),
            refused => {
                tx.rollback().await?;
                return Ok(refused.map_or(DeleteOutcome::Unknown, |_| DeleteOutcome::Referenced));
            }
        };
        let steps = vec![remove_link(repository, digest, Generation::from_uuid(generation))];
        let owed = if held {
            // The trash holds it: hidden until that is emptied, or a new upload or mount shows it again.
            tx.run(sqlx::query("UPDATE repo_blobs SET gen = NULL WHERE id = ?1").bind(link)).await?;
            Owed { steps, ..Owed::default() }
        } else {
            tx.run(sqlx::query("DELETE FROM repo_blobs WHERE id = ?1").bind(link)).await?;
            Owed { steps, then: Some(Candidate::Blob), about: Some(blob), ..Owed::default() }
        };
        let removal = tx.removal(self, owed).await?;
        tx.commit().await?;
        Ok(DeleteOutcome::Deleted(removal))
    }
}
