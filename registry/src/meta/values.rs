// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What goes into the database and comes out of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stowage_oci::{Algorithm, Digest, Name, Tag};
use uuid::Uuid;

use super::LedgerRecord;
use crate::key::{Form, Generation, Mark, Part, Version};

/// An incarnation of the database that this process has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// Row id of a repository.
pub type RepositoryId = i32;

/// Row id of a manifest. Later pushes have higher ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestId(pub i64);

/// Row id of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub i64);

/// Who owns the database, and whether its incarnation is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The owner; the bucket's `FORMAT` names the same.
    pub registry: Uuid,
    /// The schema.
    pub schema: i32,
    /// The last epoch entered.
    pub epoch: Epoch,
    /// Whether the server is still the incarnation of that epoch.
    pub ours: bool,
    /// Whether all of the bucket was compared with the database in that epoch.
    pub walked: bool,
}

/// A live manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// Its row.
    pub id: ManifestId,
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as it was pushed.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u32,
    /// Its record in the bucket.
    pub generation: Generation,
    /// The record of the tag that was asked for.
    pub tag: Option<Generation>,
    /// Its bytes; `None` when they are too long for a row: read the record.
    pub body: Option<Bytes>,
    /// Whether less than half of its lease is left.
    pub lease_is_old: bool,
}

/// A blob that a repository sees and whose data is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// The link that shows it.
    pub link: LinkId,
    /// Where its data is.
    pub location: Location,
    /// Whether less than half of the link's lease is left.
    pub lease_is_old: bool,
}

/// Where the data of a blob is. Never changes while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The upload that brought it.
    pub generation: Generation,
    /// Under which of the upload's keys.
    pub form: Form,
    /// Its length in bytes.
    pub size: u64,
}

/// A manifest with a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrerRow {
    /// Its record, by which it has its place in the list.
    pub generation: Generation,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u32,
    /// What the referrers list shows as its artifact type.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: Option<Annotations>,
}

/// The annotations of a manifest.
pub type Annotations = BTreeMap<String, String>;

/// An upload to begin.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Where the blob shall be.
    pub repository: Name,
    /// Whose upload it is.
    pub principal: String,
    /// How its bytes are hashed.
    pub algorithm: Algorithm,
    /// Its first generation.
    pub generation: Generation,
}

/// What a client names an upload by. Other repositories and principals do not see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadKey {
    /// Its id.
    pub id: Uuid,
    /// Its repository.
    pub repository: Name,
    /// Its owner.
    pub principal: String,
}

/// What taking an upload came to.
#[derive(Clone, Debug)]
pub enum LeaseOutcome {
    /// It is ours for now.
    Leased(Box<LeasedUpload>),
    /// Another request holds it. Try again shortly.
    Busy {
        /// The durable offset.
        offset: u64,
    },
    /// There is no such upload.
    Unknown,
}

/// An upload that this request holds.
#[derive(Clone, Debug)]
pub struct LeasedUpload {
    /// Its id.
    pub id: Uuid,
    /// Its repository's row.
    pub repository: RepositoryId,
    /// Its generation.
    pub generation: Generation,
    /// Its generation was begun in an earlier incarnation of the database: more may have been written under it
    /// than is known.
    pub restored: bool,
    /// The number of this lease: names what this request stages.
    pub lease: u32,
    /// The multipart upload, once begun.
    pub multipart: Option<Multipart>,
    /// What is durable.
    pub progress: Progress,
    /// How its bytes are hashed.
    pub algorithm: Algorithm,
    /// Set once it is closing.
    pub plan: Option<Plan>,
}

/// A multipart upload of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// The store's id.
    pub id: String,
    /// The size of all parts but the last, in bytes.
    pub part_size: u64,
}

/// What of an upload is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub offset: u64,
    /// Parts the store has acknowledged.
    pub parts: Vec<Part>,
    /// The staged tail, sent ahead as the next part, in case nothing more comes.
    pub spec: Option<Part>,
    /// The saved state of the hash; empty before the first byte.
    pub hash: Vec<u8>,
    /// What is staged beside the parts, in order.
    pub tails: Vec<Tail>,
}

/// Bytes staged below one part, as an object of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The lease that staged it.
    pub lease: u32,
    /// Its length in bytes.
    pub size: u64,
}

/// How an upload is closed. Recorded first, then carried out, by whoever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the content is.
    pub digest: Digest,
    /// Where it will be; `None` when it is stored already and only a link record is written.
    pub form: Option<Form>,
    /// Its length in bytes.
    pub size: u64,
}

/// What cancelling an upload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is gone, and what it left is queued.
    Cancelled,
    /// A request holds it.
    Busy,
    /// There is no such upload.
    Unknown,
}

/// A blob to publish.
#[derive(Clone, Debug)]
pub struct BlobCommit {
    /// The upload.
    pub upload: Uuid,
    /// Our lease of it.
    pub token: Uuid,
    /// The content.
    pub digest: Digest,
    /// Where its data is; `None` when it was stored already and the bytes were only checked.
    pub location: Option<Location>,
    /// The link record that was written.
    pub link: Generation,
}

/// What publishing a blob came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The repository has the blob.
    Committed,
    /// The upload is no longer ours: the client starts over.
    UploadGone,
    /// The data that was stored already is gone by now: the client sends it again.
    DataGone,
}

