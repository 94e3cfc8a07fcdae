// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was deleted and is kept for a while, and bringing it back.
//!
//! Nothing is resurrected: what comes back is pushed again, with a new record and, for a tag, a new place in its order
//! above the tombstone. A tag that somebody has set meanwhile stays as it is.

use stowage_oci::{Digest, Manifest, Name, Reference};

use super::push::{Pusher, facts};
use super::reconcile::Unit;
use super::{Domain, Error};
use crate::key::Key;
use crate::meta::{Copied, Restorable, TrashItem, Trashed};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// The manifest that was asked for.
    pub digest: Digest,
    /// All manifests that were pushed again, in that order: children and the manifest, then referrers.
    pub restored: Vec<Digest>,
}

impl Domain {
    /// Up to `limit` entries of the trash after `after`: of one repository, or of all once everything is compared.
    pub async fn trash(
        &self,
        repository: Option<&Name>,
        after: Option<&TrashItem>,
        limit: u32,
    ) -> Result<Vec<Trashed>, Error> {
        let units: Vec<Unit> = repository.cloned().map(Unit::Tags).into_iter().collect();
        if repository.is_none() {
            self.trust.trusted().await?;
        }
        self.write_to(&units, |epoch| self.meta.trash(epoch, repository, after, limit)).await
    }

    /// Brings a deleted tag or manifest back, with its deleted children; `referrers`: with what refers to it.
    pub async fn restore(&self, item: &TrashItem, referrers: bool) -> Result<Restored, Error> {
        let found = self.find_trashed(item).await?.ok_or(Error::NotInTrash)?;
        let digest = found.digest;
        let mut restored = self.bring_back(item, found).await?;
        if referrers {
            let repository = &item.repository;
            let deleted = |epoch| self.meta.trashed_referrers(epoch, repository, &digest);
            for referrer in self.write_to(&[Unit::Referrers(repository.clone(), digest)], deleted).await? {
                restored.extend(self.bring_back_digest(repository, referrer).await?);
            }
        }
        tracing::info!(repo.name = %item.repository, item = %item.reference, manifests = restored.len(), "restored");
        Ok(Restored { digest, restored })
    }

    async fn find_trashed(&self, item: &TrashItem) -> Result<Option<Restorable>, Error> {
        let unit = Unit::named(&item.repository, &item.reference);
        self.write_to(&[unit], |epoch| self.meta.trashed(epoch, item)).await
    }

    /// A manifest, if it is in the trash.
    async fn bring_back_digest(&self, repository: &Name, digest: Digest) -> Result<Vec<Digest>, Error> {
        let item = TrashItem { repository: repository.clone(), reference: Reference::Digest(digest) };
        match self.find_trashed(&item).await? {
            Some(found) => Box::pin(self.bring_back(&item, found)).await,
            None => Ok(Vec::new()),
        }
    }

    async fn bring_back(&self, item: &TrashItem, found: Restorable) -> Result<Vec<Digest>, Error> {
        let repository = &item.repository;
        let Restorable { digest, media_type, generation, body, tombstone } = found;
        let body = if let Some(body) = body {
            body
        } else {
            let record = Key::Manifest { repository: repository.clone(), digest, generation };
            self.read_whole(&record).await?.ok_or(Error::NotInTrash)?
        };
        let facts = facts(digest, Manifest::parse(&body, Some(&media_type))?, &body);
        let mut restored = Vec::new();
        for child in &facts.children {
            restored.extend(self.bring_back_digest(repository, *child).await?);
        }
        let tags = match &item.reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => Vec::new(),
        };
        let pusher = Pusher::Copying(Copied { mark: None, at: None, over: tombstone });
        let push = || self.push_until_published(repository, &facts, &tags, &body, pusher);
        match push().await {
            // Blobs that were deleted as well; the trash has kept their data.
            Err(Error::ReferencesMissing(blobs)) => {
                for blob in &blobs {
                    self.show_again(repository, blob).await?;
                }
                push().await?;
            }
            pushed => pushed?,
        }
        restored.push(digest);
        Ok(restored)
    }
}
