// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reads while the database is away, from the records in the bucket.
//!
//! What they show may include pushes that were not acknowledged yet; such pushes are finished later, never
//! undone, so nothing seen here disappears by itself.

use stowage_oci::{Digest, Manifest, Name, Reference, Tag};

use super::pull::{Blob, ManifestAnswer};
use super::{CachedManifest, Domain, Error};
use crate::key::{Generation, Key};
use crate::meta::{Location, ReferrerRow};

/// How many of a tag's records are looked at: all but the newest are superseded and will be removed.
const TAG_RECORDS: usize = 1000;

impl Domain {
    pub(super) async fn degraded_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        head: bool,
    ) -> Result<ManifestAnswer, Error> {
        let (digest, generation, tag) = match reference {
            Reference::Digest(digest) => {
                let record = self.recorded_manifest(repository, digest).await?;
                (*digest, record.ok_or(Error::ManifestUnknown)?, None)
            }
            Reference::Tag(tag) => {
                let record = self.recorded_tag(repository, tag).await?;
                let (digest, generation, tag) = record.ok_or(Error::ManifestUnknown)?;
                (digest, generation, Some(tag))
            }
        };
        let manifest =
            self.recorded_body(repository, &digest, generation).await?.ok_or(Error::ManifestUnknown)?;
        Ok(ManifestAnswer {
            repository: repository.clone(),
            digest,
            media_type: manifest.media_type,
            size: manifest.body.len() as u64,
            body: (!head).then_some(manifest.body),
            tag_version: tag.map(|tag| tag.milliseconds()),
            degraded: true,
            stale: false,
            held_back: false,
        })
    }

    /// What the tag's highest record names that is not withdrawn, if that lives: digest, its record, the tag's.
    async fn recorded_tag(
        &self,
        repository: &Name,
        tag: &Tag,
    ) -> Result<Option<(Digest, Generation, Generation)>, Error> {
        let objects = self.store.list(&Key::tag_prefix(repository, tag), None, TAG_RECORDS).await?;
        let keys: Vec<Key> = objects.iter().filter_map(|object| object.key.parse().ok()).collect();
        for key in &keys {
            let Key::Tag { version, generation, target, .. } = key else { continue };
            let withdrawn = keys.iter().any(|other| {
                matches!(other, Key::TagWithdrawn { version: v, generation: g, .. } if (v, g) == (version, generation))
            });
            if withdrawn {
                continue;
            }
            let Some(digest) = target else { return Ok(None) };
            if let Some(record) = self.recorded_manifest(repository, digest).await? {
                return Ok(Some((*digest, record, *generation)));
            }
        }
        Ok(None)
    }

    /// A generation of the manifest whose record has no marker.
    async fn recorded_manifest(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> Result<Option<Generation>, Error> {
        const RECORDS: usize = 100;
        let objects = self.store.list(&Key::manifest_prefix(repository, digest), None, RECORDS).await?;
        let keys: Vec<Key> = objects.iter().filter_map(|object| object.key.parse().ok()).collect();
        let deleted = |candidate: &Generation| {
            keys.iter()
                .any(|key| matches!(key, Key::ManifestDeleted { generation, .. } if generation == candidate))
        };
        Ok(keys.iter().find_map(|key| match key {
            Key::Manifest { generation, .. } if !deleted(generation) => Some(*generation),
            _ => None,
        }))
    }

    async fn recorded_body(
        &self,
        repository: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<CachedManifest>, Error> {
        if let Some(cached) = self.manifests.get(digest) {
            return Ok(Some(cached));
        }
        let key = Key::Manifest { repository: repository.clone(), digest: *digest, generation };
        let Some(body) = self.read_whole(&key).await? else { return Ok(None) };
        let media_type = Manifest::parse(&body, None)?.media_type;
        let manifest = CachedManifest { media_type, body };
        self.manifests.insert(*digest, manifest.clone());
        Ok(Some(manifest))
    }

    pub(super) async fn degraded_blob(&self, repository: &Name, digest: &Digest) -> Result<Blob, Error> {
        let links = self.store.list(&Key::link_prefix(repository, digest), None, 1).await?;
        if links.is_empty() {
            return Err(Error::BlobUnknown);
        }
        let objects = self.store.list(&Key::blob_prefix(digest), None, 10).await?;
        let location = objects.iter().find_map(|object| match object.key.parse() {
            Ok(Key::Blob { generation, size, form, .. }) => Some(Location { generation, form, size }),
            _ => None,
        });
        let location = location.ok_or(Error::BlobUnknown)?;
        Ok(Blob { digest: *digest, location, degraded: true })
    }

    /// All referrers of `subject`, newest first.
    pub(super) async fn degraded_referrers(
        &self,
        repository: &Name,
        subject: &Digest,
    ) -> Result<Vec<ReferrerRow>, Error> {
        const ENTRIES: usize = 10_000;
        let objects = self.store.list(&Key::referrer_prefix(repository, subject), None, ENTRIES).await?;
        let mut found = Vec::new();
        for object in objects {
            let Ok(Key::Referrer { digest, generation, .. }) = object.key.parse() else { continue };
            if self.recorded_manifest(repository, &digest).await? != Some(generation) {
                continue;
            }
            let Some(manifest) = self.recorded_body(repository, &digest, generation).await? else { continue };
            let parsed = Manifest::parse(&manifest.body, None)?;
            let row = ReferrerRow {
                generation,
                digest,
                media_type: manifest.media_type,
                size: u32::try_from(manifest.body.len()).unwrap_or(u32::MAX),
                artifact_type: parsed.artifact_type,
                annotations: parsed.annotations,
            };
            found.push(row);
        }
        found.sort_by_key(|row| std::cmp::Reverse(row.generation));
        Ok(found)
    }
}
