// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mounts: a blob of one repository shown to another. There is no link row before its record is there, as a
//! second mount would acknowledge what the bucket does not have.
//!
//! The usual mount is a statement at its beginning and one at its end. They do all or nothing; then the steps follow in
//! a transaction.

use stowage_oci::{Digest, Name};

use super::commit::link;
use super::error::Fault;
use super::queue::Removals;
use super::receive::ensure_repository;
use super::{PostgresStore, seconds};
use crate::key::{Generation, Key};
use crate::meta::steps::remove_link;
use crate::meta::{Epoch, Mount};

fn link_key(repository: &Name, digest: Digest, generation: Generation) -> String {
    Key::Link { repository: repository.clone(), digest, generation }.to_string()
}

impl PostgresStore {
    pub(super) async fn try_begin_mount(
        &self,
        epoch: Epoch,
        from: Option<&Name>,
        to: &Name,
        digest: Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Fault> {
        if let Some(from) = from
            && let Some(intent) = self.intend_seen(epoch, from, to, digest, generation).await?
        {
            return Ok(Some(Mount { intent, from: Some(from.clone()), to: to.clone(), digest, generation }));
        }
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
        let intent = sqlx::query_scalar(include_str!("sql/intend_link.sql"))
            .bind(i64::from(epoch.0))
            .bind(repo_id)
            .bind(generation.to_uuid())
            .bind([link_key(to, digest, generation)])
            .bind(seconds(self.timings.intent))
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some(Mount { intent, from: from.cloned(), to: to.clone(), digest, generation }))
    }

    /// The intent of a mount. `None`: nothing is done, as the source does not see the blob, or `to` is new.
    async fn intend_seen(
        &self,
        epoch: Epoch,
        from: &Name,
        to: &Name,
        digest: Digest,
        generation: Generation,
    ) -> Result<Option<i64>, Fault> {
        let statement = sqlx::query_as(include_str!("sql/mount_seen.sql"))
            .bind(i64::from(epoch.0))
            .bind(from.as_str())
            .bind(digest.to_bytes())
            .bind(to.as_str())
            .bind(generation.to_uuid())
            .bind([link_key(to, digest, generation)])
            .bind(seconds(self.timings.intent));
        let intended: Option<(i64,)> = self.row(statement).await?;
        Ok(intended.map(|(intent,)| intent))
    }

    pub(super) async fn try_finish_mount(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Fault> {
        if let Some(from) = &mount.from
            && self.link_new(epoch, mount, from).await?
        {
            return Ok(true);
        }
        self.finish_any_mount(epoch, mount).await
    }

    /// `false`: nothing is done, as the source went, somebody else was faster, or the mount was reaped.
    async fn link_new(&self, epoch: Epoch, mount: &Mount, from: &Name) -> Result<bool, Fault> {
        let statement = sqlx::query_as(include_str!("sql/link_new.sql"))
            .bind(i64::from(epoch.0))
            .bind(mount.intent)
            .bind(mount.generation.to_uuid())
            .bind(from.as_str())
            .bind(mount.digest.to_bytes())
            .bind(seconds(self.timings.lease));
        let link: Option<(i64,)> = self.row(statement).await?;
        Ok(link.is_some())
    }

    async fn finish_any_mount(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Fault> {
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
