// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Policies in figures: what it costs to remember what was pulled, how long a promotion takes, what a plan of many tags
//! takes, how fast it is carried out, and what that does to those who push meanwhile.
//!
//! Commands run beside a registry that serves. Many tags are rows that were written by SQL: pushing them takes days.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use crate::artifact::{Artifact, REFERRERS, TAG};
use crate::load::{self, Client, Connection, NOTHING, Stretch};
use crate::measure::{Figures, Used, cpu_of, each, own_cpu, precise};
use crate::progress;
use crate::report::{PolicyRow, Results};
use crate::scaling::{IMAGES, pull_numbered};
use crate::scene::{AFTERMATH, Ground};
use crate::servers::{Programs, Registry};
use crate::site::{Ran, Site};
use crate::stowage::{More, resource};
use crate::work::{Data, Task, Work};

/// What `--only` knows this work by.
pub(crate) const NAME: &str = "policies";
/// Rows, by the names that they have in the report.
pub(crate) const KNOWN: [&str; 2] = ["pulls, not recorded", "pulls, recorded"];
pub(crate) const FIRST: [&str; 2] = ["first pulls of a day, not recorded", "first pulls of a day, recorded"];
pub(crate) const PROMOTION: &str = "promotion";
pub(crate) const PLAN: &str = "retention, plan";
pub(crate) const PUSHED: [&str; 2] = ["pushes alone", "pushes beside retention"];
pub(crate) const ENFORCEMENT: &str = "retention, beside pushes";

const PULLS: Work = Work { task: Task::ManifestByTag, clients: 8 };
/// Pulls are measured so many times as often, and as long, as other work: what is compared differs by little.
const TIMES: usize = 3;
/// Manifests that are pulled in a round for the first time.
const NEW: u64 = 10_000;
/// A registry has told its database of what was pulled after so long.
const TOLD: Duration = Duration::from_secs(11);
const PROMOTIONS: u64 = 20;
/// How long a promotion may take.
const PATIENCE: Duration = Duration::from_mins(1);
const PUSHES: Work = Work { task: Task::PushImage, clients: 2 };
/// How long they are measured without retention.
const ALONE: Duration = Duration::from_secs(10);
/// For one repository whose tags go there are so many that are only planned.
const PLANNED: u64 = 50;

/// The measurements on one kind of storage.
pub(crate) struct Policies<'a> {
    pub(crate) ground: Ground,
    pub(crate) programs: &'a Programs,
    pub(crate) data: &'a Data,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// How many tags there are to plan.
    pub(crate) tags: u64,
    pub(crate) scratch: PathBuf,
}

/// A registry that serves, and what it stands on.
struct Seat {
    registry: Registry,
    site: Site,
}

