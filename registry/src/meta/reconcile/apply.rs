// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Settling a difference within a transaction: what both databases do, in which order.
//!
//! First without locks, as mostly nothing differs; what does is read again under lock, with what the queues say
//! of its keys, and only that second plan is carried out. Lock order: manifests, tags, blobs, links.
//! A row that is not there cannot be locked: whoever finds that somebody else has inserted it meanwhile, perhaps by
//! another listing, knows nothing, and compares the name again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use super::inspect;
use super::plan::{BlobAction, Fate, Judgement, LinkAction, blob, link};
use super::plan_records::{self, ManifestPlan, TagPlan, TagSet};
use super::{
    BlobFound, Difference, Kind, LinkFound, Loss, MARKER_AGE, ManifestFound, Mode, Outcome, ReferrersFound,
    Scope, Settled, TagEntry, TagFound, UploadFound,
};
use crate::key::{Form, Generation, Key, Version};
use crate::meta::{Epoch, Error, Location, ManifestFacts, Removal, RepositoryId, steps};
use crate::ops::clock;

/// What a blob's row says.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct BlobFact {
    pub(in crate::meta) id: i64,
    /// `None`: its data is absent.
    pub(in crate::meta) location: Option<Location>,
}

/// What a link's row says.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct LinkFact {
    pub(in crate::meta) id: i64,
    /// `None`: it is hidden.
    pub(in crate::meta) generation: Option<Generation>,
}

/// What refers to a link.
#[derive(Clone, Debug, Default)]
pub(in crate::meta) struct Holders {
    /// Live manifests.
    pub(in crate::meta) live: Vec<Digest>,
    /// Live or pending ones do.
    pub(in crate::meta) wanted: bool,
    /// Any do, deleted ones too.
    pub(in crate::meta) held: bool,
}

/// The states of a manifest's row, by their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::meta) enum State {
    Pending,
    Live,
    Trashed,
    Doomed,
}

impl State {
    /// By the code in the column.
    pub(in crate::meta) const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Pending),
            1 => Some(Self::Live),
            2 => Some(Self::Trashed),
            3 => Some(Self::Doomed),
            _ => None,
        }
    }
}

/// What a manifest's row says.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct ManifestFact {
    pub(in crate::meta) id: i64,
    pub(in crate::meta) digest: Digest,
    pub(in crate::meta) state: State,
    pub(in crate::meta) generation: Option<Generation>,
}

/// A manifest to be inserted.
#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct NewManifest<'a> {
    pub(in crate::meta) generation: Generation,
    pub(in crate::meta) facts: &'a ManifestFacts,
    /// It is deleted: how long it can be restored.
    pub(in crate::meta) trashed: Option<Duration>,
}

/// What a tag's row says.
#[derive(Clone, Debug)]
pub(in crate::meta) struct TagFact {
    pub(in crate::meta) tag: Tag,
    pub(in crate::meta) target: Digest,
    pub(in crate::meta) version: Version,
    pub(in crate::meta) generation: Generation,
    /// Set: the row is a tombstone, and this the record below it.
    pub(in crate::meta) hidden: Option<(Version, Generation)>,
}

impl TagFact {
    /// The record that the row stands for.
    pub(in crate::meta) fn entry(&self) -> TagEntry {
        let target = self.hidden.is_none().then_some(self.target);
        TagEntry { version: self.version, generation: self.generation, target }
    }

    /// The record that the row's tombstone hides.
    pub(in crate::meta) fn hidden_entry(&self) -> Option<TagEntry> {
        let target = Some(self.target);
        self.hidden.map(|(version, generation)| TagEntry { version, generation, target })
    }
}

/// Whether a manifest lives, and its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::meta) enum Life {
    Live(i64),
    Trashed(i64),
    None,
}

impl Life {
    pub(super) const fn is_live(self) -> bool {
        matches!(self, Self::Live(_))
    }

    pub(super) const fn row(self) -> Option<i64> {
        match self {
            Self::Live(id) | Self::Trashed(id) => Some(id),
            Self::None => None,
        }
    }
}

/// The rows, within a transaction that holds the epoch.
pub(in crate::meta) trait Rows {
    /// How a statement fails.
    type Fault: From<Error>;

