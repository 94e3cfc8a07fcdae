// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Retain`].

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{digest as digest_column, digests_json, integer, micros, parsed, to_json, unreadable};
use crate::key::Generation;
use crate::meta::steps::{lane, write};
use crate::meta::{
    Epoch, Error, ManifestId, OutgoingTag, PromotedFrom, Removal, Retain, RetainedTag, RetentionClock,
    RetentionFacts, UntaggedWanted,
};

#[derive(sqlx::FromRow)]
struct TagColumns {
    name: String,
    digest: Vec<u8>,
    r#gen: Uuid,
    pushed: i64,
    pulled: Option<u32>,
}

impl TagColumns {
    fn read(self) -> Result<RetainedTag, Error> {
        Ok(RetainedTag {
            tag: parsed("tags", &self.name)?,
            digest: digest_column("manifests", &self.digest)?,
            generation: Generation::from_uuid(self.r#gen),
            pushed: number("tags", self.pushed)?,
            pulled: self.pulled,
        })
    }
}

fn number(table: &'static str, column: i64) -> Result<u64, Error> {
    u64::try_from(column).map_err(|error| unreadable(table, error))
}

fn names(tags: &[Tag]) -> String {
    to_json(&tags.iter().map(Tag::as_str).collect::<Vec<_>>())
}

impl Tx<'_> {
    /// Puts a tag into the trash, if it is as it was when that was decided.
    async fn retire(
        &mut self,
        store: &SqliteStore,
        (epoch, planned, retain): (Epoch, u64, Duration),
        (repository_id, repository): (i32, &Name),
        outgoing: &OutgoingTag,
    ) -> Result<Option<Removal>, Error> {
        let Some(row) = self.tag(repository_id, &outgoing.tag).await? else { return Ok(None) };
        if row.is_trashed() || row.generation != outgoing.generation {
            return Ok(None);
        }
        let still = sqlx::query_as(include_str!("sql/still_outgoing.sql"))
            .bind(row.manifest)
            .bind(outgoing.pulled.map_or(-1, i64::from))
            .bind(outgoing.subject.map(|subject| subject.to_bytes()))
            .bind(repository.as_str())
            .bind(integer(planned));
        let (still,): (bool,) = self.single(still).await?;
        if !still {
            return Ok(None);
        }
        // A push that was placed below a tombstone is over before the tombstone can go.
        let rest = retain.max(store.timings.intent);
        let tombstone = self.trash_tag(epoch, (repository_id, repository), &row, rest).await?;
        let steps = vec![write(&tombstone)];
        let (after, lane) = (store.timings.take_over, Some(lane(repository, &outgoing.tag)));
        let outbox = self.owe(&Owed { steps: steps.clone(), after, lane, ..Owed::default() }).await?;
        Ok(Some(Removal { outbox, steps }))
    }
}

#[async_trait]
impl Retain for SqliteStore {
    async fn retention_clock(&self) -> Result<RetentionClock, Error> {
        let select = "SELECT now / 1000, (SELECT max(day) FROM pull_writers) FROM clock";
        let found: Option<(i64, Option<u32>)> = self.readers.one(sqlx::query_as(select)).await?;
        let (now, gap) = found.ok_or_else(|| unreadable("pull_writers", "nothing"))?;
        Ok(RetentionClock { now: number("clock", now)?, gap })
    }

    async fn retention_facts(&self, repository: &Name) -> Result<RetentionFacts, Error> {
        let name = repository.as_str();
        let tags: Vec<TagColumns> =
            self.readers.all(sqlx::query_as(include_str!("sql/retained_tags.sql")).bind(name)).await?;
        let promotions: Vec<(Vec<u8>, String, i64)> =
            self.readers.all(sqlx::query_as(include_str!("sql/promoted_from.sql")).bind(name)).await?;
        let pending: Vec<(Vec<u8>,)> =
            self.readers.all(sqlx::query_as(include_str!("sql/promotions_pending.sql")).bind(name)).await?;
        let promotions = promotions.into_iter().map(|(digest, to, at)| {
            let (digest, to) = (digest_column("promotions", &digest)?, parsed("promotions", &to)?);
            Ok(PromotedFrom { digest, to, at: number("promotions", at)? })
        });
        let pending = pending.iter().map(|(digest,)| digest_column("promotion_candidates", digest));
        Ok(RetentionFacts {
            tags: tags.into_iter().map(TagColumns::read).collect::<Result<_, _>>()?,
            promotions: promotions.collect::<Result<_, Error>>()?,
            pending: pending.collect::<Result<_, _>>()?,
        })
    }

    async fn live_among(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let select = sqlx::query_as(include_str!("sql/live_among.sql"))
            .bind(repository.as_str())
            .bind(digests_json(digests));
        let found: Vec<(Vec<u8>,)> = self.readers.all(select).await?;
        found.iter().map(|(digest,)| digest_column("manifests", digest)).collect()
    }

    async fn families(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<(Digest, Digest)>, Error> {
        let select = sqlx::query_as(include_str!("sql/families.sql"))
            .bind(repository.as_str())
            .bind(digests_json(digests));
        let found: Vec<(Vec<u8>, Vec<u8>)> = self.readers.all(select).await?;
        let pairs = found
            .iter()
            .map(|(root, of)| Ok((digest_column("manifests", root)?, digest_column("manifests", of)?)));
        pairs.collect()
    }

    async fn reclaimable(&self, repository: &Name, tags: &[Tag]) -> Result<u64, Error> {
        let select =
            sqlx::query_as(include_str!("sql/reclaimable.sql")).bind(repository.as_str()).bind(names(tags));
        let found: Option<(i64,)> = self.readers.one(select).await?;
        number("blobs", found.map_or(0, |(bytes,)| bytes))
    }

    async fn retire_tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        tags: &[OutgoingTag],
        planned: u64,
        retain: Duration,
    ) -> Result<Vec<(Tag, Removal)>, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let select = "SELECT id FROM repositories WHERE name = ?1";
        let found: Option<(i32,)> = tx.one(sqlx::query_as(select).bind(repository.as_str())).await?;
        let mut retired = Vec::new();
        if let Some((id,)) = found {
            for tag in tags {
                let removal = tx.retire(self, (epoch, planned, retain), (id, repository), tag).await?;
                retired.extend(removal.map(|removal| (tag.tag.clone(), removal)));
            }
        }
        tx.commit().await?;
        Ok(retired)
    }

    async fn untagged(
        &self,
        repository: &Name,
        wanted: UntaggedWanted,
        after: ManifestId,
        limit: u32,
    ) -> Result<Vec<(ManifestId, Digest)>, Error> {
        let select = sqlx::query_as(include_str!("sql/untagged.sql"))
            .bind(repository.as_str())
            .bind(after.0)
            .bind(micros(wanted.rest))
            .bind(wanted.spares_referrers)
            .bind(limit);
        let found: Vec<(i64, Vec<u8>)> = self.readers.all(select).await?;
        let found =
            found.iter().map(|(id, digest)| Ok((ManifestId(*id), digest_column("manifests", digest)?)));
        found.collect()
    }

    async fn trash_untagged(
        &self,
        epoch: Epoch,
        manifests: &[ManifestId],
        rest: Duration,
        retain: Duration,
    ) -> Result<u64, Error> {
        self.collect_untagged(epoch, manifests, rest, retain).await
    }
}
