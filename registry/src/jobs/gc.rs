// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Collection: what nothing refers to any more goes, level by level.
//!
//! Flow of a pass: reaper → tags, then manifests whose time in the trash is over → manifests, links, blobs that
//! nothing needs → old epochs, a snapshot of pulls, what mirrors evict → the outbox; again until nothing is due.
//! Bounded steps, each a transaction of its own: a pass can be killed anywhere and be repeated by anybody, at any number, beside any push.
//! Guarantees: nothing is collected in a database that is not trusted, below a prefix of another owner, or on
//! account of something that could not be read: that stays, is counted, and the others go on.
//! Never: deletes an object. That is the outbox's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::stream::{self, StreamExt as _};
use stowage_crds::conditions::Reason;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::evict::{Evicting, evict};
use super::pulls::snapshot;
use crate::blobs::selftest::{FormatError, read_format};
use crate::blobs::{self, Store};
use crate::key::Key;
use crate::meta::{
    self, Backlog, Candidate, Epoch, ExpiredIntent, MetaStore, Reaped, Swept, TrashedTag, Which,
};
use crate::ops::metrics::CollectionMetrics;
use crate::ops::progress::Progress;
use crate::outbox::{self, DrainError, Drained, drain};
use crate::reports;
use crate::usage::Unanswered;

/// How many rows a step takes.
const BATCH: u32 = 200;
/// How many tags are purged at a time.
const AT_ONCE: usize = 8;
/// How many keys a page of a listing has.
const PAGE: usize = 1000;
/// How many epoch objects are kept.
const EPOCHS: usize = 10;

/// Why a pass ended before its end. What it had done counts.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Not now, not here: see its own words.
    #[error("nothing is collected")]
    Frozen(#[source] meta::Error),
    /// Bucket and database are not one registry.
    #[error("nothing is collected: {0}")]
    Foreign(String),
    /// The database did not answer.
    #[error(transparent)]
    Database(meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// Nothing was evicted from mirrors; all else was collected.
    #[error(transparent)]
    Unanswered(Unanswered),
    /// Some of what is due could not be judged or carried out. It stays, and is tried again.
    #[error("{count} of what is due could not be read or removed and stays; the first: {first}")]
    Incomplete {
        /// How many.
        count: u64,
        /// Why the first of them.
        first: String,
    },
}

impl GcError {
    /// Whether it did not act, for safety.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Frozen(_) | Self::Foreign(_) | Self::Unanswered(_))
    }

    /// The word for a refusal, if there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unanswered(why) => why.reason(),
            Self::Frozen(_) => Some(Reason::CollectorFrozen.as_str()),
            _ => None,
        }
    }
}

impl From<meta::Error> for GcError {
    fn from(error: meta::Error) -> Self {
        match error {
            meta::Error::Untrusted | meta::Error::Superseded | meta::Error::Live { .. } => {
                Self::Frozen(error)
            }
            other => Self::Database(other),
        }
    }
}

impl From<outbox::Error> for GcError {
    fn from(error: outbox::Error) -> Self {
        match error {
            outbox::Error::Store(error) => error.into(),
            outbox::Error::UnknownStep(_) => Self::Foreign(error.to_string()),
        }
    }
}

impl From<Unanswered> for GcError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Database(error) => error.into(),
            Unanswered::Missing(_) | Unanswered::Stale(_) => Self::Unanswered(why),
        }
    }
}

impl From<DrainError> for GcError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Database(error) => error.into(),
            DrainError::Store(error) => error.into(),
            DrainError::Foreign { .. } => Self::Foreign(error.to_string()),
        }
    }
}

impl From<FormatError> for GcError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Store(error) => Self::Store(error),
            FormatError::Unreadable(_) | FormatError::Layout(_) => Self::Foreign(error.to_string()),
        }
    }
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Pushes and mounts that were finished for their writers.
    pub finished: u64,
    /// Pushes and mounts that were taken back.
    pub withdrawn: u64,
    /// Expired uploads that ended.
    pub uploads: u64,
    /// Manifests that were evicted from mirrors.
    pub evicted: u64,
    /// Rows that went, by kind.
    pub rows: BTreeMap<&'static str, u64>,
    /// What the outbox did.
    pub drained: Drained,
    failures: u64,
    first_failure: Option<String>,
}

