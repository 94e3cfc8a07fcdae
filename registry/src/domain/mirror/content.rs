// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Blobs of a mirror: what is here is answered from here; what is not is fetched once for all who ask.

use stowage_oci::{Digest, Reference};

use super::super::{Blob, BlobHead, Domain, Error};
use super::fetch::{Phase, is_missing};
use super::names::Mirrored;
use super::reader::Reader;
use super::{Asking, Failure, MirrorResult};

/// A blob of a mirror.
pub enum MirroredBlob {
    /// It is here.
    Stored(Blob),
    /// It is being fetched.
    Fetched(Box<Reader>),
    /// Only its length was asked for, and it is not here.
    Known(BlobHead),
}

/// An answer, and where it comes from.
type Answer = (Result<MirroredBlob, Error>, MirrorResult);

impl Domain {
    /// A blob of a repository of a mirror; `head`: only how long it is.
    pub async fn mirrored_blob(&self, at: &Mirrored, digest: &Digest, head: bool, asking: Asking) -> Answer {
        match self.blob(&at.stored, digest, head).await {
            Ok(blob) => return (Ok(MirroredBlob::Stored(blob)), MirrorResult::Hit),
            Err(Error::BlobUnknown) => {}
            Err(error) => return failed(error),
        }
        match self.missing_blob(at, digest, head, asking).await {
            Ok(found) => found,
            Err(error) => failed(error),
        }
    }

    async fn missing_blob(
        &self,
        at: &Mirrored,
        digest: &Digest,
        head: bool,
        asking: Asking,
    ) -> Result<Answer, Error> {
        // Nobody knows without the database.
        let awaited = self.meta.awaited_blob(&at.stored, digest).await.unwrap_or_default();
        if self.is_mounted(at, digest, awaited.is_some()).await {
            let blob = self.blob(&at.stored, digest, head).await?;
            return Ok((Ok(MirroredBlob::Stored(blob)), MirrorResult::Hit));
        }
        at.ensure_asking(asking, Error::BlobUnknown)?;
        let key = at.key(&Reference::Digest(*digest));
        if at.mirror.missing.get(&key).is_some() {
            return Err(Error::BlobUnknown);
        }
        if let Some(error) = at.mirror.wrong.get(digest) {
            return Err(Error::Upstream(error));
        }
        let found = if head {
            self.known_blob(at, digest, awaited).await
        } else {
            self.begun(at, digest, awaited).await
        };
        match found {
            Ok(found) => Ok((Ok(found), MirrorResult::Miss)),
            Err(Failure::Upstream(error)) if is_missing(error.kind) => {
                at.mirror.missing.put(key, (), at.mirror.settings.cache.negative_ttl);
                Err(Error::BlobUnknown)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// How long a blob is that is not here.
    async fn known_blob(
        &self,
        at: &Mirrored,
        digest: &Digest,
        awaited: Option<u64>,
    ) -> Result<MirroredBlob, Failure> {
        let told = awaited.filter(|size| *size > 0);
        let size = if let Some(size) = told {
            size
        } else {
            let head = at.mirror.upstream.blob_head(&at.upstream, digest);
            let size = self.ask_upstream(&at.mirror, head).await?;
            size.ok_or_else(|| at.mirror.upstream.wrong(format!("does not say how long blob {digest} is")))?
        };
        Ok(MirroredBlob::Known(BlobHead { digest: *digest, size, degraded: false }))
    }

    /// The blob, once it is known that there is one.
    async fn begun(
        &self,
        at: &Mirrored,
        digest: &Digest,
        awaited: Option<u64>,
    ) -> Result<MirroredBlob, Failure> {
        let reading = self.fetch(at, digest, awaited);
        let mut phases = reading.0.phase();
        loop {
            let phase = phases.borrow_and_update().clone();
            match phase {
                Phase::Running(window) | Phase::Ended(None, Some(window)) if window.may_begin() => {
                    return Ok(MirroredBlob::Fetched(Box::new(Reader::new(self, reading, window))));
                }
                Phase::Running(window) => {
                    let mut changes = window.changes();
                    if !window.may_begin() {
                        tokio::select! {
                            _ = changes.changed() => {}
                            changed = phases.changed() => changed.map_err(|_gone| Error::Stopping)?,
                        }
                    }
                }
                Phase::Stored => {
                    return Ok(MirroredBlob::Stored(self.blob(&at.stored, digest, false).await?));
                }
                Phase::Ended(failure, _) => return Err(failure.unwrap_or_else(|| Error::Stopping.into())),
                Phase::Waiting => phases.changed().await.map_err(|_gone| Error::Stopping)?,
            }
        }
    }
}

fn failed(error: Error) -> Answer {
    let result = MirrorResult::of_error(&error);
    (Err(error), result)
}
