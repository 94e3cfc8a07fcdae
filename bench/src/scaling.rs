// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What becomes of speed when there are more replicas, and when there is more content. On Postgres and S3.
//!
//! Setups that are compared run at once and are given work in turn, as registries are. Content that a registry has
//! grown to is rows in its database: pushing it would take days.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use hyper::{Method, StatusCode};
use rustix::process::Pid;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::load::{self, Client, Connection, Stretch};
use crate::measure::{Figures, Used, cpu_of, own_cpu};
use crate::progress;
use crate::report::{Results, ScalingRow, Settings};
use crate::scene::{AFTERMATH, Backing, Ground};
use crate::servers::{DATABASE, Kind, Postgres, Programs, Registry, Storage};
use crate::stowage::Stowage;
use crate::work::{Data, Task, Work, leap};

/// What `--only` knows these measurements by.
pub(crate) const SCALE_OUT: &str = "scale-out";
pub(crate) const GROWTH: &str = "growth";
/// Setups, by the names that they have in the report.
pub(crate) const ONE: &str = "one replica";
pub(crate) const TWO: &str = "two replicas";
pub(crate) const EMPTY: &str = "empty";
pub(crate) const GROWN: &str = "grown";
/// Any of the manifests there are, instead of a few.
pub(crate) const ALL_OVER: &str = "grown, any manifest";
/// A stretch is longer by this: what is compared differs by little.
const LONGER: u32 = 3;
/// Manifests of a repository that has grown.
pub(crate) const IMAGES: u64 = 100;

const PULLS: Work = Work { task: Task::ManifestByTag, clients: 64 };
const PUSHES: Work = Work { task: Task::PushImage, clients: 8 };

/// The measurements.
pub(crate) struct Scaling<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) data: &'a Data,
    pub(crate) settings: Settings,
    pub(crate) scratch: PathBuf,
}

/// What is measured: a piece of work in a setup.
struct Case<'a> {
    setup: &'static str,
    work: Work,
    registries: Vec<&'a Registry>,
    /// Work of another kind: any of so many manifests is asked for.
    all_over: Option<u64>,
    rounds: Vec<Figures>,
}

impl<'a> Case<'a> {
    fn new(setup: &'static str, work: Work, registries: Vec<&'a Registry>) -> Self {
        Self { setup, work, registries, all_over: None, rounds: Vec::new() }
    }
}

impl Scaling<'_> {
    /// One replica beside two on the same database and bucket, which share the clients.
    pub(crate) async fn play_scale_out(&self, results: &mut Results) -> Result<()> {
        let backing = self.backing().await?;
        let first = self.start("first", DATABASE, &backing).await?;
        self.data.give(None, &first.address, &[PULLS.task]).await.context("give the content")?;
        let second = self.start("second", DATABASE, &backing).await?;
        let mut cases = [Case::new(ONE, PULLS, vec![&first]), Case::new(TWO, PULLS, vec![&first, &second])];
        self.rounds(SCALE_OUT, &mut cases, &backing).await?;
        results.scaling.extend(rows(SCALE_OUT, "", &cases));
        Ok(())
    }

    /// A registry with little content beside one with much, each in its own database on the same server.
    pub(crate) async fn play_growth(&self, manifests: u64, results: &mut Results) -> Result<()> {
        let repositories = (manifests / IMAGES).max(1);
        let manifests = repositories * IMAGES;
        let backing = self.backing().await?;
        let postgres = backing.postgres.as_ref().context("there is no Postgres")?;
        PgConnection::connect(postgres.url()).await?.execute("CREATE DATABASE grown").await?;
        let empty = self.start("empty", DATABASE, &backing).await?;
        let grown = self.start("grown", "grown", &backing).await?;
        progress(&format!("{GROWTH}: {manifests} manifests are written into the database"));
        grow(&Postgres::url_at(postgres.address(), "grown"), manifests, repositories).await?;
        for registry in [&empty, &grown] {
            self.data.give(None, &registry.address, &[PULLS.task]).await.context("give the content")?;
        }
        rustix::fs::sync();
        let mut cases = [
            Case::new(EMPTY, PULLS, vec![&empty]),
            Case::new(GROWN, PULLS, vec![&grown]),
            Case { all_over: Some(manifests), ..Case::new(ALL_OVER, PULLS, vec![&grown]) },
            Case::new(EMPTY, PUSHES, vec![&empty]),
            Case::new(GROWN, PUSHES, vec![&grown]),
        ];
        self.rounds(GROWTH, &mut cases, &backing).await?;
        let size = format!("{manifests} manifests in {repositories} repositories");
        results.scaling.extend(rows(GROWTH, &size, &cases));
        Ok(())
    }

    async fn backing(&self) -> Result<Backing> {
        Backing::start(Ground::S3, &[Kind::Stowage], self.programs, &self.scratch).await
    }

    /// Starts a replica on a database, with the bucket of the same name.
    async fn start(&self, name: &str, database: &str, backing: &Backing) -> Result<Registry> {
        let (s3, postgres) = backing.s3.as_ref().zip(backing.postgres.as_ref()).context("no storage")?;
        s3.create_bucket(database)?;
        let storage = Storage::S3 { endpoint: s3.address().to_owned(), bucket: database.to_owned() };
        let url = Postgres::url_at(postgres.address(), database);
        let stowage = Stowage::on(self.programs, &storage, Some(&url), &self.scratch.join(name))?;
        stowage.run(&["migrate"])?;
        stowage.start().await
    }

    async fn rounds(&self, name: &str, cases: &mut [Case<'_>], backing: &Backing) -> Result<()> {
        let count = cases.len();
        for round in 0..self.settings.rounds {
            progress(&format!("{name}, round {} of {}", round + 1, self.settings.rounds));
            for turn in 0..count {
                let case = &mut cases[(turn + round) % count];
                let figures = self.measure(case, backing).await;
                case.rounds.push(figures.with_context(|| format!("{}, {}", case.setup, case.work))?);
            }
        }
        Ok(())
    }

    async fn measure(&self, case: &Case<'_>, backing: &Backing) -> Result<Figures> {
        let each = Work { clients: case.work.clients / case.registries.len(), ..case.work };
        let mut connections = Vec::new();
        for registry in &case.registries {
            connections.extend(load::connect(&registry.address, &each, self.data).await?);
        }
        let pids: Vec<Pid> = case.registries.iter().map(|registry| registry.process.pid()).collect();
        let used = || -> Result<Used> {
            Ok(Used { registry: Some(cpu_of(&pids)?), storage: backing.cpu()?, client: own_cpu() })
        };
        let length = Duration::from_secs_f64(self.settings.seconds) * LONGER;
        let before = used()?;
        let stretch = match case.all_over {
            None => load::repeat(&mut connections, &case.work, self.data, length).await?,
            Some(manifests) => pull_all_over(&mut connections, manifests, length).await?,
        };
        let client = own_cpu();
        tokio::time::sleep(AFTERMATH).await;
        let after = Used { client, ..used()? };
        if case.work.task.writes() {
            rustix::fs::sync();
        }
        Ok(Figures::of(&stretch, after.since(before), None))
    }
}

