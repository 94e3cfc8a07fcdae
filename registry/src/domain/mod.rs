// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a registry does: pull, push, list, mount, delete.
//!
//! Takes values that have been parsed and rights that have been checked, gives outcomes or [`Error`]s, and
//! knows nothing of HTTP.
//!
//! The order law. Writing: record the intent → store the bytes → publish the row → acknowledge. Deleting:
//! stop naming and queue the keys, in one transaction → write the evidence → acknowledge → much later the
//! bytes. No transaction is open across a request to the bucket.
//!
//! Reads outlive the database: what it does not answer within a second is answered from the bucket.
//! Writes wait for it up to the configured hold.

mod degraded;
mod delete;
mod error;
mod gather;
mod immutability;
mod lists;
mod lookups;
mod mirror;
mod mount;
mod outage;
mod ownership;
mod promote;
mod proofs;
mod pull;
pub mod pulls;
mod push;
mod rate_limit;
mod reconcile;
mod sync;
mod told;
mod trash;
mod trust;
mod upload;
mod virtuals;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};
use stowage_oci::Digest;
use tokio::time::Instant;

use crate::blobs::Store;
use crate::meta::{Epoch, Error as MetaError, MetaStore};
use crate::ops::metrics::MirrorMetrics;
use crate::ops::permits::Permits;
use crate::ops::tasks::Tasks;
use reconcile::Unit;

pub use error::Error;
pub use immutability::{Immutability, ImmutabilityRule};
pub use lists::{ReferrerList, RepositoryList, TagList};
pub use mirror::{
    Asking, Cache as MirrorCache, Mirror, MirrorResult, MirrorSettings, Mirrored, MirroredBlob, Mirrors,
    Place, Reader,
};
pub use ownership::{OwnershipError, ensure_owner};
pub use promote::{
    Ending, Gate, GateResult, LedgerPage, Promotion, PromotionMode, PromotionRequest, PromotionRule, Since,
    Trigger, Verdict, Wanted, shown_time,
};
pub use pull::{Blob, BlobHead, ManifestAnswer};
pub use push::{Hook, Pushed, PutManifest};
pub use reconcile::{Pace, Verified, Verify, VerifyOptions, Walk, WalkError, Walked, keep_compared};
pub use sync::{
    Artifacts, Replication, Repositories, Selection, SyncFate, SyncItem, SyncMode, SyncProgress, Synced, Tell,
};
pub use trash::Restored;
pub use trust::{Token, Trust};
pub use upload::{Body, BodyError, Chunk};
pub use virtuals::{
    Combined, Joined, Listing, Member, MemberSource, Pin, Shadowing, Source, VirtualSettings, Virtuals,
    Within,
};

pub use crate::upstream::{Error as UpstreamError, Kind as UpstreamFault};

/// What may be set from outside, per process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest blob, in bytes.
    pub max_blob_size: Option<u64>,
    /// Uploads that receive bytes at the same time.
    pub max_concurrent_uploads: usize,
    /// Memory for parts of uploads, in bytes.
    pub upload_memory: u64,
    /// Memory for manifests too long for the database, in bytes.
    pub cache_memory: u64,
    /// How long a write waits for a lost database.
    pub write_hold: Duration,
    /// Open uploads of one principal.
    pub max_open_uploads: u32,
    /// Manifests with one subject in a repository.
    pub max_referrers: u32,
    /// How long an upload lives without progress.
    pub upload_expiry: Duration,
    /// How long deleted tags and manifests rest before they are collected.
    pub trash_retention: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        const HOUR: u64 = 3600;
        Self {
            max_blob_size: None,
            max_concurrent_uploads: 256,
            upload_memory: 256 * MIB,
            cache_memory: 64 * MIB,
            write_hold: Duration::from_secs(20),
            max_open_uploads: 1000,
            max_referrers: 10_000,
            upload_expiry: Duration::from_secs(24 * HOUR),
            trash_retention: Duration::from_secs(168 * HOUR),
        }
    }
}

