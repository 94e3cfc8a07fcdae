// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a comparison asks of a database, within a transaction, and what rows say.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use super::plan_records::TagSet;
use super::{Kind, LedgerClaim, Loss, TagEntry};
use crate::key::{Form, Generation, Key, Version};
use crate::meta::{Epoch, Error, LedgerRecord, Location, ManifestFacts, RepositoryId};

/// What a blob's row says.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct BlobFact {
    pub(in crate::meta) id: i64,
    /// `None`: its data is absent.
    pub(in crate::meta) location: Option<Location>,
}

/// What a link's row says.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct LinkFact {
    pub(in crate::meta) id: i64,
    /// `None`: it is hidden.
    pub(in crate::meta) generation: Option<Generation>,
}

/// What refers to a link.
#[derive(Clone, Debug, Default)]
pub(in crate::meta) struct Holders {
    /// Live manifests.
    pub(in crate::meta) live: Vec<Digest>,
    /// Live or pending ones do.
    pub(in crate::meta) wanted: bool,
    /// Any do, deleted ones too.
    pub(in crate::meta) held: bool,
}

/// The states of a manifest's row, by their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::meta) enum State {
    Pending,
    Live,
    Trashed,
    Doomed,
}

impl State {
    /// By the code in the column.
    pub(in crate::meta) const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Pending),
            1 => Some(Self::Live),
            2 => Some(Self::Trashed),
            3 => Some(Self::Doomed),
            _ => None,
        }
    }
}

/// What a manifest's row says.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct ManifestFact {
    pub(in crate::meta) id: i64,
    pub(in crate::meta) digest: Digest,
    pub(in crate::meta) state: State,
    pub(in crate::meta) generation: Option<Generation>,
}

/// A manifest to be inserted.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct NewManifest<'a> {
    pub(in crate::meta) generation: Generation,
    pub(in crate::meta) facts: &'a ManifestFacts,
    /// It is deleted: how long it can be restored.
    pub(in crate::meta) trashed: Option<Duration>,
}

/// What a tag's row says.
#[derive(Clone, Debug)]
pub(in crate::meta) struct TagFact {
    pub(in crate::meta) tag: Tag,
    pub(in crate::meta) target: Digest,
    pub(in crate::meta) version: Version,
    pub(in crate::meta) generation: Generation,
    /// Set: the row is a tombstone, and this the record below it.
    pub(in crate::meta) hidden: Option<(Version, Generation)>,
}

impl TagFact {
    /// The record that the row stands for.
    pub(in crate::meta) fn entry(&self) -> TagEntry {
        let target = self.hidden.is_none().then_some(self.target);
        TagEntry { version: self.version, generation: self.generation, target }
    }

    /// The record that the row's tombstone hides.
    pub(in crate::meta) fn hidden_entry(&self) -> Option<TagEntry> {
        let target = Some(self.target);
        self.hidden.map(|(version, generation)| TagEntry { version, generation, target })
    }
}

/// Whether a manifest lives, and its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::meta) enum Life {
    Live(i64),
    Trashed(i64),
    None,
}

impl Life {
    pub(super) const fn is_live(self) -> bool {
        matches!(self, Self::Live(_))
    }

    pub(super) const fn row(self) -> Option<i64> {
        match self {
            Self::Live(id) | Self::Trashed(id) => Some(id),
            Self::None => None,
        }
    }
}

/// The rows, within a transaction that holds the epoch.
pub(in crate::meta) trait Rows {
    /// How a statement fails.
    type Fault: From<Error>;

