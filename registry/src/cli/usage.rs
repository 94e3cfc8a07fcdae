// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What clusters run: told to the registry of another, and asked for by the runs of a process that serves.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use clap::{Args, Subcommand};
use serde_json::json;
use stowage_registry::config::{Facts, Live, Trouble};
use stowage_registry::jobs::Evicting;
use stowage_registry::meta::MetaStore;
use stowage_registry::upstream::{Network, Origin, Settings, Upstream};
use stowage_registry::usage::{self, Asker, PATIENCE, Unanswered};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Failure, print, runtime};

#[derive(Debug, Subcommand)]
pub(super) enum Usage {
    /// Tell a registry what another cluster runs, so that it stays there
    Report(Report),
}

/// Digests and references, a word each, are read from standard input.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// The cluster, as `usageProtection.remotes` of the Registry names it
    #[arg(long, value_name = "NAME", env = "STOWAGE_CLUSTER")]
    cluster: String,
    /// The admin port of the registry, as in `https://registry.example.com:5002`
    #[arg(long, value_name = "URL", env = "STOWAGE_TO")]
    to: String,
    /// Folder with the files `username` and `password` of the cluster's reporter
    #[arg(long, value_name = "DIR", env = "STOWAGE_CREDENTIALS_DIR")]
    credentials_dir: Option<PathBuf>,
    /// PEM of the authorities that sign the registry's certificate; without it the public ones
    #[arg(long, value_name = "FILE", env = "STOWAGE_CA")]
    ca: Option<PathBuf>,
}

impl Usage {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::Report(asked) = self;
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|source| Failure::System { what: "read what runs from standard input", source })?;
        let (digests, references) = running(&text);
        let document = json!({ "digests": digests, "references": references }).to_string();
        let origin = asked
            .to
            .parse::<Origin>()
            .map_err(|error| Failure::Usage(format!("--to {}: {error}", asked.to)))?;
        let settings = Settings {
            credentials: asked.credentials_dir,
            authorities: asked.ca,
            network: Network::Any,
            ..Settings::new(origin, "")
        };
        let path = format!("/admin/v1/usage/{}", asked.cluster);
        let put = async { Upstream::new(settings).put_document(&path, document.into()).await };
        runtime()?.block_on(put).map_err(|error| Failure::Unreported(error.to_string()))?;
        print(format!("reported {} digests and {} references\n", digests.len(), references.len()).as_bytes())
    }
}

/// The digests and the references of a text. A runtime may write where it knows a digest from.
fn running(text: &str) -> (Vec<&str>, Vec<&str>) {
    let words = text.split_whitespace().map(|word| word.rsplit_once("://").map_or(word, |(_, rest)| rest));
    words.partition(|word| word.starts_with("sha256:") || word.starts_with("sha512:"))
}

/// How often it is asked whether other clusters report.
const LOOK: Duration = Duration::from_mins(1);

/// What a run that begins now evicts, once it is told what runs. `None`: nothing.
pub(super) async fn evicting(
    live: &Live,
    meta: &dyn MetaStore,
    folder: &Path,
    facts: &ArcSwap<Facts>,
) -> Option<Evicting> {
    let caches = live.current().evictions.clone();
    if caches.is_empty() {
        return None;
    }
    Some(Evicting { caches, usage: asked(live, meta, folder, facts).await })
}

/// What runs, for a run of this process that begins now.
pub(super) async fn asked(
    live: &Live,
    meta: &dyn MetaStore,
    folder: &Path,
    facts: &ArcSwap<Facts>,
) -> Result<Option<usage::Usage>, Unanswered> {
    /// The report asks for one run at a time.
    static ASKING: Mutex<()> = Mutex::const_new(());
    let _one_at_a_time = ASKING.lock().await;
    let current = live.current();
    let run = Uuid::new_v4().to_string();
    if current.usage.as_ref().is_some_and(|usage| usage.asks_operator) {
        facts.rcu(|facts| facts.wanting_usage(Some(&run)));
    }
    let asker = Asker { uid: Some(run), folder: folder.to_owned(), patience: PATIENCE };
    let usage = usage::for_run(current.usage.as_ref(), meta, &asker).await;
    facts.rcu(|facts| facts.wanting_usage(None));
    usage
}

/// Whether other clusters report, asked now and then.
#[derive(Default)]
pub(super) struct Remotes {
    looked: Option<Instant>,
    trouble: Option<Trouble>,
}

impl Remotes {
    /// What is wrong with them. While the database does not answer, what was known stays.
    pub(super) async fn trouble(&mut self, live: &Live, meta: &dyn MetaStore) -> Option<Trouble> {
        let current = live.current();
        let Some(protection) = current.usage.as_ref().filter(|usage| !usage.remotes.is_empty()) else {
            *self = Self::default();
            return None;
        };
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK)
            && let Ok(reports) = meta.usage_reports().await
        {
            self.looked = Some(Instant::now());
            let stale = usage::stale(protection, &reports);
            self.trouble = stale.map(|remote| Trouble::of_remote(&current.registry, &remote.name));
        }
        self.trouble.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_digests_or_references_wherever_a_runtime_knows_them_from() {
        let text = "sha256:aa team/app:1\n\n docker-pullable://team/app@sha256:bb\tsha512:cc\n";
        let (digests, references) = running(text);
        assert_eq!(digests, ["sha256:aa", "sha512:cc"]);
        assert_eq!(references, ["team/app:1", "team/app@sha256:bb"]);
    }
}
