// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The outbox, from the side of those who carry it out.

use std::collections::HashSet;

use super::error::Fault;
use super::queue::{Removals, candidates, queue_all};
use super::tx::{Connection, Tx};
use super::{PostgresStore, guard, row, seconds};
use crate::key::Key;
use crate::meta::steps::{removed, spent_markers};
use crate::meta::{Candidate, DueRemoval, Epoch, Error, Removal, Which};

/// How many rows of one lane are taken at once: each waits for the one before it.
const LANE: i64 = 32;

#[derive(sqlx::FromRow)]
struct LeasedColumns {
    id: i64,
    steps: Vec<String>,
    lane: Option<String>,
    tries: i32,
}

impl LeasedColumns {
    fn read(self) -> Result<DueRemoval, Error> {
        let tries = row::number("outbox", self.tries)?;
        Ok(DueRemoval { id: self.id, steps: self.steps, lane: self.lane, tries })
    }
}

#[derive(sqlx::FromRow)]
struct SettledColumns {
    steps: Vec<String>,
    then_kind: Option<String>,
    then_ref: Option<i64>,
}

/// The due rows that can be taken: those without a lane, and of each lane the first, as far as they are due.
async fn due(tx: &mut Connection, which: Which, limit: u32) -> Result<Vec<i64>, Fault> {
    let statement = match which {
        Which::All => include_str!("sql/due_removals.sql"),
        Which::Owed => include_str!("sql/owed_removals.sql"),
    };
    let heads: Vec<(i64, Option<String>)> =
        sqlx::query_as(statement).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let (lanes, mut rows): (Vec<_>, Vec<_>) = heads.into_iter().partition(|(_, lane)| lane.is_some());
    let lanes: Vec<String> = lanes.into_iter().filter_map(|(_, lane)| lane).collect();
    if !lanes.is_empty() {
        let followers: Vec<(i64, String, bool)> = sqlx::query_as(include_str!("sql/lane_removals.sql"))
            .bind(&lanes)
            .bind(if which == Which::All { LANE } else { 1 })
            .fetch_all(tx)
            .await?;
        let mut waiting: HashSet<String> = HashSet::new();
        for (id, lane, is_due) in followers {
            if is_due && !waiting.contains(&lane) {
                rows.push((id, None));
            } else {
                waiting.insert(lane);
            }
        }
    }
    Ok(rows.into_iter().map(|(id, _)| id).collect())
}

impl PostgresStore {
    pub(super) async fn try_take_removals(
        &self,
        epoch: Epoch,
        which: Which,
        limit: u32,
    ) -> Result<Vec<DueRemoval>, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let rows = due(&mut tx, which, limit).await?;
        if rows.is_empty() {
            return tx.undo(Vec::new()).await;
        }
        let leased: Vec<LeasedColumns> = sqlx::query_as(include_str!("sql/lease_removals.sql"))
            .bind(rows)
            .bind(seconds(self.timings.removal_lease))
            .fetch_all(&mut *tx)
            .await?;
        let keys: Vec<Key> =
            leased.iter().flat_map(|row| &row.steps).filter_map(|step| removed(step)).collect();
        if let Some(key) = guard::owned(&mut tx, &keys).await? {
            return tx.undo(Err(Error::Live { key: key.to_string() }.into())).await?;
        }
        tx.commit().await?;
        let mut taken = leased.into_iter().map(LeasedColumns::read).collect::<Result<Vec<_>, _>>()?;
        taken.sort_by_key(|row| row.id);
        Ok(taken)
    }

    pub(super) async fn try_settle(&self, epoch: Epoch, rows: &[i64]) -> Result<(), Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let forgotten =
            sqlx::query_as(include_str!("sql/forget_removals.sql")).bind(rows).fetch_all(&mut *tx).await?;
        self.follow(&mut tx, &forgotten).await?;
        tx.commit().await
    }

    /// The same for a request that has carried its own row out. In another incarnation that may be somebody else's.
    pub(super) async fn try_finish(&self, removal: &Removal) -> Result<bool, Fault> {
        let mut tx = self.begin().await?;
        let forgotten = sqlx::query_as(include_str!("sql/forget_removal.sql"))
            .bind(removal.outbox)
            .bind(&removal.steps)
            .fetch_all(&mut *tx)
            .await?;
        self.follow(&mut tx, &forgotten).await?;
        tx.commit().await?;
        Ok(!forgotten.is_empty())
    }

    /// Only now that the records above are gone may the level below become a candidate.
    async fn follow(&self, tx: &mut Tx, settled: &[SettledColumns]) -> Result<(), Fault> {
        let follows = |kind: Candidate| -> Vec<i64> {
            let of_kind = settled.iter().filter(|row| row.then_kind.as_deref() == Some(kind.code()));
            of_kind.filter_map(|row| row.then_ref).collect()
        };
        let markers = settled.iter().flat_map(|row| spent_markers(&row.steps));
        let markers: Vec<Removals> = markers.map(Removals::from).collect();
        queue_all(&mut *tx, &markers, self.timings.marker).await?;
        let manifests = follows(Candidate::Manifest);
        let links =
            if manifests.is_empty() { Vec::new() } else { self.end_manifests(tx, &manifests).await? };
        self.free(&mut *tx, &follows(Candidate::Blob)).await?;
        if !links.is_empty() {
            sqlx::query(include_str!("sql/touch_links.sql")).bind(&links).execute(&mut **tx).await?;
            candidates(tx, Candidate::Link, &links, self.timings.lease).await?;
        }
        Ok(())
    }

    /// Deletes doomed manifests. What they held, and their referrers, are looked at; the links are returned.
    async fn end_manifests(&self, tx: &mut Tx, doomed: &[i64]) -> Result<Vec<i64>, Fault> {
        let doomed: Vec<i64> =
            sqlx::query_scalar(include_str!("sql/lock_doomed.sql")).bind(doomed).fetch_all(&mut **tx).await?;
        let links: Vec<i64> = sqlx::query_scalar(include_str!("sql/links_of_doomed.sql"))
            .bind(&doomed)
            .fetch_all(&mut **tx)
            .await?;
        let manifests: Vec<i64> = sqlx::query_scalar(include_str!("sql/manifests_of_doomed.sql"))
            .bind(&doomed)
            .fetch_all(&mut **tx)
            .await?;
        sqlx::query("DELETE FROM manifests WHERE id = ANY ($1)").bind(&doomed).execute(&mut **tx).await?;
        self.let_go(tx, manifests).await?;
        Ok(links)
    }

    async fn free(&self, tx: &mut Connection, blobs: &[i64]) -> Result<(), Fault> {
        if blobs.is_empty() {
            return Ok(());
        }
        let freed: Vec<i64> =
            sqlx::query_scalar(include_str!("sql/free_blobs.sql")).bind(blobs).fetch_all(&mut *tx).await?;
        Ok(candidates(tx, Candidate::Blob, &freed, self.timings.blob_grace).await?)
    }
}
