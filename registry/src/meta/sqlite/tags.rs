// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Rows of tags. A row is as high as any record of its tag that may still be published; a deleted tag keeps
//! its row, so that a push which was ordered before the deletion loses here as it loses in the bucket.

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{digest as digest_column, integer, micros, parsed, unreadable};
use crate::key::{Generation, Key, Version};
use crate::meta::reconcile::TagFact;
use crate::meta::steps::{Push, remove, tag_key};
use crate::meta::{Candidate, Epoch, Error, ManifestId, TagRecord};

#[derive(sqlx::FromRow)]
pub(super) struct TagColumns {
    name: String,
    manifest_id: i64,
    digest: Vec<u8>,
    epoch: u32,
    seq: i64,
    r#gen: Uuid,
    prev_epoch: Option<u32>,
    prev_seq: Option<i64>,
    prev_gen: Option<Uuid>,
}

/// What a tag's row says.
pub(super) struct TagRow {
    pub(super) tag: Tag,
    pub(super) generation: Generation,
    version: Version,
    pub(super) manifest: i64,
    pub(super) digest: Digest,
    /// Set: the row is a tombstone, and this the record below it.
    pub(super) hidden: Option<(Version, Generation)>,
}

pub(super) fn version(epoch: u32, seq: i64) -> Result<Version, Error> {
    Ok(Version { epoch, seq: u64::try_from(seq).map_err(|error| unreadable("tags", error))? })
}

impl TagColumns {
    pub(super) fn into_row(self) -> Result<TagRow, Error> {
        let hidden = match (self.prev_epoch, self.prev_seq, self.prev_gen) {
            (Some(epoch), Some(seq), Some(generation)) => {
                Some((version(epoch, seq)?, Generation::from_uuid(generation)))
            }
            _ => None,
        };
        Ok(TagRow {
            tag: parsed("tags", &self.name)?,
            generation: Generation::from_uuid(self.r#gen),
            version: version(self.epoch, self.seq)?,
            manifest: self.manifest_id,
            digest: digest_column("tags", &self.digest)?,
            hidden,
        })
    }
}

impl TagRow {
    pub(super) fn is_trashed(&self) -> bool {
        self.hidden.is_some()
    }

    /// What a comparison with the bucket looks at.
    pub(super) fn fact(self) -> TagFact {
        let TagRow { tag, generation, version, digest, hidden, .. } = self;
        TagFact { tag, target: digest, version, generation, hidden }
    }

    /// Removes the records that the row stands for, once it is superseded: a tombstone outlives what it hides.
    fn removal(&self, repository: &Name) -> Vec<String> {
        let key = |(version, generation), target| tag_key(repository, &self.tag, version, generation, target);
        let own = (self.version, self.generation);
        match self.hidden {
            None => vec![remove(&key(own, Some(self.digest)))],
            Some(hidden) => vec![remove(&key(hidden, Some(self.digest))), remove(&key(own, None))],
        }
    }
}

impl Tx<'_> {
    pub(super) async fn tag(&mut self, repository_id: i32, tag: &Tag) -> Result<Option<TagRow>, Error> {
        let select = sqlx::query_as(include_str!("sql/tag.sql")).bind(repository_id).bind(tag.as_str());
        self.one::<TagColumns>(select).await?.map(TagColumns::into_row).transpose()
    }

    /// The next record of a tag: its place in the order, and a generation whose time is above the last one's.
    pub(super) async fn next_record(
        &mut self,
        epoch: Epoch,
        tag: &Tag,
        last: Option<Generation>,
    ) -> Result<TagRecord, Error> {
        let version = self.next_version(epoch).await?;
        let above = last.map_or(0, |last| last.milliseconds() + 1);
        let generation = Generation::at(self.milliseconds().await?.max(above));
        Ok(TagRecord { tag: tag.clone(), version, generation })
    }

    /// Lets a tag name the manifest of a push, unless it names something newer. `false`: it went with the manifest that
    /// it named, which was deleted since.
    pub(super) async fn publish_tag(
        &mut self,
        store: &SqliteStore,
        push: &Push,
        record: &TagRecord,
    ) -> Result<bool, Error> {
        let id = push.repository_id;
        if self.write_tag(include_str!("sql/insert_tag.sql"), id, record, push.manifest).await? {
            return Ok(true);
        }
        let old = self.tag(id, &record.tag).await?;
        let old = old.ok_or_else(|| unreadable("tags", "a row that conflicts but is not there"))?;
        if old.generation == record.generation {
            // Whoever compared the bucket with the database has adopted it.
            return Ok(true);
        }
        let moved = self.write_tag(include_str!("sql/move_tag.sql"), id, record, push.manifest).await?;
        let steps = if moved { old.removal(&push.repository) } else { vec![remove(&push.tag_key(record))] };
        let (after, lane) = (store.timings.tombstone_delay, Some(push.lane(record)));
        self.owe(&Owed { steps, after, lane, ..Owed::default() }).await?;
        if moved && old.manifest != push.manifest.0 {
            self.untagged(old.manifest, store.timings.lease).await?;
        }
        Ok(moved || !old.is_trashed() || self.is_live(old.manifest).await?)
    }

    async fn is_live(&mut self, manifest: i64) -> Result<bool, Error> {
        let live = sqlx::query_as("SELECT state = 1 FROM manifests WHERE id = ?1").bind(manifest);
        let (live,) = self.single::<(bool,)>(live).await?;
        Ok(live)
    }

    async fn write_tag(
        &mut self,
        statement: &'static str,
        repository_id: i32,
        record: &TagRecord,
        manifest: ManifestId,
    ) -> Result<bool, Error> {
        let query = sqlx::query(statement)
            .bind(repository_id)
            .bind(record.tag.as_str())
            .bind(manifest.0)
            .bind(record.version.epoch)
            .bind(integer(record.version.seq))
            .bind(record.generation.to_uuid())
            .bind(integer(record.generation.milliseconds() * 1000));
        Ok(self.run(query).await? > 0)
    }

    /// A manifest may have lost its last tag: its lease starts again.
    pub(super) async fn untagged(&mut self, manifest: i64, grace: Duration) -> Result<(), Error> {
        let touch = "UPDATE manifests SET touched = (SELECT now FROM clock) WHERE id = ?1";
        self.run(sqlx::query(touch).bind(manifest)).await?;
        // One in the trash, passed over for as long as the tag named it, is found by the sweep.
        self.candidate(Candidate::Manifest, manifest, grace).await
    }

    /// Puts a live tag into the trash; its tombstone.
    pub(super) async fn trash_tag(
        &mut self,
        epoch: Epoch,
        repository: (i32, &Name),
        live: &TagRow,
        retain: Duration,
    ) -> Result<Key, Error> {
        let TagRecord { tag, version, generation } =
            self.next_record(epoch, &live.tag, Some(live.generation)).await?;
        let update = sqlx::query(include_str!("sql/trash_tag.sql"))
            .bind(repository.0)
            .bind(tag.as_str())
            .bind(version.epoch)
            .bind(integer(version.seq))
            .bind(generation.to_uuid())
            .bind(micros(retain));
        self.run(update).await?;
        Ok(tag_key(repository.1, &tag, version, generation, None))
    }
}
