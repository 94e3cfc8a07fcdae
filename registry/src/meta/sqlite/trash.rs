// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The end of deleted tags.

use stowage_oci::Tag;
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tags::version;
use super::values::{digest as digest_column, duration, integer, parsed};
use crate::key::{Generation, Key};
use crate::meta::steps::{Deleted, lane};
use crate::meta::{Candidate, Epoch, Error, TrashedTag};

#[derive(sqlx::FromRow)]
pub(super) struct TrashedColumns {
    repository: String,
    repo_id: i32,
    name: String,
    epoch: u32,
    seq: i64,
    r#gen: Uuid,
    until: i64,
}

impl TrashedColumns {
    pub(super) fn into_tag(self) -> Result<TrashedTag, Error> {
        Ok(TrashedTag {
            repository: parsed("repositories", &self.repository)?,
            repository_id: self.repo_id,
            tag: parsed::<Tag>("tags", &self.name)?,
            version: version(self.epoch, self.seq)?,
            generation: Generation::from_uuid(self.r#gen),
            until: self.until,
        })
    }
}

#[derive(sqlx::FromRow)]
struct DeletedColumns {
    manifest_id: i64,
    prev_epoch: u32,
    prev_seq: i64,
    prev_gen: Uuid,
    digest: Vec<u8>,
    state: i64,
    wait: i64,
}

impl SqliteStore {
    pub(super) async fn purge_one_tag(
        &self,
        epoch: Epoch,
        tag: &TrashedTag,
        listed: &[Key],
    ) -> Result<bool, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let select = sqlx::query_as(include_str!("sql/trashed_tag.sql"))
            .bind(tag.repository_id)
            .bind(tag.tag.as_str())
            .bind(tag.generation.to_uuid());
        let row: Option<DeletedColumns> = tx.one(select).await?;
        let may_come = sqlx::query_as(include_str!("sql/is_below_tombstone.sql"))
            .bind(tag.repository_id)
            .bind(tag.tag.as_str())
            .bind(tag.version.epoch)
            .bind(integer(tag.version.seq));
        let (may_come,): (bool,) = tx.single(may_come).await?;
        let Some(row) = row.filter(|_| !may_come) else {
            tx.rollback().await?;
            return Ok(false);
        };
        let delete = "DELETE FROM tags WHERE repo_id = ?1 AND name = ?2";
        tx.run(sqlx::query(delete).bind(tag.repository_id).bind(tag.tag.as_str())).await?;
        let deleted = Deleted {
            repository: &tag.repository,
            tag: &tag.tag,
            tombstone: (tag.version, tag.generation),
            hidden: (version(row.prev_epoch, row.prev_seq)?, Generation::from_uuid(row.prev_gen)),
            target: digest_column("manifests", &row.digest)?,
        };
        let (steps, lane) = (deleted.purge(listed), Some(lane(&tag.repository, &tag.tag)));
        tx.owe(&Owed { steps, after: self.timings.tombstone_delay, lane, ..Owed::default() }).await?;
        match row.state {
            1 => tx.untagged(row.manifest_id, self.timings.lease).await?,
            2 => {
                let wait = duration(row.wait);
                tx.candidate(Candidate::Trashed, row.manifest_id, wait).await?;
            }
            _ => {}
        }
        // Flushed by whoever takes the row out of the outbox.
        tx.commit_unflushed().await?;
        Ok(true)
    }
}
