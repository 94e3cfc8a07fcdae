// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reliability in figures: how fast a lost database comes back from the bucket, how fast garbage goes, and what
//! that does to those who push meanwhile.
//!
//! The commands are run as an administrator or a Job runs them, beside a registry that serves. Nobody waits for
//! the graces of collection to pass: between two passes all that is in the database is made a month older.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::load::{self, Stretch};
use crate::measure::{each, percentile, precise};
use crate::progress;
use crate::records::{Filled, fill};
use crate::report::{ReliabilityRow, Results};
use crate::scene::Ground;
use crate::servers::Programs;
use crate::site::{Ran, Site};
use crate::work::{Data, Task, Work};

/// What `--only` knows this work by.
pub(crate) const NAME: &str = "reliability";
/// Pushes go on while garbage is collected.
const PUSHES: Work = Work { task: Task::PushImage, clients: 2 };
/// How long they are measured without that.
const IDLE: Duration = Duration::from_secs(10);
/// More passes than any object needs.
const PASSES: usize = 20;

/// The measurements on one kind of storage.
pub(crate) struct Reliability<'a> {
    pub(crate) ground: Ground,
    pub(crate) programs: &'a Programs,
    pub(crate) data: &'a Data,
    /// How many images the bucket holds.
    pub(crate) images: u64,
    pub(crate) scratch: PathBuf,
}

