// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pushing manifests.
//!
//! Pin (hold what it refers to, give the tags their place in the order, record the intent) → write the
//! records → publish (live, tags moved). Each push writes records of its own, so that a late write of another
//! cannot undo it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use stowage_oci::{Algorithm, Digest, Manifest, Name, Reference, Tag};

use super::reconcile::Unit;
use super::{Domain, Error};
use crate::key::{Generation, Key};
use crate::meta::{self, Copied, LedgerRecord, ManifestFacts, Pin, PinOutcome, Pinned, PublishOutcome};
use crate::ops::clock;

/// Manifests up to this length are kept in the database, in bytes.
const LONGEST_IN_DATABASE: usize = 64 << 10;

/// How often a push begins again when what it pinned is deleted under it.
const ATTEMPTS: u32 = 20;

/// A manifest to push.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// Where.
    pub repository: Name,
    /// Under which tag, or as which digest.
    pub reference: Reference,
    /// A digest that the client names beside a tag.
    pub claimed: Option<Digest>,
    /// Further tags.
    pub tags: Vec<Tag>,
    /// The request's media type, without parameters.
    pub content_type: Option<String>,
    /// The manifest.
    pub body: Bytes,
}

/// A manifest that was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Its digest, in the algorithm the client asked for.
    pub digest: Digest,
    /// What it refers to as its subject.
    pub subject: Option<Digest>,
    /// The tags it has now.
    pub tags: Vec<Tag>,
    /// Further tags that it was not given, as they are immutable and name something else.
    pub refused: Vec<Tag>,
}

/// Who pushes a manifest.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pusher<'a> {
    /// A client.
    Client,
    /// A mirror that was asked for it: these blobs, with their lengths, and its children need not be here.
    Awaiting(&'a [(Digest, u64)]),
    /// A mirror that copies a tag.
    Copying(Copied),
    /// A promotion, with its record.
    Promoting(&'a LedgerRecord),
}

/// Is told of what was pushed, after it is committed.
#[async_trait]
pub trait Hook: Send + Sync {
    /// A manifest was pushed to `repository`. Called once per push; the client waits for it.
    async fn manifest_pushed(&self, repository: &Name, pushed: &Pushed);
}

impl Domain {
    /// Stores a manifest and moves its tags, in one step.
    pub async fn put_manifest(&self, put: PutManifest) -> Result<Pushed, Error> {
        let digest = verified_digest(&put)?;
        let manifest = Manifest::parse(&put.body, put.content_type.as_deref())?;
        let subject = manifest.subject;
        if let Some(subject) = &subject {
            self.check_room(&put.repository, subject).await?;
        }
        let by_digest = matches!(put.reference, Reference::Digest(_));
        let mut tags = all_tags(put.reference, put.tags);
        let mut refused = Vec::new();
        let facts = facts(digest, manifest, &put.body);
        loop {
            let push = self.push_until_published(&put.repository, &facts, &tags, &put.body, Pusher::Client);
            match Box::pin(push).await {
                // The others are set (W-441).
                Err(Error::TagImmutable { tag, .. }) if by_digest => {
                    tags.retain(|one| *one != tag);
                    refused.push(tag);
                }
                ended => break ended?,
            }
        }
        let pushed = Pushed { digest, subject, tags, refused };
        if let Some(hook) = &self.hook {
            hook.manifest_pushed(&put.repository, &pushed).await;
        }
        Ok(pushed)
    }

    /// Anybody with push can attach referrers. Two at once may exceed the limit by one.
    pub(super) async fn check_room(&self, repository: &Name, subject: &Digest) -> Result<(), Error> {
        let limit = self.limits.load().max_referrers;
        let question = |_| self.meta.takes_referrer(repository, subject, limit);
        if self.write(question).await? { Ok(()) } else { Err(Error::TooManyReferrers(limit)) }
    }

    /// [`Error::Overtaken`] of a copy: the tag is not what it was any more, or somebody is about to set it.
    pub(super) async fn push_until_published(
        &self,
        repository: &Name,
        facts: &ManifestFacts,
        tags: &[Tag],
        body: &Bytes,
        pusher: Pusher<'_>,
    ) -> Result<(), Error> {
        let is_strict = || self.strict_indexes.load().iter().any(|glob| glob.matches(repository.as_str()));
        let (awaited, copied, ledger) = match pusher {
            Pusher::Client => (None, None, None),
            Pusher::Awaiting(blobs) => (Some(blobs), None, None),
            Pusher::Copying(copied) => (None, Some(copied), None),
            Pusher::Promoting(record) => (None, None, Some(Box::new(record.clone()))),
        };
        let strict = awaited.is_none() && is_strict();
        let units = touched(repository, facts, tags);
        let rules = self.immutability.load_full();
        let immutable = tags.iter().filter(|tag| rules.covering(repository, tag).is_some());
        let immutable: Vec<Tag> = immutable.cloned().collect();
        for _ in 0..ATTEMPTS {
            let pin = Pin {
                repository: repository.clone(),
                facts: facts.clone(),
                tags: tags.to_vec(),
                immutable: immutable.clone(),
                strict,
                awaited: awaited.unwrap_or_default().to_vec(),
                generation: Generation::next(clock::milliseconds()),
                copied,
                ledger: ledger.clone(),
            };
            let pinned = match self.write_to(&units, |epoch| self.meta.pin_manifest(epoch, &pin)).await? {
                PinOutcome::Pinned(pinned) => pinned,
                // A collector was between two statements.
                PinOutcome::Missing(_) if awaited.is_some() => continue,
                PinOutcome::Missing(digests) => return Err(Error::ReferencesMissing(digests)),
                PinOutcome::Moved => return Err(Error::Overtaken),
                PinOutcome::Immutable(tag) => return Err(rules.refusal(repository, tag)),
            };
            self.write_records(&pinned, body).await?;
            match self.publish(&units, &pinned).await? {
                PublishOutcome::Published => {
                    if awaited.is_none() {
                        Box::pin(self.notice_promotable(repository, facts, tags)).await;
                    }
                    return Ok(());
                }
                PublishOutcome::StartOver => {}
            }
        }
        Err(Error::Overtaken)
    }

    /// Publishes in the epoch it was pinned in. In another, everything begins again, unless the records have been found
    /// in the bucket: to push once more what a reader may have seen would undo what was pushed after it.
    async fn publish(&self, units: &[Unit], pinned: &Pinned) -> Result<PublishOutcome, Error> {
        let publish = |epoch| -> BoxFuture<'_, Result<PublishOutcome, meta::Error>> {
            if epoch == pinned.epoch {
                return self.meta.publish_manifest(pinned);
            }
            Box::pin(async move {
                let found = self.meta.took_effect(epoch, pinned).await?;
                Ok(if found { PublishOutcome::Published } else { PublishOutcome::StartOver })
            })
        };
        self.write_to(units, publish).await
    }

    /// A record of the ledger comes after all others: where it is, they are, and the promotion takes effect.
    async fn write_records(&self, pinned: &Pinned, body: &Bytes) -> Result<(), Error> {
        let writes = records(pinned).into_iter().map(|key| async move {
            let segments = if matches!(key, Key::Manifest { .. }) { vec![body.clone()] } else { Vec::new() };
            self.store.put(&key.to_string(), segments).await
        });
        try_join_all(writes).await?;
        if let Some((key, record)) = ledger(pinned) {
            self.store.put(&key.to_string(), vec![record.to_bytes()]).await?;
        }
        Ok(())
    }
}

