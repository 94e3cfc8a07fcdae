// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Results: what is kept of a run, how runs are put together, and how they read.
//!
//! Never: puts figures side by side that come of other content, other machines or other builds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::measure::{Figures, median, precise};
use crate::plot;
use crate::table::{GIB, MIB, Table, dash, memory, number, ratio, time};
use crate::targets::{self, Verdict};

/// The peer that others are set in proportion to.
pub(crate) const BASELINE: &str = "distribution";

/// Everything that a run found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When the run began.
    pub(crate) taken: String,
    /// What else the machine had to do when the run began: the load average of the minute before.
    pub(crate) load: f64,
    /// The fingerprint of the content.
    pub(crate) data: String,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) registries: BTreeMap<String, About>,
    pub(crate) rows: Vec<Row>,
    pub(crate) processes: Vec<ProcessRow>,
    pub(crate) requests: Vec<RequestsRow>,
    #[serde(default)]
    pub(crate) reliability: Vec<ReliabilityRow>,
    #[serde(default)]
    pub(crate) mirrors: Vec<MirrorRow>,
    #[serde(default)]
    pub(crate) floors: Vec<FloorRow>,
    #[serde(default)]
    pub(crate) idle: Vec<IdleRow>,
    #[serde(default)]
    pub(crate) loads: Vec<LoadRow>,
    #[serde(default)]
    pub(crate) last_bytes: Vec<LastByteRow>,
    #[serde(default)]
    pub(crate) scaling: Vec<ScalingRow>,
}

/// Results as they are written: with what they are held against, which follows from them.
#[derive(Serialize)]
struct Written<'a> {
    targets: Vec<Verdict>,
    #[serde(flatten)]
    results: &'a Results,
}

/// How long was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

/// What a registry says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) version: String,
    /// The digest of the program; `None` of one that was reached by its address.
    pub(crate) digest: Option<String>,
    pub(crate) bytes: Option<u64>,
}

/// A piece of work, done by one registry in several rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) storage: String,
    pub(crate) work: String,
    pub(crate) registry: String,
    /// The content that one unit moves, where that is what it is about.
    pub(crate) bytes: Option<u64>,
    pub(crate) rounds: Vec<Figures>,
    /// Why there are no (more) rounds.
    pub(crate) failure: Option<String>,
}

/// What a registry costs before and after the work. Memory is bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessRow {
    pub(crate) storage: String,
    pub(crate) registry: String,
    pub(crate) started_in_ms: f64,
    pub(crate) idle: u64,
    pub(crate) after: u64,
    pub(crate) peak: u64,
}

/// How many requests a registry sends to its storage for one unit of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequestsRow {
    pub(crate) registry: String,
    pub(crate) task: String,
    /// To the S3 server.
    pub(crate) per_unit: f64,
    /// Round trips to Postgres; `None` of a registry that has none.
    #[serde(default)]
    pub(crate) round_trips: Option<f64>,
}

/// What the upkeep of a registry takes, or what it does to those who push. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReliabilityRow {
    pub(crate) storage: String,
    pub(crate) work: String,
    /// What is counted.
    pub(crate) unit: String,
    pub(crate) units: u64,
    pub(crate) seconds: f64,
    /// User and system time of the command for one unit.
    pub(crate) cpu: Option<f64>,
    /// User and system time of the S3 server and the database for one unit.
    pub(crate) storage_cpu: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// How many times as long as without upkeep.
    pub(crate) p99_ratio: Option<f64>,
}

/// Downloads of a blob, in several rounds. Times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MirrorRow {
    pub(crate) storage: String,
    /// How it is reached.
    pub(crate) upstream: String,
    pub(crate) work: String,
    pub(crate) bytes: u64,
    /// From the request to the first byte of the body.
    pub(crate) first_byte: Vec<f64>,
    /// From the request to its last.
    pub(crate) seconds: Vec<f64>,
    /// User and system time of the registry.
    pub(crate) cpu: Vec<f64>,
    /// The most memory of the registry, in bytes.
    pub(crate) peak: Option<u64>,
}

