// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is to be done about manifests and tags: from what the bucket shows and rows say. Pure.
//!
//! A manifest lives if a record without a marker exists. A tag is its highest record that is not withdrawn and
//! is a tombstone or names a manifest that lives. What is not acknowledged rolls forward if it is whole.

use stowage_oci::{Digest, Name};

use super::plan::Fate;
use super::rows::{Life, ManifestFact, State, TagFact};
use super::{ManifestFound, TagEntry, TagFound};
use crate::key::{Generation, Key, Version};
use crate::meta::steps::tag_key;

/// What is to be done with a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ManifestPlan {
    /// The live row goes to the trash.
    pub(super) trash: Option<Trash>,
    /// This record makes it live.
    pub(super) adopt: Option<Adopt>,
    /// These records are of pushes that were deleted.
    pub(super) bury: Vec<Generation>,
    /// These records are superfluous.
    pub(super) withdraw: Vec<Generation>,
    /// These markers are about nothing.
    pub(super) unmark: Vec<Generation>,
}

/// A live row whose manifest does not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trash {
    pub(super) id: i64,
    /// Its record is missing; else a marker says that it was deleted.
    pub(super) lost: bool,
}

/// A record that becomes the live one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Adopt {
    pub(super) generation: Generation,
    /// A row that a push waits with.
    pub(super) pending: Option<i64>,
}

impl ManifestPlan {
    pub(super) fn stands(&self) -> bool {
        *self == Self::default()
    }
}

fn manifest_key(repository: &Name, digest: Digest, generation: Generation) -> Key {
    Key::Manifest { repository: repository.clone(), digest, generation }
}

fn marker_key(repository: &Name, digest: Digest, generation: Generation) -> Key {
    Key::ManifestDeleted { repository: repository.clone(), digest, generation }
}

/// Records of a manifest against its rows. `None`: a row has changed since it was read, or what the manifest is
/// must be known.
pub(super) fn manifest(
    repository: &Name,
    found: &ManifestFound,
    rows: &[ManifestFact],
    fate: &Fate,
) -> Option<ManifestPlan> {
    let mut plan = ManifestPlan::default();
    let is_known = |generation: &Generation| rows.iter().any(|row| row.generation == Some(*generation));
    let is_marked = |generation: &Generation| found.markers.contains(generation);
    let live = rows.iter().find(|row| row.state == State::Live);
    let mut lives = false;
    if let Some((row, own)) = live.and_then(|row| Some((row, row.generation?))) {
        if is_marked(&own) {
            plan.trash = Some(Trash { id: row.id, lost: false });
        } else if found.records.contains(&own) {
            lives = true;
        } else if found.gone.contains(&own) {
            plan.trash = Some(Trash { id: row.id, lost: true });
        } else {
            return None;
        }
    }
    let key = |generation: &Generation| manifest_key(repository, found.digest, *generation);
    let unknown = found.records.iter().filter(|generation| !is_known(generation));
    let unknown = unknown.filter(|generation| !fate.is_left_to_others(&key(generation)));
    let (marked, mut unmarked): (Vec<Generation>, Vec<Generation>) = unknown.copied().partition(is_marked);
    unmarked.sort_unstable();
    if !lives && let Some(generation) = unmarked.pop() {
        let pending = rows.iter().find(|row| row.state == State::Pending).map(|row| row.id);
        plan.adopt = Some(Adopt { generation, pending });
    }
    plan.withdraw = unmarked;
    plan.bury = marked;
    let is_about_nothing = |generation: &&Generation| {
        let marker = marker_key(repository, found.digest, **generation);
        let is_queued = fate.decided(&marker) || fate.owed(&marker);
        !is_known(generation) && !found.records.contains(generation) && !is_queued
    };
    plan.unmark = found.markers.iter().filter(is_about_nothing).copied().collect();
    let is_new = plan.adopt.is_some_and(|adopt| adopt.pending.is_none()) || !plan.bury.is_empty();
    (found.facts.is_some() || !is_new && plan.withdraw.is_empty()).then_some(plan)
}

