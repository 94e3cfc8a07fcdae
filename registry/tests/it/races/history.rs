// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was done to each tag, and whether what a read saw can be.
//!
//! A value may be read when an operation wrote it that had begun before the read ended, unless an acknowledged
//! operation lies wholly after that one and wholly before the read. An operation that crashed, or was answered
//! with an error, may have taken effect or not; it ends there, as its place in the tag's order was given before.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use stowage_oci::{Digest, Name, Tag};

/// Which tag.
pub(super) type Which = (Name, Tag);

/// What an operation does to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It names the manifest.
    Set(Digest),
    /// It is gone.
    Delete,
    /// It is gone if it names the manifest, which is deleted.
    DeleteIf(Digest),
    /// It names again what it named when it was deleted; what that was the answer says.
    Restore,
}

impl Change {
    /// Whether a read that follows it may see `value` because of it.
    fn gives(self, value: Option<Digest>) -> bool {
        match self {
            Self::Set(digest) => value == Some(digest),
            Self::Delete | Self::DeleteIf(_) => value.is_none(),
            // Whatever it was that the tag named before.
            Self::Restore => value.is_some(),
        }
    }

    /// Whether a read that follows it cannot see `value` because of what was before it.
    fn overrides(self, value: Option<Digest>) -> bool {
        match self {
            Self::Set(_) | Self::Delete | Self::Restore => true,
            Self::DeleteIf(digest) => value == Some(digest),
        }
    }
}

#[derive(Clone, Debug)]
struct Operation {
    change: Change,
    began: Instant,
    /// `None`: it goes on.
    ended: Option<Instant>,
    acknowledged: bool,
}

/// All operations on tags.
pub(super) struct History {
    beginning: Instant,
    tags: Mutex<HashMap<Which, Vec<Operation>>>,
}

/// An operation that has begun.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    which: Which,
    index: usize,
}

impl Begun {
    pub(super) fn tag(&self) -> &Tag {
        &self.which.1
    }
}

impl History {
    pub(super) fn new() -> Self {
        Self { beginning: Instant::now(), tags: Mutex::default() }
    }

    pub(super) fn begin(&self, which: &Which, change: Change) -> Begun {
        self.begin_at(which, change, Instant::now())
    }

    /// Until this is called the operation goes on.
    pub(super) fn end(&self, begun: &Begun, acknowledged: bool) {
        self.end_at(begun, acknowledged, Instant::now());
    }

    /// A tag was restored, and is acknowledged to name `digest`.
    pub(super) fn restored(&self, begun: &Begun, digest: Digest) {
        let mut tags = self.tags.lock().unwrap();
        let operation = &mut tags.get_mut(&begun.which).expect("it was begun")[begun.index];
        operation.change = Change::Set(digest);
        operation.ended = Some(Instant::now());
        operation.acknowledged = true;
    }

    /// Whether nobody else has had to do with the tag since the first of these operations on it began.
    pub(super) fn is_alone(&self, ours: &[&Begun]) -> bool {
        let Some(first) = ours.first() else { return false };
        let tags = self.tags.lock().unwrap();
        let operations = &tags[&first.which];
        let since = operations[first.index].began;
        let is_ours = |index: usize| ours.iter().any(|begun| begun.index == index);
        let mut others = operations.iter().enumerate().filter(|(index, _)| !is_ours(*index));
        others.all(|(_, other)| other.ended.is_some_and(|end| end < since))
    }

    /// Why the tag cannot have had `value` when the operation began.
    pub(super) fn check_before(&self, begun: &Begun, value: Digest) -> Result<(), String> {
        let began = self.tags.lock().unwrap()[&begun.which][begun.index].began;
        self.check_until(&begun.which, Some(value), began, began)
    }

    /// Whether somebody else has tried to give the tag another digest.
    pub(super) fn is_contested(&self, which: &Which, digest: Digest) -> bool {
        let is_other = |change| matches!(change, Change::Set(other) if other != digest);
        let tags = self.tags.lock().unwrap();
        tags.get(which).is_some_and(|all| all.iter().any(|operation| is_other(operation.change)))
    }

    /// Why the tag cannot have had `value` at any moment since `began`.
    pub(super) fn check(&self, which: &Which, value: Option<Digest>, began: Instant) -> Result<(), String> {
        self.check_until(which, value, began, Instant::now())
    }

    fn begin_at(&self, which: &Which, change: Change, began: Instant) -> Begun {
        let mut tags = self.tags.lock().unwrap();
        let operations = tags.entry(which.clone()).or_default();
        operations.push(Operation { change, began, ended: None, acknowledged: false });
        Begun { which: which.clone(), index: operations.len() - 1 }
    }

    fn end_at(&self, begun: &Begun, acknowledged: bool, ended: Instant) {
        let mut tags = self.tags.lock().unwrap();
        let operation = &mut tags.get_mut(&begun.which).expect("it was begun")[begun.index];
        operation.ended = Some(ended);
        operation.acknowledged = acknowledged;
    }

