// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Manifests: pin what a push refers to, then make it live and move its tags.
//!
//! The usual push, of an image under new tags, is a statement and its intent, then a statement. They do all or
//! nothing of their part; for what they do not fit the steps follow one by one.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::types::Json;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::ledger::{insert_promotion, is_as_decided};
use super::mirroring::{await_blobs, bar_pins, is_unmoved, join_pins};
use super::queue::{Removals, candidates};
use super::receive::ensure_repository;
use super::tags::{Moved, distinct, move_tag, place, records};
use super::tx::{Connection, Tx, write};
use super::{PostgresStore, row, seconds, tags};
use crate::key::Generation;
use crate::meta::steps::{Finished, Found, Push, Record, remove};
use crate::meta::{
    Candidate, DeleteOutcome, Epoch, Error, ManifestFacts, ManifestId, Pin, PinOutcome, Pinned, Publish,
    PublishOutcome, Removal, RepositoryId, Spared, TagRecord,
};

/// What a pin holds by now.
struct Targets {
    /// Rows of the links to the manifest's own blobs.
    links: Vec<i64>,
    /// What is not there and must be.
    missing: Vec<Digest>,
}

/// Holds all that the manifest refers to: manifests by id, then links by digest.
async fn hold_targets(tx: &mut Connection, repo_id: RepositoryId, pin: &Pin) -> Result<Targets, Fault> {
    let ManifestFacts { blobs, children, .. } = &pin.facts;
    let manifests = lock_children(&mut *tx, repo_id, children).await?;
    let wanted = blobs.iter().chain(children);
    let links = if pin.awaited.is_empty() {
        lock_links(&mut *tx, repo_id, include_str!("sql/lock_links.sql"), wanted).await?
    } else {
        await_blobs(&mut *tx, repo_id, &pin.awaited).await?;
        lock_links(&mut *tx, repo_id, include_str!("sql/lock_all_links.sql"), wanted).await?
    };
    let own: HashSet<&Digest> = blobs.iter().collect();
    let linked: HashSet<Digest> = links.iter().map(|(_, digest)| *digest).collect();
    let mut seen = HashSet::new();
    let lacking = blobs.iter().filter(|digest| !linked.contains(*digest));
    // Children may be blobs, and may come later.
    let strict = children.iter().filter(|_| pin.strict);
    let strict = strict.filter(|child| !manifests.contains(*child) && !linked.contains(*child));
    let missing = lacking.chain(strict).filter(|digest| seen.insert(**digest)).copied().collect();
    let links = links.iter().filter(|(_, digest)| own.contains(digest)).map(|(link, _)| *link).collect();
    Ok(Targets { links, missing })
}

/// An immutable tag that has another digest, or is about to get one. Other pins are barred.
async fn taken(tx: &mut Connection, repo_id: RepositoryId, pin: &Pin) -> Result<Option<Tag>, Fault> {
    if pin.immutable.is_empty() {
        return Ok(None);
    }
    let named: Option<String> = sqlx::query_scalar(include_str!("sql/taken_tag.sql"))
        .bind(repo_id)
        .bind(distinct(&pin.immutable))
        .bind(pin.facts.digest.to_bytes())
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(name) = named {
        return Ok(Some(row::parsed("tags", &name)?));
    }
    for tag in &pin.immutable {
        let rivals = tags::rivals(&mut *tx, repo_id, tag).await?;
        if rivals.iter().any(|rival| rival.target != Some(pin.facts.digest)) {
            return Ok(Some(tag.clone()));
        }
    }
    Ok(None)
}

/// A manifest that is pinned, but for its intent.
struct Held {
    repository: RepositoryId,
    manifest: i64,
    writes_record: bool,
    tags: Vec<TagRecord>,
}

#[derive(sqlx::FromRow)]
struct HeldColumns {
    repo_id: RepositoryId,
    id: i64,
    pending: bool,
    name: Option<String>,
    seq: Option<i64>,
    milliseconds: Option<i64>,
}