impl Collected {
    /// As a summary counts.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let row = |kind| self.rows.get(kind).copied().unwrap_or_default();
        BTreeMap::from([
            ("finishedIntents", self.finished),
            ("withdrawnIntents", self.withdrawn),
            ("expiredUploads", self.uploads),
            ("evictedManifests", self.evicted),
            ("purgedTags", row("tag")),
            ("purgedManifests", row("trashed")),
            ("trashedManifests", row("manifest")),
            ("unusedLinks", row("link")),
            ("unusedBlobs", row("blob")),
            ("deletedObjects", self.drained.removed()),
            ("reclaimedBytes", self.drained.bytes),
        ])
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(|| error.to_string());
    }
}

/// What a dry run found due, as a summary counts.
#[must_use]
pub fn due(backlog: &Backlog) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("dueIntents", backlog.intents),
        ("dueUploads", backlog.uploads),
        ("dueTags", backlog.tags),
        ("dueTrashedManifests", backlog.trashed),
        ("dueManifests", backlog.manifests),
        ("dueLinks", backlog.links),
        ("dueBlobs", backlog.blobs),
        ("dueRemovals", backlog.removals),
    ])
}

/// Collects in one registry.
#[derive(Clone)]
pub struct Collector {
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    /// How long untagged manifests rest in the trash; `None`: they stay where they are.
    untagged: Option<Duration>,
    /// What is evicted, and what must stay.
    evicting: Option<Arc<Evicting>>,
    metrics: CollectionMetrics,
}

impl Collector {
    /// Over a database and a bucket.
    #[must_use]
    pub fn new(meta: Arc<dyn MetaStore>, store: Arc<dyn Store>, metrics: CollectionMetrics) -> Self {
        Self { meta, store, untagged: None, evicting: None, metrics }
    }

    /// From now on manifests without a tag go to the trash, for `retain`.
    #[must_use]
    pub fn trashing_untagged(self, retain: Duration) -> Self {
        Self { untagged: Some(retain), ..self }
    }

    /// From now on a pass evicts, too; if it cannot, it collects all else and then says why not.
    #[must_use]
    pub fn evicting(self, evicting: Evicting) -> Self {
        Self { evicting: Some(Arc::new(evicting)), ..self }
    }

    /// One pass.
    pub async fn collect(&self) -> Result<Collected, GcError> {
        let mut pass = Pass::over(self);
        let outcome = pass.run().await;
        self.note(&pass.collected, outcome.as_ref().err());
        outcome?;
        let Pass { collected, .. } = pass;
        match (collected.failures + collected.drained.failed, collected.first_failure.clone()) {
            (0, _) => match self.evicting.as_ref().map(|evicting| &evicting.usage) {
                Some(Err(why)) => Err(why.again().into()),
                Some(Ok(_)) | None => Ok(collected),
            },
            (count, first) => {
                let first = first.unwrap_or_else(|| "the object store refused a removal".to_owned());
                Err(GcError::Incomplete { count, first })
            }
        }
    }

    /// What a pass would look at. Changes nothing.
    pub async fn look(&self) -> Result<Backlog, GcError> {
        ensure_one_registry(&*self.store, &*self.meta).await?;
        let backlog = self.meta.backlog().await?;
        self.metrics.backlog(backlog.pending(), backlog.oldest);
        Ok(backlog)
    }

    /// What every replica does now and then: finishes what requests left behind. One query when there is nothing.
    pub async fn finish_requests(&self) -> Result<Collected, GcError> {
        let backlog = self.meta.backlog().await?;
        self.metrics.backlog(backlog.pending(), backlog.oldest);
        let mut pass = Pass::over(self);
        if backlog.intents + backlog.uploads + backlog.owed == 0 {
            return Ok(pass.collected);
        }
        let outcome = pass.finish_requests().await;
        self.note(&pass.collected, outcome.as_ref().err());
        outcome.map(|()| pass.collected)
    }

    fn note(&self, collected: &Collected, error: Option<&GcError>) {
        for (kind, count) in &collected.drained.objects {
            self.metrics.deleted(kind, *count);
        }
        self.metrics.reclaimed(collected.drained.bytes);
        let frozen = error.is_some_and(|error| matches!(error, GcError::Frozen(_) | GcError::Foreign(_)));
        self.metrics.frozen(frozen);
        if let Some(GcError::Frozen(meta::Error::Live { key })) = error {
            tracing::error!(
                object.key = key,
                "an object that is in use is queued for removal; nothing is collected"
            );
        }
    }
}

