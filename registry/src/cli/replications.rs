// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mirrors that replicate: from the configuration to what the registry does, by hand and by schedule.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use clap::Args;
use futures::FutureExt as _;
use serde_json::json;
use stowage_registry::config::{
    self, Config, Facts, Live, ReplicatedArtifacts, ReplicatedRepositories, Schedules,
};
use stowage_registry::domain::{
    Artifacts, Replication, Repositories, Selection, SyncFate, SyncItem, SyncMode, SyncProgress, Synced,
};
use stowage_registry::jobs::{self, Replicating, Run, Termination};
use stowage_registry::ops::progress::Progress;
use stowage_registry::ops::tasks::Tasks;
use stowage_registry::{Registry, jobs::replicate_by_schedule};

use super::{Common, Failure, Output, mirrors, open, print, runtime, summary, termination};

/// Flags of `sync`.
#[derive(Debug, Args)]
pub(super) struct Sync {
    #[command(flatten)]
    common: Common,
    /// The mirror, of mode Replicate
    #[arg(long, value_name = "NAME", env = "STOWAGE_MIRROR")]
    mirror: String,
    /// List, compare, and tell what would be copied and pruned; change nothing
    #[arg(long, env = "STOWAGE_DRY_RUN")]
    dry_run: bool,
    /// Form of what is told of each tag
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

impl Sync {
    /// Does it, and writes down for Kubernetes what it came to.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let run = Run::begin("sync");
        match self.synced() {
            Ok(synced) => {
                termination::write(&jobs::sync_termination(&run, &synced).to_termination_message());
                self.told(&synced)?;
                match synced.failures.first() {
                    None => Ok(()),
                    Some((reference, reason)) => {
                        Err(Failure::NotSynced { failed: synced.failed, first: reference.clone(), reason })
                    }
                }
            }
            Err(failure) => {
                termination::failed(&run, &failure);
                Err(failure)
            }
        }
    }

    fn synced(&self) -> Result<Synced, Failure> {
        let sync = config::load_sync(&self.common.sources(None), &self.mirror)?;
        let mode = if self.dry_run { SyncMode::DryRun } else { SyncMode::Copy };
        if let (SyncMode::Copy, Some(why)) = (mode, sync.replication.forbidden(sync.pushing.mode)) {
            return Err(Failure::Forbidden(why));
        }
        let replication = replication(&sync.replication)?;
        let progress = Mutex::new(Progress::begin("tags"));
        let tell = |item: &SyncItem, now: SyncProgress| {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.end();
            // Whoever reads them has read enough, or it fails again at the end.
            drop(print(self.shown(item).as_bytes()));
            progress.tell(now.done, now.known);
        };
        runtime()?.block_on(open::sync(&sync, &self.common.data_dir, &replication, mode, &tell))
    }

    fn shown(&self, item: &SyncItem) -> String {
        let SyncItem { reference, fate } = item;
        let name = fate.name();
        match (self.output, fate) {
            (Output::Text, SyncFate::Failed { reason, message }) => {
                format!("{name} {reference}: {reason}: {message}\n")
            }
            (Output::Text, _) => format!("{name} {reference}\n"),
            (Output::Json, SyncFate::Failed { reason, message }) => {
                let line =
                    json!({ "reference": reference, "result": name, "reason": reason, "message": message });
                format!("{line}\n")
            }
            (Output::Json, _) => format!("{}\n", json!({ "reference": reference, "result": name })),
        }
    }

    fn told(&self, synced: &Synced) -> Result<(), Failure> {
        let counts = synced.counts();
        let text = match self.output {
            Output::Text => summary(&counts, Output::Text),
            Output::Json => format!("{}\n", json!({ "summary": counts, "dryRun": self.dry_run })),
        };
        print(text.as_bytes())
    }
}

/// As the registry takes it. Who we are it adds by itself.
fn replication(configured: &config::Replication) -> Result<Replication, Failure> {
    let name = configured.name.clone();
    let upstream = mirrors::upstream_of(&name, &configured.upstream).ok_or(Failure::Upstream)?;
    Ok(Replication {
        name,
        path: configured.path.clone(),
        upstream,
        artifacts: configured.artifacts.iter().map(artifacts).collect(),
        prunes: configured.prunes,
        with_referrers: configured.with_referrers,
        parallelism: configured.parallelism,
        bytes_per_second: configured.bytes_per_second,
        taken: configured.taken.clone(),
        keys: configured.keys.clone(),
    })
}

fn artifacts(configured: &ReplicatedArtifacts) -> Artifacts {
    let repositories = match &configured.repositories {
        ReplicatedRepositories::One(name) => Repositories::One(name.clone()),
        ReplicatedRepositories::Catalog { include, exclude } => {
            Repositories::Catalog { include: include.clone(), exclude: exclude.clone() }
        }
        ReplicatedRepositories::Organization { name, exclude } => {
            Repositories::Organization { name: name.clone(), exclude: exclude.clone() }
        }
    };
    let selection = Selection {
        tags: configured.tags.clone(),
        newest: configured.newest,
        platforms: configured.platforms.clone(),
    };
    Artifacts { repositories, selection }
}

/// Starts runs in this process when the configuration in force says so, or somebody asks.
pub(super) fn keep(registry: Registry, live: Arc<Live>, facts: Arc<ArcSwap<Facts>>, tasks: &Tasks) {
    let (stopping, asked) = (tasks.stopping(), registry.run_requests().mirrors.clone());
    let due = move || due(&live.current());
    let run = move |asked: Replication| {
        let registry = registry.clone();
        async move { registry.replicate(&asked, SyncMode::Copy, &|_: &SyncItem, _: SyncProgress| {}).await }
            .boxed()
    };
    let told = move |mirror: &str, run: Termination| drop(facts.rcu(|facts| facts.with_sync(mirror, &run)));
    tasks.spawn(async move { replicate_by_schedule(due, run, asked, told, stopping).await });
}

/// The mirrors of which this process may start runs.
pub(super) fn startable(config: &Config) -> impl Iterator<Item = &config::Replication> {
    let is_ours = config.schedules == Schedules::InProcess;
    config.replications.iter().filter(move |of| is_ours && of.forbidden(config.mode).is_none())
}

fn due(config: &Config) -> Vec<Replicating> {
    let settings = |configured: &config::Replication| {
        Some(Replicating { replication: replication(configured).ok()?, due: configured.due.clone() })
    };
    startable(config).filter_map(settings).collect()
}
