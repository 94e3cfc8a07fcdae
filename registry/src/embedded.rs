// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The registry as a part of another program: a folder, or any database and bucket, and an axum router.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use stowage_oci::Name;
use uuid::Uuid;

use crate::auth::{Access, Htpasswd, Realms, Rules, SigningKey, Snapshot};
use crate::blobs::{self, Filesystem, Store, selftest};
use crate::domain::{
    self, Domain, Hook, Limits, MirrorSettings, Mirrors, OwnershipError, Replication, SyncMode, Synced, Tell,
    VirtualSettings, Virtuals,
};
use crate::http::{DataPort, Metrics, Settings};
use crate::jobs::{self, Collector};
use crate::key::Generation;
use crate::meta::MetaStore;
use crate::meta::sqlite::{self, SqliteStore};
use crate::ops::clock;
use crate::ops::metrics::{CollectionMetrics, MirrorMetrics};
use crate::ops::permits::Permits;
use crate::ops::run_requests::RunRequests;
use crate::ops::tasks::Tasks;

/// Requests answered at the same time, unless a configuration says otherwise.
const MOST_REQUESTS: usize = 4096;
/// How long a start waits for the database to be taken over.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// Why a registry does not open. Nothing was changed, except what a first start makes.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("data folder {folder}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The database in the folder does not open.
    #[error(transparent)]
    Database(#[from] sqlite::OpenError),
    /// Bucket and database do not belong together.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// The self-test could not be made.
    #[error("self-test of the object store")]
    Store(#[from] blobs::Error),
    /// The self-test failed: content would not be safe there.
    #[error("the object store cannot be used: {0}")]
    Unfit(&'static str),
    /// No key to sign tokens with could be made.
    #[error("key for tokens")]
    Keys(#[from] crate::auth::KeyError),
}

/// A registry that serves. Dropping it stops nothing; [`close`](Self::close) it.
#[derive(Clone)]
pub struct Registry {
    port: DataPort,
    domain: Domain,
    settings: Arc<ArcSwap<Settings>>,
    slots: Permits,
    runs: RunRequests,
    tasks: Tasks,
    /// What is to be handed over at the end.
    folder: Option<Arc<SqliteStore>>,
    id: String,
}

impl Registry {
    /// What can be set before it opens.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            limits: Limits::default(),
            hook: None,
            access: None,
            settings: Settings::default(),
            metrics: Metrics::default(),
            collection_metrics: CollectionMetrics::default(),
            mirror_metrics: MirrorMetrics::default(),
            max_requests: MOST_REQUESTS,
        }
    }

    /// The routes `/v2`, `/v2/…` and `/token`, to be merged into another router. They must stay at the root:
    /// clients know no other place.
    pub fn router(&self) -> Router {
        crate::http::router(self.port.clone())
    }

    /// The administrative verbs below `/admin/v1`, for a port of their own: they need somebody with a name.
    pub fn admin_router(&self) -> Router {
        crate::http::admin_router(self.port.clone())
    }

    /// From now on it is called and takes writes as `settings` say, and index children must exist in
    /// repositories that one of `strict_indexes` matches.
    pub fn apply(&self, settings: Settings, strict_indexes: Vec<stowage_oci::Glob>) {
        self.settings.store(Arc::new(settings));
        self.domain.set_strict_indexes(strict_indexes);
    }

    /// Other limits from now on. Requests that run keep what they have.
    pub fn set_limits(&self, limits: Limits, max_requests: usize) {
        self.domain.set_limits(limits);
        self.slots.set(max_requests, &self.tasks);
    }

    /// Mirrors these from now on. Each says who we are to its upstream.
    pub fn set_mirrors(&self, mut mirrors: Vec<MirrorSettings>) {
        for mirror in &mut mirrors {
            mirror.upstream.registry_id.clone_from(&self.id);
        }
        self.domain.set_mirrors(mirrors);
    }

    /// From now on clients cannot change repositories below these paths, to which mirrors copy.
    pub fn set_copied(&self, paths: Vec<Name>) {
        self.domain.set_copied(paths);
    }

    /// What somebody asks for on the admin port of the runs that are offered here: none, until they are.
    #[must_use]
    pub const fn run_requests(&self) -> &RunRequests {
        &self.runs
    }

    /// One run of a mirror that replicates; each item is told.
    pub async fn replicate(&self, asked: &Replication, mode: SyncMode, tell: &dyn Tell) -> Synced {
        let mut asked = asked.clone();
        asked.upstream.registry_id.clone_from(&self.id);
        Box::pin(self.domain.replicate(&asked, mode, tell)).await
    }

    /// Serves these virtual repositories from now on.
    pub fn set_virtuals(&self, virtuals: Vec<VirtualSettings>) {
        self.domain.set_virtuals(virtuals);
    }

    /// The virtual repositories.
    #[must_use]
    pub fn virtuals(&self) -> Arc<Virtuals> {
        self.domain.virtuals()
    }

    /// Each virtual repository whose path hides repositories of ours, with one of these.
    pub async fn hidden_repositories(&self) -> Result<Vec<(String, Name)>, domain::Error> {
        self.domain.hidden_repositories().await
    }

    /// What it does, for who has the right to all of it.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The mirrors.
    #[must_use]
    pub fn mirrors(&self) -> Arc<Mirrors> {
        self.domain.mirrors()
    }

    /// The bytes of manifests that are kept in memory, with what keeping them costs.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.domain.cached_bytes()
    }

    /// Tells what runs in the background to end: transfers stop at what is durable.
    pub fn stop(&self) {
        self.tasks.stop();
    }

    /// Ends what runs in the background: transfers stop at what is durable.
    pub async fn close(self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        if tokio::time::timeout(PATIENCE, self.domain.end_pulls()).await.is_err() {
            tracing::warn!("the last pulls are not in the record");
        }
        self.tasks.stop();
        if !self.tasks.wait(PATIENCE).await {
            tracing::warn!("some tasks had not ended");
        }
        let Some(folder) = self.folder else { return };
        if let Err(error) = folder.hand_over().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the folder was not handed over; graces begin anew");
        }
    }
}

