// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that collects what nothing refers to any more.
//!
//! Four collectors of one shape (manifest → link → blob → key): lock the candidates, passing over those that
//! somebody holds; *in a later statement* look for references; change or delete the rows and queue their keys
//! in the same transaction. A level becomes a candidate when the record of the level above is gone from the
//! bucket. Whoever removes a last reference queues the candidate and restarts its clock, so a candidate that is
//! referenced is forgotten; one that is held, or not ripe, is queued again.
//!
//! Every step begins with the trusted check, in its transaction: fence and walk are those of this incarnation,
//! else it is [`Error::Untrusted`] and nothing was changed. Any number of collectors may run anywhere.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Name, Tag};
use uuid::Uuid;

use super::{Epoch, Error, LedgerRecord, ManifestId, RepositoryId};
use crate::key::{Generation, Key, Version};

/// The incarnation that collectors work in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Its number.
    pub epoch: Epoch,
    /// Its object in the bucket.
    pub generation: Generation,
}

/// A push or mount whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredIntent {
    /// Its row. Later ones have higher ids.
    pub id: i64,
    /// What it is.
    pub kind: IntentKind,
    /// Every key that it may have written.
    pub keys: Vec<String>,
    /// The promotion that it carries out.
    pub ledger: Option<Box<LedgerRecord>>,
}

/// What an intent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentKind {
    /// The push of a manifest.
    Manifest {
        /// Its repository's row.
        repository: RepositoryId,
        /// Its row.
        manifest: ManifestId,
    },
    /// A mount.
    Link {
        /// The target's row.
        repository: RepositoryId,
    },
    /// The report of a run.
    Run,
}

/// What became of an expired intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// Its records were there: it took effect.
    Finished,
    /// They were not: what it may have written is queued for removal.
    Withdrawn,
    /// Its writer, or another worker, was faster.
    Gone,
}

/// A deleted tag whose time in the trash is over. Also where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashedTag {
    /// Its repository.
    pub repository: Name,
    /// Its repository's row.
    pub repository_id: RepositoryId,
    /// The tag.
    pub tag: Tag,
    /// The tombstone's place in the order.
    pub version: Version,
    /// The tombstone.
    pub generation: Generation,
    /// When its time was over, in microseconds since 1970.
    pub until: i64,
}

/// What a queue of candidates holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Candidate {
    /// Trashed manifests.
    Trashed,
    /// Live manifests.
    Manifest,
    /// Links.
    Link,
    /// Blobs.
    Blob,
}

impl Candidate {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Trashed => "x",
            Self::Manifest => "m",
            Self::Link => "l",
            Self::Blob => "b",
        }
    }
}

/// What looking at some candidates came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many were taken from the queue: 0 when none is due.
    pub seen: u64,
    /// How many rows went.
    pub removed: u64,
    /// How many are queued again: they are held, or not ripe.
    pub again: u64,
}

/// Which rows of the outbox to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that are due.
    All,
    /// Those that begin with the writing of evidence: what requests and reaper owe the bucket.
    Owed,
}

/// A row of the outbox that is ours for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRemoval {
    /// Its row.
    pub id: i64,
    /// What to do, in order.
    pub steps: Vec<String>,
    /// Rows of one lane are given in their order and must be done in it.
    pub lane: Option<String>,
    /// How often it was taken, this time included.
    pub tries: u32,
}

/// What waits for collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Expired intents.
    pub intents: u64,
    /// Expired uploads that nobody holds.
    pub uploads: u64,
    /// Deleted tags whose time in the trash is over.
    pub tags: u64,
    /// Trashed manifests to look at.
    pub trashed: u64,
    /// Live manifests to look at.
    pub manifests: u64,
    /// Links to look at.
    pub links: u64,
    /// Blobs to look at.
    pub blobs: u64,
    /// Rows of the outbox that are due.
    pub removals: u64,
    /// Of those, how many begin with the writing of evidence.
    pub owed: u64,
    /// For how long the oldest of all has been due.
    pub oldest: Duration,
}

