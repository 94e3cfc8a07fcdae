// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The sweeps: manifests, links, blobs. Each takes candidates from the queue, locks their rows, and looks for
//! references in a later statement.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::FromRow;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::error::Fault;
use super::queue::{Removals, candidates, queue_all};
use super::tx::{Connection, Tx};
use super::{PostgresStore, row, seconds};
use crate::key::{Generation, Key};
use crate::meta::steps::{remove_absent, remove_blob, remove_link, withdraw_manifest, write};
use crate::meta::{Candidate, Epoch, Error, Location, ManifestId, Swept};

/// A candidate whose row is locked.
trait Locked: for<'r> FromRow<'r, PgRow> + Send + Unpin {
    fn id(&self) -> i64;
    /// How long until it is ripe, in seconds; not positive: it is.
    fn wait(&self) -> f64;
}

#[derive(sqlx::FromRow)]
struct LinkColumns {
    id: i64,
    repository: String,
    digest: Vec<u8>,
    generation: Option<Uuid>,
    blob_id: i64,
    wait: f64,
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    id: i64,
    digest: Vec<u8>,
    size: i64,
    generation: Option<Uuid>,
    form: i16,
    tail: Option<i32>,
    wait: f64,
}

#[derive(sqlx::FromRow)]
struct ManifestColumns {
    id: i64,
    repository: String,
    digest: Vec<u8>,
    subject: Option<Vec<u8>>,
    generation: Uuid,
    wait: f64,
}

macro_rules! locked {
    ($($columns:ident),*) => {
        $(impl Locked for $columns {
            fn id(&self) -> i64 {
                self.id
            }

            fn wait(&self) -> f64 {
                self.wait
            }
        })*
    };
}

locked!(LinkColumns, BlobColumns, ManifestColumns);

impl LinkColumns {
    /// A hidden link has no record, but the blob may be a candidate all the same.
    fn removal(&self) -> Result<Removals, Error> {
        let (repository, digest) =
            (row::parsed("repositories", &self.repository)?, row::digest("repo_blobs", &self.digest)?);
        let record =
            self.generation.map(|record| remove_link(&repository, digest, Generation::from_uuid(record)));
        Ok(Removals {
            steps: record.into_iter().collect(),
            then_kind: Some(Candidate::Blob.code()),
            then_ref: Some(self.blob_id),
            lane: None,
        })
    }
}

impl BlobColumns {
    fn removal(&self) -> Result<Removals, Error> {
        let digest = row::digest("blobs", &self.digest)?;
        let Some(generation) = self.generation.map(Generation::from_uuid) else {
            return Ok(Removals::default());
        };
        let size = row::number("blobs", self.size)?;
        let tail = self.tail.map(|tail| row::number("blobs", tail)).transpose()?;
        Ok(Removals::from(match row::form("blobs", self.form, self.tail)? {
            Some(form) => remove_blob(digest, &Location { generation, form, size }),
            None => remove_absent(digest, generation, size, tail),
        }))
    }
}

impl ManifestColumns {
    fn removal(&self) -> Result<Removals, Error> {
        let repository = row::parsed("repositories", &self.repository)?;
        let subject = self.subject.as_deref().map(|bytes| row::digest("manifests", bytes)).transpose()?;
        let digest = row::digest("manifests", &self.digest)?;
        let steps = withdraw_manifest(&repository, digest, subject, Generation::from_uuid(self.generation));
        let then_kind = Some(Candidate::Manifest.code());
        Ok(Removals { steps, then_kind, then_ref: Some(self.id), lane: None })
    }

    fn marker(&self) -> Result<Removals, Error> {
        let key = Key::ManifestDeleted {
            repository: row::parsed("repositories", &self.repository)?,
            digest: row::digest("manifests", &self.digest)?,
            generation: Generation::from_uuid(self.generation),
        };
        Ok(Removals { steps: vec![write(&key)], then_ref: Some(self.id), ..Removals::default() })
    }
}

/// Takes due candidates from the queue, each once.
async fn take(tx: &mut Connection, kind: Candidate, limit: u32) -> Result<(u64, Vec<i64>), Fault> {
    let taken: Vec<i64> = sqlx::query_scalar(include_str!("sql/take_candidates.sql"))
        .bind(kind.code())
        .bind(i64::from(limit))
        .fetch_all(tx)
        .await?;
    let seen = taken.len() as u64;
    let mut rows = taken;
    rows.sort_unstable();
    rows.dedup();
    Ok((seen, rows))
}

/// Candidates to be looked at again, and when.
#[derive(Default)]
struct Again {
    rows: Vec<i64>,
    waits: Vec<f64>,
}

impl Again {
    fn push(&mut self, row: i64, wait: f64) {
        self.rows.push(row);
        self.waits.push(wait);
    }

    async fn queue(self, tx: &mut Connection, kind: Candidate) -> Result<u64, Fault> {
        if !self.rows.is_empty() {
            sqlx::query(include_str!("sql/put_back.sql"))
                .bind(kind.code())
                .bind(&self.rows)
                .bind(&self.waits)
                .execute(tx)
                .await?;
        }
        Ok(self.rows.len() as u64)
    }
}