async fn lock_children(
    tx: &mut Connection,
    repo_id: RepositoryId,
    children: &[Digest],
) -> Result<HashSet<Digest>, Fault> {
    if children.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<Vec<u8>> = sqlx::query_scalar(include_str!("sql/lock_children.sql"))
        .bind(repo_id)
        .bind(row::digests(children))
        .fetch_all(tx)
        .await?;
    let digests = found.iter().map(|bytes| row::digest("manifests", bytes));
    Ok(digests.collect::<Result<_, Error>>()?)
}

async fn lock_links(
    tx: &mut Connection,
    repo_id: RepositoryId,
    statement: &'static str,
    digests: impl Iterator<Item = &Digest>,
) -> Result<Vec<(i64, Digest)>, Fault> {
    let wanted: Vec<Vec<u8>> = digests.map(Digest::to_bytes).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(statement).bind(repo_id).bind(wanted).fetch_all(tx).await?;
    let links = found.iter().map(|(id, bytes)| Ok((*id, row::digest("repo_blobs", bytes)?)));
    Ok(links.collect::<Result<_, Error>>()?)
}

async fn insert_references(
    tx: &mut Connection,
    manifest: i64,
    repo_id: RepositoryId,
    links: &[i64],
    children: &[Digest],
) -> Result<(), Fault> {
    if links.is_empty() && children.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/insert_references.sql"))
        .bind(manifest)
        .bind(links)
        .bind(repo_id)
        .bind(row::digests(children))
        .execute(tx)
        .await?;
    Ok(())
}

/// A tag of an intent, as its row has it.
#[derive(serde::Serialize)]
struct IntendedTag<'a> {
    name: &'a Tag,
    seq: u64,
}

/// Withdraws a manifest record; `then`: what is to follow for the manifest's row.
async fn withdraw_record(
    tx: &mut Connection,
    push: &Push,
    record: &Record,
    then: Option<&'static str>,
) -> Result<(), Fault> {
    let (steps, then_ref) = (push.withdraw_record(record), Some(push.manifest.0));
    Removals { steps, then_ref, then_kind: then, ..Removals::default() }.queue(tx, Duration::ZERO).await?;
    Ok(())
}

async fn withdraw_tag(tx: &mut Connection, push: &Push, record: &TagRecord) -> Result<(), Fault> {
    let (steps, lane) = (push.withdraw_tag(record), Some(push.lane(record)));
    Removals { steps, lane, ..Removals::default() }.queue(tx, Duration::ZERO).await?;
    Ok(())
}

/// Queues what a push wrote: nothing of it took effect. A pending row that no other push is at is doomed.
pub(super) async fn withdraw(tx: &mut Connection, push: &Push) -> Result<(), Fault> {
    let doomed = sqlx::query(include_str!("sql/doom_pending.sql"))
        .bind(push.manifest.0)
        .execute(&mut *tx)
        .await?
        .rows_affected()
        > 0;
    let then = doomed.then_some(Candidate::Manifest.code());
    match &push.record {
        Some(record) => withdraw_record(&mut *tx, push, record, then).await?,
        None if doomed => {
            let then_ref = Some(push.manifest.0);
            let forgotten = Removals { then_kind: then, then_ref, ..Removals::default() };
            forgotten.queue(&mut *tx, Duration::ZERO).await?;
        }
        None => {}
    }
    for record in &push.tags {
        withdraw_tag(&mut *tx, push, record).await?;
    }
    withdraw_ledger(tx, push).await
}

async fn withdraw_ledger(tx: &mut Connection, push: &Push) -> Result<(), Fault> {
    let steps: Vec<String> = push.ledger_key().iter().map(remove).collect();
    Ok(Removals::from(steps).queue_any(tx, Duration::ZERO).await?)
}

