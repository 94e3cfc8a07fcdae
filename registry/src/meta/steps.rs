// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What both databases queue: from what a row was to the steps that undo it in the bucket.
//!
//! `+key` writes an empty object, `-key` removes one, `!key id` aborts a multipart upload; in this order. Pure.
//! A record that might be believed is marked before it is removed, so that a listing in between, or a late
//! repetition of its PUT, shows nothing. What is superseded, or below a tombstone, needs no marker.

use stowage_oci::{Digest, Name, Tag};

use super::{
    ExpiredIntent, IntentKind, LedgerRecord, Location, ManifestId, Pinned, Plan, RepositoryId, TagRecord,
};
use crate::key::{Form, Generation, Key, Version};

/// The lane in which the removals of one tag run strictly in the order they were queued.
pub(super) fn lane(repository: &Name, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

/// Writes an empty object.
pub(super) fn write(key: &Key) -> String {
    format!("+{key}")
}

/// Removes an object.
pub(super) fn remove(key: &Key) -> String {
    format!("-{key}")
}

/// Gives a multipart upload up.
fn abort(generation: Generation, id: &str) -> String {
    aborts(&Key::Upload { generation }) + id
}

/// How steps begin that give a multipart upload of an object up.
pub(super) fn aborts(key: &Key) -> String {
    format!("!{key} ")
}

/// The key that a step removes, or whose multipart upload it aborts; `None` for one that writes, or that this
/// version does not know: that is not carried out.
pub(super) fn removed(step: &str) -> Option<Key> {
    let key = step.strip_prefix('-').or_else(|| step.strip_prefix('!')?.split(' ').next());
    key?.parse().ok()
}

/// Takes the data of a blob away: what says that it is there first, the bytes last.
pub(super) fn remove_blob(digest: Digest, location: &Location) -> Vec<String> {
    let mut steps = vec![remove(&location.blob_key(digest))];
    if location.form != Form::Inline {
        steps.push(remove(&location.data_key(digest)));
    }
    steps
}

/// The same for data that is missing: all that its upload can have left.
pub(super) fn remove_absent(
    digest: Digest,
    generation: Generation,
    size: u64,
    tail: Option<u32>,
) -> Vec<String> {
    let forms = match tail {
        Some(lease) => vec![Form::Tail(lease)],
        None => vec![Form::Inline, Form::Upload],
    };
    forms.into_iter().flat_map(|form| remove_blob(digest, &Location { generation, form, size })).collect()
}

/// The empty record that shows a blob to a repository.
pub(super) fn remove_link(repository: &Name, digest: Digest, generation: Generation) -> String {
    remove(&Key::Link { repository: repository.clone(), digest, generation })
}

/// Takes a manifest record back that might be believed.
pub(super) fn withdraw_manifest(
    repository: &Name,
    digest: Digest,
    subject: Option<Digest>,
    generation: Generation,
) -> Vec<String> {
    let marker = Key::ManifestDeleted { repository: repository.clone(), digest, generation };
    let records = records(repository, digest, subject, generation);
    std::iter::once(write(&marker)).chain(records.iter().map(remove)).collect()
}

/// The record of a manifest, then its entry below its subject.
pub(super) fn records(
    repository: &Name,
    digest: Digest,
    subject: Option<Digest>,
    generation: Generation,
) -> Vec<Key> {
    let record = Key::Manifest { repository: repository.clone(), digest, generation };
    let referrer = |subject| Key::Referrer { repository: repository.clone(), subject, digest, generation };
    std::iter::once(record).chain(subject.map(referrer)).collect()
}

/// One record of a tag; without a target it is a tombstone.
pub(super) fn tag_key(
    repository: &Name,
    tag: &Tag,
    version: Version,
    generation: Generation,
    target: Option<Digest>,
) -> Key {
    Key::Tag { repository: repository.clone(), tag: tag.clone(), version, generation, target }
}

/// A record that a push under way is about to give a tag.
pub(super) struct Rival {
    pub(super) generation: Generation,
    pub(super) target: Option<Digest>,
}

impl Rival {
    /// Those of the tag among the keys of intents.
    pub(super) fn of(tag: &Tag, keys: &[String]) -> Vec<Self> {
        let record = |key: &String| match key.parse() {
            Ok(Key::Tag { tag: set, generation, target, .. }) if set == *tag => {
                Some(Self { generation, target })
            }
            _ => None,
        };
        keys.iter().filter_map(record).collect()
    }
}

/// A manifest push: what it writes, and takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Push {
    pub(super) repository_id: RepositoryId,
    pub(super) repository: Name,
    pub(super) manifest: ManifestId,
    pub(super) digest: Digest,
    /// Its own manifest record (and referrer entry), if it writes one.
    pub(super) record: Option<Record>,
    pub(super) tags: Vec<TagRecord>,
    /// The promotion that it carries out, by which it sets its only tag.
    pub(super) ledger: Option<Box<LedgerRecord>>,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// Its manifest is live, and each of its tags names it or something newer, or was deleted since.
    Done,
    /// The same, but for a tag that went with the manifest which it named when the push was placed: the deletion is
    /// the higher of the two, and was not meant for what is pushed. Whoever can, takes all back and begins again
    /// above it.
    Swept,
    /// Its manifest cannot be live; everything that it wrote is queued for removal.
    Withdrawn,
}