/// What a plain loop takes, in several rounds. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FloorRow {
    pub(crate) floor: String,
    /// What is measured of it.
    pub(crate) what: String,
    pub(crate) rounds: Vec<f64>,
}

impl FloorRow {
    pub(crate) const CPU: &str = "CPU for 1 GiB";
    pub(crate) const TIME: &str = "time";

    pub(crate) fn new(floor: &str, what: &str) -> Self {
        Self { floor: floor.to_owned(), what: what.to_owned(), rounds: Vec::new() }
    }

    fn same_as(&self, other: &Self) -> bool {
        self.floor == other.floor
    }
}

/// What a registry takes while nobody asks it for anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdleRow {
    pub(crate) storage: String,
    pub(crate) registry: String,
    /// How long that was.
    pub(crate) minutes: f64,
    /// User and system time of the registry, in microseconds.
    pub(crate) cpu: f64,
    /// Resident at the end, in bytes.
    pub(crate) memory: u64,
    /// Requests to the S3 server; `None` without one.
    pub(crate) s3_requests: Option<u64>,
    /// Round trips to Postgres; `None` without one.
    pub(crate) round_trips: Option<u64>,
}

impl IdleRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.registry) == (&other.storage, &other.registry)
    }
}

/// The most memory of a registry while many pull or push at once, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadRow {
    pub(crate) storage: String,
    pub(crate) registry: String,
    pub(crate) work: String,
    pub(crate) peak: u64,
}

impl LoadRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.registry, &self.work) == (&other.storage, &other.registry, &other.work)
    }
}

/// From the last byte of a layer to the answer that it is stored, in several rounds. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastByteRow {
    pub(crate) storage: String,
    pub(crate) registry: String,
    /// The size of the layer.
    pub(crate) bytes: u64,
    pub(crate) rounds: Vec<f64>,
}

impl LastByteRow {
    pub(crate) fn new(storage: &str, registry: &str, bytes: u64) -> Self {
        Self { storage: storage.to_owned(), registry: registry.to_owned(), bytes, rounds: Vec::new() }
    }

    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.registry, self.bytes) == (&other.storage, &other.registry, other.bytes)
    }
}

/// A piece of work in one of some setups of Stowage that are compared, in several rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScalingRow {
    pub(crate) experiment: String,
    /// How large what is large in it is.
    pub(crate) size: String,
    pub(crate) work: String,
    pub(crate) setup: String,
    pub(crate) rounds: Vec<Figures>,
}

impl ScalingRow {
    /// Merged rows must be of the same size.
    fn same_as(&self, other: &Self) -> bool {
        (&self.experiment, &self.work, &self.setup) == (&other.experiment, &other.work, &other.setup)
    }
}

impl MirrorRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.upstream, &self.work) == (&other.storage, &other.upstream, &other.work)
    }
}

impl ReliabilityRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.work, &self.unit) == (&other.storage, &other.work, &other.unit)
    }
}

impl Row {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.work, &self.registry) == (&other.storage, &other.work, &other.registry)
    }
}

impl ProcessRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.registry) == (&other.storage, &other.registry)
    }
}

