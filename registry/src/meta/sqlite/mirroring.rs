// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Mirroring`], and the rows of content that is awaited from an upstream.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::tx::Tx;
use super::values::{
    self, digest as digest_column, digest_hex, duration, from_json, integer, micros, parsed, to_json,
    unreadable,
};
use crate::key::Generation;
use crate::meta::steps::Rival;
use crate::meta::{
    Claim, Copied, Error, Fetched, Mirroring, NewLimits, TagRecord, TagState, TurnsTaken, TurnsWanted,
    UpstreamLimits,
};

fn number(table: &'static str, column: i64) -> Result<u64, Error> {
    u64::try_from(column).map_err(|error| unreadable(table, error))
}

/// What is left of a time, if any is.
fn left(micros: Option<i64>) -> Option<Duration> {
    micros.map(duration).filter(|left| !left.is_zero())
}

#[derive(sqlx::FromRow)]
struct StateColumns {
    name: String,
    digest: Vec<u8>,
    r#gen: Uuid,
    is_deleted: bool,
}

impl StateColumns {
    fn read(self) -> Result<TagState, Error> {
        Ok(TagState {
            tag: parsed("tags", &self.name)?,
            target: digest_column("manifests", &self.digest)?,
            generation: Generation::from_uuid(self.r#gen),
            is_deleted: self.is_deleted,
        })
    }
}

impl Tx<'_> {
    /// Whether a tag is what it was when it was decided to copy it, and nobody else is about to set it. The record
    /// says then when its origin set it, and which mirror copies it.
    pub(super) async fn is_unmoved(
        &mut self,
        repository_id: i32,
        copied: &Copied,
        record: &mut TagRecord,
    ) -> Result<bool, Error> {
        let now = self.tag(repository_id, &record.tag).await?.map(|row| row.generation);
        let rivals = self.rivals(repository_id, &record.tag).await?;
        if rivals.iter().any(|rival| !copied.is_by_its_mirror(rival.generation)) {
            return Ok(false);
        }
        record.generation = copied.generation(record.generation);
        Ok(now == copied.over)
    }

    /// What pushes that are under way are about to give the tag.
    pub(super) async fn rivals(&mut self, repository_id: i32, tag: &Tag) -> Result<Vec<Rival>, Error> {
        let select = sqlx::query_as(include_str!("sql/intended_keys.sql"));
        let intended: Vec<(String,)> = self.all(select.bind(repository_id).bind(tag.as_str())).await?;
        let lists = intended.iter().map(|(keys,)| from_json::<Vec<String>>("intents", keys));
        Ok(Rival::of(tag, &lists.collect::<Result<Vec<_>, _>>()?.concat()))
    }

    /// Makes hidden links to `awaited`, digests and lengths, where the repository has none.
    pub(super) async fn await_blobs(
        &mut self,
        repository_id: i32,
        awaited: &[(Digest, u64)],
    ) -> Result<(), Error> {
        let pairs: Vec<(String, i64)> =
            awaited.iter().map(|(digest, size)| (digest_hex(digest), integer(*size))).collect();
        let pairs = to_json(&pairs);
        self.run(sqlx::query(include_str!("sql/insert_awaited.sql")).bind(pairs.as_str())).await?;
        let link = sqlx::query(include_str!("sql/link_awaited.sql")).bind(repository_id);
        self.run(link.bind(pairs.as_str())).await?;
        Ok(())
    }
}

#[async_trait]
impl Mirroring for SqliteStore {
    async fn tag_checked(&self, repository: &Name, tag: &Tag) -> Result<Option<Duration>, Error> {
        let select = sqlx::query_as(include_str!("sql/tag_checked.sql"));
        let found: Option<(i64,)> =
            self.readers.one(select.bind(repository.as_str()).bind(tag.as_str())).await?;
        Ok(found.map(|(ago,)| duration(ago)))
    }

    async fn note_tag_checked(&self, repository: &Name, tag: &Tag, ago: Duration) -> Result<(), Error> {
        let note = sqlx::query(include_str!("sql/note_tag_checked.sql"))
            .bind(repository.as_str())
            .bind(tag.as_str())
            .bind(micros(ago));
        self.writer.note(note).await.map(drop)
    }