    /// Rows of blobs. `lock`: against everybody who would change or refer to them.
    async fn blob_facts(
        &mut self,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, BlobFact>, Self::Fault>;
    /// Inserts rows unless there are some; without a location, absent ones. Those that were inserted.
    async fn insert_blobs(
        &mut self,
        blobs: &[(Digest, Option<Location>)],
    ) -> Result<HashSet<Digest>, Self::Fault>;
    /// Sets where data is; `None`: nowhere.
    async fn set_blobs(&mut self, blobs: &[(i64, Option<Location>)]) -> Result<(), Self::Fault>;

    /// The row of a repository; makes it if `create`.
    async fn repository_row(
        &mut self,
        name: &Name,
        create: bool,
    ) -> Result<Option<RepositoryId>, Self::Fault>;

    /// Rows of links.
    async fn link_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, LinkFact>, Self::Fault>;
    /// Inserts rows unless there are some; those that were. Their blobs have rows.
    async fn insert_links(
        &mut self,
        repository: RepositoryId,
        links: &[(Digest, Option<Generation>)],
    ) -> Result<HashSet<Digest>, Self::Fault>;
    /// Sets the records of links; `None`: hidden.
    async fn set_links(&mut self, links: &[(i64, Option<Generation>)]) -> Result<(), Self::Fault>;
    /// Deletes a link that nothing refers to; its blob becomes a candidate.
    async fn delete_link(&mut self, link: i64) -> Result<(), Self::Fault>;
    /// What refers to a link.
    async fn holders(
        &mut self,
        repository: RepositoryId,
        link: i64,
        digest: Digest,
    ) -> Result<Holders, Self::Fault>;

    /// Rows of manifests in any state.
    async fn manifest_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<Vec<ManifestFact>, Self::Fault>;
    /// Puts live manifests into the trash, and forgets their live tags.
    async fn trash_manifests(&mut self, manifests: &[i64], retain: Duration) -> Result<(), Self::Fault>;
    /// Makes pending manifests live.
    async fn enliven(&mut self, manifests: &[(i64, Generation)]) -> Result<(), Self::Fault>;
    /// Inserts manifests, in this order. `None`: somebody was faster.
    async fn insert_manifests(
        &mut self,
        repository: RepositoryId,
        manifests: &[NewManifest<'_>],
    ) -> Result<Vec<Option<i64>>, Self::Fault>;
    /// Records what manifests refer to; the links are there.
    async fn insert_references(
        &mut self,
        repository: RepositoryId,
        manifests: &[(i64, &ManifestFacts)],
    ) -> Result<(), Self::Fault>;

    /// Whether manifests live.
    async fn lives(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, Life>, Self::Fault>;
    /// Rows of tags.
    async fn tag_facts(
        &mut self,
        repository: RepositoryId,
        tags: &[Tag],
        lock: bool,
    ) -> Result<HashMap<Tag, TagFact>, Self::Fault>;
    /// Forgets rows of tags.
    async fn drop_tags(&mut self, repository: RepositoryId, tags: &[Tag]) -> Result<(), Self::Fault>;
    /// Inserts rows of tags unless there are some; those that were.
    async fn insert_tags(
        &mut self,
        repository: RepositoryId,
        tags: &[(Tag, TagSet)],
        retain: Duration,
    ) -> Result<HashSet<Tag>, Self::Fault>;

    /// Which of these steps are queued.
    async fn queued(&mut self, steps: &[String]) -> Result<HashSet<String>, Self::Fault>;
    /// Takes an object's removal out of the queue, with that of what it was uploaded by: it has turned out to be
    /// live.
    async fn unqueue(&mut self, key: &Key) -> Result<(), Self::Fault>;
    /// Which of these keys an open push of the epoch has announced.
    async fn announced(&mut self, epoch: Epoch, keys: &[String]) -> Result<HashSet<String>, Self::Fault>;
    /// Which of these generations are of open uploads.
    async fn uploading(&mut self, generations: &[Generation]) -> Result<HashSet<Generation>, Self::Fault>;
    /// The same, held so that they do not end meanwhile. `false`: somebody is changing or ending it.
    async fn hold_uploads(
        &mut self,
        generations: &[Generation],
    ) -> Result<HashMap<Generation, bool>, Self::Fault>;
    /// Records of uploads, which are held, how the bucket says that they were closed. One that knows keeps its plan.
    async fn learn_plans(
        &mut self,
        plans: &[(Generation, Digest, Option<Location>)],
    ) -> Result<(), Self::Fault>;
    /// Which data of these generations blobs are made of.
    async fn stored(&mut self, generations: &[Generation]) -> Result<HashMap<Generation, Form>, Self::Fault>;
    /// Remembers objects that no row names; those that were first seen at least `age` ago.
    async fn orphans(&mut self, objects: &[String], age: Duration) -> Result<HashSet<String>, Self::Fault>;
    /// Sets the record of a tag, which stands at the same place.
    async fn renew_tag(
        &mut self,
        repository: RepositoryId,
        tag: &Tag,
        generation: Generation,
    ) -> Result<(), Self::Fault>;
    /// Queues steps; the row.
    async fn owe(&mut self, owed: Owed) -> Result<i64, Self::Fault>;
    /// Counts rows that are lost, where a walk counts them: how many there are now.
    async fn lose(&mut self, epoch: Epoch, kind: Kind, lost: u64) -> Result<Option<Loss>, Self::Fault>;
}

/// Steps to be queued.
#[derive(Clone, Debug, Default)]
pub(in crate::meta) struct Owed {
    pub(in crate::meta) steps: Vec<String>,
    pub(in crate::meta) lane: Option<String>,
    /// The manifest that a marker is about.
    pub(in crate::meta) about: Option<i64>,
    pub(in crate::meta) after: Duration,
}

/// What is known of these keys beside their rows.
pub(super) async fn fate<R: Rows>(
    rows: &mut R,
    epoch: Epoch,
    keys: &[Key],
    generations: &[Generation],
) -> Result<Fate, R::Fault> {
    // In this order: whoever ends an upload or an intent queues, in the same transaction, what it left.
    let uploads = match generations {
        [] => HashMap::new(),
        _ => rows.hold_uploads(generations).await?,
    };
    let of =
        |held: bool| uploads.iter().filter(move |(_, is)| **is == held).map(|(generation, _)| *generation);
    let texts: Vec<String> = keys.iter().map(Key::to_string).collect();
    let announced = if texts.is_empty() { HashSet::new() } else { rows.announced(epoch, &texts).await? };
    let both = |key: &Key| [steps::remove(key), steps::write(key)];
    let queued: Vec<String> = keys.iter().flat_map(both).collect();
    let queued = if queued.is_empty() { HashSet::new() } else { rows.queued(&queued).await? };
    Ok(Fate { queued, announced, uploading: of(true).collect(), busy: of(false).collect() })
}

/// Counts.
pub(super) fn count(settled: &mut Settled, what: &'static str, how_many: usize) {
    if how_many > 0 {
        *settled.changes.entry(what).or_default() += how_many as u64;
    }
}

/// Queues the removal of what is superfluous.
async fn discard<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    settled: &mut Settled,
    steps: Vec<String>,
) -> Result<(), R::Fault> {
    if !steps.is_empty() {
        count(settled, "queuedObjects", steps.len());
        rows.owe(Owed { steps, after: scope.retain, ..Owed::default() }).await?;
    }
    Ok(())
}

/// Queues the removal of markers that are about nothing.
async fn unmark<R: Rows>(rows: &mut R, settled: &mut Settled, steps: Vec<String>) -> Result<(), R::Fault> {
    if !steps.is_empty() {
        count(settled, "queuedObjects", steps.len());
        rows.owe(Owed { steps, after: MARKER_AGE, ..Owed::default() }).await?;
    }
    Ok(())
}

/// Queues what the bucket is owed; the caller carries it out.
pub(super) async fn errand<R: Rows>(
    rows: &mut R,
    settled: &mut Settled,
    steps: Vec<String>,
) -> Result<(), R::Fault> {
    if !steps.is_empty() {
        count(settled, "writtenRecords", steps.len());
        let outbox = rows.owe(Owed { steps: steps.clone(), ..Owed::default() }).await?;
        settled.errands.push(Removal { outbox, steps });
    }
    Ok(())
}

/// Queues the removal of a record that might be believed one day. Its marker is not left to the queue, which may
/// be lost before it is emptied.
pub(super) async fn withdraw<R: Rows>(
    rows: &mut R,
    settled: &mut Settled,
    owed: Owed,
) -> Result<(), R::Fault> {
    count(settled, "queuedObjects", 1);
    let markers = owed.steps.iter().filter(|step| step.starts_with('+')).cloned().collect();
    rows.owe(owed).await?;
    errand(rows, settled, markers).await
}

/// What is settled, unless too much of a kind is lost.
async fn outcome<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    settled: Settled,
    (kind, lost): (Kind, usize),
) -> Result<Outcome, R::Fault> {
    if lost > 0
        && scope.mode == Mode::Walk
        && let Some(loss) = rows.lose(scope.epoch, kind, lost as u64).await?
        && loss.is_too_much()
    {
        return Ok(Outcome::TooManyLosses(loss));
    }
    Ok(Outcome::Settled(settled))
}

/// Settles a difference.
pub(in crate::meta) async fn settle<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    difference: &Difference<'_>,
) -> Result<Outcome, R::Fault> {
    if scope.mode.verifies() {
        return inspect::inspect(rows, scope, difference).await;
    }
    match *difference {
        // Nothing is settled about what nobody claims.
        Difference::Multiparts(_) => Ok(Outcome::Settled(Settled::default())),
        Difference::Blobs(found) => blobs(rows, scope, found).await,
        Difference::Links(repository, found) => links(rows, scope, repository, found).await,
        Difference::Manifests(repository, found) => manifests(rows, scope, repository, found).await,
        Difference::Referrers(repository, found) => referrers(rows, scope, repository, found).await,
        Difference::Tags(repository, found) => tags(rows, scope, repository, found).await,
        Difference::Uploads(found) => uploads(rows, scope, found).await,
    }
}

