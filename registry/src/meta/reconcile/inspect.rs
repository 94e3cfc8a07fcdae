// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Looking for damage within a transaction: what a comparison would settle in a database that is not trusted is
//! wrong in one that is.
//!
//! A row whose object is gone is a finding at once: rows follow objects, so it was lost or damaged behind our
//! back. An object without a row is one when it was first seen a week ago: until then somebody may be at it.
//! Repairs, in the same transaction: a record is written again under a new generation, data becomes absent, what
//! a comparison would discard is queued. What a comparison would *adopt* is only told, and of such a name nothing
//! is discarded either: that is decided by the rules of a rebuild, or not at all.
//!
//! Never: adopts, removes an object, touches a name of which something was lost in more than one way at a time.

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use super::apply::{self, Suspects, entry_key, errand, link_key};
use super::plan::{self, BlobAction, Judgement, LinkAction};
use super::plan_records::{ManifestPlan, TagPlan, TagSet, withdrawn_key};
use super::rows::{BlobFact, LinkFact, Owed, Rows, State, TagFact};
use super::{
    BlobFound, Damage, Difference, LedgerFound, LinkFound, MARKER_AGE, ManifestFound, Mode, MultipartFound,
    Outcome, ReferrersFound, Scope, Settled, TagEntry, TagFound, UploadFound,
};
use crate::key::{Generation, Key};
use crate::meta::{Location, steps};
use crate::ops::clock;

/// For how long an object without a row is left alone.
const ORPHAN_AGE: Duration = Duration::from_hours(7 * 24);
/// For how long a multipart upload without a row is left alone.
const MULTIPART_AGE: Duration = Duration::from_hours(2 * 24);

/// A kind of what can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// A row without its object.
    Missing,
    /// An object of another length than its key or its row says.
    WrongLength,
    /// An object of another content than its digest says.
    WrongContent,
    /// A live manifest whose record is marked as deleted: by a request of a database that is lost.
    Marked,
    /// An object without a row, which a rebuild would believe.
    Unknown,
    /// An object without a row, which a rebuild would discard.
    Spare,
    /// An object that is not of this layout.
    Foreign,
    /// A multipart upload that the store keeps open and no upload of ours needs.
    Multipart,
}

impl Problem {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::WrongLength,
        Self::WrongContent,
        Self::Marked,
        Self::Unknown,
        Self::Spare,
        Self::Foreign,
        Self::Multipart,
    ];

    /// As metrics and summaries name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongLength => "wrong_length",
            Self::WrongContent => "wrong_content",
            Self::Marked => "marked",
            Self::Unknown => "unknown",
            Self::Spare => "spare",
            Self::Foreign => "foreign",
            Self::Multipart => "multipart",
        }
    }
}

impl From<Damage> for Problem {
    fn from(damage: Damage) -> Self {
        match damage {
            Damage::Missing => Self::Missing,
            Damage::Length => Self::WrongLength,
            Damage::Content => Self::WrongContent,
        }
    }
}

/// Something that is wrong, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// The object.
    pub key: String,
    /// Whether it was put right, as far as that can be.
    pub repaired: bool,
}

impl Finding {
    /// An object that is not of this layout.
    #[must_use]
    pub fn foreign(key: &str) -> Self {
        Self { problem: Problem::Foreign, key: key.to_owned(), repaired: false }
    }

    /// Whether it is about an object without a row: it may be gone by now.
    #[must_use]
    pub const fn is_orphan(&self) -> bool {
        matches!(self.problem, Problem::Unknown | Problem::Spare)
    }
}

/// A live manifest whose record is to be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The manifest.
    pub digest: Digest,
    /// The generation of the record that was lost or is damaged.
    pub generation: Generation,
    /// What is wrong with it.
    pub problem: Problem,
}

/// An object without a row.
struct Orphan {
    key: Key,
    problem: Problem,
    discard: Discard,
}

/// How an orphan goes.
enum Discard {
    /// It stays.
    No,
    /// Its removal is queued.
    Queue(Owed),
    /// The same; it might be believed one day, so that it is marked at once.
    Withdraw(Owed),
}

impl Orphan {
    fn unknown(key: Key) -> Self {
        Self { key, problem: Problem::Unknown, discard: Discard::No }
    }

