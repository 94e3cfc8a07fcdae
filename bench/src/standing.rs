// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Standing costs: what a registry takes while nobody asks it for anything, how much memory while many ask for much,
//! and how long it makes those wait who have sent all they have.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use hyper::Method;
use tokio::time::{sleep, timeout};

use crate::counting::{Counters, Counts, during};
use crate::large::{Layer, begin};
use crate::load::{Connection, NOTHING};
use crate::measure::{Memory, cpu_of};
use crate::progress;
use crate::report::{IdleRow, LastByteRow, LoadRow, Results};
use crate::scene::{Backing, Ground};
use crate::servers::{DATABASE, Kind, Postgres, Programs, Registry, S3, Storage};
use crate::work::{Data, Task};

/// What `--only` knows these measurements by.
pub(crate) const IDLE: &str = "idle";
pub(crate) const MEMORY: &str = "memory";
/// How long after its start, and a push, a registry has nothing left to do.
const SETTLED: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;
/// What many pull and push at once.
const LARGE: u64 = 1024 * MIB;
/// Layers whose push is waited for.
const PUSHED: [(u64, usize); 3] = [(8 * MIB, 3), (64 * MIB, 3), (LARGE, 1)];
pub(crate) const PULLS: (usize, &str) = (64, "64 pulls of 1 GiB");
pub(crate) const PUSHES: (usize, &str) = (32, "32 pushes of 1 GiB");
/// How long they are under way. On most machines the transfers are then given up, far from their ends.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// The measurements.
pub(crate) struct Standing<'a> {
    pub(crate) kinds: &'a [Kind],
    pub(crate) programs: &'a Programs,
    pub(crate) data: &'a Data,
    /// How long nobody asks for anything.
    pub(crate) idle: Duration,
    pub(crate) scratch: PathBuf,
}

/// A place of a registry, with counters between it and its storage.
struct Seat {
    ground: Ground,
    kind: Kind,
    storage: Storage,
    database: Option<String>,
    home: PathBuf,
    counters: Counters,
}

