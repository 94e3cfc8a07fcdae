// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Settling a difference within a transaction: what both databases do, in which order.
//!
//! First without locks, as mostly nothing differs; what does is read again under lock, with what the queues say
//! of its keys, and only that second plan is carried out. Lock order: manifests, tags, blobs, links.
//! A row that is not there cannot be locked: whoever finds that somebody else has inserted it meanwhile, perhaps by
//! another listing, knows nothing, and compares the name again.

mod blobs;
mod ledger;
mod links;
mod manifests;
mod referrers;
mod tags;
mod uploads;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use stowage_oci::Digest;

use super::inspect;
use super::plan::Fate;
use super::rows::{Owed, Rows};
use super::{Difference, Kind, MARKER_AGE, Mode, Outcome, Scope, Settled};
use crate::key::{Generation, Key};
use crate::meta::{Epoch, Location, Removal, steps};

pub(super) use blobs::suspect_blobs;
pub(super) use ledger::{ledger_key, unclaimed};
pub(super) use links::{link_key, suspect_links};
pub(super) use manifests::{plan_manifest, suspect_manifests};
pub(super) use referrers::judge_referrers;
pub(super) use tags::{entry_key, plan_tag, suspect_tags};
pub(super) use uploads::spare_uploads;

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
        Difference::Blobs(found) => blobs::blobs(rows, scope, found).await,
        Difference::Links(repository, found) => links::links(rows, scope, repository, found).await,
        Difference::Manifests(repository, found) => {
            manifests::manifests(rows, scope, repository, found).await
        }
        Difference::Referrers(repository, found) => {
            referrers::referrers(rows, scope, repository, found).await
        }
        Difference::Tags(repository, found) => tags::tags(rows, scope, repository, found).await,
        Difference::Ledger(repository, found) => ledger::ledger(rows, scope, repository, found).await,
        Difference::Uploads(found) => uploads::uploads(rows, scope, found).await,
    }
}

/// What differs: places in a list, the rows under lock, and what is known of their keys.
pub(super) struct Suspects<F> {
    pub(super) at: Vec<usize>,
    pub(super) facts: F,
    pub(super) fate: Fate,
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
