// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Targets: how fast and how small Stowage means to be, held against what a run has measured.
//!
//! Guarantees: a target whose figures are missing is told as not measured, never as one that holds.

use serde::Serialize;

use crate::floors::{FILE_TO_SOCKET, S3_TO_SOCKET, SHA_256, SOCKET_TO_FILE, SOCKET_TO_S3};
use crate::measure::{Figures, median, precise};
use crate::policies::{ENFORCEMENT, KNOWN, PLAN, PROMOTION, PUSHED};
use crate::report::{BASELINE, IdleRow, ProcessRow, Results, Row};
use crate::scaling::{ALL_OVER, EMPTY, GROWN, GROWTH, ONE, SCALE_OUT, TWO};
use crate::standing::{PULLS, PUSHES};
use crate::table::{GIB, MIB, Table, number, time};

const OURS: &str = "stowage";
const FILES: &str = "filesystem";
const S3: &str = "s3";
/// `limits.uploadMemory`, as it comes.
const UPLOAD_MEMORY: f64 = 256.0 * MIB;
const MEGABYTE: f64 = 1e6;
const MILLI: f64 = 1e3;
const SECOND: f64 = 1e6;

/// A figure and what it is to be.
struct Target {
    /// What is done, and on what.
    work: &'static str,
    /// What is measured of it.
    figure: &'static str,
    limit: Limit,
    unit: Unit,
    value: fn(Facts<'_>) -> Option<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    /// To another figure.
    Times,
    Micros,
    Bytes,
    Count,
}

use Limit::{AtLeast, AtMost};
use Unit::{Bytes, Count, Micros, Times};

const RATE: &str = "rate to distribution's";
const CPU: &str = "CPU for one to distribution's";
const P99: &str = "p99";
const UNRECORDED_RATE: &str = "rate to that of pulls that are not recorded";
const UNRECORDED_CPU: &str = "CPU for one to that of pulls that are not recorded";
const COPY: &str = "CPU to that of a plain copy";
const HASH_AND_COPY: &str = "CPU to that of SHA-256 and a plain copy";

const fn of(
    work: &'static str,
    figure: &'static str,
    limit: Limit,
    unit: Unit,
    value: fn(Facts<'_>) -> Option<f64>,
) -> Target {
    Target { work, figure, limit, unit, value }
}

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    of("manifest by tag x64, filesystem", RATE, AtLeast(4.0), Times, |run| run.rate(FILES, "manifest-by-tag x64")),
    of("manifest by tag x64, filesystem", CPU, AtMost(0.25), Times, |run| run.cpu(FILES, "manifest-by-tag x64")),
    of("manifest by tag x64, filesystem", "CPU for one", AtMost(50.0), Micros, |run| run.ours(FILES, "manifest-by-tag x64")?.cpu),
    of("manifest by tag x64, s3", RATE, AtLeast(15.0), Times, |run| run.rate(S3, "manifest-by-tag x64")),
    of("manifest by tag x64, s3", CPU, AtMost(0.1), Times, |run| run.cpu(S3, "manifest-by-tag x64")),
    of("manifest by tag x64, s3", P99, AtMost(5.0 * MILLI), Micros, |run| run.p99(S3, "manifest-by-tag x64")),
    of("manifest by digest x64, filesystem", RATE, AtLeast(4.0), Times, |run| run.rate(FILES, "manifest-by-digest x64")),
    of("manifest by digest x64, filesystem", CPU, AtMost(0.25), Times, |run| run.cpu(FILES, "manifest-by-digest x64")),
    of("manifest by digest x64, s3", RATE, AtLeast(15.0), Times, |run| run.rate(S3, "manifest-by-digest x64")),
    of("manifest by digest x64, s3", CPU, AtMost(0.1), Times, |run| run.cpu(S3, "manifest-by-digest x64")),
    of("manifest by digest x64, s3", P99, AtMost(5.0 * MILLI), Micros, |run| run.p99(S3, "manifest-by-digest x64")),
    of("manifest by digest, warm", "round trips to PostgreSQL", AtMost(0.0), Count, |run| run.requests("manifest-by-digest")?.1),
    of("blob of 1 MiB, filesystem", COPY, AtMost(1.15), Times, |run| run.to_floor(FILES, "blob-get-1MiB", &[FILE_TO_SOCKET])),
    of("blob of 8 MiB, filesystem", COPY, AtMost(1.15), Times, |run| run.to_floor(FILES, "blob-get-8MiB", &[FILE_TO_SOCKET])),
    of("blob of 64 MiB, filesystem", COPY, AtMost(1.15), Times, |run| run.to_floor(FILES, "blob-get-64MiB", &[FILE_TO_SOCKET])),
    of("blob of 1 MiB, s3", COPY, AtMost(1.15), Times, |run| run.to_floor(S3, "blob-get-1MiB", &[S3_TO_SOCKET])),
    of("blob of 8 MiB, s3", COPY, AtMost(1.15), Times, |run| run.to_floor(S3, "blob-get-8MiB", &[S3_TO_SOCKET])),
    of("blob of 64 MiB, s3", COPY, AtMost(1.15), Times, |run| run.to_floor(S3, "blob-get-64MiB", &[S3_TO_SOCKET])),
    of("push of a small image x8, filesystem", RATE, AtLeast(2.0), Times, |run| run.rate(FILES, "push-image x8")),
    of("push of a small image x32, filesystem", RATE, AtLeast(2.0), Times, |run| run.rate(FILES, "push-image x32")),
    of("push of a small image x8, s3", RATE, AtLeast(5.0), Times, |run| run.rate(S3, "push-image x8")),
    of("push of a small image x32, s3", RATE, AtLeast(5.0), Times, |run| run.rate(S3, "push-image x32")),
    of("push of a small image, s3", "S3 requests", AtMost(12.0), Count, |run| Some(run.requests("push-image")?.0)),
    of("push of 64 MiB x1, filesystem", HASH_AND_COPY, AtMost(1.25), Times, |run| run.to_floor(FILES, "push-layer-64MiB x1", &[SHA_256, SOCKET_TO_FILE])),
    of("push of 64 MiB x8, filesystem", HASH_AND_COPY, AtMost(1.25), Times, |run| run.to_floor(FILES, "push-layer-64MiB x8", &[SHA_256, SOCKET_TO_FILE])),
    of("push of 64 MiB x1, s3", HASH_AND_COPY, AtMost(1.25), Times, |run| run.to_floor(S3, "push-layer-64MiB x1", &[SHA_256, SOCKET_TO_S3])),
    of("push of 64 MiB x8, s3", HASH_AND_COPY, AtMost(1.25), Times, |run| run.to_floor(S3, "push-layer-64MiB x8", &[SHA_256, SOCKET_TO_S3])),
    of("push of 8 MiB to 1 GiB, filesystem", "longest from last byte to answer", AtMost(50.0 * MILLI), Micros, |run| run.last_byte(FILES)),
    of("push of 8 MiB to 1 GiB, s3", "longest from last byte to answer", AtMost(50.0 * MILLI), Micros, |run| run.last_byte(S3)),
    of("idle, filesystem", "memory", AtMost(25.0 * MEGABYTE), Bytes, |run| Some(precise(run.process(FILES)?.idle))),
    of("idle, s3", "memory", AtMost(25.0 * MEGABYTE), Bytes, |run| Some(precise(run.process(S3)?.idle))),
    of("64 pulls of 1 GiB, filesystem", "peak memory", AtMost(150.0 * MEGABYTE), Bytes, |run| run.peak(FILES, PULLS.1)),
    of("64 pulls of 1 GiB, s3", "peak memory", AtMost(150.0 * MEGABYTE), Bytes, |run| run.peak(S3, PULLS.1)),
    of("32 pushes of 1 GiB, filesystem", "peak memory", AtMost(UPLOAD_MEMORY), Bytes, |run| run.peak(FILES, PUSHES.1)),
    of("32 pushes of 1 GiB, s3", "peak memory", AtMost(UPLOAD_MEMORY), Bytes, |run| run.peak(S3, PUSHES.1)),
    of("page of 1,000,000 tags, filesystem", P99, AtMost(20.0 * MILLI), Micros, |run| run.p99(FILES, "tags-page-of-1M")),
    of("page of 1,000,000 tags, s3", P99, AtMost(20.0 * MILLI), Micros, |run| run.p99(S3, "tags-page-of-1M")),
    of("page of 10,000 referrers, filesystem", P99, AtMost(20.0 * MILLI), Micros, |run| run.p99(FILES, "referrers-page-of-10k")),
    of("page of 10,000 referrers, s3", P99, AtMost(20.0 * MILLI), Micros, |run| run.p99(S3, "referrers-page-of-10k")),
    of("start, filesystem", "first answer", AtMost(150.0 * MILLI), Micros, |run| Some(run.process(FILES)?.started_in_ms * MILLI)),
    of("start, s3", "first answer", AtMost(300.0 * MILLI), Micros, |run| Some(run.process(S3)?.started_in_ms * MILLI)),
    of("idle, s3", "S3 requests in a minute", AtMost(0.0), Count, |run| run.a_minute(S3, |idle| Some(precise(idle.s3_requests?)))),
    of("idle, s3", "round trips to PostgreSQL in a minute", AtMost(4.0), Count, |run| run.a_minute(S3, |idle| Some(precise(idle.round_trips?)))),
    of("idle, s3", "CPU in a minute", AtMost(60.0 * MILLI), Micros, |run| run.a_minute(S3, |idle| Some(idle.cpu))),
    of("idle, filesystem", "CPU in a minute", AtMost(60.0 * MILLI), Micros, |run| run.a_minute(FILES, |idle| Some(idle.cpu))),
    of("growth, manifest by tag", "rate to that of an empty registry", AtLeast(0.8), Times, |run| run.scaled(GROWTH, "manifest-by-tag", [EMPTY, GROWN], |figures| Some(figures.per_second))),
    of("growth, any manifest by tag", "rate to that of an empty registry", AtLeast(0.8), Times, |run| run.scaled(GROWTH, "manifest-by-tag", [EMPTY, ALL_OVER], |figures| Some(figures.per_second))),
    of("growth, push of a small image", "rate to that of an empty registry", AtLeast(0.8), Times, |run| run.scaled(GROWTH, "push-image", [EMPTY, GROWN], |figures| Some(figures.per_second))),
    of("pulls, recorded, filesystem", UNRECORDED_RATE, AtLeast(0.98), Times, |run| run.policies(FILES, KNOWN, |figures| Some(figures.per_second))),
    of("pulls, recorded, filesystem", UNRECORDED_CPU, AtMost(1.02), Times, |run| run.policies(FILES, KNOWN, |figures| figures.cpu)),
    of("pulls, recorded, s3", UNRECORDED_RATE, AtLeast(0.98), Times, |run| run.policies(S3, KNOWN, |figures| Some(figures.per_second))),
    of("pulls, recorded, s3", UNRECORDED_CPU, AtMost(1.02), Times, |run| run.policies(S3, KNOWN, |figures| figures.cpu)),
    of("promotion of 2 x 20 layers with 4 referrers, filesystem", "p50", AtMost(50.0 * MILLI), Micros, |run| Some(run.policy(FILES, PROMOTION)?.p50)),
    of("plan of 1,000,000 tags, filesystem", "CPU", AtMost(60.0 * SECOND), Micros, |run| run.plan_cpu(FILES)),
    of("plan of 1,000,000 tags, filesystem", "peak memory", AtMost(256.0 * MEGABYTE), Bytes, |run| run.plan(FILES)?.peak),
    of("plan of 1,000,000 tags, s3", "CPU, PostgreSQL's with it", AtMost(60.0 * SECOND), Micros, |run| run.plan_cpu(S3)),
    of("plan of 1,000,000 tags, s3", "peak memory", AtMost(256.0 * MEGABYTE), Bytes, |run| run.plan(S3)?.peak),
    of("retention beside pushes, s3", "tags deleted in a second", AtLeast(1000.0), Count, |run| Some(run.policy(S3, ENFORCEMENT)?.per_second)),
    of("push of a small image x2 beside retention, s3", "p99 to that of pushes alone", AtMost(1.5), Times, |run| run.policies(S3, PUSHED, |figures| Some(figures.p99))),
    // Only where the cores allow it; else the next one counts.
    of("two replicas, manifest by tag", "rate to that of one", AtLeast(1.8), Times, |run| run.scaled(SCALE_OUT, "manifest-by-tag", [ONE, TWO], |figures| Some(figures.per_second))),
    of("two replicas, manifest by tag", "CPU for one to that of one replica", AtMost(1.05), Times, |run| run.scaled(SCALE_OUT, "manifest-by-tag", [ONE, TWO], |figures| figures.cpu)),
];

/// What a run has measured.
#[derive(Clone, Copy)]
struct Facts<'a>(&'a Results);

