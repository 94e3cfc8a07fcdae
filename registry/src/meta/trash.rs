// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that knows what was deleted and may still come back. It comes back by an ordinary push of its bytes;
//! what was deleted goes its way.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _};
use stowage_oci::{Digest, Name, Reference};

use super::{Epoch, Error, Mount};
use crate::key::Generation;

/// A deleted tag, or a deleted manifest that no deleted tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// What it is.
    pub item: TrashItem,
    /// The manifest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u32,
    /// Until when it is kept at least, in milliseconds since 1970.
    pub until: u64,
}

/// By what something in the trash is called. Also where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashItem {
    /// Its repository.
    pub repository: Name,
    /// The tag, or the digest of what has none.
    pub reference: Reference,
}

/// The text does not name something in a trash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a repository and a tag or digest, as in team/app:1.0 or team/app@sha256:…, not {0:?}")]
pub struct NotAnItem(String);

impl FromStr for TrashItem {
    type Err = NotAnItem;

    fn from_str(text: &str) -> Result<Self, NotAnItem> {
        let wrong = || NotAnItem(text.chars().take(300).collect());
        let (repository, reference) = if let Some((repository, digest)) = text.split_once('@') {
            (repository, digest.parse().map(Reference::Digest).ok())
        } else {
            let (repository, tag) = text.split_once(':').ok_or_else(wrong)?;
            (repository, tag.parse().map(Reference::Tag).ok())
        };
        let repository = repository.parse().map_err(|_not_a_name| wrong())?;
        Ok(Self { repository, reference: reference.ok_or_else(wrong)? })
    }
}

impl fmt::Display for TrashItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if matches!(self.reference, Reference::Tag(_)) { ':' } else { '@' };
        write!(f, "{}{mark}{}", self.repository, self.reference)
    }
}

impl<'de> Deserialize<'de> for TrashItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Trashed {
    /// Until when it is kept at least, as RFC 3339 has it.
    #[must_use]
    pub fn kept_until(&self) -> jiff::Timestamp {
        let milliseconds = i64::try_from(self.until).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl TrashItem {
    /// Its place in its repository: digests, then tags, each in byte order.
    pub(super) fn place(&self) -> String {
        match &self.reference {
            Reference::Digest(digest) => format!("m{:02x}{}", digest.algorithm().code(), digest.hex()),
            Reference::Tag(tag) => format!("t{tag}"),
        }
    }
}

/// A manifest that can be pushed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restorable {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Its record.
    pub generation: Generation,
    /// Its bytes, if they are kept in the row.
    pub body: Option<Bytes>,
    /// Of a deleted tag: its tombstone.
    pub tombstone: Option<Generation>,
}

/// What was deleted and may still come back. Each answers only in its epoch.
#[async_trait]
pub trait Trash: Send + Sync {
    /// Up to `limit` entries after `after`, by repository and place; those of one repository, or of all.
    async fn trash(
        &self,
        epoch: Epoch,
        repository: Option<&Name>,
        after: Option<&TrashItem>,
        limit: u32,
    ) -> Result<Vec<Trashed>, Error>;

    /// What the deleted tag named, or the manifest that was deleted last under the digest. `None`: it is not in the
    /// trash, or lives again.
    async fn trashed(&self, epoch: Epoch, item: &TrashItem) -> Result<Option<Restorable>, Error>;

    /// Deleted manifests with that subject, once each.
    async fn trashed_referrers(
        &self,
        epoch: Epoch,
        repository: &Name,
        subject: &Digest,
    ) -> Result<Vec<Digest>, Error>;

    /// Records the intent to show again a blob that was deleted from `repository` and is kept for the trash. `None`:
    /// there is none such. [`finish_mount`](super::Receive::finish_mount) ends it.
    async fn begin_showing(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error>;
}
