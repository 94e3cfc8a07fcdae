// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Publish`]: pushes are in `manifests`, deletions in `removals`.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::SqliteStore;
use crate::key::Generation;
use crate::meta::{
    DeleteOutcome, Epoch, Error, Pin, PinOutcome, Pinned, Publish, PublishOutcome, Removal, Spared,
};

#[async_trait]
impl Publish for SqliteStore {
    async fn pin_manifest(&self, epoch: Epoch, pin: &Pin) -> Result<PinOutcome, Error> {
        self.pin(epoch, pin).await
    }

    async fn publish_manifest(&self, pinned: &Pinned) -> Result<PublishOutcome, Error> {
        self.publish(pinned).await
    }

    async fn took_effect(&self, epoch: Epoch, pinned: &Pinned) -> Result<bool, Error> {
        self.find_effect(epoch, pinned).await
    }

    async fn delete_tag(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        retain: Duration,
    ) -> Result<Option<Removal>, Error> {
        self.remove_tag(epoch, repository, tag, None, retain).await
    }

    async fn delete_tag_of(
        &self,
        epoch: Epoch,
        repository: &Name,
        tag: &Tag,
        generation: Generation,
        retain: Duration,
    ) -> Result<Option<Removal>, Error> {
        self.remove_tag(epoch, repository, tag, Some(generation), retain).await
    }

    async fn delete_manifest(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        retain: Duration,
        spared: &Spared<'_>,
    ) -> Result<DeleteOutcome, Error> {
        self.remove_manifest(epoch, repository, *digest, retain, spared).await
    }

    async fn delete_blob(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
    ) -> Result<DeleteOutcome, Error> {
        self.remove_blob(epoch, repository, *digest).await
    }

    async fn finish_removal(&self, removal: &Removal) -> Result<bool, Error> {
        self.forget_removal(removal).await
    }
}
