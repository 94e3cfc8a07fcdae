// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The end of a walk: what pushes of earlier epochs left is settled, then the epoch counts as walked.
//!
//! All records that were whole have been adopted by then. So what an intent of an earlier epoch still names is
//! either live, and stays, or is taken back with a marker: its writer may be on its way even now.

use std::collections::HashSet;

use super::Changes;
use super::rows::{Owed, Rows};
use crate::key::Key;
use crate::meta::{Epoch, steps};

/// What a push of an earlier epoch announced.
#[derive(Clone, Debug)]
pub(in crate::meta) struct OldIntent {
    pub(in crate::meta) id: i64,
    pub(in crate::meta) manifest: Option<i64>,
    pub(in crate::meta) keys: Vec<String>,
}

/// The rows that only the end of a walk looks at.
pub(in crate::meta) trait EndRows: Rows {
    /// Intents of epochs before this one.
    async fn old_intents(&mut self, epoch: Epoch) -> Result<Vec<OldIntent>, Self::Fault>;
    /// Forgets intents.
    async fn forget_intents(&mut self, intents: &[i64]) -> Result<(), Self::Fault>;
    /// Whether a row names the object, live or in the trash.
    async fn names(&mut self, key: &Key) -> Result<bool, Self::Fault>;
    /// Dooms pending manifests without an intent and queues them to be deleted; how many.
    async fn doom_pending(&mut self) -> Result<u64, Self::Fault>;
    /// Ends uploads that became a blob and that no request holds; how many.
    async fn end_used_uploads(&mut self) -> Result<u64, Self::Fault>;
    /// Marks the epoch as walked.
    async fn mark_walked(&mut self) -> Result<(), Self::Fault>;
}

/// Ends the walk of `epoch`, which the transaction holds against everybody.
pub(in crate::meta) async fn end<R: EndRows>(rows: &mut R, epoch: Epoch) -> Result<Changes, R::Fault> {
    let mut changes = Changes::new();
    let intents = rows.old_intents(epoch).await?;
    for intent in &intents {
        let left = left_by(rows, intent).await?;
        for owed in left {
            *changes.entry("queuedObjects").or_default() += 1;
            rows.owe(owed).await?;
        }
    }
    let ids: Vec<i64> = intents.iter().map(|intent| intent.id).collect();
    if !ids.is_empty() {
        rows.forget_intents(&ids).await?;
    }
    for (what, count) in
        [("endedPushes", rows.doom_pending().await?), ("endedUploads", rows.end_used_uploads().await?)]
    {
        if count > 0 {
            changes.insert(what, count);
        }
    }
    rows.mark_walked().await?;
    Ok(changes)
}

/// What is to be taken back of an intent: all that no row names and no queue has decided.
async fn left_by<R: EndRows>(rows: &mut R, intent: &OldIntent) -> Result<Vec<Owed>, R::Fault> {
    let removals: Vec<String> = intent.keys.iter().map(|key| format!("-{key}")).collect();
    let decided: HashSet<String> = rows.queued(&removals).await?;
    let mut left = Vec::new();
    for (text, removal) in intent.keys.iter().zip(&removals) {
        // A key of another release: unknown means keep.
        let Ok(key) = text.parse::<Key>() else { continue };
        if decided.contains(removal) || rows.names(&key).await? {
            continue;
        }
        left.push(taken_back(&key, intent.manifest));
    }
    Ok(left)
}

/// The steps that take a record back. Whoever carries them out queues the end of the marker.
fn taken_back(key: &Key, about: Option<i64>) -> Owed {
    let (marker, lane) = match key.clone() {
        Key::Manifest { repository, digest, generation } => {
            (Some(Key::ManifestDeleted { repository, digest, generation }), None)
        }
        Key::Tag { repository, tag, version, generation, target } => {
            let lane = steps::lane(&repository, &tag);
            (Some(Key::TagWithdrawn { repository, tag, version, generation, target }), Some(lane))
        }
        _ => (None, None),
    };
    let about = about.filter(|_| matches!(key, Key::Manifest { .. }));
    let steps = marker.iter().map(steps::write).chain([steps::remove(key)]).collect();
    Owed { steps, lane, about, ..Owed::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_might_be_believed_is_marked_before_it_goes() {
        let digest = "a".repeat(64);
        let key = |text: &str| text.parse::<Key>().unwrap();
        let manifest = key(&format!("v1/r/a/~m/sha256-{digest}/01arz3ndektsv4rrffq69g5fav"));
        let owed = taken_back(&manifest, Some(7));
        assert_eq!(owed.steps, [format!("+{manifest}.x"), format!("-{manifest}")]);
        assert_eq!(owed.about, Some(7));
        let link = key(&format!("v1/r/a/~b/sha256-{digest}/01arz3ndektsv4rrffq69g5fav"));
        assert_eq!(taken_back(&link, None).steps, [format!("-{link}")]);
    }
}
