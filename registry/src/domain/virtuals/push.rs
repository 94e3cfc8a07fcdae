// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pushing through a virtual repository: to one member, from what the others have.
//!
//! A client that was told that a blob or a manifest exists does not push it. So what a manifest refers to, and another
//! member has stored, is brought to the member that takes pushes: blobs as mounts, manifests as pushes.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use stowage_oci::{Digest, Manifest, Name, Reference};

use super::super::{Domain, Error, Pushed, PutManifest};

/// Manifests of an index that are looked for at the same time.
const AT_ONCE: usize = 8;
/// Indexes of indexes are followed so deep.
const DEEPEST: u32 = 4;

impl Domain {
    /// Stores a manifest; what it refers to may be in `others`, which the client may read.
    pub async fn put_manifest_beside(&self, put: PutManifest, others: &[Name]) -> Result<Pushed, Error> {
        if others.is_empty() {
            return self.put_manifest(put).await;
        }
        self.put_with_children(put, others, DEEPEST).await
    }

    async fn put_with_children(
        &self,
        put: PutManifest,
        others: &[Name],
        depth: u32,
    ) -> Result<Pushed, Error> {
        let manifest = Manifest::parse(&put.body, put.content_type.as_deref())?;
        let to = &put.repository;
        if depth > 0 {
            let children = stream::iter(manifest.children).map(Ok::<_, Error>);
            let bring = |child| async move { self.bring_manifest(to, &child, others, depth - 1).await };
            children.try_for_each_concurrent(AT_ONCE, bring).await?;
        }
        match self.put_manifest(put.clone()).await {
            Err(Error::ReferencesMissing(missing)) if self.bring_blobs(to, &missing, others).await? => {
                self.put_manifest(put).await
            }
            outcome => outcome,
        }
    }

    /// Links all of these blobs. `false`: nobody has one of them.
    async fn bring_blobs(&self, to: &Name, missing: &[Digest], others: &[Name]) -> Result<bool, Error> {
        for digest in missing {
            if !self.mount(to, digest, others).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pushes the manifest if another member has it with everything that it refers to. An index may name what is not
    /// there, unless the repository forbids that: then its push says so.
    async fn bring_manifest(
        &self,
        to: &Name,
        child: &Digest,
        others: &[Name],
        depth: u32,
    ) -> Result<(), Error> {
        let reference = Reference::Digest(*child);
        match self.manifest(to, &reference, true).await {
            Err(Error::ManifestUnknown) => {}
            known => return known.map(drop),
        }
        for other in others {
            let stored = match self.manifest(other, &reference, false).await {
                Ok(stored) => stored,
                Err(Error::ManifestUnknown) => continue,
                Err(error) => return Err(error),
            };
            let Some(body) = stored.body else { continue };
            let put = PutManifest {
                repository: to.clone(),
                reference: reference.clone(),
                claimed: None,
                tags: Vec::new(),
                content_type: Some(stored.media_type),
                body,
            };
            match Box::pin(self.put_with_children(put, others, depth)).await {
                Err(Error::ReferencesMissing(missing)) => {
                    tracing::debug!(repo.name = %other, manifest.digest = %child, ?missing, "a manifest is not complete there");
                }
                outcome => return outcome.map(drop),
            }
        }
        Ok(())
    }
}
