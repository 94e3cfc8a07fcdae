// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Data of blobs.

use std::collections::{HashMap, HashSet};

use stowage_oci::Digest;

use super::super::plan::{BlobAction, Fate, Judgement, blob};
use super::super::rows::{BlobFact, Rows};
use super::super::{BlobFound, Kind, Outcome, Scope, Settled};
use super::{Suspects, count, discard, fate, late, learn, outcome};
use crate::key::{Generation, Key};
use crate::meta::{Location, steps};

pub(in crate::meta::reconcile) async fn suspect_blobs<R: Rows>(
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

pub(super) async fn blobs<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    found: &[BlobFound],
) -> Result<Outcome, R::Fault> {
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