impl RequestsRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.registry, &self.task) == (&other.registry, &other.task)
    }
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not of this edition", path.display()))
    }

    /// Refuses results that must not stand beside these.
    pub(crate) fn comparable(&self, other: &Self) -> Result<()> {
        ensure!(self.data == other.data, "other content: {} and {}", self.data, other.data);
        ensure!(self.machine == other.machine, "other machine: {:?} and {:?}", self.machine, other.machine);
        ensure!(
            self.settings == other.settings,
            "other rounds: {:?} and {:?}",
            self.settings,
            other.settings
        );
        for (name, about) in &self.registries {
            let same = other.registries.get(name).is_none_or(|theirs| theirs == about);
            ensure!(same, "other builds of {name}");
        }
        Ok(())
    }

    /// Adds the rows of an earlier run that this one has not measured anew.
    pub(crate) fn merge(&mut self, earlier: Self) -> Result<()> {
        self.comparable(&earlier)?;
        add(&mut self.rows, earlier.rows, Row::same_as);
        add(&mut self.processes, earlier.processes, ProcessRow::same_as);
        add(&mut self.requests, earlier.requests, RequestsRow::same_as);
        add(&mut self.reliability, earlier.reliability, ReliabilityRow::same_as);
        add(&mut self.mirrors, earlier.mirrors, MirrorRow::same_as);
        add(&mut self.floors, earlier.floors, FloorRow::same_as);
        add(&mut self.idle, earlier.idle, IdleRow::same_as);
        add(&mut self.loads, earlier.loads, LoadRow::same_as);
        add(&mut self.last_bytes, earlier.last_bytes, LastByteRow::same_as);
        add(&mut self.scaling, earlier.scaling, ScalingRow::same_as);
        self.registries.extend(earlier.registries);
        Ok(())
    }

    /// Writes `latest.json`, `latest.md` and its pictures into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let written = Written { targets: targets::verdicts(self), results: self };
        let json = serde_json::to_string_pretty(&written).context("write the results as JSON")? + "\n";
        let texts = [("latest.json".to_owned(), json), ("latest.md".to_owned(), self.markdown())];
        let pictures = plot::charts(self).into_iter().map(|chart| (chart.file.clone(), chart.svg()));
        for (name, text) in texts.into_iter().chain(pictures) {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// The report for people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(concat!(
            "<!--\nSPDX-FileCopyrightText: The Stowage authors\nSPDX-License-Identifier: EUPL-1.2\n-->\n\n",
            "# Benchmark results\n\n",
            "Made by `make bench`. `docs/performance.md` says what is measured, how, and how to read it.\n",
        ));
        section(&mut text, "Targets", &targets::table(self));
        for storage in self.storages() {
            section(&mut text, &format!("Work, {storage}"), &self.work(storage));
        }
        for chart in plot::charts(self) {
            write!(text, "\n![{}]({})\n", chart.title, chart.file).expect("a String takes everything");
        }
        section(&mut text, "Processes", &self.process_table());
        section(&mut text, "Requests to the storage for one unit", &self.request_table());
        section(&mut text, "Idle, for a minute", &self.idle_table());
        section(&mut text, "Memory under load", &self.load_table());
        section(&mut text, "From the last byte of a push to its answer", &self.last_byte_table());
        section(&mut text, "Scale-out and growth", &self.scaling_table());
        section(&mut text, "Reliability", &self.reliability_table());
        section(&mut text, "Mirrors", &self.mirror_table());
        section(&mut text, "Floors", &self.floor_table());
        section(&mut text, "Registries", &self.about());
        section(&mut text, "Machine", &self.machine_table());
        text
    }

    /// The kinds of storage that work was done on.
    pub(crate) fn storages(&self) -> Vec<&str> {
        let mut storages: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !storages.contains(&row.storage.as_str()) {
                storages.push(&row.storage);
            }
        }
        storages
    }

    fn work(&self, storage: &str) -> Table {
        let mut table = Table::new(&[
            "work",
            "registry",
            "per second",
            "lowest to highest",
            "MiB/s",
            "p50",
            "p99",
            "CPU",
            "storage CPU",
            "client CPU",
            "peak memory",
            "rate ratio",
            "CPU ratio",
        ]);
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.storage == storage).collect();
        let order: Vec<&str> = rows.iter().map(|row| row.work.as_str()).collect();
        let place = |row: &Row| order.iter().position(|work| *work == row.work);
        let mut places: Vec<_> = rows.drain(..).map(|row| (place(row), row)).collect();
        places.sort_by_key(|(place, _)| *place);
        for (_, row) in places {
            table.add(self.work_row(row));
        }
        table
    }

    fn work_row(&self, row: &Row) -> Vec<String> {
        let mut cells = vec![row.work.clone(), row.registry.clone()];
        let Some(figures) = Figures::median(&row.rounds) else {
            cells.push(row.failure.clone().map_or_else(dash, |failure| format!("failed: {failure}")));
            return cells;
        };
        let baseline = self.baseline(row);
        let failed = if row.failure.is_some() { " (then failed)" } else { "" };
        cells.extend([
            format!("{}{failed}", number(figures.per_second)),
            rates(&row.rounds),
            row.bytes.map_or_else(dash, |bytes| number(figures.per_second * precise(bytes) / MIB)),
            time(figures.p50),
            time(figures.p99),
            figures.cpu.map_or_else(dash, time),
            figures.storage_cpu.map_or_else(dash, time),
            time(figures.client_cpu),
            figures.peak.map_or_else(dash, memory),
            baseline.as_ref().map_or_else(dash, |b| ratio(figures.per_second, b.per_second)),
            baseline.and_then(|b| Some(ratio(figures.cpu?, b.cpu?))).unwrap_or_else(dash),
        ]);
        cells
    }

    /// The figures that a row is set in proportion to; `None` for the baseline itself.
    pub(crate) fn baseline(&self, row: &Row) -> Option<Figures> {
        let same_work = |other: &&Row| other.storage == row.storage && other.work == row.work;
        let mut others = self.rows.iter().filter(|other| other.registry == BASELINE).filter(same_work);
        others.next().filter(|_| row.registry != BASELINE).and_then(|other| Figures::median(&other.rounds))
    }

    fn process_table(&self) -> Table {
        let mut table = Table::new(&[
            "storage",
            "registry",
            "first answer",
            "idle memory",
            "memory after",
            "peak memory",
        ]);
        for row in &self.processes {
            table.add(vec![
                row.storage.clone(),
                row.registry.clone(),
                time(row.started_in_ms * 1e3),
                memory(precise(row.idle)),
                memory(precise(row.after)),
                memory(precise(row.peak)),
            ]);
        }
        table
    }

    fn reliability_table(&self) -> Table {
        let header = [
            "storage",
            "work",
            "unit",
            "units",
            "per second",
            "CPU",
            "storage CPU",
            "p50",
            "p99",
            "p99 ratio",
        ];
        let mut table = Table::new(&header);
        for row in &self.reliability {
            let or_dash = |micros: Option<f64>| micros.map_or_else(dash, time);
            table.add(vec![
                row.storage.clone(),
                row.work.clone(),
                row.unit.clone(),
                row.units.to_string(),
                number(precise(row.units) / row.seconds),
                or_dash(row.cpu),
                or_dash(row.storage_cpu),
                or_dash(row.p50),
                or_dash(row.p99),
                row.p99_ratio.map_or_else(dash, |times| ratio(times, 1.0)),
            ]);
        }
        table
    }

    fn mirror_table(&self) -> Table {
        let header = [
            "storage",
            "upstream",
            "work",
            "size",
            "first byte",
            "later than the upstream's",
            "MiB/s",
            "rate ratio",
            "CPU for 1 GiB",
            "peak memory",
        ];
        let mut table = Table::new(&header);
        // Each upstream is downloaded from before it is mirrored.
        let mut direct: Option<(&MirrorRow, f64, f64)> = None;
        for row in &self.mirrors {
            let (Some(first), Some(all)) = (median(row.first_byte.clone()), median(row.seconds.clone()))
            else {
                continue;
            };
            let beside = direct
                .filter(|(direct, ..)| (&direct.storage, &direct.upstream) == (&row.storage, &row.upstream));
            let cpu = median(row.cpu.clone()).map(|cpu| cpu * GIB / precise(row.bytes));
            table.add(vec![
                row.storage.clone(),
                row.upstream.clone(),
                row.work.clone(),
                memory(precise(row.bytes)),
                time(first * 1e6),
                beside.map_or_else(dash, |(_, theirs, _)| time((first - theirs).max(0.0) * 1e6)),
                number(precise(row.bytes) / MIB / all),
                beside.map_or_else(dash, |(_, _, theirs)| ratio(theirs, all)),
                cpu.map_or_else(dash, |cpu| time(cpu * 1e6)),
                row.peak.map_or_else(dash, |bytes| memory(precise(bytes))),
            ]);
            if beside.is_none() {
                direct = Some((row, first, all));
            }
        }
        table
    }

    fn idle_table(&self) -> Table {
        let header = ["storage", "registry", "CPU", "memory", "S3 requests", "PostgreSQL round trips"];
        let mut table = Table::new(&header);
        for row in &self.idle {
            let a_minute =
                |count: Option<u64>| count.map_or_else(dash, |count| number(precise(count) / row.minutes));
            table.add(vec![
                row.storage.clone(),
                row.registry.clone(),
                time(row.cpu / row.minutes),
                memory(precise(row.memory)),
                a_minute(row.s3_requests),
                a_minute(row.round_trips),
            ]);
        }
        table
    }

    fn load_table(&self) -> Table {
        let mut table = Table::new(&["storage", "work", "registry", "peak memory"]);
        let mut rows: Vec<&LoadRow> = self.loads.iter().collect();
        rows.sort_by_key(|row| (&row.storage, std::cmp::Reverse(&row.work)));
        for row in rows {
            let peak = memory(precise(row.peak));
            table.add(vec![row.storage.clone(), row.work.clone(), row.registry.clone(), peak]);
        }
        table
    }

    fn last_byte_table(&self) -> Table {
        let mut table = Table::new(&["storage", "size", "registry", "median", "lowest to highest"]);
        let mut rows: Vec<&LastByteRow> = self.last_bytes.iter().collect();
        rows.sort_by_key(|row| (&row.storage, row.bytes));
        for row in rows {
            let Some(middle) = median(row.rounds.clone()) else { continue };
            table.add(vec![
                row.storage.clone(),
                memory(precise(row.bytes)),
                row.registry.clone(),
                time(middle),
                spread(&row.rounds),
            ]);
        }
        table
    }

    fn scaling_table(&self) -> Table {
        let mut table = Table::new(&[
            "experiment",
            "work",
            "setup",
            "per second",
            "lowest to highest",
            "p99",
            "CPU",
            "storage CPU",
            "rate ratio",
            "CPU ratio",
        ]);
        for row in &self.scaling {
            let Some(figures) = Figures::median(&row.rounds) else { continue };
            // The setup that others are compared with comes first.
            let same = |first: &&ScalingRow| (&first.experiment, &first.work) == (&row.experiment, &row.work);
            let first = self.scaling.iter().find(same).filter(|first| first.setup != row.setup);
            let first = first.and_then(|first| Figures::median(&first.rounds));
            let experiment = [row.experiment.as_str(), &row.size];
            let experiment: Vec<&str> = experiment.into_iter().filter(|text| !text.is_empty()).collect();
            table.add(vec![
                experiment.join(", "),
                row.work.clone(),
                row.setup.clone(),
                number(figures.per_second),
                rates(&row.rounds),
                time(figures.p99),
                figures.cpu.map_or_else(dash, time),
                figures.storage_cpu.map_or_else(dash, time),
                first.as_ref().map_or_else(dash, |first| ratio(figures.per_second, first.per_second)),
                first.and_then(|first| Some(ratio(figures.cpu?, first.cpu?))).unwrap_or_else(dash),
            ]);
        }
        table
    }

    fn floor_table(&self) -> Table {
        let mut table = Table::new(&["floor", "what", "median", "lowest to highest", "GB/s of one core"]);
        for row in &self.floors {
            let Some(middle) = median(row.rounds.clone()) else { continue };
            let speed = if row.what == FloorRow::CPU { number(GIB / 1e3 / middle) } else { dash() };
            table.add(vec![row.floor.clone(), row.what.clone(), time(middle), spread(&row.rounds), speed]);
        }
        table
    }

    fn request_table(&self) -> Table {
        let mut table = Table::new(&["task", "registry", "S3 requests", "PostgreSQL round trips"]);
        for row in &self.requests {
            table.add(vec![
                row.task.clone(),
                row.registry.clone(),
                number(row.per_unit),
                row.round_trips.map_or_else(dash, number),
            ]);
        }
        table
    }

    fn about(&self) -> Table {
        let mut table = Table::new(&["registry", "version", "program size"]);
        for (name, about) in &self.registries {
            let bytes = about.bytes.map_or_else(dash, |bytes| memory(precise(bytes)));
            table.add(vec![name.clone(), about.version.clone(), bytes]);
        }
        table
    }

    fn machine_table(&self) -> Table {
        let mut table = Table::new(&["fact", "value"]);
        let machine = &self.machine;
        for (fact, value) in [
            ("processor", machine.processor.clone()),
            ("cores", machine.cores.to_string()),
            ("memory", memory(precise(machine.memory))),
            ("system", machine.system.clone()),
            ("kernel", machine.kernel.clone()),
            ("file system", machine.file_system.clone()),
            ("content", self.data.clone()),
            ("rounds", format!("{} of {} s", self.settings.rounds, self.settings.seconds)),
            ("taken", self.taken.clone()),
            ("load before", number(self.load)),
        ] {
            table.add(vec![fact.to_owned(), value]);
        }
        table
    }
}