    fn spare(key: Key, steps: Vec<String>, after: Duration) -> Self {
        Self {
            key,
            problem: Problem::Spare,
            discard: Discard::Queue(Owed { steps, after, ..Owed::default() }),
        }
    }
}

/// Inspects a difference.
pub(super) async fn inspect<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    difference: &Difference<'_>,
) -> Result<Outcome, R::Fault> {
    let mut inspection = Inspection { rows, scope, settled: Settled::default(), orphans: Vec::new() };
    match *difference {
        Difference::Blobs(found) => inspection.blobs(found).await?,
        Difference::Links(repository, found) => inspection.links(repository, found).await?,
        Difference::Manifests(repository, found) => inspection.manifests(repository, found).await?,
        Difference::Referrers(repository, found) => inspection.referrers(repository, found).await?,
        Difference::Tags(repository, found) => inspection.tags(repository, found).await?,
        Difference::Ledger(repository, found) => inspection.ledger(repository, found).await?,
        Difference::Uploads(found) => inspection.uploads(found).await?,
        Difference::Multiparts(found) => inspection.multiparts(found).await?,
    }
    inspection.judge_orphans().await?;
    Ok(Outcome::Settled(inspection.settled))
}

struct Inspection<'a, R> {
    rows: &'a mut R,
    scope: &'a Scope,
    settled: Settled,
    orphans: Vec<Orphan>,
}