/// Finishes once a minute what requests left behind, until told to stop. Every replica does.
pub async fn finish_requests(collector: Collector, stopping: CancellationToken) {
    /// Replicas that were started together shall not ask together for ever.
    const LEAST: u64 = 45_000;
    const MOST: u64 = 75_000;
    loop {
        let pause = Duration::from_millis(rand::random_range(LEAST..=MOST));
        if stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        match stopping.run_until_cancelled(collector.finish_requests()).await {
            None => return,
            // It is known elsewhere that the database is away, or has a new incarnation.
            Some(Ok(_) | Err(GcError::Database(_) | GcError::Frozen(meta::Error::Untrusted))) => {}
            Some(Err(error)) => {
                tracing::warn!(
                    error = crate::config::explained(&error),
                    "unfinished requests stay unfinished"
                );
            }
        }
    }
}

/// Bucket and database must name one owner.
pub(super) async fn ensure_one_registry(store: &dyn Store, meta: &dyn MetaStore) -> Result<(), GcError> {
    let bucket = read_format(store).await?.map(|format| format.registry);
    let database = meta.envelope().await?.map(|envelope| envelope.registry);
    let name = |owner: Option<Uuid>| owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
    match (bucket, database) {
        (Some(bucket), Some(database)) if bucket == database => Ok(()),
        _ => Err(GcError::Foreign(format!(
            "the bucket belongs to {}, the database to {}: check bucket, prefix and database",
            name(bucket),
            name(database)
        ))),
    }
}

/// What cannot be judged; others may be.
const fn is_of_one(error: &meta::Error) -> bool {
    matches!(error, meta::Error::Broken(_) | meta::Error::Unreadable { .. })
}

struct Pass<'a> {
    collector: &'a Collector,
    collected: Collected,
    progress: Progress,
    expected: u64,
    done: u64,
}

impl<'a> Pass<'a> {
    fn over(collector: &'a Collector) -> Self {
        let progress = Progress::begin("collected");
        Self { collector, collected: Collected::default(), progress, expected: 0, done: 0 }
    }

    async fn run(&mut self) -> Result<(), GcError> {
        ensure_one_registry(&*self.collector.store, &*self.collector.meta).await?;
        let epoch = self.collector.meta.incarnation().await?.epoch;
        self.expected = self.collector.look().await?.pending();
        self.discard_epochs(epoch).await?;
        self.forget_runs(epoch).await?;
        snapshot(&*self.collector.meta, &*self.collector.store, epoch).await?;
        self.evict(epoch).await?;
        loop {
            let before = self.done;
            self.reap(epoch).await?;
            self.purge_tags(epoch).await?;
            self.sweep(epoch, Candidate::Trashed).await?;
            self.sweep(epoch, Candidate::Manifest).await?;
            self.sweep(epoch, Candidate::Link).await?;
            self.sweep(epoch, Candidate::Blob).await?;
            self.drain(Which::All).await?;
            if self.done == before {
                break;
            }
        }
        self.collector.look().await?;
        Ok(())
    }

    async fn evict(&mut self, epoch: Epoch) -> Result<(), GcError> {
        let Some(evicting) = self.collector.evicting.clone() else { return Ok(()) };
        let Ok(usage) = &evicting.usage else { return Ok(()) };
        let Collector { meta, store, .. } = self.collector;
        let evicted = evict(&**meta, &**store, epoch, &evicting.caches, usage.as_ref()).await?;
        self.collected.evicted += evicted;
        self.did(evicted);
        Ok(())
    }

    async fn finish_requests(&mut self) -> Result<(), GcError> {
        let epoch = self.collector.meta.incarnation().await?.epoch;
        self.reap(epoch).await?;
        self.drain(Which::Owed).await
    }

    fn did(&mut self, count: u64) {
        self.done += count;
        self.progress.tell(self.done, self.expected);
    }

