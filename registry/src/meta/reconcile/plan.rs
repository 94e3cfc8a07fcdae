// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is to be done about data and links: from what the bucket shows and a row says. Pure.
//!
//! A row whose key is neither listed nor known to be gone has changed since it was read: nothing is decided about
//! it.

use std::collections::HashSet;

use stowage_oci::{Digest, Name};

use super::rows::{BlobFact, Holders, LinkFact};
use super::{BlobFound, LinkFound};
use crate::key::{Generation, Key};
use crate::meta::{Location, steps};

/// What the queues and open uploads say of keys.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Steps that are queued: `-key` is decided, `+key` is owed.
    pub(super) queued: HashSet<String>,
    /// Records that an open push of this epoch has announced.
    pub(super) announced: HashSet<String>,
    /// Generations of open uploads, which are held.
    pub(super) uploading: HashSet<Generation>,
    /// The same of uploads that somebody else is changing or ending.
    pub(super) busy: HashSet<Generation>,
}

impl Fate {
    /// Whether the object's removal is queued.
    pub(super) fn decided(&self, key: &Key) -> bool {
        !self.queued.is_empty() && self.queued.contains(&steps::remove(key))
    }

    /// Whether the object is about to be written.
    pub(super) fn owed(&self, key: &Key) -> bool {
        !self.queued.is_empty() && self.queued.contains(&steps::write(key))
    }

    /// Whether somebody else decides about the record.
    pub(super) fn is_left_to_others(&self, key: &Key) -> bool {
        self.decided(key) || (!self.announced.is_empty() && self.announced.contains(&key.to_string()))
    }
}

/// What is to be done with a row, and which objects are superfluous.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement<A, S> {
    /// The row has changed since it was read.
    Changed,
    /// So it shall be.
    Plan {
        /// What is to be done with the row.
        action: Option<A>,
        /// What is superfluous.
        spare: Vec<S>,
        /// What is superfluous too, and goes with the open upload that it is of.
        unfinished: Vec<S>,
    },
}

impl<A, S> Judgement<A, S> {
    /// Whether there is nothing to do.
    pub(super) fn stands(&self) -> bool {
        matches!(self, Self::Plan { action: None, spare, .. } if spare.is_empty())
    }
}

/// What is to be done with the row of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobAction {
    /// There is none: it is there.
    Insert(Location),
    /// The data is elsewhere.
    Move(Location),
    /// There is no data.
    Lose,
}

/// Data of a digest against its row.
pub(super) fn blob(
    found: &BlobFound,
    row: Option<&BlobFact>,
    fate: &Fate,
) -> Judgement<BlobAction, Location> {
    if found.listed.iter().any(|location| fate.busy.contains(&location.generation)) {
        return Judgement::Changed;
    }
    let key = |location: &Location| location.blob_key(found.digest);
    let own = row.and_then(|row| row.location);
    let evidence = || found.listed.iter().filter(|location| !fate.decided(&key(location))).copied();
    let (kept, action) = match (row, own) {
        (_, Some(own)) if found.listed.contains(&own) => (Some(own), None),
        (_, Some(own)) if found.gone.contains(&own) => match evidence().next() {
            Some(other) => (Some(other), Some(BlobAction::Move(other))),
            None => (None, Some(BlobAction::Lose)),
        },
        (_, Some(_)) => return Judgement::Changed,
        (Some(_), None) => match evidence().next() {
            Some(other) => (Some(other), Some(BlobAction::Move(other))),
            None => (None, None),
        },
        (None, None) => match evidence().next() {
            Some(other) => (Some(other), Some(BlobAction::Insert(other))),
            None => (None, None),
        },
    };
    let superfluous = evidence().filter(|other| Some(*other) != kept);
    let (unfinished, spare) = superfluous.partition(|other| fate.uploading.contains(&other.generation));
    Judgement::Plan { action, spare, unfinished }
}

/// What is to be done with the row of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkAction {
    /// There is none: this record shows the blob.
    Insert(Generation),
    /// This record shows it.
    Show(Generation),
    /// Nothing shows it, and live manifests need it, which are to be compared first.
    Await(Vec<Digest>),
    /// Nothing shows it, and live manifests need it: a new record.
    Renew,
    /// Nothing shows it, and what is deleted holds it.
    Hide,
    /// Nothing shows it or refers to it.
    Delete,
}