/// The registry's deeds over one database and one bucket. Clones share everything.
#[derive(Clone)]
pub struct Domain {
    meta: Arc<dyn MetaStore>,
    lookups: Arc<lookups::Lookups>,
    store: Arc<dyn Store>,
    trust: Arc<Trust>,
    comparer: reconcile::Comparer,
    limits: Arc<ArcSwap<Limits>>,
    /// In KiB.
    upload_memory: Permits,
    running_uploads: Permits,
    paused: Arc<upload::Paused>,
    manifests: Arc<Cache<Digest, CachedManifest, ByteWeight>>,
    strict_indexes: Arc<ArcSwap<Vec<stowage_oci::Glob>>>,
    immutability: Arc<ArcSwap<Immutability>>,
    hook: Option<Arc<dyn Hook>>,
    /// Whether multipart objects are read back before they are trusted.
    reads_back: bool,
    outage: Arc<outage::Outage>,
    shelf: Arc<mirror::Shelf>,
    virtuals: Arc<ArcSwap<Virtuals>>,
    /// Where mirrors copy, so that clients do not push.
    copied: Arc<ArcSwap<Vec<stowage_oci::Name>>>,
    seen: Arc<pulls::Seen>,
    promoting: Arc<promote::Promoting>,
    tasks: Tasks,
}

/// Manifest bytes and their type: immutable facts of a digest.
#[derive(Clone)]
struct CachedManifest {
    media_type: String,
    body: bytes::Bytes,
}

#[derive(Clone)]
struct ByteWeight;

impl Weighter<Digest, CachedManifest> for ByteWeight {
    fn weight(&self, _: &Digest, manifest: &CachedManifest) -> u64 {
        // Key, type and the cache's own bookkeeping come to about this much.
        const OVERHEAD: u64 = 256;
        manifest.body.len() as u64 + OVERHEAD
    }
}