/// The row of the promotion that the push carries out. Without its record the tag is set, and nothing tells why.
async fn record_promotion(tx: &mut Connection, push: &Push, found: Found<'_>) -> Result<(), Fault> {
    let (Some(record), Some(key), Some(set)) = (&push.ledger, push.ledger_key(), push.tags.first()) else {
        return Ok(());
    };
    if !found.has(&key) {
        return withdraw_ledger(tx, push).await;
    }
    insert_promotion(tx, set.version, set.generation, record).await
}

/// Makes the manifest live by our record, if that is there, unless it is by another. `false`: it is not live.
async fn enliven(tx: &mut Connection, push: &Push, found: Found<'_>) -> Result<bool, Fault> {
    const PENDING: i16 = 0;
    const LIVE: i16 = 1;
    let row: Option<(i16, Option<Uuid>)> = sqlx::query_as(include_str!("sql/lock_published.sql"))
        .bind(push.manifest.0)
        .fetch_optional(&mut *tx)
        .await?;
    match (row, &push.record) {
        (Some((PENDING, _)), Some(record)) if found.record(push) => {
            sqlx::query(include_str!("sql/enliven.sql"))
                .bind(push.manifest.0)
                .bind(record.generation.to_uuid())
                .execute(tx)
                .await?;
            Ok(true)
        }
        (Some((LIVE, by)), Some(record)) if by != Some(record.generation.to_uuid()) => {
            withdraw_record(tx, push, record, None).await?;
            Ok(true)
        }
        (Some((LIVE, _)), _) => Ok(true),
        // Trashed, gone, or pending by somebody else.
        _ => Ok(false),
    }
}

impl PostgresStore {
    /// Makes a push take effect, as far as what it wrote was `found` in the bucket.
    pub(super) async fn finish_push(
        &self,
        tx: &mut Connection,
        push: &Push,
        found: Found<'_>,
    ) -> Result<Finished, Fault> {
        if !enliven(&mut *tx, push, found).await? {
            withdraw(&mut *tx, push).await?;
            return Ok(Finished::Withdrawn);
        }
        let (mut left, mut finished) = (Vec::new(), Finished::Done);
        for record in &push.tags {
            if !found.has(&push.tag_key(record)) {
                withdraw_tag(&mut *tx, push, record).await?;
                continue;
            }
            match move_tag(&mut *tx, push, record, self.timings.tombstone_delay).await? {
                Moved::From(manifest) => left.extend(manifest),
                Moved::Swept => finished = Finished::Swept,
            }
        }
        self.let_go(&mut *tx, left).await?;
        record_promotion(&mut *tx, push, found).await?;
        candidates(tx, Candidate::Manifest, &[push.manifest.0], self.timings.lease).await?;
        Ok(finished)
    }

    /// Pins a manifest without children at once. `None`: something must be made or refused first.
    async fn hold_image(&self, tx: &mut Connection, epoch: Epoch, pin: &Pin) -> Result<Option<Held>, Fault> {
        let Pin { repository, facts, tags, .. } = pin;
        let is_plain = facts.children.is_empty() && pin.awaited.is_empty() && pin.immutable.is_empty();
        if !is_plain || pin.copied.is_some() || pin.ledger.is_some() {
            return Ok(None);
        }
        let rows: Vec<HeldColumns> = sqlx::query_as(include_str!("sql/pin_image.sql"))
            .bind(i64::from(epoch.0))
            .bind(repository.as_str())
            .bind(row::digests(&facts.blobs))
            .bind(facts.digest.to_bytes())
            .bind(&facts.media_type)
            .bind(&facts.artifact_type)
            .bind(facts.subject.map(|subject| subject.to_bytes()))
            .bind(facts.annotations.as_ref().map(Json))
            .bind(row::stored_small(facts.size)?)
            .bind(facts.body.as_deref())
            .bind(distinct(tags))
            .bind(seconds(self.timings.intent))
            .fetch_all(tx)
            .await?;
        let Some(HeldColumns { repo_id, id, pending, .. }) = rows.first() else { return Ok(None) };
        let (repository, manifest, writes_record) = (*repo_id, *id, *pending);
        // A push without tags is one row without a name.
        let placed = rows.into_iter().filter_map(|row| Some((row.name?, row.seq?, row.milliseconds?)));
        let tags = records(epoch, placed.collect())?;
        Ok(Some(Held { repository, manifest, writes_record, tags }))
    }

