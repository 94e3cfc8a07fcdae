// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether a mirror that asks for signatures may answer what it has, or is about to store.
//!
//! An image is admitted by a signature of it, or of an index that lists it. Signatures are looked for here first, then
//! at the upstream; the one that counts is kept beside the image, so that every replica can verify it again whenever it
//! likes, also while the upstream is away. What was verified is remembered: a digest and its signature never change, and
//! a mirror with other keys is another [`super::Mirror`], which remembers nothing.
//! Guarantees: with `keys`, no manifest leaves unless it is admitted or [only about another](is_about_another); no tag
//! of the mirror moves to what is not.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use stowage_oci::{Algorithm, Digest, Manifest, ManifestKind, Reference};

use super::super::proofs::{Held, collected, if_there, referrers_of};
use super::super::upload::Chunk;
use super::super::{Domain, Error};
use super::Asking;
use super::fetch::PRINCIPAL;
use super::names::Mirrored;
use crate::signatures::{Keys, Proof, Referrer, Source, Unsigned, Verdict, is_about_another, seek};
use crate::upstream::{self, Span};

/// A signature does not stop counting; what is used stays remembered.
const EVER: Duration = Duration::from_hours(24 * 365);
/// Indexes that may vouch for an image.
const INDEXES: u32 = 16;
/// Of how many of these the indexes that list them may vouch, too.
const FOLLOWED: usize = 3;

/// Signatures at the upstream of a mirror.
struct Asked<'a> {
    domain: &'a Domain,
    at: &'a Mirrored,
}

