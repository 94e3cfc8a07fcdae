// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Retain`].

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::queue::Removals;
use super::receive::repository as repository_row;
use super::tx::{Connection, collect, long_write, read};
use super::{PostgresStore, row, seconds, tags};
use crate::key::Generation;
use crate::meta::steps::lane;
use crate::meta::{
    Epoch, Error, ManifestId, OutgoingTag, PromotedFrom, Removal, RepositoryId, Retain, RetainedTag,
    RetentionClock, RetentionFacts, UntaggedWanted,
};

#[derive(sqlx::FromRow)]
struct TagColumns {
    name: String,
    digest: Vec<u8>,
    generation: Uuid,
    pushed: i64,
    pulled: Option<i32>,
}

impl TagColumns {
    fn read(self) -> Result<RetainedTag, Error> {
        Ok(RetainedTag {
            tag: row::parsed("tags", &self.name)?,
            digest: row::digest("manifests", &self.digest)?,
            generation: Generation::from_uuid(self.generation),
            pushed: row::number("tags", self.pushed)?,
            pulled: self.pulled.map(|day| row::number("pulls", day)).transpose()?,
        })
    }
}

fn digests(table: &'static str, rows: &[Vec<u8>]) -> Result<Vec<Digest>, Error> {
    rows.iter().map(|bytes| row::digest(table, bytes)).collect()
}

impl PostgresStore {
    async fn try_retention_facts(&self, repository: &Name) -> Result<RetentionFacts, Fault> {
        let mut tx = self.begin_long().await?;
        let name = repository.as_str();
        let tags: Vec<TagColumns> =
            sqlx::query_as(include_str!("sql/retained_tags.sql")).bind(name).fetch_all(&mut *tx).await?;
        let promotions: Vec<(Vec<u8>, String, i64)> =
            sqlx::query_as(include_str!("sql/promoted_from.sql")).bind(name).fetch_all(&mut *tx).await?;
        let pending: Vec<Vec<u8>> = sqlx::query_scalar(include_str!("sql/promotions_pending.sql"))
            .bind(name)
            .fetch_all(&mut *tx)
            .await?;
        let promotions = promotions.into_iter().map(|(digest, to, at)| {
            Ok(PromotedFrom {
                digest: row::digest("promotions", &digest)?,
                to: row::parsed("promotions", &to)?,
                at: row::number("promotions", at)?,
            })
        });
        let facts = RetentionFacts {
            tags: tags.into_iter().map(TagColumns::read).collect::<Result<_, _>>()?,
            promotions: promotions.collect::<Result<_, Error>>()?,
            pending: digests("promotion_candidates", &pending)?,
        };
        tx.undo(facts).await
    }

    async fn try_families(
        &self,
        repository: &Name,
        wanted: &[Digest],
    ) -> Result<Vec<(Digest, Digest)>, Fault> {
        let mut tx = self.begin_long().await?;
        let rows: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(include_str!("sql/families.sql"))
            .bind(repository.as_str())
            .bind(row::digests(wanted))
            .fetch_all(&mut *tx)
            .await?;
        let pairs = rows
            .into_iter()
            .map(|(root, of)| Ok((row::digest("manifests", &root)?, row::digest("manifests", &of)?)));
        let pairs = pairs.collect::<Result<_, Error>>()?;
        tx.undo(pairs).await
    }

    async fn try_reclaimable(&self, repository: &Name, tags: &[Tag]) -> Result<u64, Fault> {
        let mut tx = self.begin_long().await?;
        let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        let bytes: i64 = sqlx::query_scalar(include_str!("sql/reclaimable.sql"))
            .bind(repository.as_str())
            .bind(names)
            .fetch_one(&mut *tx)
            .await?;
        let bytes = row::number("blobs", bytes)?;
        tx.undo(bytes).await
    }

    async fn try_retire_tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        outgoing: &[OutgoingTag],
        planned: u64,
        retain: Duration,
    ) -> Result<Vec<(Tag, Removal)>, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let Some(repo_id) = repository_row(&mut tx, repository).await? else {
            return tx.undo(Vec::new()).await;
        };
        let tags = still_outgoing(&mut tx, (repo_id, repository), outgoing, planned).await?;
        let records = tags::trash(&mut tx, epoch, repo_id, &tags, self.tag_rest(retain)).await?;
        let owed = records.iter().map(|record| {
            let steps = vec![tags::write_tombstone(repository, record)];
            Removals { steps, lane: Some(lane(repository, &record.tag)), ..Removals::default() }
        });
        let owed: Vec<Removals> = owed.collect();
        let rows = super::queue::queue_each(&mut tx, &owed, self.timings.take_over).await?;
        tx.commit().await?;
        let removals = rows.into_iter().zip(owed).map(|(outbox, owed)| Removal { outbox, steps: owed.steps });
        Ok(records.into_iter().map(|record| record.tag).zip(removals).collect())
    }
}

