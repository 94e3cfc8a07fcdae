// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that retention goes by: what is known of the tags of a repository, and the deletion of some of them.
//!
//! Reads are of one repository each, so that nothing is held for long however many there are. Nothing is deleted by
//! what was read: each deletion looks again, in its own transaction, and leaves what is not as it was.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::{Epoch, Error, ManifestId, Removal};
use crate::key::Generation;

/// The time, and how far back pulls are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionClock {
    /// The database's time, in milliseconds since 1970.
    pub now: u64,
    /// The newest day, in days since 1970, of which pulls may be missing.
    pub gap: Option<u32>,
}

/// A live tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedTag {
    /// The tag.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
    /// Its record.
    pub generation: Generation,
    /// When that was made, in milliseconds since 1970.
    pub pushed: u64,
    /// The last day, in days since 1970, on which what it names was pulled, or something below that.
    pub pulled: Option<u32>,
}

/// A promotion that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedFrom {
    /// What was promoted.
    pub digest: Digest,
    /// Into which repository.
    pub to: Name,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// What is known of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionFacts {
    /// Its live tags, in byte order.
    pub tags: Vec<RetainedTag>,
    /// What was promoted from it.
    pub promotions: Vec<PromotedFrom>,
    /// What waits to be promoted from it.
    pub pending: Vec<Digest>,
}

/// A tag that is to go, as it was when that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingTag {
    /// The tag.
    pub tag: Tag,
    /// Its record.
    pub generation: Generation,
    /// The last day of a pull, as in [`RetainedTag`].
    pub pulled: Option<u32>,
    /// What it signs, or the like: it stays if that is here.
    pub subject: Option<Digest>,
}

/// Which manifests without a tag are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntaggedWanted {
    /// For how long nothing referred to them and nobody pulled them.
    pub rest: Duration,
    /// Whether those that refer to something stay.
    pub spares_referrers: bool,
}

/// Facts for retention, and deletions. See the module for what holds of all of them.
#[async_trait]
pub trait Retain: Send + Sync {
    /// The time, and how far back pulls are known.
    async fn retention_clock(&self) -> Result<RetentionClock, Error>;

    /// What is known of a repository; nothing of one that does not exist. Facts that keep are not older than the tags.
    async fn retention_facts(&self, repository: &Name) -> Result<RetentionFacts, Error>;

    /// Which of the digests are live manifests of the repository.
    async fn live_among(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<Digest>, Error>;

    /// Pairs of a live manifest of the repository and a digest that stands or falls with it: its own, those of indexes
    /// above, of children below and of its subject, with the same around that; and of all blobs of these.
    async fn families(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<(Digest, Digest)>, Error>;

    /// About how many bytes only these tags need: of blobs that nothing else in the registry refers to.
    async fn reclaimable(&self, repository: &Name, tags: &[Tag]) -> Result<u64, Error>;

    /// Puts those of the tags into the trash for `retain` that are as they were: the record, the last pull, no promotion
    /// after `planned` (milliseconds since 1970) or waiting, no subject. The caller carries the removals out, then
    /// settles them.
    async fn retire_tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        tags: &[OutgoingTag],
        planned: u64,
        retain: Duration,
    ) -> Result<Vec<(Tag, Removal)>, Error>;

    /// Up to `limit` live manifests of the repository, by id, after `after`, that no tag, index, subject, push or
    /// promotion that is waited for holds.
    async fn untagged(
        &self,
        repository: &Name,
        wanted: UntaggedWanted,
        after: ManifestId,
        limit: u32,
    ) -> Result<Vec<(ManifestId, Digest)>, Error>;

    /// Puts those of the manifests into the trash for `retain` that still nothing holds, and have rested for `rest`; how
    /// many.
    async fn trash_untagged(
        &self,
        epoch: Epoch,
        manifests: &[ManifestId],
        rest: Duration,
        retain: Duration,
    ) -> Result<u64, Error>;
}
