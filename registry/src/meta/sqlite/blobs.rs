// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How a repository comes to see a blob: the commit of an upload, a mount.
//!
//! Data and link records are in the bucket before. What loses against what is there already is queued in the
//! same transaction, so that no key is left without a row.

use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::SqliteStore;
use super::tx::Tx;
use super::values::{form_columns, integer, micros, to_json};
use crate::key::{Generation, Key};
use crate::meta::steps::{remove, remove_link};
use crate::meta::{BlobCommit, Candidate, CommitOutcome, Epoch, Error, Location, Mount};

/// A link to show: where, and by which record.
pub(super) struct NewLink<'a> {
    pub(super) repository_id: i32,
    pub(super) repository: &'a Name,
    pub(super) digest: Digest,
    pub(super) generation: Generation,
}

impl Tx<'_> {
    /// The row of the digest's stored data; with `location`, data is stored there if it is not elsewhere.
    async fn stored_blob(
        &mut self,
        digest: Digest,
        location: Option<Location>,
    ) -> Result<Option<(i64, Generation)>, Error> {
        if let Some(Location { generation, form, size }) = location {
            let (form, tail) = form_columns(form);
            let insert = sqlx::query(include_str!("sql/insert_blob.sql"))
                .bind(digest.to_bytes())
                .bind(integer(size))
                .bind(generation.to_uuid())
                .bind(form)
                .bind(tail);
            self.run(insert).await?;
        }
        let select = "SELECT id, gen FROM blobs WHERE digest = ?1 AND form <> 0 AND gen IS NOT NULL";
        let row: Option<(i64, Uuid)> = self.one(sqlx::query_as(select).bind(digest.to_bytes())).await?;
        Ok(row.map(|(id, generation)| (id, Generation::from_uuid(generation))))
    }

    /// Shows a blob to a repository. Whether it is by this record: it was not shown by another already.
    pub(super) async fn show_link(
        &mut self,
        store: &SqliteStore,
        link: &NewLink<'_>,
        blob: i64,
    ) -> Result<bool, Error> {
        let upsert = sqlx::query_as(include_str!("sql/show_link.sql"))
            .bind(link.repository_id)
            .bind(link.digest.to_bytes())
            .bind(blob)
            .bind(link.generation.to_uuid());
        let (id, record): (i64, Uuid) = self.single(upsert).await?;
        let ours = record == link.generation.to_uuid();
        if !ours {
            self.discard_link(store, link).await?;
        }
        self.candidate(Candidate::Link, id, store.timings.lease).await?;
        Ok(ours)
    }

    /// Whether who compared the folder with the database has adopted the link record.
    async fn is_shown_by(&mut self, link: &NewLink<'_>) -> Result<bool, Error> {
        let exists =
            "SELECT EXISTS (SELECT 1 FROM repo_blobs WHERE repo_id = ?1 AND digest = ?2 AND gen = ?3)";
        let adopted = sqlx::query_as(exists).bind(link.repository_id).bind(link.digest.to_bytes());
        Ok(self.single::<(bool,)>(adopted.bind(link.generation.to_uuid())).await?.0)
    }

    /// Queues a link record that shows nothing.
    pub(super) async fn discard_link(
        &mut self,
        store: &SqliteStore,
        link: &NewLink<'_>,
    ) -> Result<(), Error> {
        let step = remove_link(link.repository, link.digest, link.generation);
        self.discard(vec![step], store.timings.tombstone_delay).await
    }

    /// The blob that `from` sees, or, without it, that was deleted from `to`.
    async fn linked_blob(
        &mut self,
        from: Option<&Name>,
        to: &Name,
        digest: Digest,
    ) -> Result<Option<i64>, Error> {
        let select = sqlx::query_as(include_str!("sql/linked_blob.sql"))
            .bind(from.unwrap_or(to).as_str())
            .bind(digest.to_bytes())
            .bind(from.is_none());
        Ok(self.one::<(i64,)>(select).await?.map(|(id,)| id))
    }
}

impl SqliteStore {
    pub(super) async fn publish_blob(
        &self,
        epoch: Epoch,
        commit: &BlobCommit,
    ) -> Result<CommitOutcome, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let Some(upload) = tx.end_upload(commit.upload, commit.token).await? else {
            tx.rollback().await?;
            return Ok(CommitOutcome::UploadGone);
        };
        let digest = commit.digest;
        let link = NewLink {
            repository_id: upload.repository_id,
            repository: &upload.repository,
            digest,
            generation: commit.link,
        };
        let stored = tx.stored_blob(digest, commit.location).await?;
        match stored {
            Some((blob, _)) => {
                tx.show_link(self, &link, blob).await?;
            }
            None if tx.is_shown_by(&link).await? => {}
            None => tx.discard_link(self, &link).await?,
        }
        let generation = stored.map(|(_, generation)| generation);
        let lost = commit.location.filter(|location| generation != Some(location.generation));
        // What says that there is data goes before the data.
        let mut steps: Vec<String> = lost.iter().map(|location| remove(&location.blob_key(digest))).collect();
        steps.extend(tx.leftovers(&upload.closed()).await?);
        tx.discard(steps, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(if stored.is_some() { CommitOutcome::Committed } else { CommitOutcome::DataGone })
    }

    pub(super) async fn intend_link(
        &self,
        epoch: Epoch,
        from: Option<&Name>,
        to: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        if tx.linked_blob(from, to, *digest).await?.is_none() {
            tx.rollback().await?;
            return Ok(None);
        }
        let repository_id = tx.repository(to).await?;
        let key = Key::Link { repository: to.clone(), digest: *digest, generation };
        let insert = sqlx::query_as(include_str!("sql/insert_intent.sql"))
            .bind(epoch.0)
            .bind(micros(self.timings.intent))
            .bind("l")
            .bind(None::<i64>)
            .bind(repository_id)
            .bind(generation.to_uuid())
            .bind(None::<&str>)
            .bind(to_json(&[key.to_string()]))
            .bind(None::<&str>);
        let (intent,) = tx.single::<(i64,)>(insert).await?;
        tx.commit_unflushed().await?;
        Ok(Some(Mount { intent, from: from.cloned(), to: to.clone(), digest: *digest, generation }))
    }

    pub(super) async fn publish_link(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let Some(repository_id) = tx.take_intent(epoch, mount.intent, mount.generation).await? else {
            // Somebody has judged it too old, and what becomes of the record with it.
            tx.rollback().await?;
            return Ok(false);
        };
        let link = NewLink {
            repository_id,
            repository: &mount.to,
            digest: mount.digest,
            generation: mount.generation,
        };
        let source = tx.linked_blob(mount.from.as_ref(), &mount.to, mount.digest).await?;
        match source {
            Some(blob) => {
                tx.show_link(self, &link, blob).await?;
            }
            None => tx.discard_link(self, &link).await?,
        }
        tx.commit().await?;
        Ok(source.is_some())
    }
}

impl Tx<'_> {
    /// Ends the intent of `epoch` that announced `generation`; its repository. In another incarnation somebody
    /// else's may have its number.
    pub(super) async fn take_intent(
        &mut self,
        epoch: Epoch,
        intent: i64,
        generation: Generation,
    ) -> Result<Option<i32>, Error> {
        let delete = "DELETE FROM intents WHERE id = ?1 AND epoch = ?2 AND gen = ?3 RETURNING repo_id";
        let delete = sqlx::query_as(delete).bind(intent).bind(epoch.0).bind(generation.to_uuid());
        let row: Option<(i32,)> = self.one(delete).await?;
        Ok(row.map(|(repository,)| repository))
    }
}
