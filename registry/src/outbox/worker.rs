// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The worker that carries out what is due.
//!
//! Flow: take due rows for a while → is the bucket's newest epoch ours? → their steps → one transaction that
//! forgets the rows and queues what follows. Steps of a row, and rows of a lane, one after the other; different
//! ones together, removals in batches.
//! Guarantees: nothing is removed that a row owns (asked when the rows are taken), or while another incarnation of
//! the database has written to the bucket. What fails stays queued.
//! Assumes nothing about other workers: a row that two carry out is carried out twice, without harm.

use std::collections::{BTreeMap, HashMap, VecDeque};

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};

use super::Step;
use crate::blobs::{self, Store};
use crate::key::Key;
use crate::meta::{self, Collect, DueRemoval, Incarnation, Which};

/// How many rows are taken at once: few enough that who pushes does not wait for long where there is one writer, or
/// for a store that removes objects one after another.
const ROWS: u32 = 250;
/// How many objects one request removes.
const KEYS: usize = 1000;
/// How many other requests run at a time. On a disk each waits for two syncs, as the requests of clients do.
const AT_ONCE: usize = 8;
/// A row that failed so often needs a human.
const ALERT: u32 = 10;

/// Why the worker stopped. What it had done counts.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The database did not answer, or refused; see its own words.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// Somebody else writes to the bucket.
    #[error(
        "the bucket's newest epoch is {found}, the database's is {ours}: another database uses this bucket, \
         or the database is an old one; nothing is removed"
    )]
    Foreign {
        /// What the bucket has.
        found: String,
        /// What the database has.
        ours: String,
    },
}

/// What the worker did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Rows that were carried out.
    pub rows: u64,
    /// Rows that were not; they stay queued.
    pub failed: u64,
    /// Objects that were removed, by kind. Some may not have been there.
    pub objects: BTreeMap<&'static str, u64>,
    /// How many bytes of blobs went with them.
    pub bytes: u64,
}

impl Drained {
    /// Adds what another one did.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.failed += other.failed;
        self.bytes += other.bytes;
        for (kind, count) in &other.objects {
            *self.objects.entry(kind).or_default() += count;
        }
    }

    /// All objects that were removed.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.objects.values().sum()
    }

    fn count(&mut self, key: &str) {
        let Ok(key) = key.parse::<Key>() else { return };
        *self.objects.entry(key.kind()).or_default() += 1;
        if let Key::Blob { size, .. } = key {
            self.bytes += size;
        }
    }
}

/// Carries out what is due, until nothing is; `tell` hears of each batch.
pub async fn drain(
    meta: &dyn Collect,
    store: &dyn Store,
    which: Which,
    mut tell: impl FnMut(&Drained) + Send,
) -> Result<Drained, DrainError> {
    let incarnation = meta.incarnation().await?;
    let mut all = Drained::default();
    loop {
        let rows = meta.take_removals(incarnation.epoch, which, ROWS).await?;
        if rows.is_empty() {
            return Ok(all);
        }
        ensure_newest(store, incarnation).await?;
        let batch = Batch::carry_out(store, &rows).await;
        settle(meta, incarnation, &batch, &mut all).await?;
        tell(&batch.drained);
        all.add(&batch.drained);
        if let Some(error) = batch.away {
            return Err(error.into());
        }
    }
}

/// Two databases that both believe in themselves would remove each other's content.
async fn ensure_newest(store: &dyn Store, ours: Incarnation) -> Result<(), DrainError> {
    let found = store.list(Key::EPOCHS, None, 1).await?.into_iter().next().map(|object| object.key);
    let ours = Key::Epoch { epoch: ours.epoch.0, generation: ours.generation }.to_string();
    match found {
        Some(found) if found == ours => Ok(()),
        found => Err(DrainError::Foreign { found: found.unwrap_or_else(|| "none".to_owned()), ours }),
    }
}

