// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The incarnation of the database. Its fence is the start of the server: it differs after every restart,
//! promotion of a standby, restore and move, and any role may read it.

use async_trait::async_trait;
use uuid::Uuid;

use super::migrate::LOCK_SCHEMA;
use super::tx::{read, write};
use super::{PostgresStore, SCHEMA, row};
use crate::key::Generation;
use crate::meta::{Envelope, Epoch, Error, Leases};

#[derive(sqlx::FromRow)]
struct EnvelopeColumns {
    registry: Uuid,
    schema: i32,
    epoch: i64,
    ours: bool,
    walked: bool,
}

#[async_trait]
impl Leases for PostgresStore {
    async fn envelope(&self) -> Result<Option<Envelope>, Error> {
        let found = read(self.row(sqlx::query_as(include_str!("sql/envelope.sql")))).await;
        let found: Option<EnvelopeColumns> = match found {
            // Without its tables it is as empty as without rows.
            Err(Error::Superseded) => None,
            found => found?,
        };
        found
            .map(|found| {
                Ok(Envelope {
                    registry: found.registry,
                    schema: found.schema,
                    epoch: Epoch(row::number("meta", found.epoch)?),
                    ours: found.ours,
                    walked: found.walked,
                })
            })
            .transpose()
    }

    async fn found(&self, registry: Uuid) -> Result<bool, Error> {
        let statement = "INSERT INTO meta (registry, schema) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.write_one(|| sqlx::query(statement).bind(registry).bind(SCHEMA)).await
    }

    async fn claim_epoch(&self, bucket: u32, generation: Generation) -> Result<Option<u32>, Error> {
        let claim: Option<(i64,)> = write(async || {
            let statement = sqlx::query_as(include_str!("sql/claim_epoch.sql"))
                .bind(i64::from(bucket))
                .bind(generation.to_uuid());
            self.row(statement).await
        })
        .await?;
        claim.map(|(claim,)| row::number("meta", claim)).transpose()
    }

    async fn enter_epoch(&self, claim: u32, generation: Generation) -> Result<bool, Error> {
        self.write_one(|| {
            sqlx::query(include_str!("sql/enter_epoch.sql")).bind(i64::from(claim)).bind(generation.to_uuid())
        })
        .await
    }

    async fn finish_walk(&self, epoch: Epoch) -> Result<bool, Error> {
        self.write_one(|| sqlx::query(include_str!("sql/finish_walk.sql")).bind(i64::from(epoch.0))).await
    }

    async fn destroy(&self, registry: Uuid) -> Result<bool, Error> {
        write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(LOCK_SCHEMA).execute(&mut *tx).await?;
            let owner: Option<Uuid> =
                sqlx::query_scalar("SELECT registry FROM meta").fetch_optional(&mut *tx).await?;
            if owner.is_some_and(|owner| owner != registry) {
                return tx.undo(false).await;
            }
            sqlx::query(include_str!("sql/destroy.sql")).execute(&mut *tx).await?;
            sqlx::query("DROP SEQUENCE versions").execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        read(self.row::<(i32,)>(sqlx::query_as("SELECT 1"))).await.map(drop)
    }
}