/// A registry to be opened.
pub struct Builder {
    limits: Limits,
    hook: Option<Arc<dyn Hook>>,
    access: Option<Arc<Access>>,
    settings: Settings,
    metrics: Metrics,
    collection_metrics: CollectionMetrics,
    mirror_metrics: MirrorMetrics,
    max_requests: usize,
}

impl Builder {
    /// Limits other than the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Told of each manifest that is pushed.
    #[must_use]
    pub fn hook(mut self, hook: Arc<dyn Hook>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Who may do what. Without it everybody may do everything.
    #[must_use]
    pub fn access(mut self, access: Arc<Access>) -> Self {
        self.access = Some(access);
        self
    }

    /// What the registry is called and whether it takes writes.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What counts its requests.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// What counts what its collectors do.
    #[must_use]
    pub fn collection_metrics(mut self, metrics: CollectionMetrics) -> Self {
        self.collection_metrics = metrics;
        self
    }

    /// What counts what its mirrors do.
    #[must_use]
    pub fn mirror_metrics(mut self, metrics: MirrorMetrics) -> Self {
        self.mirror_metrics = metrics;
        self
    }

    /// How many requests are answered at the same time.
    #[must_use]
    pub fn max_requests(mut self, max_requests: usize) -> Self {
        self.max_requests = max_requests;
        self
    }

    /// Opens the registry in `folder`; makes it if there is none. A folder is open in one process at a time.
    pub async fn open(self, folder: &Path) -> Result<Registry, OpenError> {
        let unusable = |source| OpenError::Folder { folder: folder.display().to_string(), source };
        let store = Filesystem::open(folder).await.map_err(unusable)?;
        let meta = Arc::new(SqliteStore::open(folder, sqlite::Options::default()).await?);
        let registry = self.over(Arc::clone(&meta) as Arc<dyn MetaStore>, Arc::new(store)).await?;
        Ok(Registry { folder: Some(meta), ..registry })
    }

    /// Opens the registry over a database and a bucket.
    pub async fn over(self, meta: Arc<dyn MetaStore>, store: Arc<dyn Store>) -> Result<Registry, OpenError> {
        let reads_back = examine(&*store).await?;
        match domain::ensure_owner(&*store, &*meta).await {
            Err(OwnershipError::RebuildRequired(registry)) => {
                tracing::error!(%registry, "the database is empty and the bucket is not: only pulls are answered until `rebuild --adopt`");
            }
            owner => drop(owner?),
        }
        let tasks = Tasks::new();
        let collector = Collector::new(Arc::clone(&meta), Arc::clone(&store), self.collection_metrics);
        tasks.spawn(jobs::finish_requests(collector, tasks.stopping()));
        let id = match meta.envelope().await {
            Ok(Some(envelope)) => envelope.registry.to_string(),
            // Somebody must be told from others all the same.
            Ok(None) | Err(_) => Uuid::new_v4().to_string(),
        };
        let mut domain =
            Domain::new(meta, store, self.limits, tasks.clone()).with_mirror_metrics(self.mirror_metrics);
        if reads_back {
            domain = domain.reading_back();
        }
        if let Some(hook) = self.hook {
            domain = domain.with_hook(hook);
        }
        let access = match self.access {
            Some(access) => access,
            None => Arc::new(open_access(&self.settings)?),
        };
        let settings = Arc::new(ArcSwap::from_pointee(self.settings));
        let (slots, runs) = (Permits::new(self.max_requests), RunRequests::default());
        let port = DataPort::new(
            domain.clone(),
            access,
            Arc::clone(&settings),
            self.metrics,
            tasks.clone(),
            slots.clone(),
            runs.clone(),
        );
        // The first request need not take the database over. What stands in the way passes, or is told to it.
        if let Ok(Err(error)) = tokio::time::timeout(TAKE_OVER, domain.trust().enter()).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the epoch is not known yet");
        }
        tasks.spawn(domain::keep_compared(domain.clone(), tasks.stopping()));
        tasks.spawn(domain.clone().keep_pulls());
        Ok(Registry { port, domain, settings, slots, runs, tasks, folder: None, id })
    }
}

/// Tries the store. Whether multipart objects must be read back before they are trusted.
pub(crate) async fn examine(store: &dyn Store) -> Result<bool, OpenError> {
    let lacks = selftest::probe(store, Generation::at(clock::milliseconds())).await?;
    for lack in &lacks {
        if lack.is_fatal() {
            return Err(OpenError::Unfit(lack.text()));
        }
        tracing::warn!(lack = lack.text(), "the object store lacks something; content is read back instead");
    }
    Ok(!lacks.is_empty())
}

/// Everybody may do everything.
fn open_access(settings: &Settings) -> Result<Access, OpenError> {
    let host = settings.site.hosts.first().map_or("localhost", String::as_str);
    Ok(Access::new(Snapshot {
        rules: Arc::new(Rules::open()),
        users: Htpasswd::empty(),
        realms: Realms::new(&format!("http://{host}"), []),
        keys: SigningKey::ephemeral()?,
    }))
}
