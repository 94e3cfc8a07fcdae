// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Comparing the database with the bucket, one prefix of keys with its rows.
//!
//! Who compares lists a prefix, reads what the rows claim, asks for each claimed object that the listing lacks,
//! and then settles the difference in one transaction: the plan is made again under lock, by a pure function.
//!
//! Guarantees: a row goes only if its object was found missing *after* the row was read; rows follow objects and
//! keys never return, so that proves the loss. What lies in the bucket is adopted or queued, never judged by
//! what else is missing. Nothing is settled in an epoch that is walked, or in another one than the caller's.
//! Keys that are queued for removal are not evidence; manifest and tag records that an open push of this epoch
//! has announced are left to it.
//! Never: sees the bucket, removes an object.

mod apply;
mod end;
mod inspect;
mod plan;
mod plan_records;
mod rows;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Algorithm, Digest, Name, Tag};
use uuid::Uuid;

use super::{Epoch, Error, LedgerRecord, Location, ManifestFacts, Removal};
use crate::key::{Generation, Version};

pub(super) use apply::settle;
pub(super) use end::{EndRows, OldIntent, end};
pub use inspect::{Finding, Problem, Restore};
pub(super) use plan_records::TagSet;
pub(super) use rows::{
    BlobFact, Holders, Life, LinkFact, ManifestFact, NewManifest, Owed, Rows, State, TagFact,
};

/// For how long a marker is kept after the record that it is about.
pub(super) const MARKER_AGE: Duration = Duration::from_hours(24);

/// In which epoch, and how, a difference is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The epoch that is compared.
    pub epoch: Epoch,
    /// How long what is found to be superfluous stays, and what is found to be deleted can be restored.
    pub retain: Duration,
    /// Why it is done.
    pub mode: Mode,
}

/// Why a difference is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An operation touches these names.
    OnDemand,
    /// All names are looked at. Ends at the breaker.
    Walk,
    /// Nothing is changed: only counted. Needs no epoch.
    DryRun,
    /// In an epoch that is walked, all names are looked at, and what is wrong is told.
    Verify,
    /// The same, and what is safe is put right.
    Repair,
}

impl Mode {
    /// Whether damage is looked for rather than settled.
    #[must_use]
    pub const fn verifies(self) -> bool {
        matches!(self, Self::Verify | Self::Repair)
    }
}

/// What is wrong with an object that a row or a key speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There is none.
    Missing,
    /// It has another length.
    Length,
    /// It has other content.
    Content,
}

/// The data of a digest that was found.
#[derive(Clone, Debug)]
pub struct BlobFound {
    /// The digest.
    pub digest: Digest,
    /// What the listing shows and whose bytes are there.
    pub listed: Vec<Location>,
    /// What a row claimed, was looked for after that, and is not there, or is damaged.
    pub gone: Vec<Location>,
    /// Objects that say that they are the data, and are not. They are no evidence.
    pub damaged: Vec<(Location, Damage)>,
}

/// The records that show a blob to a repository.
#[derive(Clone, Debug)]
pub struct LinkFound {
    /// The blob.
    pub digest: Digest,
    /// What the listing shows.
    pub listed: Vec<Generation>,
    /// What the row claimed, was looked for after that, and is not there.
    pub gone: Vec<Generation>,
    /// Whether the manifests that refer to it have been compared.
    pub manifests_compared: bool,
    /// No row knows it, and the bucket has no data of the blob. Only a verification looks.
    pub lacks_data: bool,
}

/// The records of a manifest in a repository.
#[derive(Clone, Debug)]
pub struct ManifestFound {
    /// The manifest.
    pub digest: Digest,
    /// The records that the listing shows.
    pub records: Vec<Generation>,
    /// The markers that it shows.
    pub markers: Vec<Generation>,
    /// What a row claimed, was looked for after that, and is not there.
    pub gone: Vec<Generation>,
    /// Records that are not what they should be.
    pub damaged: Vec<(Generation, Damage)>,
    /// What the manifest is, if one of the records may be unknown to the rows.
    pub facts: Option<ManifestFacts>,
    /// Whether the entry below its subject is to be written when a record is adopted.
    pub owes_referrer: bool,
}

/// One record of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagEntry {
    /// Its place in the tag's order.
    pub version: Version,
    /// The record's generation.
    pub generation: Generation,
    /// What it names; `None` is a tombstone.
    pub target: Option<Digest>,
}

