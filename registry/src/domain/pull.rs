// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulling: manifests and blobs.

use std::ops::Range;

use bytes::Bytes;
use stowage_oci::{Digest, Name, Reference};

use super::reconcile::Unit;
use super::{CachedManifest, Domain, Error};
use crate::blobs::ByteStream;
use crate::key::{Form, Key};
use crate::meta::{self, Epoch, Location, ManifestRow};

/// A manifest, as it is answered.
#[derive(Clone, Debug)]
pub struct ManifestAnswer {
    /// Where it is stored.
    pub repository: Name,
    /// Its digest; by tag, the one the tag was set with.
    pub digest: Digest,
    /// As it was pushed.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes, as they were pushed; `None` when only its head was asked for.
    pub body: Option<Bytes>,
    /// By tag: when the tag was set, in milliseconds, here or at the registry that it was copied from.
    pub tag_version: Option<u64>,
    /// Answered from the bucket, because the database is away.
    pub degraded: bool,
    /// What a mirror had last, because its upstream could not be asked.
    pub stale: bool,
    /// What a mirror had last, because what the tag is by now is not signed as it must be, or the tag is immutable here.
    pub held_back: bool,
}

/// What is told of a blob beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct BlobHead {
    /// Its digest.
    pub digest: Digest,
    /// How long it is.
    pub size: u64,
    /// Answered from the bucket, because the database is away.
    pub degraded: bool,
}

/// A blob that the repository sees.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Where its data is, and how long it is.
    pub location: Location,
    /// Answered from the bucket, because the database is away.
    pub degraded: bool,
}

impl Blob {
    /// What is told of it beside its bytes.
    #[must_use]
    pub const fn head(&self) -> BlobHead {
        BlobHead { digest: self.digest, size: self.location.size, degraded: self.degraded }
    }
}

impl Location {
    /// The object that holds the bytes of `digest`.
    #[must_use]
    pub fn data_key(&self, digest: Digest) -> Key {
        let generation = self.generation;
        match self.form {
            Form::Inline => Key::Blob { digest, generation, size: self.size, form: Form::Inline },
            Form::Upload => Key::Upload { generation },
            Form::Tail(lease) => Key::UploadTail { generation, lease },
        }
    }

    /// The object whose existence says that the digest is stored.
    #[must_use]
    pub fn blob_key(&self, digest: Digest) -> Key {
        Key::Blob { digest, generation: self.generation, size: self.size, form: self.form }
    }
}

impl Domain {
    /// The manifest that `reference` names. `head`: without its bytes; by digest this renews its lease, so
    /// that a client may rely on it in a push that follows.
    pub async fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        head: bool,
    ) -> Result<ManifestAnswer, Error> {
        let unit = Unit::named(repository, reference);
        let question = |epoch| self.manifest_row(epoch, repository, reference, head);
        let Some(row) = self.ask(&[unit], question).await? else {
            return self.degraded_manifest(repository, reference, head).await;
        };
        let row = row.ok_or(Error::ManifestUnknown)?;
        let body = if head { None } else { Some(self.manifest_body(repository, &row).await?) };
        Ok(ManifestAnswer {
            repository: repository.clone(),
            digest: row.digest,
            media_type: row.media_type,
            size: u64::from(row.size),
            body,
            tag_version: row.tag.map(|tag| tag.milliseconds()),
            degraded: false,
            stale: false,
            held_back: false,
        })
    }

    async fn manifest_row(
        &self,
        epoch: Epoch,
        repository: &Name,
        reference: &Reference,
        head: bool,
    ) -> Result<Option<ManifestRow>, meta::Error> {
        let promises = head && matches!(reference, Reference::Digest(_));
        let row = self.lookups.manifest(epoch, repository, reference).await?;
        match &row {
            // The row went between the two statements: what the second reading says counts.
            Some(found) if promises && found.lease_is_old && !self.meta.renew_manifest(found.id).await? => {
                self.lookups.manifest(epoch, repository, reference).await
            }
            _ => Ok(row),
        }
    }

    async fn manifest_body(&self, repository: &Name, row: &ManifestRow) -> Result<Bytes, Error> {
        if let Some(body) = &row.body {
            return Ok(body.clone());
        }
        if let Some(cached) = self.manifests.get(&row.digest) {
            return Ok(cached.body);
        }
        let key =
            Key::Manifest { repository: repository.clone(), digest: row.digest, generation: row.generation };
        let body = self.read_whole(&key).await?.ok_or(Error::ManifestUnknown)?;
        let cached = CachedManifest { media_type: row.media_type.clone(), body: body.clone() };
        self.manifests.insert(row.digest, cached);
        Ok(body)
    }

    /// The blob, if the repository sees it. `head` renews its lease: a manifest pushed within the next twelve
    /// hours may refer to it.
    pub async fn blob(&self, repository: &Name, digest: &Digest, head: bool) -> Result<Blob, Error> {
        let unit = Unit::Link(repository.clone(), *digest);
        let question = |epoch| self.blob_row(epoch, repository, digest, head);
        let Some(row) = self.ask(&[unit], question).await? else {
            return self.degraded_blob(repository, digest).await;
        };
        let row = row.ok_or(Error::BlobUnknown)?;
        Ok(Blob { digest: *digest, location: row.location, degraded: false })
    }

    async fn blob_row(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        head: bool,
    ) -> Result<Option<meta::BlobRow>, meta::Error> {
        let row = self.lookups.blob(epoch, repository, digest).await?;
        match &row {
            Some(found) if head && found.lease_is_old && !self.meta.renew_link(found.link).await? => {
                self.lookups.blob(epoch, repository, digest).await
            }
            _ => Ok(row),
        }
    }

    /// The bytes of a blob, or of `range`, which lies within it. Dropping the stream cancels the read.
    pub async fn read_blob(&self, blob: &Blob, range: Option<Range<u64>>) -> Result<ByteStream, Error> {
        let key = blob.location.data_key(blob.digest).to_string();
        match self.store.get(&key, range).await? {
            Some(content) if content.size == blob.location.size => Ok(content.stream),
            // The next push brings it again; until then it must not be promised to anybody.
            found => {
                let found = found.map(|content| content.size);
                tracing::error!(blob.digest = %blob.digest, object.key = key, ?found, "blob data is missing");
                self.note_missing(blob, &key).await?;
                Err(Error::BlobUnknown)
            }
        }
    }

    /// Data that was not there, or was of another length, is looked for once more; then the row says so. An epoch
    /// that is not walked finds it out by itself.
    async fn note_missing(&self, blob: &Blob, key: &str) -> Result<(), Error> {
        let is_there = self.store.head(key).await? == Some(blob.location.size);
        if is_there || blob.degraded || !self.trust.enter().await?.trusted {
            return Ok(());
        }
        Ok(self.meta.mark_absent(&blob.digest, blob.location.generation).await?)
    }

    /// An address at which a client can read the blob's bytes from the store itself, where it offers that.
    pub async fn direct_address(&self, blob: &Blob) -> Result<Option<String>, Error> {
        let Some(presigner) = self.store.presigner() else { return Ok(None) };
        Ok(Some(presigner.presign(&blob.location.data_key(blob.digest).to_string()).await?))
    }

    /// A small object as a whole.
    pub(super) async fn read_whole(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        Ok(self.comparer.read_whole(key).await?)
    }
}
