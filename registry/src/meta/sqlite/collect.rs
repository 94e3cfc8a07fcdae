// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Collect`]: intents and uploads are in `reap`, tags in `trash`, the rest of the rows in `sweep`, the
//! outbox in `outbox`.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::SqliteStore;
use super::reap::IntentColumns;
use super::trash::TrashedColumns;
use super::values::unreadable;
use crate::key::Key;
use crate::meta::{
    Backlog, Candidate, Collect, DueRemoval, Epoch, Error, ExpiredIntent, Incarnation, Reaped, Swept,
    TrashedTag, Which,
};

#[async_trait]
impl Collect for SqliteStore {
    async fn incarnation(&self) -> Result<Incarnation, Error> {
        let (tx, incarnation) = self.writer.begin_trusted().await?;
        tx.rollback().await?;
        Ok(incarnation)
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        let select = sqlx::query_as(include_str!("sql/backlog.sql"));
        let rows: Vec<(String, i64, Option<i64>)> = self.readers.all(select).await?;
        let mut backlog = Backlog::default();
        for (what, pending, oldest) in rows {
            let pending = u64::try_from(pending).map_err(|error| unreadable("gc_queue", error))?;
            let oldest = u64::try_from(oldest.unwrap_or_default()).unwrap_or_default();
            backlog.add(&what, pending, Duration::from_micros(oldest));
        }
        Ok(backlog)
    }

    async fn expired_intents(&self, after: i64, limit: u32) -> Result<Vec<ExpiredIntent>, Error> {
        let select = sqlx::query_as(include_str!("sql/expired_intents.sql")).bind(after).bind(limit);
        let rows: Vec<IntentColumns> = self.readers.all(select).await?;
        rows.into_iter().map(IntentColumns::into_intent).collect()
    }

    async fn reap_intent(
        &self,
        epoch: Epoch,
        intent: &ExpiredIntent,
        found: &[Key],
    ) -> Result<Reaped, Error> {
        self.reap_one_intent(epoch, intent, found).await
    }

    async fn expired_uploads(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        let select = sqlx::query_as(include_str!("sql/expired_uploads.sql")).bind(after).bind(limit);
        let rows: Vec<(Uuid,)> = self.readers.all(select).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    async fn reap_upload(&self, epoch: Epoch, id: Uuid) -> Result<bool, Error> {
        self.reap_one_upload(epoch, id).await
    }

    async fn trashed_tags(&self, after: Option<&TrashedTag>, limit: u32) -> Result<Vec<TrashedTag>, Error> {
        let select = sqlx::query_as(include_str!("sql/trashed_tags.sql"))
            .bind(after.map_or(0, |after| after.until))
            .bind(after.map_or(0, |after| after.repository_id))
            .bind(after.map_or("", |after| after.tag.as_str()))
            .bind(limit);
        let rows: Vec<TrashedColumns> = self.readers.all(select).await?;
        rows.into_iter().map(TrashedColumns::into_tag).collect()
    }

    async fn purge_tag(&self, epoch: Epoch, tag: &TrashedTag, listed: &[Key]) -> Result<bool, Error> {
        self.purge_one_tag(epoch, tag, listed).await
    }

    async fn purge_manifests(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        self.collect_trashed(epoch, limit).await
    }

    async fn sweep_manifests(
        &self,
        epoch: Epoch,
        retain: Option<Duration>,
        limit: u32,
    ) -> Result<Swept, Error> {
        self.collect_manifests(epoch, retain, limit).await
    }

    async fn sweep_links(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        self.collect_links(epoch, limit).await
    }

    async fn sweep_blobs(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        self.collect_blobs(epoch, limit).await
    }

    async fn postpone(&self, epoch: Epoch, kind: Candidate) -> Result<(), Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        tx.run(sqlx::query(include_str!("sql/postpone.sql")).bind(kind.code())).await?;
        tx.commit().await
    }

    async fn discard(&self, epoch: Epoch, keys: &[Key]) -> Result<(), Error> {
        self.discard_unowned(epoch, keys).await
    }

    async fn take_removals(&self, epoch: Epoch, which: Which, limit: u32) -> Result<Vec<DueRemoval>, Error> {
        self.lease_removals(epoch, which, limit).await
    }

    async fn settle_removals(&self, epoch: Epoch, rows: &[i64]) -> Result<(), Error> {
        self.settle(epoch, rows).await
    }
}
