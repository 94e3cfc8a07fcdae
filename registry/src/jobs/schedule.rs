// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Starts collections when their schedule says or somebody asks, in a process of which no Job does.
//!
//! One at a time: what comes due while a run is under way is left out. A time that is missed while the process is
//! stopped is not made up for.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use stowage_crds::{Schedule, Summary};
use tokio_util::sync::CancellationToken;

use super::{Collector, End, Evicting, Run};
use crate::config::explained;
use crate::ops::clock;
use crate::ops::run_requests::Requested;

/// How often the schedule is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Collects by the `schedule`, which may be another at every look, and when it is `asked`, until `stopping`. A run evicts
/// what it is told when it begins. Each run is `told` when it has ended.
pub async fn collect_by_schedule<'a>(
    collector: Collector,
    schedule: impl Fn() -> Option<Schedule>,
    asked: Requested,
    evicting: impl Fn() -> BoxFuture<'a, Option<Evicting>>,
    told: impl Fn(&Summary),
    stopping: CancellationToken,
) {
    let mut looked = now();
    while stopping.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let now_is = now();
        let is_due = came_due(schedule().as_ref(), looked, now_is).is_some();
        if asked.take().is_empty() && !is_due {
            looked = now_is;
            continue;
        }
        match stopping.run_until_cancelled(collect(&collector, evicting())).await {
            Some(Some(summary)) => told(&summary),
            Some(None) => {}
            None => return,
        }
        looked = now();
    }
}

/// The first time of the schedule after `looked`, if it is not after `now`.
pub(super) fn came_due(schedule: Option<&Schedule>, looked: Timestamp, now: Timestamp) -> Option<Timestamp> {
    schedule.and_then(|schedule| schedule.next_after(looked)).filter(|due| *due <= now)
}

/// One run, as a Job would sum it up.
async fn collect(collector: &Collector, evicting: impl Future<Output = Option<Evicting>>) -> Option<Summary> {
    let run = Run::begin("gc");
    let mut collector = collector.clone();
    if let Some(evicting) = evicting.await {
        collector = collector.evicting(evicting);
    }
    let end = match collector.collect().await {
        Ok(collected) => {
            let counts = collected.counts();
            tracing::info!(command = "gc", ?counts, "collected");
            End::Done(counts)
        }
        Err(error) if error.is_refusal() => {
            let (reason, error) = (error.reason(), explained(&error));
            tracing::warn!(command = "gc", error, "not everything is collected, for safety");
            match reason {
                Some(reason) => End::RefusedFor(reason, error),
                None => End::Refused(error),
            }
        }
        Err(error) => {
            let error = explained(&error);
            tracing::error!(command = "gc", error, "not everything was collected");
            End::Failed(error)
        }
    };
    Summary::from_termination_message(&run.summary(&end))
}

pub(super) fn now() -> Timestamp {
    let seconds = i64::try_from(clock::seconds()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_schedule_comes_due_once() {
        let nightly = Schedule::new(&"17 3 * * *".into(), None).unwrap();
        let at = |text: &str| format!("2026-03-01T{text}Z").parse().unwrap();
        for (looked, now, due) in [
            ("03:16:58", "03:16:59", false),
            ("03:16:59", "03:17:00", true),
            ("03:17:00", "03:17:01", false),
            // The process slept meanwhile.
            ("01:00:00", "09:00:00", true),
            // The clock was put back.
            ("03:20:00", "03:10:00", false),
        ] {
            let came_due = came_due(Some(&nightly), at(looked), at(now));
            assert_eq!(came_due, due.then(|| at("03:17:00")), "{looked} {now}");
        }
        assert_eq!(came_due(None, at("01:00:00"), at("09:00:00")), None, "it is suspended");
    }
}
