// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The walk: everything in the bucket against everything in the database.
//!
//! The bucket is cut into parts (shards) that replicas take under leases: first data, then uploads and
//! repositories, in which links come before manifests and manifests before tags. A part is a merge join of its
//! listing with its rows. When all parts are compared, the epoch is trusted. A last part is what lies outside of
//! them, which is only told.
//! Guarantees: what was done of a walk stays done, by whomever it goes on. Any number of replicas help.
//! A walk that would lose more than the breaker lets through stops for all of them.
//! Never: waits for anybody who has died longer than a minute. Who stops or fails gives back what it has taken.

mod sections;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use stowage_oci::Algorithm;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::compare::{Asked, at_once};
use super::verify::REST;
use super::{Broken, Comparer, Pace, Work, merge, under_lease};
use crate::domain::{Domain, Error, pulls};
use crate::key::Key;
use crate::meta::{self, Changes, Epoch, Loss, Mode, Shard, ShardOutcome};

/// Data comes first, as links look at it.
const DATA: u8 = 1;
/// Everything else.
const RECORDS: u8 = 2;
/// Objects asked for at once.
const PAGE: usize = 1000;
/// The first byte of digests at which the first page ends where there are few: 64 pages or less.
const FEW: u8 = 4;
/// Parts that one replica compares at the same time.
const PARTS: usize = 8;

/// Why a walk did not come to its end. What was compared stays so.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The database or the bucket.
    #[error(transparent)]
    Domain(#[from] Error),
    /// More would be lost than the breaker lets through.
    #[error(
        "{} of {} {} have no object in the bucket: check bucket and prefix; if the objects are really lost, \
         accept it with `rebuild --accept-loss`",
        .0.lost, .0.total, .0.kind.name()
    )]
    TooManyLosses(Loss),
    /// The process is to stop.
    #[error("the walk was stopped; it goes on where it was")]
    Stopped,
}

impl From<Broken> for WalkError {
    fn from(error: Broken) -> Self {
        match error {
            // Somebody has ended it: there is nothing left to do.
            Broken::Domain(Error::Stopping) | Broken::Walked => Self::Stopped,
            Broken::Domain(error) => error.into(),
            Broken::TooManyLosses(loss) => Self::TooManyLosses(loss),
        }
    }
}

/// What a walk came to.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// What this process did, by kind.
    pub changes: Changes,
    /// Objects that this process listed.
    pub listed: u64,
    /// Objects that are not of this layout, or cannot be read. They were left alone.
    pub foreign: u64,
}

/// Counts while a walk is under way.
#[derive(Debug, Default)]
pub(in crate::domain) struct Tally {
    changes: Mutex<Changes>,
    listed: AtomicU64,
    foreign: AtomicU64,
}

impl Tally {
    pub(super) fn add(&self, changes: &Changes) {
        if !changes.is_empty() {
            merge(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner), changes.clone());
        }
    }

    pub(super) fn listed(&self, count: usize) {
        self.listed.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts an object that is left alone; how many there are with it.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn objects(&self) -> u64 {
        self.listed.load(Ordering::Relaxed)
    }

    fn result(&self) -> Walked {
        Walked {
            changes: self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            listed: self.listed.load(Ordering::Relaxed),
            foreign: self.foreign.load(Ordering::Relaxed),
        }
    }
}

/// A walk to be made, or to help with.
#[derive(Clone)]
pub struct Walk {
    comparer: Comparer,
    pace: Pace,
    stopping: CancellationToken,
    accepts_loss: bool,
    /// How often in a row a step may fail that succeeds when it is tried again.
    patience: u32,
    tally: Arc<Tally>,
    /// Who takes parts. The same when the walk is run again, so that it finds those it broke off.
    owners: [Uuid; PARTS],
}

impl Walk {
    /// Of the registry of `domain`, at this pace, until `stopping`.
    #[must_use]
    pub fn new(domain: &Domain, pace: Pace, stopping: CancellationToken) -> Self {
        let comparer = domain.comparer.clone();
        let owners = std::array::from_fn(|_| Uuid::new_v4());
        Self { comparer, pace, stopping, accepts_loss: false, patience: 0, tally: Arc::default(), owners }
    }

