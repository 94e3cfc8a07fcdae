// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Reconcile`]: what rows claim, differences in one transaction each, the parts and the end of a walk.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::guard::owned;
use super::receive::lock_ending;
use super::reconcile_rows::{LocationColumns, PgRows, TagColumns};
use super::tags::version;
use super::tx::{Tx, long_write, read, write};
use super::{PostgresStore, row, seconds};
use crate::key::{Generation, Key};
use crate::meta::reconcile::{
    self, Changes, Difference, DigestSpan, EndRows, Kind, LedgerClaim, Loss, ManifestClaim, Mode, OldIntent,
    Outcome, Progress, Reconcile, Scope, Shard, ShardOutcome, TagEntry, TagSpan,
};
use crate::meta::{Epoch, Error, Location};

#[derive(sqlx::FromRow)]
struct BlobClaimColumns {
    digest: Vec<u8>,
    #[sqlx(flatten)]
    location: LocationColumns,
}

async fn is_current(tx: &mut Tx, epoch: Epoch) -> Result<bool, Fault> {
    let found: Option<(bool, bool)> = sqlx::query_as(include_str!("sql/scope.sql"))
        .bind(i64::from(epoch.0))
        .fetch_optional(&mut **tx)
        .await?;
    Ok(matches!(found, Some((true, _))))
}

impl PostgresStore {
    /// Holds an epoch for a comparison. `None`: it is walked.
    async fn begin_scope(&self, scope: &Scope) -> Result<Option<Tx>, Fault> {
        let mut tx = self.begin().await?;
        if scope.mode == Mode::DryRun {
            return Ok(Some(tx));
        }
        let found: Option<(bool, bool)> = sqlx::query_as(include_str!("sql/scope.sql"))
            .bind(i64::from(scope.epoch.0))
            .fetch_optional(&mut *tx)
            .await?;
        match found {
            Some((true, walked)) if walked == scope.mode.verifies() => Ok(Some(tx)),
            Some((true, true)) => tx.undo(None).await,
            _ => tx.undo(Err(Error::Superseded.into())).await?,
        }
    }

    /// Settles a difference: all of it, or nothing.
    async fn try_reconcile(&self, scope: &Scope, difference: &Difference<'_>) -> Result<Outcome, Fault> {
        let Some(mut tx) = self.begin_scope(scope).await? else { return Ok(Outcome::Walked) };
        let outcome = reconcile::settle(&mut PgRows { tx: &mut tx, store: self }, scope, difference).await?;
        match outcome {
            Outcome::Settled(_) if scope.mode != Mode::DryRun => {
                tx.commit().await?;
                Ok(outcome)
            }
            _ => tx.undo(outcome).await,
        }
    }

    async fn stop_walk(&self, epoch: Epoch, loss: &Loss) -> Result<(), Error> {
        let lost = row::stored(loss.lost)?;
        let stop = "UPDATE losses SET stopped = $3 WHERE epoch = $1 AND kind = $2";
        self.run(|| sqlx::query(stop).bind(i64::from(epoch.0)).bind(loss.kind.name()).bind(lost)).await
    }

