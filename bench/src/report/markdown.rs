// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The report for people: tables, and pictures beside it.

use std::fmt::Write as _;

use super::{FloorRow, LastByteRow, LoadRow, MirrorRow, Results, Row, ScalingRow};
use crate::measure::{Figures, median, precise};
use crate::plot;
use crate::table::{GIB, MIB, Table, dash, memory, number, ratio, time};
use crate::targets;

impl Results {
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
        section(&mut text, "Policies", &self.policy_table());
        section(&mut text, "Floors", &self.floor_table());
        section(&mut text, "Registries", &self.about());
        section(&mut text, "Machine", &self.machine_table());
        text
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

    fn policy_table(&self) -> Table {
        let mut table = Table::new(&[
            "storage",
            "work",
            "unit",
            "units",
            "per second",
            "p50",
            "p99",
            "CPU",
            "storage CPU",
            "peak memory",
            "rate ratio",
            "CPU ratio",
            "p99 ratio",
        ]);
        for row in &self.policies {
            let Some(figures) = Figures::median(&row.rounds) else { continue };
            let of = |work: &String| {
                let mut others = self.policies.iter().filter(|other| other.storage == row.storage);
                others.find(|other| other.work == *work)
            };
            let to = row.to.as_ref().and_then(of).and_then(|other| Figures::median(&other.rounds));
            // A command has none.
            let latency = |micros: f64| if micros > 0.0 { time(micros) } else { dash() };
            table.add(vec![
                row.storage.clone(),
                row.work.clone(),
                row.unit.clone(),
                number(figures.units),
                number(figures.per_second),
                latency(figures.p50),
                latency(figures.p99),
                figures.cpu.map_or_else(dash, time),
                figures.storage_cpu.map_or_else(dash, time),
                figures.peak.map_or_else(dash, memory),
                to.as_ref().map_or_else(dash, |to| ratio(figures.per_second, to.per_second)),
                to.as_ref().and_then(|to| Some(ratio(figures.cpu?, to.cpu?))).unwrap_or_else(dash),
                to.map_or_else(dash, |to| ratio(figures.p99, to.p99)),
            ]);
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

fn section(text: &mut String, title: &str, table: &Table) {
    if !table.is_empty() {
        write!(text, "\n## {title}\n\n{}", table.render()).expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{results, row};

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
}