/// The manifest record of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) generation: Generation,
    pub(super) subject: Option<Digest>,
}

impl From<&Pinned> for Push {
    fn from(pinned: &Pinned) -> Self {
        let record = Record { generation: pinned.pin.generation, subject: pinned.pin.facts.subject };
        Self {
            repository_id: pinned.repository,
            repository: pinned.pin.repository.clone(),
            manifest: pinned.manifest,
            digest: pinned.pin.facts.digest,
            record: pinned.writes_record.then_some(record),
            tags: pinned.tags.clone(),
            ledger: pinned.pin.ledger.clone(),
        }
    }
}

impl Push {
    /// The push that an intent names by its keys. `None`: they are none of a push, or there are none.
    pub(super) fn intended(
        repository_id: RepositoryId,
        manifest: ManifestId,
        keys: &[Key],
        ledger: Option<Box<LedgerRecord>>,
    ) -> Option<Self> {
        let (mut found, mut tags, mut promotes) = (None, Vec::new(), false);
        let (mut record, mut subject) = (None, None);
        for key in keys {
            let of = match key.clone() {
                Key::Manifest { repository, digest, generation } => {
                    record = Some(generation);
                    (repository, digest)
                }
                Key::Referrer { repository, digest, subject: of, .. } => {
                    subject = Some(of);
                    (repository, digest)
                }
                Key::Tag { repository, tag, version, generation, target: Some(digest) } => {
                    tags.push(TagRecord { tag, version, generation });
                    (repository, digest)
                }
                Key::Ledger { repository, digest, .. } => {
                    promotes = true;
                    (repository, digest)
                }
                _ => return None,
            };
            if found.get_or_insert_with(|| of.clone()) != &of {
                return None;
            }
        }
        let (repository, digest) = found?;
        tags.sort_by(|a, b| a.tag.cmp(&b.tag));
        let record = record.map(|generation| Record { generation, subject });
        let push = Self { repository_id, repository, manifest, digest, record, tags, ledger };
        (promotes == push.ledger.is_some()).then_some(push)
    }

    /// The keys that it writes.
    pub(super) fn keys(&self) -> Vec<Key> {
        let records = self
            .record
            .iter()
            .flat_map(|record| std::iter::once(self.manifest_key(record)).chain(self.referrer_key(record)));
        records.chain(self.tags.iter().map(|record| self.tag_key(record))).chain(self.ledger_key()).collect()
    }

    /// The record of its promotion.
    pub(super) fn ledger_key(&self) -> Option<Key> {
        let (repository, digest) = (self.repository.clone(), self.digest);
        let set = self.tags.first().filter(|_| self.ledger.is_some())?;
        Some(Key::Ledger { repository, digest, version: set.version, generation: set.generation })
    }

    fn manifest_key(&self, record: &Record) -> Key {
        let (repository, digest) = (self.repository.clone(), self.digest);
        Key::Manifest { repository, digest, generation: record.generation }
    }