/// Records of a link against its row. `holders` is what refers to the row; it is looked at only when the row's
/// record is gone.
pub(super) fn link(
    repository: &Name,
    found: &LinkFound,
    row: Option<&LinkFact>,
    holders: Option<&Holders>,
    fate: &Fate,
) -> Judgement<LinkAction, Generation> {
    let key = |generation: &Generation| Key::Link {
        repository: repository.clone(),
        digest: found.digest,
        generation: *generation,
    };
    if found.listed.iter().any(|generation| fate.busy.contains(generation)) {
        return Judgement::Changed;
    }
    // A mount of this epoch decides about its record: it may yet take it back.
    let evidence =
        || found.listed.iter().filter(|generation| !fate.is_left_to_others(&key(generation))).copied();
    let own = row.and_then(|row| row.generation);
    let (kept, action) = match (row, own) {
        (_, Some(own)) if found.listed.contains(&own) || fate.owed(&key(&own)) => (Some(own), None),
        (_, Some(own)) if found.gone.contains(&own) => match evidence().next() {
            Some(other) => (Some(other), Some(LinkAction::Show(other))),
            None => (None, Some(unshown(found, holders))),
        },
        (_, Some(_)) => return Judgement::Changed,
        (Some(_), None) => {
            let shown = evidence().next();
            (shown, shown.map(LinkAction::Show))
        }
        (None, None) => {
            let shown = evidence().next();
            (shown, shown.map(LinkAction::Insert))
        }
    };
    let superfluous = evidence().filter(|other| Some(*other) != kept);
    let (unfinished, spare) = superfluous.partition(|other| fate.uploading.contains(other));
    Judgement::Plan { action, spare, unfinished }
}

