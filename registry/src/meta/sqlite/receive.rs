// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploads, until they are published or end. Only who shows the token of the last lease changes one.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Sqlite;
use sqlx::query::{Query, QueryAs};
use sqlx::sqlite::SqliteArguments;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::SqliteStore;
use super::tx::Tx;
use super::uploads::{Ended, EndedColumns, LeasedColumns};
use super::values::{form, integer, micros, plan_columns, to_json, unreadable};
use crate::key::{Form, Generation};
use crate::meta::{
    BlobCommit, CancelOutcome, CommitOutcome, Epoch, Error, LeaseOutcome, Mount, Multipart, NewUpload, Plan,
    Progress, Receive, UploadKey,
};

type Statement = Query<'static, Sqlite, SqliteArguments>;

fn bind_progress(query: Statement, progress: &Progress) -> Statement {
    query
        .bind(integer(progress.offset))
        .bind(to_json(&progress.parts))
        .bind(progress.spec.as_ref().map(to_json))
        .bind(progress.hash.clone())
        .bind(to_json(&progress.tails))
}

/// The offset of an upload as its client may see it.
fn offset_query<T>(key: &UploadKey) -> QueryAs<'static, Sqlite, T, SqliteArguments>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>,
{
    sqlx::query_as(include_str!("sql/upload_offset.sql"))
        .bind(key.id)
        .bind(key.repository.to_string())
        .bind(key.principal.clone())
}

fn offset(column: i64) -> Result<u64, Error> {
    u64::try_from(column).map_err(|error| unreadable("uploads", error))
}

impl Tx<'_> {
    /// Deletes an upload that the token holds.
    pub(super) async fn end_upload(&mut self, id: Uuid, token: Uuid) -> Result<Option<Ended>, Error> {
        let delete = sqlx::query_as(include_str!("sql/end_upload.sql")).bind(id).bind(token);
        self.one::<EndedColumns>(delete).await?.map(EndedColumns::into_ended).transpose()
    }

    /// Removes what an upload left, but what is live by now.
    pub(super) async fn leftovers(&mut self, ended: &Ended) -> Result<Vec<String>, Error> {
        let select = sqlx::query_as(include_str!("sql/live_of_upload.sql"))
            .bind(ended.generation.to_uuid())
            .bind(ended.repository_id)
            .bind(ended.planned().map(|digest| digest.to_bytes()));
        let (form_column, tail, linked): (i64, Option<u32>, bool) = self.single(select).await?;
        let kept = form("blobs", form_column, tail)?;
        Ok(ended.leftovers(kept, linked).steps())
    }

    /// Queues what an upload left.
    pub(super) async fn discard_upload(&mut self, ended: &Ended, after: Duration) -> Result<(), Error> {
        let steps = self.leftovers(ended).await?;
        self.discard(steps, after).await
    }
}

impl SqliteStore {
    async fn record(&self, plan: &Plan, update: Statement) -> Result<bool, Error> {
        let recorded = match plan.form {
            // Carrying it out takes the parts away: without the plan the upload could not go on.
            Some(Form::Upload) => self.writer.run(update).await?,
            Some(Form::Tail(_) | Form::Inline) | None => self.writer.note(update).await?,
        };
        Ok(recorded > 0)
    }
}

#[async_trait]
impl Receive for SqliteStore {
    async fn open_upload(
        &self,
        upload: &NewUpload,
        expiry: Duration,
        limit: u32,
    ) -> Result<Option<Uuid>, Error> {
        let mut tx = self.writer.begin().await?;
        let repository = tx.repository(&upload.repository).await?;
        let id = Uuid::new_v4();
        let insert = sqlx::query(include_str!("sql/open_upload.sql"))
            .bind(id)
            .bind(repository)
            .bind(upload.principal.as_str())
            .bind(upload.generation.to_uuid())
            .bind(upload.algorithm.code())
            .bind(micros(expiry))
            .bind(limit);
        if tx.run(insert).await? == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        tx.commit_unflushed().await?;
        Ok(Some(id))
    }

    async fn upload_offset(&self, key: &UploadKey) -> Result<Option<u64>, Error> {
        let row: Option<(i64,)> = self.readers.one(offset_query(key)).await?;
        row.map(|(column,)| offset(column)).transpose()
    }

    async fn lease_upload(&self, key: &UploadKey, token: Uuid) -> Result<LeaseOutcome, Error> {
        let mut tx = self.writer.begin().await?;
        let update = sqlx::query_as(include_str!("sql/lease_upload.sql"))
            .bind(key.id)
            .bind(key.repository.as_str())
            .bind(key.principal.as_str())
            .bind(token)
            .bind(micros(self.timings.upload_lease))
            .bind(self.lock.fence);
        let outcome = if let Some(columns) = tx.one::<LeasedColumns>(update).await? {
            LeaseOutcome::Leased(Box::new(columns.into_upload()?))
        } else if let Some((column,)) = tx.one::<(i64,)>(offset_query(key)).await? {
            LeaseOutcome::Busy { offset: offset(column)? }
        } else {
            LeaseOutcome::Unknown
        };
        tx.commit_unflushed().await?;
        Ok(outcome)
    }

