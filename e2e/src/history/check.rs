// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The verdict on a history.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use stowage_oci::Digest;

use super::mirror::Mirrored;
use super::record::{Action, History, Operation, Outcome, Reference};
use super::{availability, blobs, explain, index, linearizable};

/// What a registry promises, by the way in which it can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A value that nobody wrote, or not yet.
    Phantom,
    /// A value that had been overwritten before the read began.
    StaleRead,
    /// A value that had been deleted before the read began.
    Resurrected,
    /// Nothing, where a push was acknowledged before the read began.
    LostPush,
    /// A value that others had seen replaced.
    WentBack,
    /// Answers that no order of the operations explains.
    Contradiction,
    /// So many operations overlap that nobody can tell.
    Undecided,
    /// Bytes that do not have the digest that was asked for, or named in the answer.
    WrongBytes,
    /// A blob is not there although a manifest that lists it is, or although it was pushed a moment ago.
    MissingBlob,
    /// An operation never came to an end.
    Failed,
    /// A request came to nothing and no outage excuses it.
    Interrupted,
    /// A refusal that the registry had no reason for.
    Refused,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub rule: Rule,
    /// The ids of the operations that contradict each other; the one that shows it comes first.
    pub operations: Vec<u64>,
    /// In words.
    pub says: String,
}

/// What came of judging a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was broken; nothing if the history is legal.
    pub violations: Vec<Violation>,
    /// How many operations of each kind and outcome were judged.
    pub counts: BTreeMap<(&'static str, &'static str), usize>,
    /// The operations that violations name, spelled out.
    named: BTreeMap<u64, String>,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{:?}: {}", violation.rule, violation.says)?;
            for id in &violation.operations {
                writeln!(f, "    {}", self.named[id])?;
            }
        }
        for ((kind, outcome), count) in &self.counts {
            writeln!(f, "{count:>8} {kind}: {outcome}")?;
        }
        write!(f, "{:>8} violations", self.violations.len())
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut violations = wrong_bytes(&history.operations);
    let mirrored = Mirrored::of(history);
    for (name, register) in index::registers(&history.operations, &mirrored) {
        match linearizable::unexplained(&register.steps) {
            Ok(reads) => {
                violations
                    .extend(reads.into_iter().map(|read| explain::explain(history, name, &register, read)));
            }
            Err(linearizable::TooTangled) => violations.push(explain::undecided(history, name, &register)),
        }
    }
    violations.extend(blobs::missing(history));
    violations.extend(availability::failures(history, &mirrored));
    let spelled: HashMap<u64, &Operation> =
        history.operations.iter().map(|operation| (operation.id, operation)).collect();
    let ids = violations.iter().flat_map(|violation| &violation.operations);
    let named = ids.map(|id| (*id, spelled[id].to_string())).collect();
    Verdict { violations, counts: counts(&history.operations), named }
}

fn counts(operations: &[Operation]) -> BTreeMap<(&'static str, &'static str), usize> {
    let mut counts = BTreeMap::new();
    for operation in operations {
        *counts.entry((operation.action.kind(), operation.outcome.kind())).or_default() += 1;
    }
    counts
}

fn wrong_bytes(operations: &[Operation]) -> Vec<Violation> {
    let is_wrong = |operation: &&Operation| {
        let Outcome::Found { digest, claimed } = &operation.outcome else { return false };
        let asked = match &operation.action {
            Action::PullManifest { reference: Reference::Digest(asked), .. } => Some(asked),
            Action::PullBlob { digest, .. } => Some(digest),
            _ => None,
        };
        claimed.is_some() || asked.is_some_and(|asked| asked != digest)
    };
    let violation = |operation: &Operation| Violation {
        rule: Rule::WrongBytes,
        operations: vec![operation.id],
        says: "the bytes do not have the digest that was asked for or named".to_owned(),
    };
    operations.iter().filter(is_wrong).map(violation).collect()
}

/// The manifests, by repository and digest, that must be there when all operations have ended: each was pushed, and
/// no deletion of it may have taken effect since.
#[must_use]
pub fn survivors(history: &History) -> Vec<(&str, Digest)> {
    let deletions = blobs::Deletions::of_manifests(&history.operations);
    let mut survivors: Vec<(&str, Digest)> = Vec::new();
    for operation in &history.operations {
        if let (Action::PushManifest { repository, digest, .. }, Outcome::Acknowledged) =
            (&operation.action, &operation.outcome)
            && !deletions.may_follow((repository.as_str(), *digest), operation.invoked, None)
        {
            survivors.push((repository, *digest));
        }
    }
    survivors.sort_unstable();
    survivors.dedup();
    survivors
}
