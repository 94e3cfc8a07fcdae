// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database: what exists, and in which order it came to be.
//!
//! A method is one step of the protocol in one transaction. It takes and gives values of the domain, never
//! rows, and repeats itself on serialization conflicts. No transaction ever waits for the bucket: this room
//! cannot see it.
//!
//! Locking (Postgres; SQLite has one writer): a writer that inserts a reference holds `FOR KEY SHARE` on its
//! target; a sweeper holds `FOR UPDATE` and looks for references in a *later* statement of the same READ
//! COMMITTED transaction. Order: `meta`; manifests by id; tags by repository and name; blobs by id; links by
//! repository and digest.
//!
//! Deciding steps take the [`Epoch`] that the caller works in and fail with [`Error::Superseded`] when the
//! database's incarnation is another by now.

mod cached;
mod candidates;
mod collect;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod layered;
mod ledger;
mod mirroring;
mod owner;
pub mod postgres;
mod pulls;
mod reconcile;
mod retain;
mod runs;
pub mod sqlite;
mod steps;
mod timings;
mod traced;
mod trash;
mod usages;
mod values;
mod verify;
mod watched;

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use crate::key::Generation;
pub use cached::{Cached, CachedManifest};
pub use candidates::{Candidates, PromotionCandidate, RequestedPromotion, TakenCandidate, Unpromoted};
pub use collect::*;
pub use layered::Layered;
pub use ledger::{
    GateEvidence, Ledger, LedgerApproval, LedgerEntry, LedgerFilter, LedgerPlace, LedgerPolicy, LedgerRecord,
    LedgerSource, LedgerTarget, NotAPlace, PROMOTED,
};
pub use mirroring::{Claim, Fetched, Mirroring, NewLimits, TurnsTaken, TurnsWanted, UpstreamLimits};
pub use pulls::{Pulls, Stamp, Today};
pub use reconcile::{
    BlobFound, Changes, Damage, Difference, DigestSpan, Finding, Kind, LedgerClaim, LedgerFound, LinkFound,
    Loss, ManifestClaim, ManifestFound, Mode, MultipartFound, Outcome, Problem, Progress as WalkProgress,
    Reconcile, ReferrersFound, Restore, Scope, Settled, Shard, ShardOutcome, TagEntry, TagFound, TagSpan,
    UploadFound,
};
pub use retain::{
    OutgoingTag, PromotedFrom, Retain, RetainedTag, RetentionClock, RetentionFacts, UntaggedWanted,
};
pub use runs::{RunRow, Runs};
pub use timings::Timings;
pub use traced::{Spans, Traced};
pub use trash::{Restorable, Trash, TrashItem, Trashed};
pub use usages::{RemoteUsage, Usages};
pub use values::*;
pub use verify::{Job, Pass, Restoration, RestoreOutcome, Verification};
pub use watched::{Watch, Watched};