    async fn try_plan_walk(&self, epoch: Epoch, shards: &[Shard]) -> Result<bool, Fault> {
        let mut tx = self.begin_long().await?;
        if !is_current(&mut tx, epoch).await? {
            return tx.undo(Err(Error::Superseded.into())).await?;
        }
        let counted = sqlx::query(include_str!("sql/plan_walk.sql")).bind(i64::from(epoch.0));
        if counted.execute(&mut *tx).await?.rows_affected() == 0 {
            return tx.undo(false).await;
        }
        let (phases, names): (Vec<i16>, Vec<&str>) =
            shards.iter().map(|shard| (i16::from(shard.phase), shard.name.as_str())).unzip();
        sqlx::query(include_str!("sql/insert_shards.sql"))
            .bind(i64::from(epoch.0))
            .bind(phases)
            .bind(names)
            .execute(&mut *tx)
            .await?;
        let forget = sqlx::query(include_str!("sql/forget_walks.sql")).bind(i64::from(epoch.0));
        forget.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn try_claim_shard(&self, epoch: Epoch, owner: Uuid) -> Result<ShardOutcome, Fault> {
        let scope = Scope { epoch, retain: Duration::ZERO, mode: Mode::Walk };
        let Some(mut tx) = self.begin_scope(&scope).await? else { return Ok(ShardOutcome::Walked) };
        let stopped: Option<(String, i64, i64)> = sqlx::query_as(include_str!("sql/stopped_walk.sql"))
            .bind(i64::from(epoch.0))
            .fetch_optional(&mut *tx)
            .await?;
        if let Some((name, lost, total)) = stopped {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let loss = Loss {
                kind: kind.ok_or_else(|| row::unreadable("losses", &name))?,
                lost: row::number("losses", lost)?,
                total: row::number("losses", total)?,
            };
            return tx.undo(ShardOutcome::Stopped(loss)).await;
        }
        let claimed: Option<(i16, String)> = sqlx::query_as(include_str!("sql/claim_shard.sql"))
            .bind(i64::from(epoch.0))
            .bind(owner)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some((phase, name)) = claimed {
            tx.commit().await?;
            return Ok(ShardOutcome::Claimed(Shard { phase: row::number("shards", phase)?, name }));
        }
        let (done, total): (i64, i64) = sqlx::query_as(include_str!("sql/walk_progress.sql"))
            .bind(i64::from(epoch.0))
            .fetch_one(&mut *tx)
            .await?;
        tx.undo(match total {
            0 => ShardOutcome::Unplanned,
            _ if done == total => ShardOutcome::Done,
            _ => ShardOutcome::Wait,
        })
        .await
    }

    async fn try_end_walk(&self, epoch: Epoch) -> Result<Option<Changes>, Fault> {
        let mut tx = self.begin_long().await?;
        let lock = "SELECT epoch = $1 AND fence = pg_postmaster_start_time() AND reconciled < epoch \
                    FROM meta FOR UPDATE";
        let ours: Option<bool> =
            sqlx::query_scalar(lock).bind(i64::from(epoch.0)).fetch_optional(&mut *tx).await?;
        let (done, total): (i64, i64) = sqlx::query_as(include_str!("sql/walk_progress.sql"))
            .bind(i64::from(epoch.0))
            .fetch_one(&mut *tx)
            .await?;
        if ours != Some(true) || done < total || total == 0 {
            return tx.undo(None).await;
        }
        let changes = reconcile::end(&mut PgRows { tx: &mut tx, store: self }, epoch).await?;
        tx.commit().await?;
        Ok(Some(changes))
    }
}

impl EndRows for PgRows<'_> {
    async fn old_intents(&mut self, epoch: Epoch) -> Result<Vec<OldIntent>, Fault> {
        let found: Vec<(i64, Option<i64>, Vec<String>)> =
            sqlx::query_as("SELECT id, manifest_id, keys FROM intents WHERE epoch < $1 ORDER BY id")
                .bind(i64::from(epoch.0))
                .fetch_all(&mut *self.tx)
                .await?;
        Ok(found.into_iter().map(|(id, manifest, keys)| OldIntent { id, manifest, keys }).collect())
    }

    async fn forget_intents(&mut self, intents: &[i64]) -> Result<(), Fault> {
        sqlx::query("DELETE FROM intents WHERE id = ANY ($1)").bind(intents).execute(&mut *self.tx).await?;
        Ok(())
    }

    async fn names(&mut self, key: &Key) -> Result<bool, Fault> {
        Ok(owned(self.tx, std::slice::from_ref(key)).await?.is_some())
    }

    async fn doom_pending(&mut self) -> Result<u64, Fault> {
        Ok(sqlx::query(include_str!("sql/doom_abandoned.sql")).execute(&mut *self.tx).await?.rows_affected())
    }

