// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether operations came to an end, and whether what they met on the way was to be met.
//!
//! While the database is away pulls are answered from the bucket and pushes wait or are told to come back; while the
//! bucket is away manifests are answered from the database. While the disk is full only pushes and deletions wait. While
//! it is not known what refers to what, deletions of digests do, and a list that takes too long to be compared. A replica that is killed, stopped or replaced
//! breaks connections, or has none to give. While the registry is away that a repository is a copy of, what was never
//! fetched is not to be had. Whoever tries again gets through once the outage is over.

use std::collections::HashMap;

use super::check::{Rule, Violation};
use super::mirror::Mirrored;
use super::record::{Action, Cause, History, Moment, Operation, Outage, Outcome, Part, Setback};

/// Violations by operations that failed, were interrupted, or were refused without a reason.
pub(super) fn failures(history: &History, mirrored: &Mirrored<'_>) -> Vec<Violation> {
    let references = References::of(&history.operations);
    let judge = |operation| Judge { history, references: &references, mirrored, operation }.violations();
    history.operations.iter().flat_map(judge).collect()
}

/// When the first operation was invoked that may make a manifest refer to a piece of content.
struct References<'a>(HashMap<(&'a str, stowage_oci::Digest), Moment>);

impl<'a> References<'a> {
    fn of(operations: &'a [Operation]) -> Self {
        let mut first = HashMap::new();
        for operation in operations {
            let Action::PushManifest { repository, blobs, children, .. } = &operation.action else {
                continue;
            };
            for digest in blobs.iter().chain(children) {
                let earliest = first.entry((repository.as_str(), *digest)).or_insert(operation.invoked);
                *earliest = operation.invoked.min(*earliest);
            }
        }
        Self(first)
    }
}

struct Judge<'a> {
    history: &'a History,
    references: &'a References<'a>,
    mirrored: &'a Mirrored<'a>,
    operation: &'a Operation,
}

impl Judge<'_> {
    fn violations(&self) -> Vec<Violation> {
        let violation = |rule, says: String| Violation { rule, operations: vec![self.operation.id], says };
        let mut found = Vec::new();
        for setback in &self.operation.setbacks {
            if !self.is_excused(setback, true) {
                let says = format!("no outage excuses {:?} of replica {}", setback.cause, setback.replica);
                found.push(violation(Rule::Interrupted, says));
            }
        }
        match &self.operation.outcome {
            Outcome::Failed => {
                let last = self.operation.setbacks.last();
                if last.is_none_or(|last| !self.is_excused(last, false)) {
                    found.push(violation(
                        Rule::Failed,
                        "the client gave up though no outage lasted".to_owned(),
                    ));
                }
            }
            Outcome::Refused { status, code, missing }
                if !self.is_due(*status, code, !missing.is_empty()) =>
            {
                found
                    .push(violation(Rule::Refused, format!("there was no reason to answer {status} {code}")));
            }
            _ => {}
        }
        found
    }

    /// Whether a refusal follows from what clients did. Which blobs are missing, when that is said, is judged as a
    /// read of each.
    fn is_due(&self, status: u16, code: &str, says_what: bool) -> bool {
        match &self.operation.action {
            Action::DeleteManifest { repository, digest } | Action::DeleteBlob { repository, digest } => {
                let referenced = self.references.0.get(&(repository.as_str(), *digest));
                status == 405 && referenced.is_some_and(|&first| first <= self.operation.ended)
            }
            Action::PushManifest { .. } => status == 400 && code == "MANIFEST_BLOB_UNKNOWN" && says_what,
            _ => false,
        }
    }

    fn is_excused(&self, setback: &Setback, afterwards: bool) -> bool {
        let policy = &self.history.policy;
        let slack = |part| match (part, &policy.mirror) {
            _ if !afterwards => std::time::Duration::ZERO,
            (Part::Upstream, Some(mirror)) => mirror.recovery,
            _ => policy.recovery,
        };
        let overlaps = |outage: &&Outage| {
            outage.from <= setback.ended
                && outage.until.is_none_or(|until| until.after(slack(outage.part)) >= setback.invoked)
        };
        let parts: Vec<Part> =
            self.history.outages.iter().filter(overlaps).map(|outage| outage.part).collect();
        let replica = parts.contains(&Part::Replica(setback.replica));
        let (database, bucket) = (parts.contains(&Part::Database), parts.contains(&Part::Bucket));
        let upstream =
            parts.contains(&Part::Upstream) && self.mirrored.needs_upstream(self.operation, setback.invoked);
        match setback.cause {
            Cause::Unreachable => replica,
            Cause::Broken => replica || upstream,
            Cause::UploadGone { .. } => parts.contains(&Part::Uploads),
            Cause::Unavailable { retry_after: None, .. } | Cause::Faulty { .. } => false,
            Cause::Unavailable { .. } if upstream => true,
            Cause::Unavailable { .. } => match self.operation.action {
                Action::PullManifest { .. } => database && bucket,
                Action::PullBlob { .. } => bucket,
                Action::DeleteManifest { .. } | Action::DeleteBlob { .. } | Action::ListTags { .. }
                    if parts.contains(&Part::References) =>
                {
                    true
                }
                _ => database || bucket || replica || parts.contains(&Part::Room),
            },
        }
    }
}
