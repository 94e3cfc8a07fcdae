// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Bringing an artifact from one repository to another: as mounts and pushes, no bytes of blobs.
//!
//! What a manifest lists comes before it, what refers to it after that; the artifact itself comes last, by whoever asks.
//! What is there already is left as it is. What a mirror has not fetched yet it fetches first.

use std::collections::HashSet;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use stowage_oci::{Digest, Manifest, Name, Tag};

use super::super::push::{Pusher, facts};
use super::super::reconcile::Unit;
use super::super::{Domain, Error};
use crate::meta::ManifestFacts;
use crate::operation::Page;
use crate::signatures::tag_of;

/// Blobs that are mounted at the same time.
const AT_ONCE: usize = 16;
/// Referrers of referrers are followed so deep.
const DEEPEST: u32 = 4;
/// Under which tags older clients keep what they say about an image.
const TAGGED: [&str; 4] = [".sig", ".att", ".sbom", ""];

/// A manifest that was read.
pub(super) struct Read {
    pub(super) facts: ManifestFacts,
    pub(super) body: Bytes,
}

/// One way from one repository to another.
pub(super) struct Way<'a> {
    pub(super) domain: &'a Domain,
    pub(super) from: &'a Name,
    pub(super) to: &'a Name,
    /// Whether what refers to a manifest comes with it.
    pub(super) with_referrers: bool,
}

/// What was brought beside the artifact.
#[derive(Default)]
pub(super) struct Brought {
    seen: HashSet<Digest>,
    pub(super) referrers: Vec<Digest>,
}

impl Way<'_> {
    /// Brings all that a manifest needs, and what refers to it; the manifest itself is not pushed.
    pub(super) async fn prepare(&self, digest: Digest, brought: &mut Brought) -> Result<Read, Error> {
        brought.seen.insert(digest);
        let read = self.read(digest).await?.ok_or(Error::ManifestUnknown)?;
        for child in &read.facts.children {
            self.bring(*child, brought, DEEPEST).await?;
        }
        self.mount_all(&read.facts.blobs).await?;
        self.bring_referrers(digest, brought, DEEPEST).await?;
        Ok(read)
    }

    /// Brings a manifest, what it lists before it, and what refers to it after. An index may list what is not there.
    fn bring<'b>(
        &'b self,
        digest: Digest,
        brought: &'b mut Brought,
        depth: u32,
    ) -> BoxFuture<'b, Result<(), Error>> {
        Box::pin(async move {
            if depth == 0 || !brought.seen.insert(digest) {
                return Ok(());
            }
            let Some(read) = self.read(digest).await? else { return Ok(()) };
            for child in &read.facts.children {
                self.bring(*child, brought, depth - 1).await?;
            }
            self.put(&read, None).await?;
            self.bring_referrers(digest, brought, depth - 1).await
        })
    }

    async fn bring_referrers(&self, digest: Digest, brought: &mut Brought, depth: u32) -> Result<(), Error> {
        if !self.with_referrers || depth == 0 {
            return Ok(());
        }
        let mut page = Page::default();
        loop {
            let found = self.domain.referrers(self.from, &digest, &[], &page).await?;
            for row in &found.manifests {
                if !brought.seen.contains(&row.digest) {
                    self.bring(row.digest, brought, depth).await?;
                    brought.referrers.push(row.digest);
                }
            }
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        self.bring_tagged(digest, brought).await
    }

    /// What older clients say about it, under tags that are made of its digest.
    async fn bring_tagged(&self, digest: Digest, brought: &mut Brought) -> Result<(), Error> {
        let tags = TAGGED.iter().filter_map(|kind| tag_of(&digest, kind));
        let wanted: Vec<(Name, Tag)> = tags.map(|tag| (self.from.clone(), tag)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let units: Vec<Unit> =
            wanted.iter().map(|(name, tag)| Unit::Tag(name.clone(), tag.clone())).collect();
        let domain = self.domain;
        let rows = domain.ask_database(&units, |epoch| domain.meta.tagged(epoch, &wanted)).await?;
        for ((_, tag), row) in wanted.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            let Some(read) = self.read(row.digest).await? else { continue };
            for child in &read.facts.children {
                self.bring(*child, brought, 1).await?;
            }
            self.put(&read, Some(tag)).await?;
            if brought.seen.insert(row.digest) {
                brought.referrers.push(row.digest);
            }
        }
        Ok(())
    }

    async fn read(&self, digest: Digest) -> Result<Option<Read>, Error> {
        let Some(answer) = self.domain.promotable_manifest(self.from, digest).await? else { return Ok(None) };
        let body = answer.body.unwrap_or_default();
        let manifest = Manifest::parse(&body, Some(&answer.media_type))?;
        Ok(Some(Read { facts: facts(answer.digest, manifest, &body), body }))
    }

    async fn put(&self, read: &Read, tag: Option<Tag>) -> Result<(), Error> {
        self.mount_all(&read.facts.blobs).await?;
        let tags: Vec<Tag> = tag.into_iter().collect();
        self.domain.push_until_published(self.to, &read.facts, &tags, &read.body, Pusher::Client).await
    }

    /// Shows all of these to the target that it does not see. A lease of what it sees begins anew.
    async fn mount_all(&self, blobs: &[Digest]) -> Result<(), Error> {
        let domain = self.domain;
        let mut seen = HashSet::new();
        let wanted = blobs.iter().copied().filter(|digest| seen.insert(*digest));
        let mount = |digest: Digest| async move {
            match domain.blob(self.to, &digest, true).await {
                Err(Error::BlobUnknown | Error::NameUnknown) => {}
                known => return known.map(drop),
            }
            let sources = std::slice::from_ref(self.from);
            if domain.mount(self.to, &digest, sources).await? {
                return Ok(());
            }
            domain.fetch_promotable(self.from, digest).await?;
            let is_mounted = domain.mount(self.to, &digest, sources).await?;
            if is_mounted { Ok(()) } else { Err(Error::ReferencesMissing(vec![digest])) }
        };
        let mounts: Vec<BoxFuture<'_, Result<(), Error>>> =
            wanted.map(|digest| -> BoxFuture<'_, _> { Box::pin(mount(digest)) }).collect();
        stream::iter(mounts).buffer_unordered(AT_ONCE).try_collect().await
    }
}
