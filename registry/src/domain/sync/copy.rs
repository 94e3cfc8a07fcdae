// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Copies a manifest with all that belongs to it.
//!
//! Order: children and blobs, the manifest, what refers to it; whoever asked sets the tag last. So whatever is seen is
//! whole, wherever a run ends.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use stowage_oci::{Digest, Manifest, Name, Platform, Reference, Tag};

use super::super::mirror::PRINCIPAL;
use super::super::push::{Pusher, facts};
use super::super::upload::{BodyError, Chunk};
use super::plan;
use super::told::Fault;
use super::{At, Error, Run, SyncMode};
use crate::meta::{Copied, TagState};
use crate::upstream::{Kind, Span};

/// Blobs of one image at the same time.
const BLOBS: usize = 3;
/// How far referrers of referrers, and indexes in indexes, are followed.
const DEEPEST: u8 = 8;

/// An image on its way, with all that belongs to it.
pub(super) struct Image<'a> {
    at: &'a At,
    tags: &'a BTreeSet<Tag>,
    platforms: &'a BTreeSet<Platform>,
    seen: Mutex<BTreeSet<Digest>>,
}

impl<'a> Image<'a> {
    pub(super) fn new(at: &'a At, tags: &'a BTreeSet<Tag>, platforms: &'a BTreeSet<Platform>) -> Self {
        Self { at, tags, platforms, seen: Mutex::default() }
    }

    /// Everything that belongs to it.
    pub(super) fn into_seen(self) -> BTreeSet<Digest> {
        self.seen.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is met for the first time.
    fn meets(&self, digest: Digest) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(digest)
    }

    /// Whether there is the tag that clients keep where a registry does not list what refers to a manifest.
    fn has_list_of(&self, digest: &Digest) -> bool {
        let tag = format!("{}-{}", digest.algorithm(), digest.hex());
        tag.parse::<Tag>().is_ok_and(|tag| self.tags.contains(&tag))
    }
}

