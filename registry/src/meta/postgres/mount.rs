// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mounts: a blob of one repository shown to another. There is no link row before its record is there, as a
//! second mount would acknowledge what the bucket does not have.

use stowage_oci::{Digest, Name};

use super::commit::link;
use super::error::Fault;
use super::queue::Removals;
use super::receive::ensure_repository;
use super::{PostgresStore, seconds};
use crate::key::{Generation, Key};
use crate::meta::steps::remove_link;
use crate::meta::{Epoch, Mount};

impl PostgresStore {
    pub(super) async fn try_begin_mount(
        &self,
        epoch: Epoch,
        from: Option<&Name>,
        to: &Name,
        digest: Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let seen: bool = sqlx::query_scalar(include_str!("sql/sees_blob.sql"))
            .bind(from.unwrap_or(to).as_str())
            .bind(digest.to_bytes())
            .bind(from.is_none())
            .fetch_one(&mut *tx)
            .await?;
        if !seen {
            return tx.undo(None).await;
        }
        let repo_id = ensure_repository(&mut tx, to).await?;
        let key = Key::Link { repository: to.clone(), digest, generation };
        let intent = sqlx::query_scalar(include_str!("sql/intend_link.sql"))
            .bind(i64::from(epoch.0))
            .bind(repo_id)
            .bind(generation.to_uuid())
            .bind([key.to_string()])
            .bind(seconds(self.timings.intent))
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some(Mount { intent, from: from.cloned(), to: to.clone(), digest, generation }))
    }

    pub(super) async fn try_finish_mount(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let repo_id: Option<i32> = sqlx::query_scalar(include_str!("sql/take_link_intent.sql"))
            .bind(mount.intent)
            .bind(i64::from(epoch.0))
            .bind(mount.generation.to_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        // Reaped: its keys are queued already.
        let Some(repo_id) = repo_id else { return tx.undo(false).await };
        let blob: Option<i64> = sqlx::query_scalar(include_str!("sql/lock_source.sql"))
            .bind(mount.from.as_ref().unwrap_or(&mount.to).as_str())
            .bind(mount.digest.to_bytes())
            .bind(mount.from.is_none())
            .fetch_optional(&mut *tx)
            .await?;
        let unused = match blob {
            Some(blob) => {
                let grace = self.timings.lease;
                let linked = link(&mut tx, repo_id, mount.digest, blob, mount.generation, grace).await?;
                linked.generation != mount.generation
            }
            None => true,
        };
        let record = remove_link(&mount.to, mount.digest, mount.generation);
        let removals: Vec<String> = unused.then_some(record).into_iter().collect();
        Removals::from(removals).queue_any(&mut tx, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(blob.is_some())
    }
}
