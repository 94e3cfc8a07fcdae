// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deleting: the row stops naming, the bucket gets its evidence, then the client is told.

use stowage_oci::{Digest, Name, Tag};

use super::{Domain, Error};
use crate::meta::{DeleteOutcome, Removal};
use crate::outbox;

impl Domain {
    /// Deletes a tag; what it names stays.
    pub async fn delete_tag(&self, repository: &Name, tag: &Tag) -> Result<(), Error> {
        let retain = self.limits.load().trash_retention;
        let removal = self.write(|epoch| self.meta.delete_tag(epoch, repository, tag, retain)).await?;
        self.carry_out(removal.ok_or(Error::ManifestUnknown)?).await
    }

    /// Deletes a manifest and all its tags.
    pub async fn delete_manifest(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let retain = self.limits.load().trash_retention;
        let outcome =
            self.write(|epoch| self.meta.delete_manifest(epoch, repository, digest, retain)).await?;
        match outcome {
            DeleteOutcome::Deleted(removal) => self.carry_out(removal).await,
            DeleteOutcome::Referenced => Err(Error::Referenced),
            DeleteOutcome::Unknown => Err(Error::ManifestUnknown),
        }
    }

    /// Takes the blob away from the repository; others keep it.
    pub async fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let outcome = self.write(|epoch| self.meta.delete_blob(epoch, repository, digest)).await?;
        match outcome {
            DeleteOutcome::Deleted(removal) => self.carry_out(removal).await,
            DeleteOutcome::Referenced => Err(Error::Referenced),
            DeleteOutcome::Unknown => Err(Error::BlobUnknown),
        }
    }

    async fn carry_out(&self, removal: Removal) -> Result<(), Error> {
        outbox::carry_out(&*self.store, &removal.steps).await?;
        self.write(|_| self.meta.finish_removal(&removal)).await
    }
}