/// The lowest and the highest rate of some rounds.
fn rates(rounds: &[Figures]) -> String {
    extent(rounds.iter().map(|round| round.per_second), number)
}

/// The shortest and the longest of some times.
fn spread(times: &[f64]) -> String {
    extent(times.iter().copied(), time)
}

fn extent(values: impl Iterator<Item = f64> + Clone, spell: fn(f64) -> String) -> String {
    let (lowest, highest) = (values.clone().fold(f64::MAX, f64::min), values.fold(0.0, f64::max));
    format!("{} to {}", spell(lowest), spell(highest))
}

fn add<T>(rows: &mut Vec<T>, earlier: Vec<T>, same: impl Fn(&T, &T) -> bool) {
    for row in earlier {
        if !rows.iter().any(|ours| same(ours, &row)) {
            rows.push(row);
        }
    }
}

/// The facts of a machine that figures depend on; nothing that tells whose it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory: u64,
    system: String,
    kernel: String,
    /// The file system that all storage lies on.
    file_system: String,
}

impl Machine {
    /// The facts of this machine, with storage at `scratch`.
    pub(crate) fn read(scratch: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let value = |text: &str, name: &str, mark: char| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(mark)?.1.trim().trim_matches('"').to_owned())
        };
        let memory = value(&read("/proc/meminfo")?, "MemTotal", ':').context("no MemTotal")?;
        let kib: u64 = memory.trim_end_matches(" kB").parse().context("read MemTotal")?;
        let scratch = scratch.canonicalize().context("find the scratch folder")?;
        Ok(Self {
            processor: value(&read("/proc/cpuinfo")?, "model name", ':').unwrap_or_else(dash),
            cores: std::thread::available_parallelism().context("count the cores")?.get(),
            memory: kib * 1024,
            system: value(&read("/etc/os-release")?, "PRETTY_NAME", '=').unwrap_or_else(dash),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts")?, &scratch).unwrap_or_else(dash),
        })
    }
}