/// What differs: places in a list, the rows under lock, and what is known of their keys.
pub(super) struct Suspects<F> {
    pub(super) at: Vec<usize>,
    pub(super) facts: F,
    pub(super) fate: Fate,
}

pub(super) async fn suspect_blobs<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    found: &[BlobFound],
) -> Result<Option<Suspects<HashMap<Digest, BlobFact>>>, R::Fault> {
    let digests: Vec<Digest> = found.iter().map(|found| found.digest).collect();
    let facts = rows.blob_facts(&digests, false).await?;
    let stands = |found: &BlobFound| blob(found, facts.get(&found.digest), &Fate::default()).stands();
    let differs = |found: &BlobFound| !found.damaged.is_empty() || !stands(found);
    let suspects: Vec<usize> = (0..found.len()).filter(|at| differs(&found[*at])).collect();
    if suspects.is_empty() {
        return Ok(None);
    }
    let digests: Vec<Digest> = suspects.iter().map(|at| digests[*at]).collect();
    let facts = rows.blob_facts(&digests, true).await?;
    let listed = suspects.iter().flat_map(|at| {
        let BlobFound { digest, listed, damaged, .. } = &found[*at];
        listed.iter().chain(damaged.iter().map(|(location, _)| location)).map(|one| (*digest, *one))
    });
    let listed: Vec<(Digest, Location)> = listed.collect();
    let both =
        |(digest, location): &(Digest, Location)| [location.blob_key(*digest), location.data_key(*digest)];
    let keys: Vec<Key> = listed.iter().flat_map(both).collect();
    let generations: Vec<Generation> = listed.iter().map(|(_, location)| location.generation).collect();
    let fate = fate(rows, scope.epoch, &keys, &generations).await?;
    Ok(Some(Suspects { at: suspects, facts, fate }))
}

/// An upload was restored to before its end when there is what only its end writes. Recorded as its plan, that goes
/// with the upload.
async fn learn<R: Rows>(
    rows: &mut R,
    plans: &[(Generation, Digest, Option<Location>)],
) -> Result<(), R::Fault> {
    if plans.is_empty() { Ok(()) } else { rows.learn_plans(plans).await }
}

/// Of the names that were to be inserted, those that somebody else was faster with.
fn late<N: Clone + Eq + Hash, T>(wanted: &[(N, T)], inserted: &HashSet<N>) -> HashSet<N> {
    let names = wanted.iter().map(|(name, _)| name);
    names.filter(|name| !inserted.contains(*name)).cloned().collect()
}