fn rows(experiment: &str, size: &str, cases: &[Case<'_>]) -> Vec<ScalingRow> {
    let row = |case: &Case<'_>| ScalingRow {
        experiment: experiment.to_owned(),
        size: size.to_owned(),
        work: case.work.to_string(),
        setup: case.setup.to_owned(),
        rounds: case.rounds.clone(),
    };
    cases.iter().map(row).collect()
}

/// Writes the rows of so much content into a database that has none.
pub(crate) async fn grow(url: &str, manifests: u64, repositories: u64) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let settings =
        "SELECT set_config('bench.manifests', $1, false), set_config('bench.repositories', $2, false)";
    sqlx::query(settings)
        .bind(manifests.to_string())
        .bind(repositories.to_string())
        .execute(&mut connection)
        .await?;
    connection.execute(include_str!("grown.postgres.sql")).await.context("write the rows")?;
    connection.execute("VACUUM ANALYZE").await?;
    connection.execute("CHECKPOINT").await?;
    Ok(())
}

/// Asks for manifests of a registry that has grown, by their numbers, as long as there are any.
pub(crate) async fn pull_numbered(
    connections: &mut [Connection],
    next: &dyn Fn() -> Option<u64>,
) -> Result<Stretch> {
    let begun = Instant::now();
    let again = async |client: &mut Client| {
        let mut latencies = Vec::new();
        while let Some(number) = next() {
            let asked = Instant::now();
            let path = format!("/v2/bench/grown-{}/manifests/v{}", number / IMAGES, number % IMAGES);
            client.send(Method::GET, &path).await?.expect(StatusCode::OK).context("GET of a manifest")?;
            latencies.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(latencies)
    };
    let clients: FuturesUnordered<_> = connections
        .iter_mut()
        .map(|connection| connection.with(async |client| again(client).await))
        .collect();
    let mut latencies: Vec<u64> = clients.try_concat().await?;
    latencies.sort_unstable();
    Ok(Stretch { latencies, elapsed: begun.elapsed() })
}

/// Any of them for so long, in no order that an index has.
async fn pull_all_over(connections: &mut [Connection], manifests: u64, length: Duration) -> Result<Stretch> {
    let (turn, begun) = (Cell::new(0_u64), Instant::now());
    let next = || {
        let number = leap(turn.replace(turn.get() + 1), manifests);
        (begun.elapsed() < length).then_some(number)
    };
    pull_numbered(connections, &next).await
}
