// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether blobs are where they must be.
//!
//! A blob is no register: it may go by itself when nothing refers to it. It must be there while a manifest that lists
//! it is, and for the grace after it was pushed; it must not be there before anybody pushed it, nor after a deletion.
//! The same holds when a push is refused because a blob is missing: that is a read of it.

use std::collections::HashMap;

use stowage_oci::Digest;

use super::check::{Rule, Violation};
use super::record::{Action, Fate, History, Moment, Operation, Outcome, Policy};

type Content<'a> = (&'a str, Digest);

/// The deletions of some kind of content, and when they may have taken effect.
pub(super) struct Deletions<'a>(HashMap<Content<'a>, Vec<Span>>);

/// From an invocation to an end, if that is known.
type Span = (Moment, Option<Moment>);

impl<'a> Deletions<'a> {
    pub(super) fn of_manifests(operations: &'a [Operation]) -> Self {
        Self::of(operations, |action| match action {
            Action::DeleteManifest { repository, digest } => Some((repository, *digest)),
            _ => None,
        })
    }

    fn of_blobs(operations: &'a [Operation]) -> Self {
        Self::of(operations, |action| match action {
            Action::DeleteBlob { repository, digest } => Some((repository, *digest)),
            _ => None,
        })
    }

    fn of(operations: &'a [Operation], content: impl Fn(&'a Action) -> Option<Content<'a>>) -> Self {
        let mut deletions = HashMap::<_, Vec<_>>::new();
        for operation in operations {
            if let Some(content) = content(&operation.action) {
                deletions.entry(content).or_default().extend(effects(operation));
            }
        }
        Self(deletions)
    }

    /// Whether one may have taken effect between these instants; `None`: or at any time later.
    pub(super) fn may_follow(&self, content: Content<'_>, since: Moment, until: Option<Moment>) -> bool {
        let spans = self.0.get(&content).map(Vec::as_slice).unwrap_or_default();
        spans.iter().any(|&(invoked, ended)| {
            ended.is_none_or(|ended| ended >= since) && until.is_none_or(|until| invoked <= until)
        })
    }
}

/// When an operation that writes may have taken effect.
fn effects(operation: &Operation) -> impl Iterator<Item = Span> {
    let strays = operation.setbacks.iter().filter(|setback| setback.fate == Fate::Unknown);
    let own = match operation.outcome {
        Outcome::Acknowledged => Some((operation.invoked, Some(operation.ended))),
        Outcome::Crashed => Some((operation.invoked, None)),
        _ => None,
    };
    strays.map(|setback| (setback.invoked, None)).chain(own)
}

/// What is known of the blobs of a history.
struct Blobs<'a> {
    policy: &'a Policy,
    /// Every push of a blob.
    pushes: HashMap<Content<'a>, Vec<&'a Operation>>,
    /// The acknowledged pushes of manifests that list a blob.
    holders: HashMap<Content<'a>, Vec<&'a Operation>>,
    deletions: HashMap<Content<'a>, Vec<&'a Operation>>,
    manifest_deletions: Deletions<'a>,
    blob_deletions: Deletions<'a>,
}

/// Violations by blobs that are missing, or there when they cannot be.
pub(super) fn missing(history: &History) -> Vec<Violation> {
    let blobs = Blobs::of(history);
    let mut violations = Vec::new();
    for operation in &history.operations {
        let repository = operation.action.repository();
        match (&operation.action, &operation.outcome) {
            (Action::PullBlob { digest, .. }, Outcome::Absent) => {
                violations.extend(blobs.absent(operation, (repository, *digest)));
            }
            (Action::PullBlob { digest, .. }, Outcome::Found { .. }) => {
                violations.extend(blobs.found(operation, (repository, *digest)));
            }
            (Action::PushManifest { .. }, Outcome::Refused { missing, .. }) => {
                let absent =
                    missing.iter().filter_map(|digest| blobs.absent(operation, (repository, *digest)));
                violations.extend(absent);
            }
            _ => {}
        }
    }
    violations
}

