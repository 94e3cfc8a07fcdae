// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploads. Every change names the token of the lease, so that a request that lost it changes nothing.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::types::Json;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::error::Fault;
use super::queue::Removals;
use super::tx::{Connection, read, write};
use super::{PostgresStore, row, seconds};
use crate::key::{Generation, Part};
use crate::meta::steps::Leftovers;
use crate::meta::{
    BlobCommit, CancelOutcome, CommitOutcome, Epoch, Error, LeaseOutcome, LeasedUpload, Mount, Multipart,
    NewUpload, Plan, Progress, Receive, Tail, UploadKey,
};

#[derive(sqlx::FromRow)]
struct UploadColumns {
    repo_id: i32,
    generation: Uuid,
    lease: i32,
    multipart_id: Option<String>,
    part_size: Option<i64>,
    parts: Json<Vec<Part>>,
    spec: Option<Json<Part>>,
    off: i64,
    alg: i16,
    hash: Vec<u8>,
    tails: Vec<i32>,
    tail_sizes: Vec<i64>,
    restored: bool,
    #[sqlx(flatten)]
    plan: PlanColumns,
}

#[derive(sqlx::FromRow)]
#[expect(clippy::struct_field_names, reason = "named as the columns")]
struct PlanColumns {
    plan_digest: Option<Vec<u8>>,
    plan_form: Option<i16>,
    plan_tail: Option<i32>,
    plan_size: Option<i64>,
}

impl PlanColumns {
    fn read(self) -> Result<Option<Plan>, Error> {
        let (Some(digest), Some(form), Some(size)) = (self.plan_digest, self.plan_form, self.plan_size)
        else {
            return Ok(None);
        };
        Ok(Some(Plan {
            digest: row::digest("uploads", &digest)?,
            form: row::form("uploads", form, self.plan_tail)?,
            size: row::number("uploads", size)?,
        }))
    }
}

impl UploadColumns {
    fn read(self, id: Uuid) -> Result<LeasedUpload, Error> {
        let tails = self.tails.into_iter().zip(self.tail_sizes).map(|(lease, size)| {
            Ok(Tail { lease: row::number("uploads", lease)?, size: row::number("uploads", size)? })
        });
        let progress = Progress {
            offset: row::number("uploads", self.off)?,
            parts: self.parts.0,
            spec: self.spec.map(|Json(part)| part),
            hash: self.hash,
            tails: tails.collect::<Result<_, Error>>()?,
        };
        Ok(LeasedUpload {
            id,
            repository: self.repo_id,
            generation: Generation::from_uuid(self.generation),
            restored: self.restored,
            lease: row::number("uploads", self.lease)?,
            multipart: multipart(self.multipart_id, self.part_size)?,
            progress,
            algorithm: row::algorithm("uploads", self.alg)?,
            plan: self.plan.read()?,
        })
    }
}

fn multipart(id: Option<String>, part_size: Option<i64>) -> Result<Option<Multipart>, Error> {
    id.zip(part_size)
        .map(|(id, part_size)| Ok(Multipart { id, part_size: row::number("uploads", part_size)? }))
        .transpose()
}

/// The columns of progress, as statements take them.
struct ProgressColumns {
    off: i64,
    parts: Json<Vec<Part>>,
    spec: Option<Json<Part>>,
    hash: Vec<u8>,
    tails: Vec<i32>,
    tail_sizes: Vec<i64>,
}

impl ProgressColumns {
    fn of(progress: &Progress) -> Result<Self, Error> {
        let tails = &progress.tails;
        Ok(Self {
            off: row::stored(progress.offset)?,
            parts: Json(progress.parts.clone()),
            spec: progress.spec.clone().map(Json),
            hash: progress.hash.clone(),
            tails: tails.iter().map(|tail| row::stored_small(tail.lease)).collect::<Result<_, _>>()?,
            tail_sizes: tails.iter().map(|tail| row::stored(tail.size)).collect::<Result<_, _>>()?,
        })
    }
}

