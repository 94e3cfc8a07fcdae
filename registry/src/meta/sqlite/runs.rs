// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Runs`].

use async_trait::async_trait;
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{digest as digest_column, integer, micros, parsed, to_json, unreadable};
use crate::key::{Generation, Key, RunKind, RunName};
use crate::meta::steps::remove;
use crate::meta::{Epoch, Error, RunRow, Runs};

#[derive(sqlx::FromRow)]
struct RunColumns {
    kind: String,
    name: String,
    r#gen: Uuid,
    outcome: String,
    started: i64,
    ended: i64,
    summary: String,
    rules: Option<Vec<u8>>,
}

impl RunColumns {
    fn read(self) -> Result<RunRow, Error> {
        let time = |column: i64| u64::try_from(column).map_err(|error| unreadable("runs", error));
        Ok(RunRow {
            kind: parsed("runs", &self.kind)?,
            name: parsed("runs", &self.name)?,
            generation: Generation::from_uuid(self.r#gen),
            outcome: parsed("runs", &self.outcome)?,
            started: time(self.started)?,
            ended: time(self.ended)?,
            summary: self.summary,
            rules: self.rules.as_deref().map(|bytes| digest_column("runs", bytes)).transpose()?,
        })
    }
}

impl Tx<'_> {
    async fn insert_run(&mut self, run: &RunRow) -> Result<bool, Error> {
        let insert = sqlx::query(include_str!("sql/insert_run.sql"))
            .bind(run.kind.as_str())
            .bind(run.name.as_str())
            .bind(run.generation.to_uuid())
            .bind(run.outcome.as_str())
            .bind(integer(run.started))
            .bind(integer(run.ended))
            .bind(run.summary.as_str())
            .bind(run.rules.map(|rules| rules.to_bytes()));
        Ok(self.run(insert).await? == 1)
    }
}

#[async_trait]
impl Runs for SqliteStore {
    async fn intend_run(&self, epoch: Epoch, key: &Key) -> Result<i64, Error> {
        let Key::Run { generation, .. } = key else {
            return Err(unreadable("intents", "a key that is no run's"));
        };
        let mut tx = self.writer.begin_in(epoch).await?;
        let insert = sqlx::query_as(include_str!("sql/insert_intent.sql"))
            .bind(epoch.0)
            .bind(micros(self.timings.intent))
            .bind("r")
            .bind(None::<i64>)
            .bind(None::<i32>)
            .bind(generation.to_uuid())
            .bind(None::<String>)
            .bind(to_json(&[key.to_string()]));
        let (intent,): (i64,) = tx.single(insert).await?;
        tx.commit().await?;
        Ok(intent)
    }

    async fn record_run(&self, epoch: Epoch, intent: i64, run: &RunRow) -> Result<bool, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let take = "DELETE FROM intents WHERE id = ?1 AND epoch = ?2 AND gen = ?3 AND kind = 'r'";
        let take = sqlx::query(take).bind(intent).bind(epoch.0).bind(run.generation.to_uuid());
        if tx.run(take).await? == 0 {
            tx.rollback().await?;
            return Ok(false);
        }
        let inserted = tx.insert_run(run).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    async fn adopt_run(&self, epoch: Epoch, run: &RunRow) -> Result<bool, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let inserted = tx.insert_run(run).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    async fn runs(&self, kind: RunKind, name: &RunName, limit: u32) -> Result<Vec<RunRow>, Error> {
        let select =
            sqlx::query_as(include_str!("sql/runs.sql")).bind(kind.as_str()).bind(name.as_str()).bind(limit);
        let found: Vec<RunColumns> = self.readers.all(select).await?;
        found.into_iter().map(RunColumns::read).collect()
    }

    async fn forget_runs(&self, epoch: Epoch, keep: u32, limit: u32) -> Result<u64, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let forget = sqlx::query_as(include_str!("sql/forget_runs.sql")).bind(keep).bind(limit);
        let gone: Vec<(String, String, Uuid, String)> = tx.all(forget).await?;
        let owed = gone.iter().map(|(kind, name, generation, outcome)| {
            let key = Key::Run {
                kind: parsed("runs", kind)?,
                name: parsed("runs", name)?,
                generation: Generation::from_uuid(*generation),
                outcome: parsed("runs", outcome)?,
            };
            Ok(Owed { steps: vec![remove(&key)], ..Owed::default() })
        });
        let owed = owed.collect::<Result<Vec<_>, Error>>()?;
        tx.owe_all(&owed, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(gone.len() as u64)
    }
}