    /// Pins any manifest; or why not.
    async fn hold(
        &self,
        tx: &mut Connection,
        epoch: Epoch,
        pin: &Pin,
    ) -> Result<Result<Held, PinOutcome>, Fault> {
        let repository = ensure_repository(&mut *tx, &pin.repository).await?;
        if pin.copied.is_some() || !pin.immutable.is_empty() || pin.ledger.is_some() {
            // Before all other locks: who holds the repository waits for none of ours.
            bar_pins(&mut *tx, repository).await?;
        } else if !pin.tags.is_empty() {
            join_pins(&mut *tx, repository).await?;
        }
        if let Some(tag) = taken(&mut *tx, repository, pin).await? {
            return Ok(Err(PinOutcome::Immutable(tag)));
        }
        let targets = hold_targets(&mut *tx, repository, pin).await?;
        if !targets.missing.is_empty() {
            return Ok(Err(PinOutcome::Missing(targets.missing)));
        }
        let (manifest, writes_record) = self.upsert_manifest(&mut *tx, repository, &pin.facts).await?;
        insert_references(&mut *tx, manifest, repository, &targets.links, &pin.facts.children).await?;
        // After all locks: so a later version is one that saw more.
        let mut tags = place(&mut *tx, epoch, repository, &pin.tags).await?;
        if let Some(copied) = &pin.copied {
            for record in &mut tags {
                if !is_unmoved(&mut *tx, repository, copied, record).await? {
                    return Ok(Err(PinOutcome::Moved));
                }
            }
        }
        if let Some(record) = &pin.ledger
            && !is_as_decided(&mut *tx, repository, record).await?
        {
            return Ok(Err(PinOutcome::Moved));
        }
        Ok(Ok(Held { repository, manifest, writes_record, tags }))
    }

    /// The manifest's row, new or not; whether it is pending.
    async fn upsert_manifest(
        &self,
        tx: &mut Connection,
        repo_id: RepositoryId,
        facts: &ManifestFacts,
    ) -> Result<(i64, bool), Fault> {
        let size = row::stored_small(facts.size)?;
        let upserted = sqlx::query_as(include_str!("sql/upsert_manifest.sql"))
            .bind(repo_id)
            .bind(facts.digest.to_bytes())
            .bind(&facts.media_type)
            .bind(&facts.artifact_type)
            .bind(facts.subject.map(|subject| subject.to_bytes()))
            .bind(facts.annotations.as_ref().map(Json))
            .bind(size)
            .bind(facts.body.as_deref())
            .bind(seconds(self.timings.intent));
        Ok(upserted.fetch_one(tx).await?)
    }

    async fn intend(&self, tx: &mut Connection, epoch: Epoch, push: &Push, pin: &Pin) -> Result<i64, Fault> {
        let keys: Vec<String> = push.keys().iter().map(ToString::to_string).collect();
        let tags: Vec<IntendedTag<'_>> = push
            .tags
            .iter()
            .map(|record| IntendedTag { name: &record.tag, seq: record.version.seq })
            .collect();
        let intent = sqlx::query_scalar(include_str!("sql/intend_manifest.sql"))
            .bind(i64::from(epoch.0))
            .bind(push.manifest.0)
            .bind(push.repository_id)
            .bind(pin.generation.to_uuid())
            .bind((!tags.is_empty()).then_some(Json(tags)))
            .bind(keys)
            .bind(seconds(self.timings.intent))
            .bind(push.ledger.as_deref().map(Json));
        Ok(intent.fetch_one(tx).await?)
    }

