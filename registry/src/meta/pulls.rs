// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! On which day a manifest was pulled last.
//!
//! Days are the database's. Nothing here is asked for by a pull: processes tell together what they have seen.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name};

use super::{Epoch, Error, ManifestId};
use crate::key::{Day, Generation};

/// The day by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    /// The day.
    pub day: Day,
    /// How much of it is left.
    pub left: Duration,
}

/// When a manifest was pulled last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Its repository.
    pub repository: Name,
    /// Its digest.
    pub digest: Digest,
    /// The day.
    pub day: Day,
}

/// The record of pulls.
#[async_trait]
pub trait Pulls: Send + Sync {
    /// These manifests were pulled today. Those that do not live are passed over.
    async fn record_pulls(&self, pulled: &[(Name, Digest)]) -> Result<Today, Error>;

    /// These manifests were pulled on these days, as the bucket tells; a later day that is known stays.
    async fn restore_pulls(&self, epoch: Epoch, stamps: &[Stamp]) -> Result<(), Error>;

    /// Up to `limit` live manifests that were pulled, after `after`.
    async fn pull_stamps(
        &self,
        after: Option<ManifestId>,
        limit: u32,
    ) -> Result<Vec<(ManifestId, Stamp)>, Error>;

    /// The last day on which each of these manifests was pulled, or a child of it, in their order.
    async fn last_pulls(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<Option<Day>>, Error>;

    /// Pulls of these processes up to these days may not be in the record.
    async fn note_pull_writers(&self, epoch: Epoch, writers: &[(Generation, Day)]) -> Result<(), Error>;

    /// All pulls of this process are in the record.
    async fn forget_pull_writer(&self, epoch: Epoch, writer: Generation) -> Result<(), Error>;

    /// The processes whose last pulls may not be in the record, and up to which day.
    async fn pull_writers(&self) -> Result<Vec<(Generation, Day)>, Error>;

    /// The last day of which pulls may not be in the record: up to it, what was not pulled is not known.
    async fn pull_gap(&self) -> Result<Option<Day>, Error>;
}
