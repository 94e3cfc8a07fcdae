// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The two queues: what is to be removed from the bucket, and what is to be looked at by the collectors.

use std::time::Duration;

use super::seconds;
use super::tx::Connection;

/// How long after it was superseded a record or its data goes: readers may still be at it.
pub(super) const TOMBSTONE_DELAY: Duration = Duration::from_hours(1);
/// When a worker carries out what the request itself should have carried out.
pub(super) const TAKE_OVER_DELAY: Duration = Duration::from_mins(1);

/// A row of the outbox to be.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// What to do, in order.
    pub(super) steps: Vec<String>,
    /// The tag within whose order it is done.
    pub(super) lane: Option<String>,
    /// The kind and row of what is a candidate afterwards. A row that writes a marker names its manifest,
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
            .bind(self.steps)
            .bind(self.lane)
            .bind(self.then_kind)
            .bind(self.then_ref)
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

/// Queues rows of one kind for a collector: `m` manifests, `x` trashed manifests, `l` links, `b` blobs.
pub(super) async fn candidates(
    tx: &mut Connection,
    kind: &'static str,
    rows: &[i64],
    delay: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/queue_candidates.sql"))
        .bind(seconds(delay))
        .bind(kind)
        .bind(rows)
        .execute(tx)
        .await?;
    Ok(())
}