    async fn try_pin(&self, epoch: Epoch, pin: &Pin) -> Result<PinOutcome, Fault> {
        let mut tx = self.begin().await?;
        let held = if let Some(held) = self.hold_image(&mut tx, epoch, pin).await? {
            held
        } else {
            tx = tx.in_epoch(epoch).await?;
            match self.hold(&mut tx, epoch, pin).await? {
                Ok(held) => held,
                Err(outcome) => return tx.undo(outcome).await,
            }
        };
        let Held { repository, manifest, writes_record, tags } = held;
        let mut pinned = Pinned {
            epoch,
            intent: 0,
            repository,
            manifest: ManifestId(manifest),
            pin: pin.clone(),
            writes_record,
            tags,
        };
        pinned.intent = self.intend(&mut tx, epoch, &Push::from(&pinned), pin).await?;
        tx.commit().await?;
        Ok(PinOutcome::Pinned(Box::new(pinned)))
    }

    async fn try_publish(&self, pinned: &Pinned) -> Result<PublishOutcome, Fault> {
        let is_plain = pinned.writes_record && pinned.pin.ledger.is_none();
        if is_plain && self.publish_new(pinned).await? {
            return Ok(PublishOutcome::Published);
        }
        self.publish_any(pinned).await
    }

    /// `false`: nothing is done, as a tag exists, or somebody else has had to do with the manifest.
    async fn publish_new(&self, pinned: &Pinned) -> Result<bool, Fault> {
        let tags = &pinned.tags;
        let names: Vec<&str> = tags.iter().map(|record| record.tag.as_str()).collect();
        let seqs = tags.iter().map(|record| row::stored(record.version.seq));
        let generations: Vec<Uuid> = tags.iter().map(|record| record.generation.to_uuid()).collect();
        let milliseconds = tags.iter().map(|record| row::stored(record.generation.milliseconds()));
        let statement = sqlx::query_as(include_str!("sql/publish_new.sql"))
            .bind(pinned.intent)
            .bind(i64::from(pinned.epoch.0))
            .bind(pinned.repository)
            .bind(pinned.manifest.0)
            .bind(pinned.pin.generation.to_uuid())
            .bind(names)
            .bind(seqs.collect::<Result<Vec<_>, _>>()?)
            .bind(generations)
            .bind(milliseconds.collect::<Result<Vec<_>, _>>()?)
            .bind(seconds(self.timings.lease));
        match self.row::<(i64,)>(statement).await {
            Ok(published) => Ok(published.is_some()),
            Err(Fault::Final(Error::Broken(sqlx::Error::Database(cause))))
                if cause.constraint() == Some("tags_pkey") =>
            {
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }

    async fn publish_any(&self, pinned: &Pinned) -> Result<PublishOutcome, Fault> {
        let Some(mut tx) = self.take(pinned).await? else { return self.publish_found(pinned).await };
        match self.finish_push(&mut tx, &Push::from(pinned), Found::All).await? {
            Finished::Done => tx.commit().await.map(|()| PublishOutcome::Published),
            Finished::Withdrawn => tx.commit().await.map(|()| PublishOutcome::StartOver),
            Finished::Swept => {
                tx.undo(()).await?;
                self.take_back(pinned).await
            }
        }
    }

    /// Somebody has ended the push: we, and the answer was lost, or a reaper.
    async fn publish_found(&self, pinned: &Pinned) -> Result<PublishOutcome, Fault> {
        let found = self.find_effect(pinned.epoch, pinned).await?;
        Ok(if found { PublishOutcome::Published } else { PublishOutcome::StartOver })
    }

    async fn find_effect(&self, epoch: Epoch, pinned: &Pinned) -> Result<bool, Fault> {
        let Pinned { pin, tags, .. } = pinned;
        let names: Vec<&str> = tags.iter().map(|record| record.tag.as_str()).collect();
        let seqs = tags.iter().map(|record| row::stored(record.version.seq));
        let mut tx = self.begin_in(epoch).await?;
        let found = sqlx::query_scalar(include_str!("sql/took_effect.sql"))
            .bind(pin.repository.as_str())
            .bind(pin.facts.digest.to_bytes())
            .bind(i64::from(pinned.epoch.0))
            .bind(names)
            .bind(seqs.collect::<Result<Vec<_>, _>>()?)
            .bind(distinct(&pin.immutable))
            .bind(pinned.promotes().map(Generation::to_uuid))
            .fetch_one(&mut *tx)
            .await?;
        tx.undo(found).await
    }

    /// Takes back all of a push, nothing of which anybody has seen in the database.
    async fn take_back(&self, pinned: &Pinned) -> Result<PublishOutcome, Fault> {
        if let Some(mut tx) = self.take(pinned).await? {
            withdraw(&mut tx, &Push::from(pinned)).await?;
            tx.commit().await?;
        }
        Ok(PublishOutcome::StartOver)
    }

    /// Begins a transaction that ends a push. `None`: it was reaped, and whoever did it has decided about the keys.
    async fn take(&self, pinned: &Pinned) -> Result<Option<Tx>, Fault> {
        let mut tx = self.begin_in(pinned.epoch).await?;
        let taken = sqlx::query("DELETE FROM intents WHERE id = $1 AND epoch = $2")
            .bind(pinned.intent)
            .bind(i64::from(pinned.epoch.0))
            .execute(&mut *tx)
            .await?;
        if taken.rows_affected() > 0 { Ok(Some(tx)) } else { tx.undo(None).await }
    }

    /// Manifests that lost a tag: their lease starts again, and then they are looked at.
    pub(super) async fn let_go(&self, tx: &mut Connection, mut manifests: Vec<i64>) -> Result<(), Fault> {
        manifests.sort_unstable();
        manifests.dedup();
        if manifests.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("sql/touch_manifests.sql")).bind(&manifests).execute(&mut *tx).await?;
        // One in the trash, passed over for as long as the tag named it, is found by the sweep.
        Ok(candidates(tx, Candidate::Manifest, &manifests, self.timings.lease).await?)
    }
}

#[async_trait]
impl Publish for PostgresStore {
    async fn pin_manifest(&self, epoch: Epoch, pin: &Pin) -> Result<PinOutcome, Error> {
        write(|| self.try_pin(epoch, pin)).await
    }

