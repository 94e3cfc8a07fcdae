// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A scene: all registries at once on one kind of storage, each of which is given the work in turn.
//!
//! One registry works at a time, the others are idle; every round visits them in another order. Deferred work
//! counts: processor time is read a moment after the last answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;

use crate::counting::{Counters, during};
use crate::lists;
use crate::load;
use crate::measure::{Figures, Memory, Used, cpu_of, own_cpu, precise};
use crate::progress;
use crate::report::{ProcessRow, RequestsRow, Results, Row, Settings};
use crate::servers::{DATABASE, Kind, Postgres, Programs, Registry, S3, Storage};
use crate::tls::Tls;
use crate::work::{COUNTED, Data, Stage, Task, Work};

/// How long deferred work may take to be charged to those who caused it.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(100);
/// How long a registry does nothing before its idle memory is read.
const REST: Duration = Duration::from_secs(2);
/// How many units of a task the requests to the storage are counted over.
const COUNTED_UNITS: u64 = 10;

/// The kinds of storage that registries are compared on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Filesystem,
    S3,
}

impl Ground {
    pub(crate) const ALL: [Self; 2] = [Self::Filesystem, Self::S3];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::S3 => "s3",
        }
    }
}

/// A registry that somebody else runs.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// What a scene is made of.
pub(crate) struct Scene<'a> {
    pub(crate) ground: Ground,
    pub(crate) kinds: &'a [Kind],
    pub(crate) peers: &'a [Peer],
    pub(crate) programs: &'a Programs,
    pub(crate) data: &'a Data,
    pub(crate) stage: Stage,
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) works: Vec<Work>,
    pub(crate) counts: bool,
    pub(crate) settings: Settings,
    pub(crate) scratch: PathBuf,
}

/// A registry that takes part.
struct Contender {
    name: String,
    address: String,
    /// `None` of a peer: nothing is known of its process.
    own: Option<(Kind, Registry)>,
}

impl Contender {
    fn pid(&self) -> Option<Pid> {
        self.own.as_ref().map(|(_, registry)| registry.process.pid())
    }
}

/// What the registries of a scene stand on.
pub(crate) struct Backing {
    pub(crate) s3: Option<S3>,
    pub(crate) postgres: Option<Postgres>,
}

impl Backing {
    pub(crate) async fn start(
        ground: Ground,
        kinds: &[Kind],
        programs: &Programs,
        scratch: &Path,
    ) -> Result<Self> {
        if ground == Ground::Filesystem {
            return Ok(Self { s3: None, postgres: None });
        }
        let s3 = S3::start(programs, scratch).await?;
        let needs_postgres = kinds.contains(&Kind::Stowage);
        let postgres = if needs_postgres { Some(Postgres::start(scratch).await?) } else { None };
        Ok(Self { s3: Some(s3), postgres })
    }

    /// The storage of a registry; `endpoint` stands in for the S3 server's own.
    pub(crate) fn storage(&self, kind: Kind, scratch: &Path, endpoint: Option<String>) -> Result<Storage> {
        let Some(s3) = &self.s3 else {
            return Ok(Storage::Filesystem(scratch.join(kind.name()).join("data")));
        };
        s3.create_bucket(kind.name())?;
        let endpoint = endpoint.unwrap_or_else(|| s3.address().to_owned());
        Ok(Storage::S3 { endpoint, bucket: kind.name().to_owned() })
    }

    /// The folder in which the storage of a registry lies: the bucket, if it has one.
    pub(crate) fn folder(&self, kind: Kind, scratch: &Path) -> Result<PathBuf> {
        match &self.s3 {
            Some(s3) => s3.create_bucket(kind.name()),
            None => Ok(scratch.join(kind.name()).join("data")),
        }
    }

    /// The URL of the database.
    pub(crate) fn database(&self) -> Option<&str> {
        self.postgres.as_ref().map(Postgres::url)
    }

    pub(crate) fn cpu(&self) -> Result<Option<Duration>> {
        let pids = self.s3.iter().map(S3::pid).chain(self.postgres.iter().map(Postgres::pid));
        let pids: Vec<Pid> = pids.collect();
        if pids.is_empty() { Ok(None) } else { cpu_of(&pids).map(Some) }
    }
}

