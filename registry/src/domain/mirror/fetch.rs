// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A blob on its way from an upstream: hashed, shown to whoever reads it, and stored.
//!
//! One replica stores it, by the lease of the fetch, which tells the others how far it is. They wait for it while it
//! ends soon, and else fetch for their own clients, without storing. Within a replica all clients share one fetch.
//! Guarantees: no client slows or ends it. Wrong bytes are not stored and their end is not shown. Bytes that cannot be
//! stored are shown all the same. Without readers it goes on where that is worth it.
//! Memory: a window for each fetch, of 16 MiB for four of a process and of 1 MiB for the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use stowage_oci::{Digest, Hasher, Name};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;
use uuid::Uuid;

use super::super::upload::{BodyError, Chunk};
use super::super::{Domain, Error};
use super::Failure;
use super::names::{Mirrored, below};
use super::window::Window;
use crate::meta::{Claim, Fetched};
use crate::upstream::{Kind, Span};

const MIB: u64 = 1 << 20;
/// How many windows are large.
pub(super) const WINDOWS: usize = 4;
const LARGE: u64 = 16 * MIB;
const SMALL: u64 = MIB;
/// Pieces on their way to the store.
const QUEUE: usize = 8;
/// Whose uploads those of mirrors are. No user has a colon in the name.
pub(in crate::domain) const PRINCIPAL: &str = "mirror:";
/// For how long a fetch is ours, unless we keep it.
const LEASE: Duration = Duration::from_secs(30);
/// How often we do, and say how far it is.
const RENEWAL: Duration = Duration::from_millis(500);
/// How often we look whether another replica has it.
const LOOK: Duration = Duration::from_millis(100);
/// How long we wait for another replica before we judge how fast it is.
const UNKNOWN_PACE: Duration = Duration::from_secs(3);
/// How long we wait for one that we see come to an end.
const WORTH_WAITING: Duration = Duration::from_secs(20);
/// How long a blob that was wrong is not fetched again.
const WRONG: Duration = Duration::from_secs(30);
/// Without readers, a fetch goes on that has less than this left, or more than a quarter done.
const WORTH_ENDING: u64 = 64 * MIB;

/// A fetch under way.
pub(super) struct Fetch {
    pub(super) at: Mirrored,
    pub(super) digest: Digest,
    phase: watch::Sender<Phase>,
    readers: AtomicUsize,
}

/// How far a fetch is.
#[derive(Clone)]
pub(super) enum Phase {
    /// Nothing is known yet.
    Waiting,
    /// Bytes come, or have all come.
    Running(Arc<Window>),
    /// It is stored: read it from there.
    Stored,
    /// It has ended, and was not stored. All of it was shown, if there is no failure.
    Ended(Option<Failure>, Option<Arc<Window>>),
}

/// The fetches of a process, by repository and digest.
#[derive(Clone, Default)]
pub(super) struct Fetches(Arc<Mutex<HashMap<Wanted, Arc<Fetch>>>>);

type Wanted = (Name, Digest);

impl Fetches {
    fn remove(&self, fetch: &Arc<Fetch>) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (fetch.at.stored.clone(), fetch.digest);
        if running.get(&key).is_some_and(|found| Arc::ptr_eq(found, fetch)) {
            running.remove(&key);
        }
    }
}