/// Why a step was not done. In each case nothing was changed, except where a lost connection leaves the
/// outcome of a commit unknown: [`Error::Unavailable`] after a write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is away or did not answer in time.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database has no room; waiting does not make any.
    #[error("the database is full")]
    Full(#[source] sqlx::Error),
    /// The database was restarted, failed over or restored since the caller's epoch: take over and start again.
    #[error("the database has a new incarnation")]
    Superseded,
    /// The incarnation of the database is another, or not all of the bucket was compared with it yet: nothing is
    /// collected.
    #[error("the database is not trusted: its incarnation is new and has not been compared with the bucket")]
    Untrusted,
    /// A key is queued for removal, or about to be, that a row owns. Nothing may be collected before a human has
    /// seen why.
    #[error("object {key} should be removed, but the database says it is in use")]
    Live {
        /// The key.
        key: String,
    },
    /// A row holds what this version cannot read.
    #[error("row of {table} cannot be read: {what}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The schema is newer or older than this version works with.
    #[error("the database has schema {found}; this version works with {supported}")]
    Schema {
        /// The schema found; 0 when there is none.
        found: i32,
        /// The schema wanted.
        supported: i32,
    },
    /// A statement failed in a way the protocol does not foresee: a bug.
    #[error("the database refused a statement")]
    Broken(#[source] sqlx::Error),
}

impl Error {
    /// The database was found to be away a moment ago.
    #[must_use]
    pub(crate) fn away() -> Self {
        Self::Unavailable(sqlx::Error::PoolTimedOut)
    }

    /// The same, for another who waited for the same step. Of what the driver said the text remains.
    #[must_use]
    pub(crate) fn again(&self) -> Self {
        let text = |cause: &sqlx::Error| sqlx::Error::Io(std::io::Error::other(cause.to_string()));
        match self {
            Self::Unavailable(cause) => Self::Unavailable(text(cause)),
            Self::Full(cause) => Self::Full(text(cause)),
            Self::Superseded => Self::Superseded,
            Self::Untrusted => Self::Untrusted,
            Self::Live { key } => Self::Live { key: key.clone() },
            Self::Unreadable { table, what } => Self::Unreadable { table, what: what.clone() },
            Self::Schema { found, supported } => Self::Schema { found: *found, supported: *supported },
            Self::Broken(cause) => Self::Broken(text(cause)),
        }
    }
}

/// Reads that answer requests. One round trip each. Those that take an epoch answer only in it.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The live manifests that these tags name, in the order of `wanted`, with their bytes if they are kept in
    /// the row.
    async fn tagged(&self, epoch: Epoch, wanted: &[(Name, Tag)]) -> Result<Vec<Option<ManifestRow>>, Error>;

    /// The live manifests of these digests, likewise.
    async fn manifests(
        &self,
        epoch: Epoch,
        wanted: &[(Name, Digest)],
    ) -> Result<Vec<Option<ManifestRow>>, Error>;

    /// The blobs that their repository has a visible link to and whose data is stored, in the order of `wanted`.
    async fn blobs(&self, epoch: Epoch, wanted: &[(Name, Digest)]) -> Result<Vec<Option<BlobRow>>, Error>;

    /// Restarts the lease of a link. `false`: the link is gone, read again.
    async fn renew_link(&self, link: LinkId) -> Result<bool, Error>;

    /// Restarts the lease of a manifest. `false`: it is gone, read again.
    async fn renew_manifest(&self, manifest: ManifestId) -> Result<bool, Error>;

    /// Up to `limit` tags in byte order after `after`; `None`: the repository has never been pushed to.
    async fn tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>, Error>;

    /// Up to `limit` live manifests with that subject, after `after`; those of one of `artifact_types`, or all when it
    /// is empty. Newest first by the generations of their records, which the bucket knows too: a database that is
    /// made again has the same order.
    async fn referrers(
        &self,
        epoch: Epoch,
        repository: &Name,
        subject: &Digest,
        artifact_types: &[String],
        after: Option<Generation>,
        limit: u32,
    ) -> Result<Vec<ReferrerRow>, Error>;

    /// Whether fewer than `limit` manifests have that subject.
    async fn takes_referrer(&self, repository: &Name, subject: &Digest, limit: u32) -> Result<bool, Error>;

    /// Up to `limit` repositories in byte order after `after`.
    async fn repositories(&self, epoch: Epoch, after: Option<&str>, limit: u32) -> Result<Vec<Name>, Error>;

    /// Up to `limit` repositories with a visible link to the stored blob.
    async fn repositories_with(&self, digest: &Digest, limit: u32) -> Result<Vec<Name>, Error>;

    /// Live indexes of the repository that list `child`, in no order.
    async fn indexes_with(&self, repository: &Name, child: &Digest, limit: u32)
    -> Result<Vec<Digest>, Error>;

    /// Marks a blob's data as missing if it still is of that generation (the next push heals it).
    async fn mark_absent(&self, digest: &Digest, generation: Generation) -> Result<(), Error>;
}

/// Uploads, the commit of a blob, mounts.
#[async_trait]
pub trait Receive: Send + Sync {
    /// Begins an upload; makes the repository's row if need be. Expires `expiry` after its last progress.
    /// `None`: the principal has `limit` open uploads already.
    async fn open_upload(
        &self,
        upload: &NewUpload,
        expiry: Duration,
        limit: u32,
    ) -> Result<Option<Uuid>, Error>;

    /// The durable offset of an upload of this repository and principal that is not expired.
    async fn upload_offset(&self, key: &UploadKey) -> Result<Option<u64>, Error>;

    /// Takes the upload for one request, for 60 s from now by the database's clock.
    async fn lease_upload(&self, key: &UploadKey, token: Uuid) -> Result<LeaseOutcome, Error>;

    /// Extends a lease to 60 s from now. `false`: lost; the request must stop.
    async fn extend_lease(&self, id: Uuid, token: Uuid) -> Result<bool, Error>;

    /// Lets go of an upload without progress.
    async fn release_upload(&self, id: Uuid, token: Uuid) -> Result<(), Error>;

    /// Starts an upload anew at offset 0, under another generation; what the old one left is queued for
    /// deletion. `false`: the lease is lost.
    async fn restart_upload(&self, id: Uuid, token: Uuid, generation: Generation) -> Result<bool, Error>;

    /// Records the multipart upload before its first part is sent. `false`: the lease is lost.
    async fn record_multipart(&self, id: Uuid, token: Uuid, multipart: &Multipart) -> Result<bool, Error>;

    /// Stores what is durable and lets go. `false`: the lease is lost, nothing is stored.
    async fn store_progress(&self, id: Uuid, token: Uuid, progress: &Progress) -> Result<bool, Error>;

