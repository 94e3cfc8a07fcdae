// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pushing a manifest: pin what it refers to and intend its records; when they are in the bucket, publish.

use std::time::Duration;

use serde::Serialize;
use stowage_oci::{Digest, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::queue::Owed;
use super::tx::Tx;
use super::values::{digest as digest_column, digests_json, micros, to_json};
use crate::key::Generation;
use crate::meta::steps::{Finished, Found, Push, remove};
use crate::meta::{
    Candidate, Epoch, Error, ManifestFacts, ManifestId, Pin, PinOutcome, Pinned, PublishOutcome, TagRecord,
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
            .bind(micros(store.timings.intent))
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

    /// An immutable tag that has another digest, did before it was deleted, or is about to get one.
    async fn taken(&mut self, repository_id: i32, pin: &Pin) -> Result<Option<Tag>, Error> {
        for tag in &pin.immutable {
            let named = self.tag(repository_id, tag).await?;
            let rivals = self.rivals(repository_id, tag).await?;
            if named.is_some_and(|row| row.digest != pin.facts.digest)
                || rivals.iter().any(|rival| rival.target != Some(pin.facts.digest))
            {
                return Ok(Some(tag.clone()));
            }
        }
        Ok(None)
    }

    async fn intend_manifest(
        &mut self,
        store: &SqliteStore,
        epoch: Epoch,
        push: &Push,
        generation: Generation,
    ) -> Result<i64, Error> {
        let keys: Vec<String> = push.keys().iter().map(ToString::to_string).collect();
        let tags: Vec<IntendedTag<'_>> = push.tags.iter().map(IntendedTag::from).collect();
        let insert = sqlx::query_as(include_str!("sql/insert_intent.sql"))
            .bind(epoch.0)
            .bind(micros(store.timings.intent))
            .bind("m")
            .bind(push.manifest.0)
            .bind(push.repository_id)
            .bind(generation.to_uuid())
            .bind((!tags.is_empty()).then(|| to_json(&tags)))
            .bind(to_json(&keys))
            .bind(push.ledger.as_deref().map(to_json));
        let (id,) = self.single::<(i64,)>(insert).await?;
        Ok(id)
    }

    /// Takes back what a push wrote: nothing of it took effect. A pending row that no other push is at is doomed.
    async fn withdraw(&mut self, push: &Push) -> Result<(), Error> {
        let doom = sqlx::query(include_str!("sql/doom_pending.sql")).bind(push.manifest.0);
        let doomed = self.run(doom).await? > 0;
        let then = doomed.then_some(Candidate::Manifest);
        if push.record.is_some() || doomed {
            let steps = push.record.iter().flat_map(|record| push.withdraw_record(record)).collect();
            self.owe(&Owed { steps, then, about: Some(push.manifest.0), ..Owed::default() }).await?;
        }
        for record in &push.tags {
            self.withdraw_tag(push, record).await?;
        }
        self.withdraw_ledger(push).await
    }

    async fn withdraw_ledger(&mut self, push: &Push) -> Result<(), Error> {
        self.discard(push.ledger_key().iter().map(remove).collect(), Duration::ZERO).await
    }

    /// The row of the promotion that the push carries out. Without its record the tag is set, and nothing tells why.
    async fn record_promotion(&mut self, push: &Push, found: Found<'_>) -> Result<(), Error> {
        let (Some(record), Some(key), Some(set)) = (&push.ledger, push.ledger_key(), push.tags.first())
        else {
            return Ok(());
        };
        if !found.has(&key) {
            return self.withdraw_ledger(push).await;
        }
        self.insert_promotion(set.version, set.generation, record).await
    }

    async fn withdraw_tag(&mut self, push: &Push, record: &TagRecord) -> Result<(), Error> {
        let (steps, lane) = (push.withdraw_tag(record), Some(push.lane(record)));
        self.owe(&Owed { steps, lane, ..Owed::default() }).await?;
        Ok(())
    }

    /// Makes the manifest live by our record, if that is there, or finds it so. `false`: it is not live.
    async fn make_live(&mut self, push: &Push, found: Found<'_>) -> Result<bool, Error> {
        let select = "SELECT state, gen FROM manifests WHERE id = ?1";
        let row: Option<(i64, Option<Uuid>)> = self.one(sqlx::query_as(select).bind(push.manifest.0)).await?;
        match (row, &push.record) {
            (Some((PENDING, _)), Some(record)) if found.record(push) => {
                let update = sqlx::query(include_str!("sql/publish_manifest.sql"));
                self.run(update.bind(push.manifest.0).bind(record.generation.to_uuid())).await?;
                Ok(true)
            }
            (Some((LIVE, by)), Some(record)) if by != Some(record.generation.to_uuid()) => {
                let steps = push.withdraw_record(record);
                self.owe(&Owed { steps, about: Some(push.manifest.0), ..Owed::default() }).await?;
                Ok(true)
            }
            (Some((LIVE, _)), _) => Ok(true),
            // Trashed, gone, or pending by somebody else.
            _ => Ok(false),
        }
    }

    /// Makes a push take effect, as far as what it wrote was `found` in the bucket.
    pub(super) async fn finish_push(
        &mut self,
        store: &SqliteStore,
        push: &Push,
        found: Found<'_>,
    ) -> Result<Finished, Error> {
        if !self.make_live(push, found).await? {
            self.withdraw(push).await?;
            return Ok(Finished::Withdrawn);
        }
        let mut finished = Finished::Done;
        for record in &push.tags {
            if !found.has(&push.tag_key(record)) {
                self.withdraw_tag(push, record).await?;
            } else if !self.publish_tag(store, push, record).await? {
                finished = Finished::Swept;
            }
        }
        self.record_promotion(push, found).await?;
        self.candidate(Candidate::Manifest, push.manifest.0, store.timings.lease).await?;
        Ok(finished)
    }
}

impl SqliteStore {
    pub(super) async fn pin(&self, epoch: Epoch, pin: &Pin) -> Result<PinOutcome, Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let repository = tx.repository(&pin.repository).await?;
        let facts = &pin.facts;
        if let Some(tag) = tx.taken(repository, pin).await? {
            tx.rollback().await?;
            return Ok(PinOutcome::Immutable(tag));
        }
        let mut missing = if pin.awaited.is_empty() {
            tx.missing(include_str!("sql/pin_links.sql"), repository, &facts.blobs).await?
        } else {
            tx.await_blobs(repository, &pin.awaited).await?;
            Vec::new()
        };
        if pin.strict {
            missing
                .extend(tx.missing(include_str!("sql/pin_children.sql"), repository, &facts.children).await?);
        }
        if !missing.is_empty() {
            tx.rollback().await?;
            return Ok(PinOutcome::Missing(missing));
        }
        let (manifest, live) = tx.hold_manifest(self, repository, facts).await?;
        let mut tags = tx.tag_records(epoch, repository, pin).await?;
        if let Some(copied) = &pin.copied {
            for record in &mut tags {
                if !tx.is_unmoved(repository, copied, record).await? {
                    tx.rollback().await?;
                    return Ok(PinOutcome::Moved);
                }
            }
        }
        if let Some(record) = &pin.ledger
            && !tx.is_as_decided(repository, record).await?
        {
            tx.rollback().await?;
            return Ok(PinOutcome::Moved);
        }
        let mut pinned =
            Pinned { epoch, intent: 0, repository, manifest, pin: pin.clone(), writes_record: !live, tags };
        let push = Push::from(&pinned);
        pinned.intent = tx.intend_manifest(self, epoch, &push, pin.generation).await?;
        tx.commit_unflushed().await?;
        Ok(PinOutcome::Pinned(Box::new(pinned)))
    }

    pub(super) async fn publish(&self, pinned: &Pinned) -> Result<PublishOutcome, Error> {
        let Some(mut tx) = self.take(pinned).await? else {
            // Somebody has ended it: we, and the answer was lost, or a reaper.
            let found = self.find_effect(pinned.epoch, pinned).await?;
            return Ok(if found { PublishOutcome::Published } else { PublishOutcome::StartOver });
        };
        let finished = tx.finish_push(self, &Push::from(pinned), Found::All).await?;
        if finished == Finished::Swept {
            tx.rollback().await?;
            return self.take_back(pinned).await;
        }
        tx.commit().await?;
        Ok(if finished == Finished::Done { PublishOutcome::Published } else { PublishOutcome::StartOver })
    }

    pub(super) async fn find_effect(&self, epoch: Epoch, pinned: &Pinned) -> Result<bool, Error> {
        let tags: Vec<IntendedTag<'_>> = pinned.tags.iter().map(IntendedTag::from).collect();
        let mut tx = self.writer.begin_in(epoch).await?;
        let select = sqlx::query_as(include_str!("sql/took_effect.sql"))
            .bind(pinned.pin.repository.as_str())
            .bind(pinned.pin.facts.digest.to_bytes())
            .bind(pinned.epoch.0)
            .bind(to_json(&tags))
            .bind(to_json(&pinned.pin.immutable))
            .bind(pinned.promotes().map(Generation::to_uuid));
        let (found,) = tx.single::<(bool,)>(select).await?;
        tx.rollback().await?;
        Ok(found)
    }

    /// Takes back all of a push, nothing of which anybody has seen in the database.
    async fn take_back(&self, pinned: &Pinned) -> Result<PublishOutcome, Error> {
        if let Some(mut tx) = self.take(pinned).await? {
            tx.withdraw(&Push::from(pinned)).await?;
            tx.commit().await?;
        }
        Ok(PublishOutcome::StartOver)
    }

    /// Begins a transaction that ends a push. `None`: it was judged too old, and what becomes of its keys with it.
    async fn take(&self, pinned: &Pinned) -> Result<Option<Tx<'_>>, Error> {
        let mut tx = self.writer.begin_in(pinned.epoch).await?;
        if tx.take_intent(pinned.epoch, pinned.intent, pinned.pin.generation).await?.is_some() {
            return Ok(Some(tx));
        }
        tx.rollback().await?;
        Ok(None)
    }
}
