// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs of mirrors that replicate: what one told, and the start of those that are due or asked for, in a process of which
//! no Job does.
//!
//! Of a mirror one run at a time; those of several go beside each other. A time that is missed while the process is
//! stopped, or a run is under way, is not made up for; a pause counts from the end of a run, and the first run of a
//! mirror with a pause begins at once.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use stowage_crds::{Outcome, Summary, SyncFailure, Termination};
use tokio_util::sync::CancellationToken;

use super::Run;
use super::schedule::{came_due, now};
use crate::config::Due;
use crate::domain::{Replication, Synced};
use crate::ops::run_requests::Requested;

/// How often it is looked at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// A mirror, and when its runs are due.
#[derive(Clone, Debug)]
pub struct Replicating {
    /// What a run is to do.
    pub replication: Replication,
    /// When this process starts one by itself; `None`: it does not.
    pub due: Option<Due>,
}

/// What a run came to, as Kubernetes keeps it.
#[must_use]
pub fn sync_termination(run: &Run, synced: &Synced) -> Termination {
    let (result, reason) = match synced.failed {
        0 => (Outcome::Succeeded, None),
        _ if synced.copied + synced.skipped > 0 => (Outcome::Failed, Some("PartialFailure")),
        _ => (Outcome::Failed, Some("RunFailed")),
    };
    let message = synced.failures.first().map(|(reference, reason)| {
        format!("{} could not be copied; the first: {reference} ({reason})", synced.failed)
    });
    let failures = synced.failures.iter().map(|(reference, reason)| SyncFailure {
        reference: reference.clone(),
        reason: (*reason).to_owned(),
    });
    Termination {
        summary: Summary { reason: reason.map(str::to_owned), message, ..run.ended(result, synced.counts()) },
        failures: failures.collect(),
        evaluation: None,
    }
}

/// Starts `run` of each mirror when it is due or `asked` for, until `stopping`; `mirrors` may be others at every look.
/// Each run is `told` when it has ended.
pub async fn replicate_by_schedule(
    mirrors: impl Fn() -> Vec<Replicating>,
    run: impl Fn(Replication) -> BoxFuture<'static, Synced>,
    asked: Requested,
    told: impl Fn(&str, Termination),
    stopping: CancellationToken,
) {
    let mut runs = Runs {
        looked: now(),
        asked: BTreeSet::new(),
        ended: HashMap::new(),
        running: FuturesUnordered::new(),
    };
    loop {
        let look = stopping.run_until_cancelled(tokio::time::sleep(LOOK));
        tokio::select! {
            looks = look => if looks.is_none() { return },
            Some((name, termination)) = runs.running.next() => {
                told(&name, termination);
                runs.ended.insert(name, Some(Instant::now()));
            }
        }
        let now_is = now();
        runs.asked.extend(asked.take());
        for mirror in mirrors() {
            if runs.is_due(&mirror, now_is) {
                let name = mirror.replication.name.clone();
                runs.asked.remove(&name);
                runs.ended.insert(name.clone(), None);
                let (begun, running) = (Run::begin("sync"), run(mirror.replication));
                runs.running.push(Box::pin(async move {
                    let synced = running.await;
                    log(&name, &synced);
                    (name, sync_termination(&begun, &synced))
                }));
            }
        }
        runs.looked = now_is;
    }
}

/// The runs of a process.
struct Runs {
    looked: Timestamp,
    /// What somebody asked for and has not begun.
    asked: BTreeSet<String>,
    /// When the last run of a mirror ended; `None` while it is under way.
    ended: HashMap<String, Option<Instant>>,
    running: FuturesUnordered<BoxFuture<'static, (String, Termination)>>,
}

impl Runs {
    fn is_due(&self, mirror: &Replicating, now: Timestamp) -> bool {
        let last = self.ended.get(&mirror.replication.name);
        let is_asked = self.asked.contains(&mirror.replication.name);
        match (&mirror.due, last) {
            (_, Some(None)) => false,
            _ if is_asked => true,
            (None, _) => false,
            (Some(Due::By(schedule)), None | Some(Some(_))) => {
                came_due(Some(schedule), self.looked, now).is_some()
            }
            (Some(Due::After(_)), None) => true,
            (Some(Due::After(pause)), Some(Some(ended))) => ended.elapsed() >= *pause,
        }
    }
}