/// A mount under way.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The intent's row.
    pub intent: i64,
    /// The source; `None`: the target itself, where the blob was deleted and is kept for the trash.
    pub from: Option<Name>,
    /// The target.
    pub to: Name,
    /// The blob.
    pub digest: Digest,
    /// The link record to write.
    pub generation: Generation,
}

/// What a manifest is and refers to: all that the database keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What the referrers list shows as its artifact type.
    pub artifact_type: Option<String>,
    /// What it refers to as its subject.
    pub subject: Option<Digest>,
    /// Its annotations.
    pub annotations: Option<Annotations>,
    /// Its length in bytes.
    pub size: u32,
    /// Its bytes, up to 64 KiB.
    pub body: Option<Bytes>,
    /// Config and layers that must be linked in the repository.
    pub blobs: Vec<Digest>,
    /// Manifests, or blobs, that it lists as an index. They may come later.
    pub children: Vec<Digest>,
}

/// A manifest to push.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Where.
    pub repository: Name,
    /// What.
    pub facts: ManifestFacts,
    /// The tags it shall have.
    pub tags: Vec<Tag>,
    /// Those of the tags that never name a second digest.
    pub immutable: Vec<Tag>,
    /// Whether all children must exist.
    pub strict: bool,
    /// Blobs with their lengths, if the manifest is that of a mirror: then none of its blobs need be here, and those
    /// that are not are hidden until they come.
    pub awaited: Vec<(Digest, u64)>,
    /// The record this push would write.
    pub generation: Generation,
    /// What it is, if a mirror copies it: then it has one tag.
    pub copied: Option<Copied>,
    /// The promotion that it carries out: then it has one tag, which must still name what the record says that it named
    /// before.
    pub ledger: Option<Box<LedgerRecord>>,
}

/// A tag that is set as somebody has seen it: copied by a mirror, or restored from the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Which mirror; `None`: it is restored.
    pub mark: Option<Mark>,
    /// When it was set at its origin, in milliseconds; `None`: nobody says so, and it is set now.
    pub at: Option<u64>,
    /// The record, or tombstone, that the tag had when it was decided to set it. With another one it is not set.
    pub over: Option<Generation>,
}

impl Copied {
    /// The generation of the record that it sets; without a mirror the one that was drawn.
    pub(super) fn generation(&self, drawn: Generation) -> Generation {
        let at = self.at.unwrap_or_else(|| drawn.milliseconds());
        self.mark.map_or(drawn, |mark| Generation::marked(at, mark))
    }

    /// Whether the mirror that copies it drew this generation.
    pub(super) fn is_by_its_mirror(&self, generation: Generation) -> bool {
        self.mark.is_some_and(|mark| generation.has(mark))
    }
}

/// A tag as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// Its name.
    pub tag: Tag,
    /// What it names, or named before it was deleted.
    pub target: Digest,
    /// Its record, or its tombstone.
    pub generation: Generation,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// What pinning a manifest came to.
#[derive(Clone, Debug)]
pub enum PinOutcome {
    /// Everything it refers to is held; write the records, then publish.
    Pinned(Box<Pinned>),
    /// These blobs, or children under strict rules, are not in the repository.
    Missing(Vec<Digest>),
    /// The tag is not what it was when it was decided to copy it, or to promote to it, or somebody is about to set it.
    Moved,
    /// This immutable tag names another digest, did before it was deleted, or is about to.
    Immutable(Tag),
}

/// A manifest push under way.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// The intent's row.
    pub intent: i64,
    /// The repository's row.
    pub repository: RepositoryId,
    /// The manifest's row.
    pub manifest: ManifestId,
    /// What was asked for.
    pub pin: Pin,
    /// Whether the manifest record (and referrer entry) must be written: it was not live yet.
    pub writes_record: bool,
    /// The tag records to write, in name order.
    pub tags: Vec<TagRecord>,
}

impl Pinned {
    /// The generation that the record of a promotion shares with that of its tag. `None`: nothing is promoted.
    pub(super) fn promotes(&self) -> Option<Generation> {
        self.pin.ledger.as_ref().and(self.tags.first()).map(|set| set.generation)
    }
}

/// A tag record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The tag.
    pub tag: Tag,
    /// Its place in the tag's order.
    pub version: Version,
    /// The record's generation.
    pub generation: Generation,
}

/// What publishing a manifest came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is live, and each tag names it or something newer, or was deleted since.
    Published,
    /// What was pinned is gone, or a tag went with the manifest that it named; begin again with a new generation.
    StartOver,
}

/// Objects to write and to remove before a deletion is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The queued row.
    pub outbox: i64,
    /// `+key`: write it, empty. `-key`: remove it. `!key id`: abort that multipart upload of it. In this order.
    pub steps: Vec<String>,
}

/// Which tags are not deleted.
pub type Spared<'a> = dyn Fn(&Tag) -> bool + Send + Sync + 'a;

/// What a deletion by digest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Carry the removal out, then it is done.
    Deleted(Removal),
    /// Something live refers to it.
    Referenced,
    /// It has this tag, which is not deleted.
    Spared(Tag),
    /// There is nothing of that digest here.
    Unknown,
}
