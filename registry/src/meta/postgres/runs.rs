// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Runs`].

use async_trait::async_trait;
use uuid::Uuid;

use super::error::Fault;
use super::queue::{Removals, queue_all};
use super::tx::{Connection, collect, read, write};
use super::{PostgresStore, row, seconds};
use crate::key::{Generation, Key, RunKind, RunName};
use crate::meta::steps::remove;
use crate::meta::{Epoch, Error, RunRow, Runs};

#[derive(sqlx::FromRow)]
struct RunColumns {
    kind: String,
    name: String,
    generation: Uuid,
    outcome: String,
    started: i64,
    ended: i64,
    summary: String,
    rules: Option<Vec<u8>>,
}

impl RunColumns {
    fn read(self) -> Result<RunRow, Error> {
        Ok(RunRow {
            kind: row::parsed("runs", &self.kind)?,
            name: row::parsed("runs", &self.name)?,
            generation: Generation::from_uuid(self.generation),
            outcome: row::parsed("runs", &self.outcome)?,
            started: row::number("runs", self.started)?,
            ended: row::number("runs", self.ended)?,
            summary: self.summary,
            rules: self.rules.as_deref().map(|bytes| row::digest("runs", bytes)).transpose()?,
        })
    }
}

async fn insert(tx: &mut Connection, run: &RunRow) -> Result<bool, Fault> {
    let inserted = sqlx::query(include_str!("sql/insert_run.sql"))
        .bind(run.kind.as_str())
        .bind(run.name.as_str())
        .bind(run.generation.to_uuid())
        .bind(run.outcome.as_str())
        .bind(row::stored(run.started)?)
        .bind(row::stored(run.ended)?)
        .bind(run.summary.as_str())
        .bind(run.rules.map(|rules| rules.to_bytes()))
        .execute(tx)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

fn generation(key: &Key) -> Result<Generation, Error> {
    match key {
        Key::Run { generation, .. } => Ok(*generation),
        _ => Err(row::unreadable("intents", "a key that is no run's")),
    }
}

impl PostgresStore {
    async fn try_intend_run(&self, epoch: Epoch, key: &Key) -> Result<i64, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let intent = sqlx::query_scalar(include_str!("sql/intend_run.sql"))
            .bind(i64::from(epoch.0))
            .bind(seconds(self.timings.intent))
            .bind(generation(key)?.to_uuid())
            .bind(key.to_string())
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(intent)
    }

    async fn try_record_run(&self, epoch: Epoch, intent: i64, run: &RunRow) -> Result<bool, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let taken: Option<i64> = sqlx::query_scalar(include_str!("sql/take_run_intent.sql"))
            .bind(intent)
            .bind(i64::from(epoch.0))
            .bind(run.generation.to_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        if taken.is_none() {
            return tx.undo(false).await;
        }
        let inserted = insert(&mut tx, run).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    async fn try_adopt_run(&self, epoch: Epoch, run: &RunRow) -> Result<bool, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let inserted = insert(&mut tx, run).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    async fn try_forget_runs(&self, epoch: Epoch, keep: u32, limit: u32) -> Result<u64, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let gone: Vec<(String, String, Uuid, String)> = sqlx::query_as(include_str!("sql/forget_runs.sql"))
            .bind(i64::from(keep))
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        let removals = gone.iter().map(|(kind, name, generation, outcome)| {
            let key = Key::Run {
                kind: row::parsed("runs", kind)?,
                name: row::parsed("runs", name)?,
                generation: Generation::from_uuid(*generation),
                outcome: row::parsed("runs", outcome)?,
            };
            Ok(Removals::from(vec![remove(&key)]))
        });
        let removals = removals.collect::<Result<Vec<_>, Error>>()?;
        queue_all(&mut tx, &removals, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(gone.len() as u64)
    }
}

#[async_trait]
impl Runs for PostgresStore {
    async fn intend_run(&self, epoch: Epoch, key: &Key) -> Result<i64, Error> {
        write(|| self.try_intend_run(epoch, key)).await
    }

    async fn record_run(&self, epoch: Epoch, intent: i64, run: &RunRow) -> Result<bool, Error> {
        write(|| self.try_record_run(epoch, intent, run)).await
    }

    async fn adopt_run(&self, epoch: Epoch, run: &RunRow) -> Result<bool, Error> {
        write(|| self.try_adopt_run(epoch, run)).await
    }

    async fn runs(&self, kind: RunKind, name: &RunName, limit: u32) -> Result<Vec<RunRow>, Error> {
        let statement = sqlx::query_as(include_str!("sql/runs.sql"))
            .bind(kind.as_str())
            .bind(name.as_str())
            .bind(i64::from(limit));
        let found: Vec<RunColumns> = read(self.rows(statement)).await?;
        found.into_iter().map(RunColumns::read).collect()
    }

    async fn forget_runs(&self, epoch: Epoch, keep: u32, limit: u32) -> Result<u64, Error> {
        collect(|| self.try_forget_runs(epoch, keep, limit)).await
    }
}