/// The records of a tag.
#[derive(Clone, Debug)]
pub struct TagFound {
    /// The tag.
    pub tag: Tag,
    /// The records that the listing shows.
    pub records: Vec<TagEntry>,
    /// Those that a marker withdraws, whether or not they are there.
    pub withdrawn: Vec<TagEntry>,
    /// What the row claimed, was looked for after that, and is not there.
    pub gone: Vec<TagEntry>,
}

/// The entries below a subject.
#[derive(Clone, Debug)]
pub struct ReferrersFound {
    /// The subject.
    pub subject: Digest,
    /// The manifests that refer to it, with the generations of their records.
    pub listed: Vec<(Digest, Generation)>,
    /// What live rows claimed and the listing lacks.
    pub missing: Vec<(Digest, Generation)>,
}

/// A row of a promotion that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerClaim {
    /// What was promoted.
    pub digest: Digest,
    /// Its place in the order.
    pub version: Version,
    /// Its record.
    pub generation: Generation,
}

/// The records of promotions into a repository.
#[derive(Clone, Debug, Default)]
pub struct LedgerFound {
    /// Those that no row claims, with what they say.
    pub unknown: Vec<(LedgerClaim, LedgerRecord)>,
    /// What rows claimed, was looked for after that, and is not there.
    pub gone: Vec<LedgerClaim>,
}

/// An object below `up/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadFound {
    /// The upload.
    pub generation: Generation,
    /// The lease that staged it; `None`: the target of its multipart upload.
    pub lease: Option<u32>,
}

/// A multipart upload that the store keeps open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartFound {
    /// The upload.
    pub generation: Generation,
    /// The store's name of it.
    pub id: String,
}

/// What the bucket shows of some names of a kind; to be settled against their rows.
#[derive(Clone, Copy, Debug)]
pub enum Difference<'a> {
    /// Data of blobs.
    Blobs(&'a [BlobFound]),
    /// Links of a repository. Their blobs were settled before.
    Links(&'a Name, &'a [LinkFound]),
    /// Manifests of a repository. The links of those that are adopted were settled before.
    Manifests(&'a Name, &'a [ManifestFound]),
    /// Entries below subjects of a repository. The manifests were settled before.
    Referrers(&'a Name, &'a [ReferrersFound]),
    /// Tags of a repository. The manifests that they name were settled before.
    Tags(&'a Name, &'a [TagFound]),
    /// Promotions into a repository.
    Ledger(&'a Name, &'a LedgerFound),
    /// Objects below `up/`: those of no upload and no blob are queued. All blobs were settled before.
    Uploads(&'a [UploadFound]),
    /// Open multipart uploads of the store. Only a verification looks.
    Multiparts(&'a [MultipartFound]),
}

/// What settling came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is done but for what must be looked at again.
    Settled(Settled),
    /// The epoch is walked: there is nothing to compare any more. Nothing was changed.
    Walked,
    /// More rows would go than the breaker lets through. Nothing was changed.
    TooManyLosses(Loss),
}

/// What was settled. Names are given as their places in the list that was settled.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Rows have changed since they were read: to be compared again.
    pub again: Vec<usize>,
    /// Links without a record that these live manifests need: first to be compared.
    pub after: Vec<(usize, Vec<Digest>)>,
    /// What the bucket is owed. Carried out by the caller, or by whoever empties the queue.
    pub errands: Vec<Removal>,
    /// What was done, by kind.
    pub changes: Changes,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Live manifests whose records are to be written again. The caller does, and tells the findings then.
    pub restores: Vec<Restore>,
    /// Multipart uploads to be aborted, by their places in the list.
    pub aborts: Vec<usize>,
}

/// How often something was done, by names that a summary shows.
pub type Changes = BTreeMap<&'static str, u64>;

/// A kind of rows that a comparison can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Data of blobs.
    Blobs,
    /// Links of repositories to blobs.
    Links,
    /// Manifests.
    Manifests,
    /// Tags.
    Tags,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Blobs, Self::Links, Self::Manifests, Self::Tags];

    /// As tables and sentences name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Links => "links",
            Self::Manifests => "manifests",
            Self::Tags => "tags",
        }
    }
}

/// Rows of a kind whose objects are missing from the bucket, of all that there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The kind.
    pub kind: Kind,
    /// How many are missing.
    pub lost: u64,
    /// How many there were when the walk began.
    pub total: u64,
}

impl Loss {
    /// Whether it is more than 1 % and more than 100: rather a wrong bucket than lost objects.
    #[must_use]
    pub const fn is_too_much(&self) -> bool {
        const TOLERATED: u64 = 100;
        self.lost > TOLERATED && self.lost.saturating_mul(100) > self.total
    }
}