impl Run<'_> {
    /// Brings a manifest here, and all that belongs to it. Whether something of that was not here.
    pub(super) fn manifest<'b>(
        &'b self,
        image: &'b Image<'_>,
        digest: Digest,
        depth: u8,
    ) -> BoxFuture<'b, Result<bool, Fault>> {
        Box::pin(async move {
            if !image.meets(digest) {
                return Ok(false);
            }
            if depth > DEEPEST {
                return Err(Fault::TooDeep);
            }
            let held = self.held(&image.at.here, digest).await?;
            let mut is_new = held.is_none();
            if is_new && self.mode == SyncMode::DryRun {
                return Ok(true);
            }
            let (document, body) = match held {
                Some((document, body)) => {
                    is_new |= self.children(image, digest, (&document, &body), depth).await?;
                    // They may be lost, or awaited since somebody pulled the image through a mirror.
                    is_new |= self.blobs(image.at, &document).await?;
                    (document, body)
                }
                None => self.fetched(image, digest, depth).await?,
            };
            if is_new && self.mode == SyncMode::Copy {
                self.store(&image.at.here, digest, &document, &body).await?;
            }
            if self.asked.with_referrers {
                is_new |= self.referrers(image, &digest, depth).await?;
            }
            Ok(is_new)
        })
    }

    /// The manifest, if it is here.
    async fn held(&self, repository: &Name, digest: Digest) -> Result<Option<(Manifest, Bytes)>, Fault> {
        match self.domain.manifest(repository, &Reference::Digest(digest), false).await {
            Ok(answer) => {
                let body = answer.body.unwrap_or_default();
                let document = Manifest::parse(&body, Some(&answer.media_type)).map_err(Error::from)?;
                Ok(Some((document, body)))
            }
            Err(Error::ManifestUnknown | Error::NameUnknown) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest from the upstream, after all that it needs.
    async fn fetched(
        &self,
        image: &Image<'_>,
        digest: Digest,
        depth: u8,
    ) -> Result<(Manifest, Bytes), Fault> {
        let (upstream, reference) = (&image.at.upstream, Reference::Digest(digest));
        let manifest = self.ask(|| self.upstream.manifest(upstream, &reference)).await?;
        self.children(image, digest, (&manifest.document, &manifest.bytes), depth).await?;
        self.blobs(image.at, &manifest.document).await?;
        Ok((manifest.document, manifest.bytes))
    }

    /// Brings all blobs of a manifest here. Whether one was not.
    async fn blobs(&self, at: &At, document: &Manifest) -> Result<bool, Fault> {
        stream::iter(document.blobs.clone())
            .map(|blob| self.blob(at, blob))
            .buffer_unordered(BLOBS)
            .try_fold(false, |is_new, was_new| async move { Ok(is_new || was_new) })
            .await
    }

    /// Brings what an index lists here. Whether something of that was not.
    async fn children(
        &self,
        image: &Image<'_>,
        index: Digest,
        (document, body): (&Manifest, &Bytes),
        depth: u8,
    ) -> Result<bool, Fault> {
        let (mut is_new, mut is_whole) = (false, true);
        for child in plan::children(body, &document.children, image.platforms) {
            match self.manifest(image, child, depth + 1).await {
                Ok(was_new) => is_new |= was_new,
                Err(fault) if fault.is_of_what_is_gone() => {
                    tracing::debug!(repo.name = %image.at.upstream, manifest.digest = %child, "the upstream lacks a child");
                    is_whole = false;
                }
                Err(fault) => return Err(fault),
            }
        }
        // An index may list what its registry does not have: it is as incomplete here as there. One that went with what
        // it lists, while it was copied, is not to be seen at all.
        if !is_whole {
            self.ensure_there(&image.at.upstream, index).await?;
        }
        Ok(is_new)
    }

    /// That the upstream still has a manifest.
    async fn ensure_there(&self, repository: &Name, digest: Digest) -> Result<(), Fault> {
        let reference = Reference::Digest(digest);
        match self.ask(|| self.upstream.manifest_head(repository, &reference)).await {
            Err(error) if error.kind == Kind::NotFound => Err(Fault::Moving),
            found => Ok(found.map(drop)?),
        }
    }

    async fn referrers(&self, image: &Image<'_>, subject: &Digest, depth: u8) -> Result<bool, Fault> {
        if self.lists_by_tag.load(Ordering::Relaxed) && !image.has_list_of(subject) {
            return Ok(false);
        }
        let found = self.ask(|| self.upstream.referrers(&image.at.upstream, subject, None)).await?;
        self.lists_by_tag.store(!found.by_api, Ordering::Relaxed);
        let mut is_new = false;
        for referrer in found.manifests {
            match self.manifest(image, referrer.digest, depth + 1).await {
                Ok(was_new) => is_new |= was_new,
                // A list that was not kept up to date.
                Err(fault) if fault.is_of_what_is_gone() => {
                    tracing::debug!(repo.name = %image.at.upstream, manifest.digest = %referrer.digest, "the upstream lacks a referrer");
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(is_new)
    }

    async fn store(
        &self,
        repository: &Name,
        digest: Digest,
        document: &Manifest,
        body: &Bytes,
    ) -> Result<(), Fault> {
        if let Some(subject) = &document.subject {
            self.domain.check_room(repository, subject).await?;
        }
        let facts = facts(digest, document.clone(), body);
        let pushing = self.domain.push_until_published(repository, &facts, &[], body, Pusher::Client);
        Ok(Box::pin(pushing).await?)
    }

    /// Lets a tag name what is here by now, unless it is not what it was: then [`Error::Overtaken`].
    pub(super) async fn set_tag(
        &self,
        at: &At,
        tag: &Tag,
        digest: Digest,
        version: Option<u64>,
        state: Option<&TagState>,
    ) -> Result<(), Fault> {
        let (document, body) = self.held(&at.here, digest).await?.ok_or(Error::Overtaken)?;
        let facts = facts(digest, document, &body);
        let over = state.map(|state| state.generation);
        let copied = Pusher::Copying(Copied { mark: Some(self.mark), at: version, over });
        let tags = [tag.clone()];
        let pushing = self.domain.push_until_published(&at.here, &facts, &tags, &body, copied);
        Ok(Box::pin(pushing).await?)
    }

    /// Brings a blob here, unless it is. What another repository here has is linked, if the upstream has it in this
    /// one: that a manifest lists it proves nothing. Whether it was not here.
    async fn blob(&self, at: &At, digest: Digest) -> Result<bool, Fault> {
        let turn = {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(blobs.entry(digest).or_default())
        };
        let _turn = turn.lock().await;
        match self.domain.blob(&at.here, &digest, true).await {
            Ok(_) => return Ok(false),
            Err(Error::BlobUnknown | Error::NameUnknown) => {}
            Err(error) => return Err(error.into()),
        }
        if self.mode == SyncMode::DryRun {
            return Ok(true);
        }
        let sources = self.domain.repositories_with(&digest).await?;
        if !sources.is_empty() {
            self.ask(|| self.upstream.blob_head(&at.upstream, &digest)).await?;
            if self.domain.mount(&at.here, &digest, &sources).await? {
                return Ok(true);
            }
        }
        self.fetch_blob(at, digest).await?;
        Ok(true)
    }

    async fn fetch_blob(&self, at: &At, digest: Digest) -> Result<(), Fault> {
        let blob = self.ask(|| self.upstream.blob(&at.upstream, &digest, Span::default())).await?;
        let (pace, fetched) = (self.pace.clone(), self.tally.fetched().clone());
        let (metrics, name) = (self.domain.shelf.metrics.clone(), self.asked.name.clone());
        let rate = Arc::clone(&self.rate);
        let body = blob.body.into_stream().then(move |bytes| {
            let (pace, fetched, metrics, name) =
                (pace.clone(), fetched.clone(), metrics.clone(), name.clone());
            let rate = Arc::clone(&rate);
            async move {
                let bytes = match bytes {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        rate.note_error(&error).await;
                        return Err(BodyError::Broken(Box::new(error)));
                    }
                };
                pace.read(bytes.len()).await;
                fetched.bytes(bytes.len() as u64);
                metrics.received(&name, bytes.len() as u64);
                Ok(bytes)
            }
        });
        let chunk = Chunk { start: None, length: blob.size, body: body.boxed() };
        let keeping = self.domain.keep_blob(&at.here, PRINCIPAL, &digest, chunk);
        Box::pin(keeping).await?;
        self.tally.fetched().blob();
        Ok(())
    }
}