/// One that reads a fetch.
pub(super) struct Reading(pub(super) Arc<Fetch>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fetch {
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn now(&self) -> Phase {
        self.phase.borrow().clone()
    }

    fn go(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Domain {
    /// Joins the fetch of a blob, or begins it. `awaited`: its length, if a manifest tells it.
    pub(super) fn fetch(&self, at: &Mirrored, digest: &Digest, awaited: Option<u64>) -> Reading {
        let mut running = self.shelf.fetches.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (at.stored.clone(), *digest);
        if let Some(fetch) = running.get(&key) {
            fetch.readers.fetch_add(1, Ordering::Relaxed);
            return Reading(Arc::clone(fetch));
        }
        let fetch = Arc::new(Fetch {
            at: at.clone(),
            digest: *digest,
            phase: watch::Sender::new(Phase::Waiting),
            readers: AtomicUsize::new(1),
        });
        running.insert(key, Arc::clone(&fetch));
        let run = Run { domain: self.clone(), fetch: Arc::clone(&fetch), owner: Uuid::new_v4(), awaited };
        self.tasks.spawn(run.run().in_current_span());
        Reading(fetch)
    }
}

/// The task of a fetch.
struct Run {
    domain: Domain,
    fetch: Arc<Fetch>,
    owner: Uuid,
    awaited: Option<u64>,
}

/// Who stores a blob.
enum Whose {
    /// We do.
    Ours,
    /// Another replica; or nobody can.
    NotOurs,
    /// It is stored.
    Nobodys,
}

impl Run {
    async fn run(self) {
        let (fetches, fetch) = (self.domain.shelf.fetches.clone(), Arc::clone(&self.fetch));
        // However it ends, those who come later begin anew, and those who wait are told.
        let landing = Landing { fetches, fetch: Arc::clone(&fetch) };
        let whose = self.whose().await;
        let phase = match whose {
            Whose::Nobodys => Phase::Stored,
            Whose::Ours => {
                let phase = self.fetched(true).await;
                if let Err(error) = self.domain.meta.end_fetch(&self.what(), self.owner).await {
                    tracing::debug!(%error, "a lease was not given back");
                }
                phase
            }
            Whose::NotOurs => self.fetched(false).await,
        };
        landing.fetches.remove(&fetch);
        fetch.go(phase);
    }

    /// What replicas call it: the same blob of other repositories of the mirror is the same.
    fn what(&self) -> String {
        format!("blob {} {}", self.fetch.at.mirror.settings.name, self.fetch.digest)
    }

    /// Asks the others, and waits for them while that is worth it.
    async fn whose(&self) -> Whose {
        let begun = Instant::now();
        let mut first: Option<(Instant, Fetched)> = None;
        let what = self.what();
        loop {
            if first.is_some() && self.is_here().await {
                return Whose::Nobodys;
            }
            let claim = self.domain.meta.claim_fetch(&what, self.owner, Fetched::default(), LEASE);
            match claim.await {
                // Whoever had it before may have ended after our client looked.
                Ok(Claim::Ours) if self.is_here().await => {
                    drop(self.domain.meta.end_fetch(&what, self.owner).await);
                    return Whose::Nobodys;
                }
                Ok(Claim::Ours) => return Whose::Ours,
                Ok(Claim::Theirs(now)) => {
                    let (since, then) = first.get_or_insert_with(|| (Instant::now(), now));
                    if !is_worth_waiting(begun.elapsed(), since.elapsed(), *then, now) {
                        return Whose::NotOurs;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the database is away; a blob is fetched without being stored");
                    return Whose::NotOurs;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the blob is here by now, or in another repository of the mirror.
    async fn is_here(&self) -> bool {
        let Fetch { at, digest, .. } = &*self.fetch;
        self.domain.blob(&at.stored, digest, false).await.is_ok()
            || self.domain.is_mounted(at, digest, self.awaited.is_some()).await
    }

    /// Fetches, shows and, if `stores`, stores.
    async fn fetched(&self, stores: bool) -> Phase {
        let Fetch { at, digest, .. } = &*self.fetch;
        let mirror = &at.mirror;
        let blob = mirror.upstream.blob(&at.upstream, digest, Span::default());
        let blob = match self.domain.ask_upstream(mirror, blob).await {
            Ok(blob) => blob,
            Err(error) => return Phase::Ended(Some(error.into()), None),
        };
        let Some(size) = blob.size.or(self.awaited.filter(|size| *size > 0)) else {
            let error = mirror.upstream.wrong(format!("does not say how long blob {digest} is"));
            return Phase::Ended(Some(error.into()), None);
        };
        let large = self.domain.shelf.windows.try_one();
        let window = Arc::new(Window::new(size, if large.is_some() { LARGE } else { SMALL }));
        self.fetch.go(Phase::Running(Arc::clone(&window)));
        let upload = stores.then(|| Upload::begin(self, size));
        let _kept = stores.then(|| self.keep(&window));
        let outcome = self.pumped(blob.body, &window, upload.as_ref()).await;
        let phase = match (outcome, upload) {
            (Ok(()), Some(upload)) => match upload.end().await {
                Ok(()) => Phase::Stored,
                Err(error) => {
                    tracing::warn!(repo.name = %at.stored, blob.digest = %digest, %error, "a fetched blob is not stored");
                    Phase::Ended(None, Some(Arc::clone(&window)))
                }
            },
            (Ok(()), None) => Phase::Ended(None, Some(Arc::clone(&window))),
            (Err(failure), upload) => {
                if let Some(upload) = upload {
                    upload.give_up().await;
                }
                Phase::Ended(Some(failure), None)
            }
        };
        window.is_over();
        phase
    }

    /// Reads the body to its end, also if the upload takes no more of it: why, it says at its own end.
    async fn pumped(
        &self,
        mut body: crate::upstream::Body,
        window: &Window,
        upload: Option<&Upload>,
    ) -> Result<(), Failure> {
        let Fetch { at, digest, .. } = &*self.fetch;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut taking = upload;
        while let Some(bytes) = body.next().await {
            let mut bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => {
                    at.mirror.rate.note_error(&error).await;
                    return Err(error.into());
                }
            };
            self.domain.shelf.metrics.received(&at.mirror.settings.name, bytes.len() as u64);
            while !bytes.is_empty() {
                // A piece does not go over the place from which on it is held back.
                let room = window.held_back().saturating_sub(window.done());
                let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
                let piece = bytes.split_to(if fits == 0 { bytes.len() } else { fits });
                hasher.update(&piece);
                window.put(piece.clone(), hasher.clone());
                if let Some(upload) = taking
                    && !upload.take(piece).await
                {
                    taking = None;
                }
            }
            if self.is_deserted(window) {
                tracing::info!(repo.name = %at.stored, blob.digest = %digest, "nobody wants a blob any more");
                return Err(Error::Stopping.into());
            }
        }
        let found = hasher.finish();
        if window.done() != window.size() || found != *digest {
            let cause = format!("blob {digest} has {} bytes with digest {found}", window.done());
            let error = at.mirror.upstream.wrong(cause);
            tracing::warn!(mirror.name = at.mirror.settings.name, %error, "wrong bytes from an upstream");
            at.mirror.wrong.put(*digest, error.clone(), WRONG);
            return Err(error.into());
        }
        window.is_right();
        Ok(())
    }

    fn is_deserted(&self, window: &Window) -> bool {
        let (size, done) = (window.size(), window.done());
        let is_worth_ending = size - done.min(size) < WORTH_ENDING || done > size / 4;
        self.fetch.readers.load(Ordering::Relaxed) == 0 && !is_worth_ending
    }

    /// Keeps the lease until the guard is dropped, and says how far it is.
    fn keep(&self, window: &Arc<Window>) -> DropGuard {
        let done = CancellationToken::new();
        let (meta, what, owner) = (Arc::clone(&self.domain.meta), self.what(), self.owner);
        let (ended, window) = (done.clone(), Arc::clone(window));
        self.domain.tasks.spawn(async move {
            loop {
                let progress = Fetched { done: window.done(), total: window.size() };
                // Lost, it does no harm: two store the same.
                drop(meta.claim_fetch(&what, owner, progress, LEASE).await);
                if ended.run_until_cancelled(tokio::time::sleep(RENEWAL)).await.is_none() {
                    return;
                }
            }
        });
        done.drop_guard()
    }
}

/// Whether to wait on for a replica that fetches: `waited` so far; it was at `then` so long `since`, and is at `now`.
fn is_worth_waiting(waited: Duration, since: Duration, then: Fetched, now: Fetched) -> bool {
    if now.total > 0 && now.done >= now.total {
        // All that is left is to store it.
        return waited < 2 * WORTH_WAITING;
    }
    let came = now.done.saturating_sub(then.done);
    if waited < UNKNOWN_PACE {
        return true;
    }
    if came == 0 || now.total == 0 {
        return false;
    }
    let left = now.total.saturating_sub(now.done);
    // Less than a day, of bytes per millisecond: it fits.
    let milliseconds = u128::from(left) * since.as_millis().max(1) / u128::from(came);
    milliseconds <= WORTH_WAITING.as_millis() && waited < 2 * WORTH_WAITING
}

/// The bytes on their way to the store.
struct Upload {
    bytes: mpsc::Sender<Result<Bytes, BodyError>>,
    stored: JoinHandle<Result<(), Error>>,
}

impl Upload {
    fn begin(run: &Run, size: u64) -> Self {
        let (bytes, body) = mpsc::channel(QUEUE);
        let body = futures::stream::unfold(body, |mut body| async move {
            let next = body.recv().await?;
            Some((next, body))
        });
        let chunk = Chunk { start: None, length: Some(size), body: body.boxed() };
        let (domain, repository, digest) =
            (run.domain.clone(), run.fetch.at.stored.clone(), run.fetch.digest);
        let storing = async move { domain.keep_blob(&repository, PRINCIPAL, &digest, chunk).await };
        Self { bytes, stored: run.domain.tasks.spawn(storing.in_current_span()) }
    }

    /// Whether it takes these bytes.
    async fn take(&self, bytes: Bytes) -> bool {
        self.bytes.send(Ok(bytes)).await.is_ok()
    }

    /// Whether all of it is stored.
    async fn end(self) -> Result<(), Error> {
        drop(self.bytes);
        self.stored.await.map_err(|error| Error::Internal(Box::new(error)))?
    }

    /// Ends without a blob.
    async fn give_up(self) {
        let broken = BodyError::Broken("the fetch ended".into());
        // It may have ended by itself.
        drop(self.bytes.send(Err(broken)).await);
        drop(self.bytes);
        if let Err(error) = self.stored.await {
            tracing::debug!(%error, "an upload was not ended");
        }
    }
}

/// Ends a fetch for those who wait, whatever happened to its task.
struct Landing {
    fetches: Fetches,
    fetch: Arc<Fetch>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.fetches.remove(&self.fetch);
        self.fetch.phase.send_if_modified(|phase| {
            let is_under_way = matches!(phase, Phase::Waiting | Phase::Running(_));
            if is_under_way {
                *phase = Phase::Ended(Some(Error::Stopping.into()), None);
            }
            is_under_way
        });
    }
}

impl Domain {
    /// Whether another repository of the mirror has the blob, and this one sees it now too. `is_listed`: a manifest
    /// that the upstream gave us says that the blob belongs to this repository.
    pub(super) async fn is_mounted(&self, at: &Mirrored, digest: &Digest, is_listed: bool) -> bool {
        if !is_listed {
            return false;
        }
        let path = &at.mirror.settings.path;
        let mut sources = self.repositories_with(digest).await.unwrap_or_default();
        sources.retain(|source| below(source, path).is_some());
        match self.mount(&at.stored, digest, &sources).await {
            Ok(is_mounted) => is_mounted,
            Err(error) => {
                tracing::debug!(%error, "a blob of the mirror was not mounted");
                false
            }
        }
    }
}

/// Whether an upstream says that there is no such blob, or not for us.
pub(super) const fn is_missing(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Refused(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w454_one_that_ends_soon_is_waited_for() {
        let seconds = Duration::from_secs;
        let far = |done| Fetched { done, total: 1000 };
        let waits =
            |waited, since, then, now| is_worth_waiting(seconds(waited), seconds(since), far(then), far(now));
        assert!(waits(1, 1, 0, 0), "nothing is known yet");
        assert!(!waits(6, 6, 0, 0), "it does not move");
        assert!(waits(6, 6, 1000, 1000), "it is being stored");
        assert!(waits(1, 1, 0, 1), "its pace is not known yet");
        assert!(waits(4, 4, 0, 200), "sixteen seconds");
        assert!(!waits(4, 4, 0, 100), "thirty-six seconds");
        assert!(!waits(40, 40, 0, 990), "it was to end long ago");
    }
}