impl Domain {
    /// Over `meta` and `store`, which must belong to the same registry.
    #[must_use]
    pub fn new(meta: Arc<dyn MetaStore>, store: Arc<dyn Store>, limits: Limits, tasks: Tasks) -> Self {
        const AVERAGE_MANIFEST: u64 = 64 << 10;
        let entries = usize::try_from(limits.cache_memory / AVERAGE_MANIFEST).unwrap_or(usize::MAX).max(16);
        let manifests = Cache::with(
            entries,
            limits.cache_memory,
            ByteWeight,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let comparer = reconcile::Comparer {
            meta: Arc::clone(&meta),
            store: Arc::clone(&store),
            limits: Arc::clone(&limits),
        };
        let now = limits.load_full();
        let outage = Arc::new(outage::Outage::none());
        Self {
            lookups: Arc::new(lookups::Lookups::new(&meta, &outage, &tasks)),
            trust: Arc::new(Trust::new(comparer.clone())),
            comparer,
            upload_memory: Permits::new(kib(now.upload_memory)),
            running_uploads: Permits::new(now.max_concurrent_uploads),
            paused: Arc::new(upload::Paused::new()),
            manifests: Arc::new(manifests),
            strict_indexes: Arc::default(),
            immutability: Arc::default(),
            hook: None,
            reads_back: false,
            outage,
            shelf: Arc::new(mirror::Shelf::new(MirrorMetrics::default())),
            virtuals: Arc::default(),
            copied: Arc::default(),
            seen: Arc::new(pulls::Seen::new()),
            promoting: Arc::default(),
            meta,
            store,
            limits,
            tasks,
        }
    }

    /// Tells `hook` of each manifest that was pushed, after it is committed.
    #[must_use]
    pub fn with_hook(mut self, hook: Arc<dyn Hook>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Reads each multipart object back before it is trusted: the store does not refuse replaced parts.
    #[must_use]
    pub fn reading_back(mut self) -> Self {
        self.reads_back = true;
        self
    }

    /// Counts what mirrors do in these. Forgets the mirrors that it had.
    #[must_use]
    pub fn with_mirror_metrics(mut self, metrics: MirrorMetrics) -> Self {
        self.shelf = Arc::new(mirror::Shelf::new(metrics));
        self
    }

    /// Mirrors these from now on.
    pub fn set_mirrors(&self, settings: Vec<MirrorSettings>) {
        for mirror in &settings {
            self.shelf.metrics.known(&mirror.name, MirrorResult::ALL.map(MirrorResult::name));
        }
        let mirrors = self.mirrors().with(self, settings);
        self.shelf.mirrors.store(Arc::new(mirrors));
    }

    /// The mirrors.
    #[must_use]
    pub fn mirrors(&self) -> Arc<Mirrors> {
        self.shelf.mirrors.load_full()
    }

    /// What counts what mirrors do.
    #[must_use]
    pub fn mirror_metrics(&self) -> &MirrorMetrics {
        &self.shelf.metrics
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.upload_memory.set(kib(limits.upload_memory), &self.tasks);
        self.running_uploads.set(limits.max_concurrent_uploads, &self.tasks);
        self.manifests.set_capacity(limits.cache_memory);
        self.limits.store(Arc::new(limits));
    }

    /// The bytes of manifests that are kept in memory, with what keeping them costs; never more than
    /// [`Limits::cache_memory`].
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.manifests.weight()
    }

    /// From now on index children must exist in repositories that one of `globs` matches.
    pub fn set_strict_indexes(&self, globs: Vec<stowage_oci::Glob>) {
        self.strict_indexes.store(Arc::new(globs));
    }

    /// From now on these tags never name a second digest.
    pub fn set_immutability(&self, rules: Immutability) {
        self.immutability.store(Arc::new(rules));
    }

    /// Tags that never name a second digest.
    #[must_use]
    pub fn immutability(&self) -> Arc<Immutability> {
        self.immutability.load_full()
    }

    /// From now on clients cannot change repositories below these paths, to which mirrors copy.
    pub fn set_copied(&self, paths: Vec<stowage_oci::Name>) {
        self.copied.store(Arc::new(paths));
    }

    /// Whether a mirror copies to the repository.
    #[must_use]
    pub fn is_copied(&self, repository: &stowage_oci::Name) -> bool {
        self.copied.load().iter().any(|path| mirror::names::is_at_or_below(repository, path))
    }

    /// The least chunk clients should send, if the store prefers large ones.
    #[must_use]
    pub fn preferred_chunk(&self) -> Option<u64> {
        self.store.prefers_large_chunks().then(|| self.store.part_size())
    }

    /// How far the database is believed.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Does `step`, which relies on no name, in the current epoch.
    async fn write<'a, T>(
        &self,
        step: impl Fn(Epoch) -> BoxFuture<'a, Result<T, MetaError>> + Sync,
    ) -> Result<T, Error> {
        self.write_to(&[], step).await
    }

    /// Does `step`, which touches the names `units`, in the current epoch. While the database is away it is
    /// repeated, up to the write hold; after a change of the database's incarnation it is repeated in the new
    /// epoch. So a step may take effect more than once, and must be harmless then.
    async fn write_to<'a, T>(
        &self,
        units: &[Unit],
        step: impl Fn(Epoch) -> BoxFuture<'a, Result<T, MetaError>> + Sync,
    ) -> Result<T, Error> {
        const PAUSE: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + self.limits.load().write_hold;
        loop {
            let outcome = match self.trust.ensure(units).await {
                Ok(token) => self.step(token.epoch, step(token.epoch)).await,
                Err(error) => Err(error),
            };
            match outcome {
                Err(Error::DatabaseAway(MetaError::Superseded)) if Instant::now() < deadline => {}
                Err(Error::DatabaseAway(MetaError::Unavailable(_))) if Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// A step in `epoch`, which is forgotten when it is over.
    async fn step<T>(
        &self,
        epoch: Epoch,
        step: impl Future<Output = Result<T, MetaError>>,
    ) -> Result<T, Error> {
        step.await.map_err(|error| {
            if matches!(error, MetaError::Superseded) {
                self.trust.leave(epoch);
            }
            error.into()
        })
    }
}

fn kib(bytes: u64) -> usize {
    usize::try_from(bytes >> 10).unwrap_or(usize::MAX)
}
