// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Verification: the walk over a database that is trusted. What a walk would settle is wrong here.
//!
//! Flow: a pass has the parts of a walk, one for what lies outside of them, and one for the multipart uploads that
//! the store keeps open. Each part is the same merge join; what differs is inspected under lock (see
//! `meta::reconcile::inspect`) and told. A deep one reads content, too.
//! Guarantees: nothing is changed but what a repair is allowed to; nothing is a finding that a request under way
//! explains. Any number of processes share a pass, beside any number of pushes, pulls and collectors.
//! Never: adopts what no row knows, touches what is not of this layout.

mod content;
mod look;

use std::collections::{BTreeMap, HashSet};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Broken, Comparer, Pace, Walk, Work, under_lease, walk};
use crate::domain::{Domain, Error};
use crate::meta::{self, Epoch, Finding, Job, Mode, MultipartFound, Pass};

/// Parts that one process looks at at the same time.
const PARTS: usize = 8;
/// The part of all that lies outside of the others. No key begins so.
pub(super) const REST: &str = "rest:";
/// The part of the multipart uploads.
const MULTIPARTS: &str = MultipartFound::PREFIX;

/// How a verification is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Content is read and hashed.
    pub deep: bool,
    /// What is safe is put right.
    pub repair: bool,
    /// Bytes of content a second, at most.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Requests to the bucket a second, at most.
    pub requests_per_second: Option<NonZeroU32>,
}

/// What a verification came to.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// What this process found, by kind.
    pub findings: BTreeMap<&'static str, u64>,
    /// How many of them were put right.
    pub repaired: u64,
    /// What all who shared the pass found.
    pub total: u64,
    /// Objects that this process listed.
    pub objects: u64,
    /// Bytes of content that it read.
    pub bytes: u64,
}

type Told = Box<dyn Fn(&Finding) + Send + Sync>;

/// What all parts in this process share.
struct Shared {
    tell: Told,
    /// What was told: a name that is looked at twice is wrong once.
    told: Mutex<HashSet<(meta::Problem, String)>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    repaired: AtomicU64,
    bytes: AtomicU64,
}

/// What was found in a part.
pub(in crate::domain) struct Findings {
    shared: Arc<Shared>,
    deep: bool,
    here: AtomicU64,
}