impl Facts<'_> {
    fn row(&self, registry: &str, storage: &str, work: &str) -> Option<&Row> {
        // A piece of work that is always done by the same number of clients goes without it.
        let same = |name: &str| {
            name.strip_prefix(work).is_some_and(|rest| rest.is_empty() || rest.starts_with(" x"))
        };
        let mut rows =
            self.0.rows.iter().filter(|row| (&*row.registry, &*row.storage) == (registry, storage));
        rows.find(|row| same(&row.work) && row.failure.is_none())
    }

    fn figures(self, registry: &str, storage: &str, work: &str) -> Option<Figures> {
        Figures::median(&self.row(registry, storage, work)?.rounds)
    }

    fn ours(self, storage: &str, work: &str) -> Option<Figures> {
        self.figures(OURS, storage, work)
    }

    fn rate(self, storage: &str, work: &str) -> Option<f64> {
        let theirs = self.figures(BASELINE, storage, work)?;
        Some(self.ours(storage, work)?.per_second / theirs.per_second)
    }

    fn cpu(self, storage: &str, work: &str) -> Option<f64> {
        Some(self.ours(storage, work)?.cpu? / self.figures(BASELINE, storage, work)?.cpu?)
    }

    fn p99(self, storage: &str, work: &str) -> Option<f64> {
        Some(self.ours(storage, work)?.p99)
    }

    /// CPU of work that moves content, in proportion to the floors under it.
    fn to_floor(self, storage: &str, work: &str, floors: &[&str]) -> Option<f64> {
        let bytes = self.row(OURS, storage, work)?.bytes?;
        let floor = |name: &&str| {
            let row = self.0.floors.iter().find(|row| row.floor == *name)?;
            median(row.rounds.clone())
        };
        let floors: f64 = floors.iter().map(floor).sum::<Option<f64>>()?;
        Some(self.ours(storage, work)?.cpu? * GIB / precise(bytes) / floors)
    }

    /// Requests to S3, and round trips to Postgres.
    fn requests(self, task: &str) -> Option<(f64, Option<f64>)> {
        let row = self.0.requests.iter().find(|row| row.registry == OURS && row.task == task)?;
        Some((row.per_unit, row.round_trips))
    }

    /// The longest of all sizes.
    fn last_byte(self, storage: &str) -> Option<f64> {
        let rows = self.0.last_bytes.iter().filter(|row| row.registry == OURS && row.storage == storage);
        rows.filter_map(|row| median(row.rounds.clone())).max_by(f64::total_cmp)
    }

    fn process(&self, storage: &str) -> Option<&ProcessRow> {
        self.0.processes.iter().find(|row| row.registry == OURS && row.storage == storage)
    }

    fn peak(self, storage: &str, work: &str) -> Option<f64> {
        let mut rows = self.0.loads.iter().filter(|row| row.registry == OURS && row.storage == storage);
        Some(precise(rows.find(|row| row.work == work)?.peak))
    }

    /// A figure of a setup in proportion to the same of another.
    fn scaled(
        self,
        experiment: &str,
        work: &str,
        setups: [&str; 2],
        figure: fn(&Figures) -> Option<f64>,
    ) -> Option<f64> {
        let [before, after] = setups.map(|setup| {
            let mut rows = self.0.scaling.iter().filter(|row| row.experiment == experiment);
            let row = rows.find(|row| row.setup == setup && row.work.starts_with(work))?;
            figure(&Figures::median(&row.rounds)?)
        });
        Some(after? / before?)
    }

    fn policy(self, storage: &str, work: &str) -> Option<Figures> {
        let mut rows = self.0.policies.iter().filter(|row| row.storage == storage);
        Figures::median(&rows.find(|row| row.work == work)?.rounds)
    }

    /// A figure of the second in proportion to the same of the first.
    fn policies(self, storage: &str, works: [&str; 2], figure: fn(&Figures) -> Option<f64>) -> Option<f64> {
        let [before, after] = works.map(|work| figure(&self.policy(storage, work)?));
        Some(after? / before?)
    }

    /// That of fewer tags says nothing.
    fn plan(self, storage: &str) -> Option<Figures> {
        self.policy(storage, PLAN).filter(|figures| figures.units >= 1e6)
    }

    fn plan_cpu(self, storage: &str) -> Option<f64> {
        let figures = self.plan(storage)?;
        Some((figures.cpu? + figures.storage_cpu.unwrap_or_default()) * figures.units)
    }

    fn a_minute(self, storage: &str, figure: fn(&IdleRow) -> Option<f64>) -> Option<f64> {
        let row = self.0.idle.iter().find(|row| row.registry == OURS && row.storage == storage)?;
        Some(figure(row)? / row.minutes)
    }
}

