// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that remembers runs of jobs. The bucket has the report of each; a row here says that it counts.
//!
//! Order: intend → store the report → record the row. What is intended and not recorded in time goes.

use async_trait::async_trait;
use stowage_oci::Digest;

use super::{Epoch, Error};
use crate::key::{Generation, Key, RunKind, RunName, RunOutcome};

/// A run that has ended, as its report in the bucket tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Which job.
    pub kind: RunKind,
    /// Of what.
    pub name: RunName,
    /// Its report.
    pub generation: Generation,
    /// How it ended.
    pub outcome: RunOutcome,
    /// When it began, in milliseconds since 1970.
    pub started: u64,
    /// When it ended, likewise.
    pub ended: u64,
    /// Its summary: JSON.
    pub summary: String,
    /// The hash of the rules that its plan was made by, if it came to the end of it.
    pub rules: Option<Digest>,
}

impl RunRow {
    /// Where its report is.
    #[must_use]
    pub fn key(&self) -> Key {
        let Self { kind, name, generation, outcome, .. } = self;
        Key::Run { kind: *kind, name: name.clone(), generation: *generation, outcome: *outcome }
    }
}

/// Runs of jobs.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Intends to write the report of a run: the intent's row.
    async fn intend_run(&self, epoch: Epoch, key: &Key) -> Result<i64, Error>;

    /// Records a run whose report is in the bucket. `false`: it took too long, and its report goes.
    async fn record_run(&self, epoch: Epoch, intent: i64, run: &RunRow) -> Result<bool, Error>;

    /// Records a run whose report was found in the bucket. `false`: it is known, or its writer is under way.
    async fn adopt_run(&self, epoch: Epoch, run: &RunRow) -> Result<bool, Error>;

    /// Up to `limit` runs, newest first.
    async fn runs(&self, kind: RunKind, name: &RunName, limit: u32) -> Result<Vec<RunRow>, Error>;

    /// Forgets up to `limit` runs that are not among the newest `keep` of their kind and name, and queues their reports
    /// for removal; how many.
    async fn forget_runs(&self, epoch: Epoch, keep: u32, limit: u32) -> Result<u64, Error>;
}