/// Forgets what was carried out. A row that cannot be forgotten does not keep the others.
async fn settle(
    meta: &dyn Collect,
    incarnation: Incarnation,
    batch: &Batch<'_>,
    all: &mut Drained,
) -> Result<(), DrainError> {
    if batch.done.is_empty() {
        return Ok(());
    }
    match meta.settle_removals(incarnation.epoch, &batch.done).await {
        Err(error) if is_of_one_row(&error) => {
            for row in &batch.done {
                match meta.settle_removals(incarnation.epoch, &[*row]).await {
                    Err(error) if is_of_one_row(&error) => {
                        all.failed += 1;
                        tracing::error!(outbox = row, error = %error, "removal cannot be forgotten");
                    }
                    outcome => outcome?,
                }
            }
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

const fn is_of_one_row(error: &meta::Error) -> bool {
    matches!(error, meta::Error::Broken(_) | meta::Error::Unreadable { .. })
}

/// Rows that must be carried out one after the other: those of a lane, or one alone.
#[derive(Default)]
struct Train<'a> {
    /// Each row with the steps that are left of it; `None`: this version does not understand them.
    rows: VecDeque<(&'a DueRemoval, Option<VecDeque<Step<'a>>>)>,
    failed: bool,
}

#[derive(Default)]
struct Batch<'a> {
    trains: Vec<Train<'a>>,
    done: Vec<i64>,
    drained: Drained,
    away: Option<blobs::Error>,
}

impl<'a> Batch<'a> {
    async fn carry_out(store: &dyn Store, rows: &'a [DueRemoval]) -> Self {
        let mut batch = Self { trains: trains(rows), ..Self::default() };
        for train in &mut batch.trains {
            batch.done.extend(train.ended());
        }
        while batch.away.is_none() && batch.trains.iter().any(|train| train.next().is_some()) {
            batch.wave(store).await;
        }
        batch.drained.rows = batch.done.len() as u64;
        for (row, _) in batch.trains.iter().flat_map(|train| &train.rows) {
            batch.drained.failed += 1;
            if row.tries >= ALERT {
                tracing::error!(outbox = row.id, attempt = row.tries, "removal fails again and again");
            }
        }
        batch
    }

    /// The next step of every train.
    async fn wave(&mut self, store: &dyn Store) {
        let (mut removals, mut others) = (Vec::new(), Vec::new());
        for (place, train) in self.trains.iter().enumerate() {
            match train.next() {
                Some(Step::Remove(key)) => removals.push((place, key)),
                Some(other) => others.push((place, other)),
                None => {}
            }
        }
        let taking = others.iter().map(|(place, step)| take(store, *place, *step)).collect::<Vec<_>>();
        let mut taking = stream::iter(taking).buffer_unordered(AT_ONCE);
        while let Some((place, outcome)) = taking.next().await {
            self.moved(place, outcome);
        }
        for chunk in removals.chunks(KEYS) {
            let keys: Vec<String> = chunk.iter().map(|(_, key)| (*key).to_owned()).collect();
            match store.delete(&keys).await {
                Ok(()) => {
                    for (place, key) in chunk {
                        self.removed(*place, key);
                    }
                }
                Err(error @ (blobs::Error::Unavailable { .. } | blobs::Error::Full { .. })) => {
                    self.away.get_or_insert(error);
                    for (place, _) in chunk {
                        self.trains[*place].failed = true;
                    }
                }
                Err(_one_of_them) => self.remove_singly(store, chunk).await,
            }
        }
    }

    async fn remove_singly(&mut self, store: &dyn Store, removals: &[(usize, &str)]) {
        for chunk in removals.chunks(AT_ONCE) {
            let taking =
                chunk.iter().map(|(place, key)| take(store, *place, Step::Remove(key))).collect::<Vec<_>>();
            let outcomes = join_all(taking).await;
            for ((place, outcome), (_, key)) in outcomes.into_iter().zip(chunk) {
                match outcome {
                    Ok(()) => self.removed(place, key),
                    failed => self.moved(place, failed),
                }
            }
        }
    }

    fn removed(&mut self, place: usize, key: &str) {
        self.drained.count(key);
        self.moved(place, Ok(()));
    }

    fn moved(&mut self, place: usize, outcome: Result<(), blobs::Error>) {
        let train = &mut self.trains[place];
        match outcome {
            Ok(()) => {
                train.advance();
                self.done.extend(train.ended());
            }
            Err(error) => {
                train.failed = true;
                tracing::warn!(error = %error, "removal failed; it stays queued");
                if matches!(error, blobs::Error::Unavailable { .. } | blobs::Error::Full { .. }) {
                    self.away.get_or_insert(error);
                }
            }
        }
    }
}

impl<'a> Train<'a> {
    fn next(&self) -> Option<Step<'a>> {
        let (_, steps) = self.rows.front().filter(|_| !self.failed)?;
        steps.as_ref()?.front().copied()
    }

    /// The step was taken.
    fn advance(&mut self) {
        if let Some((_, Some(steps))) = self.rows.front_mut() {
            steps.pop_front();
        }
    }

    /// Takes off the rows whose steps have all been taken.
    fn ended(&mut self) -> Vec<i64> {
        let mut ended = Vec::new();
        while let Some((row, Some(steps))) = self.rows.front()
            && steps.is_empty()
        {
            ended.push(row.id);
            self.rows.pop_front();
        }
        ended
    }
}

/// One step of a train.
async fn take(store: &dyn Store, place: usize, step: Step<'_>) -> (usize, Result<(), blobs::Error>) {
    (place, step.take(store).await)
}

/// Rows in their order; those of one lane behind each other.
fn trains(rows: &[DueRemoval]) -> Vec<Train<'_>> {
    let mut trains: Vec<Train<'_>> = Vec::with_capacity(rows.len());
    let mut lanes: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        let place = match row.lane.as_deref() {
            Some(lane) => *lanes.entry(lane).or_insert(trains.len()),
            None => trains.len(),
        };
        if place == trains.len() {
            trains.push(Train::default());
        }
        trains[place].rows.push_back((row, understood(row)));
    }
    trains
}

/// The steps of a row, if this version knows all of them and their keys.
fn understood(row: &DueRemoval) -> Option<VecDeque<Step<'_>>> {
    let known = |step: &Step<'_>| {
        let (Step::Write(key) | Step::Remove(key) | Step::Abort(key, _)) = step;
        key.parse::<Key>().is_ok()
    };
    let steps = row.steps.iter().map(|step| Step::parse(step).ok().filter(known));
    let steps = steps.collect::<Option<_>>();
    if steps.is_none() {
        tracing::error!(outbox = row.id, "removal has a step that this version does not know");
    }
    steps
}