impl Policies<'_> {
    /// Measures; what it finds out is added to `results`.
    pub(crate) async fn play(&self, results: &mut Results) -> Result<()> {
        results.policies.extend(self.pulls().await?);
        results.policies.push(self.promotions().await?);
        results.policies.extend(self.retention().await?);
        Ok(())
    }

    async fn seat(&self, name: &str, more: &More) -> Result<Seat> {
        let site = Site::make(self.ground, self.programs, &self.scratch.join(name), Some(more)).await?;
        let registry = site.stowage.start().await?;
        site.until_trusted().await?;
        Ok(Seat { registry, site })
    }

    /// Two registries in turn: one whose `pullTracking` ignores everybody, and one as it comes.
    async fn pulls(&self) -> Result<Vec<PolicyRow>> {
        let nobody = json!({ "ignoreSubjects": [{ "anonymous": {} }] });
        let spec = Map::from_iter([("pullTracking".to_owned(), nobody)]);
        let ignoring = More { spec, ..More::default() };
        let seats =
            [self.seat("ignoring", &ignoring).await?, self.seat("recording", &More::default()).await?];
        for seat in &seats {
            seat.site.grow(self.rounds as u64 * NEW / IMAGES).await?;
            let given = self.data.give(None, &seat.registry.address, &[PULLS.task]).await;
            given.context("give the content")?;
        }
        rustix::fs::sync();
        let (mut known, mut first) = (self.pair(KNOWN, "pulls"), self.pair(FIRST, "pulls"));
        let length = Duration::from_secs_f64(self.seconds) * u32::try_from(TIMES)?;
        for round in 0..self.rounds * TIMES {
            self.tell(&format!("pulls, round {}", round + 1));
            for at in in_turn(round) {
                let pull = async |connections: &mut [Connection]| {
                    load::repeat(connections, &PULLS, self.data, length).await
                };
                known[at].rounds.push(self.pulled(&seats[at], AFTERMATH, pull).await?);
            }
        }
        for round in 0..self.rounds {
            self.tell(&format!("first pulls of a day, round {}", round + 1));
            for at in in_turn(round) {
                let next = Cell::new(round as u64 * NEW);
                let end = next.get() + NEW;
                let number = || Some(next.replace(next.get() + 1)).filter(|number| *number < end);
                let pull = async |connections: &mut [Connection]| pull_numbered(connections, &number).await;
                first[at].rounds.push(self.pulled(&seats[at], TOLD, pull).await?);
            }
        }
        Ok(known.into_iter().chain(first).collect())
    }

    /// What some pulls take, with all that comes of them within `rest`.
    async fn pulled(
        &self,
        seat: &Seat,
        rest: Duration,
        pull: impl AsyncFnOnce(&mut [Connection]) -> Result<Stretch>,
    ) -> Result<Figures> {
        let mut connections = load::connect(&seat.registry.address, &PULLS, self.data).await?;
        let before = seat.used()?;
        let stretch = pull(&mut connections).await?;
        let client = own_cpu();
        sleep(rest).await;
        let after = Used { client, ..seat.used()? };
        Ok(Figures::of(&stretch, after.since(before), None))
    }

    /// From the push of a tag until the tag is in the target of an automatic policy, with all that belongs to it.
    async fn promotions(&self) -> Result<PolicyRow> {
        let policy = json!({
            "from": { "repositories": ["staging/**"] }, "to": { "repository": "prod/{path}" }, "trigger": "Automatic",
        });
        let resources = vec![resource("PromotionPolicy", "promoted", policy)];
        let seat = self.seat("promoting", &More { resources, ..More::default() }).await?;
        self.tell("promotions");
        let artifact = Artifact::new();
        let mut connection = Connection::open(&seat.registry.address).await?;
        let (mut latencies, mut used) = (Vec::new(), Vec::new());
        for number in 0..PROMOTIONS {
            let (source, target) = (format!("staging/app-{number}"), format!("prod/app-{number}"));
            connection.with(async |client| artifact.give(client, &source).await).await?;
            rustix::fs::sync();
            let before = seat.used()?;
            let begun = Instant::now();
            let promote = async |client: &mut Client| {
                artifact.tag(client, &source).await?;
                until_there(client, &target).await
            };
            let promoted = timeout(PATIENCE, connection.with(promote)).await;
            promoted.with_context(|| format!("nothing in {target}"))??;
            latencies.push(u64::try_from(begun.elapsed().as_nanos())?);
            used.push(seat.used()?.since(before));
            let path = format!("/v2/{target}/referrers/{}", artifact.digest());
            let listed = connection.with(async |client| client.fetch(&path, NOTHING).await).await?;
            let listed: Value = serde_json::from_slice(&listed)?;
            let referrers = listed["manifests"].as_array().map_or(0, Vec::len);
            ensure!(referrers == REFERRERS, "{referrers} referrers in {target}");
        }
        latencies.sort_unstable();
        let elapsed = latencies.iter().map(|nanos| Duration::from_nanos(*nanos)).sum();
        let sum = |of: fn(&Used) -> Option<Duration>| used.iter().map(of).sum();
        let used = Used {
            registry: sum(|used| used.registry),
            storage: sum(|used| used.storage),
            client: used.iter().map(|used| used.client).sum(),
        };
        let figures = Figures::of(&Stretch { latencies, elapsed }, used, None);
        Ok(PolicyRow { rounds: vec![figures], ..self.row(PROMOTION, "promotions") })
    }

    async fn retention(&self) -> Result<Vec<PolicyRow>> {
        let resources = vec![planning(), enforcing()];
        let seat = self.seat("retaining", &More { resources, ..More::default() }).await?;
        let Seat { registry, site } = &seat;
        let repositories = (self.tags / IMAGES / PLANNED).max(1);
        let (planned, retired) = (repositories * PLANNED * IMAGES, repositories * IMAGES);
        self.tell(&format!("{} tags are written into the database", planned + retired));
        site.grow(repositories * (PLANNED + 1)).await?;
        site.execute(RETIRED, RETIRED).await?;
        self.data.give(None, &registry.address, &[]).await.context("give the content")?;
        rustix::fs::sync();

        self.tell("a plan");
        let ran = site.run(&["retention", "--policy", "planned", "--dry-run"])?;
        ran.check("evaluatedTags", planned)?;
        ran.check("wouldDeleteTags", planned / 5)?;
        let plan = PolicyRow { rounds: vec![of_command(&ran, planned)], ..self.row(PLAN, "tags") };
        // It tells first.
        let ran = site.run(&["retention", "--policy", "enforced"])?;
        ran.check("wouldDeleteTags", retired)?;

        self.tell("pushes alone");
        let mut connections = load::connect(&registry.address, &PUSHES, self.data).await?;
        // What is new costs more than what is not.
        load::repeat(&mut connections, &PUSHES, self.data, Duration::from_secs(1)).await?;
        let alone = load::repeat(&mut connections, &PUSHES, self.data, ALONE).await?;
        self.tell("pushes while tags are deleted");
        let runs = Cell::new(true);
        let enforcement = async {
            let ran = site.run_apart(&["retention", "--policy", "enforced"]).await;
            runs.set(false);
            ran
        };
        let goes_on = || runs.get();
        let pushes = load::repeat_while(&mut connections, &PUSHES, self.data, &goes_on);
        let (ran, beside) = tokio::try_join!(enforcement, pushes)?;
        ran.check("deletedTags", retired)?;
        let [mut of_alone, mut of_beside] = self.pair(PUSHED, "pushes");
        of_alone.rounds.push(Figures::of(&alone, UNKNOWN, None));
        of_beside.rounds.push(Figures::of(&beside, UNKNOWN, None));
        let enforcement = Figures { storage_cpu: None, ..of_command(&ran, retired) };
        let enforced = PolicyRow { rounds: vec![enforcement], ..self.row(ENFORCEMENT, "tags deleted") };
        Ok(vec![plan, of_alone, of_beside, enforced])
    }

    fn row(&self, work: &str, unit: &str) -> PolicyRow {
        PolicyRow {
            storage: self.ground.name().to_owned(),
            work: work.to_owned(),
            unit: unit.to_owned(),
            to: None,
            rounds: Vec::new(),
        }
    }

    /// The second is set in proportion to the first.
    fn pair(&self, works: [&str; 2], unit: &str) -> [PolicyRow; 2] {
        let [first, second] = works.map(|work| self.row(work, unit));
        let to = Some(first.work.clone());
        [first, PolicyRow { to, ..second }]
    }

    fn tell(&self, what: &str) {
        progress(&format!("{}, {NAME}: {what}", self.ground.name()));
    }
}