/// What a tag's row shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::meta) enum TagSet {
    /// It names a live manifest.
    Live {
        /// The record.
        record: TagEntry,
        /// The manifest's row.
        manifest: i64,
    },
    /// It is deleted.
    Trashed {
        /// The tombstone.
        tombstone: TagEntry,
        /// What it hides.
        hidden: TagEntry,
        /// The row of the manifest that it named.
        manifest: i64,
    },
    /// There is none.
    Gone,
}

/// What is to be done with a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TagPlan {
    pub(super) set: Option<TagSet>,
    /// The row's record was missing.
    pub(super) lost: bool,
    /// The row's tombstone, to be written once more.
    pub(super) owed: Option<TagEntry>,
    /// Superseded records, the lowest first.
    pub(super) remove: Vec<TagEntry>,
    /// Records above the tag's value that name nothing.
    pub(super) withdraw: Vec<TagEntry>,
    /// Markers that are about nothing.
    pub(super) unmark: Vec<TagEntry>,
}

impl TagPlan {
    pub(super) fn stands(&self) -> bool {
        *self == Self::default()
    }
}

fn entry_key(repository: &Name, found: &TagFound, entry: &TagEntry) -> Key {
    tag_key(repository, &found.tag, entry.version, entry.generation, entry.target)
}

/// The marker that withdraws a record.
pub(super) fn withdrawn_key(repository: &Name, found: &TagFound, entry: &TagEntry) -> Key {
    let TagEntry { version, generation, target } = *entry;
    Key::TagWithdrawn { repository: repository.clone(), tag: found.tag.clone(), version, generation, target }
}

/// Records of a tag against its row. `None`: the row has changed since it was read.
pub(super) fn tag(
    repository: &Name,
    found: &TagFound,
    row: Option<&TagFact>,
    life: impl Fn(&Digest) -> Life,
    fate: &Fate,
) -> Option<TagPlan> {
    let key = |entry: &TagEntry| entry_key(repository, found, entry);
    let own = row.map(TagFact::entry);
    let is_gone = own.is_some_and(|own| found.gone.contains(&own));
    // A tombstone follows its row, other than all else: it may have been written since it was looked for. So the row
    // stands, and what it stands for is written once more.
    let is_owed = own.is_some_and(|own| own.target.is_none() && is_gone && !fate.owed(&key(&own)));
    let is_there = own.is_some_and(|own| found.records.contains(&own) || fate.owed(&key(&own)) || is_owed);
    let is_gone = is_gone && !is_owed;
    if own.is_some() && !is_there && !is_gone {
        return None;
    }
    let mut records: Vec<TagEntry> = found.records.clone();
    records.retain(|entry| !fate.is_left_to_others(&key(entry)));
    // The highest first.
    records.sort_unstable_by(|a, b| b.cmp(a));
    let (withdrawn, records): (Vec<TagEntry>, Vec<TagEntry>) =
        records.into_iter().partition(|entry| found.withdrawn.contains(entry));
    let is_valid = |entry: &&TagEntry| entry.target.is_none_or(|target| life(&target).is_live());
    let top = records.iter().find(is_valid).copied();

    let mut plan =
        TagPlan { lost: is_gone && top.is_none(), owed: own.filter(|_| is_owed), ..TagPlan::default() };
    let standing = own.filter(|_| is_there);
    let standing_version = standing.map(|entry| entry.version);
    match top {
        Some(top) if standing_version.is_none_or(|version| version < top.version) => {
            plan.owed = None;
            plan.set = raised(top, &records, &life, own.is_some());
        }
        None if is_gone => plan.set = Some(TagSet::Gone),
        _ => {}
    }
    let kept = kept(&plan, standing, row);
    let limit: Option<Version> = top.map(|top| top.version).max(standing_version);
    for entry in records.iter().rev().filter(|entry| !kept.contains(entry)) {
        if limit.is_some_and(|limit| entry.version <= limit) {
            plan.remove.push(*entry);
        } else {
            plan.withdraw.push(*entry);
        }
    }
    plan.remove.extend(withdrawn.iter().filter(|entry| !kept.contains(entry)));
    let is_about_nothing = |entry: &&TagEntry| {
        let marker = withdrawn_key(repository, found, entry);
        let is_queued = fate.decided(&marker) || fate.owed(&marker);
        !found.records.contains(entry) && !is_queued
    };
    plan.unmark = found.withdrawn.iter().filter(is_about_nothing).copied().collect();
    Some(plan)
}

