// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that a verification needs beside [`Reconcile`](super::Reconcile): its parts, and records of manifests
//! that are written again.
//!
//! A *pass* looks at each part of bucket and database once. Its parts are rows with leases, so that any number of
//! processes share it, and one that has died is replaced within a minute. How many findings each part had is kept
//! until the next pass, so that all who share it end alike.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::{Epoch, Error, ManifestId, RepositoryId};
use crate::key::Generation;

/// A kind of passes; each has its own parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Somebody asked for it. `deep`: content is read, too. `repair`: what is safe is put right.
    Verify {
        /// Whether content is read.
        deep: bool,
        /// Whether something is changed.
        repair: bool,
    },
    /// In the background.
    Scrub,
}

impl Job {
    /// In the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify { deep: false, repair: false } => "verify",
            Self::Verify { deep: true, repair: false } => "verify deep",
            Self::Verify { deep: false, repair: true } => "verify repair",
            Self::Verify { deep: true, repair: true } => "verify deep repair",
            Self::Scrub => "scrub",
        }
    }
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Parts that are done.
    pub done: u64,
    /// All parts; 0: there is no pass.
    pub total: u64,
    /// What was wrong in those that are done.
    pub findings: u64,
    /// How long ago it began.
    pub age: Duration,
    /// Whether somebody was at it within the last minute.
    pub is_alive: bool,
}

impl Pass {
    /// Whether a new one is to begin. `spread`: over how much time the parts of each are spread; zero: they are
    /// not.
    #[must_use]
    pub fn is_over(&self, spread: Duration) -> bool {
        let has_ended = self.done == self.total;
        if spread.is_zero() {
            has_ended || !self.is_alive
        } else {
            has_ended && (self.total == 0 || self.age >= spread)
        }
    }

    /// Whether more parts should be done by now than are.
    #[must_use]
    pub fn is_due(&self, spread: Duration) -> bool {
        let passed = self.age.as_secs_f64() / spread.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "there are some hundred parts")]
        let (done, total) = (self.done as f64, self.total as f64);
        self.done < self.total && done <= total * passed
    }
}

/// A manifest whose record is written again.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// The intent's row.
    pub intent: i64,
    /// The repository.
    pub repository: Name,
    /// Its row.
    pub repository_id: RepositoryId,
    /// The manifest's row.
    pub manifest: ManifestId,
    /// The manifest.
    pub digest: Digest,
    /// What it refers to as its subject.
    pub subject: Option<Digest>,
    /// Its bytes.
    pub body: Bytes,
    /// The record that is lost.
    pub lost: Generation,
    /// The record to write.
    pub generation: Generation,
}

/// What asking for the bytes of a live manifest came to.
#[derive(Clone, Debug)]
pub enum RestoreOutcome {
    /// Write the record, and the entry below its subject, then finish.
    Write(Box<Restoration>),
    /// The database does not have the bytes: nothing can be done.
    NoBytes,
    /// The row is another by now: there is nothing to do.
    Gone,
}

/// Parts of a verification, and its repairs that take more than one step.
#[async_trait]
pub trait Verification: Send + Sync {
    /// How far the pass is.
    async fn pass(&self, job: Job) -> Result<Pass, Error>;

    /// Begins a pass of these parts unless one is under way; see [`Pass::is_over`].
    async fn begin_pass(&self, job: Job, parts: &[String], spread: Duration) -> Result<(), Error>;

    /// All parts of the pass, in byte order.
    async fn parts(&self, job: Job) -> Result<Vec<String>, Error>;

    /// Takes a part for a minute, if one is left and its time has come: so many may have begun as of `spread` has
    /// passed.
    async fn claim_part(&self, job: Job, owner: Uuid, spread: Duration) -> Result<Option<String>, Error>;

    /// Keeps a part for another minute. `false`: it is no longer ours.
    async fn keep_part(&self, job: Job, part: &str, owner: Uuid) -> Result<bool, Error>;

    /// Lets go of the parts of these owners that are not done.
    async fn release_parts(&self, job: Job, owners: &[Uuid]) -> Result<(), Error>;

    /// A part is done. Objects without rows that were not seen in it any more are forgotten. `false`: it was no
    /// longer ours, somebody else does it again.
    async fn finish_part(&self, job: Job, part: &str, owner: Uuid, findings: u64) -> Result<bool, Error>;

    /// Records the intent to write the record of a live manifest again, under `generation`.
    async fn begin_restore(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        lost: Generation,
        generation: Generation,
    ) -> Result<RestoreOutcome, Error>;

    /// The manifest has the new record, which is in the bucket; the old one is queued. `false`: the row is another
    /// by now, or the intent was judged too old: nothing has changed, and what was written is queued.
    async fn finish_restore(&self, epoch: Epoch, restoration: &Restoration) -> Result<bool, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_somebody_is_at_is_shared_and_one_in_the_background_is_never_begun_too_early() {
        let day = Duration::from_hours(24);
        let pass = |done, age, is_alive| Pass { done, total: 2, findings: 0, age, is_alive };
        assert!(Pass::default().is_over(Duration::ZERO) && Pass::default().is_over(day));
        assert!(!pass(1, day, true).is_over(Duration::ZERO));
        assert!(pass(1, day, false).is_over(Duration::ZERO) && pass(2, day, true).is_over(Duration::ZERO));
        assert!(!pass(1, 2 * day, false).is_over(day) && !pass(2, day / 2, false).is_over(day));
        assert!(pass(2, day, false).is_over(day));
        assert!(pass(0, Duration::ZERO, false).is_due(day) && pass(1, day / 2, false).is_due(day));
        assert!(!pass(1, day / 3, false).is_due(day) && !pass(2, day, false).is_due(day));
    }
}
