// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Verification`]: parts of a pass, and records of manifests that are written again.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::error::Fault;
use super::queue::Removals;
use super::tx::{Tx, read, write};
use super::{PostgresStore, row, seconds};
use crate::key::Generation;
use crate::meta::{Epoch, Error, Job, ManifestId, Pass, Restoration, RestoreOutcome, Verification, steps};

#[derive(sqlx::FromRow)]
struct PassColumns {
    done: i64,
    total: i64,
    findings: i64,
    age: f64,
    alive: bool,
}

impl PassColumns {
    fn read(self) -> Result<Pass, Error> {
        Ok(Pass {
            done: row::number("shards", self.done)?,
            total: row::number("shards", self.total)?,
            findings: row::number("shards", self.findings)?,
            age: row::duration(self.age),
            is_alive: self.alive,
        })
    }
}

#[derive(sqlx::FromRow)]
struct RestoreColumns {
    id: i64,
    repo_id: i32,
    subject: Option<Vec<u8>>,
    body: Option<Vec<u8>>,
}

impl PostgresStore {
    async fn try_begin_pass(&self, job: Job, parts: &[String], spread: Duration) -> Result<(), Fault> {
        let mut tx = self.begin().await?;
        // One at a time.
        sqlx::query("SELECT FROM meta FOR NO KEY UPDATE").execute(&mut *tx).await?;
        let pass = sqlx::query_as(include_str!("sql/pass.sql")).bind(job.name());
        let pass: PassColumns = pass.fetch_one(&mut *tx).await?;
        if !pass.read()?.is_over(spread) {
            return tx.undo(()).await;
        }
        let forget = sqlx::query("DELETE FROM shards WHERE epoch = 0 AND job = $1").bind(job.name());
        forget.execute(&mut *tx).await?;
        let insert = sqlx::query(include_str!("sql/insert_parts.sql")).bind(job.name()).bind(parts);
        insert.execute(&mut *tx).await?;
        tx.commit().await
    }

    /// Begins a transaction that repairs something in `epoch`, which is trusted.
    async fn begin_repair(&self, epoch: Epoch) -> Result<Tx, Fault> {
        let mut tx = self.begin().await?;
        let found: Option<(bool, bool)> = sqlx::query_as(include_str!("sql/scope.sql"))
            .bind(i64::from(epoch.0))
            .fetch_optional(&mut *tx)
            .await?;
        if found == Some((true, true)) { Ok(tx) } else { tx.undo(Err(Error::Superseded.into())).await? }
    }

