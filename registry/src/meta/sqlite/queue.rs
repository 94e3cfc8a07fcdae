// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is left for later: keys to write or remove (outbox), rows to look at (candidates).
//!
//! A row of the outbox is written in the transaction that decides that its keys have no use any more.

use std::time::Duration;

use serde_json::json;
use stowage_oci::Name;

use super::tx::Tx;
use super::values::{micros, to_json};
use crate::meta::{Candidate, Error};

/// Steps to be taken some time.
#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) steps: Vec<String>,
    /// How long until they are due.
    pub(super) after: Duration,
    /// The tag whose steps must be taken in order.
    pub(super) lane: Option<String>,
    /// What becomes a candidate when they are taken.
    pub(super) then: Option<Candidate>,
    /// Its row; or, without `then`, the manifest that evidence is about.
    pub(super) about: Option<i64>,
}

impl Tx<'_> {
    /// Queues steps; the row.
    pub(super) async fn owe(&mut self, owed: &Owed) -> Result<i64, Error> {
        let insert = sqlx::query_as(include_str!("sql/owe.sql"))
            .bind(micros(owed.after))
            .bind(to_json(&owed.steps))
            .bind(owed.lane.as_deref())
            .bind(owed.then.map(Candidate::code))
            .bind(owed.about);
        let (id,) = self.single::<(i64,)>(insert).await?;
        Ok(id)
    }

    /// Queues the steps of several, all of them due after the same time.
    pub(super) async fn owe_all(&mut self, owed: &[Owed], after: Duration) -> Result<(), Error> {
        if owed.is_empty() {
            return Ok(());
        }
        let row = |owed: &Owed| {
            json!([to_json(&owed.steps), owed.lane, owed.then.map(Candidate::code), owed.about])
        };
        let rows: Vec<serde_json::Value> = owed.iter().map(row).collect();
        let insert = sqlx::query(include_str!("sql/owe_all.sql"));
        self.run(insert.bind(to_json(&rows)).bind(micros(after))).await.map(drop)
    }

    /// Queues the removal of what nobody should see any more, if there is any.
    pub(super) async fn discard(&mut self, steps: Vec<String>, after: Duration) -> Result<(), Error> {
        if !steps.is_empty() {
            self.owe(&Owed { steps, after, ..Owed::default() }).await?;
        }
        Ok(())
    }

    /// Queues a row to be looked at by a collector.
    pub(super) async fn candidate(&mut self, kind: Candidate, id: i64, after: Duration) -> Result<(), Error> {
        let insert = "INSERT INTO gc_queue (due, kind, ref) SELECT now + ?1, ?2, ?3 FROM clock";
        self.run(sqlx::query(insert).bind(micros(after)).bind(kind.code()).bind(id)).await?;
        Ok(())
    }

    /// The same for several rows of a kind.
    pub(super) async fn candidates(
        &mut self,
        kind: Candidate,
        ids: &[i64],
        after: Duration,
    ) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let insert = sqlx::query(include_str!("sql/queue_candidates.sql"));
        self.run(insert.bind(to_json(ids)).bind(kind.code()).bind(micros(after))).await.map(drop)
    }

    /// The repository's row, made if need be.
    pub(super) async fn repository(&mut self, name: &Name) -> Result<i32, Error> {
        let insert = "INSERT INTO repositories (name) VALUES (?1) ON CONFLICT DO NOTHING";
        self.run(sqlx::query(insert).bind(name.as_str())).await?;
        let select = "SELECT id FROM repositories WHERE name = ?1";
        let (id,) = self.single::<(i32,)>(sqlx::query_as(select).bind(name.as_str())).await?;
        Ok(id)
    }
}
