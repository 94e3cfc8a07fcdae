// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The outbox, from the side of those who carry it out.

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{from_json, micros, to_json};
use crate::key::Key;
use crate::meta::steps::{removed, spent_markers};
use crate::meta::{Candidate, DueRemoval, Epoch, Error, Removal, Which};

/// How many rows of one lane are taken at once: each waits for the one before it.
const LANE: i64 = 32;

#[derive(sqlx::FromRow)]
struct LeasedColumns {
    id: i64,
    steps: String,
    lane: Option<String>,
    tries: u32,
}

impl LeasedColumns {
    fn into_removal(self) -> Result<DueRemoval, Error> {
        let steps = from_json("outbox", &self.steps)?;
        Ok(DueRemoval { id: self.id, steps, lane: self.lane, tries: self.tries })
    }
}

/// A row that was carried out: its steps, and what is to follow.
type SettledColumns = (String, Option<String>, Option<i64>);

impl Tx<'_> {
    /// The due rows that can be taken: those without a lane, and of each lane the first, as far as they are due.
    async fn due_removals(&mut self, which: Which, limit: u32) -> Result<Vec<i64>, Error> {
        let (statement, lane_limit) = match which {
            Which::All => (include_str!("sql/due_removals.sql"), LANE),
            Which::Owed => (include_str!("sql/owed_removals.sql"), 1),
        };
        let heads: Vec<(i64, Option<String>)> = self.all(sqlx::query_as(statement).bind(limit)).await?;
        let mut rows = Vec::with_capacity(heads.len());
        for (head, lane) in heads {
            let Some(lane) = lane else {
                rows.push(head);
                continue;
            };
            let of_lane = sqlx::query_as(include_str!("sql/lane_removals.sql")).bind(lane).bind(lane_limit);
            let of_lane: Vec<(i64, bool)> = self.all(of_lane).await?;
            rows.extend(of_lane.into_iter().take_while(|(_, is_due)| *is_due).map(|(id, _)| id));
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// Only now that the records above are gone may the level below become a candidate. Whether there was the row,
    /// with these steps if they are given.
    async fn forget(
        &mut self,
        store: &SqliteStore,
        row: i64,
        steps: Option<&[String]>,
    ) -> Result<bool, Error> {
        let delete = "DELETE FROM outbox WHERE id = ?1 AND steps = coalesce(?2, steps)
                      RETURNING steps, then_kind, then_ref";
        let delete = sqlx::query_as(delete).bind(row).bind(steps.map(to_json));
        let settled: Option<SettledColumns> = self.one(delete).await?;
        let Some((steps, then, about)) = settled else { return Ok(false) };
        let steps: Vec<String> = from_json("outbox", &steps)?;
        for steps in spent_markers(&steps) {
            self.discard(steps, store.timings.marker).await?;
        }
        match (then.as_deref(), about) {
            (Some("m"), Some(manifest)) => self.end_manifest(store, manifest).await?,
            (Some("b"), Some(blob)) => {
                let free = "UPDATE blobs SET freed = (SELECT now FROM clock) WHERE id = ?1";
                self.run(sqlx::query(free).bind(blob)).await?;
                self.candidate(Candidate::Blob, blob, store.timings.blob_grace).await?;
            }
            _ => {}
        }
        Ok(true)
    }

    /// Deletes a doomed manifest. What it held, and its referrers, are looked at.
    async fn end_manifest(&mut self, store: &SqliteStore, doomed: i64) -> Result<(), Error> {
        let links = sqlx::query_as(include_str!("sql/links_of_doomed.sql")).bind(doomed);
        let links: Vec<(i64,)> = self.all(links).await?;
        let manifests = sqlx::query_as(include_str!("sql/manifests_of_doomed.sql")).bind(doomed);
        let manifests: Vec<(i64,)> = self.all(manifests).await?;
        self.run(sqlx::query("DELETE FROM manifests WHERE id = ?1 AND state = 3").bind(doomed)).await?;
        for (manifest,) in manifests {
            self.untagged(manifest, store.timings.lease).await?;
        }
        for (link,) in links {
            let touch = "UPDATE repo_blobs SET touched = (SELECT now FROM clock) WHERE id = ?1";
            self.run(sqlx::query(touch).bind(link)).await?;
            self.candidate(Candidate::Link, link, store.timings.lease).await?;
        }
        Ok(())
    }
}

impl SqliteStore {
    pub(super) async fn lease_removals(
        &self,
        epoch: Epoch,
        which: Which,
        limit: u32,
    ) -> Result<Vec<DueRemoval>, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let mut taken = Vec::new();
        for row in tx.due_removals(which, limit).await? {
            let lease = sqlx::query_as(include_str!("sql/lease_removal.sql"))
                .bind(row)
                .bind(micros(self.timings.removal_lease));
            let leased: LeasedColumns = tx.single(lease).await?;
            taken.push(leased.into_removal()?);
        }
        let keys: Vec<Key> =
            taken.iter().flat_map(|row| &row.steps).filter_map(|step| removed(step)).collect();
        tx.ensure_unowned(&keys).await?;
        if taken.is_empty() {
            tx.rollback().await?;
        } else {
            // Flushed, and with it every decision that these rows stand for.
            tx.commit().await?;
        }
        Ok(taken)
    }

    pub(super) async fn settle(&self, epoch: Epoch, rows: &[i64]) -> Result<(), Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        for row in rows {
            tx.forget(self, *row, None).await?;
        }
        tx.commit_unflushed().await
    }

    /// The same for a request that has carried its own row out.
    pub(super) async fn forget_removal(&self, removal: &Removal) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let known = tx.forget(self, removal.outbox, Some(&removal.steps)).await?;
        tx.commit_unflushed().await?;
        Ok(known)
    }

    /// Queues keys that no row has made.
    pub(super) async fn discard_unowned(&self, epoch: Epoch, keys: &[Key]) -> Result<(), Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        tx.ensure_unowned(keys).await?;
        for key in keys {
            let owed = Owed {
                steps: vec![crate::meta::steps::remove(key)],
                after: self.timings.tombstone_delay,
                ..Owed::default()
            };
            tx.owe(&owed).await?;
        }
        tx.commit().await
    }
}