    /// Records how the upload will be closed; from then on it can only be closed that way.
    /// `false`: the lease is lost.
    async fn record_plan(
        &self,
        id: Uuid,
        token: Uuid,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<bool, Error>;

    /// Takes an upload that nobody has taken since the request with `lease` stored its progress, and records its plan.
    /// `false`: somebody has, it has expired, or it is of an earlier incarnation; nothing is changed.
    async fn plan_paused(&self, id: Uuid, lease: u32, token: Uuid, plan: &Plan) -> Result<bool, Error>;

    /// Ends an upload and queues all it left for deletion. `false`: the lease is lost.
    async fn drop_upload(&self, id: Uuid, token: Uuid) -> Result<bool, Error>;

    /// Ends an upload of this repository and principal unless a request holds it.
    async fn cancel_upload(&self, key: &UploadKey) -> Result<CancelOutcome, Error>;

    /// Whether the blob's data is stored and linked anywhere; if so its life is extended past this upload.
    async fn touch_stored(&self, digest: &Digest) -> Result<bool, Error>;

    /// Publishes an upload as a blob of its repository: row, link, end of the upload. Its data, pointer and
    /// link record are in the bucket.
    async fn commit_blob(&self, epoch: Epoch, commit: &BlobCommit) -> Result<CommitOutcome, Error>;

    /// Records the intent to link the blob of `from` in `to`. `None`: there is no such blob in `from`.
    async fn begin_mount(
        &self,
        epoch: Epoch,
        from: &Name,
        to: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error>;

    /// Publishes the link, whose record is in the bucket. `false`: the source is gone.
    async fn finish_mount(&self, epoch: Epoch, mount: &Mount) -> Result<bool, Error>;
}

/// Manifests and tags: pin, publish, delete.
#[async_trait]
pub trait Publish: Send + Sync {
    /// Holds everything the manifest refers to, gives each tag its place in the order, and records the
    /// intent to write the records. Makes the repository's row if need be.
    async fn pin_manifest(&self, epoch: Epoch, pin: &Pin) -> Result<PinOutcome, Error>;

    /// Makes the manifest live and moves the tags, in one step. The records are in the bucket.
    async fn publish_manifest(&self, pinned: &Pinned) -> Result<PublishOutcome, Error>;

    /// Whether a push that was pinned in this epoch or an earlier one has taken effect although nobody was told: the
    /// answer to its commit was lost, or a reaper or a walk has rolled it forward. Not if an immutable tag of it names
    /// something else, nor, of a promotion, if the ledger does not have it.
    async fn took_effect(&self, epoch: Epoch, pinned: &Pinned) -> Result<bool, Error>;

    /// Puts the tag into the trash for `retain` and queues its tombstone. `None`: there is no such tag.
    /// The caller carries the removal out, then calls [`finish_removal`](Self::finish_removal).
    async fn delete_tag(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        retain: Duration,
    ) -> Result<Option<Removal>, Error>;

    /// The same, if the tag still has that record.
    async fn delete_tag_of(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        generation: Generation,
        retain: Duration,
    ) -> Result<Option<Removal>, Error>;

    /// Puts the manifest and its tags into the trash for `retain` and queues tombstones and marker, unless it has a tag
    /// that is `spared`.
    async fn delete_manifest(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        retain: Duration,
        spared: &Spared<'_>,
    ) -> Result<DeleteOutcome, Error>;

    /// Hides the blob from the repository and queues the link record.
    async fn delete_blob(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
    ) -> Result<DeleteOutcome, Error>;

    /// Forgets a removal that has been carried out in the bucket. `false`: it is not known (any more), as it was
    /// carried out by somebody else, or what it belongs to was lost with an incarnation of the database.
    async fn finish_removal(&self, removal: &Removal) -> Result<bool, Error>;
}

/// The incarnation of the database, and who took it over.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Who owns the database and whether its incarnation is known. `None`: it is empty.
    async fn envelope(&self) -> Result<Option<Envelope>, Error>;

    /// Makes an empty database the one of `registry`. `false`: somebody was faster.
    async fn found(&self, registry: Uuid) -> Result<bool, Error>;

    /// Claims the next epoch, above `bucket`'s newest, for 30 s. `None`: the incarnation is known by now, or
    /// another claim stands.
    async fn claim_epoch(&self, bucket: u32, generation: Generation) -> Result<Option<u32>, Error>;

    /// Makes the claimed epoch, whose object is in the bucket, the current one. `false`: a later claim won.
    async fn enter_epoch(&self, claim: u32, generation: Generation) -> Result<bool, Error>;

    /// Records that all of the bucket was compared with the database in this epoch.
    async fn finish_walk(&self, epoch: Epoch) -> Result<bool, Error>;

    /// Drops everything that was made in the database, if it is that of `registry` or nobody's. `false`: it is
    /// another's. After it the database is as before its first migration, and the store of no more use.
    async fn destroy(&self, registry: Uuid) -> Result<bool, Error>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), Error>;
}

/// The whole database, as the wiring knows it; rooms are given the role they need.
pub trait MetaStore:
    Resolve
    + Receive
    + Publish
    + Trash
    + Collect
    + Leases
    + Reconcile
    + Verification
    + Mirroring
    + Pulls
    + Usages
    + Cached
    + Ledger
    + Candidates
    + Retain
    + Runs
{
}

impl<T> MetaStore for T where
    T: Resolve
        + Receive
        + Publish
        + Trash
        + Collect
        + Leases
        + Reconcile
        + Verification
        + Mirroring
        + Pulls
        + Usages
        + Cached
        + Ledger
        + Candidates
        + Retain
        + Runs
{
}
