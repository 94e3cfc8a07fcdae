// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Manifests of a repository.

use std::collections::{HashMap, HashSet};

use stowage_oci::{Digest, Name};

use super::super::plan::Fate;
use super::super::plan_records::{self, ManifestPlan};
use super::super::rows::{ManifestFact, NewManifest, Owed, Rows};
use super::super::{Kind, ManifestFound, Outcome, Scope, Settled};
use super::links::imply_links;
use super::{Suspects, count, errand, fate, outcome, unmark, withdraw};
use crate::key::{Generation, Key};
use crate::meta::{ManifestFacts, RepositoryId, steps};

pub(in crate::meta::reconcile) type ManifestRows = HashMap<Digest, Vec<ManifestFact>>;

pub(in crate::meta::reconcile) async fn suspect_manifests<R: Rows>(
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

pub(in crate::meta::reconcile) fn plan_manifest(
    repository: &Name,
    found: &ManifestFound,
    facts: &ManifestRows,
    fate: &Fate,
) -> Option<ManifestPlan> {
    let known = facts.get(&found.digest).map_or(&[][..], Vec::as_slice);
    plan_records::manifest(repository, found, known, fate)
}

pub(super) async fn manifests<R: Rows>(
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

pub(in crate::meta::reconcile) fn by_digest(facts: Vec<ManifestFact>) -> HashMap<Digest, Vec<ManifestFact>> {
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
