// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Reconcile`]: what rows claim, differences in one transaction each, the parts and the end of a walk.

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::reconcile_rows::{SqliteRows, loss};
use super::tags::{TagColumns, version};
use super::tx::Tx;
use super::uploads::EndedColumns;
use super::values::{digest as digest_column, from_json, integer, location, micros, parsed, unreadable};
use crate::key::{Generation, Key};
use crate::meta::reconcile::{
    self, Changes, Difference, DigestSpan, EndRows, Kind, LedgerClaim, ManifestClaim, Mode, OldIntent,
    Outcome, Progress, Reconcile, Scope, Shard, ShardOutcome, TagEntry, TagSpan,
};
use crate::meta::{Candidate, Epoch, Error, Location};

#[derive(sqlx::FromRow)]
struct BlobColumns {
    digest: Vec<u8>,
    r#gen: Option<Uuid>,
    form: i64,
    tail: Option<u32>,
    size: i64,
}

/// Whether the epoch is ours, and whether it is walked.
pub(super) async fn standing(
    store: &SqliteStore,
    tx: &mut Tx<'_>,
    epoch: Epoch,
) -> Result<(bool, bool), Error> {
    let select = "SELECT epoch = ?1 AND fence = ?2, reconciled = epoch FROM meta";
    let select = sqlx::query_as(select).bind(epoch.0).bind(store.lock.fence);
    Ok(tx
        .one::<(Option<bool>, bool)>(select)
        .await?
        .map_or((false, false), |(ours, walked)| (ours.unwrap_or(false), walked)))
}

async fn progress(tx: &mut Tx<'_>, epoch: Epoch) -> Result<(i64, i64), Error> {
    tx.single(sqlx::query_as(include_str!("sql/walk_progress.sql")).bind(epoch.0)).await
}

impl EndRows for SqliteRows<'_, '_> {
    async fn old_intents(&mut self, epoch: Epoch) -> Result<Vec<OldIntent>, Error> {
        let select = "SELECT id, manifest_id, keys FROM intents WHERE epoch < ?1 ORDER BY id";
        let rows: Vec<(i64, Option<i64>, String)> = self.tx.all(sqlx::query_as(select).bind(epoch.0)).await?;
        let intents = rows
            .into_iter()
            .map(|(id, manifest, keys)| Ok(OldIntent { id, manifest, keys: from_json("intents", &keys)? }));
        intents.collect()
    }

    async fn forget_intents(&mut self, intents: &[i64]) -> Result<(), Error> {
        for id in intents {
            self.tx.run(sqlx::query("DELETE FROM intents WHERE id = ?1").bind(id)).await?;
        }
        Ok(())
    }

    async fn names(&mut self, key: &Key) -> Result<bool, Error> {
        Ok(self.tx.owned(std::slice::from_ref(key)).await?.is_some())
    }

    async fn doom_pending(&mut self) -> Result<u64, Error> {
        let doom = "UPDATE manifests SET state = 3, pending_until = NULL WHERE state = 0
                    AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.manifest_id = manifests.id) RETURNING id";
        let doomed: Vec<(i64,)> = self.tx.all(sqlx::query_as(doom)).await?;
        for (id,) in &doomed {
            let owed = Owed { then: Some(Candidate::Manifest), about: Some(*id), ..Owed::default() };
            self.tx.owe(&owed).await?;
        }
        Ok(doomed.len() as u64)
    }

    async fn end_used_uploads(&mut self) -> Result<u64, Error> {
        let ended: Vec<EndedColumns> =
            self.tx.all(sqlx::query_as(include_str!("sql/used_uploads.sql"))).await?;
        let count = ended.len() as u64;
        for columns in ended {
            self.tx.discard_upload(&columns.into_ended()?, self.timings.tombstone_delay).await?;
        }
        Ok(count)
    }

    async fn mark_walked(&mut self) -> Result<(), Error> {
        let update =
            "UPDATE meta SET reconciled = epoch, walked_at = coalesce(walked_at, (SELECT now FROM clock))";
        self.tx.run(sqlx::query(update)).await.map(drop)
    }
}