/// The record that a promotion leaves: beside the tag record, of its place and generation.
fn ledger(pinned: &Pinned) -> Option<(Key, &LedgerRecord)> {
    let (record, set) = (pinned.pin.ledger.as_deref()?, pinned.tags.first()?);
    let (repository, digest) = (pinned.pin.repository.clone(), pinned.pin.facts.digest);
    Some((Key::Ledger { repository, digest, version: set.version, generation: set.generation }, record))
}

/// The names that a push relies on or changes.
fn touched(repository: &Name, facts: &ManifestFacts, tags: &[Tag]) -> Vec<Unit> {
    let of = || repository.clone();
    let blobs = facts.blobs.iter().map(|digest| Unit::Link(of(), *digest));
    // Children may be blobs.
    let children = facts.children.iter();
    let children = children.flat_map(|digest| [Unit::Manifest(of(), *digest), Unit::Link(of(), *digest)]);
    let tags = tags.iter().map(|tag| Unit::Tag(of(), tag.clone()));
    blobs.chain(children).chain([Unit::Manifest(of(), facts.digest)]).chain(tags).collect()
}

/// The records that this push writes.
fn records(pinned: &Pinned) -> Vec<Key> {
    let repository = &pinned.pin.repository;
    let ManifestFacts { digest, subject, .. } = pinned.pin.facts;
    let generation = pinned.pin.generation;
    let manifest = Key::Manifest { repository: repository.clone(), digest, generation };
    let referrer =
        subject.map(|subject| Key::Referrer { repository: repository.clone(), subject, digest, generation });
    let tags = pinned.tags.iter().map(|record| Key::Tag {
        repository: repository.clone(),
        tag: record.tag.clone(),
        version: record.version,
        generation: record.generation,
        target: Some(digest),
    });
    let own =
        pinned.writes_record.then_some(manifest).into_iter().chain(referrer.filter(|_| pinned.writes_record));
    own.chain(tags).collect()
}

/// The digest to store under: that of the path, or named beside the tag, or SHA-256. What was claimed must hold.
fn verified_digest(put: &PutManifest) -> Result<Digest, Error> {
    let claimed = match &put.reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => put.claimed,
    };
    let algorithm = claimed.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let actual = Digest::of(algorithm, &put.body);
    match claimed {
        Some(claimed) if claimed != actual => Err(Error::DigestMismatch { actual }),
        _ => Ok(actual),
    }
}

/// In name order, once each: the order in which rows are locked.
fn all_tags(reference: Reference, further: Vec<Tag>) -> Vec<Tag> {
    let mut tags = match reference {
        Reference::Tag(tag) => vec![tag],
        Reference::Digest(_) => further,
    };
    tags.sort();
    tags.dedup();
    tags
}

pub(super) fn facts(digest: Digest, manifest: Manifest, body: &Bytes) -> ManifestFacts {
    ManifestFacts {
        digest,
        media_type: manifest.media_type,
        artifact_type: manifest.artifact_type,
        subject: manifest.subject,
        annotations: manifest.annotations,
        size: u32::try_from(body.len()).expect("the door takes no manifest over 4 MiB"),
        body: (body.len() <= LONGEST_IN_DATABASE).then(|| body.clone()),
        blobs: manifest.blobs,
        children: manifest.children,
    }
}