    /// The entry below its subject.
    pub(super) fn referrer_key(&self, record: &Record) -> Option<Key> {
        let (repository, digest, generation) = (self.repository.clone(), self.digest, record.generation);
        record.subject.map(|subject| Key::Referrer { repository, subject, digest, generation })
    }

    /// The record of one of its tags.
    pub(super) fn tag_key(&self, record: &TagRecord) -> Key {
        tag_key(&self.repository, &record.tag, record.version, record.generation, Some(self.digest))
    }

    /// The lane of one of its tags.
    pub(super) fn lane(&self, record: &TagRecord) -> String {
        lane(&self.repository, &record.tag)
    }

    /// Takes its manifest record back.
    pub(super) fn withdraw_record(&self, record: &Record) -> Vec<String> {
        withdraw_manifest(&self.repository, self.digest, record.subject, record.generation)
    }

    /// Takes a tag record back that might be the highest of its tag.
    pub(super) fn withdraw_tag(&self, record: &TagRecord) -> Vec<String> {
        let withdrawn = Key::TagWithdrawn {
            repository: self.repository.clone(),
            tag: record.tag.clone(),
            version: record.version,
            generation: record.generation,
            target: Some(self.digest),
        };
        vec![write(&withdrawn), remove(&self.tag_key(record))]
    }
}

/// What of a push is in the bucket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// Its writer says: everything.
    All,
    /// These keys.
    Only(&'a [Key]),
}

impl Found<'_> {
    pub(super) fn has(self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }

    /// Whether the push has a manifest record, and it is there.
    pub(super) fn record(self, push: &Push) -> bool {
        push.record.as_ref().is_some_and(|record| self.has(&push.manifest_key(record)))
    }

    /// The referrer entry, if it should be there and is not.
    pub(super) fn lacks_referrer(self, push: &Push) -> Option<Key> {
        let key = push.record.as_ref().and_then(|record| push.referrer_key(record));
        key.filter(|key| !self.has(key))
    }
}

/// What the keys of an expired intent say that it was.
#[derive(Clone, Debug)]
pub(super) enum Intended {
    /// A push that writes something.
    Push(Box<Push>),
    /// The push of a live manifest without a tag: it writes nothing.
    Nothing,
    /// The report of a run, which is not known without its row.
    Run(Key),
    /// The mount of a blob.
    Link { repository_id: RepositoryId, repository: Name, digest: Digest, generation: Generation },
}

impl Intended {
    /// `None`: the keys are none that this version writes for an intent of that kind.
    pub(super) fn by(intent: &ExpiredIntent) -> Option<Self> {
        let keys: Vec<Key> = intent.keys.iter().map(|key| key.parse()).collect::<Result<_, _>>().ok()?;
        match (intent.kind, &keys[..]) {
            (IntentKind::Manifest { .. }, []) => Some(Self::Nothing),
            (IntentKind::Run, [key @ Key::Run { .. }]) => Some(Self::Run(key.clone())),
            (IntentKind::Manifest { repository, manifest }, keys) => {
                Push::intended(repository, manifest, keys, intent.ledger.clone())
                    .map(|push| Self::Push(Box::new(push)))
            }
            (
                IntentKind::Link { repository: repository_id },
                [Key::Link { repository, digest, generation }],
            ) => {
                let (repository, digest, generation) = (repository.clone(), *digest, *generation);
                Some(Self::Link { repository_id, repository, digest, generation })
            }
            _ => None,
        }
    }
}

/// A deleted tag, as its row has it.
#[derive(Clone, Debug)]
pub(super) struct Deleted<'a> {
    pub(super) repository: &'a Name,
    pub(super) tag: &'a Tag,
    /// The tombstone.
    pub(super) tombstone: (Version, Generation),
    /// The record that it hides.
    pub(super) hidden: (Version, Generation),
    /// What that named.
    pub(super) target: Digest,
}

