// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What clients asked for and what they were told, and so what may be read now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use stowage_oci::Digest;

use super::super::client::{Broken, Failed};

/// What one name may be found to mean.
#[derive(Clone, Debug)]
pub(super) struct Register<V> {
    /// What was acknowledged, or seen, last.
    settled: V,
    /// What was asked for after it and not acknowledged: each may have taken effect, or yet take effect.
    open: Vec<V>,
    /// In which round that was.
    pub(super) round: u64,
}

impl<V: PartialEq + Clone> Register<V> {
    fn new(settled: V) -> Self {
        Self { settled, open: Vec::new(), round: 0 }
    }

    /// Whether `found` may be; if so, nothing older may be found from now on.
    pub(super) fn settle(&mut self, found: &V) -> bool {
        if self.settled == *found {
            return true;
        }
        let Some(at) = self.open.iter().position(|open| open == found) else { return false };
        self.open.drain(..=at);
        self.settled = found.clone();
        true
    }
}

pub(super) type Repository = &'static str;

/// An upload that was opened and not acknowledged as closed.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) repository: Repository,
    pub(super) path: String,
    /// All that is to be sent.
    pub(super) content: Bytes,
    /// Up to where it was acknowledged.
    pub(super) acknowledged: usize,
    /// Up to where it was sent.
    pub(super) sent: usize,
    /// Whether it was asked to become a blob.
    pub(super) closing: bool,
}

impl Upload {
    /// Whether it takes a multipart upload: such a one is never to be sent again.
    pub(super) fn is_large(&self) -> bool {
        self.content.len() > 16 << 20
    }
}

/// Which tag means what, and what is there at all.
#[derive(Debug, Default)]
pub(super) struct Registers {
    pub(super) round: u64,
    pub(super) tags: BTreeMap<(Repository, String), Register<Option<Digest>>>,
    pub(super) manifests: BTreeMap<(Repository, Digest), Register<bool>>,
    pub(super) blobs: BTreeMap<(Repository, Digest), Register<bool>>,
    /// By a number of their own.
    pub(super) uploads: BTreeMap<u64, Upload>,
    /// What was found that may not be.
    pub(super) violations: Vec<String>,
    /// What was acknowledged, by kind.
    pub(super) acknowledged: BTreeMap<&'static str, u64>,
    numbers: u64,
}

/// The books of all clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<Registers>>);

/// What a client asks to become true. Each name has one client at a time.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Tag(Repository, String, Option<Digest>),
    Manifest(Repository, Digest, bool),
    Blob(Repository, Digest, bool),
}

impl Ledger {
    pub(super) fn books(&self) -> MutexGuard<'_, Registers> {
        self.0.lock().unwrap()
    }

    /// Whether something of each kind was acknowledged.
    pub(super) fn has_all(&self, kinds: &[&str]) -> bool {
        let acknowledged = &self.books().acknowledged;
        kinds.iter().all(|kind| acknowledged.get(kind).is_some_and(|count| *count > 0))
    }

    /// A number that nobody had before.
    pub(super) fn number(&self) -> u64 {
        let mut books = self.books();
        books.numbers += 1;
        books.numbers
    }

    pub(super) fn violation(&self, what: String) {
        self.books().violations.push(what);
    }

    /// Asks for `wishes`, all of which one acknowledgement grants. `Err`: the connection broke, or the answer
    /// was that it is not granted.
    pub(super) async fn ask<T>(
        &self,
        wishes: &[Wish],
        asking: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Broken> {
        {
            let mut books = self.books();
            for wish in wishes {
                books.intend(wish);
            }
        }
        let answer = self.told(asking).await?;
        let mut books = self.books();
        for wish in wishes {
            books.grant(wish);
        }
        Ok(answer)
    }

    /// An answer. What is refused although it should be granted is noted as a violation.
    pub(super) async fn told<T>(&self, asking: impl Future<Output = Result<T, Failed>>) -> Result<T, Broken> {
        match asking.await {
            Ok(answer) => Ok(answer),
            Err(Failed { answer: None, .. }) => Err(Broken),
            Err(failed) => {
                self.violation(format!("refused: {failed:?}"));
                Err(Broken)
            }
        }
    }

    pub(super) fn upload(&self, number: u64, change: impl FnOnce(&mut Upload)) {
        change(self.books().uploads.get_mut(&number).expect("the upload is open"));
    }

    /// An upload that is no more.
    pub(super) fn forget(&self, number: u64) {
        self.books().uploads.remove(&number);
    }

    /// Those of the blobs that were acknowledged.
    pub(super) fn stored(&self, repository: Repository) -> Vec<Digest> {
        let books = self.books();
        let ours = books.blobs.iter().filter(|((owner, _), _)| *owner == repository);
        ours.filter(|(_, there)| there.settled && there.open.is_empty())
            .map(|((_, digest), _)| *digest)
            .collect()
    }

    /// Tags whose meaning is certain.
    pub(super) fn tagged(&self) -> Vec<(Repository, String)> {
        let books = self.books();
        let certain = books.tags.iter().filter(|(_, tag)| tag.settled.is_some() && tag.open.is_empty());
        certain.map(|(name, _)| name.clone()).collect()
    }
}

impl Registers {
    fn intend(&mut self, wish: &Wish) {
        let round = self.round;
        match wish.clone() {
            Wish::Tag(repository, tag, means) => {
                let tag = self.tags.entry((repository, tag)).or_insert_with(|| Register::new(None));
                tag.open.push(means);
                tag.round = round;
            }
            Wish::Manifest(repository, digest, there) => {
                let key = (repository, digest);
                let manifest = self.manifests.entry(key).or_insert_with(|| Register::new(false));
                manifest.open.push(there);
                manifest.round = round;
            }
            Wish::Blob(repository, digest, there) => {
                let blob = self.blobs.entry((repository, digest)).or_insert_with(|| Register::new(false));
                blob.open.push(there);
                blob.round = round;
            }
        }
    }

    fn grant(&mut self, wish: &Wish) {
        let kind = match wish.clone() {
            Wish::Tag(repository, tag, means) => {
                let register = self.tags.get_mut(&(repository, tag)).expect("it was asked for");
                let kind = if means.is_some() { "tagged" } else { "untagged" };
                register.grant(means);
                kind
            }
            Wish::Manifest(repository, digest, there) => {
                let register = self.manifests.get_mut(&(repository, digest)).expect("it was asked for");
                register.grant(there);
                if there { "manifests" } else { "manifests deleted" }
            }
            Wish::Blob(repository, digest, there) => {
                let register = self.blobs.get_mut(&(repository, digest)).expect("it was asked for");
                register.grant(there);
                if there { "blobs" } else { "blobs deleted" }
            }
        };
        *self.acknowledged.entry(kind).or_default() += 1;
    }
}

impl<V> Register<V> {
    fn grant(&mut self, value: V) {
        self.settled = value;
        self.open.clear();
    }
}
