// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reliability in figures: how fast a lost database comes back from the bucket, how fast garbage goes, and what
//! that does to those who push meanwhile.
//!
//! The commands are run as an administrator or a Job runs them, beside a registry that serves. Nobody waits for
//! the graces of collection to pass: between two passes all that is in the database is made a month older.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::load::{self, Stretch};
use crate::measure::{percentile, precise, waited_for};
use crate::progress;
use crate::records::{Filled, fill};
use crate::report::{ReliabilityRow, Results};
use crate::scene::{Backing, Ground};
use crate::servers::{Kind, Programs, Stowage};
use crate::work::{Data, Task, Work};

/// What `--only` knows this work by.
pub(crate) const NAME: &str = "reliability";
/// Pushes go on while garbage is collected.
const PUSHES: Work = Work { task: Task::PushImage, clients: 2 };
/// How long they are measured without that.
const IDLE: Duration = Duration::from_secs(10);
/// How long a walk after the start may take.
const PATIENCE: Duration = Duration::from_mins(10);
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

/// A command that has ended.
struct Ran {
    printed: String,
    elapsed: Duration,
    cpu: Duration,
    storage_cpu: Option<Duration>,
}

impl Ran {
    /// What the summary counts under this name.
    fn count(&self, what: &str) -> u64 {
        let counts = self.printed.lines().filter_map(|line| line.split_once(' '));
        counts.filter(|(name, _)| *name == what).filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
    }
}

/// Where a registry of its own lies.
struct Site {
    backing: Backing,
    stowage: Stowage,
    /// The objects.
    bucket: PathBuf,
    /// The database, if it is a file.
    sqlite: Option<PathBuf>,
}

impl Reliability<'_> {
    /// Measures; what it finds out is added to `results`.
    pub(crate) async fn play(&self, results: &mut Results) -> Result<()> {
        let site = Site::make(self.ground, self.programs, &self.scratch).await?;
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
        check(&ran, "adoptedManifests", filled.manifests)?;
        check(&ran, "buriedManifests", filled.deleted)?;
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
        check(&ran, "buriedManifests", more.deleted)?;
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

/// Microseconds of each of some units.
fn each(time: Duration, units: u64) -> f64 {
    time.as_secs_f64() * 1e6 / precise(units.max(1))
}

fn check(ran: &Ran, what: &str, expected: u64) -> Result<()> {
    let found = ran.count(what);
    ensure!(found == expected, "{what} {found}, where {expected} were expected:\n{}", ran.printed);
    Ok(())
}

impl Site {
    async fn make(ground: Ground, programs: &Programs, scratch: &Path) -> Result<Self> {
        const KIND: Kind = Kind::Stowage;
        let backing = Backing::start(ground, &[KIND], programs, scratch).await?;
        let storage = backing.storage(KIND, scratch, None)?;
        let stowage = Stowage::on(programs, &storage, backing.database(), &scratch.join(KIND.name()))?;
        let bucket = match &backing.s3 {
            Some(s3) => s3.create_bucket(KIND.name())?,
            None => scratch.join(KIND.name()).join("data"),
        };
        let sqlite = backing.postgres.is_none().then(|| bucket.join("meta.sqlite"));
        let site = Self { backing, stowage, bucket, sqlite };
        site.migrate()?;
        Ok(site)
    }

    fn migrate(&self) -> Result<()> {
        if self.sqlite.is_none() {
            self.stowage.run(&["migrate"])?;
        }
        Ok(())
    }

    /// An empty database takes the place of the one there was.
    async fn lose_database(&self) -> Result<()> {
        if let Some(file) = &self.sqlite {
            for end in ["", "-wal", "-shm"] {
                // Not all are there.
                drop(std::fs::remove_file(file.with_extension(format!("sqlite{end}"))));
            }
            return Ok(());
        }
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "").await?;
        self.migrate()
    }

    /// Runs a command to its end.
    fn run(&self, words: &[&str]) -> Result<Ran> {
        let (cpu, storage) = (waited_for()?, self.backing.cpu()?);
        let begun = Instant::now();
        let printed = self.stowage.run(words)?;
        let elapsed = begun.elapsed();
        self.ran(printed, elapsed, cpu, storage)
    }

    /// The same, on a thread of its own.
    async fn run_apart(&self, words: &'static [&str]) -> Result<Ran> {
        let (cpu, storage) = (waited_for()?, self.backing.cpu()?);
        let stowage = self.stowage.clone();
        let begun = Instant::now();
        let printed = tokio::task::spawn_blocking(move || stowage.run(words)).await??;
        self.ran(printed, begun.elapsed(), cpu, storage)
    }

    fn ran(
        &self,
        printed: String,
        elapsed: Duration,
        cpu: Duration,
        storage: Option<Duration>,
    ) -> Result<Ran> {
        let storage_cpu =
            self.backing.cpu()?.zip(storage).map(|(after, before)| after.saturating_sub(before));
        Ok(Ran { printed, elapsed, cpu: waited_for()?.saturating_sub(cpu), storage_cpu })
    }

    /// Waits until the database is compared with the bucket: after its start with SQLite, a registry does.
    async fn until_trusted(&self) -> Result<()> {
        const TRUSTED: &str = "SELECT count(*) FROM meta WHERE reconciled = epoch";
        let end = Instant::now() + PATIENCE;
        loop {
            let trusted: i64 = match &self.sqlite {
                Some(file) => sqlx::query_scalar(TRUSTED).fetch_one(&mut open(file).await?).await?,
                None => sqlx::query_scalar(TRUSTED).fetch_one(&mut self.connect().await?).await?,
            };
            if trusted == 1 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the database is not compared with the bucket after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Makes everything a month older. Nobody works meanwhile.
    async fn age(&self) -> Result<()> {
        self.execute(include_str!("age.postgres.sql"), include_str!("age.sqlite.sql")).await?;
        // Each row was written anew, which a month does not.
        self.execute("VACUUM", "PRAGMA wal_checkpoint(PASSIVE)").await
    }

    async fn execute(&self, postgres: &'static str, sqlite: &'static str) -> Result<()> {
        match &self.sqlite {
            Some(file) => open(file).await?.execute(sqlite).await.map(|_| ())?,
            None => self.connect().await?.execute(postgres).await.map(|_| ())?,
        }
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection> {
        let postgres = self.backing.postgres.as_ref().context("there is no Postgres")?;
        Ok(PgConnection::connect(postgres.url()).await?)
    }
}

async fn open(file: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(file);
    Ok(SqliteConnection::connect_with(&options).await?)
}
