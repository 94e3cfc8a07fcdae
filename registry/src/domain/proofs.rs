// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Signatures that are here, and small blobs of an upstream that may be some.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use stowage_oci::{Digest, Name, Reference};

use super::{Domain, Error};
use crate::operation::Page;
use crate::signatures::{MOST_BYTES, Referrer, Source};
use crate::upstream::{self, Answered, Blob, Kind};

/// Signatures in a repository of ours.
pub(super) struct Held<'a> {
    pub(super) domain: &'a Domain,
    pub(super) repository: &'a Name,
    /// Longer blobs are not looked at.
    pub(super) most_bytes: u64,
}

impl<'a> Held<'a> {
    /// Of the length of signatures.
    pub(super) fn new(domain: &'a Domain, repository: &'a Name) -> Self {
        Self { domain, repository, most_bytes: MOST_BYTES }
    }
}

#[async_trait]
impl Source for Held<'_> {
    type Error = Error;

    async fn referrers(&self, image: &Digest) -> Result<Vec<Referrer>, Error> {
        // A page has more than are looked at.
        let found = self.domain.referrers(self.repository, image, &[], &Page::default()).await?;
        let none = std::collections::BTreeMap::new();
        let referrer = |row: crate::meta::ReferrerRow| {
            Referrer::new(row.digest, row.artifact_type, row.annotations.as_ref().unwrap_or(&none))
        };
        Ok(found.manifests.into_iter().map(referrer).collect())
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Bytes>, Error> {
        match self.domain.manifest(self.repository, reference, false).await {
            Ok(answer) => Ok(answer.body),
            Err(Error::ManifestUnknown | Error::NameUnknown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let blob = match self.domain.blob(self.repository, digest, false).await {
            Ok(blob) => blob,
            Err(Error::BlobUnknown | Error::NameUnknown) => return Ok(None),
            Err(error) => return Err(error),
        };
        if blob.location.size > self.most_bytes {
            return Ok(None);
        }
        let stream = self.domain.read_blob(&blob, None).await?;
        let content = stream.map_err(Error::from).try_fold(BytesMut::new(), appended);
        Ok(Some(content.await?.freeze()))
    }
}

async fn appended<E>(mut content: BytesMut, bytes: Bytes) -> Result<BytesMut, E> {
    content.extend_from_slice(&bytes);
    Ok(content)
}

/// A blob of an upstream as a whole, if it is not too long for a signature.
pub(super) async fn collected(blob: Answered<Blob>) -> Result<Answered<Option<Bytes>>, upstream::Error> {
    let Answered { value: Blob { size, body }, budget } = blob;
    let is_long = |length: u64| length > MOST_BYTES;
    if size.is_some_and(is_long) {
        return Ok(Answered { value: None, budget });
    }
    let mut stream = std::pin::pin!(body.into_stream());
    let mut content = BytesMut::new();
    while let Some(bytes) = stream.try_next().await? {
        content.extend_from_slice(&bytes);
        if is_long(content.len() as u64) {
            return Ok(Answered { value: None, budget });
        }
    }
    Ok(Answered { value: Some(content.freeze()), budget })
}

/// What refers to an image at an upstream.
pub(super) fn referrers_of(found: upstream::Referrers) -> Vec<Referrer> {
    let referrer =
        |found: upstream::Referrer| Referrer::new(found.digest, found.artifact_type, &found.annotations);
    found.manifests.into_iter().map(referrer).collect()
}

/// `None` for what is not there.
pub(super) fn if_there<T>(outcome: Result<T, upstream::Error>) -> Result<Option<T>, upstream::Error> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