async fn blobs<R: Rows>(rows: &mut R, scope: &Scope, found: &[BlobFound]) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let Some(Suspects { at: suspects, facts, fate }) = suspect_blobs(rows, scope, found).await? else {
        return Ok(Outcome::Settled(settled));
    };
    let (mut inserts, mut moves, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let mut moved: Vec<(Digest, Option<Location>)> = Vec::new();
    let mut spares: Vec<(usize, Vec<Location>)> = Vec::new();
    let mut learned: Vec<(Generation, Digest, Option<Location>)> = Vec::new();
    for at in suspects {
        let BlobFound { digest, .. } = found[at];
        let fact = facts.get(&digest);
        let Judgement::Plan { action, spare, unfinished } = blob(&found[at], fact, &fate) else {
            settled.again.push(at);
            continue;
        };
        match (action, fact) {
            (Some(BlobAction::Insert(location)), _) => inserts.push((digest, Some(location))),
            (Some(BlobAction::Move(location)), Some(fact)) => {
                moved.push((digest, Some(location)));
                moves.push((fact.id, Some(location)));
            }
            (Some(BlobAction::Lose), Some(fact)) => losses.push((fact.id, None)),
            _ => {}
        }
        learned.extend(unfinished.iter().map(|one| (one.generation, digest, Some(*one))));
        spares.push((at, spare));
    }
    learn(rows, &learned).await?;
    let late = match &inserts[..] {
        [] => HashSet::new(),
        _ => late(&inserts, &rows.insert_blobs(&inserts).await?),
    };
    inserts.retain(|(digest, _)| !late.contains(digest));
    for (at, spare) in spares {
        if late.contains(&found[at].digest) {
            settled.again.push(at);
            continue;
        }
        let steps = spare.iter().flat_map(|one| steps::remove_blob(found[at].digest, one)).collect();
        discard(rows, scope, &mut settled, steps).await?;
    }
    count(&mut settled, "adoptedBlobs", inserts.len() + moves.len());
    count(&mut settled, "absentBlobs", losses.len());
    // A restored upload may have been given up by its client after its commit was lost.
    let adopted = inserts.iter().chain(&moved).filter_map(|(digest, location)| Some((*digest, (*location)?)));
    for (digest, location) in adopted {
        let data = location.data_key(digest);
        if fate.decided(&data) {
            rows.unqueue(&data).await?;
        }
    }
    let lost = losses.len();
    moves.extend(losses);
    if !moves.is_empty() {
        rows.set_blobs(&moves).await?;
    }
    outcome(rows, scope, settled, (Kind::Blobs, lost)).await
}

pub(super) fn link_key(repository: &Name, digest: Digest, generation: Generation) -> Key {
    Key::Link { repository: repository.clone(), digest, generation }
}

/// Makes rows of absent blobs where there are none, then links; those that were inserted.
async fn insert_links<R: Rows>(
    rows: &mut R,
    repository: RepositoryId,
    links: &[(Digest, Option<Generation>)],
) -> Result<HashSet<Digest>, R::Fault> {
    if links.is_empty() {
        return Ok(HashSet::new());
    }
    let digests: Vec<Digest> = links.iter().map(|(digest, _)| *digest).collect();
    let known = rows.blob_facts(&digests, false).await?;
    let absent = digests.iter().filter(|digest| !known.contains_key(*digest));
    let absent: Vec<(Digest, Option<Location>)> = absent.map(|digest| (*digest, None)).collect();
    if !absent.is_empty() {
        rows.insert_blobs(&absent).await?;
    }
    rows.insert_links(repository, links).await
}

pub(super) async fn suspect_links<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    (repo_id, repository): (Option<RepositoryId>, &Name),
    found: &[LinkFound],
) -> Result<Option<Suspects<HashMap<Digest, LinkFact>>>, R::Fault> {
    let digests: Vec<Digest> = found.iter().map(|found| found.digest).collect();
    let facts = match repo_id {
        Some(repo_id) => rows.link_facts(repo_id, &digests, false).await?,
        None => HashMap::new(),
    };
    let differs = |found: &LinkFound| {
        !link(repository, found, facts.get(&found.digest), None, &Fate::default()).stands()
    };
    let suspects: Vec<usize> = (0..found.len()).filter(|at| differs(&found[*at])).collect();
    if suspects.is_empty() {
        return Ok(None);
    }
    let digests: Vec<Digest> = suspects.iter().map(|at| digests[*at]).collect();
    let facts = match repo_id {
        Some(repo_id) => rows.link_facts(repo_id, &digests, true).await?,
        None => facts,
    };
    let claimed = facts.iter().filter_map(|(digest, fact)| Some((*digest, fact.generation?)));
    let listed = suspects.iter().flat_map(|at| found[*at].listed.iter().map(|one| (found[*at].digest, *one)));
    let all: Vec<(Digest, Generation)> = claimed.chain(listed).collect();
    let keys: Vec<Key> = all.iter().map(|(digest, one)| link_key(repository, *digest, *one)).collect();
    let generations: Vec<Generation> = all.iter().map(|(_, generation)| *generation).collect();
    let fate = fate(rows, scope.epoch, &keys, &generations).await?;
    Ok(Some(Suspects { at: suspects, facts, fate }))
}

