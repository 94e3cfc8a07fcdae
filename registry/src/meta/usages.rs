// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What other clusters run, as they said last.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::Digest;

use super::Error;

/// What one other cluster runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteUsage {
    /// The cluster.
    pub remote: String,
    /// How long ago it said so, by the database's clock.
    pub age: Duration,
    /// Manifests, or configurations.
    pub digests: Vec<Digest>,
    /// References as they are written in its workloads.
    pub references: Vec<String>,
}

/// The reports of other clusters.
#[async_trait]
pub trait Usages: Send + Sync {
    /// This is what the cluster runs, in place of what it said before.
    async fn report_usage(
        &self,
        remote: &str,
        digests: &[Digest],
        references: &[String],
    ) -> Result<(), Error>;

    /// What each cluster said last, by name.
    async fn usage_reports(&self) -> Result<Vec<RemoteUsage>, Error>;
}