    async fn publish_manifest(&self, pinned: &Pinned) -> Result<PublishOutcome, Error> {
        write(|| self.try_publish(pinned)).await
    }

    async fn took_effect(&self, epoch: Epoch, pinned: &Pinned) -> Result<bool, Error> {
        write(|| self.find_effect(epoch, pinned)).await
    }

    async fn delete_tag(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        retain: Duration,
    ) -> Result<Option<Removal>, Error> {
        write(|| self.try_delete_tag(epoch, repository, tag, None, retain)).await
    }

    async fn delete_tag_of(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        generation: Generation,
        retain: Duration,
    ) -> Result<Option<Removal>, Error> {
        write(|| self.try_delete_tag(epoch, repository, tag, Some(generation), retain)).await
    }

    async fn delete_manifest(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        retain: Duration,
        spared: &Spared<'_>,
    ) -> Result<DeleteOutcome, Error> {
        write(|| self.try_delete_manifest(epoch, repository, *digest, retain, spared)).await
    }

    async fn delete_blob(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
    ) -> Result<DeleteOutcome, Error> {
        write(|| self.try_delete_blob(epoch, repository, *digest)).await
    }

    async fn finish_removal(&self, removal: &Removal) -> Result<bool, Error> {
        write(|| self.try_finish(removal)).await
    }
}