/// An upload that ends or starts anew, its row locked.
#[derive(sqlx::FromRow)]
struct EndingColumns {
    name: String,
    generation: Uuid,
    lease: i32,
    held: bool,
    multipart_id: Option<String>,
    leases: Vec<i32>,
    #[sqlx(flatten)]
    plan: PlanColumns,
    live_form: Option<i16>,
    live_tail: Option<i32>,
    linked: bool,
}

impl EndingColumns {
    fn read(self) -> Result<Leftovers, Error> {
        let name: Name = row::parsed("repositories", &self.name)?;
        // A request that holds it, or died holding it, may have staged something.
        let current = self.held.then_some(self.lease);
        let leases = self.leases.into_iter().chain(current).map(|lease| row::number("uploads", lease));
        let kept = match self.live_form {
            Some(form) => row::form("blobs", form, self.live_tail)?,
            None => None,
        };
        Ok(Leftovers {
            generation: Generation::from_uuid(self.generation),
            multipart: self.multipart_id,
            leases: leases.collect::<Result<_, _>>()?,
            plan: self.plan.read()?.map(|plan| (name, plan)),
            kept,
            linked: self.linked,
        })
    }
}

/// Locks the upload; what it may have left. `None` for `token`: nobody holds it.
pub(super) async fn lock_ending(
    tx: &mut Connection,
    id: Uuid,
    token: Option<Uuid>,
) -> Result<Option<Leftovers>, Fault> {
    let lock = sqlx::query(include_str!("sql/lock_upload.sql")).bind(id).bind(token);
    if lock.fetch_optional(&mut *tx).await?.is_none() {
        return Ok(None);
    }
    // In a statement after the lock: who compared the bucket with the database may have adopted it.
    let ending: EndingColumns =
        sqlx::query_as(include_str!("sql/ending_upload.sql")).bind(id).fetch_one(tx).await?;
    Ok(Some(ending.read()?))
}

