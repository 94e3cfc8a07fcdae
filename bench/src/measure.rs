// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The kernel's accounting of a process, and the figures that are made of it and of latencies.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::load::Stretch;

/// What one round of a piece of work came to. Times are microseconds, memory is bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Units of work that were done.
    pub(crate) units: f64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// User and system time of the registry for one unit.
    pub(crate) cpu: Option<f64>,
    /// User and system time of the S3 server and the database for one unit.
    pub(crate) storage_cpu: Option<f64>,
    /// User and system time of the load generator for one unit.
    pub(crate) client_cpu: f64,
    /// The most memory that was resident in the registry during the round.
    pub(crate) peak: Option<f64>,
}

/// Processor time used between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) registry: Option<Duration>,
    pub(crate) storage: Option<Duration>,
    pub(crate) client: Duration,
}

impl Figures {
    /// The figures of one stretch of load.
    pub(crate) fn of(stretch: &Stretch, used: Used, peak: Option<u64>) -> Self {
        let units = precise(stretch.latencies.len() as u64);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / units;
        Self {
            units,
            per_second: units / stretch.elapsed.as_secs_f64(),
            p50: precise(percentile(&stretch.latencies, 50)) / 1e3,
            p99: precise(percentile(&stretch.latencies, 99)) / 1e3,
            cpu: used.registry.map(each),
            storage_cpu: used.storage.map(each),
            client_cpu: each(used.client),
            peak: peak.map(precise),
        }
    }

    /// The median of every figure; `None` of no rounds.
    pub(crate) fn median(rounds: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let of_some = |figure: fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        Some(Self {
            units: of(|round| round.units)?,
            per_second: of(|round| round.per_second)?,
            p50: of(|round| round.p50)?,
            p99: of(|round| round.p99)?,
            cpu: of_some(|round| round.cpu),
            storage_cpu: of_some(|round| round.storage_cpu),
            client_cpu: of(|round| round.client_cpu)?,
            peak: of_some(|round| round.peak),
        })
    }
}

/// The value that `percent` of the values do not exceed (nearest rank); 0 of none. `sorted` is ascending.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle value, or the mean of the two in the middle; `None` of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(values[middle - 1], upper)) }
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}

/// Microseconds of each of some units.
pub(crate) fn each(time: Duration, units: u64) -> f64 {
    time.as_secs_f64() * 1e6 / precise(units.max(1))
}

/// User and system time of this process, all its threads, to the nanosecond.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process never has used less than no time")
}

/// User and system time of processes and all that came of them: children that live, and those waited for.
/// The kernel tells it in hundredths of a second.
pub(crate) fn cpu_of(roots: &[Pid]) -> Result<Duration> {
    let mut children = BTreeMap::<i32, Vec<i32>>::new();
    let mut times = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("list the processes")? {
        let name = entry?.file_name();
        let Some((name, pid)) = name.to_str().and_then(|name| Some((name, name.parse().ok()?))) else {
            continue;
        };
        // A process may end while the list is read.
        let Some(stat) = Stat::read(name) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        times.insert(pid, stat.own + stat.waited_for);
    }
    let mut all: Vec<i32> = roots.iter().map(|root| root.as_raw_nonzero().get()).collect();
    let mut total = 0;
    while let Some(pid) = all.pop() {
        total += times.get(&pid).copied().unwrap_or_default();
        all.extend(children.get(&pid).into_iter().flatten());
    }
    Ok(ticks(total))
}

/// User and system time of the processes that this one has started and waited for, in hundredths of a second.
pub(crate) fn waited_for() -> Result<Duration> {
    let own = Stat::read("self").context("read /proc/self/stat")?;
    Ok(ticks(own.waited_for))
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(precise(count) / precise(rustix::param::clock_ticks_per_second()))
}

/// What `/proc/PID/stat` says, times in ticks.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: i32,
    own: u64,
    waited_for: u64,
}

impl Stat {
    fn read(pid: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program, in parentheses, may hold anything; fields are counted after it (proc(5)).
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let time = |field: usize| fields.get(field)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: time(11)? + time(12)?,
            waited_for: time(13)? + time(14)?,
        })
    }
}

/// Memory of a process that is resident, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{}/status", pid.as_raw_nonzero());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&text).with_context(|| format!("no VmRSS and VmHWM in {path}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { now: field("VmRSS")?, peak: field("VmHWM")? })
    }

    /// Makes the peak start anew (proc(5), `clear_refs`).
    pub(crate) fn forget_peak(pid: Pid) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", pid.as_raw_nonzero());
        fs::write(&path, "5").with_context(|| format!("write {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 50), 50);
        assert_eq!(percentile(&values, 99), 99);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[1, 2, 3], 50), 2);
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_slow_round_does_not_move_the_median() {
        let round = |per_second, cpu| Figures {
            units: 10.0,
            per_second,
            p50: 1.0,
            p99: 2.0,
            cpu,
            storage_cpu: None,
            client_cpu: 1.0,
            peak: None,
        };
        let rounds = [round(100.0, Some(5.0)), round(3.0, None), round(90.0, Some(7.0))];
        let median = Figures::median(&rounds).unwrap();
        assert_eq!((median.per_second, median.cpu, median.storage_cpu), (90.0, Some(6.0), None));
        assert_eq!(Figures::median(&[]), None);
    }

    #[test]
    fn the_time_of_a_process_is_read_past_any_name() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 100 20 7 3 20 0 5 0 99 1 2";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 1, own: 120, waited_for: 10 }));
        assert_eq!(Stat::parse("42 no name"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "Name:\tregistry\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { now: 1 << 20, peak: 2 << 20 }));
        assert_eq!(Memory::parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let me = rustix::process::getpid();
        let own = own_cpu();
        assert!(own > Duration::ZERO && own_cpu() >= own);
        cpu_of(&[me]).unwrap();
        let memory = Memory::of(me).unwrap();
        assert!(memory.now > 0 && memory.peak >= memory.now);
    }
}
