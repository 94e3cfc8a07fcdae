// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The incarnation of the database: each holder of the folder's lock is a new one.

use async_trait::async_trait;
use uuid::Uuid;

use super::values::unreadable;
use super::{SCHEMA, SqliteStore};
use crate::key::Generation;
use crate::meta::{Envelope, Epoch, Error, Leases};

impl SqliteStore {
    /// Leaves the folder to its next holder, who can rely on the database holding all that this process has promised.
    /// Nothing is written after it. Beside the holder it does nothing.
    pub async fn hand_over(&self) -> Result<(), Error> {
        if !self.lock.is_ours() {
            return Ok(());
        }
        let mark = Uuid::new_v4();
        let mut tx = self.writer.begin_last().await?;
        // A process that has not entered an epoch hands on what it got, if that was anything.
        let update = "UPDATE meta SET handed_over = ?1 WHERE fence = ?2 OR handed_over = ?3";
        let update = sqlx::query(update).bind(mark).bind(self.lock.fence).bind(self.lock.mark);
        let handed = tx.run(update).await?;
        tx.commit().await?;
        if handed > 0 {
            self.lock.leave(mark).map_err(|error| Error::Unavailable(sqlx::Error::Io(error)))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn envelope(&self) -> Result<Option<Envelope>, Error> {
        let query = sqlx::query_as(include_str!("sql/envelope.sql")).bind(self.lock.fence);
        let row: Option<(Uuid, i32, i64, bool, bool)> = self.readers.one(query).await?;
        let Some((registry, schema, epoch, ours, walked)) = row else { return Ok(None) };
        let epoch = Epoch(u32::try_from(epoch).map_err(|error| unreadable("meta", error))?);
        Ok(Some(Envelope { registry, schema, epoch, ours, walked }))
    }

    async fn found(&self, registry: Uuid) -> Result<bool, Error> {
        let insert = "INSERT INTO meta (one, registry, schema) VALUES (1, ?1, ?2) ON CONFLICT DO NOTHING";
        Ok(self.writer.run(sqlx::query(insert).bind(registry).bind(SCHEMA)).await? > 0)
    }

    async fn claim_epoch(&self, bucket: u32, generation: Generation) -> Result<Option<u32>, Error> {
        let mut tx = self.writer.begin().await?;
        let update = sqlx::query_as(include_str!("sql/claim_epoch.sql"))
            .bind(bucket)
            .bind(generation.to_uuid())
            .bind(self.lock.fence)
            .bind(self.lock.mark);
        let claim: Option<(i64,)> = tx.one(update).await?;
        tx.commit().await?;
        let Some((claim,)) = claim else { return Ok(None) };
        u32::try_from(claim).map(Some).map_err(|error| unreadable("meta", error))
    }

    async fn enter_epoch(&self, claim: u32, generation: Generation) -> Result<bool, Error> {
        let update = sqlx::query(include_str!("sql/enter_epoch.sql"))
            .bind(claim)
            .bind(generation.to_uuid())
            .bind(self.lock.fence);
        Ok(self.writer.run(update).await? > 0)
    }

    async fn finish_walk(&self, epoch: Epoch) -> Result<bool, Error> {
        let update =
            "UPDATE meta SET reconciled = epoch, walked_at = coalesce(walked_at, (SELECT now FROM clock))
                      WHERE epoch = ?1 AND fence = ?2";
        Ok(self.writer.run(sqlx::query(update).bind(epoch.0).bind(self.lock.fence)).await? > 0)
    }

    async fn destroy(&self, registry: Uuid) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let owner: Option<(Uuid,)> = tx.one(sqlx::query_as("SELECT registry FROM meta")).await?;
        if owner.is_some_and(|(owner,)| owner != registry) {
            tx.rollback().await?;
            return Ok(false);
        }
        tx.run(sqlx::query(include_str!("sql/destroy.sql"))).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.readers.one::<(i64,)>(sqlx::query_as("SELECT 1")).await?;
        Ok(())
    }
}
