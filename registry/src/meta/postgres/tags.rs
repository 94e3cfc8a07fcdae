// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags: a place in the order, moving forward, tombstones.
//!
//! The order is (epoch, seq): a row only ever gets a higher one. What a row stops naming is queued in the
//! tag's lane.

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::queue::Removals;
use super::tx::Connection;
use super::{row, seconds};
use crate::key::{Generation, Version};
use crate::meta::steps::{Push, Rival, remove, tag_key, write};
use crate::meta::{Epoch, Error, RepositoryId, TagRecord};

/// What pushes that are under way are about to give the tag.
pub(super) async fn rivals(
    tx: &mut Connection,
    repo_id: RepositoryId,
    tag: &Tag,
) -> Result<Vec<Rival>, Fault> {
    let keys: Vec<Vec<String>> = sqlx::query_scalar(include_str!("sql/intended_keys.sql"))
        .bind(repo_id)
        .bind(tag.as_str())
        .fetch_all(tx)
        .await?;
    Ok(Rival::of(tag, &keys.concat()))
}

/// Gives each tag the next place in its order, in name order. The records' times are the database's, above
/// those of the records before them.
pub(super) async fn place(
    tx: &mut Connection,
    epoch: Epoch,
    repo_id: RepositoryId,
    tags: &[Tag],
) -> Result<Vec<TagRecord>, Fault> {
    let names = distinct(tags);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let placed: Vec<(String, i64, i64)> =
        sqlx::query_as(include_str!("sql/place_tags.sql")).bind(repo_id).bind(&names).fetch_all(tx).await?;
    Ok(records(epoch, placed)?)
}

