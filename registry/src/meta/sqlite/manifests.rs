// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pushing a manifest: pin what it refers to and intend its records; when they are in the bucket, publish.

use serde::Serialize;
use stowage_oci::Digest;
use uuid::Uuid;

use super::SqliteStore;
use super::queue::{Kind, Owed};
use super::tags::Push;
use super::tx::Tx;
use super::values::{digest as digest_column, digests_json, micros, to_json};
use crate::meta::steps::{intended_keys, lane, withdraw_manifest, withdraw_tag};
use crate::meta::{
    Epoch, Error, ManifestFacts, ManifestId, Pin, PinOutcome, Pinned, PublishOutcome, TagRecord,
};

const PENDING: i64 = 0;
const LIVE: i64 = 1;

/// A tag in the row of an intent.
#[derive(Serialize)]
struct IntendedTag<'a> {
    name: &'a str,
    seq: u64,
    r#gen: Uuid,
}

impl<'a> From<&'a TagRecord> for IntendedTag<'a> {
    fn from(record: &'a TagRecord) -> Self {
        let TagRecord { tag, version, generation } = record;
        Self { name: tag.as_str(), seq: version.seq, r#gen: generation.to_uuid() }
    }
}

impl Tx<'_> {
    /// Those of `wanted` that the statement does not find in the repository.
    async fn missing(
        &mut self,
        select: &'static str,
        repository_id: i32,
        wanted: &[Digest],
    ) -> Result<Vec<Digest>, Error> {
        let query = sqlx::query_as(select).bind(repository_id).bind(digests_json(wanted));
        let rows: Vec<(Vec<u8>,)> = self.all(query).await?;
        let found: Vec<Digest> =
            rows.iter().map(|(bytes,)| digest_column("repo_blobs", bytes)).collect::<Result<_, _>>()?;
        let mut missing: Vec<Digest> = Vec::new();
        for digest in wanted {
            if !found.contains(digest) && !missing.contains(digest) {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }

    /// The row of a manifest, pending if it is new, with everything it refers to; and whether it is live.
    async fn hold_manifest(
        &mut self,
        store: &SqliteStore,
        repository_id: i32,
        facts: &ManifestFacts,
    ) -> Result<(ManifestId, bool), Error> {
        let upsert = sqlx::query_as(include_str!("sql/pin_manifest.sql"))
            .bind(repository_id)
            .bind(facts.digest.to_bytes())
            .bind(micros(store.options.intent))
            .bind(facts.media_type.as_str())
            .bind(facts.artifact_type.as_deref())
            .bind(facts.subject.map(|subject| subject.to_bytes()))
            .bind(facts.annotations.as_ref().map(to_json))
            .bind(facts.size)
            .bind(facts.body.as_deref());
        let (id, state): (i64, i64) = self.single(upsert).await?;
        for (statement, digests) in [
            (include_str!("sql/hold_links.sql"), &facts.blobs),
            (include_str!("sql/hold_children.sql"), &facts.children),
        ] {
            if !digests.is_empty() {
                self.run(sqlx::query(statement).bind(id).bind(repository_id).bind(digests_json(digests)))
                    .await?;
            }
        }
        Ok((ManifestId(id), state == LIVE))
    }

    /// A record for each tag of a push, in the order of their names.
    async fn tag_records(
        &mut self,
        epoch: Epoch,
        repository_id: i32,
        pin: &Pin,
    ) -> Result<Vec<TagRecord>, Error> {
        let mut tags = pin.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        let mut records = Vec::with_capacity(tags.len());
        for tag in &tags {
            let last = self.tag(repository_id, tag).await?.map(|row| row.generation);
            records.push(self.next_record(epoch, tag, last).await?);
        }
        Ok(records)
    }

    async fn intend_manifest(&mut self, store: &SqliteStore, pinned: &Pinned) -> Result<i64, Error> {
        let Pin { repository, facts, generation, .. } = &pinned.pin;
        let written = pinned.writes_record.then_some(facts);
        let keys = intended_keys(repository, written, *generation, &pinned.tags, facts.digest);
        let tags: Vec<IntendedTag<'_>> = pinned.tags.iter().map(IntendedTag::from).collect();
        let insert = sqlx::query_as(include_str!("sql/insert_intent.sql"))
            .bind(pinned.epoch.0)
            .bind(micros(store.options.intent))
            .bind("m")
            .bind(pinned.manifest.0)
            .bind(pinned.repository)
            .bind(generation.to_uuid())
            .bind((!tags.is_empty()).then(|| to_json(&tags)))
            .bind(to_json(&keys));
        let (id,) = self.single::<(i64,)>(insert).await?;
        Ok(id)
    }

    /// Takes back what a push wrote: nothing of it took effect.
    async fn withdraw(&mut self, pinned: &Pinned) -> Result<(), Error> {
        if pinned.writes_record {
            self.withdraw_record(pinned).await?;
        }
        let Pin { repository, facts, .. } = &pinned.pin;
        for record in &pinned.tags {
            let steps = withdraw_tag(repository, record, facts.digest);
            let lane = Some(lane(repository, &record.tag));
            self.owe(&Owed { steps, lane, ..Owed::default() }).await?;
        }
        Ok(())
    }

    /// Takes back the manifest record of a push.
    async fn withdraw_record(&mut self, pinned: &Pinned) -> Result<(), Error> {
        let Pin { repository, facts, generation, .. } = &pinned.pin;
        let steps = withdraw_manifest(repository, facts, *generation);
        self.owe(&Owed { steps, about: Some(pinned.manifest.0), ..Owed::default() }).await?;
        Ok(())
    }

    /// Makes the manifest live, or finds it so. `false`: it is not live, nor have we a record for it.
    async fn make_live(&mut self, pinned: &Pinned) -> Result<bool, Error> {
        let select = "SELECT state, gen FROM manifests WHERE id = ?1";
        let row: Option<(i64, Option<Uuid>)> =
            self.one(sqlx::query_as(select).bind(pinned.manifest.0)).await?;
        let ours = pinned.pin.generation.to_uuid();
        match row {
            Some((PENDING, _)) if pinned.writes_record => {
                let update = sqlx::query(include_str!("sql/publish_manifest.sql"));
                self.run(update.bind(pinned.manifest.0).bind(ours)).await?;
                Ok(true)
            }
            Some((LIVE, live)) => {
                if pinned.writes_record && live != Some(ours) {
                    self.withdraw_record(pinned).await?;
                }
                Ok(true)
            }
            // Trashed, gone, or pending again by somebody else though we wrote no record.
            _ => Ok(false),
        }
    }
}

impl SqliteStore {
    pub(super) async fn pin(&self, epoch: Epoch, pin: &Pin) -> Result<PinOutcome, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let repository = tx.repository(&pin.repository).await?;
        let facts = &pin.facts;
        let mut missing = tx.missing(include_str!("sql/pin_links.sql"), repository, &facts.blobs).await?;
        if pin.strict {
            missing
                .extend(tx.missing(include_str!("sql/pin_children.sql"), repository, &facts.children).await?);
        }
        if !missing.is_empty() {
            tx.rollback().await?;
            return Ok(PinOutcome::Missing(missing));
        }
        let (manifest, live) = tx.hold_manifest(self, repository, facts).await?;
        let tags = tx.tag_records(epoch, repository, pin).await?;
        let mut pinned =
            Pinned { epoch, intent: 0, repository, manifest, pin: pin.clone(), writes_record: !live, tags };
        pinned.intent = tx.intend_manifest(self, &pinned).await?;
        tx.commit_unflushed().await?;
        Ok(PinOutcome::Pinned(Box::new(pinned)))
    }

    pub(super) async fn publish(&self, pinned: &Pinned) -> Result<PublishOutcome, Error> {
        let mut tx = self.writer.begin_in(pinned.epoch).await?;
        if tx.take_intent(pinned.epoch, pinned.intent).await?.is_none() {
            // Somebody has judged it too old, and what becomes of its keys with it.
            tx.rollback().await?;
            return Ok(PublishOutcome::StartOver);
        }
        if !tx.make_live(pinned).await? {
            tx.withdraw(pinned).await?;
            tx.commit().await?;
            return Ok(PublishOutcome::StartOver);
        }
        let push = Push { pinned, tombstone_delay: self.options.tombstone_delay, grace: self.options.lease };
        for record in &pinned.tags {
            tx.publish_tag(&push, record).await?;
        }
        tx.candidate(Kind::Manifest, pinned.manifest.0, self.options.lease).await?;
        tx.commit().await?;
        Ok(PublishOutcome::Published)
    }
}
