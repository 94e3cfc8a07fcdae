// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which runs of Mirrors that copy are wanted now. Pure.
//!
//! The name of a run is made from what made it due, so that a look that is repeated wants the same run, and one that
//! ended is not made again.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use stowage_crds::{Cron, Mirror, MirrorMode, MirrorSpec, TimeZone, document::Document};

use super::{
    jobs::{self, JobState},
    observe::Observed,
};
use crate::names::{MIRROR_LABEL, MirrorNames, RUN_REQUESTED_AT};

/// The command of a run.
pub const COMMAND: &str = "sync";

/// A Mirror whose runs copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// Its name.
    pub mirror: String,
    /// The Secrets that a run reads beside those of the Registry.
    pub secrets: BTreeSet<String>,
    /// When runs begin by a clock.
    pub schedule: Option<(Cron, Option<TimeZone>)>,
    /// Whether no run may begin.
    pub suspended: bool,
    /// The names of the runs that are wanted beside those of the schedule.
    pub runs: Vec<String>,
    /// How long it is until a run becomes due that no schedule starts.
    pub next: Option<Duration>,
}

/// The Mirrors of a document that copy, and what is wanted of each.
pub(super) fn replications(document: &Document, seen: &Observed) -> Vec<Replication> {
    let copies = document.mirrors.iter().filter(|entry| entry.spec.mode == MirrorMode::Replicate);
    copies.map(|entry| replication(&entry.name, &entry.spec, seen)).collect()
}

fn replication(name: &str, spec: &MirrorSpec, seen: &Observed) -> Replication {
    let mirror = seen.dependents.mirrors.iter().find(|mirror| mirror.name_any() == name);
    let pause = spec.interval.as_ref().filter(|_| !spec.suspend);
    let after_pause = pause.map(|pause| after_pause(name, mirror, pause.to_std(), seen));
    let (due, next) = match after_pause {
        Some(Due::Now(run)) => (Some(run), None),
        Some(Due::In(time)) => (None, Some(time)),
        Some(Due::AfterAnother) | None => (None, None),
    };
    let asked = mirror.filter(|_| !spec.suspend).and_then(asked_for);
    Replication {
        mirror: name.to_owned(),
        secrets: spec.secrets().into_iter().map(|secret| secret.name).collect(),
        schedule: spec.schedule.clone().map(|cron| (cron, spec.time_zone.clone())),
        suspended: spec.suspend,
        runs: asked.into_iter().chain(due).collect(),
        next,
    }
}

/// The run that a Mirror asks for, if it is not known to have been started. What was handled before it is a part of its
/// name, so that a request can be made again with the words of an earlier one.
pub fn asked_for(mirror: &Mirror) -> Option<String> {
    let asked = mirror.annotations().get(RUN_REQUESTED_AT)?;
    let handled = mirror.status.as_ref().and_then(|status| status.last_handled_run_at.as_ref());
    let seed = format!("{}|{asked}", handled.map(String::as_str).unwrap_or_default());
    (handled != Some(asked)).then(|| MirrorNames::of(&mirror.name_any()).run(&seed))
}

/// When a run is due by the pause since the last one.
enum Due {
    Now(String),
    In(Duration),
    /// A run is under way; its end wakes us.
    AfterAnother,
}

fn after_pause(name: &str, mirror: Option<&Mirror>, pause: Duration, seen: &Observed) -> Due {
    let runs: Vec<&Job> = runs_of(name, &seen.runs).collect();
    let known = mirror.and_then(|mirror| mirror.status.as_ref()?.last_sync_time.as_ref()).map(|time| time.0);
    let ends = runs.iter().filter_map(|job| jobs::ended(job, &seen.pods, COMMAND)?.summary.completion_time);
    let last = ends.map(|time| time.0).chain(known).max();
    let run = MirrorNames::of(name).run(&last.map(|last| last.to_string()).unwrap_or_default());
    let is_another = |job: &&&Job| jobs::state(job, &seen.pods) == JobState::Running && job.name_any() != run;
    if runs.iter().find(is_another).is_some() {
        return Due::AfterAnother;
    }
    match last.map(|last| pause.saturating_sub(since(last, seen.now))) {
        Some(left) if !left.is_zero() => Due::In(left),
        _ => Due::Now(run),
    }
}