    /// Goes on where one of its steps gets no answer in time. Beside clients that is no wonder; broken off each time,
    /// together with all that is under way, a walk might never end.
    #[must_use]
    pub fn patiently(self) -> Self {
        Self { patience: 10, ..self }
    }

    /// Goes on whatever is lost.
    #[must_use]
    pub fn accepting_loss(self) -> Self {
        Self { accepts_loss: true, ..self }
    }

    /// The pace of a walk in the background of a replica that serves.
    #[must_use]
    pub fn beside_clients() -> Pace {
        Pace::new(16, 2)
    }

    /// The pace of a walk that nothing else waits for.
    #[must_use]
    pub fn alone(requests_per_second: Option<NonZeroU32>) -> Pace {
        Pace::new(64, 8).with_rate(requests_per_second)
    }

    /// What this process has done so far.
    #[must_use]
    pub fn done(&self) -> Walked {
        self.tally.result()
    }

    /// How many objects were listed so far.
    #[must_use]
    pub fn listed(&self) -> u64 {
        self.tally.listed.load(Ordering::Relaxed)
    }

    /// How far all replicas are with the epoch.
    pub async fn progress(&self, epoch: Epoch) -> Result<meta::WalkProgress, Error> {
        Ok(self.comparer.meta.walk_progress(epoch).await?)
    }

    fn work(&self, epoch: Epoch, mode: Mode) -> Work {
        let work = self.comparer.work(epoch, mode, self.pace.clone());
        Work { tally: Arc::clone(&self.tally), ..work }
    }

