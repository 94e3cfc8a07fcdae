// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulling through a virtual repository.
//!
//! A tag: what is pinned, by digest; else of the first member that has it. Content by digest is the same wherever it is: what is stored comes first,
//! ours before that of mirrors; only then mirrors ask for it.

use stowage_oci::{Digest, Name, Reference, Tag};

use super::super::mirror::{Asking, Mirrored, MirroredBlob};
use super::super::{Domain, Error, ManifestAnswer};
use super::{Combined, Joined, Search, Shadowing, Source};

impl Domain {
    /// The manifest that `reference` names.
    pub async fn virtual_manifest(
        &self,
        at: &Combined,
        reference: &Reference,
        head: bool,
        asking: Asking,
    ) -> Joined<ManifestAnswer> {
        match reference {
            Reference::Tag(tag) => match at.pins.get(tag) {
                Some(pinned) => self.manifest_of_members(at, &Reference::Digest(*pinned), head, asking).await,
                None => self.tag_of_members(at, tag, head, asking).await,
            },
            Reference::Digest(_) => self.manifest_of_members(at, reference, head, asking).await,
        }
    }

    async fn tag_of_members(
        &self,
        at: &Combined,
        tag: &Tag,
        head: bool,
        asking: Asking,
    ) -> Joined<ManifestAnswer> {
        let reference = Reference::Tag(tag.clone());
        let mut search = Search::new();
        let mut are_mirrors_asked = None;
        for source in &at.sources {
            let found = match source {
                Source::Local(name) => search.take(self.manifest(name, &reference, head).await),
                // What a mirror copied is another's, too.
                Source::Copied(_) | Source::Mirror(_) => {
                    let asked = match are_mirrors_asked {
                        Some(known) => known,
                        None => *are_mirrors_asked.insert(self.asks_mirrors(at, &mut search).await),
                    };
                    let pinned = match source {
                        Source::Mirror(mirrored) => at.pinned_in(mirrored, tag).map(Reference::Digest),
                        Source::Local(_) | Source::Copied(_) => None,
                    };
                    let wanted = pinned.as_ref().unwrap_or(&reference);
                    asked && self.has_tag(source, wanted, head, at.asking(asking), &mut search).await
                }
            };
            if found {
                break;
            }
        }
        search.end(Error::ManifestUnknown)
    }

    /// Whether a member that is a mirror has the tag.
    async fn has_tag(
        &self,
        source: &Source,
        tag: &Reference,
        head: bool,
        asking: Asking,
        search: &mut Search<ManifestAnswer>,
    ) -> bool {
        match source {
            Source::Local(name) | Source::Copied(name) => search.take(self.manifest(name, tag, head).await),
            Source::Mirror(mirrored) => {
                let answer = self.mirrored_manifest(mirrored, tag, head, asking).await;
                search.take_mirrored(mirrored, answer)
            }
        }
    }

    /// Whether mirrors are asked for tags of this name. If it is not known whether the name is ours, they are not.
    pub(super) async fn asks_mirrors<T>(&self, at: &Combined, search: &mut Search<T>) -> bool {
        match self.is_ours(at).await {
            Ok(is_ours) => !is_ours,
            Err(error) => {
                search.take(Err(error));
                false
            }
        }
    }

    /// Whether a member of ours has the name, so that mirrors may not answer for it. Who asks is not looked at.
    async fn is_ours(&self, at: &Combined) -> Result<bool, Error> {
        if at.settings.shadowing == Shadowing::Allowed {
            return Ok(false);
        }
        for name in &at.locals {
            if self.has_repository(name).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn manifest_of_members(
        &self,
        at: &Combined,
        digest: &Reference,
        head: bool,
        asking: Asking,
    ) -> Joined<ManifestAnswer> {
        let mut search = Search::new();
        for name in at.local_sources() {
            if search.take(self.manifest(name, digest, head).await) {
                return search.end(Error::ManifestUnknown);
            }
        }
        for mirrored in at.mirrored_sources() {
            let stored = self.stored_of_mirror(mirrored, digest, head).await;
            if search.take_stored(mirrored, stored) {
                return search.end(Error::ManifestUnknown);
            }
        }
        for mirrored in at.mirrored_sources() {
            let answer = self.mirrored_manifest(mirrored, digest, head, at.asking(asking)).await;
            if search.take_mirrored(mirrored, answer) {
                break;
            }
        }
        search.end(Error::ManifestUnknown)
    }

    /// What is stored of a mirror, if it may be answered without asking.
    async fn stored_of_mirror(
        &self,
        at: &Mirrored,
        digest: &Reference,
        head: bool,
    ) -> Result<ManifestAnswer, Error> {
        let stored = self.manifest(&at.stored, digest, head).await?;
        match self.admits(at, digest, stored.digest, Asking::InALoop).await {
            Err(Error::Unsigned(_)) => Err(Error::ManifestUnknown),
            admitted => admitted.map(|()| stored),
        }
    }

    /// A blob. `head`: only how long it is; where pushes are taken, of one that is stored: a push that follows may refer
    /// to it.
    pub async fn virtual_blob(
        &self,
        at: &Combined,
        digest: &Digest,
        head: bool,
        asking: Asking,
    ) -> Joined<MirroredBlob> {
        let mut search = Search::new();
        for name in at.local_sources() {
            let stored = self.blob(name, digest, head).await;
            if search.take(stored.map(MirroredBlob::Stored)) {
                return search.end(Error::BlobUnknown);
            }
        }
        for mirrored in at.mirrored_sources() {
            let stored = self.blob(&mirrored.stored, digest, head).await.map(MirroredBlob::Stored);
            if search.take_stored(mirrored, stored) {
                return search.end(Error::BlobUnknown);
            }
        }
        if head && at.push_to.is_some() {
            return search.end(Error::BlobUnknown);
        }
        for mirrored in self.by_promise(at, digest).await {
            let answer = self.mirrored_blob(mirrored, digest, head, at.asking(asking)).await;
            if search.take_mirrored(mirrored, answer) {
                break;
            }
        }
        search.end(Error::BlobUnknown)
    }

    /// The mirrors, first those that have a manifest that lists the blob.
    async fn by_promise<'a>(&self, at: &'a Combined, digest: &Digest) -> Vec<&'a Mirrored> {
        let (mut promising, mut others) = (Vec::new(), Vec::new());
        for mirrored in at.mirrored_sources() {
            // Nobody knows without the database.
            let awaited = self.meta.awaited_blob(&mirrored.stored, digest).await.unwrap_or_default();
            if awaited.is_some() { promising.push(mirrored) } else { others.push(mirrored) }
        }
        promising.append(&mut others);
        promising
    }
}

impl Combined {
    fn local_sources(&self) -> impl Iterator<Item = &Name> {
        self.sources.iter().filter_map(|source| match source {
            Source::Local(name) | Source::Copied(name) => Some(name),
            Source::Mirror(_) => None,
        })
    }

    fn mirrored_sources(&self) -> impl Iterator<Item = &Mirrored> {
        self.sources.iter().filter_map(|source| match source {
            Source::Local(_) | Source::Copied(_) => None,
            Source::Mirror(mirrored) => Some(mirrored),
        })
    }

    /// A mirror that is alone is asked as anybody asks it.
    pub(super) fn asking(&self, asking: Asking) -> Asking {
        match asking {
            Asking::AsConfigured if self.sources.len() > 1 => Asking::IfItAnswers,
            asking => asking,
        }
    }
}