/// A target, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    work: &'static str,
    figure: &'static str,
    /// As it is read: `≥ 4.00x`.
    limit: String,
    /// `None`: not measured. Times are microseconds, memory is bytes.
    value: Option<f64>,
    measured: String,
    holds: Option<bool>,
}

/// Holds results against all targets.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.verdict(Facts(results))).collect()
}

impl Target {
    fn verdict(&self, facts: Facts<'_>) -> Verdict {
        let value = (self.value)(facts);
        let (sign, limit) = match self.limit {
            AtLeast(limit) => ('≥', limit),
            AtMost(limit) => ('≤', limit),
        };
        Verdict {
            work: self.work,
            figure: self.figure,
            limit: format!("{sign} {}", self.unit.spell(limit)),
            value,
            measured: value.map_or_else(|| "not measured".to_owned(), |value| self.unit.spell(value)),
            holds: value.map(|value| self.limit.holds(value)),
        }
    }
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(limit) => value >= limit,
            AtMost(limit) => value <= limit,
        }
    }
}

impl Unit {
    fn spell(self, value: f64) -> String {
        match self {
            Times => format!("{value:.2}x"),
            Micros => time(value),
            Bytes => format!("{:.1} MB", value / MEGABYTE),
            Count => number(value),
        }
    }
}