/// What a sweep asks.
struct Questions {
    kind: Candidate,
    /// Locks those of the rows that can be swept.
    lock: &'static str,
    /// What the statement asks: how long they must have been left alone, and are when something else is in the way.
    rest: Vec<Duration>,
    /// Which of the rows something refers to.
    held: &'static str,
    /// Which of the rows exist that the lock did not get: somebody holds them.
    exist: &'static str,
}

/// What a sweep found.
struct Victims<T> {
    rows: Vec<T>,
    swept: Swept,
}

impl<T> Victims<T> {
    fn ids(&self) -> Vec<i64>
    where
        T: Locked,
    {
        self.rows.iter().map(Locked::id).collect()
    }
}

impl PostgresStore {
    /// Locks those of the candidates taken that are ripe and that nothing refers to; puts the others back.
    async fn victims<T: Locked>(
        &self,
        tx: &mut Connection,
        asked: &Questions,
        (seen, rows): (u64, Vec<i64>),
    ) -> Result<Victims<T>, Fault> {
        if rows.is_empty() {
            return Ok(Victims { rows: Vec::new(), swept: Swept::default() });
        }
        let mut lock = sqlx::query_as(asked.lock).bind(&rows);
        for rest in &asked.rest {
            lock = lock.bind(seconds(*rest));
        }
        let locked: Vec<T> = lock.fetch_all(&mut *tx).await?;
        let ids: Vec<i64> = locked.iter().map(Locked::id).collect();
        // In a statement after the lock: what somebody did who was quicker is seen.
        let held: Vec<i64> = sqlx::query_scalar(asked.held).bind(&ids).fetch_all(&mut *tx).await?;
        let held: HashSet<i64> = held.into_iter().collect();
        let missed: Vec<i64> = rows.into_iter().filter(|row| !ids.contains(row)).collect();
        let missed: Vec<i64> = sqlx::query_scalar(asked.exist).bind(missed).fetch_all(&mut *tx).await?;
        let mut again = Again::default();
        for row in missed {
            again.push(row, seconds(self.timings.again));
        }
        let (ripe, unripe): (Vec<T>, Vec<T>) =
            locked.into_iter().filter(|row| !held.contains(&row.id())).partition(|row| row.wait() <= 0.0);
        for row in unripe {
            again.push(row.id(), row.wait());
        }
        let again = again.queue(tx, asked.kind).await?;
        let removed = ripe.len() as u64;
        Ok(Victims { rows: ripe, swept: Swept { seen, removed, again } })
    }

