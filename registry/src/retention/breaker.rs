// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Numbers of a plan, and whether they may be carried out.

use stowage_oci::Digest;

use super::{Policy, Verdict, policy::hash_of};

/// So few are never too many by their part of the whole: a small registry could not be cleaned otherwise.
const FEW: u64 = 10;

/// How much a run may delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tags.
    pub deletions: u64,
    /// Of a hundred tags that were judged.
    pub percent: u64,
}

/// More would be deleted than the limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// In number.
    #[error(
        "{found} tags would be deleted, and limits.maxDeletionsPerRun allows {allowed}: look at the report, then raise \
         the limit or add rules that keep"
    )]
    Tags {
        /// How many there are.
        found: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// As a part of all.
    #[error(
        "{found} of {evaluated} tags would be deleted, and limits.maxDeletePercent allows {allowed} of a hundred: look \
         at the report, then raise the limit or add rules that keep"
    )]
    Percent {
        /// How many there are.
        found: u64,
        /// Of how many.
        evaluated: u64,
        /// How many of a hundred there may be.
        allowed: u64,
    },
}

impl Limits {
    /// Whether so many of the tags that were judged may be deleted.
    pub const fn allow(&self, evaluated: u64, found: u64) -> Result<(), TooMany> {
        if found > self.deletions {
            return Err(TooMany::Tags { found, allowed: self.deletions });
        }
        if found > FEW && found * 100 > self.percent * evaluated {
            return Err(TooMany::Percent { found, evaluated, allowed: self.percent });
        }
        Ok(())
    }
}

/// What the verdicts of a run come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tags that were judged.
    pub evaluated: u64,
    /// Of these, how many a rule keeps.
    pub kept: u64,
    /// How many no rule keeps, and something else does.
    pub guarded: u64,
    /// How many nothing keeps.
    pub unkept: u64,
}

impl Tally {
    /// Counts a verdict.
    pub const fn add(&mut self, verdict: Verdict) {
        self.evaluated += 1;
        match verdict {
            Verdict::Kept { .. } => self.kept += 1,
            Verdict::Guarded(_) => self.guarded += 1,
            Verdict::Unkept => self.unkept += 1,
        }
    }
}

/// The policies whose rules a run went by: its own, and all that matched a repository that it judged.
#[derive(Clone, Debug, Default)]
pub struct Involved<'p>(Vec<&'p Policy>);

impl<'p> Involved<'p> {
    /// The run's own policy is always involved.
    #[must_use]
    pub fn by(own: &'p Policy) -> Self {
        Self(vec![own])
    }

    /// Those that match a repository are.
    pub fn add(&mut self, matching: &[&'p Policy]) {
        for policy in matching {
            if !self.0.iter().any(|found| found.name == policy.name) {
                self.0.push(policy);
            }
        }
    }

    /// The names of the others, in order.
    #[must_use]
    pub fn others(&self) -> Vec<&'p str> {
        let mut names: Vec<&str> = self.0.iter().skip(1).map(|policy| policy.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// One hash over the rules of all of them: another one means that what a run would delete was not told before.
    #[must_use]
    pub fn rules(&self) -> Digest {
        let mut sorted = self.0.clone();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        hash_of(sorted)
    }
}
