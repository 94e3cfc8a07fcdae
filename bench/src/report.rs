// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Results: what is kept of a run, and how runs are put together. [`markdown`] is how they read.
//!
//! Never: puts figures side by side that come of other content, other machines or other builds.

mod markdown;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Figures;
use crate::plot;
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
    pub(crate) policies: Vec<PolicyRow>,
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

/// What policies take, or what they do to those who pull and push, in several rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PolicyRow {
    pub(crate) storage: String,
    pub(crate) work: String,
    /// What is counted.
    pub(crate) unit: String,
    /// The work that it is set in proportion to.
    pub(crate) to: Option<String>,
    pub(crate) rounds: Vec<Figures>,
}

impl PolicyRow {
    fn same_as(&self, other: &Self) -> bool {
        (&self.storage, &self.work) == (&other.storage, &other.work)
    }
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
        add(&mut self.policies, earlier.policies, PolicyRow::same_as);
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

    /// The figures that a row is set in proportion to; `None` for the baseline itself.
    pub(crate) fn baseline(&self, row: &Row) -> Option<Figures> {
        let same_work = |other: &&Row| other.storage == row.storage && other.work == row.work;
        let mut others = self.rows.iter().filter(|other| other.registry == BASELINE).filter(same_work);
        others.next().filter(|_| row.registry != BASELINE).and_then(|other| Figures::median(&other.rounds))
    }
}

fn add<T>(rows: &mut Vec<T>, earlier: Vec<T>, same: impl Fn(&T, &T) -> bool) {
    for row in earlier {
        if !rows.iter().any(|ours| same(ours, &row)) {
            rows.push(row);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::table::MIB;

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
            policies: Vec::new(),
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
}