impl Standing<'_> {
    /// Measures all registries on all these grounds while none has anything to do.
    pub(crate) async fn play_idle(&self, grounds: &[Ground], results: &mut Results) -> Result<()> {
        let (mut backings, mut seats) = (Vec::new(), Vec::new());
        for &ground in grounds {
            let scratch = self.scratch.join(ground.name());
            fs::create_dir(&scratch).context("make a folder")?;
            let backing = Backing::start(ground, self.kinds, self.programs, &scratch).await?;
            for &kind in self.kinds {
                seats.push(Seat::before(ground, kind, &backing, &scratch).await?);
            }
            backings.push(backing);
        }
        let counters = seats.iter().map(|seat| &seat.counters);
        results.idle.extend(during(counters, self.idle_rows(&seats)).await?);
        Ok(())
    }

    async fn idle_rows(&self, seats: &[Seat]) -> Result<Vec<IdleRow>> {
        let mut registries = Vec::new();
        for seat in seats {
            let registry = seat.start(self.programs).await?;
            let mut connection = Connection::open(&registry.address).await?;
            connection.with(async |client| Task::PushImage.once(self.data, client).await).await?;
            registries.push(registry);
        }
        progress(&format!("{IDLE}: nobody asks for anything, {:?}", self.idle));
        sleep(SETTLED).await;
        let used = || -> Result<Vec<(Duration, Counts)>> {
            let each = seats.iter().zip(&registries);
            each.map(|(seat, registry)| Ok((cpu_of(&[registry.process.pid()])?, seat.counters.counts())))
                .collect()
        };
        let before = used()?;
        sleep(self.idle).await;
        let after = used()?;
        let mut rows = Vec::new();
        for ((seat, registry), (before, after)) in seats.iter().zip(&registries).zip(before.iter().zip(after))
        {
            let counts = after.1.since(before.1);
            rows.push(IdleRow {
                storage: seat.ground.name().to_owned(),
                registry: seat.kind.name().to_owned(),
                minutes: self.idle.as_secs_f64() / MINUTE.as_secs_f64(),
                cpu: after.0.saturating_sub(before.0).as_secs_f64() * 1e6,
                memory: Memory::of(registry.process.pid())?.now,
                s3_requests: counts.s3,
                round_trips: counts.postgres,
            });
        }
        Ok(rows)
    }

    /// Measures each registry on one kind of storage while many pull and push large layers.
    pub(crate) async fn play_memory(&self, ground: Ground, results: &mut Results) -> Result<()> {
        let backing = Backing::start(ground, self.kinds, self.programs, &self.scratch).await?;
        let layer = Layer::new("large", LARGE);
        for kind in self.kinds.iter().copied().filter(|kind| kind.takes_large(ground)) {
            let storage = backing.storage(kind, &self.scratch, None)?;
            let home = self.scratch.join(kind.name());
            // Each time anew: memory that was in use before may not be given back.
            let start = || Registry::start(kind, self.programs, &storage, backing.database(), &home);
            let tell =
                |what: &str| progress(&format!("{}, {MEMORY}: {what}, {}", ground.name(), kind.name()));

            tell("layers are pushed");
            let registry = start().await?;
            for (bytes, rounds) in PUSHED {
                let mut row = LastByteRow::new(ground.name(), kind.name(), bytes);
                for round in 0..rounds {
                    let small = (bytes < LARGE).then(|| Layer::new(&format!("{bytes} {round}"), bytes));
                    let answered = small.as_ref().unwrap_or(&layer).push(&registry.address).await?;
                    row.rounds.push(answered.as_secs_f64() * 1e6);
                    rustix::fs::sync();
                }
                results.last_bytes.push(row);
            }
            drop(registry);
            for load in [Load::Pulls, Load::Pushes] {
                let work = load.name();
                tell(work);
                let registry = start().await?;
                // Whoever has not ended is given up.
                if let Ok(ended) = timeout(UNDER_WAY, load.at_once(&registry.address, &layer)).await {
                    ended.with_context(|| format!("{work}, {}", kind.name()))?;
                }
                results.loads.push(LoadRow {
                    storage: ground.name().to_owned(),
                    registry: kind.name().to_owned(),
                    work: work.to_owned(),
                    peak: Memory::of(registry.process.pid())?.peak,
                });
                drop(registry);
                rustix::fs::sync();
            }
        }
        Ok(())
    }
}

impl Seat {
    async fn before(ground: Ground, kind: Kind, backing: &Backing, scratch: &Path) -> Result<Self> {
        let postgres = backing.postgres.as_ref().filter(|_| kind == Kind::Stowage);
        let s3 = backing.s3.as_ref().map(S3::address);
        let counters = Counters::listen(s3, postgres.map(Postgres::address)).await?;
        let storage = backing.storage(kind, scratch, counters.s3()?)?;
        let database = counters.postgres()?.map(|address| Postgres::url_at(&address, DATABASE));
        Ok(Self { ground, kind, storage, database, home: scratch.join(kind.name()), counters })
    }

    async fn start(&self, programs: &Programs) -> Result<Registry> {
        Registry::start(self.kind, programs, &self.storage, self.database.as_deref(), &self.home).await
    }
}

/// What many clients do at once.
#[derive(Clone, Copy, Debug)]
enum Load {
    Pulls,
    Pushes,
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::Pulls => PULLS.1,
            Self::Pushes => PUSHES.1,
        }
    }

    async fn at_once(self, address: &str, layer: &Layer) -> Result<()> {
        match self {
            Self::Pulls => drop(try_join_all((0..PULLS.0).map(|_| pull(address, layer))).await?),
            Self::Pushes => drop(try_join_all((0..PUSHES.0).map(|_| push(address, layer))).await?),
        }
        Ok(())
    }
}

async fn pull(address: &str, layer: &Layer) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    connection.with(async |client| client.download(&layer.path(), LARGE).await).await?;
    Ok(())
}

async fn push(address: &str, layer: &Layer) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let location = begin(&mut connection).await?;
    let sent = async |client: &mut crate::load::Client| {
        client.send_with(Method::PATCH, &location, NOTHING, layer.body()).await
    };
    connection.with(sent).await?;
    Ok(())
}
