// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Retention policies: from the configuration to runs, by hand and by schedule.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use futures::FutureExt as _;
use serde_json::json;
use stowage_registry::config::{self, Facts, Live, Retention, explained};
use stowage_registry::jobs::{
    Held, PlanLine, Retained, Retainer, Retaining, RetentionError, RetentionRun, Run, Termination,
    retain_by_schedule,
};
use stowage_registry::meta::MetaStore;
use stowage_registry::ops::run_requests::Requested;
use stowage_registry::ops::tasks::Tasks;
use stowage_registry::retention::PolicyMode;
use stowage_registry::usage::{Unanswered, Usage};

use super::{Asker, Common, Failure, Output, open, print, runtime, summary, termination, usage};

/// Flags of `retention`.
#[derive(Debug, Args)]
pub(super) struct Retain {
    #[command(flatten)]
    common: Common,
    /// The policy
    #[arg(long, value_name = "NAME", env = "STOWAGE_POLICY")]
    policy: String,
    #[command(flatten)]
    asker: Asker,
    /// Tell which tags stay and why; change nothing
    #[arg(long, env = "STOWAGE_DRY_RUN")]
    dry_run: bool,
    /// Form of what is told of each tag
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

impl Retain {
    /// Does it, and writes down for Kubernetes what it came to.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let run = Run::begin("retention");
        match self.retained() {
            Ok((retained, mode)) => {
                termination::write(&retained.summary(&run, mode).to_termination_message());
                self.told(&retained)?;
                match (retained.failure, retained.held) {
                    (Some(failure), _) => Err(Failure::NotRetained(failure)),
                    (None, Some(held)) if held.is_refusal() => {
                        Err(Failure::Held(held.reason(), held.message().unwrap_or_default()))
                    }
                    _ => Ok(()),
                }
            }
            Err(failure) => {
                termination::failed(&run, &failure);
                Err(failure)
            }
        }
    }

    fn retained(&self) -> Result<(Retained, PolicyMode), Failure> {
        let asked = config::load_retention(&self.common.sources(None), &self.policy)?;
        let run = if self.dry_run { RetentionRun::Tell } else { RetentionRun::Act };
        // Whoever reads them has read enough, or it fails again at the end.
        let mut tell = |line: &PlanLine<'_>| drop(print(self.shown(line).as_bytes()));
        let data_dir = &self.common.data_dir;
        let asker = self.asker.asks();
        let retained = open::retention(&asked, data_dir, &self.policy, &asker, run, &mut tell);
        let retained = runtime()?.block_on(retained)?;
        let mode = asked.retention.policies.named(&self.policy).map(|policy| policy.mode);
        Ok((retained, mode.unwrap_or(PolicyMode::DryRun)))
    }

    fn shown(&self, line: &PlanLine<'_>) -> String {
        let PlanLine { repository, tag, keeps, reason, .. } = line;
        match self.output {
            Output::Text => {
                let fate = if *keeps { "keep" } else { "delete" };
                format!("{fate} {repository}:{tag} {reason}\n")
            }
            Output::Json => format!("{}\n", serde_json::to_string(line).unwrap_or_default()),
        }
    }

    fn told(&self, retained: &Retained) -> Result<(), Failure> {
        let (counts, held) = (retained.counts(), retained.held.map(|held| held.reason()));
        let text = match self.output {
            Output::Text => format!("{}{}", summary(&counts, Output::Text), end(retained)),
            Output::Json => {
                let end = json!({
                    "summary": counts, "dryRun": self.dry_run, "held": held, "overlaps": retained.overlaps,
                    "trashSeconds": retained.trash.as_secs(),
                });
                format!("{end}\n")
            }
        };
        print(text.as_bytes())
    }
}

/// What is to be known after the numbers.
fn end(retained: &Retained) -> String {
    let overlaps = if retained.overlaps.is_empty() {
        String::new()
    } else {
        format!("overlaps with {}\n", retained.overlaps.join(", "))
    };
    let trash = match (retained.trash.is_zero(), spelled(retained.trash)) {
        (true, _) => "deleted tags cannot be restored: trash.retainFor is 0s\n".to_owned(),
        (false, time) => format!("deleted tags can be restored for {time} (trash.retainFor)\n"),
    };
    let held = match retained.held {
        None => String::new(),
        Some(held @ (Held::Asked | Held::DryRun)) => format!("nothing was deleted: {}\n", held.reason()),
        Some(held) => {
            let message = held.message().unwrap_or_default();
            format!("nothing was deleted: {} {message}\n", held.reason())
        }
    };
    format!("{overlaps}{trash}{held}")
}

fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    for (unit, length) in [("h", 3600), ("m", 60)] {
        if seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

/// Starts runs in this process when the configuration in force says so, or somebody asks; the operator's answers come to
/// `folder`.
pub(super) fn keep(
    retainer: Retainer,
    live: Arc<Live>,
    meta: Arc<dyn MetaStore>,
    folder: PathBuf,
    facts: Arc<ArcSwap<Facts>>,
    asked: Requested,
    tasks: &Tasks,
) {
    let stopping = tasks.stopping();
    let asking = {
        let (live, facts) = (Arc::clone(&live), Arc::clone(&facts));
        move || {
            let (live, meta, folder, facts) =
                (Arc::clone(&live), Arc::clone(&meta), folder.clone(), Arc::clone(&facts));
            async move { usage::asked(&live, &*meta, &folder, &facts).await }
        }
    };
    let settings = {
        let live = Arc::clone(&live);
        move || Arc::clone(&live.current().retention)
    };
    let known = retainer.clone();
    known.expect(&live.current().retention);
    let due = move || {
        let current = live.current();
        known.expect(&current.retention);
        due(&current.retention)
    };
    let run = move |policy: String, due| {
        let (retainer, settings, usage) = (retainer.clone(), settings(), asking());
        async move {
            // What cannot be asked is what the run itself fails by.
            if retainer.has_run(&policy, due).await.unwrap_or(false) {
                return None;
            }
            Some(once(&retainer, &settings, &policy, usage).await)
        }
        .boxed()
    };
    let told = move |policy: &str, run: Termination| {
        drop(facts.rcu(|facts| facts.with_retention(policy, &run)));
    };
    tasks.spawn(async move { retain_by_schedule(due, run, asked, told, stopping).await });
}

fn due(settings: &Retention) -> Vec<Retaining> {
    let due = settings.due.iter().cloned();
    due.map(|(policy, schedule)| Retaining { policy, schedule }).collect()
}

/// One run, as a Job would sum it up.
async fn once(
    retainer: &Retainer,
    settings: &Retention,
    policy: &str,
    usage: impl Future<Output = Result<Option<Usage>, Unanswered>>,
) -> Termination {
    let run = Run::begin("retention");
    let mode = settings.policies.named(policy).map_or(PolicyMode::DryRun, |policy| policy.mode);
    let retained = async {
        let usage = usage.await.map_err(RetentionError::from)?;
        Ok(retainer.run(settings, policy, usage, RetentionRun::Act, &mut |_| {}).await?)
    };
    let summary = match retained.await {
        Ok(retained) => {
            let summary = retained.summary(&run, mode);
            tracing::info!(policy.name = policy, counts = ?summary.counts, result = ?summary.result, "retained");
            summary
        }
        Err(failure) => {
            let failure: Failure = failure;
            tracing::warn!(policy.name = policy, error = explained(&failure), "no retention");
            termination::summary_of(&run, &failure)
        }
    };
    Termination { summary, failures: Vec::new(), evaluation: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_to_undo_is_told_in_words() {
        for (seconds, spelling) in [(7 * 24 * 3600, "168h"), (90 * 60, "90m"), (61, "61s")] {
            assert_eq!(spelled(Duration::from_secs(seconds)), spelling);
        }
        let told = end(&Retained {
            held: Some(Held::DryRun),
            trash: Duration::from_hours(1),
            ..Retained::default()
        });
        assert_eq!(
            told,
            "deleted tags can be restored for 1h (trash.retainFor)\nnothing was deleted: DryRun\n"
        );
        let told = end(&Retained { overlaps: vec!["a".into(), "b".into()], ..Retained::default() });
        assert!(told.starts_with("overlaps with a, b\ndeleted tags cannot be restored"), "{told}");
    }
}