#[async_trait]
impl Source for Asked<'_> {
    type Error = upstream::Error;

    async fn referrers(&self, image: &Digest) -> Result<Vec<Referrer>, upstream::Error> {
        let upstream = &self.at.mirror.upstream;
        let found = upstream.referrers(&self.at.upstream, image, None);
        self.domain.ask_upstream(&self.at.mirror, found).await.map(referrers_of)
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Bytes>, upstream::Error> {
        let found = self.at.mirror.upstream.manifest(&self.at.upstream, reference);
        let found = if_there(self.domain.ask_upstream(&self.at.mirror, found).await)?;
        Ok(found.map(|manifest| manifest.bytes))
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, upstream::Error> {
        let blob = async {
            let blob = self.at.mirror.upstream.blob(&self.at.upstream, digest, Span::default()).await?;
            collected(blob).await
        };
        Ok(if_there(self.domain.ask_upstream(&self.at.mirror, blob).await)?.flatten())
    }
}

impl Domain {
    /// Whether a stored manifest, asked for by `reference`, may be answered.
    pub(in crate::domain) async fn admits(
        &self,
        at: &Mirrored,
        reference: &Reference,
        digest: Digest,
        asking: Asking,
    ) -> Result<(), Error> {
        let mirror = &at.mirror;
        if mirror.settings.keys.is_none() || mirror.signed.get(&digest).is_some() {
            return Ok(());
        }
        let stored = self.manifest(&at.stored, &Reference::Digest(digest), false).await?;
        let body = stored.body.unwrap_or_default();
        let document = Manifest::parse(&body, Some(&stored.media_type))?;
        self.admits_content(at, reference, digest, (&document, &body), asking).await
    }

    /// Whether a manifest, asked for by `reference`, may be stored and answered.
    pub(super) async fn admits_content(
        &self,
        at: &Mirrored,
        reference: &Reference,
        digest: Digest,
        (document, body): (&Manifest, &Bytes),
        asking: Asking,
    ) -> Result<(), Error> {
        let mirror = &at.mirror;
        let Some(keys) = &mirror.settings.keys else { return Ok(()) };
        if mirror.signed.get(&digest).is_some() || is_about_another(body, reference) {
            return Ok(());
        }
        let vouching = self.vouching(at, digest).await;
        if vouching.iter().any(|image| mirror.signed.get(image).is_some())
            || self.is_proven_here(at, &vouching, keys).await?
        {
            mirror.note_signed(digest, document);
            return Ok(());
        }
        if let Some(unsigned) = mirror.unsigned.get(&digest) {
            return Err(Error::Unsigned(unsigned));
        }
        if !at.may_ask(asking) {
            return Err(Error::Unsigned(Unsigned::Missing(digest)));
        }
        self.is_proven_there(at, &vouching, keys).await?;
        mirror.note_signed(digest, document);
        Ok(())
    }

    /// The digest, after those of indexes here that list it.
    async fn vouching(&self, at: &Mirrored, digest: Digest) -> Vec<Digest> {
        let mut found = vec![digest];
        let mut next = 0;
        while let Some(child) = found.get(next).copied().filter(|_| next < FOLLOWED) {
            // Nobody knows without the database: then the image has to be signed itself.
            let above = self.meta.indexes_with(&at.stored, &child, INDEXES).await.unwrap_or_default();
            let above: Vec<Digest> = above.into_iter().filter(|index| !found.contains(index)).collect();
            found.extend(above);
            next += 1;
        }
        found.reverse();
        found
    }

    async fn is_proven_here(&self, at: &Mirrored, images: &[Digest], keys: &Keys) -> Result<bool, Error> {
        let held = Held::new(self, &at.stored);
        for image in images {
            if matches!(seek(&held, image, keys).await?, Verdict::Signed(_)) {
                at.mirror.signed.put(*image, (), EVER);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks the upstream for a signature of one of these, the last of which is the image itself.
    async fn is_proven_there(&self, at: &Mirrored, images: &[Digest], keys: &Keys) -> Result<(), Error> {
        if let Some(error) = at.mirror.pulse.trouble() {
            return Err(Error::Upstream(error));
        }
        let asked = Asked { domain: self, at };
        let mut refused = None;
        for image in images {
            match seek(&asked, image, keys).await.map_err(Error::Upstream)? {
                Verdict::Signed(proof) => {
                    at.mirror.signed.put(*image, (), EVER);
                    self.keep_proof(at, &proof).await;
                    return Ok(());
                }
                Verdict::Unsigned(unsigned) => refused = Some((*image, unsigned)),
            }
        }
        let Some((image, unsigned)) = refused else { return Ok(()) };
        tracing::warn!(
            mirror.name = at.mirror.settings.name, repo.name = %at.stored, manifest.digest = %image, %unsigned,
            "an image is not accepted"
        );
        // It may be signed a moment after it was pushed.
        at.mirror.unsigned.put(image, unsigned.clone(), at.mirror.settings.cache.negative_ttl);
        Err(Error::Unsigned(unsigned))
    }

    /// Keeps a signature beside its image. Without it the upstream is asked again, by who does not remember.
    async fn keep_proof(&self, at: &Mirrored, proof: &Proof) {
        // A client waits: not for a database that is away.
        if self.outage.is_on() {
            return;
        }
        let kept = async {
            // One that does not say what it is is of the specification's type.
            let said = Manifest::parse(&proof.manifest, None);
            let document = said
                .or_else(|_| Manifest::parse(&proof.manifest, Some(ManifestKind::OciImage.media_type())))?;
            let digest = match &proof.reference {
                Reference::Digest(digest) => *digest,
                Reference::Tag(_) => Digest::of(Algorithm::Sha256, &proof.manifest),
            };
            let tag = match &proof.reference {
                Reference::Tag(tag) => Some(tag),
                Reference::Digest(_) => None,
            };
            let content = proof.content.clone();
            let length = Some(content.len() as u64);
            let body = futures::stream::once(async move { Ok(content) }).boxed();
            let chunk = Chunk { start: None, length, body };
            Box::pin(self.keep_blob(&at.stored, PRINCIPAL, &proof.blob, chunk)).await?;
            self.keep_manifest(at, &document, digest, &proof.manifest, tag).await
        };
        if let Err(error) = kept.await {
            tracing::warn!(repo.name = %at.stored, %error, "a signature is not kept");
        }
    }
}

impl super::Mirror {
    /// Remembers that an image is signed, and with it what it lists.
    fn note_signed(&self, digest: Digest, document: &Manifest) {
        for covered in [digest].iter().chain(&document.children) {
            self.signed.put(*covered, (), EVER);
        }
    }
}