impl Seat {
    fn used(&self) -> Result<Used> {
        Ok(Used {
            registry: Some(cpu_of(&[self.registry.process.pid()])?),
            storage: self.site.backing.cpu()?,
            client: own_cpu(),
        })
    }
}

/// Shared with those who run beside.
const UNKNOWN: Used = Used { registry: None, storage: None, client: Duration::ZERO };

/// Repositories whose tags go: one of each [`PLANNED`] and one.
const RETIRED: &str = "UPDATE repositories SET name = replace(name, 'grown', 'retired') \
                       WHERE id <= (SELECT max(id) / 51 FROM repositories)";

/// Which of two is first.
fn in_turn(round: usize) -> [usize; 2] {
    [round % 2, (round + 1) % 2]
}

/// Rules of each kind. The newest four fifths of the versions of each repository stay.
fn planning() -> Value {
    let keep = json!([
        { "name": "latest", "tags": { "exact": ["latest"] } },
        { "name": "releases", "tags": { "semver": { "range": ">=0.0.0" } }, "mostRecent": { "count": 80, "by": "Version" } },
        { "name": "recent", "pushedWithin": "1s" },
        { "name": "used", "pulledWithin": "1s" },
        { "name": "promoted", "promoted": { "to": ["prod/**"] } },
    ]);
    retention("planned", "bench/grown-*", "DryRun", &keep)
}

fn enforcing() -> Value {
    let keep = json!([{ "name": "latest", "tags": { "exact": ["latest"] } }]);
    retention("enforced", "bench/retired-*", "Enforce", &keep)
}

/// A policy that never comes due while it is measured.
fn retention(name: &str, include: &str, mode: &str, keep: &Value) -> Value {
    let spec = json!({
        "repositories": { "include": [include] }, "mode": mode, "schedule": "0 0 29 2 *", "keep": keep, "minAge": "0s",
        "limits": { "maxDeletionsPerRun": 1_000_000, "maxDeletePercent": 100 },
    });
    resource("RetentionPolicy", name, spec)
}

fn of_command(ran: &Ran, units: u64) -> Figures {
    Figures {
        units: precise(units),
        per_second: precise(units) / ran.elapsed.as_secs_f64(),
        p50: 0.0,
        p99: 0.0,
        cpu: Some(each(ran.cpu, units)),
        storage_cpu: ran.storage_cpu.map(|time| each(time, units)),
        client_cpu: 0.0,
        peak: Some(precise(ran.peak)),
    }
}

/// Asks for the tag until it is there.
async fn until_there(client: &mut Client, repository: &str) -> Result<()> {
    let path = format!("/v2/{repository}/manifests/{TAG}");
    while client.send(Method::HEAD, &path).await?.status() != StatusCode::OK {
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