impl Findings {
    pub(super) fn report(&self, finding: &Finding) {
        let name = (finding.problem, finding.key.clone());
        if !self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).insert(name) {
            return;
        }
        self.here.fetch_add(1, Ordering::Relaxed);
        let mut counts = self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(finding.problem.name()).or_default() += 1;
        drop(counts);
        self.shared.repaired.fetch_add(u64::from(finding.repaired), Ordering::Relaxed);
        (self.shared.tell)(finding);
    }

    fn count(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

/// A verification to be made, or to help with.
#[derive(Clone)]
pub struct Verify {
    comparer: Comparer,
    pace: Pace,
    options: VerifyOptions,
    stopping: CancellationToken,
    tally: Arc<walk::Tally>,
    shared: Arc<Shared>,
    owners: [Uuid; PARTS],
}

impl Verify {
    /// Of the registry of `domain`, with nothing else to wait for; each finding is told as it is made.
    pub fn alone(
        domain: &Domain,
        options: VerifyOptions,
        stopping: CancellationToken,
        tell: impl Fn(&Finding) + Send + Sync + 'static,
    ) -> Self {
        Self::new(domain, Walk::alone(options.requests_per_second), options, stopping, tell)
    }

    /// The same, in the background of a replica that serves.
    pub fn beside_clients(
        domain: &Domain,
        options: VerifyOptions,
        stopping: CancellationToken,
        tell: impl Fn(&Finding) + Send + Sync + 'static,
    ) -> Self {
        Self::new(domain, Pace::new(4, 1), options, stopping, tell)
    }

    fn new(
        domain: &Domain,
        pace: Pace,
        options: VerifyOptions,
        stopping: CancellationToken,
        tell: impl Fn(&Finding) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            tell: Box::new(tell),
            told: Mutex::default(),
            counts: Mutex::default(),
            repaired: AtomicU64::default(),
            bytes: AtomicU64::default(),
        });
        Self {
            comparer: domain.comparer.clone(),
            pace: pace.with_bytes(options.bytes_per_second),
            options,
            stopping,
            tally: Arc::default(),
            shared,
            owners: std::array::from_fn(|_| Uuid::new_v4()),
        }
    }

    /// What this process has found and done so far.
    #[must_use]
    pub fn done(&self) -> Verified {
        let counts = self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Verified {
            total: counts.values().sum(),
            findings: counts,
            repaired: self.shared.repaired.load(Ordering::Relaxed),
            objects: self.tally.objects(),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// How far the pass is, by whomever.
    pub async fn progress(&self) -> Result<Pass, Error> {
        Ok(self.comparer.meta.pass(self.job()).await?)
    }

    fn job(&self) -> Job {
        let VerifyOptions { deep, repair, .. } = self.options;
        Job::Verify { deep, repair }
    }

    fn work(&self, epoch: Epoch) -> Work {
        let mode = if self.options.repair { Mode::Repair } else { Mode::Verify };
        let work = self.comparer.work(epoch, mode, self.pace.clone());
        let findings = Findings {
            shared: Arc::clone(&self.shared),
            deep: self.options.deep,
            here: AtomicU64::default(),
        };
        Work { tally: Arc::clone(&self.tally), findings: Some(Arc::new(findings)), ..work }
    }

    /// Looks at everything in `epoch`, which is trusted, together with whoever else does.
    #[must_use]
    pub fn run(&self, epoch: Epoch) -> BoxFuture<'_, Result<Verified, Error>> {
        Box::pin(async move {
            let verified = self.pass(epoch).await;
            verified.map_err(error)
        })
    }

    async fn pass(&self, epoch: Epoch) -> Result<Verified, Broken> {
        self.ensure_planned(epoch, self.job(), Duration::ZERO).await?;
        let workers = self.owners.map(|owner| -> BoxFuture<'_, _> { Box::pin(self.help(epoch, owner)) });
        let totals = match try_join_all(workers).await {
            Err(error) => {
                self.release(self.job()).await;
                return Err(error);
            }
            totals => totals?,
        };
        let done = self.done();
        // Another pass may have begun by now, in which what we have repaired is right.
        let total = totals.into_iter().max().unwrap_or_default().max(done.total);
        Ok(Verified { total, ..done })
    }

    async fn ensure_planned(&self, epoch: Epoch, job: Job, spread: Duration) -> Result<(), Broken> {
        let meta = &self.comparer.meta;
        if meta.pass(job).await?.is_over(spread) {
            let shards = self.work(epoch).plan().await?;
            let parts = shards.into_iter().map(|shard| shard.name);
            let parts: Vec<String> = parts.chain([REST, MULTIPARTS].map(str::to_owned)).collect();
            meta.begin_pass(job, &parts, spread).await?;
        }
        Ok(())
    }

    /// Takes parts until all are done: what was found in all of them.
    async fn help(&self, epoch: Epoch, owner: Uuid) -> Result<u64, Broken> {
        const PAUSE: Duration = Duration::from_millis(200);
        let (meta, job) = (&self.comparer.meta, self.job());
        loop {
            if let Some(part) = meta.claim_part(job, owner, Duration::ZERO).await? {
                self.look_at(epoch, job, &part, owner).await?;
                continue;
            }
            let pass = meta.pass(job).await?;
            if pass.done == pass.total {
                return Ok(pass.findings);
            }
            // Others are at all that is left.
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.stopping.cancelled() => return Err(Error::Stopping.into()),
            }
        }
    }

    /// Looks at a part while its lease is kept.
    async fn look_at(&self, epoch: Epoch, job: Job, part: &str, owner: Uuid) -> Result<(), Broken> {
        let (meta, work) = (&self.comparer.meta, self.work(epoch));
        let keep = || meta.keep_part(job, part, owner);
        if under_lease(keep, &self.stopping, Box::pin(work.part(job, part))).await?.is_some() {
            let findings = work.findings.as_ref().map_or(0, |findings| findings.count());
            meta.finish_part(job, part, owner, findings).await?;
        }
        Ok(())
    }

    /// Whoever goes on need not wait until the leases run out.
    async fn release(&self, job: Job) {
        if let Err(error) = self.comparer.meta.release_parts(job, &self.owners).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the leases run out in a minute");
        }
    }

    /// A part of a pass in the background, if the time of one has come: whether one was looked at.
    pub async fn scrub(&self, epoch: Epoch, spread: Duration) -> Result<bool, Error> {
        let one = async {
            let owner = self.owners[0];
            self.ensure_planned(epoch, Job::Scrub, spread).await?;
            let Some(part) = self.comparer.meta.claim_part(Job::Scrub, owner, spread).await? else {
                return Ok(false);
            };
            self.look_at(epoch, Job::Scrub, &part, owner).await?;
            Ok(true)
        };
        let one: BoxFuture<'_, _> = Box::pin(one);
        match one.await {
            Err(broken) => {
                self.release(Job::Scrub).await;
                Err(error(broken))
            }
            looked => looked.map_err(error),
        }
    }
}

impl Work {
    async fn part(&self, job: Job, part: &str) -> Result<(), Broken> {
        match part {
            REST => self.rest(&self.comparer.meta.parts(job).await?).await,
            MULTIPARTS => self.multiparts().await,
            prefix => self.shard(prefix).await,
        }
    }
}

fn error(broken: Broken) -> Error {
    match broken {
        Broken::Domain(error) => error,
        // Neither is said to a verification.
        other => Error::Internal(Box::new(other)),
    }
}