/// Rows by their digest, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestSpan {
    pub(super) from: Vec<u8>,
    pub(super) through: Vec<u8>,
}

impl DigestSpan {
    /// This one.
    #[must_use]
    pub fn one(digest: &Digest) -> Self {
        Self { from: digest.to_bytes(), through: digest.to_bytes() }
    }

    /// All.
    #[must_use]
    pub fn all() -> Self {
        Self { from: Vec::new(), through: vec![0xff] }
    }

    /// All of an algorithm.
    #[must_use]
    pub fn of(algorithm: Algorithm) -> Self {
        Self { from: vec![algorithm.code()], through: vec![algorithm.code() + 1] }
    }

    /// All of an algorithm whose hash begins with a byte from `first` to `last`.
    #[must_use]
    pub fn shards(algorithm: Algorithm, first: u8, last: u8) -> Self {
        let from = vec![algorithm.code(), first];
        let through = [&[algorithm.code(), last][..], &[0xff; 65]].concat();
        Self { from, through }
    }

    /// Those after `digest`.
    #[must_use]
    pub fn after(self, digest: &Digest) -> Self {
        // The next text in byte order.
        Self { from: [&digest.to_bytes()[..], &[0]].concat(), ..self }
    }

    /// Those up to `digest`.
    #[must_use]
    pub fn through(self, digest: &Digest) -> Self {
        Self { through: digest.to_bytes(), ..self }
    }
}

/// Rows of tags in the order in which the bucket lists their records, both ends included: as if each name ended
/// in `/`, which is above `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagSpan {
    pub(super) from: String,
    pub(super) through: String,
}

impl TagSpan {
    /// This one.
    #[must_use]
    pub fn one(tag: &Tag) -> Self {
        Self { from: format!("{tag}/"), through: format!("{tag}/") }
    }

    /// All.
    #[must_use]
    pub fn all() -> Self {
        Self { from: String::new(), through: "~".to_owned() }
    }

    /// Those after `tag`.
    #[must_use]
    pub fn after(self, tag: &Tag) -> Self {
        Self { from: format!("{tag}/!"), ..self }
    }

    /// Those up to `tag`.
    #[must_use]
    pub fn through(self, tag: &Tag) -> Self {
        Self { through: format!("{tag}/"), ..self }
    }
}

/// A row of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestClaim {
    /// The manifest.
    pub digest: Digest,
    /// Its record; `None`: pending.
    pub generation: Option<Generation>,
    /// Whether it is live: only then the record must be there.
    pub live: bool,
    /// Its length in bytes.
    pub size: u32,
}

/// A part of the bucket that one replica compares at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Those of a lower phase are compared first.
    pub phase: u8,
    /// Which part.
    pub name: String,
}

/// What a replica that would help with a walk is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardOutcome {
    /// It is ours for a minute.
    Claimed(Shard),
    /// Others are at all that is left: ask again.
    Wait,
    /// All are done: the walk can end.
    Done,
    /// The breaker stopped the walk.
    Stopped(Loss),
    /// Nobody has said yet which parts there are.
    Unplanned,
    /// The epoch is walked.
    Walked,
}

/// How far a walk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Parts that are compared.
    pub done: u64,
    /// All parts.
    pub total: u64,
}

/// The comparison of the database with the bucket.
#[async_trait]
pub trait Reconcile: Send + Sync {
    /// Up to `limit` stored blobs, in order of their digests.
    async fn blob_claims(&self, span: &DigestSpan, limit: u32) -> Result<Vec<(Digest, Location)>, Error>;

    /// Up to `limit` visible links of the repository, in order of their digests.
    async fn link_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<(Digest, Generation)>, Error>;

    /// Up to `limit` manifests of the repository in any state, in order of their digests.
    async fn manifest_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<ManifestClaim>, Error>;

    /// Up to `limit` live manifests of the repository with a subject: subject, digest, record; in order of the
    /// subjects.
    async fn referrer_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<(Digest, Digest, Generation)>, Error>;

    /// Up to `limit` tags of the repository, deleted ones too, in the order of their records.
    async fn tag_claims(
        &self,
        repository: &Name,
        span: &TagSpan,
        limit: u32,
    ) -> Result<Vec<(Tag, TagEntry)>, Error>;

    /// Up to `limit` promotions into the repository that took effect, in order of what was promoted.
    async fn ledger_claims(
        &self,
        repository: &Name,
        span: &DigestSpan,
        limit: u32,
    ) -> Result<Vec<LedgerClaim>, Error>;