impl Scene<'_> {
    /// Plays the scene; what it finds out is added to `results`.
    pub(crate) async fn play(&self, results: &mut Results) -> Result<()> {
        let backing = Backing::start(self.ground, self.kinds, self.programs, &self.scratch).await?;
        let mut contenders = self.contenders(&backing).await?;
        tokio::time::sleep(REST).await;
        let mut processes = self.at_rest(&contenders)?;
        for contender in &contenders {
            progress(&format!("{}: giving {} its content", self.ground.name(), contender.name));
            let given = self.give(contender, &backing).await;
            given.with_context(|| format!("give {} its content", contender.name))?;
        }
        let mut rows = self.empty_rows(&contenders);
        for round in 0..self.settings.rounds {
            self.round(round, &contenders, &backing, &mut rows).await?;
        }
        after_work(&contenders, &rows, &mut processes).await?;
        results.rows.extend(rows.into_iter().filter(|row| !row.rounds.is_empty() || row.failure.is_some()));
        if self.stage == Stage::Plain {
            results.processes.extend(processes);
        }
        if self.counts && self.ground == Ground::S3 {
            contenders.clear();
            results.requests.extend(self.count(&backing).await?);
        }
        Ok(())
    }

    async fn contenders(&self, backing: &Backing) -> Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        for &kind in self.kinds {
            let storage = backing.storage(kind, &self.scratch, None)?;
            let registry = self.start(kind, &storage, backing.database()).await?;
            let (name, address) = (kind.name().to_owned(), registry.address.clone());
            contenders.push(Contender { name, address, own: Some((kind, registry)) });
        }
        contenders.extend(self.peers.iter().map(|peer| Contender {
            name: peer.name.clone(),
            address: peer.address.clone(),
            own: None,
        }));
        Ok(contenders)
    }

    async fn start(&self, kind: Kind, storage: &Storage, database: Option<&str>) -> Result<Registry> {
        let home = self.scratch.join(kind.name());
        Registry::start_over(self.tls, kind, self.programs, storage, database, &home).await
    }

    async fn give(&self, contender: &Contender, backing: &Backing) -> Result<()> {
        if let (Stage::Lists, Some((kind, registry))) = (self.stage, &contender.own) {
            return lists::fill(*kind, &registry.address, self.ground, backing, &self.scratch).await;
        }
        let counted = COUNTED.into_iter().filter(|_| self.counts);
        let works = self.works.iter().map(|work| work.task);
        let tasks: Vec<Task> = works.chain(counted).filter(|task| self.suits(*task, contender)).collect();
        self.data.give(self.tls, &contender.address, &tasks).await
    }

    fn at_rest(&self, contenders: &[Contender]) -> Result<Vec<ProcessRow>> {
        let own = contenders.iter().filter_map(|contender| contender.own.as_ref());
        own.map(|(kind, registry)| {
            let memory = Memory::of(registry.process.pid())?;
            Ok(ProcessRow {
                storage: self.ground.name().to_owned(),
                registry: kind.name().to_owned(),
                started_in_ms: registry.started_in.as_secs_f64() * 1e3,
                idle: memory.now,
                after: memory.now,
                peak: memory.peak,
            })
        })
        .collect()
    }

    fn empty_rows(&self, contenders: &[Contender]) -> Vec<Row> {
        let row = |work: &Work, contender: &Contender| Row {
            storage: self.ground.name().to_owned(),
            work: work.to_string(),
            registry: contender.name.clone(),
            bytes: work.task.bytes(),
            rounds: Vec::new(),
            failure: None,
        };
        self.works.iter().flat_map(|work| contenders.iter().map(move |c| row(work, c))).collect()
    }

    /// Every piece of work once for every contender; `rows` are in the order of works, then contenders.
    async fn round(
        &self,
        round: usize,
        contenders: &[Contender],
        backing: &Backing,
        rows: &mut [Row],
    ) -> Result<()> {
        for (work, rows) in self.works.iter().zip(rows.chunks_mut(contenders.len())) {
            let (ground, count) = (self.ground.name(), self.settings.rounds);
            progress(&format!("{ground}, round {} of {count}: {work}", round + 1));
            for turn in 0..contenders.len() {
                let index = (turn + round) % contenders.len();
                let (contender, row) = (&contenders[index], &mut rows[index]);
                if row.failure.is_some() || !self.suits(work.task, contender) {
                    continue;
                }
                match self.measure(work, contender, backing).await {
                    Ok(figures) => row.rounds.push(figures),
                    Err(failure) => row.failure = Some(format!("{failure:#}")),
                }
            }
        }
        Ok(())
    }

    fn suits(&self, task: Task, contender: &Contender) -> bool {
        contender.own.as_ref().is_none_or(|(kind, _)| task.suits(*kind, self.ground))
    }

    async fn measure(&self, work: &Work, contender: &Contender, backing: &Backing) -> Result<Figures> {
        let mut connections = load::connect_over(self.tls, &contender.address, work, self.data).await?;
        let used = || -> Result<Used> {
            let registry = contender.pid().map(|pid| cpu_of(&[pid])).transpose()?;
            Ok(Used { registry, storage: backing.cpu()?, client: own_cpu() })
        };
        if let Some(pid) = contender.pid() {
            Memory::forget_peak(pid)?;
        }
        let before = used()?;
        let length = Duration::from_secs_f64(self.settings.seconds);
        let stretch = load::repeat(&mut connections, work, self.data, length).await?;
        let client = own_cpu();
        tokio::time::sleep(AFTERMATH).await;
        let after = Used { client, ..used()? };
        let peak = contender.pid().map(Memory::of).transpose()?.map(|memory| memory.peak);
        if work.task.writes() {
            // What one has written must not be flushed while another is measured.
            rustix::fs::sync();
        }
        Ok(Figures::of(&stretch, after.since(before), peak))
    }

    /// Counts requests to the storage, with every registry started anew behind counters.
    async fn count(&self, backing: &Backing) -> Result<Vec<RequestsRow>> {
        let mut rows = Vec::new();
        for &kind in self.kinds {
            progress(&format!("counting the requests of {} to its storage", kind.name()));
            let postgres = backing.postgres.as_ref().filter(|_| kind == Kind::Stowage);
            let counters =
                Counters::listen(backing.s3.as_ref().map(S3::address), postgres.map(Postgres::address))
                    .await?;
            let storage = backing.storage(kind, &self.scratch, counters.s3()?)?;
            let database = counters.postgres()?.map(|address| Postgres::url_at(&address, DATABASE));
            rows.extend(during([&counters], self.counted(kind, &storage, database, &counters)).await?);
        }
        rows.sort_by_key(|row| COUNTED.iter().position(|task| task.to_string() == row.task));
        Ok(rows)
    }

    async fn counted(
        &self,
        kind: Kind,
        storage: &Storage,
        database: Option<String>,
        counters: &Counters,
    ) -> Result<Vec<RequestsRow>> {
        let registry = self.start(kind, storage, database.as_deref()).await?;
        let mut rows = Vec::new();
        for task in COUNTED {
            let work = Work { task, clients: 1 };
            let mut connections = load::connect(&registry.address, &work, self.data).await?;
            let before = counters.counts();
            for connection in &mut connections {
                for _ in 0..COUNTED_UNITS {
                    connection.with(async |client| task.once(self.data, client).await).await?;
                }
            }
            tokio::time::sleep(AFTERMATH).await;
            let counts = counters.counts().since(before);
            let each = |count: u64| precise(count) / precise(COUNTED_UNITS);
            rows.push(RequestsRow {
                registry: kind.name().to_owned(),
                task: task.to_string(),
                per_unit: counts.s3.map_or(0.0, each),
                round_trips: counts.postgres.map(each),
            });
        }
        Ok(rows)
    }
}

impl Used {
    pub(crate) fn since(self, before: Self) -> Self {
        let between =
            |after: Option<Duration>, before: Option<Duration>| Some(after?.saturating_sub(before?));
        Self {
            registry: between(self.registry, before.registry),
            storage: between(self.storage, before.storage),
            client: self.client.saturating_sub(before.client),
        }
    }
}

async fn after_work(contenders: &[Contender], rows: &[Row], processes: &mut [ProcessRow]) -> Result<()> {
    tokio::time::sleep(REST).await;
    let own = contenders.iter().filter_map(|contender| contender.own.as_ref());
    for ((kind, registry), process) in own.zip(processes) {
        process.after = Memory::of(registry.process.pid())?.now;
        let rows = rows.iter().filter(|row| row.registry == kind.name());
        let peaks = rows.flat_map(|row| &row.rounds).filter_map(|round| round.peak);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was a count of bytes"
        )]
        let highest = peaks.fold(0.0, f64::max) as u64;
        process.peak = process.peak.max(highest);
    }
    Ok(())
}
