// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Collect`]: intents and uploads are in `reap`, tags in `trash`, the rest of the rows in `sweep`, the
//! outbox in `removals`.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::error::Fault;
use super::queue::{Removals, queue_all};
use super::reap::IntentColumns;
use super::trash::TrashedColumns;
use super::tx::{collect, read};
use super::{PostgresStore, guard, row};
use crate::key::Key;
use crate::meta::steps::remove;
use crate::meta::{
    Backlog, Candidate, Collect, DueRemoval, Epoch, Error, ExpiredIntent, Incarnation, Reaped, Swept,
    TrashedTag, Which,
};

/// What is due, how much of it, and for how long the oldest, in seconds.
type BacklogColumns = (String, i64, Option<f64>);

impl PostgresStore {
    async fn try_postpone(&self, epoch: Epoch, kind: Candidate) -> Result<(), Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        sqlx::query(include_str!("sql/postpone.sql")).bind(kind.code()).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn try_discard(&self, epoch: Epoch, keys: &[Key]) -> Result<(), Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        guard::ensure_unowned(&mut tx, keys).await?;
        let removals: Vec<Removals> = keys.iter().map(|key| Removals::from(vec![remove(key)])).collect();
        queue_all(&mut tx, &removals, self.timings.tombstone_delay).await?;
        tx.commit().await
    }
}

#[async_trait]
impl Collect for PostgresStore {
    async fn incarnation(&self) -> Result<Incarnation, Error> {
        collect(|| async {
            let (tx, incarnation) = self.begin_trusted().await?;
            tx.undo(incarnation).await
        })
        .await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        let found: Vec<BacklogColumns> =
            read(self.rows(sqlx::query_as(include_str!("sql/backlog.sql")))).await?;
        let mut backlog = Backlog::default();
        for (what, pending, oldest) in found {
            let oldest = oldest.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            backlog.add(&what, row::number("gc_queue", pending)?, oldest.unwrap_or_default());
        }
        Ok(backlog)
    }

    async fn expired_intents(&self, after: i64, limit: u32) -> Result<Vec<ExpiredIntent>, Error> {
        let statement =
            sqlx::query_as(include_str!("sql/expired_intents.sql")).bind(after).bind(i64::from(limit));
        let found: Vec<IntentColumns> = read(self.rows(statement)).await?;
        found.into_iter().map(IntentColumns::read).collect()
    }

    async fn reap_intent(
        &self,
        epoch: Epoch,
        intent: &ExpiredIntent,
        found: &[Key],
    ) -> Result<Reaped, Error> {
        collect(|| self.try_reap_intent(epoch, intent, found)).await
    }

    async fn expired_uploads(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        let statement =
            sqlx::query_as(include_str!("sql/expired_uploads.sql")).bind(after).bind(i64::from(limit));
        let found: Vec<(Uuid,)> = read(self.rows(statement)).await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    async fn reap_upload(&self, epoch: Epoch, id: Uuid) -> Result<bool, Error> {
        collect(|| self.try_reap_upload(epoch, id)).await
    }

    async fn trashed_tags(&self, after: Option<&TrashedTag>, limit: u32) -> Result<Vec<TrashedTag>, Error> {
        let statement = sqlx::query_as(include_str!("sql/trashed_tags.sql"))
            .bind(after.map_or(0, |after| after.until))
            .bind(after.map_or(0, |after| after.repository_id))
            .bind(after.map_or("", |after| after.tag.as_str()))
            .bind(i64::from(limit));
        let found: Vec<TrashedColumns> = read(self.rows(statement)).await?;
        found.into_iter().map(TrashedColumns::read).collect()
    }

    async fn purge_tag(&self, epoch: Epoch, tag: &TrashedTag, listed: &[Key]) -> Result<bool, Error> {
        collect(|| self.try_purge_tag(epoch, tag, listed)).await
    }

    async fn purge_manifests(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        collect(|| self.try_purge_manifests(epoch, limit)).await
    }

    async fn sweep_manifests(
        &self,
        epoch: Epoch,
        retain: Option<Duration>,
        limit: u32,
    ) -> Result<Swept, Error> {
        collect(|| self.try_sweep_manifests(epoch, retain, limit)).await
    }

    async fn sweep_links(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        collect(|| self.try_sweep_links(epoch, limit)).await
    }

    async fn sweep_blobs(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        collect(|| self.try_sweep_blobs(epoch, limit)).await
    }

    async fn postpone(&self, epoch: Epoch, kind: Candidate) -> Result<(), Error> {
        collect(|| self.try_postpone(epoch, kind)).await
    }

    async fn discard(&self, epoch: Epoch, keys: &[Key]) -> Result<(), Error> {
        collect(|| self.try_discard(epoch, keys)).await
    }

    async fn take_removals(&self, epoch: Epoch, which: Which, limit: u32) -> Result<Vec<DueRemoval>, Error> {
        collect(|| self.try_take_removals(epoch, which, limit)).await
    }

    async fn settle_removals(&self, epoch: Epoch, rows: &[i64]) -> Result<(), Error> {
        collect(|| self.try_settle(epoch, rows)).await
    }
}
