// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What of other registries is kept below a path, with what decides whether it goes.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::{Error, ManifestId};
use crate::key::Day;

/// A live manifest below the path of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedManifest {
    /// Its row.
    pub id: ManifestId,
    /// Its repository.
    pub repository: Name,
    /// Its digest.
    pub digest: Digest,
    /// How long ago it was stored.
    pub age: Duration,
    /// The last day on which it was pulled itself.
    pub pulled: Option<Day>,
    /// The day of today.
    pub today: Day,
    /// Whether it was promoted from here, or waits to be.
    pub is_promoted: bool,
    /// What it is about.
    pub subject: Option<Digest>,
    /// The manifests that it lists.
    pub children: Vec<Digest>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The blobs that it lists and how much of each is stored here, in bytes.
    pub blobs: Vec<(Digest, u64)>,
}

/// What mirrors have stored.
#[async_trait]
pub trait Cached: Send + Sync {
    /// Up to `limit` live manifests of repositories at or below `path`, by row, after `after`.
    async fn cached_manifests(
        &self,
        path: &Name,
        after: Option<ManifestId>,
        limit: u32,
    ) -> Result<Vec<CachedManifest>, Error>;
}