    async fn tag_states(
        &self,
        repository: &Name,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagState>, Error> {
        let select = sqlx::query_as(include_str!("sql/tag_states.sql"))
            .bind(repository.as_str())
            .bind(after.unwrap_or_default())
            .bind(limit);
        let rows: Vec<StateColumns> = self.readers.all(select).await?;
        rows.into_iter().map(StateColumns::read).collect()
    }

    async fn note_seen(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<Duration, Error> {
        let note = sqlx::query(include_str!("sql/note_seen.sql"))
            .bind(repository.as_str())
            .bind(tag.as_str())
            .bind(digest.to_bytes());
        self.writer.note(note).await?;
        let seen = self.seen(repository, tag).await?;
        Ok(seen.filter(|(now, _)| now == digest).map(|(_, ago)| ago).unwrap_or_default())
    }

    async fn seen(&self, repository: &Name, tag: &Tag) -> Result<Option<(Digest, Duration)>, Error> {
        let select = sqlx::query_as(include_str!("sql/seen.sql"));
        let found: Option<(Vec<u8>, i64)> =
            self.readers.one(select.bind(repository.as_str()).bind(tag.as_str())).await?;
        let read = |(bytes, ago): (Vec<u8>, i64)| Ok((values::digest("mirror_seen", &bytes)?, duration(ago)));
        found.map(read).transpose()
    }

    async fn awaited_blob(&self, repository: &Name, digest: &Digest) -> Result<Option<u64>, Error> {
        let select = sqlx::query_as(include_str!("sql/awaited_blob.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes());
        let found: Option<(i64,)> = self.readers.one(select).await?;
        found.map(|(size,)| number("blobs", size)).transpose()
    }

    async fn claim_fetch(
        &self,
        what: &str,
        owner: Uuid,
        progress: Fetched,
        lease: Duration,
    ) -> Result<Claim, Error> {
        let mut tx = self.writer.begin().await?;
        let claim = sqlx::query(include_str!("sql/claim_fetch.sql"))
            .bind(what)
            .bind(owner)
            .bind(micros(lease))
            .bind(integer(progress.done))
            .bind(integer(progress.total));
        let is_ours = tx.run(claim).await? > 0;
        let select = sqlx::query_as("SELECT done, total FROM fetches WHERE what = ?1").bind(what);
        let (done, total): (i64, i64) = tx.single(select).await?;
        tx.commit_unflushed().await?;
        if is_ours {
            return Ok(Claim::Ours);
        }
        Ok(Claim::Theirs(Fetched { done: number("fetches", done)?, total: number("fetches", total)? }))
    }

    async fn end_fetch(&self, what: &str, owner: Uuid) -> Result<(), Error> {
        let end = "DELETE FROM fetches WHERE what = ?1 AND owner = ?2";
        self.writer.note(sqlx::query(end).bind(what).bind(owner)).await.map(drop)
    }

    async fn upstream_limits(&self, upstream: &str) -> Result<UpstreamLimits, Error> {
        let select = sqlx::query_as(include_str!("sql/upstream_limits.sql")).bind(upstream);
        let found: Option<(Option<i64>, Option<i64>, Option<i64>)> = self.readers.one(select).await?;
        let (paused, scarce, busy) = found.unwrap_or_default();
        Ok(UpstreamLimits { paused: left(paused), scarce: left(scarce), busy: left(busy) })
    }

    async fn take_turns(&self, upstream: &str, wanted: TurnsWanted) -> Result<Option<TurnsTaken>, Error> {
        let mut tx = self.writer.begin().await?;
        let take = sqlx::query_as(include_str!("sql/take_turns.sql"))
            .bind(upstream)
            .bind(micros(wanted.pace * wanted.count))
            .bind(micros(wanted.within));
        let taken: Option<(i64, Option<i64>)> = tx.one(take).await?;
        tx.commit_unflushed().await?;
        Ok(taken.map(|(first_in, scarce)| TurnsTaken { first_in: duration(first_in), scarce: left(scarce) }))
    }

    async fn note_upstream_limits(&self, upstream: &str, limits: NewLimits) -> Result<(), Error> {
        let note = sqlx::query(include_str!("sql/note_upstream_limits.sql"))
            .bind(upstream)
            .bind(limits.pause.map(micros))
            .bind(limits.scarce_for.map(micros));
        self.writer.note(note).await.map(drop)
    }
}