impl Reliability<'_> {
    /// Measures; what it finds out is added to `results`.
    pub(crate) async fn play(&self, results: &mut Results) -> Result<()> {
        let site = Site::make(self.ground, self.programs, &self.scratch, None).await?;
        self.tell("a registry is founded");
        drop(site.stowage.start().await?);

        // A fifth was deleted, in two halves: one is collected alone, one beside pushes.
        let half = self.images / 10;
        self.tell("the bucket is filled");
        let filled = fill(&site.bucket, 0..self.images, 0..half)?;
        rustix::fs::sync();
        site.lose_database().await?;
        self.tell("rebuild of an empty database");
        let ran = site.run(&["rebuild", "--adopt"])?;
        ran.check("adoptedManifests", filled.manifests)?;
        ran.check("buriedManifests", filled.deleted)?;
        results.reliability.extend(self.rebuilt("rebuild, empty database", &ran, filled.manifests));

        self.tell("garbage is collected");
        let registry = site.stowage.start().await?;
        site.until_trusted().await?;
        let mut collected = Collected::default();
        while collected.passes < PASSES && collected.objects < filled.garbage {
            site.age().await?;
            collected.add(&site.run(&["gc"])?);
        }
        ensure!(collected.objects >= filled.garbage, "{} of {} went", collected.objects, filled.garbage);
        results.reliability.push(self.collected("gc", &collected));
        drop(registry);

        self.tell("more was deleted");
        let more = fill(&site.bucket, 0..0, half..2 * half)?;
        rustix::fs::sync();
        self.tell("rebuild of a database that is there");
        let ran = site.run(&["rebuild"])?;
        ran.check("buriedManifests", more.deleted)?;
        results.reliability.extend(self.rebuilt("rebuild, same database", &ran, filled.manifests));
        self.push_beside_gc(&site, more, results).await
    }

    async fn push_beside_gc(&self, site: &Site, garbage: Filled, results: &mut Results) -> Result<()> {
        let registry = site.stowage.start().await?;
        site.until_trusted().await?;
        let mut connections = load::connect(&registry.address, &PUSHES, self.data).await?;
        self.tell("pushes alone");
        // What is new costs more than what is not.
        load::repeat(&mut connections, &PUSHES, self.data, Duration::from_secs(1)).await?;
        let idle = load::repeat(&mut connections, &PUSHES, self.data, IDLE).await?;
        self.tell("pushes while garbage is collected");
        let mut collected = Collected::default();
        let mut beside = Stretch { latencies: Vec::new(), elapsed: Duration::ZERO };
        while collected.passes < PASSES && collected.objects < garbage.garbage {
            site.age().await?;
            let runs = Cell::new(true);
            let pass = async {
                let ran = site.run_apart(&["gc"]).await;
                runs.set(false);
                ran
            };
            let goes_on = || runs.get();
            let pushes = load::repeat_while(&mut connections, &PUSHES, self.data, &goes_on);
            let (ran, pushed) = tokio::try_join!(pass, pushes)?;
            // A pass that had nothing to do says nothing of one that has.
            if ran.count("deletedObjects") > 0 {
                beside.elapsed += pushed.elapsed;
                beside.latencies.extend(pushed.latencies);
            }
            collected.add(&ran);
        }
        beside.latencies.sort_unstable();
        ensure!(collected.objects >= garbage.garbage, "{} of {} went", collected.objects, garbage.garbage);
        let idle_p99 = percentile(&idle.latencies, 99);
        let ratio = precise(percentile(&beside.latencies, 99)) / precise(idle_p99);
        results.reliability.push(self.pushed(&format!("{PUSHES}, alone"), &idle, None));
        results.reliability.push(self.pushed(&format!("{PUSHES}, beside gc"), &beside, Some(ratio)));
        results.reliability.push(ReliabilityRow {
            // It is shared with those who push.
            cpu: None,
            storage_cpu: None,
            ..self.collected("gc, beside pushes", &collected)
        });
        Ok(())
    }

    fn row(&self, work: &str, unit: &str, units: u64, elapsed: Duration) -> ReliabilityRow {
        ReliabilityRow {
            storage: self.ground.name().to_owned(),
            work: work.to_owned(),
            unit: unit.to_owned(),
            units,
            seconds: elapsed.as_secs_f64(),
            cpu: None,
            storage_cpu: None,
            p50: None,
            p99: None,
            p99_ratio: None,
        }
    }

    fn rebuilt(&self, work: &str, ran: &Ran, manifests: u64) -> [ReliabilityRow; 2] {
        [("manifests", manifests), ("keys", ran.count("listedObjects"))].map(|(unit, units)| ReliabilityRow {
            cpu: Some(each(ran.cpu, units)),
            storage_cpu: ran.storage_cpu.map(|time| each(time, units)),
            ..self.row(work, unit, units, ran.elapsed)
        })
    }

    fn collected(&self, work: &str, collected: &Collected) -> ReliabilityRow {
        ReliabilityRow {
            cpu: Some(each(collected.cpu, collected.objects)),
            storage_cpu: collected.storage_cpu.map(|time| each(time, collected.objects)),
            ..self.row(work, "objects deleted", collected.objects, collected.elapsed)
        }
    }

    fn pushed(&self, work: &str, stretch: &Stretch, p99_ratio: Option<f64>) -> ReliabilityRow {
        let micros = |percent| Some(precise(percentile(&stretch.latencies, percent)) / 1e3);
        let units = stretch.latencies.len() as u64;
        ReliabilityRow {
            p50: micros(50),
            p99: micros(99),
            p99_ratio,
            ..self.row(work, "pushes", units, stretch.elapsed)
        }
    }

    fn tell(&self, what: &str) {
        progress(&format!("{}, {NAME}: {what}", self.ground.name()));
    }
}

/// What some passes of `gc` came to.
#[derive(Default)]
struct Collected {
    passes: usize,
    objects: u64,
    elapsed: Duration,
    cpu: Duration,
    storage_cpu: Option<Duration>,
}

impl Collected {
    fn add(&mut self, ran: &Ran) {
        self.passes += 1;
        self.objects += ran.count("deletedObjects");
        self.elapsed += ran.elapsed;
        self.cpu += ran.cpu;
        self.storage_cpu = ran.storage_cpu.map(|time| self.storage_cpu.unwrap_or_default() + time);
    }
}