impl<'a> Blobs<'a> {
    fn of(history: &'a History) -> Self {
        let (mut pushes, mut holders) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut deletions = HashMap::<_, Vec<_>>::new();
        for operation in &history.operations {
            let repository = operation.action.repository();
            match &operation.action {
                Action::PushBlob { digest, .. } => {
                    pushes.entry((repository, *digest)).or_default().push(operation);
                }
                Action::PushManifest { blobs, .. } if operation.outcome == Outcome::Acknowledged => {
                    for blob in blobs {
                        holders.entry((repository, *blob)).or_default().push(operation);
                    }
                }
                Action::DeleteBlob { digest, .. } if operation.outcome == Outcome::Acknowledged => {
                    deletions.entry((repository, *digest)).or_default().push(operation);
                }
                _ => {}
            }
        }
        Self {
            policy: &history.policy,
            pushes,
            holders,
            deletions,
            manifest_deletions: Deletions::of_manifests(&history.operations),
            blob_deletions: Deletions::of_blobs(&history.operations),
        }
    }

    /// `operation` did not find the blob.
    fn absent(&self, operation: &Operation, blob: Content<'_>) -> Option<Violation> {
        let before =
            |push: &&&Operation| push.outcome == Outcome::Acknowledged && push.ended < operation.invoked;
        let holds = |push: &&&Operation| {
            let Action::PushManifest { digest, .. } = &push.action else { return false };
            !self.manifest_deletions.may_follow((blob.0, *digest), push.invoked, Some(operation.ended))
        };
        let stays = |push: &&&Operation| {
            let grace = self.policy.blob_grace;
            grace.is_none_or(|grace| operation.ended < push.invoked.after(grace))
                && !self.blob_deletions.may_follow(blob, push.invoked, Some(operation.ended))
        };
        let violation = |push: &&Operation, says: &str| Violation {
            rule: Rule::MissingBlob,
            operations: vec![operation.id, push.id],
            says: format!("the blob {} is missing from {}: {says}", blob.1, blob.0),
        };
        let holder = of(&self.holders, blob).iter().filter(before).find(holds);
        let pushed = || of(&self.pushes, blob).iter().filter(before).find(stays);
        holder
            .map(|push| violation(push, "a manifest that lists it is there"))
            .or_else(|| pushed().map(|push| violation(push, "it was pushed and never deleted")))
    }

    /// `operation` found the blob.
    fn found(&self, operation: &Operation, blob: Content<'_>) -> Option<Violation> {
        let violation = |rule, others: Vec<u64>, says: &str| Violation {
            rule,
            operations: std::iter::once(operation.id).chain(others).collect(),
            says: format!("the blob {} is in {}: {says}", blob.1, blob.0),
        };
        let spans: Vec<Span> = of(&self.pushes, blob).iter().flat_map(|push| effects(push)).collect();
        if !spans.iter().any(|&(invoked, _)| invoked <= operation.ended) {
            return Some(violation(Rule::Phantom, Vec::new(), "nobody pushed it there"));
        }
        let is_over = |deletion: &&&Operation| {
            let again = |&(invoked, ended): &Span| {
                invoked <= operation.ended && ended.is_none_or(|ended| ended >= deletion.invoked)
            };
            deletion.ended < operation.invoked && !spans.iter().any(again)
        };
        let deletion = of(&self.deletions, blob).iter().find(is_over)?;
        Some(violation(Rule::Resurrected, vec![deletion.id], "it was deleted and not pushed again"))
    }
}

fn of<'m, 'a>(
    map: &'m HashMap<Content<'a>, Vec<&'a Operation>>,
    content: Content<'m>,
) -> &'m [&'a Operation] {
    map.get(&content).map(Vec::as_slice).unwrap_or_default()
}