impl<R: Rows> Inspection<'_, R> {
    fn repairs(&self) -> bool {
        self.scope.mode == Mode::Repair
    }

    fn find(&mut self, problem: Problem, key: &Key) {
        let repaired = self.repairs();
        self.settled.findings.push(Finding { problem, key: key.to_string(), repaired });
    }

    /// Those that were seen long ago are findings.
    async fn judge_orphans(&mut self) -> Result<(), R::Fault> {
        let orphans = std::mem::take(&mut self.orphans);
        if orphans.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = orphans.iter().map(|orphan| orphan.key.to_string()).collect();
        let old = self.rows.orphans(&keys, ORPHAN_AGE).await?;
        for (Orphan { problem, discard, .. }, key) in orphans.into_iter().zip(keys) {
            if !old.contains(&key) {
                continue;
            }
            let repaired = self.repairs() && !matches!(discard, Discard::No);
            self.settled.findings.push(Finding { problem, key, repaired });
            if !repaired {
                continue;
            }
            match discard {
                Discard::No => {}
                Discard::Queue(owed) => drop(self.rows.owe(owed).await?),
                Discard::Withdraw(owed) => apply::withdraw(self.rows, &mut self.settled, owed).await?,
            }
        }
        Ok(())
    }

    async fn blobs(&mut self, found: &[BlobFound]) -> Result<(), R::Fault> {
        let suspects = apply::suspect_blobs(self.rows, self.scope, found).await?;
        let Some(Suspects { at, facts, fate }) = suspects else { return Ok(()) };
        for at in at {
            let (found, fact) = (&found[at], facts.get(&found[at].digest));
            let Judgement::Plan { action, spare, .. } = plan::blob(found, fact, &fate) else {
                self.settled.again.push(at);
                continue;
            };
            let own = fact.and_then(|fact| fact.location.map(|location| (fact, location)));
            match (action, own) {
                (Some(BlobAction::Lose | BlobAction::Move(_)), Some((fact, own))) => {
                    self.lose_blob(found, fact, own).await?;
                }
                (Some(BlobAction::Insert(other) | BlobAction::Move(other)), _) => {
                    self.orphans.push(Orphan::unknown(other.blob_key(found.digest)));
                }
                _ => {
                    let spare = spare.iter().map(|other| (other, Problem::Spare));
                    let damaged = found.damaged.iter().filter(|(other, _)| {
                        let is_own = own.is_some_and(|(_, own)| own == *other);
                        let is_open = fate.uploading.contains(&other.generation);
                        !is_own && !is_open && !fate.decided(&other.blob_key(found.digest))
                    });
                    let damaged = damaged.map(|(other, damage)| (other, Problem::from(*damage)));
                    for (other, problem) in spare.chain(damaged).collect::<Vec<_>>() {
                        self.spare_blob(found.digest, other, problem);
                    }
                }
            }
        }
        Ok(())
    }

    fn spare_blob(&mut self, digest: Digest, location: &Location, problem: Problem) {
        let steps = steps::remove_blob(digest, location);
        let orphan = Orphan::spare(location.blob_key(digest), steps, self.scope.retain);
        // A pointer to nothing has no row to miss it.
        let problem = if problem == Problem::Missing { Problem::Spare } else { problem };
        self.orphans.push(Orphan { problem, ..orphan });
    }

    /// The data of a row is gone or damaged: it becomes absent, which the next push heals.
    async fn lose_blob(&mut self, found: &BlobFound, fact: &BlobFact, own: Location) -> Result<(), R::Fault> {
        let damage = found.damaged.iter().find(|(other, _)| *other == own);
        let problem = damage.map_or(Problem::Missing, |(_, damage)| Problem::from(*damage));
        self.find(problem, &own.blob_key(found.digest));
        if self.repairs() {
            self.rows.set_blobs(&[(fact.id, None)]).await?;
            // What says that it is there must not be believed by a rebuild.
            let steps = steps::remove_blob(found.digest, &own);
            self.rows.owe(Owed { steps, after: self.scope.retain, ..Owed::default() }).await?;
        }
        Ok(())
    }

    async fn links(&mut self, repository: &Name, found: &[LinkFound]) -> Result<(), R::Fault> {
        let repo_id = self.rows.repository_row(repository, false).await?;
        let place = (repo_id, repository);
        let suspects = apply::suspect_links(self.rows, self.scope, place, found).await?;
        let Some(Suspects { at, facts, fate }) = suspects else { return Ok(()) };
        for at in at {
            let (found, fact) = (&found[at], facts.get(&found[at].digest));
            let judged = plan::link(repository, found, fact, None, &fate);
            let Judgement::Plan { action, spare, .. } = judged else {
                self.settled.again.push(at);
                continue;
            };
            let key = |generation| link_key(repository, found.digest, generation);
            let own = fact.and_then(|fact| fact.generation.map(|own| (fact, own)));
            match (action, own) {
                (Some(LinkAction::Insert(other)), _) if found.lacks_data => self.spare_link(key(other)),
                (Some(LinkAction::Insert(other) | LinkAction::Show(other)), None) => {
                    self.orphans.push(Orphan::unknown(key(other)));
                }
                (Some(_), Some((fact, own))) => self.renew_link(&key(own), fact, &key).await?,
                _ => spare.into_iter().for_each(|other| self.spare_link(key(other))),
            }
        }
        Ok(())
    }

    fn spare_link(&mut self, key: Key) {
        let steps = vec![steps::remove(&key)];
        self.orphans.push(Orphan::spare(key, steps, self.scope.retain));
    }

    async fn renew_link(
        &mut self,
        lost: &Key,
        fact: &LinkFact,
        key: &impl Fn(Generation) -> Key,
    ) -> Result<(), R::Fault> {
        self.find(Problem::Missing, lost);
        if self.repairs() {
            let generation = Generation::at(clock::milliseconds());
            self.rows.set_links(&[(fact.id, Some(generation))]).await?;
            errand(self.rows, &mut self.settled, vec![steps::write(&key(generation))]).await?;
        }
        Ok(())
    }

    async fn manifests(&mut self, repository: &Name, found: &[ManifestFound]) -> Result<(), R::Fault> {
        let repo_id = self.rows.repository_row(repository, false).await?;
        let place = (repo_id, repository);
        let suspects = apply::suspect_manifests(self.rows, self.scope, place, found).await?;
        let Some(Suspects { at, facts, fate }) = suspects else { return Ok(()) };
        for at in at {
            let found = &found[at];
            let Some(plan) = apply::plan_manifest(repository, found, &facts, &fate) else {
                self.settled.again.push(at);
                continue;
            };
            let live = facts.get(&found.digest).into_iter().flatten().find(|row| row.state == State::Live);
            let own = live.and_then(|row| row.generation);
            if let (Some(generation), Some(trash)) = (own, plan.trash) {
                let damage = found.damaged.iter().find(|(other, _)| *other == generation);
                let problem = match damage {
                    Some((_, damage)) => Problem::from(*damage),
                    None if trash.lost => Problem::Missing,
                    None => Problem::Marked,
                };
                self.settled.restores.push(Restore { digest: found.digest, generation, problem });
                continue;
            }
            self.spare_manifests(repository, found, &plan, own);
        }
        Ok(())
    }

    fn spare_manifests(
        &mut self,
        repository: &Name,
        found: &ManifestFound,
        plan: &ManifestPlan,
        own: Option<Generation>,
    ) {
        let digest = found.digest;
        let record = |generation| Key::Manifest { repository: repository.clone(), digest, generation };
        let marker = |generation| Key::ManifestDeleted { repository: repository.clone(), digest, generation };
        let adopted = plan.adopt.map(|adopt| record(adopt.generation));
        let buried = plan.bury.iter().map(|generation| record(*generation));
        let unknown: Vec<Key> = adopted.into_iter().chain(buried).collect();
        let is_unknown = !unknown.is_empty();
        self.orphans.extend(unknown.into_iter().map(Orphan::unknown));
        for (generation, damage) in found.damaged.iter().filter(|(generation, _)| Some(*generation) != own) {
            // Nobody can tell what it was: it is left alone.
            let (key, problem) = (record(*generation), Problem::from(*damage));
            self.orphans.push(Orphan { key, problem, discard: Discard::No });
        }
        if is_unknown {
            return;
        }
        if let Some(facts) = &found.facts {
            for generation in &plan.withdraw {
                let steps = steps::withdraw_manifest(repository, digest, facts.subject, *generation);
                let discard = Discard::Withdraw(Owed { steps, ..Owed::default() });
                self.orphans.push(Orphan { key: record(*generation), problem: Problem::Spare, discard });
            }
        }
        for generation in &plan.unmark {
            let key = marker(*generation);
            let steps = vec![steps::remove(&key)];
            self.orphans.push(Orphan::spare(key, steps, MARKER_AGE));
        }
    }

    async fn tags(&mut self, repository: &Name, found: &[TagFound]) -> Result<(), R::Fault> {
        let repo_id = self.rows.repository_row(repository, false).await?;
        let place = (repo_id, repository);
        let suspects = apply::suspect_tags(self.rows, self.scope, place, found).await?;
        let Some(Suspects { at, facts, fate }) = suspects else { return Ok(()) };
        for at in at {
            let found = &found[at];
            let Some(plan) = apply::plan_tag(repository, found, &facts, &fate) else {
                self.settled.again.push(at);
                continue;
            };
            let own = facts.1.get(&found.tag).map(TagFact::entry);
            let lost = own.filter(|own| {
                let key = entry_key(repository, &found.tag, own);
                !found.records.contains(own) && found.gone.contains(own) && !fate.owed(&key)
            });
            match (lost, repo_id) {
                (Some(lost), Some(repo_id)) => self.renew_tag(repo_id, repository, &found.tag, lost).await?,
                _ => self.spare_tags(repository, found, &plan),
            }
        }
        Ok(())
    }

    /// The record of a tag is written again at the same place. So is its tombstone, under the same key: it may just
    /// have been written.
    async fn renew_tag(
        &mut self,
        repo_id: i32,
        repository: &Name,
        tag: &Tag,
        lost: TagEntry,
    ) -> Result<(), R::Fault> {
        self.find(Problem::Missing, &entry_key(repository, tag, &lost));
        if self.repairs() {
            let mut entry = lost;
            if lost.target.is_some() {
                entry.generation = Generation::at(clock::milliseconds());
                self.rows.renew_tag(repo_id, tag, entry.generation).await?;
            }
            let steps = vec![steps::write(&entry_key(repository, tag, &entry))];
            let lane = Some(steps::lane(repository, tag));
            let outbox = self.rows.owe(Owed { steps: steps.clone(), lane, ..Owed::default() }).await?;
            self.settled.errands.push(crate::meta::Removal { outbox, steps });
        }
        Ok(())
    }

    fn spare_tags(&mut self, repository: &Name, found: &TagFound, plan: &TagPlan) {
        let key = |entry: &TagEntry| entry_key(repository, &found.tag, entry);
        let marker = |entry: &TagEntry| withdrawn_key(repository, found, entry);
        let lane = || Some(steps::lane(repository, &found.tag));
        if let Some(set) = plan.set {
            let higher = match set {
                TagSet::Live { record, .. } => Some(record),
                TagSet::Trashed { tombstone, .. } => Some(tombstone),
                TagSet::Gone => found.records.iter().max().copied(),
            };
            self.orphans.extend(higher.map(|entry| Orphan::unknown(key(&entry))));
            return;
        }
        for entry in &plan.withdraw {
            let steps = vec![steps::write(&marker(entry)), steps::remove(&key(entry))];
            let discard = Discard::Withdraw(Owed { steps, lane: lane(), ..Owed::default() });
            self.orphans.push(Orphan { key: key(entry), problem: Problem::Spare, discard });
        }
        for entry in &plan.remove {
            let owed = Owed {
                steps: vec![steps::remove(&key(entry))],
                lane: lane(),
                after: self.scope.retain,
                ..Owed::default()
            };
            let discard = Discard::Queue(owed);
            self.orphans.push(Orphan { key: key(entry), problem: Problem::Spare, discard });
        }
        for entry in &plan.unmark {
            let steps = vec![steps::remove(&marker(entry))];
            self.orphans.push(Orphan::spare(marker(entry), steps, MARKER_AGE));
        }
    }

    async fn referrers(&mut self, repository: &Name, found: &[ReferrersFound]) -> Result<(), R::Fault> {
        let (spare, owed) = apply::judge_referrers(self.rows, self.scope, repository, found).await?;
        for key in spare {
            let steps = vec![steps::remove(&key)];
            self.orphans.push(Orphan::spare(key, steps, self.scope.retain));
        }
        for key in &owed {
            self.find(Problem::Missing, key);
        }
        if self.repairs() {
            errand(self.rows, &mut self.settled, owed.iter().map(steps::write).collect()).await?;
        }
        Ok(())
    }

    /// Of a promotion nothing is put right: what it was decided by is told by its record or not at all.
    async fn ledger(&mut self, repository: &Name, found: &LedgerFound) -> Result<(), R::Fault> {
        for (claim, _) in apply::unclaimed(self.rows, self.scope, repository, found).await? {
            self.orphans.push(Orphan::unknown(apply::ledger_key(repository, &claim)));
        }
        let lost = found.gone.iter().map(|claim| apply::ledger_key(repository, claim).to_string());
        let finding = |key| Finding { problem: Problem::Missing, key, repaired: false };
        self.settled.findings.extend(lost.map(finding));
        Ok(())
    }

    async fn uploads(&mut self, found: &[UploadFound]) -> Result<(), R::Fault> {
        for key in apply::spare_uploads(self.rows, self.scope, found).await? {
            let steps = vec![steps::remove(&key)];
            self.orphans.push(Orphan::spare(key, steps, self.scope.retain));
        }
        Ok(())
    }

    async fn multiparts(&mut self, found: &[MultipartFound]) -> Result<(), R::Fault> {
        let generations: Vec<Generation> = found.iter().map(|found| found.generation).collect();
        let used = self.rows.uploading(&generations).await?;
        let texts: Vec<String> = found.iter().map(MultipartFound::text).collect();
        let aborts: Vec<String> =
            found.iter().map(|found| format!("!{} {}", found.key(), found.id)).collect();
        let decided = self.rows.queued(&aborts).await?;
        let is_unused =
            |at: &usize| !used.contains(&found[*at].generation) && !decided.contains(&aborts[*at]);
        let unused: Vec<usize> = (0..found.len()).filter(is_unused).collect();
        let keys: Vec<String> = unused.iter().map(|at| texts[*at].clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let old = self.rows.orphans(&keys, MULTIPART_AGE).await?;
        for at in unused.into_iter().filter(|at| old.contains(&texts[*at])) {
            self.find(Problem::Multipart, &found[at].key());
            if self.repairs() {
                self.settled.aborts.push(at);
            }
        }
        Ok(())
    }
}

impl MultipartFound {
    /// What [`orphans`](Rows::orphans) of this kind begin with: no key does.
    pub const PREFIX: &'static str = "multipart:";

    /// The object that it would become.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::Upload { generation: self.generation }
    }

    fn text(&self) -> String {
        format!("{}{} {}", Self::PREFIX, self.key(), self.id)
    }
}
