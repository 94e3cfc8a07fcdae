// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deleting: the row stops naming, the bucket gets its evidence, then the client is told.

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use futures::future::BoxFuture;

use super::reconcile::Unit;
use super::{Domain, Error};
use crate::meta::{self, DeleteOutcome, Epoch, Removal};
use crate::outbox;

impl Domain {
    /// Deletes a tag; what it names stays.
    pub async fn delete_tag(&self, repository: &Name, tag: &Tag) -> Result<(), Error> {
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
        let removal =
            self.write_to(&units, |epoch| self.meta.delete_tag(epoch, repository, tag, retain)).await?;
        self.carry_out(removal.ok_or(Error::ManifestUnknown)?).await
    }

    /// Deletes a manifest and all its tags.
    pub async fn delete_manifest(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let retain = self.limits.load().trash_retention;
        let outcome =
            self.write_trusted(|epoch| self.meta.delete_manifest(epoch, repository, digest, retain)).await?;
        match outcome {
            DeleteOutcome::Deleted(removal) => self.carry_out(removal).await,
            DeleteOutcome::Referenced => Err(Error::Referenced),
            DeleteOutcome::Unknown => Err(Error::ManifestUnknown),
        }
    }

    /// Takes the blob away from the repository; others keep it.
    pub async fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let outcome = self.write_trusted(|epoch| self.meta.delete_blob(epoch, repository, digest)).await?;
        match outcome {
            DeleteOutcome::Deleted(removal) => self.carry_out(removal).await,
            DeleteOutcome::Referenced => Err(Error::Referenced),
            DeleteOutcome::Unknown => Err(Error::BlobUnknown),
        }
    }

    /// Does `step` once everything is compared: before that, a parent or referrer may not be known yet.
    async fn write_trusted<'a, T>(
        &self,
        step: impl Fn(Epoch) -> BoxFuture<'a, Result<T, meta::Error>> + Sync,
    ) -> Result<T, Error> {
        const ATTEMPTS: u32 = 3;
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

    async fn carry_out(&self, removal: Removal) -> Result<(), Error> {
        outbox::carry_out(&*self.store, &removal.steps).await?;
        self.write(|_| self.meta.finish_removal(&removal)).await
    }
}