/// The row of a repository; makes it if need be.
pub(super) async fn ensure_repository(tx: &mut Connection, name: &Name) -> Result<i32, Fault> {
    loop {
        if let Some(id) = repository(&mut *tx, name).await? {
            return Ok(id);
        }
        // Looked for first, as a refused INSERT would use up an id.
        sqlx::query("INSERT INTO repositories (name) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(name.as_str())
            .execute(&mut *tx)
            .await?;
    }
}

pub(super) async fn repository(tx: &mut Connection, name: &Name) -> Result<Option<i32>, sqlx::Error> {
    let statement = sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1").bind(name.as_str());
    statement.fetch_optional(tx).await
}

impl PostgresStore {
    async fn insert_upload(
        &self,
        upload: &NewUpload,
        expiry: Duration,
        limit: u32,
    ) -> Result<Option<Uuid>, Fault> {
        let statement = sqlx::query_as(include_str!("sql/open_upload.sql"))
            .bind(Uuid::new_v4())
            .bind(upload.repository.as_str())
            .bind(&upload.principal)
            .bind(upload.generation.to_uuid())
            .bind(i16::from(upload.algorithm.code()))
            .bind(seconds(expiry))
            .bind(i64::from(limit));
        let opened: Option<(Uuid,)> = self.row(statement).await?;
        Ok(opened.map(|(id,)| id))
    }

    async fn try_open(
        &self,
        upload: &NewUpload,
        expiry: Duration,
        limit: u32,
    ) -> Result<Option<Uuid>, Fault> {
        if let Some(id) = self.insert_upload(upload, expiry, limit).await? {
            return Ok(Some(id));
        }
        // Too many uploads, or there was no such repository: only the second attempt tells.
        let mut connection = self.lend().await?;
        ensure_repository(&mut connection, &upload.repository).await?;
        connection.give_back();
        self.insert_upload(upload, expiry, limit).await
    }

    async fn try_lease(&self, key: &UploadKey, token: Uuid) -> Result<Option<UploadColumns>, Fault> {
        let statement = sqlx::query_as(include_str!("sql/lease_upload.sql"))
            .bind(key.id)
            .bind(key.repository.as_str())
            .bind(&key.principal)
            .bind(token)
            .bind(seconds(self.timings.upload_lease));
        self.row(statement).await
    }

    async fn try_restart(&self, id: Uuid, token: Uuid, generation: Generation) -> Result<bool, Fault> {
        let mut tx = self.begin().await?;
        match lock_ending(&mut tx, id, Some(token)).await? {
            Some(left) if left.plan.is_none() => self.queue_leftovers(&mut tx, &left).await?,
            _ => return tx.undo(false).await,
        }
        sqlx::query(include_str!("sql/restart_upload.sql"))
            .bind(id)
            .bind(generation.to_uuid())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn try_drop(&self, id: Uuid, token: Uuid) -> Result<bool, Fault> {
        let mut tx = self.begin().await?;
        let Some(left) = lock_ending(&mut tx, id, Some(token)).await? else { return tx.undo(false).await };
        self.end_upload(&mut tx, id, &left).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn queue_leftovers(&self, tx: &mut Connection, left: &Leftovers) -> Result<(), Fault> {
        Ok(Removals::from(left.steps()).queue_any(tx, self.timings.tombstone_delay).await?)
    }

    /// Ends an upload, whose row is locked, and queues what it left.
    pub(super) async fn end_upload(
        &self,
        tx: &mut Connection,
        id: Uuid,
        left: &Leftovers,
    ) -> Result<(), Fault> {
        self.queue_leftovers(&mut *tx, left).await?;
        sqlx::query("DELETE FROM uploads WHERE id = $1").bind(id).execute(tx).await?;
        Ok(())
    }

    async fn try_cancel(&self, key: &UploadKey) -> Result<CancelOutcome, Fault> {
        let mut tx = self.begin().await?;
        let statement = sqlx::query_as(include_str!("sql/lock_cancelled.sql"))
            .bind(key.id)
            .bind(key.repository.as_str())
            .bind(&key.principal);
        let token: Option<Uuid> = match statement.fetch_optional(&mut *tx).await? {
            None => return tx.undo(CancelOutcome::Unknown).await,
            Some((true, _)) => return tx.undo(CancelOutcome::Busy).await,
            Some((false, token)) => token,
        };
        let Some(left) = lock_ending(&mut tx, key.id, token).await? else {
            return tx.undo(CancelOutcome::Unknown).await;
        };
        self.end_upload(&mut tx, key.id, &left).await?;
        tx.commit().await?;
        Ok(CancelOutcome::Cancelled)
    }
}

#[async_trait]
impl Receive for PostgresStore {
    /// Counts before it inserts, without a lock: requests that come at the same moment may exceed the limit.
    async fn open_upload(
        &self,
        upload: &NewUpload,
        expiry: Duration,
        limit: u32,
    ) -> Result<Option<Uuid>, Error> {
        write(|| self.try_open(upload, expiry, limit)).await
    }

    async fn upload_offset(&self, key: &UploadKey) -> Result<Option<u64>, Error> {
        let statement = sqlx::query_as(include_str!("sql/upload_offset.sql"))
            .bind(key.id)
            .bind(key.repository.as_str())
            .bind(&key.principal);
        let offset: Option<(i64,)> = read(self.row(statement)).await?;
        offset.map(|(offset,)| row::number("uploads", offset)).transpose()
    }

    async fn lease_upload(&self, key: &UploadKey, token: Uuid) -> Result<LeaseOutcome, Error> {
        if let Some(upload) = write(|| self.try_lease(key, token)).await? {
            return Ok(LeaseOutcome::Leased(Box::new(upload.read(key.id)?)));
        }
        Ok(match self.upload_offset(key).await? {
            Some(offset) => LeaseOutcome::Busy { offset },
            None => LeaseOutcome::Unknown,
        })
    }

    async fn extend_lease(&self, id: Uuid, token: Uuid) -> Result<bool, Error> {
        self.write_one(|| {
            sqlx::query(include_str!("sql/extend_lease.sql"))
                .bind(id)
                .bind(token)
                .bind(seconds(self.timings.upload_lease))
        })
        .await
    }

    async fn release_upload(&self, id: Uuid, token: Uuid) -> Result<(), Error> {
        self.run(|| sqlx::query(include_str!("sql/release_upload.sql")).bind(id).bind(token)).await
    }

    async fn restart_upload(&self, id: Uuid, token: Uuid, generation: Generation) -> Result<bool, Error> {
        write(|| self.try_restart(id, token, generation)).await
    }

    async fn record_multipart(&self, id: Uuid, token: Uuid, multipart: &Multipart) -> Result<bool, Error> {
        let part_size = row::stored(multipart.part_size)?;
        self.write_one(|| {
            sqlx::query(include_str!("sql/record_multipart.sql"))
                .bind(id)
                .bind(token)
                .bind(&multipart.id)
                .bind(part_size)
        })
        .await
    }

    async fn store_progress(&self, id: Uuid, token: Uuid, progress: &Progress) -> Result<bool, Error> {
        let columns = ProgressColumns::of(progress)?;
        self.write_one(|| {
            sqlx::query(include_str!("sql/store_progress.sql"))
                .bind(id)
                .bind(token)
                .bind(columns.off)
                .bind(&columns.parts)
                .bind(&columns.spec)
                .bind(&columns.hash)
                .bind(&columns.tails)
                .bind(&columns.tail_sizes)
        })
        .await
    }

    async fn record_plan(
        &self,
        id: Uuid,
        token: Uuid,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<bool, Error> {
        let columns = ProgressColumns::of(progress)?;
        let (form, tail) = row::plan_columns(plan.form)?;
        let size = row::stored(plan.size)?;
        self.write_one(|| {
            sqlx::query(include_str!("sql/record_plan.sql"))
                .bind(id)
                .bind(token)
                .bind(columns.off)
                .bind(&columns.parts)
                .bind(&columns.spec)
                .bind(&columns.hash)
                .bind(&columns.tails)
                .bind(&columns.tail_sizes)
                .bind(plan.digest.to_bytes())
                .bind(form)
                .bind(tail)
                .bind(size)
        })
        .await
    }

    async fn plan_paused(&self, id: Uuid, lease: u32, token: Uuid, plan: &Plan) -> Result<bool, Error> {
        let (form, tail) = row::plan_columns(plan.form)?;
        let (lease, size) = (row::stored_small(lease)?, row::stored(plan.size)?);
        self.write_one(|| {
            sqlx::query(include_str!("sql/plan_paused.sql"))
                .bind(id)
                .bind(lease)
                .bind(token)
                .bind(seconds(self.timings.upload_lease))
                .bind(plan.digest.to_bytes())
                .bind(form)
                .bind(tail)
                .bind(size)
        })
        .await
    }

    async fn drop_upload(&self, id: Uuid, token: Uuid) -> Result<bool, Error> {
        write(|| self.try_drop(id, token)).await
    }

    async fn cancel_upload(&self, key: &UploadKey) -> Result<CancelOutcome, Error> {
        write(|| self.try_cancel(key)).await
    }

    async fn touch_stored(&self, digest: &Digest) -> Result<bool, Error> {
        write(|| async {
            let statement = sqlx::query_as(include_str!("sql/touch_stored.sql"))
                .bind(digest.to_bytes())
                .bind(seconds(self.timings.blob_grace / 6));
            let stored: Option<(bool,)> = self.row(statement).await?;
            Ok(stored == Some((true,)))
        })
        .await
    }

    async fn commit_blob(&self, epoch: Epoch, commit: &BlobCommit) -> Result<CommitOutcome, Error> {
        write(|| self.try_commit(epoch, commit)).await
    }

    async fn begin_mount(
        &self,
        epoch: Epoch,
        from: &Name,
        to: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error> {
        write(|| self.try_begin_mount(epoch, Some(from), to, *digest, generation)).await
    }

    async fn finish_mount(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Error> {
        write(|| self.try_finish_mount(epoch, mount)).await
    }
}
