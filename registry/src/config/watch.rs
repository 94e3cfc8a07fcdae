// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Watches the files of the configuration and of the secrets it names.
//!
//! Every two seconds the files are looked at, through links: a mounted `ConfigMap` or Secret changes by a link that
//! is pointed elsewhere. What changed and then stayed the same for one look is read, checked, and swapped in.
//! Guarantees: a broken change leaves in force what holds, is logged once, and shows in the report.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Config, Live, Rejected, Sources, explained, files, load};

/// How often a process that serves looks.
pub const LOOK: Duration = Duration::from_secs(2);

/// Follows the files until `stopping`, with a look every `interval`. `apply` puts a checked configuration to use.
pub async fn watch(
    live: &Live,
    sources: &Sources,
    apply: &(impl Fn(&Config) + Sync),
    stopping: &CancellationToken,
    interval: Duration,
) {
    // What the process started with was read before the first look, so the first look counts as a change.
    let mut in_force = Vec::new();
    let mut before = look(sources).await;
    while stopping.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let now = look(sources).await;
        let settled = now == before;
        before.clone_from(&now);
        if settled && now != in_force {
            in_force = now;
            reload(live, sources, apply).await;
        }
    }
}

async fn reload(live: &Live, sources: &Sources, apply: &impl Fn(&Config)) {
    let read = sources.clone();
    let loaded = tokio::task::spawn_blocking(move || {
        load(&read).map_err(|error| Rejected { hash: files::hash(&read.paths), message: explained(&error) })
    });
    match loaded.await {
        Ok(Ok(config)) => accept(live, config, apply),
        Ok(Err(rejected)) => refuse(live, rejected),
        Err(error) => refuse(live, Rejected { hash: None, message: explained(&error) }),
    }
}

fn accept(live: &Live, config: Config, apply: &impl Fn(&Config)) {
    apply(&config);
    if config.hash != live.current().hash {
        tracing::info!(config.hash = config.hash, "configuration in force");
    }
    live.put(Arc::new(config));
}

fn refuse(live: &Live, rejected: Rejected) {
    let error = rejected.message.clone();
    if live.reject(rejected) {
        tracing::error!(error, "the changed configuration is refused; what was in force stays");
    }
}

async fn look(sources: &Sources) -> Vec<Seen> {
    let sources = sources.clone();
    tokio::task::spawn_blocking(move || seen(&sources)).await.unwrap_or_default()
}

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    identity: Option<(u64, u64, i64, i64, u64)>,
}

impl Seen {
    fn at(path: PathBuf) -> Self {
        let identity = |m: Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size());
        let identity = std::fs::metadata(&path).ok().map(identity);
        Self { path, identity }
    }
}

fn seen(sources: &Sources) -> Vec<Seen> {
    // A folder that cannot be listed at the moment is a change by itself; reading it says why.
    let mut paths = files::files(&sources.paths).unwrap_or_default();
    for secret in children(sources.secrets.path()) {
        paths.extend(children(&secret).into_iter().filter(|path| path.is_file()));
    }
    paths.into_iter().map(Seen::at).collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut children: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    children.sort();
    children
}
