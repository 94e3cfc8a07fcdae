// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Clients that push, pull, delete and list at replicas of one registry, and write down all they do.
//!
//! Each request goes to a replica by chance, as behind a Service; whoever gets no answer, or is told to come back,
//! tries again elsewhere, as containerd does, until its patience ends. All content is made from the seed, the number
//! of the client and the number of the push, so that each manifest is unique and any byte can be made again.
//! Guarantees: what a client decides follows from the seed and from what it was answered. An operation is recorded
//! before its first request and after its last answer, with every attempt that came to nothing.
//! Never: judges. What an answer means for the registry's promises is for `history`.

mod client;
mod content;
mod http;
mod survey;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::history::{Recorder, Verdict, check};
use worker::{Known, Worker};

/// How long whoever pushes to a registry that is mirrored waits after each push.
const BETWEEN_RELEASES: Duration = Duration::from_millis(150);

/// What is to be done, to whom.
#[derive(Clone, Debug)]
pub struct Load {
    /// What everything is made from.
    pub seed: u64,
    /// How many do something at the same time.
    pub clients: u32,
    /// The repositories they work in.
    pub repositories: Vec<String>,
    /// How many tags there are in each.
    pub tags: usize,
    /// Where the replicas listen, `host:port`. The number of a replica is its place here.
    pub replicas: Vec<String>,
    /// The user and password of all clients, if they have any.
    pub login: Option<(String, String)>,
    /// How long a client goes on trying.
    pub patience: Duration,
    /// How long it waits for one answer.
    pub timeout: Duration,
    /// How likely a push has a layer that is uploaded in several parts, and how likely a client is ended in the middle
    /// of what it does.
    pub odds: Odds,
    /// A bit for each replica that is sent no request, as one is that a Service does not name any more. If that is all
    /// of them, it is none.
    pub out_of_service: Arc<AtomicU64>,
    /// Another registry whose repositories the replicas mirror, if there is one.
    pub upstream: Option<Upstream>,
}

/// A registry that others mirror. One client pushes to it; all others pull from the copies, under which name all is
/// recorded.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it listens itself, `host:port`.
    pub address: String,
    /// What the replicas put before the names of its repositories.
    pub path: String,
    /// What they may be called as well at the replicas: a virtual repository's path.
    pub alias: String,
    /// Its repositories, with that path.
    pub repositories: Vec<String>,
    /// Held by whoever pushes to it: who ends it in between breaks no push.
    pub quiet: Arc<tokio::sync::Mutex<()>>,
}

impl Load {
    /// The replicas to ask.
    fn in_service(&self) -> Vec<usize> {
        let out = self.out_of_service.load(Ordering::Relaxed);
        let all = 0..self.replicas.len();
        let some: Vec<usize> = all.clone().filter(|replica| (out >> replica) & 1 == 0).collect();
        if some.is_empty() { all.collect() } else { some }
    }
}

/// How likely the rare things are, between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// A layer of several parts.
    pub large_layer: f64,
    /// A client that is ended in the middle.
    pub crash: f64,
}

/// Clients at work.
#[derive(Debug)]
pub struct Running {
    load: Arc<Load>,
    recorder: Arc<Recorder>,
    enough: Arc<AtomicBool>,
    workers: JoinSet<()>,
}

impl Load {
    /// The clients begin.
    #[must_use]
    pub fn start(self, recorder: &Arc<Recorder>) -> Running {
        let (load, enough) = (Arc::new(self), Arc::new(AtomicBool::new(false)));
        let known = Arc::new(Known::default());
        let mut workers = JoinSet::new();
        let theirs = Arc::new(Known::default());
        if let Some(upstream) = &load.upstream {
            let writer = Worker::of_upstream(&load, upstream, Arc::clone(&theirs));
            workers.spawn(publish(writer, upstream.clone(), Arc::clone(recorder), Arc::clone(&enough)));
        }
        for number in 0..load.clients {
            let mut worker = Worker::new(number, Arc::clone(&load), Arc::clone(&known), Arc::clone(&theirs));
            let (recorder, enough) = (Arc::clone(recorder), Arc::clone(&enough));
            workers.spawn(async move {
                while !enough.load(Ordering::Relaxed) {
                    worker.step(&recorder).await;
                }
            });
        }
        Running { load, recorder: Arc::clone(recorder), enough, workers }
    }
}

impl Running {
    /// Lets every client finish what it began, and reads everything that must be there once more.
    pub async fn read_all(&mut self) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.context("join a client")?;
        }
        survey::read_all(&self.load, &self.recorder).await
    }

    /// Does that, and judges.
    pub async fn judge(mut self) -> Result<Verdict> {
        self.read_all().await?;
        let recorder = Arc::clone(&self.recorder);
        tokio::task::spawn_blocking(move || check(&recorder.history())).await.context("judge the history")
    }
}

/// Lets somebody push to a registry that is mirrored, until it is enough.
async fn publish(mut writer: Worker, upstream: Upstream, recorder: Arc<Recorder>, enough: Arc<AtomicBool>) {
    while !enough.load(Ordering::Relaxed) {
        let quiet = upstream.quiet.lock().await;
        writer.publish(&recorder).await;
        drop(quiet);
        sleep(BETWEEN_RELEASES).await;
    }
}

/// What clients have pushed lately, for others to work with.
impl Known {
    const MOST: usize = 400;

    fn add(&self, pushed: worker::Pushed) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::MOST {
            all.pop_front();
        }
        all.push_back(pushed);
    }

    fn one(&self, choice: usize) -> Option<worker::Pushed> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!all.is_empty()).then(|| all[choice % all.len()].clone())
    }
}

type Queue<T> = Mutex<std::collections::VecDeque<T>>;