/// The row for a record that is higher than what the row says.
fn raised(
    top: TagEntry,
    records: &[TagEntry],
    life: &impl Fn(&Digest) -> Life,
    has_row: bool,
) -> Option<TagSet> {
    if let Some(target) = top.target {
        return life(&target).row().map(|manifest| TagSet::Live { record: top, manifest });
    }
    let mut below = records.iter().filter(|entry| entry.version < top.version);
    let hidden = below.find_map(|entry| Some((*entry, life(&entry.target?).row()?)));
    match hidden {
        Some((hidden, manifest)) => Some(TagSet::Trashed { tombstone: top, hidden, manifest }),
        None if has_row => Some(TagSet::Gone),
        None => None,
    }
}

/// The records that the row will stand for.
fn kept(plan: &TagPlan, standing: Option<TagEntry>, row: Option<&TagFact>) -> Vec<TagEntry> {
    match plan.set {
        Some(TagSet::Live { record, .. }) => vec![record],
        Some(TagSet::Trashed { tombstone, hidden, .. }) => vec![tombstone, hidden],
        Some(TagSet::Gone) => Vec::new(),
        None => standing.into_iter().chain(row.and_then(TagFact::hidden_entry)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;
    use crate::meta::steps::{remove, write};

    fn at(n: u64) -> Generation {
        Generation::from_uuid(uuid::Uuid::from_u128(u128::from(n)))
    }

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn repository() -> Name {
        "a/b".parse().unwrap()
    }

    fn manifests(records: &[u64], markers: &[u64], gone: &[u64]) -> ManifestFound {
        let all = |all: &[u64]| all.iter().map(|n| at(*n)).collect();
        let facts = crate::meta::ManifestFacts {
            digest: digest("m"),
            media_type: String::new(),
            artifact_type: None,
            subject: None,
            annotations: None,
            size: 1,
            body: None,
            blobs: vec![],
            children: vec![],
        };
        ManifestFound {
            digest: digest("m"),
            records: all(records),
            markers: all(markers),
            gone: all(gone),
            damaged: vec![],
            facts: Some(facts),
            owes_referrer: false,
        }
    }

    fn row(id: i64, state: State, generation: Option<u64>) -> ManifestFact {
        ManifestFact { id, digest: digest("m"), state, generation: generation.map(at) }
    }

    fn judged(found: &ManifestFound, rows: &[ManifestFact]) -> Option<ManifestPlan> {
        manifest(&repository(), found, rows, &Fate::default())
    }

    fn plan() -> ManifestPlan {
        ManifestPlan::default()
    }

    #[test]
    fn a_manifest_lives_by_a_record_without_a_marker() {
        let live = [row(7, State::Live, Some(1))];
        assert_eq!(judged(&manifests(&[1], &[], &[]), &live), Some(plan()));
        let adopt = Some(Adopt { generation: at(2), pending: None });
        assert_eq!(
            judged(&manifests(&[1, 2], &[], &[]), &[]),
            Some(ManifestPlan { adopt, withdraw: vec![at(1)], ..plan() })
        );
        let pending = Some(Adopt { generation: at(2), pending: Some(9) });
        assert_eq!(
            judged(&manifests(&[2], &[], &[]), &[row(9, State::Pending, None)]),
            Some(ManifestPlan { adopt: pending, ..plan() })
        );
    }

    #[test]
    fn a_marker_or_a_missing_record_sends_the_row_to_the_trash_and_another_record_makes_a_new_one() {
        let live = [row(7, State::Live, Some(1))];
        let deleted = Some(Trash { id: 7, lost: false });
        assert_eq!(
            judged(&manifests(&[1], &[1], &[]), &live),
            Some(ManifestPlan { trash: deleted, ..plan() })
        );
        let lost = Some(Trash { id: 7, lost: true });
        assert_eq!(judged(&manifests(&[], &[], &[1]), &live), Some(ManifestPlan { trash: lost, ..plan() }));
        assert_eq!(judged(&manifests(&[], &[], &[]), &live), None, "it was not looked for");
        let adopt = Some(Adopt { generation: at(2), pending: None });
        assert_eq!(
            judged(&manifests(&[1, 2], &[1], &[]), &live),
            Some(ManifestPlan { trash: deleted, adopt, ..plan() })
        );
    }

    #[test]
    fn a_deleted_push_that_no_row_knows_is_buried_and_a_marker_about_nothing_goes() {
        assert_eq!(
            judged(&manifests(&[1], &[1, 2], &[]), &[]),
            Some(ManifestPlan { bury: vec![at(1)], unmark: vec![at(2)], ..plan() })
        );
        let known = [row(3, State::Trashed, Some(1)), row(4, State::Doomed, Some(2))];
        assert_eq!(judged(&manifests(&[1, 2], &[1, 2], &[]), &known), Some(plan()));
    }

    #[test]
    fn what_a_queue_or_an_open_push_has_decided_is_left_to_it() {
        let key = manifest_key(&repository(), digest("m"), at(1));
        let mut fate = Fate::default();
        fate.queued.insert(remove(&key));
        let found = manifests(&[1], &[], &[]);
        assert_eq!(manifest(&repository(), &found, &[], &fate), Some(plan()));
        let mut fate = Fate::default();
        fate.announced.insert(key.to_string());
        assert_eq!(manifest(&repository(), &found, &[], &fate), Some(plan()));
        let unread = ManifestFound { facts: None, ..found };
        assert_eq!(judged(&unread, &[]), None, "what it is must be known");
    }

    fn version(seq: u64) -> Version {
        Version { epoch: 1, seq }
    }

    /// The record `seq` of the tag, naming `target`; without one, a tombstone.
    fn entry(seq: u64, target: &str) -> TagEntry {
        let target = (!target.is_empty()).then(|| digest(target));
        TagEntry { version: version(seq), generation: at(seq), target }
    }

    fn tags(records: &[TagEntry]) -> TagFound {
        TagFound { tag: "v1".parse().unwrap(), records: records.to_vec(), withdrawn: vec![], gone: vec![] }
    }

    fn tag_row(record: TagEntry, hidden: Option<TagEntry>, target: &str) -> TagFact {
        TagFact {
            tag: "v1".parse().unwrap(),
            target: digest(target),
            version: record.version,
            generation: record.generation,
            hidden: hidden.map(|hidden| (hidden.version, hidden.generation)),
        }
    }

    /// `live` live, `old` in the trash, all else unknown.
    fn life(target: &Digest) -> Life {
        if *target == digest("live") {
            Life::Live(1)
        } else if *target == digest("old") {
            Life::Trashed(2)
        } else {
            Life::None
        }
    }

    fn tag_plan(found: &TagFound, row: Option<&TagFact>) -> Option<TagPlan> {
        tag(&repository(), found, row, life, &Fate::default())
    }

    #[test]
    fn a_tag_is_its_highest_record_that_names_what_lives() {
        let (high, low) = (entry(9, "live"), entry(5, "live"));
        let nothing = entry(12, "never came");
        let set = Some(TagSet::Live { record: high, manifest: 1 });
        let found = tags(&[nothing, high, low]);
        let expected = TagPlan { set, remove: vec![low], withdraw: vec![nothing], ..TagPlan::default() };
        assert_eq!(tag_plan(&found, None), Some(expected.clone()));
        assert_eq!(tag_plan(&found, Some(&tag_row(low, None, "live"))), Some(expected));
        let stands = tag_plan(&tags(&[high]), Some(&tag_row(high, None, "live"))).unwrap();
        assert!(stands.stands());
    }

    #[test]
    fn a_tombstone_hides_what_is_below_it_and_nothing_below_leaves_no_row() {
        let (tombstone, old, older) = (entry(9, ""), entry(5, "old"), entry(3, "live"));
        let set = Some(TagSet::Trashed { tombstone, hidden: old, manifest: 2 });
        assert_eq!(
            tag_plan(&tags(&[tombstone, old, older]), None),
            Some(TagPlan { set, remove: vec![older], ..TagPlan::default() })
        );
        let below = entry(4, "never came");
        assert_eq!(
            tag_plan(&tags(&[tombstone, below]), None),
            Some(TagPlan { remove: vec![below, tombstone], ..TagPlan::default() }),
            "the tombstone goes last"
        );
        let row = tag_row(tombstone, Some(old), "old");
        assert!(tag_plan(&tags(&[tombstone, old]), Some(&row)).unwrap().stands());
        // The deletion was lost with the database: it stays deleted.
        let set = Some(TagSet::Trashed { tombstone, hidden: entry(5, "live"), manifest: 1 });
        let found = tags(&[tombstone, entry(5, "live")]);
        assert_eq!(
            tag_plan(&found, Some(&tag_row(entry(5, "live"), None, "live"))),
            Some(TagPlan { set, ..TagPlan::default() })
        );
    }

    #[test]
    fn a_row_whose_record_is_gone_follows_the_bucket_and_one_that_was_not_looked_for_stays() {
        let (own, low) = (entry(9, "live"), entry(5, "live"));
        let row = tag_row(own, None, "live");
        assert_eq!(tag_plan(&tags(&[low]), Some(&row)), None);
        let found = TagFound { gone: vec![own], ..tags(&[low]) };
        let set = Some(TagSet::Live { record: low, manifest: 1 });
        assert_eq!(tag_plan(&found, Some(&row)), Some(TagPlan { set, ..TagPlan::default() }));
        let found = TagFound { gone: vec![own], ..tags(&[]) };
        let gone = TagPlan { set: Some(TagSet::Gone), lost: true, ..TagPlan::default() };
        assert_eq!(tag_plan(&found, Some(&row)), Some(gone));
        // A deletion that was not carried out yet: the bucket is owed the tombstone.
        let tombstone = entry(11, "");
        let row = tag_row(tombstone, Some(own), "live");
        // Or it was carried out since it was looked for.
        let unseen = TagFound { gone: vec![tombstone], ..tags(&[own]) };
        let owed = TagPlan { owed: Some(tombstone), ..TagPlan::default() };
        assert_eq!(tag_plan(&unseen, Some(&row)), Some(owed));
        let mut fate = Fate::default();
        fate.queued.insert(write(&entry_key(&repository(), &found, &tombstone)));
        assert!(tag(&repository(), &tags(&[own]), Some(&row), life, &fate).unwrap().stands());
    }

    #[test]
    fn a_withdrawn_record_names_nothing_and_its_marker_goes_after_it() {
        let (high, low) = (entry(9, "live"), entry(5, "live"));
        let found = TagFound { withdrawn: vec![high], ..tags(&[high, low]) };
        let set = Some(TagSet::Live { record: low, manifest: 1 });
        assert_eq!(tag_plan(&found, None), Some(TagPlan { set, remove: vec![high], ..TagPlan::default() }));
        let found = TagFound { withdrawn: vec![high], ..tags(&[low]) };
        assert_eq!(
            tag_plan(&found, Some(&tag_row(low, None, "live"))),
            Some(TagPlan { unmark: vec![high], ..TagPlan::default() })
        );
    }
}