/// Those of the tags that are as they were, and locked.
async fn still_outgoing(
    tx: &mut Connection,
    (repo_id, repository): (RepositoryId, &Name),
    outgoing: &[OutgoingTag],
    planned: u64,
) -> Result<Vec<Tag>, Fault> {
    let names: Vec<&str> = outgoing.iter().map(|tag| tag.tag.as_str()).collect();
    let generations: Vec<Uuid> = outgoing.iter().map(|tag| tag.generation.to_uuid()).collect();
    let locked: Vec<String> = sqlx::query_scalar(include_str!("sql/lock_outgoing.sql"))
        .bind(repo_id)
        .bind(names)
        .bind(generations)
        .fetch_all(&mut *tx)
        .await?;
    let is_locked = |tag: &&OutgoingTag| locked.iter().any(|name| name == tag.tag.as_str());
    let locked: Vec<&OutgoingTag> = outgoing.iter().filter(is_locked).collect();
    let days = locked.iter().map(|tag| tag.pulled.map(row::stored_small).transpose());
    let names: Vec<String> = sqlx::query_scalar(include_str!("sql/still_outgoing.sql"))
        .bind(repo_id)
        .bind(locked.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>())
        .bind(days.collect::<Result<Vec<Option<i32>>, _>>()?)
        .bind(locked.iter().map(|tag| tag.subject.map(|subject| subject.to_bytes())).collect::<Vec<_>>())
        .bind(repository.as_str())
        .bind(row::stored(planned)?)
        .fetch_all(tx)
        .await?;
    Ok(names.iter().map(|name| row::parsed("tags", name)).collect::<Result<_, Error>>()?)
}

#[async_trait]
impl Retain for PostgresStore {
    async fn retention_clock(&self) -> Result<RetentionClock, Error> {
        let select = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now, \
                             (SELECT max(day) - date '1970-01-01' FROM pull_writers) AS gap";
        let found: Option<(i64, Option<i32>)> = read(self.row(sqlx::query_as(select))).await?;
        let (now, gap) = found.ok_or_else(|| row::unreadable("pull_writers", "nothing"))?;
        let gap = gap.map(|day| row::number("pull_writers", day)).transpose()?;
        Ok(RetentionClock { now: row::number("meta", now)?, gap })
    }

    async fn retention_facts(&self, repository: &Name) -> Result<RetentionFacts, Error> {
        long_write(|| self.try_retention_facts(repository)).await
    }

    async fn live_among(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let statement = sqlx::query_as(include_str!("sql/live_among.sql"))
            .bind(repository.as_str())
            .bind(row::digests(digests));
        let found: Vec<(Vec<u8>,)> = read(self.rows(statement)).await?;
        let found: Vec<Vec<u8>> = found.into_iter().map(|(bytes,)| bytes).collect();
        self::digests("manifests", &found)
    }

    async fn families(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<(Digest, Digest)>, Error> {
        long_write(|| self.try_families(repository, digests)).await
    }

    async fn reclaimable(&self, repository: &Name, tags: &[Tag]) -> Result<u64, Error> {
        long_write(|| self.try_reclaimable(repository, tags)).await
    }

    async fn retire_tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        tags: &[OutgoingTag],
        planned: u64,
        retain: Duration,
    ) -> Result<Vec<(Tag, Removal)>, Error> {
        collect(|| self.try_retire_tags(epoch, repository, tags, planned, retain)).await
    }

    async fn untagged(
        &self,
        repository: &Name,
        wanted: UntaggedWanted,
        after: ManifestId,
        limit: u32,
    ) -> Result<Vec<(ManifestId, Digest)>, Error> {
        long_write(|| async {
            let mut tx = self.begin_long().await?;
            let rows = sqlx::query(include_str!("sql/untagged.sql"))
                .bind(repository.as_str())
                .bind(after.0)
                .bind(seconds(wanted.rest))
                .bind(wanted.spares_referrers)
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?;
            let found = rows.iter().map(|found| {
                let bytes: Vec<u8> = found.try_get("digest")?;
                Ok((ManifestId(found.try_get("id")?), row::digest("manifests", &bytes)?))
            });
            let found = found.collect::<Result<_, Fault>>()?;
            tx.undo(found).await
        })
        .await
    }

    async fn trash_untagged(
        &self,
        epoch: Epoch,
        manifests: &[ManifestId],
        rest: Duration,
        retain: Duration,
    ) -> Result<u64, Error> {
        collect(|| self.try_trash_untagged(epoch, manifests, rest, retain)).await
    }
}