    async fn reap(&mut self, epoch: Epoch) -> Result<(), GcError> {
        let meta = &self.collector.meta;
        let mut after = 0;
        loop {
            let intents = meta.expired_intents(after, BATCH).await?;
            let Some(last) = intents.last() else { break };
            after = last.id;
            for intent in &intents {
                self.reap_intent(epoch, intent).await?;
            }
        }
        let mut after = Uuid::nil();
        loop {
            let uploads = meta.expired_uploads(after, BATCH).await?;
            let Some(last) = uploads.last() else { return Ok(()) };
            after = *last;
            for upload in uploads {
                match meta.reap_upload(epoch, upload).await {
                    Ok(true) => {
                        self.collected.uploads += 1;
                        self.did(1);
                    }
                    Ok(false) => {}
                    Err(error) if is_of_one(&error) => self.keep("upload", upload, &error),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn keep(&mut self, what: &'static str, id: impl std::fmt::Display, error: &dyn std::error::Error) {
        self.kept(what, id, &crate::config::explained(error));
    }

    fn kept(&mut self, what: &'static str, id: impl std::fmt::Display, error: &str) {
        tracing::error!(what, %id, error, "cannot be judged and stays");
        self.collected.failed(&error);
    }

    async fn reap_intent(&mut self, epoch: Epoch, intent: &ExpiredIntent) -> Result<(), GcError> {
        let found = match found(&*self.collector.store, intent).await {
            Ok(found) => found,
            Err(error) => {
                self.keep("intent", intent.id, &error);
                return Ok(());
            }
        };
        match self.collector.meta.reap_intent(epoch, intent, &found).await {
            Ok(Reaped::Finished) => self.collected.finished += 1,
            Ok(Reaped::Withdrawn) => self.collected.withdrawn += 1,
            Ok(Reaped::Gone) => return Ok(()),
            Err(error) if is_of_one(&error) => {
                self.keep("intent", intent.id, &error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.did(1);
        Ok(())
    }

    async fn purge_tags(&mut self, epoch: Epoch) -> Result<(), GcError> {
        let mut after: Option<TrashedTag> = None;
        loop {
            let tags = self.collector.meta.trashed_tags(after.as_ref(), BATCH).await?;
            let Some(last) = tags.last() else { return Ok(()) };
            after = Some(last.clone());
            let Collector { meta, store, .. } = self.collector;
            // Each is a listing and a transaction: what they cost is waiting.
            let purges = tags.iter().map(|tag| purge_tag(&**meta, &**store, epoch, tag));
            let purges: Vec<BoxFuture<'_, _>> =
                purges.map(|purge| -> BoxFuture<'_, _> { Box::pin(purge) }).collect();
            let mut purges = stream::iter(purges).buffer_unordered(AT_ONCE);
            let mut outcomes = Vec::with_capacity(tags.len());
            while let Some(outcome) = purges.next().await {
                outcomes.push(outcome?);
            }
            drop(purges);
            for (tag, outcome) in outcomes {
                self.purged_tag(tag, outcome);
            }
        }
    }

    fn purged_tag(&mut self, tag: &TrashedTag, outcome: Result<bool, String>) {
        match outcome {
            Ok(purged) => {
                *self.collected.rows.entry("tag").or_default() += u64::from(purged);
                self.did(u64::from(purged));
            }
            Err(error) => self.kept("tag", &tag.tag, &error),
        }
    }

    /// Takes candidates until none is due. One that cannot be judged is put off, the others go on.
    async fn sweep(&mut self, epoch: Epoch, kind: Candidate) -> Result<(), GcError> {
        let mut singles = 0;
        loop {
            let limit = if singles > 0 { 1 } else { BATCH };
            match self.step(epoch, kind, limit).await {
                Ok(Swept { seen: 0, .. }) => return Ok(()),
                Ok(swept) => {
                    singles = u32::saturating_sub(singles, 1);
                    *self.collected.rows.entry(name(kind)).or_default() += swept.removed;
                    self.did(swept.seen);
                }
                Err(error) if is_of_one(&error) && singles == 0 => singles = BATCH,
                Err(error) if is_of_one(&error) => {
                    self.keep(name(kind), "a candidate", &error);
                    self.collector.meta.postpone(epoch, kind).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn step(&self, epoch: Epoch, kind: Candidate, limit: u32) -> BoxFuture<'_, Result<Swept, meta::Error>> {
        let meta = &self.collector.meta;
        match kind {
            Candidate::Trashed => meta.purge_manifests(epoch, limit),
            Candidate::Manifest => meta.sweep_manifests(epoch, self.collector.untagged, limit),
            Candidate::Link => meta.sweep_links(epoch, limit),
            Candidate::Blob => meta.sweep_blobs(epoch, limit),
        }
    }

    async fn drain(&mut self, which: Which) -> Result<(), GcError> {
        let Collector { meta, store, .. } = self.collector;
        let (done, expected, progress) = (self.done, self.expected, &mut self.progress);
        let mut so_far = Drained::default();
        let outcome = drain(&**meta, &**store, which, |batch| {
            so_far.add(batch);
            progress.tell(done + so_far.rows, expected);
        })
        .await;
        // Also of a pass that ends here: what was removed is counted.
        let drained = outcome.as_ref().unwrap_or(&so_far).clone();
        self.collected.drained.add(&drained);
        self.done += drained.rows;
        outcome?;
        Ok(())
    }

    /// Queues the reports of runs that many newer ones follow.
    async fn forget_runs(&mut self, epoch: Epoch) -> Result<(), GcError> {
        loop {
            let forgotten = self.collector.meta.forget_runs(epoch, reports::KEPT, BATCH).await?;
            *self.collected.rows.entry("run").or_default() += forgotten;
            if forgotten == 0 {
                return Ok(());
            }
        }
    }

    /// Queues the objects of incarnations long gone.
    async fn discard_epochs(&mut self, epoch: Epoch) -> Result<(), GcError> {
        let mut epochs = listed(&*self.collector.store, Key::EPOCHS).await?;
        // Newest first, as they are listed.
        epochs.retain(|key| matches!(key, Key::Epoch { .. }));
        if let Some(old) = epochs.get(EPOCHS..).filter(|old| !old.is_empty()) {
            self.collector.meta.discard(epoch, old).await?;
        }
        Ok(())
    }
}

const fn name(kind: Candidate) -> &'static str {
    match kind {
        Candidate::Trashed => "trashed",
        Candidate::Manifest => "manifest",
        Candidate::Link => "link",
        Candidate::Blob => "blob",
    }
}

/// Purges a deleted tag: whether it went, or why it cannot be judged.
async fn purge_tag<'a>(
    meta: &dyn MetaStore,
    store: &dyn Store,
    epoch: Epoch,
    tag: &'a TrashedTag,
) -> Result<(&'a TrashedTag, Result<bool, String>), GcError> {
    let listed = match listed(store, &Key::tag_prefix(&tag.repository, &tag.tag)).await {
        Ok(listed) => listed,
        Err(error) => return Ok((tag, Err(crate::config::explained(&error)))),
    };
    match meta.purge_tag(epoch, tag, &listed).await {
        Ok(purged) => Ok((tag, Ok(purged))),
        Err(error) if is_of_one(&error) => Ok((tag, Err(crate::config::explained(&error)))),
        Err(error) => Err(error.into()),
    }
}

/// Which of an intent's keys are in the bucket.
async fn found(store: &dyn Store, intent: &ExpiredIntent) -> Result<Vec<Key>, blobs::Error> {
    let heads: Vec<_> = intent.keys.iter().map(|key| store.head(key)).collect();
    let there = try_join_all(heads).await?;
    let there = intent.keys.iter().zip(there).filter(|(_, size)| size.is_some());
    let mut there: Vec<Key> = there.filter_map(|(key, _)| key.parse().ok()).collect();
    there.extend(finish_ledger(store, intent, &there).await?);
    Ok(there)
}

/// A promotion whose other records are all there takes effect: its own is written for it.
async fn finish_ledger(
    store: &dyn Store,
    intent: &ExpiredIntent,
    there: &[Key],
) -> Result<Option<Key>, blobs::Error> {
    let Some(record) = &intent.ledger else { return Ok(None) };
    let keys: Vec<Key> = intent.keys.iter().filter_map(|key| key.parse().ok()).collect();
    let mut missing = keys.into_iter().filter(|key| !there.contains(key));
    match (missing.next(), missing.next()) {
        (Some(key @ Key::Ledger { .. }), None) => {
            store.put(&key.to_string(), vec![record.to_bytes()]).await?;
            Ok(Some(key))
        }
        _ => Ok(None),
    }
}

/// All keys of ours below a prefix, in their order.
async fn listed(store: &dyn Store, prefix: &str) -> Result<Vec<Key>, blobs::Error> {
    let mut keys = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|object| object.key.clone());
        keys.extend(page.iter().filter_map(|object| object.key.parse::<Key>().ok()));
        if is_last {
            return Ok(keys);
        }
    }
}