async fn links<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &[LinkFound],
) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let create = found.iter().any(|found| !found.listed.is_empty());
    let Some(repo_id) = rows.repository_row(repository, create).await? else {
        return Ok(Outcome::Settled(settled));
    };
    let suspects = suspect_links(rows, scope, (Some(repo_id), repository), found).await?;
    let Some(Suspects { at: suspects, facts, fate }) = suspects else {
        return Ok(Outcome::Settled(settled));
    };
    let (mut inserts, mut changes, mut owed, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut spares: Vec<(usize, Vec<Generation>)> = Vec::new();
    let mut learned: Vec<(Generation, Digest, Option<Location>)> = Vec::new();
    for at in suspects {
        let LinkFound { digest, gone, .. } = &found[at];
        let fact = facts.get(digest);
        let is_gone = fact.and_then(|fact| fact.generation).is_some_and(|own| gone.contains(&own));
        let holders = match fact {
            Some(fact) if is_gone => Some(rows.holders(repo_id, fact.id, *digest).await?),
            _ => None,
        };
        let judged = link(repository, &found[at], fact, holders.as_ref(), &fate);
        let Judgement::Plan { action, spare, unfinished } = judged else {
            settled.again.push(at);
            continue;
        };
        learned.extend(unfinished.iter().map(|one| (*one, *digest, None)));
        match (action, fact) {
            (Some(LinkAction::Insert(generation)), _) => inserts.push((*digest, Some(generation))),
            (Some(LinkAction::Show(generation)), Some(fact)) => changes.push((fact.id, Some(generation))),
            (Some(LinkAction::Await(manifests)), _) => settled.after.push((at, manifests)),
            (Some(LinkAction::Renew), Some(fact)) => {
                let generation = Generation::at(clock::milliseconds());
                owed.push(steps::write(&link_key(repository, *digest, generation)));
                changes.push((fact.id, Some(generation)));
            }
            (Some(LinkAction::Hide), Some(fact)) => {
                lost += 1;
                changes.push((fact.id, None));
            }
            (Some(LinkAction::Delete), Some(fact)) => {
                lost += 1;
                rows.delete_link(fact.id).await?;
            }
            _ => {}
        }
        spares.push((at, spare));
    }
    learn(rows, &learned).await?;
    let late = late(&inserts, &insert_links(rows, repo_id, &inserts).await?);
    for (at, spare) in spares {
        let digest = found[at].digest;
        if late.contains(&digest) {
            settled.again.push(at);
            continue;
        }
        let steps = spare.iter().map(|other| steps::remove_link(repository, digest, *other)).collect();
        discard(rows, scope, &mut settled, steps).await?;
    }
    count(&mut settled, "adoptedLinks", inserts.len() - late.len());
    count(&mut settled, "lostLinks", lost);
    if !changes.is_empty() {
        rows.set_links(&changes).await?;
    }
    errand(rows, &mut settled, owed).await?;
    outcome(rows, scope, settled, (Kind::Links, lost)).await
}

/// Makes sure that the blobs of manifests are linked. What live ones imply is shown by a record; the records that
/// are owed for it.
async fn imply_links<R: Rows>(
    rows: &mut R,
    (repo_id, repository): (RepositoryId, &Name),
    manifests: &[(&ManifestFacts, bool)],
) -> Result<Vec<String>, R::Fault> {
    // Whether a live manifest wants it.
    let mut wanted: BTreeMap<Digest, bool> = BTreeMap::new();
    for (facts, lives) in manifests {
        for digest in &facts.blobs {
            *wanted.entry(*digest).or_default() |= lives;
        }
    }
    let digests: Vec<Digest> = wanted.keys().copied().collect();
    if digests.is_empty() {
        return Ok(Vec::new());
    }
    let facts = rows.link_facts(repo_id, &digests, false).await?;
    let fresh = || Generation::at(clock::milliseconds());
    let missing = wanted.iter().filter(|(digest, _)| !facts.contains_key(*digest));
    let inserts: Vec<(Digest, Option<Generation>)> =
        missing.map(|(digest, lives)| (*digest, lives.then(fresh))).collect();
    let hidden = wanted.iter().filter(|(_, lives)| **lives);
    let hidden = hidden.filter_map(|(digest, _)| {
        facts.get(digest).filter(|fact| fact.generation.is_none()).map(|fact| (*digest, fact.id, fresh()))
    });
    let hidden: Vec<(Digest, i64, Generation)> = hidden.collect();
    if inserts.is_empty() && hidden.is_empty() {
        return Ok(Vec::new());
    }
    insert_links(rows, repo_id, &inserts).await?;
    if !hidden.is_empty() {
        let shown: Vec<_> = hidden.iter().map(|(_, id, generation)| (*id, Some(*generation))).collect();
        rows.set_links(&shown).await?;
    }
    let ours = inserts.iter().filter_map(|(digest, generation)| Some((*digest, (*generation)?)));
    let ours: Vec<(Digest, Generation)> =
        ours.chain(hidden.iter().map(|(digest, _, generation)| (*digest, *generation))).collect();
    // Somebody else may have made the row in between: then it has a record.
    let facts = rows.link_facts(repo_id, &digests, false).await?;
    let is_ours = |(digest, generation): &&(Digest, Generation)| {
        facts.get(digest).is_some_and(|fact| fact.generation == Some(*generation))
    };
    let owed = ours.iter().filter(is_ours);
    Ok(owed.map(|(digest, generation)| steps::write(&link_key(repository, *digest, *generation))).collect())
}

pub(super) type ManifestRows = HashMap<Digest, Vec<ManifestFact>>;

