// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The sweeps: manifests, links, blobs. Each takes candidates from the queue and looks for references. There is
//! one writer, so nobody can come in between. Nothing is flushed: what is decided is done when it is taken out of
//! the outbox, which flushes all that came before.

use std::time::Duration;

use sqlx::FromRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{digest as digest_column, form, micros, parsed, to_json, unreadable};
use crate::key::{Generation, Key};
use crate::meta::steps::{remove_absent, remove_blob, remove_link, withdraw_manifest, write};
use crate::meta::{Candidate, Epoch, Error, Location, ManifestId, Swept};

/// A candidate that exists.
trait Judged: for<'r> FromRow<'r, SqliteRow> + Send + Unpin {
    fn id(&self) -> i64;
    /// How long until it is ripe, in microseconds; not positive: it is.
    fn wait(&self) -> i64;
    /// Whether something refers to it.
    fn held(&self) -> bool;
}

#[derive(sqlx::FromRow)]
struct LinkColumns {
    id: i64,
    repository: String,
    digest: Vec<u8>,
    r#gen: Option<Uuid>,
    blob_id: i64,
    wait: i64,
    held: bool,
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    id: i64,
    digest: Vec<u8>,
    size: i64,
    r#gen: Option<Uuid>,
    form: i64,
    tail: Option<u32>,
    wait: i64,
    held: bool,
}

#[derive(sqlx::FromRow)]
struct ManifestColumns {
    id: i64,
    repository: String,
    digest: Vec<u8>,
    subject: Option<Vec<u8>>,
    r#gen: Uuid,
    wait: i64,
    held: bool,
}

macro_rules! judged {
    ($($columns:ident),*) => {
        $(impl Judged for $columns {
            fn id(&self) -> i64 {
                self.id
            }

            fn wait(&self) -> i64 {
                self.wait
            }

            fn held(&self) -> bool {
                self.held
            }
        })*
    };
}

judged!(LinkColumns, BlobColumns, ManifestColumns);

impl LinkColumns {
    /// A hidden link has no record, but the blob may be a candidate all the same.
    fn removal(&self) -> Result<Owed, Error> {
        let repository = parsed("repositories", &self.repository)?;
        let digest = digest_column("repo_blobs", &self.digest)?;
        let record = self.r#gen.map(Generation::from_uuid);
        let steps = record.map(|record| remove_link(&repository, digest, record)).into_iter().collect();
        Ok(Owed { steps, then: Some(Candidate::Blob), about: Some(self.blob_id), ..Owed::default() })
    }
}

impl BlobColumns {
    fn removal(&self) -> Result<Owed, Error> {
        let digest = digest_column("blobs", &self.digest)?;
        let Some(generation) = self.r#gen.map(Generation::from_uuid) else { return Ok(Owed::default()) };
        let size = u64::try_from(self.size).map_err(|error| unreadable("blobs", error))?;
        let steps = match form("blobs", self.form, self.tail)? {
            Some(form) => remove_blob(digest, &Location { generation, form, size }),
            None => remove_absent(digest, generation, size, self.tail),
        };
        Ok(Owed { steps, ..Owed::default() })
    }
}

impl ManifestColumns {
    fn removal(&self) -> Result<Owed, Error> {
        let repository = parsed("repositories", &self.repository)?;
        let subject = self.subject.as_deref().map(|bytes| digest_column("manifests", bytes)).transpose()?;
        let digest = digest_column("manifests", &self.digest)?;
        let steps = withdraw_manifest(&repository, digest, subject, Generation::from_uuid(self.r#gen));
        Ok(Owed { steps, then: Some(Candidate::Manifest), about: Some(self.id), ..Owed::default() })
    }

    fn marker(&self) -> Result<Owed, Error> {
        let key = Key::ManifestDeleted {
            repository: parsed("repositories", &self.repository)?,
            digest: digest_column("manifests", &self.digest)?,
            generation: Generation::from_uuid(self.r#gen),
        };
        Ok(Owed { steps: vec![write(&key)], about: Some(self.id), ..Owed::default() })
    }
}

impl Tx<'_> {
    /// Takes due candidates from the queue, each once.
    async fn take_candidates(&mut self, kind: Candidate, limit: u32) -> Result<(u64, Vec<i64>), Error> {
        let take = sqlx::query_as(include_str!("sql/take_candidates.sql")).bind(kind.code()).bind(limit);
        let taken: Vec<(i64,)> = self.all(take).await?;
        let seen = taken.len() as u64;
        let mut rows: Vec<i64> = taken.into_iter().map(|(row,)| row).collect();
        rows.sort_unstable();
        rows.dedup();
        Ok((seen, rows))
    }

    /// Those of the candidates taken that are ripe and that nothing refers to; puts back what is not ripe.
    async fn victims<T: Judged>(
        &mut self,
        kind: Candidate,
        judge: &'static str,
        rest: &[Duration],
        (seen, rows): &(u64, Vec<i64>),
    ) -> Result<(Vec<T>, Swept), Error> {
        let mut judge = sqlx::query_as(judge).bind(to_json(rows));
        for rest in rest {
            judge = judge.bind(micros(*rest));
        }
        let judged: Vec<T> = self.all(judge).await?;
        let (ripe, unripe): (Vec<T>, Vec<T>) =
            judged.into_iter().filter(|row| !row.held()).partition(|row| row.wait() <= 0);
        if !unripe.is_empty() {
            let rows: Vec<(i64, i64)> = unripe.iter().map(|row| (row.id(), row.wait())).collect();
            let put_back = sqlx::query(include_str!("sql/put_back.sql"));
            self.run(put_back.bind(kind.code()).bind(to_json(&rows))).await?;
        }
        let swept = Swept { seen: *seen, removed: ripe.len() as u64, again: unripe.len() as u64 };
        Ok((ripe, swept))
    }

    /// Puts manifests into the trash, and queues their markers.
    async fn trash(&mut self, rows: &[ManifestColumns], retain: Duration) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let trash = sqlx::query(include_str!("sql/delete_manifests.sql"));
        self.run(trash.bind(ids(rows)).bind(micros(retain))).await?;
        let markers = rows.iter().map(ManifestColumns::marker).collect::<Result<Vec<_>, _>>()?;
        self.owe_all(&markers, Duration::ZERO).await?;
        let rows: Vec<i64> = rows.iter().map(Judged::id).collect();
        self.candidates(Candidate::Trashed, &rows, retain).await
    }

    /// Runs a statement over rows that were judged.
    async fn over<T: Judged>(&mut self, statement: &'static str, rows: &[T]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.run(sqlx::query(statement).bind(ids(rows))).await.map(drop)
    }
}

fn ids<T: Judged>(rows: &[T]) -> String {
    to_json(&rows.iter().map(Judged::id).collect::<Vec<_>>())
}

impl SqliteStore {
    pub(super) async fn collect_links(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let judge = include_str!("sql/candidate_links.sql");
        let taken = tx.take_candidates(Candidate::Link, limit).await?;
        let (rows, swept) =
            tx.victims::<LinkColumns>(Candidate::Link, judge, &[self.timings.lease], &taken).await?;
        tx.over("DELETE FROM repo_blobs WHERE id IN (SELECT value FROM json_each(?1))", &rows).await?;
        let owed = rows.iter().map(LinkColumns::removal).collect::<Result<Vec<_>, _>>()?;
        tx.owe_all(&owed, self.timings.tombstone_delay).await?;
        tx.commit_unflushed().await?;
        Ok(swept)
    }

