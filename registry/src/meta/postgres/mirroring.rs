// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Mirroring`], and the rows of content that is awaited from an upstream.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::tx::{Connection, read, write};
use super::{PostgresStore, row, seconds, tags};
use crate::key::Generation;
use crate::meta::{
    Claim, Copied, Error, Fetched, Mirroring, NewLimits, RepositoryId, TagRecord, TagState, TurnsTaken,
    TurnsWanted, UpstreamLimits,
};

/// Makes hidden links to `awaited`, digests and lengths, where the repository has none.
pub(super) async fn await_blobs(
    tx: &mut Connection,
    repo_id: RepositoryId,
    awaited: &[(Digest, u64)],
) -> Result<(), Fault> {
    let digests: Vec<Vec<u8>> = awaited.iter().map(|(digest, _)| digest.to_bytes()).collect();
    let sizes = awaited.iter().map(|(_, size)| row::stored(*size)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(include_str!("sql/insert_awaited.sql")).bind(&digests).bind(sizes).execute(&mut *tx).await?;
    sqlx::query(include_str!("sql/lock_awaited.sql")).bind(&digests).execute(&mut *tx).await?;
    sqlx::query(include_str!("sql/link_awaited.sql")).bind(repo_id).bind(&digests).execute(tx).await?;
    Ok(())
}

/// Lets no pin of the repository begin until this transaction ends, and waits for those that have.
pub(super) async fn bar_pins(tx: &mut Connection, repo_id: RepositoryId) -> Result<(), Fault> {
    sqlx::query(include_str!("sql/bar_pins.sql")).bind(repo_id).execute(tx).await?;
    Ok(())
}

/// Says to whoever bars pins that there is one.
pub(super) async fn join_pins(tx: &mut Connection, repo_id: RepositoryId) -> Result<(), Fault> {
    sqlx::query(include_str!("sql/join_pins.sql")).bind(repo_id).execute(tx).await?;
    Ok(())
}

/// Whether a tag is what it was when it was decided to copy it, and nobody else is about to set it. The record says
/// then when its origin set it, and which mirror copies it. In a statement after pins are barred.
pub(super) async fn is_unmoved(
    tx: &mut Connection,
    repo_id: RepositoryId,
    copied: &Copied,
    record: &mut TagRecord,
) -> Result<bool, Fault> {
    // Locked: a deletion that has begun is waited for.
    let select = "SELECT gen FROM tags WHERE repo_id = $1 AND name = $2 FOR UPDATE";
    let now: Option<Uuid> =
        sqlx::query_scalar(select).bind(repo_id).bind(record.tag.as_str()).fetch_optional(&mut *tx).await?;
    let rivals = tags::rivals(tx, repo_id, &record.tag).await?;
    let is_rivalled = rivals.iter().any(|rival| !copied.is_by_its_mirror(rival.generation));
    record.generation = copied.generation(record.generation);
    Ok(!is_rivalled && now.map(Generation::from_uuid) == copied.over)
}

/// What is left of a time, if any is.
fn left(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(row::duration).filter(|left| !left.is_zero())
}

#[derive(sqlx::FromRow)]
struct StateColumns {
    name: String,
    digest: Vec<u8>,
    generation: Uuid,
    is_deleted: bool,
}

impl StateColumns {
    fn read(self) -> Result<TagState, Error> {
        Ok(TagState {
            tag: row::parsed("tags", &self.name)?,
            target: row::digest("manifests", &self.digest)?,
            generation: Generation::from_uuid(self.generation),
            is_deleted: self.is_deleted,
        })
    }
}

impl PostgresStore {
    async fn try_claim_fetch(
        &self,
        what: &str,
        owner: Uuid,
        progress: Fetched,
        lease: Duration,
    ) -> Result<Claim, Fault> {
        let claim = sqlx::query(include_str!("sql/claim_fetch.sql"))
            .bind(what)
            .bind(owner)
            .bind(seconds(lease))
            .bind(row::stored(progress.done)?)
            .bind(row::stored(progress.total)?);
        if self.changes(claim).await? {
            return Ok(Claim::Ours);
        }
        let select = sqlx::query_as("SELECT done, total FROM fetches WHERE what = $1").bind(what);
        // It may have ended since.
        let (done, total): (i64, i64) = self.row(select).await?.unwrap_or_default();
        Ok(Claim::Theirs(Fetched {
            done: row::number("fetches", done)?,
            total: row::number("fetches", total)?,
        }))
    }
}

#[async_trait]
impl Mirroring for PostgresStore {
    async fn tag_checked(&self, repository: &Name, tag: &Tag) -> Result<Option<Duration>, Error> {
        let select = sqlx::query_as(include_str!("sql/tag_checked.sql"));
        let found: Option<(f64,)> =
            read(self.row(select.bind(repository.as_str()).bind(tag.as_str()))).await?;
        Ok(found.map(|(ago,)| row::duration(ago)))
    }

    async fn note_tag_checked(&self, repository: &Name, tag: &Tag, ago: Duration) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/note_tag_checked.sql"))
                .bind(repository.as_str())
                .bind(tag.as_str())
                .bind(seconds(ago))
        })
        .await
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
            .bind(i64::from(limit));
        let rows: Vec<StateColumns> = read(self.rows(select)).await?;
        rows.into_iter().map(StateColumns::read).collect()
    }

    async fn note_seen(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<Duration, Error> {
        let noted = write(async || {
            let note = sqlx::query_as(include_str!("sql/note_seen.sql"))
                .bind(repository.as_str())
                .bind(tag.as_str())
                .bind(digest.to_bytes());
            self.row(note).await
        });
        let ago: Option<(f64,)> = noted.await?;
        Ok(ago.map(|(ago,)| row::duration(ago)).unwrap_or_default())
    }

    async fn seen(&self, repository: &Name, tag: &Tag) -> Result<Option<(Digest, Duration)>, Error> {
        let select = sqlx::query_as(include_str!("sql/seen.sql"));
        let found: Option<(Vec<u8>, f64)> =
            read(self.row(select.bind(repository.as_str()).bind(tag.as_str()))).await?;
        let read =
            |(digest, ago): (Vec<u8>, f64)| Ok((row::digest("mirror_seen", &digest)?, row::duration(ago)));
        found.map(read).transpose()
    }

    async fn awaited_blob(&self, repository: &Name, digest: &Digest) -> Result<Option<u64>, Error> {
        let select = sqlx::query_as(include_str!("sql/awaited_blob.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes());
        let found: Option<(i64,)> = read(self.row(select)).await?;
        found.map(|(size,)| row::number("blobs", size)).transpose()
    }

    async fn claim_fetch(
        &self,
        what: &str,
        owner: Uuid,
        progress: Fetched,
        lease: Duration,
    ) -> Result<Claim, Error> {
        write(|| self.try_claim_fetch(what, owner, progress, lease)).await
    }

    async fn end_fetch(&self, what: &str, owner: Uuid) -> Result<(), Error> {
        let ended = write(async || {
            let end = "DELETE FROM fetches WHERE what = $1 AND owner = $2";
            self.changes(sqlx::query(end).bind(what).bind(owner)).await
        });
        ended.await.map(drop)
    }

    async fn upstream_limits(&self, upstream: &str) -> Result<UpstreamLimits, Error> {
        let select = sqlx::query_as(include_str!("sql/upstream_limits.sql")).bind(upstream);
        let found: Option<(Option<f64>, Option<f64>, Option<f64>)> = read(self.row(select)).await?;
        let (paused, scarce, busy) = found.unwrap_or_default();
        Ok(UpstreamLimits { paused: left(paused), scarce: left(scarce), busy: left(busy) })
    }

    async fn take_turns(&self, upstream: &str, wanted: TurnsWanted) -> Result<Option<TurnsTaken>, Error> {
        let taken = write(async || {
            let take = sqlx::query_as(include_str!("sql/take_turns.sql"))
                .bind(upstream)
                .bind(seconds(wanted.pace * wanted.count))
                .bind(seconds(wanted.within));
            self.row(take).await
        });
        let taken: Option<(f64, Option<f64>)> = taken.await?;
        Ok(taken
            .map(|(first_in, scarce)| TurnsTaken { first_in: row::duration(first_in), scarce: left(scarce) }))
    }

    async fn note_upstream_limits(&self, upstream: &str, limits: NewLimits) -> Result<(), Error> {
        let noted = write(async || {
            let note = sqlx::query(include_str!("sql/note_upstream_limits.sql"))
                .bind(upstream)
                .bind(limits.pause.map(seconds))
                .bind(limits.scarce_for.map(seconds));
            self.changes(note).await
        });
        noted.await.map(drop)
    }
}