    /// Settles a difference in one transaction, which decides again under lock.
    async fn settle(&self, scope: &Scope, difference: &Difference<'_>) -> Result<Outcome, Error>;

    /// Up to `limit` repositories whose names begin with `prefix`, in byte order after `after`.
    async fn repositories_below(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Name>, Error>;

    /// Says which parts a walk of the epoch has, and counts the rows. `false`: somebody has said it already.
    async fn plan_walk(&self, epoch: Epoch, shards: &[Shard]) -> Result<bool, Error>;

    /// Takes a part for a minute.
    async fn claim_shard(&self, epoch: Epoch, owner: Uuid) -> Result<ShardOutcome, Error>;

    /// Keeps a part for another minute. `false`: it is no longer ours.
    async fn keep_shard(&self, epoch: Epoch, shard: &str, owner: Uuid) -> Result<bool, Error>;

    /// Gives back the parts that these have taken.
    async fn release_shards(&self, epoch: Epoch, owners: &[Uuid]) -> Result<(), Error>;

    /// A part is compared. `false`: it was no longer ours, somebody else does it again.
    async fn finish_shard(&self, epoch: Epoch, shard: &str, owner: Uuid) -> Result<bool, Error>;

    /// How far the walk of the epoch is.
    async fn walk_progress(&self, epoch: Epoch) -> Result<Progress, Error>;

    /// Lets the walk of the epoch go on whatever it loses.
    async fn accept_loss(&self, epoch: Epoch) -> Result<(), Error>;

    /// Queues rows that nothing refers to for the collectors. Repeats are harmless.
    async fn queue_unreferenced(&self, epoch: Epoch) -> Result<(), Error>;

    /// Ends the walk: settles what pushes of earlier epochs left, and marks the epoch as walked. `None`: it is not
    /// the current one any more, or parts of it are not compared.
    async fn end_walk(&self, epoch: Epoch) -> Result<Option<Changes>, Error>;

    /// Makes the database forget its incarnation, so that all is compared again in a new epoch.
    async fn forget_incarnation(&self) -> Result<(), Error>;

    /// Says that `owner` rebuilds, for a minute. `false`: another one does.
    async fn hold_rebuild(&self, owner: Uuid) -> Result<bool, Error>;

    /// The rebuild of `owner` has ended.
    async fn end_rebuild(&self, owner: Uuid) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_order_tags_as_the_bucket_lists_them() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let inside = |span: &TagSpan, name: &str| {
            let key = format!("{name}/");
            span.from <= key && key <= span.through
        };
        let after = TagSpan::all().after(&tag("a-b"));
        assert!(!inside(&after, "a-b") && inside(&after, "a") && inside(&after, "b"));
        let through = TagSpan::all().through(&tag("a"));
        assert!(inside(&through, "a-b") && inside(&through, "a") && !inside(&through, "aa"));
        assert!(inside(&TagSpan::one(&tag("a")), "a") && !inside(&TagSpan::one(&tag("a")), "a-b"));
    }

    #[test]
    fn spans_part_digests() {
        let digests: Vec<Digest> = (0..200_u8).map(|n| Digest::of(Algorithm::Sha256, &[n])).collect();
        let inside = |span: &DigestSpan, digest: &Digest| {
            let key = digest.to_bytes();
            span.from <= key && key <= span.through
        };
        for digest in &digests {
            let byte = digest.hash()[0];
            let shard = DigestSpan::shards(Algorithm::Sha256, byte, byte);
            let sixteenth = DigestSpan::shards(Algorithm::Sha256, byte & 0xf0, byte | 0x0f);
            assert!(inside(&shard, digest) && inside(&DigestSpan::all(), digest));
            assert!(inside(&DigestSpan::of(Algorithm::Sha256), digest));
            assert!(!inside(&DigestSpan::of(Algorithm::Sha512), digest));
            assert!(inside(&DigestSpan::one(digest), digest));
            for other in &digests {
                assert_eq!(inside(&shard, other), other.hash()[0] == byte);
                assert_eq!(inside(&sixteenth, other), other.hash()[0] >> 4 == byte >> 4);
                assert_eq!(inside(&DigestSpan::all().after(digest), other), other > digest);
                assert_eq!(inside(&DigestSpan::all().through(digest), other), other <= digest);
            }
        }
    }

    #[test]
    fn a_loss_is_too_much_when_it_is_both_large_and_a_large_share() {
        let loss = |lost, total| Loss { kind: Kind::Tags, lost, total }.is_too_much();
        assert!(!loss(100, 100) && loss(101, 101) && loss(101, 10_000) && !loss(101, 10_100));
        assert!(!loss(1_000, 100_000) && loss(1_001, 100_000));
    }
}