    pub(super) async fn try_sweep_links(&self, epoch: Epoch, limit: u32) -> Result<Swept, Fault> {
        let asked = Questions {
            kind: Candidate::Link,
            lock: include_str!("sql/lock_unlinked.sql"),
            rest: vec![self.timings.lease],
            held: include_str!("sql/referenced_links.sql"),
            exist: "SELECT id FROM repo_blobs WHERE id = ANY ($1)",
        };
        let mut tx = self.begin_collecting(epoch).await?;
        let taken = take(&mut tx, asked.kind, limit).await?;
        let victims = self.victims::<LinkColumns>(&mut tx, &asked, taken).await?;
        delete(&mut tx, "DELETE FROM repo_blobs WHERE id = ANY ($1)", &victims.ids()).await?;
        let removals = victims.rows.iter().map(LinkColumns::removal).collect::<Result<Vec<_>, _>>()?;
        queue_all(&mut tx, &removals, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(victims.swept)
    }

    pub(super) async fn try_sweep_blobs(&self, epoch: Epoch, limit: u32) -> Result<Swept, Fault> {
        let asked = Questions {
            kind: Candidate::Blob,
            lock: include_str!("sql/lock_freed.sql"),
            rest: vec![self.timings.blob_grace, self.timings.again],
            held: "SELECT blob_id FROM repo_blobs WHERE blob_id = ANY ($1)",
            exist: "SELECT id FROM blobs WHERE id = ANY ($1)",
        };
        let mut tx = self.begin_collecting(epoch).await?;
        let taken = take(&mut tx, asked.kind, limit).await?;
        let victims = self.victims::<BlobColumns>(&mut tx, &asked, taken).await?;
        delete(&mut tx, "DELETE FROM blobs WHERE id = ANY ($1)", &victims.ids()).await?;
        let mut removals = victims.rows.iter().map(BlobColumns::removal).collect::<Result<Vec<_>, _>>()?;
        removals.retain(|removal| !removal.steps.is_empty());
        queue_all(&mut tx, &removals, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(victims.swept)
    }

    pub(super) async fn try_purge_manifests(&self, epoch: Epoch, limit: u32) -> Result<Swept, Fault> {
        let asked = Questions {
            kind: Candidate::Trashed,
            lock: include_str!("sql/lock_trashed.sql"),
            rest: Vec::new(),
            // Whoever takes its last tag away queues it again.
            held: "SELECT DISTINCT manifest_id FROM tags WHERE manifest_id = ANY ($1)",
            exist: "SELECT id FROM manifests WHERE id = ANY ($1) AND state = 2",
        };
        let mut tx = self.begin_collecting(epoch).await?;
        let taken = take(&mut tx, asked.kind, limit).await?;
        let mut victims = self.victims::<ManifestColumns>(&mut tx, &asked, taken).await?;
        self.put_off_owing(&mut tx, &mut victims).await?;
        delete(&mut tx, "UPDATE manifests SET state = 3 WHERE id = ANY ($1)", &victims.ids()).await?;
        let removals = victims.rows.iter().map(ManifestColumns::removal).collect::<Result<Vec<_>, _>>()?;
        queue_all(&mut tx, &removals, self.timings.tombstone_delay).await?;
        tx.commit().await?;
        Ok(victims.swept)
    }

    /// Puts those off whose evidence is not in the bucket yet.
    async fn put_off_owing(&self, tx: &mut Tx, victims: &mut Victims<ManifestColumns>) -> Result<(), Fault> {
        let owing: Vec<i64> = sqlx::query_scalar(include_str!("sql/owing_manifests.sql"))
            .bind(victims.ids())
            .fetch_all(&mut **tx)
            .await?;
        let mut again = Again::default();
        for row in &owing {
            again.push(*row, seconds(self.timings.again));
        }
        let put_off = again.queue(&mut *tx, Candidate::Trashed).await?;
        victims.rows.retain(|row| !owing.contains(&row.id));
        victims.swept.again += put_off;
        victims.swept.removed -= put_off;
        Ok(())
    }

    pub(super) async fn try_sweep_manifests(
        &self,
        epoch: Epoch,
        retain: Option<Duration>,
        limit: u32,
    ) -> Result<Swept, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let taken = take(&mut tx, Candidate::Manifest, limit).await?;
        let Some(retain) = retain else {
            let (seen, rows) = taken;
            queue_trashed(&mut tx, &rows).await?;
            tx.commit().await?;
            return Ok(Swept { seen, ..Swept::default() });
        };
        let asked = untagged(self.timings.lease);
        let rows = taken.1.clone();
        let victims = self.victims::<ManifestColumns>(&mut tx, &asked, taken).await?;
        // After it was decided which of them are live.
        queue_trashed(&mut tx, &rows).await?;
        trash(&mut tx, &victims, retain).await?;
        tx.commit().await?;
        Ok(victims.swept)
    }

    /// The same of manifests that somebody names, and that have rested for longer than a lease.
    pub(super) async fn try_trash_untagged(
        &self,
        epoch: Epoch,
        manifests: &[ManifestId],
        rest: Duration,
        retain: Duration,
    ) -> Result<u64, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let mut rows: Vec<i64> = manifests.iter().map(|ManifestId(id)| *id).collect();
        rows.sort_unstable();
        let asked = untagged(rest.max(self.timings.lease));
        let victims = self.victims::<ManifestColumns>(&mut tx, &asked, (rows.len() as u64, rows)).await?;
        trash(&mut tx, &victims, retain).await?;
        tx.commit().await?;
        Ok(victims.swept.removed)
    }
}

/// Live manifests that nothing holds.
fn untagged(rest: Duration) -> Questions {
    Questions {
        kind: Candidate::Manifest,
        lock: include_str!("sql/lock_untagged.sql"),
        rest: vec![rest],
        held: include_str!("sql/held_manifests.sql"),
        exist: "SELECT id FROM manifests WHERE id = ANY ($1) AND state = 1",
    }
}

/// Puts manifests into the trash, and queues their markers.
async fn trash(
    tx: &mut Connection,
    victims: &Victims<ManifestColumns>,
    retain: Duration,
) -> Result<(), Fault> {
    for id in victims.ids() {
        sqlx::query(include_str!("sql/trash_manifest.sql"))
            .bind(id)
            .bind(seconds(retain))
            .execute(&mut *tx)
            .await?;
    }
    let markers = victims.rows.iter().map(ManifestColumns::marker).collect::<Result<Vec<_>, _>>()?;
    queue_all(&mut *tx, &markers, Duration::ZERO).await?;
    candidates(tx, Candidate::Trashed, &victims.ids(), retain).await?;
    Ok(())
}

/// A manifest that lost a tag can have gone to the trash before, or meanwhile.
async fn queue_trashed(tx: &mut Connection, rows: &[i64]) -> Result<(), Fault> {
    if !rows.is_empty() {
        sqlx::query(include_str!("sql/queue_trashed.sql")).bind(rows).execute(tx).await?;
    }
    Ok(())
}

async fn delete(tx: &mut Connection, statement: &'static str, ids: &[i64]) -> Result<(), Fault> {
    if !ids.is_empty() {
        sqlx::query(statement).bind(ids).execute(tx).await?;
    }
    Ok(())
}