/// In name order, once each.
pub(super) fn distinct(tags: &[Tag]) -> Vec<&str> {
    let mut names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Names, places in the order and milliseconds as records, in name order.
pub(super) fn records(epoch: Epoch, placed: Vec<(String, i64, i64)>) -> Result<Vec<TagRecord>, Error> {
    let records = placed.into_iter().map(|(name, seq, milliseconds)| {
        Ok(TagRecord {
            tag: row::parsed("tags", &name)?,
            version: Version { epoch: epoch.0, seq: row::number("tags", seq)? },
            generation: Generation::at(row::number("tags", milliseconds)?),
        })
    });
    let mut records = records.collect::<Result<Vec<_>, Error>>()?;
    records.sort_by(|a, b| a.tag.as_str().cmp(b.tag.as_str()));
    Ok(records)
}

#[derive(sqlx::FromRow)]
struct TagColumns {
    manifest_id: i64,
    epoch: i64,
    seq: i64,
    generation: Uuid,
    trashed: bool,
    prev_epoch: Option<i64>,
    prev_seq: Option<i64>,
    prev_generation: Option<Uuid>,
}

pub(super) fn version(epoch: i64, seq: i64) -> Result<Version, Error> {
    Ok(Version { epoch: row::number("tags", epoch)?, seq: row::number("tags", seq)? })
}

impl TagColumns {
    fn version(&self) -> Result<Version, Error> {
        version(self.epoch, self.seq)
    }

    /// The records that the row stands for, all of which something higher replaces: what a tombstone hides goes
    /// before it.
    fn superseded(&self, repository: &Name, tag: &Tag, target: Digest) -> Result<Vec<String>, Error> {
        let own = Generation::from_uuid(self.generation);
        let own_target = (!self.trashed).then_some(target);
        let mut steps = Vec::new();
        if let (Some(epoch), Some(seq), Some(generation)) =
            (self.prev_epoch, self.prev_seq, self.prev_generation)
        {
            let hidden = Generation::from_uuid(generation);
            steps.push(remove(&tag_key(repository, tag, version(epoch, seq)?, hidden, Some(target))));
        }
        steps.push(remove(&tag_key(repository, tag, self.version()?, own, own_target)));
        Ok(steps)
    }
}

pub(super) fn order(version: Version) -> Result<(i64, i64), Error> {
    Ok((i64::from(version.epoch), row::stored(version.seq)?))
}

async fn insert(tx: &mut Connection, push: &Push, record: &TagRecord) -> Result<bool, Fault> {
    let (epoch, seq) = order(record.version)?;
    let inserted = sqlx::query(include_str!("sql/insert_tag.sql"))
        .bind(push.repository_id)
        .bind(record.tag.as_str())
        .bind(push.manifest.0)
        .bind(epoch)
        .bind(seq)
        .bind(record.generation.to_uuid())
        .bind(row::stored(record.generation.milliseconds())?)
        .execute(tx)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn update(tx: &mut Connection, push: &Push, record: &TagRecord) -> Result<(), Fault> {
    let (epoch, seq) = order(record.version)?;
    sqlx::query(include_str!("sql/move_tag.sql"))
        .bind(push.repository_id)
        .bind(record.tag.as_str())
        .bind(push.manifest.0)
        .bind(epoch)
        .bind(seq)
        .bind(record.generation.to_uuid())
        .bind(row::stored(record.generation.milliseconds())?)
        .execute(tx)
        .await?;
    Ok(())
}

/// What became of a tag that a push is to move.
pub(super) enum Moved {
    /// It names what was pushed, or something newer, or was deleted since. The row of the manifest that it named
    /// before, if that is another.
    From(Option<i64>),
    /// It went with the manifest that it named, which was deleted since: nobody has deleted the tag itself.
    Swept,
}

/// Makes the tag name the pushed manifest unless it names something newer, or is deleted since.
pub(super) async fn move_tag(
    tx: &mut Connection,
    push: &Push,
    record: &TagRecord,
    delay: Duration,
) -> Result<Moved, Fault> {
    let (repository, tag) = (&push.repository, &record.tag);
    let lane = Some(push.lane(record));
    loop {
        // Inserted first: reading before would miss a row made in between, and leak the loser's record.
        if insert(&mut *tx, push, record).await? {
            return Ok(Moved::From(None));
        }
        let found: Option<TagColumns> = sqlx::query_as(include_str!("sql/lock_tag.sql"))
            .bind(push.repository_id)
            .bind(tag.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        // Purged between the statements.
        let Some(old) = found else { continue };
        if old.generation == record.generation.to_uuid() {
            // Whoever compared the bucket with the database has adopted it.
            return Ok(Moved::From(None));
        }
        if old.version()? > record.version {
            let steps = vec![remove(&push.tag_key(record))];
            Removals { steps, lane, ..Removals::default() }.queue(&mut *tx, delay).await?;
            let swept = old.trashed && !is_live(tx, old.manifest_id).await?;
            return Ok(if swept { Moved::Swept } else { Moved::From(None) });
        }
        let target = manifest_digest(&mut *tx, old.manifest_id).await?;
        update(&mut *tx, push, record).await?;
        let steps = old.superseded(repository, tag, target)?;
        Removals { steps, lane, ..Removals::default() }.queue(tx, delay).await?;
        return Ok(Moved::From((old.manifest_id != push.manifest.0).then_some(old.manifest_id)));
    }
}

/// A statement of its own: one that waits for the tag would join the manifest that it named before.
async fn manifest_digest(tx: &mut Connection, manifest: i64) -> Result<Digest, Fault> {
    let bytes: Vec<u8> =
        sqlx::query_scalar("SELECT digest FROM manifests WHERE id = $1").bind(manifest).fetch_one(tx).await?;
    Ok(row::digest("manifests", &bytes)?)
}

/// In a statement after the lock of its tag: the deletion that trashed both is seen.
async fn is_live(tx: &mut Connection, manifest: i64) -> Result<bool, Fault> {
    let live = sqlx::query_scalar("SELECT state = 1 FROM manifests WHERE id = $1").bind(manifest);
    Ok(live.fetch_one(tx).await?)
}

/// Puts tags, whose rows are locked, into the trash. The places of their tombstones, in name order.
pub(super) async fn trash(
    tx: &mut Connection,
    epoch: Epoch,
    repo_id: RepositoryId,
    tags: &[Tag],
    rest: Duration,
) -> Result<Vec<TagRecord>, Fault> {
    let records = place(&mut *tx, epoch, repo_id, tags).await?;
    if records.is_empty() {
        return Ok(records);
    }
    let places = records.iter().map(|record| row::stored(record.version.seq));
    sqlx::query(include_str!("sql/trash_tags.sql"))
        .bind(repo_id)
        .bind(i64::from(epoch.0))
        .bind(seconds(rest))
        .bind(records.iter().map(|record| record.tag.as_str()).collect::<Vec<_>>())
        .bind(places.collect::<Result<Vec<i64>, _>>()?)
        .bind(records.iter().map(|record| record.generation.to_uuid()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(records)
}

/// Writes the tombstone of a tag at this place.
pub(super) fn write_tombstone(repository: &Name, record: &TagRecord) -> String {
    write(&tag_key(repository, &record.tag, record.version, record.generation, None))
}
