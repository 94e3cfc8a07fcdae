// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The outbox, from the side of those who carry it out.

use std::collections::HashSet;

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{from_json, micros, to_json};
use crate::key::Key;
use crate::meta::steps::{remove, removed, spent_markers};
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
        let mut lanes = Vec::new();
        for (head, lane) in heads {
            match lane {
                Some(lane) => lanes.push(lane),
                None => rows.push(head),
            }
        }
        if !lanes.is_empty() {
            let followers = sqlx::query_as(include_str!("sql/lane_removals.sql"));
            let followers: Vec<(String, i64, bool)> =
                self.all(followers.bind(to_json(&lanes)).bind(lane_limit)).await?;
            let mut waiting: HashSet<String> = HashSet::new();
            for (lane, id, is_due) in followers {
                if is_due && !waiting.contains(&lane) {
                    rows.push(id);
                } else {
                    waiting.insert(lane);
                }
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// Only now that the records above are gone may the level below become a candidate. How many rows there were,
    /// with these steps if they are given.
    async fn forget(
        &mut self,
        store: &SqliteStore,
        rows: &[i64],
        steps: Option<&[String]>,
    ) -> Result<usize, Error> {
        let delete = "DELETE FROM outbox \
                      WHERE id IN (SELECT value FROM json_each(?1)) AND steps = coalesce(?2, steps) \
                      RETURNING steps, then_kind, then_ref";
        let delete = sqlx::query_as(delete).bind(to_json(rows)).bind(steps.map(to_json));
        let settled: Vec<SettledColumns> = self.all(delete).await?;
        let mut markers = Vec::new();
        for (steps, ..) in &settled {
            let spent = spent_markers(&from_json::<Vec<String>>("outbox", steps)?);
            markers.extend(spent.into_iter().map(|steps| Owed { steps, ..Owed::default() }));
        }
        self.owe_all(&markers, store.timings.marker).await?;
        let follows = |kind: Candidate| -> Vec<i64> {
            let of_kind = settled.iter().filter(|(_, then, _)| then.as_deref() == Some(kind.code()));
            of_kind.filter_map(|(_, _, about)| *about).collect()
        };
        self.end_manifests(store, &follows(Candidate::Manifest)).await?;
        let freed = follows(Candidate::Blob);
        if !freed.is_empty() {
            let free = "UPDATE blobs SET freed = (SELECT now FROM clock) \
                        WHERE id IN (SELECT value FROM json_each(?1))";
            self.run(sqlx::query(free).bind(to_json(&freed))).await?;
            self.candidates(Candidate::Blob, &freed, store.timings.blob_grace).await?;
        }
        Ok(settled.len())
    }

    /// Deletes doomed manifests. What they held, and their referrers, are looked at.
    async fn end_manifests(&mut self, store: &SqliteStore, doomed: &[i64]) -> Result<(), Error> {
        if doomed.is_empty() {
            return Ok(());
        }
        let doomed = to_json(doomed);
        let links = sqlx::query_as(include_str!("sql/links_of_doomed.sql")).bind(&doomed);
        let links: Vec<(i64,)> = self.all(links).await?;
        let links: Vec<i64> = links.into_iter().map(|(link,)| link).collect();
        let manifests = sqlx::query_as(include_str!("sql/manifests_of_doomed.sql")).bind(&doomed);
        let manifests: Vec<(i64,)> = self.all(manifests).await?;
        let manifests: Vec<i64> = manifests.into_iter().map(|(manifest,)| manifest).collect();
        let delete = "DELETE FROM manifests WHERE id IN (SELECT value FROM json_each(?1)) AND state = 3";
        self.run(sqlx::query(delete).bind(&doomed)).await?;
        if !manifests.is_empty() {
            let touch = sqlx::query(include_str!("sql/touch_manifests.sql")).bind(to_json(&manifests));
            self.run(touch).await?;
            self.candidates(Candidate::Manifest, &manifests, store.timings.lease).await?;
        }
        if !links.is_empty() {
            let touch = "UPDATE repo_blobs SET touched = (SELECT now FROM clock) \
                         WHERE id IN (SELECT value FROM json_each(?1))";
            self.run(sqlx::query(touch).bind(to_json(&links))).await?;
            self.candidates(Candidate::Link, &links, store.timings.lease).await?;
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
        let due = tx.due_removals(which, limit).await?;
        if due.is_empty() {
            tx.rollback().await?;
            return Ok(Vec::new());
        }
        let lease = sqlx::query_as(include_str!("sql/lease_removals.sql"))
            .bind(to_json(&due))
            .bind(micros(self.timings.removal_lease));
        let leased: Vec<LeasedColumns> = tx.all(lease).await?;
        let mut taken = leased.into_iter().map(LeasedColumns::into_removal).collect::<Result<Vec<_>, _>>()?;
        taken.sort_by_key(|row| row.id);
        let keys: Vec<Key> =
            taken.iter().flat_map(|row| &row.steps).filter_map(|step| removed(step)).collect();
        tx.ensure_unowned(&keys).await?;
        // Flushed, and with it every decision that these rows stand for.
        tx.commit().await?;
        Ok(taken)
    }

    pub(super) async fn settle(&self, epoch: Epoch, rows: &[i64]) -> Result<(), Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        tx.forget(self, rows, None).await?;
        tx.commit_unflushed().await
    }

    /// The same for a request that has carried its own row out.
    pub(super) async fn forget_removal(&self, removal: &Removal) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let known = tx.forget(self, &[removal.outbox], Some(&removal.steps)).await?;
        tx.commit_unflushed().await?;
        Ok(known > 0)
    }

    /// Queues keys that no row has made.
    pub(super) async fn discard_unowned(&self, epoch: Epoch, keys: &[Key]) -> Result<(), Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        tx.ensure_unowned(keys).await?;
        let owed = keys.iter().map(|key| Owed { steps: vec![remove(key)], ..Owed::default() });
        tx.owe_all(&owed.collect::<Vec<_>>(), self.timings.tombstone_delay).await?;
        tx.commit().await
    }
}