fn tag_claim(columns: TagColumns) -> Result<(Tag, TagEntry), Error> {
    let fact = columns.into_row()?.fact();
    Ok((fact.tag.clone(), fact.entry()))
}

#[async_trait]
impl Reconcile for SqliteStore {
    async fn blob_claims(&self, span: &DigestSpan, limit: u32) -> Result<Vec<(Digest, Location)>, Error> {
        let select = sqlx::query_as(include_str!("sql/blob_claims.sql"))
            .bind(&span.from)
            .bind(&span.through)
            .bind(limit);
        let found: Vec<BlobColumns> = self.readers.all(select).await?;
        let claims = found.into_iter().map(|found| {
            let size = u64::try_from(found.size).map_err(|error| unreadable("blobs", error))?;
            let location = location(found.r#gen, found.form, found.tail, size)?;
            let location = location.ok_or_else(|| unreadable("blobs", "absent data among stored"))?;
            Ok((digest_column("blobs", &found.digest)?, location))
        });
        claims.collect()
    }

    async fn link_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<(Digest, Generation)>, Error> {
        let select = sqlx::query_as(include_str!("sql/link_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(limit);
        let found: Vec<(Vec<u8>, Uuid)> = self.readers.all(select).await?;
        let claims = found.iter().map(|(digest, generation)| {
            Ok((digest_column("repo_blobs", digest)?, Generation::from_uuid(*generation)))
        });
        claims.collect()
    }

    async fn manifest_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<ManifestClaim>, Error> {
        let select = sqlx::query_as(include_str!("sql/manifest_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(limit);
        let found: Vec<(Vec<u8>, Option<Uuid>, bool, u32)> = self.readers.all(select).await?;
        let claims = found.iter().map(|(digest, generation, live, size)| {
            let digest = digest_column("manifests", digest)?;
            let generation = generation.map(Generation::from_uuid);
            Ok(ManifestClaim { digest, generation, live: *live, size: *size })
        });
        claims.collect()
    }

    async fn referrer_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<(Digest, Digest, Generation)>, Error> {
        let select = sqlx::query_as(include_str!("sql/referrer_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(limit);
        let found: Vec<(Vec<u8>, Vec<u8>, Uuid)> = self.readers.all(select).await?;
        let claims = found.iter().map(|(subject, digest, generation)| {
            let of = |bytes: &[u8]| digest_column("manifests", bytes);
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
        let select = sqlx::query_as(include_str!("sql/tag_claims.sql"))
            .bind(repository.as_str())
            .bind(span.from.as_str())
            .bind(span.through.as_str())
            .bind(limit);
        let found: Vec<TagColumns> = self.readers.all(select).await?;
        found.into_iter().map(tag_claim).collect()
    }

    async fn ledger_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<LedgerClaim>, Error> {
        let select = sqlx::query_as(include_str!("sql/ledger_claims.sql"))
            .bind(repository.as_str())
            .bind(&span.from)
            .bind(&span.through)
            .bind(limit);
        let found: Vec<(Vec<u8>, u32, i64, Uuid)> = self.readers.all(select).await?;
        let claims = found.into_iter().map(|(digest, epoch, seq, generation)| {
            let (digest, generation) =
                (digest_column("promotions", &digest)?, Generation::from_uuid(generation));
            Ok(LedgerClaim { digest, version: version(epoch, seq)?, generation })
        });
        claims.collect()
    }

    async fn settle(&self, scope: &Scope, difference: &Difference<'_>) -> Result<Outcome, Error> {
        let mut tx = self.writer.begin().await?;
        match standing(self, &mut tx, scope.epoch).await? {
            (true, walked) if walked == scope.mode.verifies() => {}
            _ if scope.mode == Mode::DryRun => {}
            (ours, walked) => {
                tx.rollback().await?;
                return if ours && walked { Ok(Outcome::Walked) } else { Err(Error::Superseded) };
            }
        }
        let rows = &mut SqliteRows { tx: &mut tx, timings: &self.timings };
        let outcome = reconcile::settle(rows, scope, difference).await?;
        match &outcome {
            Outcome::Settled(_) if scope.mode != Mode::DryRun => tx.commit().await?,
            Outcome::TooManyLosses(loss) => {
                tx.rollback().await?;
                let stop = "UPDATE losses SET stopped = ?3 WHERE epoch = ?1 AND kind = ?2";
                let stop = sqlx::query(stop).bind(scope.epoch.0).bind(loss.kind.name());
                self.writer.run(stop.bind(integer(loss.lost))).await?;
            }
            _ => tx.rollback().await?,
        }
        Ok(outcome)
    }

    async fn repositories_below(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Name>, Error> {
        let select = sqlx::query_as(include_str!("sql/repositories_below.sql"))
            .bind(prefix)
            .bind(after.unwrap_or_default())
            .bind(limit);
        let found: Vec<(String,)> = self.readers.all(select).await?;
        found.iter().map(|(text,)| parsed("repositories", text)).collect()
    }

    async fn plan_walk(&self, epoch: Epoch, shards: &[Shard]) -> Result<bool, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        for (kind, count) in [
            (Kind::Blobs, "SELECT count(*) FROM blobs WHERE form <> 0"),
            (Kind::Links, "SELECT count(*) FROM repo_blobs WHERE gen IS NOT NULL"),
            (Kind::Manifests, "SELECT count(*) FROM manifests WHERE state = 1"),
            (Kind::Tags, "SELECT count(*) FROM tags"),
        ] {
            let (total,): (i64,) = tx.single(sqlx::query_as(count)).await?;
            let insert = sqlx::query(include_str!("sql/plan_walk.sql"));
            if tx.run(insert.bind(epoch.0).bind(kind.name()).bind(total)).await? == 0 {
                tx.rollback().await?;
                return Ok(false);
            }
        }
        for shard in shards {
            let insert = "INSERT INTO shards (epoch, job, phase, shard) VALUES (?1, 'walk', ?2, ?3)";
            tx.run(sqlx::query(insert).bind(epoch.0).bind(shard.phase).bind(shard.name.as_str())).await?;
        }
        for forget in
            ["DELETE FROM shards WHERE job = 'walk' AND epoch < ?1", "DELETE FROM losses WHERE epoch < ?1"]
        {
            tx.run(sqlx::query(forget).bind(epoch.0)).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn claim_shard(&self, epoch: Epoch, owner: Uuid) -> Result<ShardOutcome, Error> {
        let mut tx = self.writer.begin().await?;
        match standing(self, &mut tx, epoch).await? {
            (true, false) => {}
            (ours, _) => {
                tx.rollback().await?;
                return if ours { Ok(ShardOutcome::Walked) } else { Err(Error::Superseded) };
            }
        }
        let select = sqlx::query_as(include_str!("sql/stopped_walk.sql")).bind(epoch.0);
        if let Some((name, lost, total)) = tx.one::<(String, i64, i64)>(select).await? {
            tx.rollback().await?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| unreadable("losses", name))?;
            return Ok(ShardOutcome::Stopped(loss(kind, lost, total)?));
        }
        let update = sqlx::query_as(include_str!("sql/claim_shard.sql")).bind(epoch.0).bind(owner);
        if let Some((phase, name)) = tx.one::<(u8, String)>(update).await? {
            tx.commit_unflushed().await?;
            return Ok(ShardOutcome::Claimed(Shard { phase, name }));
        }
        let (done, total) = progress(&mut tx, epoch).await?;
        tx.rollback().await?;
        Ok(match total {
            0 => ShardOutcome::Unplanned,
            _ if done == total => ShardOutcome::Done,
            _ => ShardOutcome::Wait,
        })
    }

    async fn keep_shard(&self, epoch: Epoch, shard: &str, owner: Uuid) -> Result<bool, Error> {
        let update = sqlx::query(include_str!("sql/keep_shard.sql")).bind(epoch.0).bind(shard).bind(owner);
        Ok(self.writer.note(update).await? > 0)
    }

    async fn release_shards(&self, epoch: Epoch, owners: &[Uuid]) -> Result<(), Error> {
        let update = "UPDATE shards SET owner = NULL, until = NULL
                      WHERE epoch = ?1 AND job = 'walk' AND owner = ?2 AND NOT done";
        for owner in owners {
            self.writer.note(sqlx::query(update).bind(epoch.0).bind(owner)).await?;
        }
        Ok(())
    }

    async fn finish_shard(&self, epoch: Epoch, shard: &str, owner: Uuid) -> Result<bool, Error> {
        let update = sqlx::query(include_str!("sql/finish_shard.sql")).bind(epoch.0).bind(shard).bind(owner);
        Ok(self.writer.run(update).await? > 0)
    }

    async fn walk_progress(&self, epoch: Epoch) -> Result<Progress, Error> {
        let select = sqlx::query_as(include_str!("sql/walk_progress.sql")).bind(epoch.0);
        let (done, total): (i64, i64) = self.readers.one(select).await?.unwrap_or_default();
        let number = |column: i64| u64::try_from(column).map_err(|error| unreadable("shards", error));
        Ok(Progress { done: number(done)?, total: number(total)? })
    }

    async fn accept_loss(&self, epoch: Epoch) -> Result<(), Error> {
        let update = "UPDATE losses SET accepted = 1 WHERE epoch = ?1";
        self.writer.run(sqlx::query(update).bind(epoch.0)).await.map(drop)
    }

    async fn queue_unreferenced(&self, epoch: Epoch) -> Result<(), Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let grace = micros(self.timings.lease);
        for insert in [
            "INSERT INTO gc_queue (due, kind, ref) SELECT now + ?1, 'm', m.id FROM manifests m, clock
             WHERE m.state = 1 AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest_id = m.id)
               AND NOT EXISTS (SELECT 1 FROM manifest_children c
                               WHERE c.repo_id = m.repo_id AND c.child = m.digest)",
            "INSERT INTO gc_queue (due, kind, ref) SELECT now + ?1, 'l', l.id FROM repo_blobs l, clock
             WHERE NOT EXISTS (SELECT 1 FROM manifest_blobs f WHERE f.link_id = l.id)
               AND NOT EXISTS (SELECT 1 FROM manifest_children c
                               WHERE c.repo_id = l.repo_id AND c.child = l.digest)",
            "INSERT INTO gc_queue (due, kind, ref) SELECT now + ?1, 'b', b.id FROM blobs b, clock
             WHERE NOT EXISTS (SELECT 1 FROM repo_blobs l WHERE l.blob_id = b.id)",
        ] {
            tx.run(sqlx::query(insert).bind(grace)).await?;
        }
        tx.commit().await
    }

    async fn end_walk(&self, epoch: Epoch) -> Result<Option<Changes>, Error> {
        let mut tx = self.writer.begin().await?;
        let standing = standing(self, &mut tx, epoch).await?;
        let (done, total) = progress(&mut tx, epoch).await?;
        if standing != (true, false) || done < total || total == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        let rows = &mut SqliteRows { tx: &mut tx, timings: &self.timings };
        let changes = reconcile::end(rows, epoch).await?;
        tx.commit().await?;
        Ok(Some(changes))
    }

    async fn forget_incarnation(&self) -> Result<(), Error> {
        let forget = "UPDATE meta SET fence = NULL, claim_until = NULL, handed_over = NULL";
        self.writer.run(sqlx::query(forget)).await.map(drop)
    }

    async fn hold_rebuild(&self, owner: Uuid) -> Result<bool, Error> {
        let insert = sqlx::query(include_str!("sql/hold_rebuild.sql")).bind(owner);
        Ok(self.writer.note(insert).await? > 0)
    }

    async fn end_rebuild(&self, owner: Uuid) -> Result<(), Error> {
        let delete = "DELETE FROM shards WHERE job = 'rebuild' AND owner = ?1";
        self.writer.run(sqlx::query(delete).bind(owner)).await.map(drop)
    }
}