impl Deleted<'_> {
    /// Removes all records of the tag, of which `listed` are in the bucket: the oldest first, the tombstone last,
    /// once more written before, so that at no moment one of them is the highest.
    pub(super) fn purge(&self, listed: &[Key]) -> Vec<String> {
        let key =
            |(version, generation), target| tag_key(self.repository, self.tag, version, generation, target);
        let (tombstone, hidden) = (key(self.tombstone, None), key(self.hidden, Some(self.target)));
        let below = listed.iter().filter_map(|key| match key {
            Key::Tag { repository, tag, version, .. }
                if repository == self.repository && tag == self.tag && *version < self.tombstone.0 =>
            {
                Some((*version, key))
            }
            _ => None,
        });
        let mut below: Vec<_> = below.filter(|(_, key)| **key != hidden).collect();
        below.sort_by_key(|(version, _)| *version);
        let mut steps = vec![write(&tombstone)];
        steps.extend(below.into_iter().map(|(_, key)| remove(key)));
        steps.extend([remove(&hidden), remove(&tombstone)]);
        steps
    }
}

/// What of queued steps a child's marker must not come before: tombstones and markers.
pub(super) fn evidence(steps: Vec<String>) -> impl Iterator<Item = String> {
    steps.into_iter().filter(|step| {
        let key = step.strip_prefix('+').and_then(|key| key.parse().ok());
        matches!(key, Some(Key::ManifestDeleted { .. } | Key::Tag { target: None, .. }))
    })
}

/// Removes, a while after these steps, the markers of records that the steps remove. All that they remove goes
/// once more before: a PUT that was carried out late, or twice, shall not come to life when its marker goes.
pub(super) fn spent_markers(steps: &[String]) -> Vec<Vec<String>> {
    let markers = steps.iter().filter_map(|step| step.strip_prefix('+')?.strip_suffix(".x"));
    let removed = |record: &&str| steps.iter().any(|step| step.strip_prefix('-') == Some(record));
    let removals = || steps.iter().filter(|step| step.starts_with('-')).cloned();
    markers.filter(removed).map(|record| removals().chain([format!("-{record}.x")]).collect()).collect()
}

/// What an upload may have left in the bucket.
#[derive(Clone, Debug)]
pub(super) struct Leftovers {
    /// Its generation.
    pub(super) generation: Generation,
    /// The store's id of the multipart upload that was begun under it.
    pub(super) multipart: Option<String>,
    /// The leases that may have staged something.
    pub(super) leases: Vec<u32>,
    /// How it was to be closed, and in which repository.
    pub(super) plan: Option<(Name, Plan)>,
    /// What a blob row says of this generation by now: that data is live and stays.
    pub(super) kept: Option<Form>,
    /// Whether a link row names the generation by now.
    pub(super) linked: bool,
}

