// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a client does next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::timeout;

use super::client::Client;
use super::content::{self, Manifest};
use super::{Load, Queue, Upstream};
use crate::history::{Action, Recorder, Reference};

/// Images that a client remembers in each repository.
const REMEMBERED: usize = 4;

/// A manifest that some client pushed.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    repository: String,
    manifest: Manifest,
}

/// What all clients know of each other.
#[derive(Debug, Default)]
pub(super) struct Known(pub(super) Queue<Pushed>);

pub(super) struct Worker {
    client: Client,
    known: Arc<Known>,
    /// What was pushed to the registry that is mirrored.
    theirs: Arc<Known>,
    pushes: u64,
    own: HashMap<String, Vec<Manifest>>,
}

impl Worker {
    pub(super) fn new(number: u32, load: Arc<Load>, known: Arc<Known>, theirs: Arc<Known>) -> Self {
        let rng = StdRng::seed_from_u64(load.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        Self { client: Client::new(number, load, rng), known, theirs, pushes: 0, own: HashMap::new() }
    }

    /// Whoever pushes to the registry that is mirrored.
    pub(super) fn of_upstream(load: &Arc<Load>, upstream: &Upstream, theirs: Arc<Known>) -> Self {
        // Those that read at the end have the numbers after all others.
        let number = 2 * load.clients;
        let own = Load {
            replicas: vec![upstream.address.clone()],
            repositories: upstream.repositories.clone(),
            login: None,
            out_of_service: Arc::default(),
            upstream: None,
            ..Load::clone(load)
        };
        let mut worker = Self::new(number, Arc::new(own), theirs, Arc::default());
        worker.client.elsewhere = Some((upstream.path.clone(), String::new()));
        worker
    }

    /// Pushes to the registry that is mirrored, or moves a tag there.
    pub(super) async fn publish(&mut self, recorder: &Recorder) {
        let (repository, tag) = (self.repository(), self.tag());
        if self.client.rng.random_bool(0.8) {
            self.push(recorder, repository, &tag).await;
        } else {
            self.tag_again(recorder, &tag).await;
        }
    }

    /// Does one thing; sometimes it is ended in the middle.
    pub(super) async fn step(&mut self, recorder: &Recorder) {
        let (rng, odds) = (&mut self.client.rng, self.client.load.odds);
        if rng.random_bool(odds.crash) {
            let short = Duration::from_millis(rng.random_range(0..60));
            if timeout(short, self.act(recorder)).await.is_err() {
                self.client.hang_up();
                self.client.elsewhere = None;
            }
        } else {
            self.act(recorder).await;
        }
    }

    async fn act(&mut self, recorder: &Recorder) {
        if let Some(upstream) = self.client.load.upstream.clone()
            && self.client.rng.random_bool(0.4)
        {
            return self.pull_copied(recorder, &upstream).await;
        }
        let (repository, tag) = (self.repository(), self.tag());
        match self.client.rng.random_range(0..100) {
            0..30 => self.push(recorder, repository, &tag).await,
            30..35 => self.tag_again(recorder, &tag).await,
            35..65 => self.pull(recorder, &repository, Reference::Tag(tag)).await,
            65..78 => self.pull_known(recorder).await,
            78..88 => self.client.list_tags(recorder, &repository).await,
            88..94 => {
                let target = format!("/v2/{repository}/manifests/{tag}");
                self.client.delete(recorder, Action::DeleteTag { repository, tag }, target).await;
            }
            94..98 => self.delete_known(recorder).await,
            _ => self.delete_blob(recorder).await,
        }
    }

    fn repository(&mut self) -> String {
        let all = &self.client.load.repositories;
        all[self.client.rng.random_range(0..all.len())].clone()
    }

    fn tag(&mut self) -> String {
        format!("t{}", self.client.rng.random_range(0..self.client.load.tags))
    }

    /// Pushes something new, three times of four under a tag.
    async fn push(&mut self, recorder: &Recorder, repository: String, tag: &str) {
        let load = Arc::clone(&self.client.load);
        let name = format!("{}/{}", load.seed, self.client.number);
        self.pushes += 1;
        let before = self.own.entry(repository.clone()).or_default();
        let (manifest, blobs) = content::make(&name, self.pushes, before, &mut self.client.rng, load.odds);
        let tag = self.client.rng.random_bool(0.75).then_some(tag);
        let other = self.repository();
        for blob in &blobs {
            if !self.client.push_blob(recorder, &repository, blob, &other).await {
                return;
            }
        }
        if self.client.push_manifest(recorder, &repository, tag, &manifest).await {
            let own = self.own.entry(repository.clone()).or_default();
            if manifest.children.is_empty() {
                own.push(manifest.clone());
                own.drain(..own.len().saturating_sub(REMEMBERED));
            }
            self.known.add(Pushed { repository, manifest });
        }
    }

    /// Puts a tag on what somebody has pushed before.
    async fn tag_again(&mut self, recorder: &Recorder, tag: &str) {
        if let Some(Pushed { repository, manifest }) = self.somebodys() {
            self.client.push_manifest(recorder, &repository, Some(tag), &manifest).await;
        }
    }

    /// Pulls from a mirror, under one of the names that its repositories have.
    async fn pull_copied(&mut self, recorder: &Recorder, upstream: &Upstream) {
        let rng = &mut self.client.rng;
        let by_alias = rng.random_bool(0.3);
        let known = rng.random_bool(0.5).then(|| self.theirs.one(rng.random_range(0..usize::MAX))).flatten();
        let (repository, reference) = if let Some(Pushed { repository, manifest }) = known {
            (repository, Reference::Digest(manifest.digest))
        } else {
            let repository = rng.random_range(0..upstream.repositories.len());
            (upstream.repositories[repository].clone(), Reference::Tag(self.tag()))
        };
        self.client.elsewhere = by_alias.then(|| (upstream.path.clone(), upstream.alias.clone()));
        self.pull(recorder, &repository, reference).await;
        self.client.elsewhere = None;
    }

    async fn pull_known(&mut self, recorder: &Recorder) {
        if let Some(Pushed { repository, manifest }) = self.somebodys() {
            self.pull(recorder, &repository, Reference::Digest(manifest.digest)).await;
        }
    }

    /// Gets a manifest and all it refers to.
    async fn pull(&mut self, recorder: &Recorder, repository: &str, reference: Reference) {
        let mut waiting = vec![reference];
        while let Some(reference) = waiting.pop() {
            let Some(body) = self.client.pull_manifest(recorder, repository, reference).await else {
                continue;
            };
            let (blobs, children) = content::references(&body);
            for blob in blobs {
                self.client.pull_blob(recorder, repository, blob).await;
            }
            waiting.extend(children.into_iter().map(Reference::Digest));
        }
    }

    async fn delete_known(&mut self, recorder: &Recorder) {
        if let Some(Pushed { repository, manifest }) = self.somebodys() {
            let target = format!("/v2/{repository}/manifests/{}", manifest.digest);
            let action = Action::DeleteManifest { repository, digest: manifest.digest };
            self.client.delete(recorder, action, target).await;
        }
    }

    async fn delete_blob(&mut self, recorder: &Recorder) {
        let Some(Pushed { repository, manifest }) = self.somebodys() else { return };
        let Some(&digest) = manifest.blobs.last() else { return };
        let target = format!("/v2/{repository}/blobs/{digest}");
        self.client.delete(recorder, Action::DeleteBlob { repository, digest }, target).await;
    }

    fn somebodys(&mut self) -> Option<Pushed> {
        self.known.one(self.client.rng.random_range(0..usize::MAX))
    }
}