/// The runs of one Mirror.
fn runs_of<'a>(mirror: &str, runs: &'a [Job]) -> impl Iterator<Item = &'a Job> + use<'a> {
    let label = MirrorNames::of(mirror).label();
    runs.iter().filter(move |job| job.labels().get(MIRROR_LABEL) == Some(&label))
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn mirror(annotation: Option<&str>, handled: Option<&str>, ended: Option<&str>) -> Mirror {
        from_value(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Mirror",
            "metadata": {
                "name": "base",
                "annotations": annotation.map(|asked| json!({ "stowage.dev/run-requested-at": asked })),
            },
            "spec": {
                "registryRef": { "name": "main" }, "mode": "Replicate", "interval": "10m",
                "upstream": { "url": "https://quay.example.com" }, "artifacts": [{ "repository": "a/b" }],
            },
            "status": { "lastHandledRunAt": handled, "lastSyncTime": ended },
        }))
        .unwrap()
    }

    fn at(minute: &str, mirror: Mirror) -> Observed {
        let mut seen =
            Observed { now: format!("2026-01-01T03:{minute}Z").parse().unwrap(), ..Observed::default() };
        seen.dependents.mirrors = vec![mirror];
        seen
    }

    fn job(name: &str, end: Option<&str>) -> Job {
        let conditions: Vec<_> =
            end.iter().map(|_| json!({ "type": "Complete", "status": "True" })).collect();
        from_value(json!({
            "metadata": { "name": name, "labels": { "stowage.dev/mirror": "base", "app.kubernetes.io/component": "sync" } },
            "status": { "completionTime": end, "conditions": conditions },
        }))
        .unwrap()
    }

    fn wanted(seen: &Observed) -> Replication {
        let spec = seen.dependents.mirrors[0].spec.clone();
        replication("base", &spec, seen)
    }

    #[test]
    fn a_run_is_due_when_the_pause_after_the_last_one_is_over() {
        let first = wanted(&at("00:00", mirror(None, None, None))).runs;
        assert_eq!(first.len(), 1);
        let ended = Some("2026-01-01T03:00:00Z");
        let pauses = wanted(&at("04:00", mirror(None, None, ended)));
        assert_eq!((pauses.runs.len(), pauses.next), (0, Some(Duration::from_mins(6))));
        let due = wanted(&at("10:00", mirror(None, None, ended)));
        assert_eq!((due.runs.len(), due.next), (1, None));
        assert_ne!(due.runs, first);
        assert_eq!(
            wanted(&at("20:00", mirror(None, None, ended))).runs,
            due.runs,
            "a later look wants the same"
        );
    }

    #[test]
    fn a_run_that_is_under_way_is_wanted_on_and_no_other_beside_it() {
        let mut seen = at("20:00", mirror(None, None, None));
        let run = wanted(&seen).runs;
        seen.runs = vec![job(&run[0], None)];
        assert_eq!(wanted(&seen).runs, run);
        seen.runs = vec![job("by-hand", None)];
        assert!(wanted(&seen).runs.is_empty());
        // Its end is known from the Job before any status tells of it.
        seen.runs = vec![job(&run[0], Some("2026-01-01T03:15:00Z"))];
        assert_eq!((wanted(&seen).runs.len(), wanted(&seen).next), (0, Some(Duration::from_mins(5))));
    }

    #[test]
    fn a_request_is_a_run_of_its_own_until_it_is_handled() {
        let ended = Some("2026-01-01T03:00:00Z");
        let runs = |asked, handled| wanted(&at("01:00", mirror(asked, handled, ended))).runs;
        let one = runs(Some("one"), None);
        assert_eq!(one.len(), 1);
        assert!(runs(Some("one"), Some("one")).is_empty());
        let two = runs(Some("two"), Some("one"));
        assert!(two.len() == 1 && two != one);
        assert_ne!(runs(Some("one"), Some("two")), one, "the same words again are another request");
        let mut suspended = mirror(Some("one"), None, ended);
        suspended.spec.suspend = true;
        assert!(wanted(&at("20:00", suspended)).runs.is_empty());
    }
}
