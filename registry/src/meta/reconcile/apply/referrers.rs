// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Entries below subjects.

use std::collections::{HashMap, HashSet};

use stowage_oci::{Digest, Name};

use super::super::rows::{Rows, State};
use super::super::{Outcome, ReferrersFound, Scope, Settled};
use super::manifests::by_digest;
use super::{discard, errand, fate};
use crate::key::{Generation, Key};
use crate::meta::steps;

/// Entries that no row stands behind, and those that live rows lack.
pub(in crate::meta::reconcile) async fn judge_referrers<R: Rows>(
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

pub(super) async fn referrers<R: Rows>(
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