impl Leftovers {
    /// Removes all of it but what became live.
    pub(super) fn steps(&self) -> Vec<String> {
        let generation = self.generation;
        let mut steps = Vec::new();
        if let Some((repository, plan)) = &self.plan {
            if !self.linked {
                steps.push(remove_link(repository, plan.digest, generation));
            }
            if let (Some(form), None) = (plan.form, self.kept) {
                let location = Location { generation, form, size: plan.size };
                steps.push(remove(&location.blob_key(plan.digest)));
            }
        }
        let planned = self.plan.as_ref().and_then(|(_, plan)| plan.form);
        if self.kept != Some(Form::Upload) {
            steps.extend(self.multipart.iter().map(|id| abort(generation, id)));
            if self.multipart.is_some() || planned == Some(Form::Upload) {
                steps.push(remove(&Key::Upload { generation }));
            }
        }
        let mut leases = self.leases.clone();
        // A row that was restored to before its end knows of neither.
        leases.extend(planned.and_then(|form| if let Form::Tail(lease) = form { Some(lease) } else { None }));
        leases.sort_unstable();
        leases.dedup();
        leases.retain(|lease| self.kept != Some(Form::Tail(*lease)));
        steps.extend(leases.into_iter().map(|lease| remove(&Key::UploadTail { generation, lease })));
        steps
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn leftovers(plan: Form) -> Leftovers {
        let plan = Plan { digest: Digest::of(Algorithm::Sha256, b"x"), form: Some(plan), size: 1 };
        Leftovers {
            generation: Generation::at(1),
            multipart: Some("m".to_owned()),
            leases: vec![2, 1, 2],
            plan: Some(("a/b".parse().unwrap(), plan)),
            kept: None,
            linked: false,
        }
    }

    #[test]
    fn of_an_upload_that_ends_nothing_stays() {
        let steps = leftovers(Form::Upload).steps();
        assert_eq!(steps.len(), 6, "{steps:?}");
        assert!(steps.iter().all(|step| removed(step).is_some()));
    }

    #[test]
    fn what_became_live_meanwhile_stays() {
        let live = Leftovers { kept: Some(Form::Tail(2)), linked: true, ..leftovers(Form::Tail(2)) };
        let steps = live.steps();
        assert_eq!(steps.len(), 3, "{steps:?}");
        assert!(
            !steps.iter().any(|step| step.rsplit('.').next() == Some("t2") || step.contains("/~b/")),
            "{steps:?}"
        );
    }

    #[test]
    fn a_link_that_was_all_of_the_plan_goes_alone() {
        let mut link_only = Leftovers { multipart: None, leases: Vec::new(), ..leftovers(Form::Inline) };
        if let Some((_, plan)) = &mut link_only.plan {
            plan.form = None;
        }
        let steps = link_only.steps();
        assert!(matches!(removed(&steps[0]), Some(Key::Link { .. })) && steps.len() == 1, "{steps:?}");
    }

    fn push() -> Push {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let record = |tag: &str, seq| TagRecord {
            tag: tag.parse().unwrap(),
            version: Version { epoch: 1, seq },
            generation: Generation::at(seq),
        };
        Push {
            repository_id: 3,
            repository: "a/b".parse().unwrap(),
            manifest: ManifestId(7),
            digest: digest("m"),
            record: Some(Record { generation: Generation::at(9), subject: Some(digest("s")) }),
            tags: vec![record("one", 1), record("two", 2)],
            ledger: None,
        }
    }

    #[test]
    fn a_push_reads_back_from_the_keys_of_its_intent() {
        for push in [push(), Push { record: None, ..push() }, Push { tags: Vec::new(), ..push() }] {
            let read = Push::intended(push.repository_id, push.manifest, &push.keys(), None);
            assert_eq!(read, Some(push));
        }
        let mut mixed = push().keys();
        mixed.extend(Push { repository: "other".parse().unwrap(), ..push() }.keys());
        assert_eq!(Push::intended(3, ManifestId(7), &mixed, None), None);
    }

    #[test]
    fn markers_are_spent_when_their_record_is_removed() {
        let push = push();
        let steps = push.withdraw_record(push.record.as_ref().unwrap());
        let again = [&steps[1..], &[steps[0].replacen('+', "-", 1)]].concat();
        assert_eq!(spent_markers(&again), [[""; 0]; 0]);
        assert_eq!(spent_markers(&steps), [again], "what came back late goes before it");
        assert_eq!(spent_markers(&steps[..1]), [[""; 0]; 0], "the record is still there");
    }

    #[test]
    fn a_purged_tag_goes_from_the_oldest_record_to_the_tombstone() {
        let (push, version) = (push(), |seq| Version { epoch: 1, seq });
        let record = |seq| {
            tag_key(&push.repository, &push.tags[0].tag, version(seq), Generation::at(1), Some(push.digest))
        };
        let listed = [record(9), record(5), record(2), record(3)];
        let Key::Tag { generation: of_five, .. } = listed[1] else { unreachable!() };
        let deleted = Deleted {
            repository: &push.repository,
            tag: &push.tags[0].tag,
            tombstone: (version(6), Generation::at(6)),
            hidden: (version(5), of_five),
            target: push.digest,
        };
        let steps = deleted.purge(&listed);
        let tombstone = steps[0].replacen('+', "-", 1);
        let expected = [&listed[2], &listed[3], &listed[1]].map(remove);
        assert_eq!(steps[1..4], expected, "what is above the tombstone is not touched");
        assert_eq!(steps[4..], [tombstone]);
    }
}
