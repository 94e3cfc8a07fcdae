// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Verification`]: parts of a pass, and records of manifests that are written again.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::reconcile::standing;
use super::tx::Tx;
use super::values::{digest as digest_column, duration, integer, micros, to_json, unreadable};
use crate::key::Generation;
use crate::meta::{Epoch, Error, Job, ManifestId, Pass, Restoration, RestoreOutcome, Verification, steps};

#[derive(sqlx::FromRow)]
struct RestoreColumns {
    id: i64,
    repo_id: i32,
    subject: Option<Vec<u8>>,
    body: Option<Vec<u8>>,
}

type PassColumns = (i64, i64, i64, i64, bool);

fn pass((done, total, findings, age, is_alive): PassColumns) -> Result<Pass, Error> {
    let number = |column: i64| u64::try_from(column).map_err(|error| unreadable("shards", error));
    Ok(Pass {
        done: number(done)?,
        total: number(total)?,
        findings: number(findings)?,
        // A clock that was set back.
        age: duration(age),
        is_alive,
    })
}

impl SqliteStore {
    /// Begins a transaction that repairs something in `epoch`, which is trusted.
    async fn begin_repair(&self, epoch: Epoch) -> Result<Tx<'_>, Error> {
        let mut tx = self.writer.begin().await?;
        if standing(self, &mut tx, epoch).await? == (true, true) {
            return Ok(tx);
        }
        tx.rollback().await?;
        Err(Error::Superseded)
    }
}

#[async_trait]
impl Verification for SqliteStore {
    async fn pass(&self, job: Job) -> Result<Pass, Error> {
        let select = sqlx::query_as(include_str!("sql/pass.sql")).bind(job.name());
        self.readers.one::<PassColumns>(select).await?.map_or_else(|| Ok(Pass::default()), pass)
    }

    async fn begin_pass(&self, job: Job, parts: &[String], spread: Duration) -> Result<(), Error> {
        let mut tx = self.writer.begin().await?;
        let select = sqlx::query_as(include_str!("sql/pass.sql")).bind(job.name());
        if !pass(tx.single::<PassColumns>(select).await?)?.is_over(spread) {
            return tx.rollback().await;
        }
        let forget = "DELETE FROM shards WHERE epoch = 0 AND job = ?1";
        tx.run(sqlx::query(forget).bind(job.name())).await?;
        // The time in `until` says that somebody is at it; it is over already.
        let insert = "INSERT INTO shards (epoch, job, phase, shard, planned, until)
                      SELECT 0, ?1, 0, value, now, now FROM json_each(?2), clock";
        tx.run(sqlx::query(insert).bind(job.name()).bind(to_json(parts))).await?;
        tx.commit_unflushed().await
    }

    async fn parts(&self, job: Job) -> Result<Vec<String>, Error> {
        let select = "SELECT shard FROM shards WHERE epoch = 0 AND job = ?1 ORDER BY shard";
        let found: Vec<(String,)> = self.readers.all(sqlx::query_as(select).bind(job.name())).await?;
        Ok(found.into_iter().map(|(part,)| part).collect())
    }

    async fn claim_part(&self, job: Job, owner: Uuid, spread: Duration) -> Result<Option<String>, Error> {
        let mut tx = self.writer.begin().await?;
        let update = sqlx::query_as(include_str!("sql/claim_part.sql"));
        let claimed = tx.one::<(String,)>(update.bind(job.name()).bind(owner).bind(micros(spread))).await?;
        tx.commit_unflushed().await?;
        Ok(claimed.map(|(part,)| part))
    }

    async fn keep_part(&self, job: Job, part: &str, owner: Uuid) -> Result<bool, Error> {
        let update = sqlx::query(include_str!("sql/keep_part.sql"));
        Ok(self.writer.note(update.bind(job.name()).bind(part).bind(owner)).await? > 0)
    }

    async fn release_parts(&self, job: Job, owners: &[Uuid]) -> Result<(), Error> {
        let update = "UPDATE shards SET owner = NULL, until = (SELECT now FROM clock)
                      WHERE epoch = 0 AND job = ?1 AND owner = ?2 AND NOT done";
        for owner in owners {
            self.writer.note(sqlx::query(update).bind(job.name()).bind(owner)).await?;
        }
        Ok(())
    }

    async fn finish_part(&self, job: Job, part: &str, owner: Uuid, findings: u64) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let update = sqlx::query_as(include_str!("sql/finish_part.sql"));
        let update = update.bind(job.name()).bind(part).bind(owner).bind(integer(findings));
        let begun: Option<(Option<i64>,)> = tx.one(update).await?;
        if let Some((begun,)) = begun {
            // They have a row by now, or are gone.
            let forget = "DELETE FROM orphans WHERE substr(key, 1, length(?1)) = ?1 AND last_seen < ?2";
            tx.run(sqlx::query(forget).bind(part).bind(begun)).await?;
        }
        tx.commit_unflushed().await?;
        Ok(begun.is_some())
    }

    async fn begin_restore(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        lost: Generation,
        generation: Generation,
    ) -> Result<RestoreOutcome, Error> {
        let mut tx = self.begin_repair(epoch).await?;
        let select = sqlx::query_as(include_str!("sql/manifest_to_restore.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes())
            .bind(lost.to_uuid());
        let found: Option<RestoreColumns> = tx.one(select).await?;
        let Some(RestoreColumns { id, repo_id, subject, body }) = found else {
            tx.rollback().await?;
            return Ok(RestoreOutcome::Gone);
        };
        let Some(body) = body else {
            tx.rollback().await?;
            return Ok(RestoreOutcome::NoBytes);
        };
        let subject = subject.map(|bytes| digest_column("manifests", &bytes)).transpose()?;
        let keys = steps::records(repository, *digest, subject, generation);
        let insert = sqlx::query_as(include_str!("sql/insert_intent.sql"))
            .bind(epoch.0)
            .bind(micros(self.timings.intent))
            .bind("m")
            .bind(id)
            .bind(repo_id)
            .bind(generation.to_uuid())
            .bind(None::<&str>)
            .bind(to_json(&keys.iter().map(ToString::to_string).collect::<Vec<_>>()))
            .bind(None::<&str>);
        let (intent,) = tx.single::<(i64,)>(insert).await?;
        tx.commit_unflushed().await?;
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

    async fn finish_restore(&self, epoch: Epoch, restoration: &Restoration) -> Result<bool, Error> {
        let Restoration { repository, digest, subject, lost, generation, .. } = restoration;
        let mut tx = self.begin_repair(epoch).await?;
        let take = "DELETE FROM intents WHERE id = ?1 AND epoch = ?2";
        if tx.run(sqlx::query(take).bind(restoration.intent).bind(epoch.0)).await? == 0 {
            // Somebody has judged it too old, and what becomes of its keys with it.
            tx.rollback().await?;
            return Ok(false);
        }
        let update = "UPDATE manifests SET gen = ?3 WHERE id = ?1 AND gen = ?2 AND state = 1";
        let update =
            sqlx::query(update).bind(restoration.manifest.0).bind(lost.to_uuid()).bind(generation.to_uuid());
        let renewed = tx.run(update).await? > 0;
        let superfluous = if renewed { lost } else { generation };
        let steps = steps::withdraw_manifest(repository, *digest, *subject, *superfluous);
        tx.owe(&Owed { steps, ..Owed::default() }).await?;
        tx.commit().await?;
        Ok(renewed)
    }
}
