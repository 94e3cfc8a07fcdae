// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The two queues: what is to be removed from the bucket, and what is to be looked at by the collectors.

use std::time::Duration;

use serde::Serialize;
use sqlx::types::Json;

use super::seconds;
use super::tx::Connection;
use crate::meta::Candidate;

/// A row of the outbox to be.
#[derive(Debug, Default, Serialize)]
pub(super) struct Removals {
    /// What to do, in order.
    pub(super) steps: Vec<String>,
    /// The tag within whose order it is done.
    pub(super) lane: Option<String>,
    /// The kind and row of what is a candidate afterwards. A row that writes evidence about a manifest names it,
    /// without a kind.
    pub(super) then_kind: Option<&'static str>,
    pub(super) then_ref: Option<i64>,
}

impl From<Vec<String>> for Removals {
    fn from(steps: Vec<String>) -> Self {
        Self { steps, ..Self::default() }
    }
}

impl Removals {
    /// Queues it; its row.
    pub(super) async fn queue(self, tx: &mut Connection, delay: Duration) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(include_str!("sql/queue_removals.sql"))
            .bind(seconds(delay))
            .bind(Json([self]))
            .fetch_one(tx)
            .await
    }

    /// Queues it unless there is nothing to do.
    pub(super) async fn queue_any(self, tx: &mut Connection, delay: Duration) -> Result<(), sqlx::Error> {
        if !self.steps.is_empty() {
            self.queue(tx, delay).await?;
        }
        Ok(())
    }
}

/// Queues rows, in their order.
pub(super) async fn queue_all(
    tx: &mut Connection,
    rows: &[Removals],
    delay: Duration,
) -> Result<(), sqlx::Error> {
    if !rows.is_empty() {
        let statement = sqlx::query(include_str!("sql/queue_removals.sql")).bind(seconds(delay));
        statement.bind(Json(rows)).execute(tx).await?;
    }
    Ok(())
}

/// The same; the rows, in that order.
pub(super) async fn queue_each(
    tx: &mut Connection,
    rows: &[Removals],
    delay: Duration,
) -> Result<Vec<i64>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let statement = sqlx::query_scalar(include_str!("sql/queue_removals.sql")).bind(seconds(delay));
    statement.bind(Json(rows)).fetch_all(tx).await
}

/// Queues rows of one kind for a collector.
pub(super) async fn candidates(
    tx: &mut Connection,
    kind: Candidate,
    rows: &[i64],
    delay: Duration,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/queue_candidates.sql"))
        .bind(seconds(delay))
        .bind(kind.code())
        .bind(rows)
        .execute(tx)
        .await?;
    Ok(())
}