/// A link whose record is gone.
fn unshown(found: &LinkFound, holders: Option<&Holders>) -> LinkAction {
    let Some(holders) = holders else { return LinkAction::Await(Vec::new()) };
    match (&holders.live[..], holders.wanted) {
        (live, _) if !live.is_empty() && !found.manifests_compared => LinkAction::Await(live.to_vec()),
        (_, true) => LinkAction::Renew,
        (_, false) if holders.held => LinkAction::Hide,
        _ => LinkAction::Delete,
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;
    use crate::key::Form;

    fn at(n: u64) -> Generation {
        Generation::from_uuid(uuid::Uuid::from_u128(u128::from(n)))
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    fn location(n: u64) -> Location {
        Location { generation: at(n), form: Form::Inline, size: 1 }
    }

    fn data(listed: &[u64], gone: &[u64]) -> BlobFound {
        let locations = |all: &[u64]| all.iter().map(|n| location(*n)).collect();
        BlobFound { digest: digest(), listed: locations(listed), gone: locations(gone), damaged: vec![] }
    }

    fn row(location: Option<Location>) -> BlobFact {
        BlobFact { id: 1, location }
    }

    fn plan<A, S>(action: Option<A>, spare: Vec<S>) -> Judgement<A, S> {
        Judgement::Plan { action, spare, unfinished: vec![] }
    }

    #[test]
    fn data_follows_what_the_bucket_shows() {
        let judged = |found: &BlobFound, row: Option<BlobFact>| blob(found, row.as_ref(), &Fate::default());
        assert!(judged(&data(&[1], &[]), Some(row(Some(location(1))))).stands());
        assert_eq!(judged(&data(&[1], &[]), None), plan(Some(BlobAction::Insert(location(1))), vec![]));
        let moved = plan(Some(BlobAction::Move(location(2))), vec![]);
        assert_eq!(judged(&data(&[2], &[1]), Some(row(Some(location(1))))), moved);
        assert_eq!(judged(&data(&[2], &[]), Some(row(None))), moved);
        let lost = plan(Some(BlobAction::Lose), vec![]);
        assert_eq!(judged(&data(&[], &[1]), Some(row(Some(location(1))))), lost);
        assert!(judged(&data(&[], &[]), Some(row(None))).stands());
        assert!(judged(&data(&[], &[]), None).stands());
        let spares = plan(None, vec![location(1), location(3)]);
        assert_eq!(judged(&data(&[1, 2, 3], &[]), Some(row(Some(location(2))))), spares);
    }

    #[test]
    fn data_that_is_not_listed_is_lost_only_when_it_was_looked_for() {
        assert_eq!(
            blob(&data(&[], &[]), Some(&row(Some(location(1)))), &Fate::default()),
            Judgement::Changed
        );
        assert_eq!(
            blob(&data(&[2], &[3]), Some(&row(Some(location(1)))), &Fate::default()),
            Judgement::Changed
        );
    }

    #[test]
    fn data_whose_removal_is_queued_is_no_evidence_and_that_of_an_open_upload_is_no_spare() {
        let mut fate = Fate::default();
        fate.queued.insert(steps::remove(&location(1).blob_key(digest())));
        assert!(blob(&data(&[1], &[]), None, &fate).stands());
        assert!(blob(&data(&[1], &[]), Some(&row(Some(location(1)))), &fate).stands(), "the row is right");
        fate.uploading.insert(at(3));
        let left = Judgement::Plan { action: None, spare: vec![], unfinished: vec![location(3)] };
        assert_eq!(blob(&data(&[2, 3], &[]), Some(&row(Some(location(2)))), &fate), left);
    }

    #[test]
    fn nothing_is_decided_while_an_upload_that_shows_is_about_to_end() {
        let fate = Fate { busy: HashSet::from([at(1)]), ..Fate::default() };
        assert_eq!(blob(&data(&[1], &[]), None, &fate), Judgement::Changed);
        assert_eq!(
            link(&"a".parse().unwrap(), &links(&[1], &[], false), None, None, &fate),
            Judgement::Changed
        );
    }

    #[test]
    fn the_record_of_a_mount_under_way_shows_nothing_yet() {
        let repository: Name = "a".parse().unwrap();
        let key = Key::Link { repository: repository.clone(), digest: digest(), generation: at(1) };
        let fate = Fate { announced: HashSet::from([key.to_string()]), ..Fate::default() };
        assert!(link(&repository, &links(&[1], &[], false), None, None, &fate).stands());
        let hidden = link_row(None);
        assert!(link(&repository, &links(&[1], &[], false), Some(&hidden), None, &fate).stands());
    }

    fn links(listed: &[u64], gone: &[u64], manifests_compared: bool) -> LinkFound {
        let all = |all: &[u64]| all.iter().map(|n| at(*n)).collect();
        LinkFound {
            digest: digest(),
            listed: all(listed),
            gone: all(gone),
            manifests_compared,
            lacks_data: false,
        }
    }

    fn link_row(generation: Option<u64>) -> LinkFact {
        LinkFact { id: 1, generation: generation.map(at) }
    }

    fn judged(
        found: &LinkFound,
        row: Option<LinkFact>,
        holders: &Holders,
    ) -> Judgement<LinkAction, Generation> {
        link(&"a".parse().unwrap(), found, row.as_ref(), Some(holders), &Fate::default())
    }

    #[test]
    fn a_link_follows_its_records() {
        let nobody = Holders::default();
        assert!(judged(&links(&[1], &[], false), Some(link_row(Some(1))), &nobody).stands());
        let judge = |found: &LinkFound, row| judged(found, row, &nobody);
        assert_eq!(judge(&links(&[1], &[], false), None), plan(Some(LinkAction::Insert(at(1))), vec![]));
        let shown = plan(Some(LinkAction::Show(at(2))), vec![]);
        assert_eq!(judge(&links(&[2], &[1], false), Some(link_row(Some(1)))), shown);
        assert_eq!(judge(&links(&[2], &[], false), Some(link_row(None))), shown);
        assert_eq!(judge(&links(&[], &[], false), Some(link_row(Some(1)))), Judgement::Changed);
        assert!(judge(&links(&[], &[], false), Some(link_row(None))).stands());
        let spare = plan(None, vec![at(2)]);
        assert_eq!(judge(&links(&[1, 2], &[], false), Some(link_row(Some(1)))), spare);
    }

    #[test]
    fn a_link_without_a_record_is_what_those_who_refer_to_it_need() {
        let gone = |compared| links(&[], &[1], compared);
        let live = Holders { live: vec![digest()], wanted: true, held: true };
        let pending = Holders { live: vec![], wanted: true, held: true };
        let trash = Holders { live: vec![], wanted: false, held: true };
        for (holders, compared, action) in [
            (&live, false, LinkAction::Await(vec![digest()])),
            (&live, true, LinkAction::Renew),
            (&pending, false, LinkAction::Renew),
            (&trash, false, LinkAction::Hide),
            (&Holders::default(), false, LinkAction::Delete),
        ] {
            let judged = judged(&gone(compared), Some(link_row(Some(1))), holders);
            assert_eq!(judged, plan(Some(action), vec![]), "{holders:?} {compared}");
        }
    }
}