pub(super) async fn suspect_manifests<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    (repo_id, repository): (Option<RepositoryId>, &Name),
    found: &[ManifestFound],
) -> Result<Option<Suspects<ManifestRows>>, R::Fault> {
    let all = |at: &[usize]| -> Vec<Digest> { at.iter().map(|at| found[*at].digest).collect() };
    let everything: Vec<usize> = (0..found.len()).collect();
    let facts = match repo_id {
        Some(repo_id) => by_digest(rows.manifest_facts(repo_id, &all(&everything), false).await?),
        None => HashMap::new(),
    };
    let stands = |found: &ManifestFound| {
        plan_manifest(repository, found, &facts, &Fate::default()).is_some_and(|plan| plan.stands())
    };
    let differs = |found: &ManifestFound| !found.damaged.is_empty() || !stands(found);
    let suspects: Vec<usize> = (0..found.len()).filter(|at| differs(&found[*at])).collect();
    if suspects.is_empty() {
        return Ok(None);
    }
    let facts = match repo_id {
        Some(repo_id) => by_digest(rows.manifest_facts(repo_id, &all(&suspects), true).await?),
        None => facts,
    };
    let mut keys = Vec::new();
    for found in suspects.iter().map(|at| &found[*at]) {
        let (of, digest) = (|| repository.clone(), found.digest);
        keys.extend(found.records.iter().map(|one| Key::Manifest {
            repository: of(),
            digest,
            generation: *one,
        }));
        let marker = |one: &Generation| Key::ManifestDeleted { repository: of(), digest, generation: *one };
        keys.extend(found.markers.iter().map(marker));
    }
    let fate = fate(rows, scope.epoch, &keys, &[]).await?;
    Ok(Some(Suspects { at: suspects, facts, fate }))
}

pub(super) fn plan_manifest(
    repository: &Name,
    found: &ManifestFound,
    facts: &ManifestRows,
    fate: &Fate,
) -> Option<ManifestPlan> {
    let known = facts.get(&found.digest).map_or(&[][..], Vec::as_slice);
    plan_records::manifest(repository, found, known, fate)
}

async fn manifests<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &[ManifestFound],
) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let create = found.iter().any(|found| !found.records.is_empty());
    let Some(repo_id) = rows.repository_row(repository, create).await? else {
        return Ok(Outcome::Settled(settled));
    };
    let suspects = suspect_manifests(rows, scope, (Some(repo_id), repository), found).await?;
    let Some(Suspects { at: suspects, facts, fate }) = suspects else {
        return Ok(Outcome::Settled(settled));
    };
    let mut plans: Vec<(&ManifestFound, ManifestPlan)> = Vec::new();
    for at in suspects {
        match plan_manifest(repository, &found[at], &facts, &fate) {
            Some(plan) => plans.push((&found[at], plan)),
            None => settled.again.push(at),
        }
    }
    let (lost, late) = carry_out(rows, scope, (repo_id, repository), &plans, &mut settled).await?;
    settled.again.extend((0..found.len()).filter(|at| late.contains(&found[*at].digest)));
    outcome(rows, scope, settled, (Kind::Manifests, lost)).await
}

pub(super) fn by_digest(facts: Vec<ManifestFact>) -> HashMap<Digest, Vec<ManifestFact>> {
    let mut all: HashMap<Digest, Vec<ManifestFact>> = HashMap::new();
    for fact in facts {
        all.entry(fact.digest).or_default().push(fact);
    }
    all
}

/// Does what was planned for manifests; how many rows lost their record, and which of them somebody else was faster
/// with.
async fn carry_out<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    (repo_id, repository): (RepositoryId, &Name),
    plans: &[(&ManifestFound, ManifestPlan)],
    settled: &mut Settled,
) -> Result<(usize, HashSet<Digest>), R::Fault> {
    let trash: Vec<i64> = plans.iter().filter_map(|(_, plan)| plan.trash).map(|trash| trash.id).collect();
    if !trash.is_empty() {
        rows.trash_manifests(&trash, scope.retain).await?;
    }
    let mut enliven = Vec::new();
    let mut new: Vec<NewManifest<'_>> = Vec::new();
    let mut implied: Vec<(&ManifestFacts, bool)> = Vec::new();
    let mut entries: Vec<(Digest, Key)> = Vec::new();
    for (found, plan) in plans {
        let buried = plan.bury.iter().filter_map(|generation| {
            let trashed = Some(scope.retain);
            found.facts.as_ref().map(|facts| NewManifest { generation: *generation, facts, trashed })
        });
        new.extend(buried);
        let Some(adopt) = plan.adopt else { continue };
        let facts = found.facts.as_ref();
        match adopt.pending {
            Some(id) => enliven.push((id, adopt.generation)),
            None => new.extend(facts.map(|facts| NewManifest {
                generation: adopt.generation,
                facts,
                trashed: None,
            })),
        }
        if let Some(facts) = facts
            && let Some(subject) = facts.subject.filter(|_| found.owes_referrer)
        {
            let (repository, digest, generation) = (repository.clone(), found.digest, adopt.generation);
            entries.push((digest, Key::Referrer { repository, subject, digest, generation }));
        }
    }
    // Rows of later pushes come later, as far as they are inserted together.
    new.sort_by_key(|manifest| manifest.generation);
    implied.extend(new.iter().map(|manifest| (manifest.facts, manifest.trashed.is_none())));
    let mut owed = imply_links(rows, (repo_id, repository), &implied).await?;
    if !enliven.is_empty() {
        rows.enliven(&enliven).await?;
    }
    let mut late: HashSet<Digest> = HashSet::new();
    if !new.is_empty() {
        let ids = rows.insert_manifests(repo_id, &new).await?;
        let missing = ids.iter().zip(&new).filter(|(id, _)| id.is_none());
        late.extend(missing.map(|(_, manifest)| manifest.facts.digest));
        let inserted = ids.iter().zip(&new).filter_map(|(id, manifest)| Some(((*id)?, manifest.facts)));
        let inserted: Vec<(i64, &ManifestFacts)> = inserted.collect();
        rows.insert_references(repo_id, &inserted).await?;
    }
    entries.retain(|(digest, _)| !late.contains(digest));
    owed.extend(entries.iter().map(|(_, entry)| steps::write(entry)));
    errand(rows, settled, owed).await?;
    for (found, plan) in plans.iter().filter(|(found, _)| !late.contains(&found.digest)) {
        discard_manifests(rows, repository, found, plan, settled).await?;
    }
    new.retain(|manifest| !late.contains(&manifest.facts.digest));
    let buried = new.iter().filter(|manifest| manifest.trashed.is_some()).count();
    count(settled, "adoptedManifests", enliven.len() + new.len() - buried);
    count(settled, "buriedManifests", buried);
    count(settled, "trashedManifests", trash.len());
    let lost = plans.iter().filter(|(_, plan)| plan.trash.is_some_and(|trash| trash.lost)).count();
    Ok((lost, late))
}

