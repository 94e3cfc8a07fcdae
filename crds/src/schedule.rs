// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! When a run is due: a line of cron in a time zone. Pure.
//!
//! Kubernetes reads the same line where it starts the runs; a process that starts them itself asks [`Schedule`].

use std::time::Duration;

use cronexpr::{Crontab, MakeTimestamp};
use jiff::{Timestamp, tz};
use thiserror::Error;

use crate::{Cron, GarbageCollection, TimeZone};

/// How many runs are looked at for the longest gap: a year of daily ones.
const LOOKED_AT: usize = 366;

/// Why a schedule is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotASchedule {
    /// No line of cron.
    #[error("schedule: {line:?} is not five fields of cron: {problem}")]
    Cron {
        /// The line.
        line: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No day has such a time.
    #[error("schedule: {0:?} names a day that never comes")]
    Never(String),
    /// No such zone.
    #[error("timeZone: {0:?} is not in the time zone database")]
    TimeZone(String),
}

/// When a run is due.
#[derive(Clone, Debug)]
pub struct Schedule(Crontab);

impl Schedule {
    /// The schedule of a line of cron; without a zone, in UTC.
    pub fn new(cron: &Cron, zone: Option<&TimeZone>) -> Result<Self, NotASchedule> {
        let zone = zone.map_or("UTC", TimeZone::as_str);
        if tz::TimeZone::get(zone).is_err() {
            return Err(NotASchedule::TimeZone(zone.to_owned()));
        }
        // A question mark means what an asterisk does.
        let line = written_out(cron.as_str()).replace('?', "*");
        let crontab = cronexpr::parse_crontab(&format!("{line} {zone}")).map_err(|error| {
            let problem = error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches([' ', '^'])
                .to_owned();
            NotASchedule::Cron { line: cron.as_str().to_owned(), problem }
        })?;
        let schedule = Self(crontab);
        match schedule.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(NotASchedule::Never(cron.as_str().to_owned())),
        }
    }

    /// The schedule of a collection, whether it is suspended or not.
    pub fn of(collection: &GarbageCollection) -> Result<Self, NotASchedule> {
        Self::new(&collection.schedule, collection.time_zone.as_ref())
    }

    /// The first time after `now` at which a run is due; `None` only at the end of time.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.find_next(MakeTimestamp(now)).ok().map(|next| next.timestamp())
    }

    /// The longest time between two runs.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let first = self.next_after(Timestamp::UNIX_EPOCH).unwrap_or(Timestamp::UNIX_EPOCH);
        let times: Vec<_> =
            std::iter::successors(Some(first), |time| self.next_after(*time)).take(LOOKED_AT).collect();
        let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unsigned_abs());
        gaps.max().unwrap_or_default()
    }
}

/// The fields that a name such as `@daily` stands for.
fn written_out(line: &str) -> &str {
    match line {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        fields => fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(line: &str, zone: Option<&str>) -> Result<Schedule, NotASchedule> {
        Schedule::new(&line.into(), zone.map(TimeZone::from).as_ref())
    }

    fn next(line: &str, zone: Option<&str>, after: &str) -> String {
        schedule(line, zone).unwrap().next_after(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_run_is_due_at_the_next_time_that_the_line_names() {
        for (line, zone, after, expected) in [
            ("17 3 * * *", None, "2026-03-01T03:16:59Z", "2026-03-01T03:17:00Z"),
            ("17 3 * * *", None, "2026-03-01T03:17:00Z", "2026-03-02T03:17:00Z"),
            ("17 3 * * *", Some("Europe/Berlin"), "2026-01-01T00:00:00Z", "2026-01-01T02:17:00Z"),
            ("17 3 * * *", Some("Europe/Berlin"), "2026-07-01T00:00:00Z", "2026-07-01T01:17:00Z"),
            ("0 */6 * * MON-FRI", None, "2026-03-06T18:00:00Z", "2026-03-09T00:00:00Z"),
            ("0 12 ? * sun", None, "2026-03-02T00:00:00Z", "2026-03-08T12:00:00Z"),
            ("@weekly", None, "2026-03-02T00:00:00Z", "2026-03-08T00:00:00Z"),
            ("0 0 29 2 *", None, "2026-03-02T00:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(next(line, zone, after), expected, "{line} {zone:?} after {after}");
        }
    }

    #[test]
    fn what_never_comes_is_no_schedule() {
        for line in ["0 24 * * *", "60 3 * * *", "0 3 * 13 *", "30-10 * * * *"] {
            let Err(NotASchedule::Cron { problem, .. }) = schedule(line, None) else {
                panic!("{line} is a schedule")
            };
            assert!(!problem.is_empty() && !problem.contains('\n'), "{problem}");
        }
        assert_eq!(schedule("0 3 30 2 *", None).unwrap_err(), NotASchedule::Never("0 3 30 2 *".into()));
        assert_eq!(
            schedule("@daily", Some("Mars/Base")).unwrap_err(),
            NotASchedule::TimeZone("Mars/Base".into())
        );
    }

    #[test]
    fn the_longest_gap_is_that_between_two_runs_in_a_row() {
        for (line, hours) in [("@hourly", 1), ("17 3 * * *", 24), ("0 */5 * * *", 5), ("@weekly", 7 * 24)] {
            assert_eq!(schedule(line, None).unwrap().longest_gap(), Duration::from_hours(hours), "{line}");
        }
        let working_days = schedule("0 3 * * 1-5", None).unwrap();
        assert_eq!(working_days.longest_gap(), Duration::from_hours(3 * 24));
    }

    #[test]
    fn the_default_is_once_a_night() {
        let schedule = Schedule::of(&GarbageCollection::default()).unwrap();
        assert_eq!(schedule.longest_gap(), Duration::from_hours(24));
    }
}