    async fn end_used_uploads(&mut self) -> Result<u64, Fault> {
        let used: Vec<(Uuid, Option<Uuid>)> =
            sqlx::query_as(include_str!("sql/used_uploads.sql")).fetch_all(&mut *self.tx).await?;
        for (id, token) in &used {
            if let Some(left) = lock_ending(&mut *self.tx, *id, *token).await? {
                self.store.end_upload(self.tx, *id, &left).await?;
            }
        }
        Ok(used.len() as u64)
    }

    async fn mark_walked(&mut self) -> Result<(), Fault> {
        sqlx::query("UPDATE meta SET reconciled = epoch, walked_at = clock_timestamp()")
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Reconcile for PostgresStore {
    async fn blob_claims(&self, span: &DigestSpan, limit: u32) -> Result<Vec<(Digest, Location)>, Error> {
        let statement = sqlx::query_as(include_str!("sql/blob_claims.sql"))
            .bind(&span.from)
            .bind(&span.through)
            .bind(i64::from(limit));
        let found: Vec<BlobClaimColumns> = read(self.rows(statement)).await?;
        let claims = found.into_iter().map(|found| {
            let location = found.location.read()?.ok_or_else(|| row::unreadable("blobs", "form"))?;
            Ok((row::digest("blobs", &found.digest)?, location))
        });
        claims.collect()
    }

    async fn link_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<(Digest, Generation)>, Error> {
        let statement = sqlx::query_as(include_str!("sql/link_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(i64::from(limit));
        let found: Vec<(Vec<u8>, Uuid)> = read(self.rows(statement)).await?;
        let claims = found.iter().map(|(digest, generation)| {
            Ok((row::digest("repo_blobs", digest)?, Generation::from_uuid(*generation)))
        });
        claims.collect()
    }

    async fn manifest_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<ManifestClaim>, Error> {
        let statement = sqlx::query_as(include_str!("sql/manifest_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(i64::from(limit));
        let found: Vec<(Vec<u8>, Option<Uuid>, bool, i32)> = read(self.rows(statement)).await?;
        let claims = found.iter().map(|(digest, generation, live, size)| {
            Ok(ManifestClaim {
                digest: row::digest("manifests", digest)?,
                generation: generation.map(Generation::from_uuid),
                live: *live,
                size: row::number("manifests", *size)?,
            })
        });
        claims.collect()
    }

    async fn referrer_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<(Digest, Digest, Generation)>, Error> {
        let statement = sqlx::query_as(include_str!("sql/referrer_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(i64::from(limit));
        let found: Vec<(Vec<u8>, Vec<u8>, Uuid)> = read(self.rows(statement)).await?;
        let claims = found.iter().map(|(subject, digest, generation)| {
            let of = |bytes: &[u8]| row::digest("manifests", bytes);
            Ok((of(subject)?, of(digest)?, Generation::from_uuid(*generation)))
        });
        claims.collect()
    }

    async fn tag_claims(
        &self,
        repository: &Name,
        span: &TagSpan,
        limit: u32,
    ) -> Result<Vec<(Tag, TagEntry)>, Error> {
        let statement = sqlx::query_as(include_str!("sql/tag_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(i64::from(limit));
        let found: Vec<TagColumns> = read(self.rows(statement)).await?;
        let claims = found.into_iter().map(|found| {
            let fact = found.read()?;
            Ok((fact.tag.clone(), fact.entry()))
        });
        claims.collect()
    }

    async fn ledger_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<LedgerClaim>, Error> {
        let statement = sqlx::query_as(include_str!("sql/ledger_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(i64::from(limit));
        let found: Vec<(Vec<u8>, i64, i64, Uuid)> = read(self.rows(statement)).await?;
        let claims = found.into_iter().map(|(digest, epoch, seq, generation)| {
            let (digest, generation) =
                (row::digest("promotions", &digest)?, Generation::from_uuid(generation));
            Ok(LedgerClaim { digest, version: version(epoch, seq)?, generation })
        });
        claims.collect()
    }

    async fn settle(&self, scope: &Scope, difference: &Difference<'_>) -> Result<Outcome, Error> {
        let outcome = write(|| self.try_reconcile(scope, difference)).await?;
        if let Outcome::TooManyLosses(loss) = &outcome {
            self.stop_walk(scope.epoch, loss).await?;
        }
        Ok(outcome)
    }

    async fn repositories_below(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Name>, Error> {
        let statement = sqlx::query_as(include_str!("sql/repositories_below.sql"))
            .bind(prefix)
            .bind(after.unwrap_or_default())
            .bind(i64::from(limit));
        let found: Vec<(String,)> = read(self.rows(statement)).await?;
        found.iter().map(|(text,)| row::parsed("repositories", text)).collect()
    }

    async fn plan_walk(&self, epoch: Epoch, shards: &[Shard]) -> Result<bool, Error> {
        long_write(|| self.try_plan_walk(epoch, shards)).await
    }

    async fn claim_shard(&self, epoch: Epoch, owner: Uuid) -> Result<ShardOutcome, Error> {
        write(|| self.try_claim_shard(epoch, owner)).await
    }

    async fn keep_shard(&self, epoch: Epoch, shard: &str, owner: Uuid) -> Result<bool, Error> {
        self.write_one(|| {
            sqlx::query(include_str!("sql/keep_shard.sql")).bind(i64::from(epoch.0)).bind(shard).bind(owner)
        })
        .await
    }

    async fn release_shards(&self, epoch: Epoch, owners: &[Uuid]) -> Result<(), Error> {
        self.run(|| sqlx::query(include_str!("sql/release_shards.sql")).bind(i64::from(epoch.0)).bind(owners))
            .await
    }

    async fn finish_shard(&self, epoch: Epoch, shard: &str, owner: Uuid) -> Result<bool, Error> {
        self.write_one(|| {
            sqlx::query(include_str!("sql/finish_shard.sql")).bind(i64::from(epoch.0)).bind(shard).bind(owner)
        })
        .await
    }

    async fn walk_progress(&self, epoch: Epoch) -> Result<Progress, Error> {
        let statement = sqlx::query_as(include_str!("sql/walk_progress.sql")).bind(i64::from(epoch.0));
        let found: Option<(i64, i64)> = read(self.row(statement)).await?;
        let (done, total) = found.unwrap_or_default();
        Ok(Progress { done: row::number("shards", done)?, total: row::number("shards", total)? })
    }

    async fn accept_loss(&self, epoch: Epoch) -> Result<(), Error> {
        let accept = "UPDATE losses SET accepted = true WHERE epoch = $1";
        self.run(|| sqlx::query(accept).bind(i64::from(epoch.0))).await
    }

    async fn queue_unreferenced(&self, epoch: Epoch) -> Result<(), Error> {
        long_write(async || {
            for statement in [
                include_str!("sql/queue_unreferenced_manifests.sql"),
                include_str!("sql/queue_unreferenced_links.sql"),
                include_str!("sql/queue_unreferenced_blobs.sql"),
            ] {
                let mut tx = self.begin_long().await?;
                if !is_current(&mut tx, epoch).await? {
                    return tx.undo(Err(Error::Superseded.into())).await?;
                }
                sqlx::query(statement).bind(seconds(self.timings.lease)).execute(&mut *tx).await?;
                tx.commit().await?;
            }
            Ok(())
        })
        .await
    }

    async fn end_walk(&self, epoch: Epoch) -> Result<Option<Changes>, Error> {
        long_write(|| self.try_end_walk(epoch)).await
    }

    async fn forget_incarnation(&self) -> Result<(), Error> {
        // Whoever is at work in the old epoch finds it over.
        let forget = "UPDATE meta SET fence = '-infinity', claim_until = NULL";
        self.run(|| sqlx::query(forget)).await
    }

    async fn hold_rebuild(&self, owner: Uuid) -> Result<bool, Error> {
        self.write_one(|| sqlx::query(include_str!("sql/hold_rebuild.sql")).bind(owner)).await
    }

    async fn end_rebuild(&self, owner: Uuid) -> Result<(), Error> {
        let end = "DELETE FROM shards WHERE job = 'rebuild' AND owner = $1";
        self.run(|| sqlx::query(end).bind(owner)).await
    }
}