/// The load average of the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    text.split(' ').next().and_then(|load| load.parse().ok()).context("read the load average")
}

/// The type of the file system that `path` lies on, from the kernel's list of mounts.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(at, _)| path.starts_with(at));
    above.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind.to_owned())
}

fn section(text: &mut String, title: &str, table: &Table) {
    if !table.is_empty() {
        write!(text, "\n## {title}\n\n{}", table.render()).expect("a String takes everything");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(work: &str, registry: &str, rates: &[f64]) -> Row {
        let round = |&per_second| Figures {
            units: per_second,
            per_second,
            p50: 100.0,
            p99: 2500.0,
            cpu: Some(1e6 / per_second),
            storage_cpu: None,
            client_cpu: 10.0,
            peak: Some(MIB),
        };
        Row {
            storage: "filesystem".to_owned(),
            work: work.to_owned(),
            registry: registry.to_owned(),
            bytes: None,
            rounds: rates.iter().map(round).collect(),
            failure: None,
        }
    }

    pub(crate) fn results(rows: Vec<Row>) -> Results {
        Results {
            taken: "2026-01-01T00:00:00Z".to_owned(),
            load: 0.0,
            data: "sha256:one".to_owned(),
            machine: Machine {
                processor: "a processor".to_owned(),
                cores: 2,
                memory: 1 << 30,
                system: "a system".to_owned(),
                kernel: "6.1".to_owned(),
                file_system: "ext4".to_owned(),
            },
            settings: Settings { rounds: 3, seconds: 1.0 },
            registries: BTreeMap::from([(
                "stowage".to_owned(),
                About {
                    version: "0.1.0".to_owned(),
                    digest: Some("sha256:a".to_owned()),
                    bytes: Some(1 << 20),
                },
            )]),
            rows,
            processes: Vec::new(),
            requests: Vec::new(),
            mirrors: Vec::new(),
            reliability: Vec::new(),
            floors: Vec::new(),
            idle: Vec::new(),
            loads: Vec::new(),
            last_bytes: Vec::new(),
            scaling: Vec::new(),
        }
    }

    #[test]
    fn a_merge_keeps_the_newer_row_and_adds_what_is_missing() {
        let mut now = results(vec![row("a", "stowage", &[5.0])]);
        let earlier = results(vec![row("a", "stowage", &[1.0]), row("b", "stowage", &[2.0])]);
        now.merge(earlier).unwrap();
        assert_eq!(now.rows, [row("a", "stowage", &[5.0]), row("b", "stowage", &[2.0])]);
    }

    #[test]
    fn runs_of_other_content_are_not_compared() {
        let mut other = results(Vec::new());
        other.data = "sha256:two".to_owned();
        let refusal = results(Vec::new()).merge(other).unwrap_err().to_string();
        assert!(refusal.starts_with("other content"), "{refusal}");
    }

    #[test]
    fn runs_of_other_machines_are_not_compared() {
        let mut other = results(Vec::new());
        other.machine.cores = 64;
        let refusal = results(Vec::new()).merge(other).unwrap_err().to_string();
        assert!(refusal.starts_with("other machine"), "{refusal}");
    }

    #[test]
    fn runs_of_other_builds_are_not_compared() {
        let mut other = results(Vec::new());
        other.registries.values_mut().for_each(|about| about.digest = None);
        let refusal = results(Vec::new()).merge(other).unwrap_err().to_string();
        assert_eq!(refusal, "other builds of stowage");
    }

    #[test]
    fn a_row_is_set_in_proportion_to_distribution() {
        let rows = vec![row("a", "stowage", &[100.0, 400.0, 300.0]), row("a", "distribution", &[100.0])];
        let text = results(rows).markdown();
        let line = text.lines().find(|line| line.starts_with("| a") && line.contains("stowage")).unwrap();
        for cell in ["| 300 ", "| 100 to 400 ", "| 2.50 ms ", "| 1.0 MiB ", "| 3.00x ", "| 0.33x "] {
            assert!(line.contains(cell), "{cell} in {line}");
        }
    }

    #[test]
    fn a_registry_that_failed_says_why() {
        let mut failed = row("a", "stowage", &[]);
        failed.failure = Some("500 Internal | Server\nError".to_owned());
        let text = results(vec![failed]).markdown();
        assert!(text.contains("failed: 500 Internal   Server Error"), "{text}");
    }

    #[test]
    fn work_of_merged_runs_stands_together() {
        let rows =
            vec![row("a", "stowage", &[1.0]), row("b", "stowage", &[1.0]), row("a", "distribution", &[1.0])];
        let text = results(rows).markdown();
        let works: Vec<&str> = text.lines().filter(|line| line.contains("1.00 to")).collect();
        assert!(works[0].starts_with("| a") && works[1].starts_with("| a") && works[2].starts_with("| b"));
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = results(vec![row("a", "stowage", &[1.5])]);
        written.write(folder.path()).unwrap();
        assert_eq!(Results::read(&folder.path().join("latest.json")).unwrap(), written);
    }

    #[test]
    fn every_picture_that_is_shown_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![row("a", "stowage", &[2.0]), row("a", "distribution", &[1.0])];
        results(rows).write(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("latest.md")).unwrap();
        let shown: Vec<&str> =
            text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect();
        assert_eq!(shown, ["filesystem-rate.svg", "filesystem-cpu.svg"]);
        assert!(shown.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmp/deep/x")).as_deref(), Some("xfs"));
        assert_eq!(file_system(mounts, Path::new("/var")).as_deref(), Some("ext4"));
    }
}
