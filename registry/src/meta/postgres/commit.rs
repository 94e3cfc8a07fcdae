// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The commit of a blob: row, link, end of the upload. Data, pointer and link record are in the bucket.
//!
//! The usual one is a single statement. It does all or nothing; then the steps follow in a transaction.

use std::time::Duration;

use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::error::Fault;
use super::queue::Removals;
use super::tx::Connection;
use super::{PostgresStore, row, seconds};
use crate::key::{Form, Generation};
use crate::meta::steps::{Leftovers, remove_blob, remove_link};
use crate::meta::{BlobCommit, CommitOutcome, Epoch, Error, Location};

#[derive(sqlx::FromRow)]
struct EndedColumns {
    repo_id: i32,
    name: String,
    generation: Uuid,
    multipart_id: Option<String>,
    leases: Vec<i32>,
}

/// The upload as it was when the commit ended it.
struct Ended {
    repo_id: i32,
    repository: Name,
    leftovers: Leftovers,
}

impl EndedColumns {
    fn read(self, kept: Option<Form>) -> Result<Ended, Error> {
        let leases = self.leases.into_iter().map(|lease| row::number("uploads", lease));
        let leftovers = Leftovers {
            generation: Generation::from_uuid(self.generation),
            multipart: self.multipart_id,
            leases: leases.collect::<Result<_, _>>()?,
            plan: None,
            kept,
            linked: false,
        };
        Ok(Ended { repo_id: self.repo_id, repository: row::parsed("repositories", &self.name)?, leftovers })
    }
}

/// A blob row that is held.
struct Held {
    id: i64,
    location: Location,
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    id: i64,
    generation: Option<Uuid>,
    form: i16,
    tail: Option<i32>,
    size: i64,
}

impl BlobColumns {
    /// `None`: its data is absent.
    fn read(self) -> Result<Option<Held>, Error> {
        if self.form == 0 {
            return Ok(None);
        }
        Ok(Some(Held {
            id: self.id,
            location: row::location(self.generation, self.form, self.tail, self.size)?,
        }))
    }
}

/// What showing a blob to a repository came to.
pub(super) struct Linked {
    /// The record that shows it: another one's if it was shown already.
    pub(super) generation: Generation,
}

/// Shows a held blob to a repository: makes the link, or restarts its lease, or brings it back from hiding.
pub(super) async fn link(
    tx: &mut Connection,
    repo_id: i32,
    digest: Digest,
    blob_id: i64,
    generation: Generation,
    grace: Duration,
) -> Result<Linked, Fault> {
    let generation: Uuid = sqlx::query_scalar(include_str!("sql/link.sql"))
        .bind(repo_id)
        .bind(digest.to_bytes())
        .bind(blob_id)
        .bind(generation.to_uuid())
        .bind(seconds(grace))
        .fetch_one(tx)
        .await?;
    Ok(Linked { generation: Generation::from_uuid(generation) })
}

/// Whether who compared the bucket with the database has adopted our link record. The upload's row is ours: nobody
/// does so from now on.
async fn is_shown_by(tx: &mut Connection, repo_id: i32, commit: &BlobCommit) -> Result<bool, sqlx::Error> {
    let exists = "SELECT EXISTS (SELECT FROM repo_blobs WHERE repo_id = $1 AND digest = $2 AND gen = $3)";
    let adopted = sqlx::query_scalar(exists).bind(repo_id).bind(commit.digest.to_bytes());
    adopted.bind(commit.link.to_uuid()).fetch_one(tx).await
}

async fn lock_blob(tx: &mut Connection, digest: Digest) -> Result<Option<BlobColumns>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/lock_blob.sql")).bind(digest.to_bytes()).fetch_optional(tx).await
}

/// Makes sure that the digest has a row with data, and holds it: ours, or that of whoever was first.
async fn hold_or_insert(tx: &mut Connection, digest: Digest, ours: &Location) -> Result<Held, Fault> {
    let (form, tail) = row::form_columns(ours.form)?;
    let size = row::stored(ours.size)?;
    loop {
        // No update on conflict: commits of hot digests would queue on the row.
        sqlx::query(include_str!("sql/insert_blob.sql"))
            .bind(digest.to_bytes())
            .bind(size)
            .bind(ours.generation.to_uuid())
            .bind(form)
            .bind(tail)
            .execute(&mut *tx)
            .await?;
        // Gone again: a sweeper was between the statements.
        let Some(found) = lock_blob(&mut *tx, digest).await? else { continue };
        let id = found.id;
        if let Some(held) = found.read()? {
            return Ok(held);
        }
        let healed = sqlx::query(include_str!("sql/heal_blob.sql"))
            .bind(id)
            .bind(size)
            .bind(ours.generation.to_uuid())
            .bind(form)
            .bind(tail)
            .execute(&mut *tx)
            .await?;
        if healed.rows_affected() == 1 {
            return Ok(Held { id, location: *ours });
        }
    }
}

impl PostgresStore {
    pub(super) async fn try_commit(&self, epoch: Epoch, commit: &BlobCommit) -> Result<CommitOutcome, Fault> {
        if let Some(ours) = &commit.location
            && self.commit_new(epoch, commit, ours).await?
        {
            return Ok(CommitOutcome::Committed);
        }
        self.commit_any(epoch, commit).await
    }

    /// `false`: nothing is done, as the content is not new, or something is left to remove, or to refuse.
    async fn commit_new(&self, epoch: Epoch, commit: &BlobCommit, ours: &Location) -> Result<bool, Fault> {
        let (form, tail) = row::form_columns(ours.form)?;
        let statement = sqlx::query_as(include_str!("sql/commit_new_blob.sql"))
            .bind(i64::from(epoch.0))
            .bind(commit.upload)
            .bind(commit.token)
            .bind(commit.digest.to_bytes())
            .bind(row::stored(ours.size)?)
            .bind(ours.generation.to_uuid())
            .bind(form)
            .bind(tail)
            .bind(commit.link.to_uuid())
            .bind(seconds(self.timings.lease));
        let link: Option<(i64,)> = self.row(statement).await?;
        Ok(link.is_some())
    }

    async fn commit_any(&self, epoch: Epoch, commit: &BlobCommit) -> Result<CommitOutcome, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let ended: Option<EndedColumns> = sqlx::query_as(include_str!("sql/end_upload.sql"))
            .bind(commit.upload)
            .bind(commit.token)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(ended) = ended else { return tx.undo(CommitOutcome::UploadGone).await };
        let ended = ended.read(commit.location.map(|location| location.form))?;
        let mut removals = ended.leftovers.steps();
        let our_link = remove_link(&ended.repository, commit.digest, commit.link);

        let held = match &commit.location {
            Some(ours) => Some(hold_or_insert(&mut tx, commit.digest, ours).await?),
            None => match lock_blob(&mut tx, commit.digest).await? {
                Some(found) => found.read()?,
                None => None,
            },
        };
        let outcome = if let Some(held) = held {
            let lost = commit.location.filter(|ours| ours.generation != held.location.generation);
            removals.extend(lost.iter().flat_map(|ours| remove_blob(commit.digest, ours)));
            let grace = self.timings.lease;
            let linked = link(&mut tx, ended.repo_id, commit.digest, held.id, commit.link, grace).await?;
            removals.extend((linked.generation != commit.link).then_some(our_link));
            CommitOutcome::Committed
        } else {
            if !is_shown_by(&mut tx, ended.repo_id, commit).await? {
                removals.push(our_link);
            }
            CommitOutcome::DataGone
        };
        Removals::from(removals).queue_any(&mut tx, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(outcome)
    }
}
