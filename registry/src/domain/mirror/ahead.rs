// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Fetching ahead of need: what nobody asked for yet, by the ways of what somebody asks for.

use stowage_oci::{Digest, Tag, TagGlob};

use super::super::{Domain, Error};
use super::Asking;
use super::content::MirroredBlob;
use super::fetch::Phase;
use super::names::Mirrored;
use super::reader::Reader;
use crate::upstream::Begin;

impl Domain {
    /// The tags of a repository of the upstream that fit.
    pub async fn upstream_tags(&self, at: &Mirrored, glob: &TagGlob) -> Result<Vec<Tag>, Error> {
        at.ensure_asking(Asking::AsConfigured, Error::NameUnknown)?;
        let mut found = Vec::new();
        let mut from = Begin::First;
        loop {
            let page = at.mirror.upstream.tags(&at.upstream, from);
            let page = self.ask_upstream(&at.mirror, page).await.map_err(Error::Upstream)?;
            found.extend(page.items.into_iter().filter(|tag| glob.matches(tag.as_str())));
            match page.next {
                Some(next) => from = Begin::At(next),
                None => return Ok(found),
            }
        }
    }

    /// Stores a blob of a mirror. How many bytes came for it; `None`: it was here.
    pub async fn store_mirrored_blob(&self, at: &Mirrored, digest: &Digest) -> Result<Option<u64>, Error> {
        match self.mirrored_blob(at, digest, false, Asking::AsConfigured).await.0? {
            MirroredBlob::Stored(_) | MirroredBlob::Known(_) => Ok(None),
            MirroredBlob::Fetched(reader) => reader.stored().await.map(Some),
        }
    }
}

impl Reader {
    /// Waits until the blob is stored, without reading it; its length.
    async fn stored(self) -> Result<u64, Error> {
        let size = self.head().size;
        let fetch = self.fetch();
        let mut phases = fetch.phase();
        let is_over = |phase: &Phase| matches!(phase, Phase::Stored | Phase::Ended(..));
        let ended = phases.wait_for(is_over).await.map_err(|_gone| Error::Stopping)?.clone();
        match ended {
            Phase::Stored => Ok(size),
            Phase::Ended(Some(failure), _) => Err(failure.into()),
            // It passed by: another replica stores it, or nobody could.
            Phase::Ended(None, _) | Phase::Waiting | Phase::Running(_) => {
                match self.domain().blob(&fetch.at.stored, &fetch.digest, false).await {
                    Ok(_) => Ok(size),
                    Err(Error::BlobUnknown) => Err(Error::Overtaken),
                    Err(error) => Err(error),
                }
            }
        }
    }
}
