// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Links of a repository.

use std::collections::{BTreeMap, HashMap, HashSet};

use stowage_oci::{Digest, Name};

use super::super::plan::{Fate, Judgement, LinkAction, link};
use super::super::rows::{LinkFact, Rows};
use super::super::{Kind, LinkFound, Outcome, Scope, Settled};
use super::{Suspects, count, discard, errand, fate, late, learn, outcome};
use crate::key::{Generation, Key};
use crate::meta::{Location, ManifestFacts, RepositoryId, steps};
use crate::ops::clock;

pub(in crate::meta::reconcile) fn link_key(repository: &Name, digest: Digest, generation: Generation) -> Key {
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

pub(in crate::meta::reconcile) async fn suspect_links<R: Rows>(
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

pub(super) async fn links<R: Rows>(
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
pub(super) async fn imply_links<R: Rows>(
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