    async fn extend_lease(&self, id: Uuid, token: Uuid) -> Result<bool, Error> {
        let update = "UPDATE uploads SET lock_until = (SELECT now FROM clock) + ?3
                      WHERE id = ?1 AND lock_token = ?2";
        let lease = micros(self.timings.upload_lease);
        Ok(self.writer.note(sqlx::query(update).bind(id).bind(token).bind(lease)).await? > 0)
    }

    async fn release_upload(&self, id: Uuid, token: Uuid) -> Result<(), Error> {
        let update = "UPDATE uploads SET lock_token = NULL, lock_until = NULL
                      WHERE id = ?1 AND lock_token = ?2";
        self.writer.note(sqlx::query(update).bind(id).bind(token)).await?;
        Ok(())
    }

    async fn restart_upload(&self, id: Uuid, token: Uuid, generation: Generation) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let select = sqlx::query_as(include_str!("sql/upload_to_restart.sql")).bind(id).bind(token);
        let Some(old) = tx.one::<EndedColumns>(select).await? else {
            tx.rollback().await?;
            return Ok(false);
        };
        tx.discard_upload(&old.into_ended()?, self.timings.tombstone_delay).await?;
        let update = sqlx::query(include_str!("sql/restart_upload.sql"))
            .bind(id)
            .bind(token)
            .bind(generation.to_uuid());
        tx.run(update).await?;
        tx.commit_unflushed().await?;
        Ok(true)
    }

    async fn record_multipart(&self, id: Uuid, token: Uuid, multipart: &Multipart) -> Result<bool, Error> {
        let update = "UPDATE uploads SET multipart_id = ?3, part_size = ?4
                      WHERE id = ?1 AND lock_token = ?2 AND plan_digest IS NULL
                        AND coalesce(multipart_id, ?3) = ?3";
        let query = sqlx::query(update)
            .bind(id)
            .bind(token)
            .bind(multipart.id.as_str())
            .bind(integer(multipart.part_size));
        Ok(self.writer.note(query).await? > 0)
    }

    async fn store_progress(&self, id: Uuid, token: Uuid, progress: &Progress) -> Result<bool, Error> {
        let update = sqlx::query(include_str!("sql/store_progress.sql")).bind(id).bind(token);
        Ok(self.writer.run(bind_progress(update, progress)).await? > 0)
    }

    async fn record_plan(
        &self,
        id: Uuid,
        token: Uuid,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<bool, Error> {
        let (form, tail) = plan_columns(plan.form);
        let update = sqlx::query(include_str!("sql/record_plan.sql")).bind(id).bind(token);
        let update = bind_progress(update, progress)
            .bind(plan.digest.to_bytes())
            .bind(form)
            .bind(tail)
            .bind(integer(plan.size));
        self.record(plan, update).await
    }

    async fn plan_paused(&self, id: Uuid, lease: u32, token: Uuid, plan: &Plan) -> Result<bool, Error> {
        let (form, tail) = plan_columns(plan.form);
        let update = sqlx::query(include_str!("sql/plan_paused.sql"))
            .bind(id)
            .bind(lease)
            .bind(token)
            .bind(micros(self.timings.upload_lease))
            .bind(plan.digest.to_bytes())
            .bind(form)
            .bind(tail)
            .bind(integer(plan.size))
            .bind(self.lock.fence);
        self.record(plan, update).await
    }

    async fn drop_upload(&self, id: Uuid, token: Uuid) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let ended = tx.end_upload(id, token).await?;
        if let Some(ended) = &ended {
            tx.discard_upload(ended, self.timings.tombstone_delay).await?;
        }
        tx.commit_unflushed().await?;
        Ok(ended.is_some())
    }

    async fn cancel_upload(&self, key: &UploadKey) -> Result<CancelOutcome, Error> {
        let mut tx = self.writer.begin().await?;
        let delete = sqlx::query_as(include_str!("sql/cancel_upload.sql"))
            .bind(key.id)
            .bind(key.repository.as_str())
            .bind(key.principal.as_str());
        let outcome = if let Some(columns) = tx.one::<EndedColumns>(delete).await? {
            let ended = columns.into_ended()?;
            tx.discard_upload(&ended, self.timings.tombstone_delay).await?;
            CancelOutcome::Cancelled
        } else if tx.one::<(i64,)>(offset_query(key)).await?.is_some() {
            CancelOutcome::Busy
        } else {
            CancelOutcome::Unknown
        };
        tx.commit_unflushed().await?;
        Ok(outcome)
    }

    async fn touch_stored(&self, digest: &Digest) -> Result<bool, Error> {
        let select = sqlx::query_as(include_str!("sql/stored.sql"))
            .bind(digest.to_bytes())
            .bind(micros(self.timings.blob_grace / 6));
        match self.readers.one::<(bool,)>(select).await? {
            None => Ok(false),
            Some((true,)) => Ok(true),
            Some((false,)) => {
                let touch = sqlx::query(include_str!("sql/touch_stored.sql")).bind(digest.to_bytes());
                Ok(self.writer.note(touch).await? > 0)
            }
        }
    }

    async fn commit_blob(&self, epoch: Epoch, commit: &BlobCommit) -> Result<CommitOutcome, Error> {
        self.publish_blob(epoch, commit).await
    }

    async fn begin_mount(
        &self,
        epoch: Epoch,
        from: &Name,
        to: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error> {
        self.intend_link(epoch, Some(from), to, digest, generation).await
    }

    async fn finish_mount(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Error> {
        self.publish_link(epoch, mount).await
    }
}