impl Backlog {
    /// Takes over a row of the statement that counts.
    pub(super) fn add(&mut self, what: &str, pending: u64, oldest: Duration) {
        let count = match what {
            "i" => &mut self.intents,
            "u" => &mut self.uploads,
            "t" => &mut self.tags,
            "x" => &mut self.trashed,
            "m" => &mut self.manifests,
            "l" => &mut self.links,
            "b" => &mut self.blobs,
            "o" => &mut self.removals,
            _ => &mut self.owed,
        };
        *count = pending;
        self.oldest = self.oldest.max(oldest);
    }

    /// All of it together.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.intents
            + self.uploads
            + self.tags
            + self.trashed
            + self.manifests
            + self.links
            + self.blobs
            + self.removals
    }
}

/// Reaper, purges, sweeps, outbox. See the module for what holds of all of them.
#[async_trait]
pub trait Collect: Send + Sync {
    /// The incarnation, if it is trusted.
    async fn incarnation(&self) -> Result<Incarnation, Error>;

    /// What is due. Changes nothing, trusted or not.
    async fn backlog(&self) -> Result<Backlog, Error>;

    /// Up to `limit` intents whose time is over, by id, after `after`.
    async fn expired_intents(&self, after: i64, limit: u32) -> Result<Vec<ExpiredIntent>, Error>;

    /// Ends an intent of which the keys `found` were in the bucket after its time was over: it is finished if
    /// its record is there or its row is live, each tag if its record is there; else its keys are queued.
    async fn reap_intent(&self, epoch: Epoch, intent: &ExpiredIntent, found: &[Key])
    -> Result<Reaped, Error>;

    /// Up to `limit` uploads that expired and that nobody holds, by id, after `after`.
    async fn expired_uploads(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error>;

    /// Ends such an upload and queues what it left, but what a blob is made of by now. `false`: it is gone, or
    /// somebody holds it.
    async fn reap_upload(&self, epoch: Epoch, id: Uuid) -> Result<bool, Error>;

    /// Up to `limit` deleted tags whose time in the trash is over, after `after`, oldest first.
    async fn trashed_tags(&self, after: Option<&TrashedTag>, limit: u32) -> Result<Vec<TrashedTag>, Error>;

    /// Deletes such a tag's row. Queues, in its lane, all its records: those of `listed`, which a listing of its
    /// prefix gave, that are below the tombstone, and last the tombstone. `false`: it is not as it was, or a
    /// push may still write a record below the tombstone.
    async fn purge_tag(&self, epoch: Epoch, tag: &TrashedTag, listed: &[Key]) -> Result<bool, Error>;

    /// Dooms trashed manifests whose time is over and that no tag names; queues their records.
    async fn purge_manifests(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error>;

    /// Puts live manifests that no tag, index or subject holds into the trash for `retain`; `None`: there is no
    /// policy that asks for it, and the candidates are forgotten.
    async fn sweep_manifests(
        &self,
        epoch: Epoch,
        retain: Option<Duration>,
        limit: u32,
    ) -> Result<Swept, Error>;

    /// Deletes links that no manifest needs; queues their records.
    async fn sweep_links(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error>;

    /// Deletes blobs that no link shows; queues their data.
    async fn sweep_blobs(&self, epoch: Epoch, limit: u32) -> Result<Swept, Error>;

    /// Puts the oldest due candidate of a kind off for an hour: it cannot be judged.
    async fn postpone(&self, epoch: Epoch, kind: Candidate) -> Result<(), Error>;

    /// Queues the removal of keys that no row has made. [`Error::Live`] if a row owns one of them.
    async fn discard(&self, epoch: Epoch, keys: &[Key]) -> Result<(), Error>;

    /// Takes up to about `limit` due rows of the outbox for a while, of each lane the first ones only.
    /// [`Error::Live`] if one of them would remove what a row owns; then none is taken.
    async fn take_removals(&self, epoch: Epoch, which: Which, limit: u32) -> Result<Vec<DueRemoval>, Error>;

    /// Forgets rows of the outbox that were carried out, and does what was to follow: what the removed records
    /// held becomes a candidate, markers are queued for their end.
    async fn settle_removals(&self, epoch: Epoch, rows: &[i64]) -> Result<(), Error>;
}
