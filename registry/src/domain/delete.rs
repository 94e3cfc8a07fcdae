// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deleting: the row stops naming, the bucket gets its evidence, then the client is told.
//!
//! A database that fails over in between may have lost the row's change, and may have been compared with the bucket
//! before the evidence was there. Then the removal is not known any more, and the deletion begins again.

use std::time::Duration;

use stowage_oci::{Digest, Name, Reference, Tag};

use futures::future::BoxFuture;

use super::reconcile::Unit;
use super::{Domain, Error};
use crate::key::Generation;
use crate::meta::{self, DeleteOutcome, Epoch, Removal};
use crate::outbox;

/// How often a deletion begins again that an incarnation of the database has forgotten.
const ATTEMPTS: u32 = 3;

impl Domain {
    /// Deletes a tag; what it names stays.
    pub async fn delete_tag(&self, repository: &Name, tag: &Tag) -> Result<(), Error> {
        let rules = self.immutability();
        if rules.covering(repository, tag).is_some() {
            self.manifest(repository, &Reference::Tag(tag.clone()), true).await?;
            return Err(rules.refusal(repository, tag.clone()));
        }
        let retain = self.limits.load().trash_retention;
        self.delete_tag_for(repository, tag, retain).await
    }

    /// The same; it is kept in the trash for `retain`.
    pub(super) async fn delete_tag_for(
        &self,
        repository: &Name,
        tag: &Tag,
        retain: Duration,
    ) -> Result<(), Error> {
        let units = [Unit::Tag(repository.clone(), tag.clone())];
        for attempt in 0..ATTEMPTS {
            let removal =
                self.write_to(&units, |epoch| self.meta.delete_tag(epoch, repository, tag, retain)).await?;
            match removal {
                Some(removal) if self.carry_out(&removal).await? => return Ok(()),
                Some(_) => {}
                None if attempt > 0 => return Ok(()),
                None => return Err(Error::ManifestUnknown),
            }
        }
        Err(Error::Overtaken)
    }

    /// Deletes a tag if it still has that record. `false`: it has another, or is gone.
    pub(super) async fn delete_tag_of(
        &self,
        repository: &Name,
        tag: &Tag,
        generation: Generation,
    ) -> Result<bool, Error> {
        let rules = self.immutability();
        if rules.covering(repository, tag).is_some() {
            return Err(rules.refusal(repository, tag.clone()));
        }
        let retain = self.limits.load().trash_retention;
        let units = [Unit::Tag(repository.clone(), tag.clone())];
        for attempt in 0..ATTEMPTS {
            let step = |epoch| self.meta.delete_tag_of(epoch, repository, tag, generation, retain);
            match self.write_to(&units, step).await? {
                Some(removal) if self.carry_out(&removal).await? => return Ok(true),
                Some(_) => {}
                None => return Ok(attempt > 0),
            }
        }
        Err(Error::Overtaken)
    }

    /// Deletes a manifest and all its tags.
    pub async fn delete_manifest(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let retain = self.limits.load().trash_retention;
        let rules = self.immutability();
        let spared = |tag: &Tag| rules.covering(repository, tag).is_some();
        let step = |epoch| self.meta.delete_manifest(epoch, repository, digest, retain, &spared);
        self.delete_trusted(repository, Error::ManifestUnknown, step).await
    }

    /// Takes the blob away from the repository; others keep it.
    pub async fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let step = |epoch| self.meta.delete_blob(epoch, repository, digest);
        self.delete_trusted(repository, Error::BlobUnknown, step).await
    }

    async fn delete_trusted<'a>(
        &self,
        repository: &Name,
        unknown: Error,
        step: impl Fn(Epoch) -> BoxFuture<'a, Result<DeleteOutcome, meta::Error>> + Sync,
    ) -> Result<(), Error> {
        for attempt in 0..ATTEMPTS {
            match self.write_trusted(&step).await? {
                DeleteOutcome::Deleted(removal) if self.carry_out(&removal).await? => return Ok(()),
                DeleteOutcome::Deleted(_) => {}
                DeleteOutcome::Referenced => return Err(Error::Referenced),
                DeleteOutcome::Spared(tag) => return Err(self.immutability().refusal(repository, tag)),
                DeleteOutcome::Unknown if attempt > 0 => return Ok(()),
                DeleteOutcome::Unknown => return Err(unknown),
            }
        }
        Err(Error::Overtaken)
    }

    /// Does `step` once everything is compared: before that, a parent or referrer may not be known yet.
    async fn write_trusted<'a, T>(
        &self,
        step: impl Fn(Epoch) -> BoxFuture<'a, Result<T, meta::Error>> + Sync,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            // Also waits for a database that is away.
            let current = self.write(|epoch| Box::pin(std::future::ready(Ok(epoch)))).await?;
            let epoch = self.trust.trusted().await?;
            match self.step(epoch, step(epoch)).await {
                Err(Error::DatabaseAway(meta::Error::Superseded)) => {
                    tracing::debug!(epoch = current.0, "a deletion begins again in the next epoch");
                }
                outcome => return outcome,
            }
        }
        Err(Error::NotCompared)
    }

    /// `false`: what it belongs to may be lost.
    async fn carry_out(&self, removal: &Removal) -> Result<bool, Error> {
        outbox::carry_out(&*self.store, &removal.steps).await?;
        self.write(|_| self.meta.finish_removal(removal)).await
    }
}
