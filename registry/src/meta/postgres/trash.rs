// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The end of deleted tags.

use stowage_oci::Tag;
use uuid::Uuid;

use super::error::Fault;
use super::queue::{Removals, candidates};
use super::tags::{order, version};
use super::{PostgresStore, row};
use crate::key::{Generation, Key};
use crate::meta::steps::{Deleted, lane};
use crate::meta::{Candidate, Epoch, Error, TrashedTag};

#[derive(sqlx::FromRow)]
pub(super) struct TrashedColumns {
    repository: String,
    repo_id: i32,
    name: String,
    epoch: i64,
    seq: i64,
    generation: Uuid,
    until: i64,
}

impl TrashedColumns {
    pub(super) fn read(self) -> Result<TrashedTag, Error> {
        Ok(TrashedTag {
            repository: row::parsed("repositories", &self.repository)?,
            repository_id: self.repo_id,
            tag: row::parsed::<Tag>("tags", &self.name)?,
            version: version(self.epoch, self.seq)?,
            generation: Generation::from_uuid(self.generation),
            until: self.until,
        })
    }
}

#[derive(sqlx::FromRow)]
struct LockedColumns {
    manifest_id: i64,
    prev_epoch: i64,
    prev_seq: i64,
    prev_generation: Uuid,
}

impl PostgresStore {
    pub(super) async fn try_purge_tag(
        &self,
        epoch: Epoch,
        tag: &TrashedTag,
        listed: &[Key],
    ) -> Result<bool, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let locked: Option<LockedColumns> = sqlx::query_as(include_str!("sql/lock_trashed_tag.sql"))
            .bind(tag.repository_id)
            .bind(tag.tag.as_str())
            .bind(tag.generation.to_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(locked) = locked else { return tx.undo(false).await };
        let (version_epoch, seq) = order(tag.version)?;
        // In a statement after the lock: who publishes now waits for us, and still has an intent.
        let may_come: bool = sqlx::query_scalar(include_str!("sql/is_below_tombstone.sql"))
            .bind(tag.repository_id)
            .bind(tag.tag.as_str())
            .bind(version_epoch)
            .bind(seq)
            .fetch_one(&mut *tx)
            .await?;
        if may_come {
            return tx.undo(false).await;
        }
        let (target, state, wait): (Vec<u8>, i16, f64) =
            sqlx::query_as(include_str!("sql/manifest_of_tag.sql"))
                .bind(locked.manifest_id)
                .fetch_one(&mut *tx)
                .await?;
        sqlx::query("DELETE FROM tags WHERE repo_id = $1 AND name = $2")
            .bind(tag.repository_id)
            .bind(tag.tag.as_str())
            .execute(&mut *tx)
            .await?;
        let hidden = version(locked.prev_epoch, locked.prev_seq)?;
        let deleted = Deleted {
            repository: &tag.repository,
            tag: &tag.tag,
            tombstone: (tag.version, tag.generation),
            hidden: (hidden, Generation::from_uuid(locked.prev_generation)),
            target: row::digest("manifests", &target)?,
        };
        let lane = Some(lane(&tag.repository, &tag.tag));
        let removals = Removals { steps: deleted.purge(listed), lane, ..Removals::default() };
        removals.queue(&mut tx, self.timings.tombstone_delay).await?;
        match state {
            1 => self.let_go(&mut tx, vec![locked.manifest_id]).await?,
            2 => {
                let wait = row::duration(wait);
                candidates(&mut tx, Candidate::Trashed, &[locked.manifest_id], wait).await?;
            }
            _ => {}
        }
        tx.commit().await?;
        Ok(true)
    }
}