/// The verdicts, for people; empty when nothing of it was measured.
pub(crate) fn table(results: &Results) -> Table {
    let mut table = Table::new(&["work", "figure", "target", "measured", "holds"]);
    let verdicts = verdicts(results);
    if verdicts.iter().all(|verdict| verdict.value.is_none()) {
        return table;
    }
    for verdict in verdicts {
        let holds = match verdict.holds {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let cells = [verdict.work, verdict.figure, &verdict.limit, &verdict.measured, holds];
        table.add(cells.map(ToOwned::to_owned).to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::FloorRow;
    use crate::report::tests::{results, row};

    fn verdict(results: &Results, work: &str, figure: &str) -> Verdict {
        let mut all = verdicts(results).into_iter();
        all.find(|verdict| (verdict.work, verdict.figure) == (work, figure)).unwrap()
    }

    #[test]
    fn a_target_holds_from_its_limit_on() {
        let run = |ours| {
            let work = "manifest-by-tag x64";
            results(vec![row(work, OURS, &[ours]), row(work, BASELINE, &[100.0])])
        };
        let rate = |ours| verdict(&run(ours), "manifest by tag x64, filesystem", RATE);
        assert_eq!((rate(400.0).holds, rate(399.0).holds), (Some(true), Some(false)));
        assert_eq!((&*rate(400.0).limit, &*rate(400.0).measured), ("≥ 4.00x", "4.00x"));
        // One unit takes all of a core.
        let cpu = |ours| verdict(&run(ours), "manifest by tag x64, filesystem", CPU).holds;
        assert_eq!((cpu(401.0), cpu(399.0)), (Some(true), Some(false)));
    }

    #[test]
    fn what_is_missing_is_not_measured() {
        let none = results(Vec::new());
        assert!(verdicts(&none).iter().all(|verdict| verdict.holds.is_none()));
        assert!(table(&none).is_empty());
        let one = results(vec![row("push-image x8", OURS, &[1.0]), row("push-image x8", BASELINE, &[2.0])]);
        let text = table(&one).render();
        let line = text.lines().find(|line| line.contains("small image x32, filesystem")).unwrap();
        assert!(line.contains("not measured") && line.contains("| ? "), "{line}");
        assert_eq!(verdict(&one, "push of a small image x8, filesystem", RATE).holds, Some(false));
    }

    #[test]
    fn work_is_found_with_and_without_its_number_of_clients() {
        for name in ["tags-page-of-1M", "tags-page-of-1M x8"] {
            let run = results(vec![row(name, OURS, &[10.0])]);
            let found = verdict(&run, "page of 1,000,000 tags, filesystem", P99);
            assert_eq!(found.measured, "2.50 ms", "{name}");
        }
        let other = results(vec![row("tags-page-of-1M-more x8", OURS, &[10.0])]);
        assert_eq!(verdict(&other, "page of 1,000,000 tags, filesystem", P99).holds, None);
    }

    #[test]
    fn content_is_held_against_the_floors_under_it() {
        let mut pushed = row("push-layer-64MiB x1", OURS, &[10.0]);
        pushed.bytes = Some(64 << 20);
        let mut run = results(vec![pushed]);
        // 16 units, of 100 ms each.
        for (floor, micros) in [(SHA_256, 1e6), (SOCKET_TO_FILE, 6e5)] {
            run.floors.push(FloorRow { rounds: vec![micros], ..FloorRow::new(floor, FloorRow::CPU) });
        }
        let found = verdict(&run, "push of 64 MiB x1, filesystem", HASH_AND_COPY);
        assert_eq!((&*found.measured, found.holds), ("1.00x", Some(true)));
        run.floors.pop();
        assert_eq!(verdict(&run, "push of 64 MiB x1, filesystem", HASH_AND_COPY).holds, None);
    }
}