    fn check_until(
        &self,
        which: &Which,
        value: Option<Digest>,
        began: Instant,
        ended: Instant,
    ) -> Result<(), String> {
        let tags = self.tags.lock().unwrap();
        let operations = tags.get(which).map_or(&[][..], Vec::as_slice);
        let was_set = |by: &Operation| value.is_some_and(|digest| by.change == Change::Set(digest));
        let is_known = value.is_none() || operations.iter().any(|by| was_set(by) && by.began < ended);
        if !is_known {
            return Err(format!("{value:?} was never written"));
        }
        let before = |operation: &&Operation| operation.ended.is_some_and(|end| end < began);
        let overriding = operations
            .iter()
            .filter(|operation| operation.acknowledged && operation.change.overrides(value))
            .filter(before)
            .max_by_key(|operation| operation.began);
        let Some(overriding) = overriding else {
            let first = value.is_none() && self.beginning < ended;
            let written = operations.iter().any(|other| other.change.gives(value) && other.began < ended);
            return if first || written { Ok(()) } else { Err(format!("{value:?} was not written yet")) };
        };
        let written = operations.iter().any(|operation| {
            operation.change.gives(value)
                && operation.began < ended
                && operation.ended.is_none_or(|end| end >= overriding.began)
        });
        if written {
            return Ok(());
        }
        let writers: Vec<_> = operations.iter().filter(|operation| operation.change.gives(value)).collect();
        Err(format!(
            "{value:?}, written by {writers:?}, was read in {began:?}..{ended:?} after {overriding:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stowage_oci::Algorithm;

    use super::*;

    struct Forger {
        history: History,
        start: Instant,
        which: Which,
    }

    fn value(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    impl Forger {
        fn new() -> Self {
            let which = ("a".parse().unwrap(), "t".parse().unwrap());
            Self { history: History::new(), start: Instant::now(), which }
        }

        fn at(&self, moment: u64) -> Instant {
            self.start + Duration::from_secs(moment)
        }

        fn done(&self, change: Change, began: u64, ended: u64, acknowledged: bool) {
            let begun = self.history.begin_at(&self.which, change, self.at(began));
            self.history.end_at(&begun, acknowledged, self.at(ended));
        }

        fn reads(&self, value: Option<Digest>, began: u64, ended: u64) -> bool {
            self.history.check_until(&self.which, value, self.at(began), self.at(ended)).is_ok()
        }
    }

    #[test]
    fn a_read_sees_the_last_acknowledged_write_or_one_beside_it() {
        let forged = Forger::new();
        forged.done(Change::Set(value("a")), 1, 2, true);
        forged.done(Change::Set(value("b")), 3, 5, true);
        forged.done(Change::Set(value("c")), 4, 6, true);
        assert!(!forged.reads(Some(value("a")), 7, 8), "stale");
        assert!(forged.reads(Some(value("b")), 7, 8), "it ran beside the other");
        assert!(forged.reads(Some(value("c")), 7, 8));
        assert!(forged.reads(Some(value("a")), 4, 8), "it began before the next had ended");
        assert!(!forged.reads(None, 7, 8), "lost");
        assert!(!forged.reads(Some(value("z")), 7, 8), "never written");
    }

    #[test]
    fn a_write_that_was_not_acknowledged_may_be_seen_until_a_later_one_is() {
        let forged = Forger::new();
        forged.done(Change::Set(value("a")), 1, 2, true);
        forged.done(Change::Set(value("b")), 3, 4, false);
        assert!(forged.reads(Some(value("a")), 5, 6));
        assert!(forged.reads(Some(value("b")), 5, 6));
        forged.done(Change::Set(value("c")), 7, 8, true);
        assert!(!forged.reads(Some(value("b")), 9, 10), "it ended at its crash");
    }

    #[test]
    fn a_deleted_tag_does_not_come_back() {
        let forged = Forger::new();
        assert!(forged.reads(None, 0, 1), "nothing was there at first");
        forged.done(Change::Set(value("a")), 1, 2, true);
        forged.done(Change::Delete, 3, 4, true);
        assert!(forged.reads(None, 5, 6));
        assert!(!forged.reads(Some(value("a")), 5, 6));
    }

    #[test]
    fn a_restored_tag_names_what_it_named_before() {
        let forged = Forger::new();
        forged.done(Change::Set(value("a")), 1, 2, true);
        let deleted = forged.history.begin_at(&forged.which, Change::Delete, forged.at(3));
        forged.history.end_at(&deleted, true, forged.at(4));
        assert!(forged.history.is_alone(&[&deleted]));
        assert!(forged.history.check_before(&deleted, value("a")).is_ok());
        assert!(forged.history.check_before(&deleted, value("b")).is_err(), "it never named that");
        let restored = forged.history.begin_at(&forged.which, Change::Restore, forged.at(5));
        assert!(forged.reads(Some(value("a")), 6, 7) && forged.reads(None, 6, 7), "it goes on");
        assert!(!forged.reads(Some(value("b")), 6, 7), "nobody ever wrote it");
        assert!(!forged.history.is_alone(&[&deleted]) && forged.history.is_alone(&[&deleted, &restored]));
        forged.history.restored(&restored, value("a"));
        forged.history.end_at(&restored, true, forged.at(8));
        assert!(forged.reads(Some(value("a")), 9, 10));
        assert!(!forged.reads(None, 9, 10), "lost again");
    }

    #[test]
    fn a_tag_is_contested_by_another_digest_only() {
        let forged = Forger::new();
        forged.done(Change::Set(value("a")), 1, 2, true);
        assert!(!forged.history.is_contested(&forged.which, value("a")));
        assert!(forged.history.is_contested(&forged.which, value("b")));
    }

    #[test]
    fn a_deleted_manifest_takes_only_its_own_tags() {
        let forged = Forger::new();
        forged.done(Change::Set(value("a")), 1, 2, true);
        forged.done(Change::DeleteIf(value("a")), 3, 4, true);
        assert!(!forged.reads(Some(value("a")), 5, 6));
        forged.done(Change::Set(value("b")), 7, 8, true);
        forged.done(Change::DeleteIf(value("a")), 9, 10, true);
        assert!(forged.reads(Some(value("b")), 11, 12));
    }
}