    async fn try_begin_restore(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        (lost, generation): (Generation, Generation),
    ) -> Result<RestoreOutcome, Fault> {
        let mut tx = self.begin_repair(epoch).await?;
        let found: Option<RestoreColumns> = sqlx::query_as(include_str!("sql/manifest_to_restore.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes())
            .bind(lost.to_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(RestoreColumns { id, repo_id, subject, body }) = found else {
            return tx.undo(RestoreOutcome::Gone).await;
        };
        let Some(body) = body else { return tx.undo(RestoreOutcome::NoBytes).await };
        let subject = subject.map(|bytes| row::digest("manifests", &bytes)).transpose()?;
        let keys = steps::records(repository, *digest, subject, generation);
        let intent = sqlx::query_scalar(include_str!("sql/intend_manifest.sql"))
            .bind(i64::from(epoch.0))
            .bind(id)
            .bind(repo_id)
            .bind(generation.to_uuid())
            .bind(None::<serde_json::Value>)
            .bind(keys.iter().map(ToString::to_string).collect::<Vec<_>>())
            .bind(seconds(self.timings.intent))
            .bind(None::<serde_json::Value>)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(RestoreOutcome::Write(Box::new(Restoration {
            intent,
            repository: repository.clone(),
            repository_id: repo_id,
            manifest: ManifestId(id),
            digest: *digest,
            subject,
            body: body.into(),
            lost,
            generation,
        })))
    }

    async fn try_finish_restore(&self, epoch: Epoch, restoration: &Restoration) -> Result<bool, Fault> {
        let Restoration { repository, digest, subject, lost, generation, .. } = restoration;
        let mut tx = self.begin_repair(epoch).await?;
        let taken = sqlx::query("DELETE FROM intents WHERE id = $1 AND epoch = $2")
            .bind(restoration.intent)
            .bind(i64::from(epoch.0))
            .execute(&mut *tx)
            .await?;
        if taken.rows_affected() == 0 {
            // Somebody has judged it too old, and what becomes of its keys with it.
            return tx.undo(false).await;
        }
        let update = "UPDATE manifests SET gen = $3 WHERE id = $1 AND gen = $2 AND state = 1";
        let renewed = sqlx::query(update)
            .bind(restoration.manifest.0)
            .bind(lost.to_uuid())
            .bind(generation.to_uuid())
            .execute(&mut *tx)
            .await?
            .rows_affected()
            > 0;
        let superfluous = if renewed { lost } else { generation };
        let steps = steps::withdraw_manifest(repository, *digest, *subject, *superfluous);
        Removals::from(steps).queue(&mut tx, Duration::ZERO).await?;
        tx.commit().await?;
        Ok(renewed)
    }
}

#[async_trait]
impl Verification for PostgresStore {
    async fn pass(&self, job: Job) -> Result<Pass, Error> {
        let statement = sqlx::query_as(include_str!("sql/pass.sql")).bind(job.name());
        let found: Option<PassColumns> = read(self.row(statement)).await?;
        found.map_or_else(|| Ok(Pass::default()), PassColumns::read)
    }

    async fn begin_pass(&self, job: Job, parts: &[String], spread: Duration) -> Result<(), Error> {
        write(|| self.try_begin_pass(job, parts, spread)).await
    }

    async fn parts(&self, job: Job) -> Result<Vec<String>, Error> {
        let select = "SELECT shard FROM shards WHERE epoch = 0 AND job = $1 ORDER BY shard";
        let found: Vec<(String,)> = read(self.rows(sqlx::query_as(select).bind(job.name()))).await?;
        Ok(found.into_iter().map(|(part,)| part).collect())
    }

    async fn claim_part(&self, job: Job, owner: Uuid, spread: Duration) -> Result<Option<String>, Error> {
        let done = write(async || {
            let statement = sqlx::query_as(include_str!("sql/claim_part.sql"));
            let statement = statement.bind(job.name()).bind(owner).bind(seconds(spread));
            self.row::<(String,)>(statement).await
        });
        Ok(done.await?.map(|(part,)| part))
    }

    async fn keep_part(&self, job: Job, part: &str, owner: Uuid) -> Result<bool, Error> {
        let done = write(async || {
            let statement = sqlx::query(include_str!("sql/keep_part.sql"));
            self.changes(statement.bind(job.name()).bind(part).bind(owner)).await
        });
        done.await
    }

    async fn release_parts(&self, job: Job, owners: &[Uuid]) -> Result<(), Error> {
        self.run(|| sqlx::query(include_str!("sql/release_parts.sql")).bind(job.name()).bind(owners)).await
    }

    async fn finish_part(&self, job: Job, part: &str, owner: Uuid, findings: u64) -> Result<bool, Error> {
        let findings = row::stored(findings)?;
        let done = write(async || {
            let statement = sqlx::query_as(include_str!("sql/finish_part.sql"));
            let statement = statement.bind(job.name()).bind(part).bind(owner).bind(findings);
            self.row::<(String,)>(statement).await
        });
        Ok(done.await?.is_some())
    }

    async fn begin_restore(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        lost: Generation,
        generation: Generation,
    ) -> Result<RestoreOutcome, Error> {
        write(|| self.try_begin_restore(epoch, repository, digest, (lost, generation))).await
    }

    async fn finish_restore(&self, epoch: Epoch, restoration: &Restoration) -> Result<bool, Error> {
        write(|| self.try_finish_restore(epoch, restoration)).await
    }
}
