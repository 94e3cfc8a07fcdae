// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags of a repository.

use std::collections::{HashMap, HashSet};

use stowage_oci::{Digest, Name, Tag};

use super::super::plan::Fate;
use super::super::plan_records::{self, TagPlan, TagSet};
use super::super::rows::{Life, Owed, Rows, TagFact};
use super::super::{Kind, Outcome, Scope, Settled, TagEntry, TagFound};
use super::{Suspects, count, errand, fate, late, outcome, unmark, withdraw};
use crate::key::Key;
use crate::meta::{RepositoryId, steps};

pub(in crate::meta::reconcile) async fn suspect_tags<R: Rows>(
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

pub(in crate::meta::reconcile) fn plan_tag(
    repository: &Name,
    found: &TagFound,
    (lives, facts): &(Lives, TagFacts),
    fate: &Fate,
) -> Option<TagPlan> {
    let life = |digest: &Digest| lives.get(digest).copied().unwrap_or(Life::None);
    plan_records::tag(repository, found, facts.get(&found.tag), life, fate)
}

pub(super) async fn tags<R: Rows>(
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

pub(in crate::meta::reconcile) type Lives = HashMap<Digest, Life>;
pub(in crate::meta::reconcile) type TagFacts = HashMap<Tag, TagFact>;

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

pub(in crate::meta::reconcile) fn entry_key(repository: &Name, tag: &Tag, entry: &TagEntry) -> Key {
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