fn log(mirror: &str, synced: &Synced) {
    let counts = synced.counts();
    match synced.failures.first() {
        None => tracing::info!(mirror.name = mirror, ?counts, "replicated"),
        Some((reference, reason)) => {
            tracing::warn!(
                mirror.name = mirror,
                ?counts,
                first = reference,
                reason,
                "not everything was replicated"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use stowage_crds::Schedule;

    use super::*;
    use crate::upstream::Settings;

    fn mirror(due: Option<Due>) -> Replicating {
        let replication = Replication {
            name: "base".to_owned(),
            path: None,
            upstream: Settings::new("https://hub.example.com".parse().unwrap(), "us"),
            artifacts: Vec::new(),
            prunes: false,
            with_referrers: true,
            parallelism: 1,
            bytes_per_second: None,
            taken: Vec::new(),
            keys: None,
        };
        Replicating { replication, due }
    }

    #[test]
    fn f23_a_run_is_due_by_its_schedule_or_its_pause_and_never_beside_another_of_its_mirror() {
        let at = |text: &str| format!("2026-03-01T{text}Z").parse().unwrap();
        let runs = |ended: Option<Option<Instant>>| Runs {
            looked: at("05:59:59"),
            asked: BTreeSet::new(),
            ended: ended.map(|ended| ("base".to_owned(), ended)).into_iter().collect(),
            running: FuturesUnordered::new(),
        };
        let is_due = |due: &Due, ended, now| runs(ended).is_due(&mirror(Some(due.clone())), at(now));
        let cron = Due::By(Schedule::new(&"0 */6 * * *".into(), None).unwrap());
        assert!(is_due(&cron, None, "06:00:00") && !is_due(&cron, None, "05:59:59"));
        assert!(!is_due(&cron, Some(None), "06:00:00"), "one is under way");
        let (soon, late) = (Due::After(Duration::ZERO), Due::After(Duration::from_hours(1)));
        assert!(is_due(&late, None, "05:59:59"), "the first");
        assert!(is_due(&soon, Some(Some(Instant::now())), "05:59:59"));
        assert!(
            !is_due(&late, Some(Some(Instant::now())), "06:00:00") && !is_due(&soon, Some(None), "06:00:00")
        );
        assert!(!runs(None).is_due(&mirror(None), at("06:00:00")));
        let asked = |ended| Runs { asked: ["base".to_owned()].into(), ..runs(ended) };
        assert!(asked(None).is_due(&mirror(None), at("05:59:59")), "it is suspended");
        assert!(asked(Some(Some(Instant::now()))).is_due(&mirror(Some(late)), at("05:59:59")));
        assert!(!asked(Some(None)).is_due(&mirror(Some(cron)), at("05:59:59")), "one is under way");
    }

    #[test]
    fn f34_a_run_that_failed_in_parts_says_so_and_names_them() {
        let failures = vec![("a:1".to_owned(), "NotFound")];
        let synced = Synced { copied: 2, skipped: 1, failed: 1, failures, ..Synced::default() };
        let told = sync_termination(&Run::begin("sync"), &synced);
        assert_eq!(
            (told.summary.result, told.summary.reason.as_deref()),
            (Outcome::Failed, Some("PartialFailure"))
        );
        assert_eq!((told.summary.counts["copied"], told.summary.counts["failed"]), (2, 1));
        assert_eq!(
            (told.failures[0].reference.as_str(), told.failures[0].reason.as_str()),
            ("a:1", "NotFound")
        );
        let nothing = Synced { failed: 1, ..Synced::default() };
        let told = sync_termination(&Run::begin("sync"), &nothing);
        assert_eq!(told.summary.reason.as_deref(), Some("RunFailed"));
        assert_eq!(
            sync_termination(&Run::begin("sync"), &Synced::default()).summary.result,
            Outcome::Succeeded
        );
    }
}