/// Queues superfluous records and markers of a manifest.
async fn discard_manifests<R: Rows>(
    rows: &mut R,
    repository: &Name,
    found: &ManifestFound,
    plan: &ManifestPlan,
    settled: &mut Settled,
) -> Result<(), R::Fault> {
    if let Some(facts) = &found.facts {
        for generation in &plan.withdraw {
            let steps = steps::withdraw_manifest(repository, facts.digest, facts.subject, *generation);
            withdraw(rows, settled, Owed { steps, ..Owed::default() }).await?;
        }
    }
    let marker = |generation: &Generation| Key::ManifestDeleted {
        repository: repository.clone(),
        digest: found.digest,
        generation: *generation,
    };
    unmark(rows, settled, plan.unmark.iter().map(|one| steps::remove(&marker(one))).collect()).await
}

pub(super) async fn suspect_tags<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    (repo_id, repository): (Option<RepositoryId>, &Name),
    found: &[TagFound],
) -> Result<Option<Suspects<(Lives, TagFacts)>>, R::Fault> {
    let everything: Vec<usize> = (0..found.len()).collect();
    let facts = tag_rows(rows, repo_id, found, &everything, false).await?;
    let differs = |found: &TagFound| {
        !plan_tag(repository, found, &facts, &Fate::default()).is_some_and(|plan| plan.stands())
    };
    let suspects: Vec<usize> = (0..found.len()).filter(|at| differs(&found[*at])).collect();
    if suspects.is_empty() {
        return Ok(None);
    }
    let (lives, facts) = tag_rows(rows, repo_id, found, &suspects, true).await?;
    let mut keys = Vec::new();
    for found in suspects.iter().map(|at| &found[*at]) {
        let own = facts.get(&found.tag).map(TagFact::entry);
        let records = found.records.iter().chain(&own);
        keys.extend(records.map(|entry| entry_key(repository, &found.tag, entry)));
        keys.extend(
            found.withdrawn.iter().map(|entry| plan_records::withdrawn_key(repository, found, entry)),
        );
    }
    let fate = fate(rows, scope.epoch, &keys, &[]).await?;
    Ok(Some(Suspects { at: suspects, facts: (lives, facts), fate }))
}

pub(super) fn plan_tag(
    repository: &Name,
    found: &TagFound,
    (lives, facts): &(Lives, TagFacts),
    fate: &Fate,
) -> Option<TagPlan> {
    let life = |digest: &Digest| lives.get(digest).copied().unwrap_or(Life::None);
    plan_records::tag(repository, found, facts.get(&found.tag), life, fate)
}

async fn tags<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &[TagFound],
) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let create = found.iter().any(|found| !found.records.is_empty());
    let Some(repo_id) = rows.repository_row(repository, create).await? else {
        return Ok(Outcome::Settled(settled));
    };
    let suspects = suspect_tags(rows, scope, (Some(repo_id), repository), found).await?;
    let Some(Suspects { at: suspects, facts, fate }) = suspects else {
        return Ok(Outcome::Settled(settled));
    };
    let (mut sets, mut lost): (Vec<(Tag, TagSet)>, usize) = (Vec::new(), 0);
    let mut plans: Vec<(usize, TagPlan)> = Vec::new();
    for at in suspects {
        let Some(plan) = plan_tag(repository, &found[at], &facts, &fate) else {
            settled.again.push(at);
            continue;
        };
        sets.extend(plan.set.map(|set| (found[at].tag.clone(), set)));
        lost += usize::from(plan.lost);
        plans.push((at, plan));
    }
    count(&mut settled, "droppedTags", sets.iter().filter(|(_, set)| *set == TagSet::Gone).count());
    let replaced = sets.iter().map(|(tag, _)| tag).filter(|tag| facts.1.contains_key(tag));
    let replaced: Vec<Tag> = replaced.cloned().collect();
    if !replaced.is_empty() {
        rows.drop_tags(repo_id, &replaced).await?;
    }
    sets.retain(|(_, set)| *set != TagSet::Gone);
    let late = match &sets[..] {
        [] => HashSet::new(),
        _ => late(&sets, &rows.insert_tags(repo_id, &sets, scope.retain).await?),
    };
    count(&mut settled, "adoptedTags", sets.len() - late.len());
    for (at, plan) in plans {
        if late.contains(&found[at].tag) {
            settled.again.push(at);
        } else {
            discard_tags(rows, scope, repository, &found[at], &plan, &mut settled).await?;
        }
    }
    outcome(rows, scope, settled, (Kind::Tags, lost)).await
}

pub(super) type Lives = HashMap<Digest, Life>;
pub(super) type TagFacts = HashMap<Tag, TagFact>;