    /// Compares everything in `epoch`, together with whoever else does, and marks the epoch as walked.
    #[must_use]
    pub fn run(&self, epoch: Epoch) -> BoxFuture<'_, Result<Walked, WalkError>> {
        Box::pin(self.walk(epoch))
    }

    async fn walk(&self, epoch: Epoch) -> Result<Walked, WalkError> {
        let work = self.work(epoch, Mode::Walk);
        self.unless_stopped(self.ensure_planned(&work)).await??;
        match self.work_together(&work).await {
            Ok(()) => {}
            Err(Broken::Walked) => return Ok(self.tally.result()),
            Err(error) => return Err(error.into()),
        }
        self.unless_stopped(self.end(epoch)).await??;
        Ok(self.tally.result())
    }

    async fn unless_stopped<T>(&self, step: impl Future<Output = T>) -> Result<T, WalkError> {
        self.stopping.run_until_cancelled(step).await.ok_or(WalkError::Stopped)
    }

    /// All parts are compared.
    async fn end(&self, epoch: Epoch) -> Result<(), Error> {
        let meta = &self.comparer.meta;
        // Manifests are there, so what is told of them finds its rows.
        pulls::restore(&self.comparer, epoch).await?;
        meta.queue_unreferenced(epoch).await?;
        if let Some(changes) = meta.end_walk(epoch).await? {
            self.tally.add(&changes);
        }
        Ok(())
    }

    /// Compares parts, several at a time and on all processors. What is under way ends with the first failure, or
    /// with this future.
    async fn work_together(&self, work: &Work) -> Result<(), Broken> {
        let mut workers: JoinSet<Result<(), Broken>> = JoinSet::new();
        for owner in self.owners {
            let (walk, work) = (self.clone(), work.clone());
            let help: BoxFuture<'static, _> = Box::pin(async move { walk.help(&work, owner).await });
            workers.spawn(help);
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = finished(ended) {
                self.give_back(work.scope.epoch, workers).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends all workers. Whoever goes on need not wait until their leases run out.
    async fn give_back(&self, epoch: Epoch, mut workers: JoinSet<Result<(), Broken>>) {
        const LAST_STEP: Duration = Duration::from_secs(3);
        // Those that were told to stop end at their next step. It may take a part, which is given back then.
        let ended = self.stopping.is_cancelled()
            && timeout(LAST_STEP, async { while workers.join_next().await.is_some() {} }).await.is_ok();
        if !ended {
            workers.shutdown().await;
        }
        let released = timeout(LAST_STEP, self.comparer.meta.release_shards(epoch, &self.owners)).await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::debug!(epoch = epoch.0, "the leases run out in a minute");
        }
    }

    /// Says which parts there are, unless somebody has.
    async fn ensure_planned(&self, work: &Work) -> Result<(), Broken> {
        let (meta, epoch) = (&self.comparer.meta, work.scope.epoch);
        if meta.walk_progress(epoch).await?.total == 0 {
            let mut shards = work.plan().await?;
            shards.push(Shard { phase: RECORDS, name: REST.to_owned() });
            if meta.plan_walk(epoch, &shards).await? {
                tracing::info!(
                    epoch = epoch.0,
                    parts = shards.len(),
                    "comparing the database with the bucket"
                );
            }
        }
        if self.accepts_loss {
            meta.accept_loss(epoch).await?;
        }
        Ok(())
    }

    /// Compares everything and changes nothing.
    pub async fn dry_run(&self) -> Result<Walked, WalkError> {
        let work = self.work(Epoch(0), Mode::DryRun);
        let outcome = async {
            for phase in [DATA, RECORDS] {
                let shards = work.plan().await?;
                let parts = shards.iter().filter(|shard| shard.phase == phase);
                for shard in parts {
                    work.shard(&shard.name).await?;
                }
            }
            work.outside().await
        };
        let outcome = self.stopping.run_until_cancelled(outcome).await.ok_or(WalkError::Stopped)?;
        outcome?;
        Ok(self.tally.result())
    }

    /// Takes parts until none is left.
    async fn help(&self, work: &Work, owner: Uuid) -> Result<(), Broken> {
        const PAUSE: Duration = Duration::from_millis(200);
        let mut failed = 0;
        while !self.stopping.is_cancelled() {
            match self.take(work, owner).await {
                Ok(Taken::Part) => failed = 0,
                Ok(Taken::Nothing) => sleep(PAUSE).await,
                Ok(Taken::All) => return Ok(()),
                Err(Broken::Domain(error)) if failed < self.patience && is_passing(&error) => {
                    failed += 1;
                    sleep(PAUSE * failed).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Stopping.into())
    }

    /// Takes a part, if there is one to be had, and compares it.
    async fn take(&self, work: &Work, owner: Uuid) -> Result<Taken, Broken> {
        match self.comparer.meta.claim_shard(work.scope.epoch, owner).await? {
            ShardOutcome::Claimed(shard) => self.compare(work, &shard, owner).await?,
            ShardOutcome::Unplanned => self.ensure_planned(work).await?,
            ShardOutcome::Wait => return Ok(Taken::Nothing),
            ShardOutcome::Done => return Ok(Taken::All),
            ShardOutcome::Stopped(loss) => return Err(Broken::TooManyLosses(loss)),
            ShardOutcome::Walked => return Err(Broken::Walked),
        }
        Ok(Taken::Part)
    }

    /// Compares a part while its lease is kept.
    async fn compare(&self, work: &Work, shard: &Shard, owner: Uuid) -> Result<(), Broken> {
        let (meta, epoch) = (&self.comparer.meta, work.scope.epoch);
        let keep = || meta.keep_shard(epoch, &shard.name, owner);
        if under_lease(keep, &self.stopping, Box::pin(work.part_of_walk(&shard.name))).await?.is_some() {
            meta.finish_shard(epoch, &shard.name, owner).await?;
        }
        Ok(())
    }
}

/// What somebody who helps has found to do.
enum Taken {
    Part,
    /// Others have what is left.
    Nothing,
    /// Nothing is left.
    All,
}

/// Whether the same may succeed a moment later: no connection was to be had in time, or no answer.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::DatabaseAway(meta::Error::Unavailable(_)) | Error::StoreAway(_))
}

/// How a task of a walk ended.
fn finished(ended: Result<Result<(), Broken>, JoinError>) -> Result<(), Broken> {
    ended.unwrap_or_else(|error| Err(Error::Internal(Box::new(error)).into()))
}

impl Work {
    async fn part_of_walk(&self, name: &str) -> Result<(), Broken> {
        if name == REST { self.outside().await } else { self.shard(name).await }
    }

    /// What lies outside of the parts is of another layout: it is left alone, and told.
    async fn outside(&self) -> Result<(), Broken> {
        let shards = self.plan().await?;
        let mut parts: Vec<String> = shards.into_iter().map(|shard| shard.name).collect();
        parts.sort();
        self.rest(&parts).await
    }

    /// The parts of the bucket, as it is now, and of the database.
    pub(super) async fn plan(&self) -> Result<Vec<Shard>, Broken> {
        let (blobs, uploads, repositories) =
            futures::try_join!(self.blob_shards(), self.upload_shards(), self.repository_shards())?;
        let phased = |phase| move |name| Shard { phase, name };
        let records = uploads.into_iter().chain(repositories).map(phased(RECORDS));
        Ok(blobs.into_iter().map(phased(DATA)).chain(records).collect())
    }

    /// Whether one page shows all of it.
    async fn is_small(&self, prefix: &str) -> Result<bool, Broken> {
        let _turn = self.pace.bucket().await;
        Ok(self.comparer.store.list(prefix, None, PAGE).await?.len() < PAGE)
    }

    /// So many parts that each holds many pages, but not so many that taking them costs more than comparing them.
    async fn blob_shards(&self) -> Result<Vec<String>, Broken> {
        let page = {
            let _turn = self.pace.bucket().await;
            self.comparer.store.list(Key::BLOBS, None, PAGE).await?
        };
        if page.len() < PAGE {
            return Ok(vec![Key::BLOBS.to_owned()]);
        }
        let many = Algorithm::Sha256;
        let others = Algorithm::ALL.into_iter().filter(|algorithm| *algorithm != many);
        let others = others.map(|algorithm| format!("{}{algorithm}/", Key::BLOBS));
        let last = page.last().and_then(|object| match object.key.parse() {
            Ok(Key::Blob { digest, .. }) if digest.algorithm() == many => digest.hash().first().copied(),
            _ => None,
        });
        // Digests are spread evenly: how far a page comes tells how many there are.
        let shards: Vec<String> = if last.is_some_and(|byte| byte >= FEW) {
            (0..16).map(|digit| format!("{}{many}/{digit:x}", Key::BLOBS)).collect()
        } else {
            (0..=u8::MAX).map(|byte| format!("{}{many}/{byte:02x}/", Key::BLOBS)).collect()
        };
        Ok(shards.into_iter().chain(others).collect())
    }

    async fn upload_shards(&self) -> Result<Vec<String>, Broken> {
        /// The digits of a generation.
        const DIGITS: &str = "0123456789abcdefghjkmnpqrstvwxyz";
        if self.is_small(Key::UPLOADS).await? {
            return Ok(vec![Key::UPLOADS.to_owned()]);
        }
        Ok(DIGITS.chars().map(|digit| format!("{}{digit}", Key::UPLOADS)).collect())
    }

    /// The first components of the names of repositories.
    async fn repository_shards(&self) -> Result<Vec<String>, Broken> {
        /// What a name can begin with.
        const FIRST: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
        if self.is_small(Key::REPOSITORIES).await? {
            return Ok(vec![Key::REPOSITORIES.to_owned()]);
        }
        let below = |first| -> Asked<'_, Vec<String>> { Box::pin(self.components(first)) };
        let listed = at_once(FIRST.chars().map(below).collect()).await?;
        let mut all: BTreeSet<String> = listed.into_iter().flatten().collect();
        let mut after: Option<String> = None;
        loop {
            let page = self.comparer.meta.repositories_below("", after.as_deref(), 1000).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.to_string());
            all.extend(page.iter().filter_map(|name| name.components().next().map(str::to_owned)));
        }
        Ok(all.into_iter().map(|component| format!("{}{component}/", Key::REPOSITORIES)).collect())
    }

    /// Those that begin with a character, each by the first key behind the one before.
    async fn components(&self, first: char) -> Result<Vec<String>, Broken> {
        let prefix = format!("{}{first}", Key::REPOSITORIES);
        let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let page = {
                let _turn = self.pace.bucket().await;
                self.comparer.store.list(&prefix, after.as_deref(), 1).await?
            };
            let Some(object) = page.into_iter().next() else { return Ok(found) };
            let below = object.key.strip_prefix(Key::REPOSITORIES).unwrap_or_default();
            let Some((component, _)) = below.split_once('/') else {
                // Not of this layout; what follows may be.
                after = Some(object.key);
                continue;
            };
            // `0` is what comes after `/`.
            after = Some(format!("{}{component}/\u{7f}", Key::REPOSITORIES));
            found.push(component.to_owned());
        }
    }
}