    /// Rows of blobs. `lock`: against everybody who would change or refer to them.
    async fn blob_facts(
        &mut self,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, BlobFact>, Self::Fault>;
    /// Inserts rows unless there are some; without a location, absent ones. Those that were inserted.
    async fn insert_blobs(
        &mut self,
        blobs: &[(Digest, Option<Location>)],
    ) -> Result<HashSet<Digest>, Self::Fault>;
    /// Sets where data is; `None`: nowhere.
    async fn set_blobs(&mut self, blobs: &[(i64, Option<Location>)]) -> Result<(), Self::Fault>;

    /// The row of a repository; makes it if `create`.
    async fn repository_row(
        &mut self,
        name: &Name,
        create: bool,
    ) -> Result<Option<RepositoryId>, Self::Fault>;

    /// Rows of links.
    async fn link_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, LinkFact>, Self::Fault>;
    /// Inserts rows unless there are some; those that were. Their blobs have rows.
    async fn insert_links(
        &mut self,
        repository: RepositoryId,
        links: &[(Digest, Option<Generation>)],
    ) -> Result<HashSet<Digest>, Self::Fault>;
    /// Sets the records of links; `None`: hidden.
    async fn set_links(&mut self, links: &[(i64, Option<Generation>)]) -> Result<(), Self::Fault>;
    /// Deletes a link that nothing refers to; its blob becomes a candidate.
    async fn delete_link(&mut self, link: i64) -> Result<(), Self::Fault>;
    /// What refers to a link.
    async fn holders(
        &mut self,
        repository: RepositoryId,
        link: i64,
        digest: Digest,
    ) -> Result<Holders, Self::Fault>;

    /// Rows of manifests in any state.
    async fn manifest_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<Vec<ManifestFact>, Self::Fault>;
    /// Puts live manifests into the trash, and forgets their live tags.
    async fn trash_manifests(&mut self, manifests: &[i64], retain: Duration) -> Result<(), Self::Fault>;
    /// Makes pending manifests live.
    async fn enliven(&mut self, manifests: &[(i64, Generation)]) -> Result<(), Self::Fault>;
    /// Inserts manifests, in this order. `None`: somebody was faster.
    async fn insert_manifests(
        &mut self,
        repository: RepositoryId,
        manifests: &[NewManifest<'_>],
    ) -> Result<Vec<Option<i64>>, Self::Fault>;
    /// Records what manifests refer to; the links are there.
    async fn insert_references(
        &mut self,
        repository: RepositoryId,
        manifests: &[(i64, &ManifestFacts)],
    ) -> Result<(), Self::Fault>;

    /// Whether manifests live.
    async fn lives(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, Life>, Self::Fault>;
    /// Rows of tags.
    async fn tag_facts(
        &mut self,
        repository: RepositoryId,
        tags: &[Tag],
        lock: bool,
    ) -> Result<HashMap<Tag, TagFact>, Self::Fault>;
    /// Forgets rows of tags.
    async fn drop_tags(&mut self, repository: RepositoryId, tags: &[Tag]) -> Result<(), Self::Fault>;
    /// Inserts rows of tags unless there are some; those that were.
    async fn insert_tags(
        &mut self,
        repository: RepositoryId,
        tags: &[(Tag, TagSet)],
        retain: Duration,
    ) -> Result<HashSet<Tag>, Self::Fault>;

    /// Inserts promotions that took effect, unless they are there; how many were.
    async fn insert_promotions(&mut self, found: &[(LedgerClaim, LedgerRecord)]) -> Result<u64, Self::Fault>;
    /// Forgets promotions; how many.
    async fn forget_promotions(&mut self, gone: &[LedgerClaim]) -> Result<u64, Self::Fault>;

    /// Which of these steps are queued.
    async fn queued(&mut self, steps: &[String]) -> Result<HashSet<String>, Self::Fault>;
    /// Takes an object's removal out of the queue, with that of what it was uploaded by: it has turned out to be
    /// live.
    async fn unqueue(&mut self, key: &Key) -> Result<(), Self::Fault>;
    /// Which of these keys an open push of the epoch has announced.
    async fn announced(&mut self, epoch: Epoch, keys: &[String]) -> Result<HashSet<String>, Self::Fault>;
    /// Which of these generations are of open uploads.
    async fn uploading(&mut self, generations: &[Generation]) -> Result<HashSet<Generation>, Self::Fault>;
    /// The same, held so that they do not end meanwhile. `false`: somebody is changing or ending it.
    async fn hold_uploads(
        &mut self,
        generations: &[Generation],
    ) -> Result<HashMap<Generation, bool>, Self::Fault>;
    /// Records of uploads, which are held, how the bucket says that they were closed. One that knows keeps its plan.
    async fn learn_plans(
        &mut self,
        plans: &[(Generation, Digest, Option<Location>)],
    ) -> Result<(), Self::Fault>;
    /// Which data of these generations blobs are made of.
    async fn stored(&mut self, generations: &[Generation]) -> Result<HashMap<Generation, Form>, Self::Fault>;
    /// Remembers objects that no row names; those that were first seen at least `age` ago.
    async fn orphans(&mut self, objects: &[String], age: Duration) -> Result<HashSet<String>, Self::Fault>;
    /// Sets the record of a tag, which stands at the same place.
    async fn renew_tag(
        &mut self,
        repository: RepositoryId,
        tag: &Tag,
        generation: Generation,
    ) -> Result<(), Self::Fault>;
    /// Queues steps; the row.
    async fn owe(&mut self, owed: Owed) -> Result<i64, Self::Fault>;
    /// Counts rows that are lost, where a walk counts them: how many there are now.
    async fn lose(&mut self, epoch: Epoch, kind: Kind, lost: u64) -> Result<Option<Loss>, Self::Fault>;
}

/// Steps to be queued.
#[derive(Clone, Debug, Default)]
pub(in crate::meta) struct Owed {
    pub(in crate::meta) steps: Vec<String>,
    pub(in crate::meta) lane: Option<String>,
    /// The manifest that a marker is about.
    pub(in crate::meta) about: Option<i64>,
    pub(in crate::meta) after: Duration,
}