    pub(super) async fn collect_blobs(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let judge = include_str!("sql/candidate_blobs.sql");
        let taken = tx.take_candidates(Candidate::Blob, limit).await?;
        let (rows, swept) = tx
            .victims::<BlobColumns>(
                Candidate::Blob,
                judge,
                &[self.timings.blob_grace, self.timings.again],
                &taken,
            )
            .await?;
        tx.over("DELETE FROM blobs WHERE id IN (SELECT value FROM json_each(?1))", &rows).await?;
        let mut owed = rows.iter().map(BlobColumns::removal).collect::<Result<Vec<_>, _>>()?;
        owed.retain(|owed| !owed.steps.is_empty());
        tx.owe_all(&owed, self.timings.tombstone_delay).await?;
        tx.commit_unflushed().await?;
        Ok(swept)
    }

    pub(super) async fn collect_trashed(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let judge = include_str!("sql/candidate_trashed.sql");
        let taken = tx.take_candidates(Candidate::Trashed, limit).await?;
        let (rows, swept) =
            tx.victims::<ManifestColumns>(Candidate::Trashed, judge, &[self.timings.again], &taken).await?;
        tx.over("UPDATE manifests SET state = 3 WHERE id IN (SELECT value FROM json_each(?1))", &rows)
            .await?;
        let owed = rows.iter().map(ManifestColumns::removal).collect::<Result<Vec<_>, _>>()?;
        tx.owe_all(&owed, self.timings.tombstone_delay).await?;
        tx.commit_unflushed().await?;
        Ok(swept)
    }

    pub(super) async fn collect_manifests(
        &self,
        epoch: Epoch,
        retain: Option<Duration>,
        limit: u32,
    ) -> Result<Swept, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let taken = tx.take_candidates(Candidate::Manifest, limit).await?;
        // A manifest that lost a tag can have gone to the trash before, or meanwhile.
        tx.run(sqlx::query(include_str!("sql/queue_trashed.sql")).bind(to_json(&taken.1))).await?;
        let Some(retain) = retain else {
            tx.commit_unflushed().await?;
            return Ok(Swept { seen: taken.0, ..Swept::default() });
        };
        let judge = include_str!("sql/candidate_manifests.sql");
        let (rows, swept) =
            tx.victims::<ManifestColumns>(Candidate::Manifest, judge, &[self.timings.lease], &taken).await?;
        tx.trash(&rows, retain).await?;
        tx.commit_unflushed().await?;
        Ok(swept)
    }

    /// The same of manifests that somebody names, and that have rested for longer than a lease.
    pub(super) async fn collect_untagged(
        &self,
        epoch: Epoch,
        manifests: &[ManifestId],
        rest: Duration,
        retain: Duration,
    ) -> Result<u64, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let rows: Vec<i64> = manifests.iter().map(|ManifestId(id)| *id).collect();
        let judge = include_str!("sql/candidate_manifests.sql");
        let rest = rest.max(self.timings.lease);
        let taken = (rows.len() as u64, rows);
        let (rows, swept) =
            tx.victims::<ManifestColumns>(Candidate::Manifest, judge, &[rest], &taken).await?;
        tx.trash(&rows, retain).await?;
        tx.commit_unflushed().await?;
        Ok(swept.removed)
    }
}