/// What tags name, and their rows: in the lock order.
async fn tag_rows<R: Rows>(
    rows: &mut R,
    repo_id: Option<RepositoryId>,
    found: &[TagFound],
    at: &[usize],
    lock: bool,
) -> Result<(Lives, TagFacts), R::Fault> {
    let Some(repo_id) = repo_id else { return Ok(Default::default()) };
    let of = || at.iter().map(|at| &found[*at]);
    let targets: HashSet<Digest> =
        of().flat_map(|found| found.records.iter().filter_map(|entry| entry.target)).collect();
    let lives = rows.lives(repo_id, &Vec::from_iter(targets), lock).await?;
    let names: Vec<Tag> = of().map(|found| found.tag.clone()).collect();
    Ok((lives, rows.tag_facts(repo_id, &names, lock).await?))
}

pub(super) fn entry_key(repository: &Name, tag: &Tag, entry: &TagEntry) -> Key {
    steps::tag_key(repository, tag, entry.version, entry.generation, entry.target)
}

/// Queues superfluous records and markers of a tag, in its lane.
async fn discard_tags<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &TagFound,
    plan: &TagPlan,
    settled: &mut Settled,
) -> Result<(), R::Fault> {
    let lane = || Some(steps::lane(repository, &found.tag));
    let key = |entry: &TagEntry| entry_key(repository, &found.tag, entry);
    let marker = |entry: &TagEntry| plan_records::withdrawn_key(repository, found, entry);
    let withdrawals =
        plan.withdraw.iter().map(|entry| vec![steps::write(&marker(entry)), steps::remove(&key(entry))]);
    for steps in withdrawals {
        withdraw(rows, settled, Owed { steps, lane: lane(), ..Owed::default() }).await?;
    }
    let superseded: Vec<String> = plan.remove.iter().map(|entry| steps::remove(&key(entry))).collect();
    if !superseded.is_empty() {
        count(settled, "queuedObjects", superseded.len());
        let after = scope.retain;
        rows.owe(Owed { steps: superseded, lane: lane(), after, about: None }).await?;
    }
    errand(rows, settled, plan.owed.iter().map(|entry| steps::write(&key(entry))).collect()).await?;
    unmark(rows, settled, plan.unmark.iter().map(|entry| steps::remove(&marker(entry))).collect()).await
}

/// Entries that no row stands behind, and those that live rows lack.
pub(super) async fn judge_referrers<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &[ReferrersFound],
) -> Result<(Vec<Key>, Vec<Key>), R::Fault> {
    let repo_id = rows.repository_row(repository, false).await?;
    let digests: HashSet<Digest> = found
        .iter()
        .flat_map(|found| found.listed.iter().chain(&found.missing))
        .map(|(one, _)| *one)
        .collect();
    let facts = match repo_id {
        Some(repo_id) => by_digest(rows.manifest_facts(repo_id, &Vec::from_iter(digests), false).await?),
        None => HashMap::new(),
    };
    let has = |digest: &Digest, generation: &Generation, state: fn(State) -> bool| {
        let known = facts.get(digest).into_iter().flatten();
        known.into_iter().any(|fact| fact.generation == Some(*generation) && state(fact.state))
    };
    let key = |found: &ReferrersFound, (digest, generation): (Digest, Generation)| Key::Referrer {
        repository: repository.clone(),
        subject: found.subject,
        digest,
        generation,
    };
    let mut spare: Vec<Key> = Vec::new();
    let mut owed: Vec<Key> = Vec::new();
    for found in found {
        let is_spare = |(digest, generation): &&(Digest, Generation)| !has(digest, generation, |_| true);
        spare.extend(found.listed.iter().filter(is_spare).map(|entry| key(found, *entry)));
        let is_owed = |(digest, generation): &&(Digest, Generation)| {
            has(digest, generation, |state| state == State::Live)
        };
        owed.extend(found.missing.iter().filter(is_owed).map(|entry| key(found, *entry)));
    }
    if !spare.is_empty() {
        let fate = fate(rows, scope.epoch, &spare, &[]).await?;
        spare.retain(|key| !fate.is_left_to_others(key));
    }
    Ok((spare, owed))
}

async fn referrers<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &[ReferrersFound],
) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let (spare, owed) = judge_referrers(rows, scope, repository, found).await?;
    discard(rows, scope, &mut settled, spare.iter().map(steps::remove).collect()).await?;
    errand(rows, &mut settled, owed.iter().map(steps::write).collect()).await?;
    Ok(Outcome::Settled(settled))
}

/// Objects below `up/` of no upload and no blob.
pub(super) async fn spare_uploads<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    found: &[UploadFound],
) -> Result<Vec<Key>, R::Fault> {
    let generations: Vec<Generation> = found.iter().map(|found| found.generation).collect();
    // In this order: an upload becomes a blob, never the other way.
    let uploading = rows.uploading(&generations).await?;
    let stored = rows.stored(&generations).await?;
    let is_used = |found: &&UploadFound| {
        let form = found.lease.map_or(Form::Upload, Form::Tail);
        uploading.contains(&found.generation) || stored.get(&found.generation) == Some(&form)
    };
    let spare = found.iter().filter(|found| !is_used(found)).map(|found| {
        let generation = found.generation;
        found.lease.map_or(Key::Upload { generation }, |lease| Key::UploadTail { generation, lease })
    });
    let mut spare: Vec<Key> = spare.collect();
    if !spare.is_empty() {
        let fate = fate(rows, scope.epoch, &spare, &[]).await?;
        spare.retain(|key| !fate.decided(key));
    }
    Ok(spare)
}

async fn uploads<R: Rows>(rows: &mut R, scope: &Scope, found: &[UploadFound]) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let spare = spare_uploads(rows, scope, found).await?;
    discard(rows, scope, &mut settled, spare.iter().map(steps::remove).collect()).await?;
    Ok(Outcome::Settled(settled))
}
