// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The configured database and bucket, opened.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stowage_registry::blobs::{self, Filesystem, Observed, Observer, Outcome, Request, S3, Store, s3};
use stowage_registry::config::{self, Backing, Config, Database, Storage, explained};
use stowage_registry::domain::{
    Domain, Limits, Promotion, PromotionMode, PromotionRequest, PromotionRule, Replication, SyncMode, Synced,
    Tell, Verified, VerifyOptions, Walk, Walked,
};
use stowage_registry::http::Settings;
use stowage_registry::jobs::{
    self, Collector, Evicting, PlanLine, Purged, RebuildError, RebuildOptions, Retained, Retainer,
    RetentionError, RetentionRun, Stage,
};
use stowage_registry::key::Key;
use stowage_registry::meta::postgres::{self, ConnectError, PostgresStore};
use stowage_registry::meta::sqlite::{self, SqliteStore};
use stowage_registry::meta::{self, Finding, Leases, MetaStore, Timings, WalkProgress};
use stowage_registry::ops::health::{Answer, Dependency, Health};
use stowage_registry::ops::metrics::{CollectionMetrics, Metrics, RetentionMetrics};
use stowage_registry::ops::tasks::Tasks;
use stowage_registry::usage;
use stowage_registry::{OpenError, Registry};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Failure;
use super::progress::Progress;
use super::termination::Counts;

/// How long a start waits for a database that is away.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long it is left alone before it is asked again.
const PAUSE: Duration = Duration::from_secs(2);

/// What a registry stands on.
pub(super) struct Stores {
    pub(super) meta: Arc<dyn MetaStore>,
    pub(super) blobs: Arc<dyn Store>,
    /// What is to be handed over at the end.
    pub(super) folder: Option<Arc<SqliteStore>>,
    /// The schema of the database. It was opened, so it is the one that this version works with.
    pub(super) schema: i32,
}

/// Tells the metrics of every request to the blob store, and the health of those that failed.
struct Counting {
    store: &'static str,
    metrics: Metrics,
    health: Arc<Health>,
}

impl Observer for Counting {
    fn ended(&self, request: Request, outcome: Outcome, took: Duration) {
        self.metrics.store_asked(self.store, request.name(), outcome.name(), took);
        if matches!(outcome, Outcome::Unavailable | Outcome::Refused) {
            self.health.doubt(Dependency::Storage);
        }
    }
}

/// Opens both. Waits for a database that is away.
pub(super) async fn stores(
    config: &Config,
    data_dir: &Path,
    metrics: &Metrics,
    health: &Arc<Health>,
) -> Result<Stores, Failure> {
    let (name, blobs): (_, Arc<dyn Store>) = match &config.storage {
        Storage::Filesystem => ("filesystem", Arc::new(filesystem(data_dir).await?)),
        Storage::S3(bucket) => {
            let store = s3(bucket).await?;
            ensure_nothing_expires(&store).await?;
            ("s3", Arc::new(store))
        }
    };
    let timings = timings(config.collection.grace);
    let mut folder = None;
    let (system, schema, meta): (_, _, Arc<dyn MetaStore>) = match &config.database {
        Database::Sqlite => {
            let store = Arc::new(sqlite(data_dir, timings).await?);
            folder = Some(Arc::clone(&store));
            ("sqlite", sqlite::SCHEMA, store)
        }
        Database::Postgres(server) => {
            let store = connected(server, timings, health).await?;
            ("postgresql", postgres::SCHEMA, Arc::new(store.with_metrics(metrics.clone())))
        }
    };
    let doubting = Arc::clone(health);
    let meta: Arc<dyn MetaStore> =
        Arc::new(meta::Watched::over(meta, move || doubting.doubt(Dependency::Database)));
    let counting = Arc::new(Counting { store: name, metrics: metrics.clone(), health: Arc::clone(health) });
    let stores = Stores { meta, blobs: Arc::new(Observed::over(blobs, counting)), folder, schema };
    if config.traces.is_none() {
        return Ok(stores);
    }
    Ok(Stores {
        meta: Arc::new(meta::Traced::over(stores.meta, system)),
        blobs: Arc::new(blobs::Traced::over(stores.blobs, name)),
        ..stores
    })
}

/// A rule that removes old objects would remove content that is in use.
async fn ensure_nothing_expires(store: &S3) -> Result<(), Failure> {
    match store.expiry_rule().await {
        Ok(None) => Ok(()),
        Ok(Some(rule)) => Err(Failure::Expiry(rule)),
        Err(error) => {
            tracing::info!(error = explained(&error), "the bucket's lifecycle rules cannot be read");
            Ok(())
        }
    }
}

/// Connects; asks again while the database is away, but not for ever.
async fn connected(
    server: &config::Postgres,
    timings: Timings,
    health: &Health,
) -> Result<PostgresStore, ConnectError> {
    let options = server_options(server, timings);
    let begun = Instant::now();
    loop {
        let error = match PostgresStore::connect(&options).await {
            Ok(store) => {
                health.note::<&str>(Dependency::Database, &Ok(Answer::Good));
                return Ok(store);
            }
            Err(ConnectError::Meta(error @ meta::Error::Unavailable(_))) if begun.elapsed() < PATIENCE => {
                error
            }
            Err(error) => return Err(error),
        };
        health.note(Dependency::Database, &Err(explained(&error)));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn s3(bucket: &config::S3) -> Result<S3, Failure> {
    let settings = s3::Settings {
        bucket: bucket.bucket.clone(),
        prefix: bucket.prefix.clone(),
        region: bucket.region.clone(),
        endpoint: bucket.endpoint.clone(),
        force_path_style: bucket.force_path_style,
        credentials: bucket.credentials.clone().map_or(s3::Credentials::Ambient, s3::Credentials::Folder),
        ca: bucket.ca.clone(),
    };
    Ok(S3::new(settings).await?)
}

/// How long things last where `grace` is configured. A replica goes by it when it says when something is to be
/// looked at; whoever looks decides by its own.
fn timings(grace: Duration) -> Timings {
    Timings { lease: grace, ..Timings::default() }
}

fn server_options(server: &config::Postgres, timings: Timings) -> postgres::Options {
    postgres::Options {
        timings,
        ca: server.ca.clone(),
        max_connections: server.max_connections,
        ..postgres::Options::new(server.url.expose().as_str())
    }
}

async fn filesystem(data_dir: &Path) -> Result<Filesystem, OpenError> {
    let folder = data_dir.display().to_string();
    Filesystem::open(data_dir).await.map_err(|source| OpenError::Folder { folder, source })
}

async fn sqlite(data_dir: &Path, timings: Timings) -> Result<SqliteStore, OpenError> {
    let options = sqlite::Options { timings, ..sqlite::Options::default() };
    Ok(SqliteStore::open(data_dir, options).await?)
}

/// The objects, as a command of its own process reads and writes them.
async fn objects(storage: &Storage, data_dir: &Path) -> Result<Arc<dyn Store>, Failure> {
    Ok(match storage {
        Storage::Filesystem => Arc::new(filesystem(data_dir).await?),
        Storage::S3(bucket) => Arc::new(s3(bucket).await?),
    })
}

/// The rows, beside whatever serves from them; a folder is to be handed over at the end.
async fn rows(
    database: &Database,
    data_dir: &Path,
    grace: Duration,
) -> Result<(Arc<dyn MetaStore>, Option<Arc<SqliteStore>>), Failure> {
    let timings = timings(grace);
    match database {
        Database::Sqlite => {
            let options = sqlite::Options { timings, ..sqlite::Options::default() };
            let store = Arc::new(SqliteStore::open_beside(data_dir, options).await.map_err(OpenError::from)?);
            Ok((Arc::clone(&store) as Arc<dyn MetaStore>, Some(store)))
        }
        Database::Postgres(server) => {
            let store = PostgresStore::connect(&server_options(server, timings).patiently()).await?;
            Ok((Arc::new(store), None))
        }
    }
}

/// Brings the schema up to this version.
pub(super) async fn migrate(database: &Database, data_dir: &Path) -> Result<(), Failure> {
    match database {
        // Opening it does.
        Database::Sqlite => {
            std::fs::create_dir_all(data_dir)
                .map_err(|source| Failure::System { what: "make the data folder", source })?;
            hand_over(Some(&sqlite(data_dir, Timings::default()).await?)).await;
        }
        Database::Postgres(server) => postgres::migrate(&server_options(server, Timings::default())).await?,
    }
    tracing::info!("the schema is up to date");
    Ok(())
}

/// A count of what is due to be collected. Changes nothing.
pub(super) async fn look(backing: &Backing, data_dir: &Path) -> Result<Counts, Failure> {
    let store = objects(&backing.storage, data_dir).await?;
    let meta: Arc<dyn MetaStore> = match &backing.database {
        Database::Sqlite => {
            let options = sqlite::Options { timings: timings(backing.grace), ..sqlite::Options::default() };
            Arc::new(SqliteStore::open_to_read(data_dir, options).await.map_err(OpenError::from)?)
        }
        database @ Database::Postgres(_) => rows(database, data_dir, backing.grace).await?.0,
    };
    let collector = Collector::new(meta, store, CollectionMetrics::default());
    Ok(jobs::due(&collector.look().await?))
}

/// One pass of the collectors, beside whatever serves from the data folder.
pub(super) async fn gc(
    collecting: config::Collecting,
    data_dir: &Path,
    asker: &usage::Asker,
) -> Result<Counts, Failure> {
    let config::Collecting { backing, evictions, usage } = collecting;
    let store = objects(&backing.storage, data_dir).await?;
    let (meta, folder) = rows(&backing.database, data_dir, backing.grace).await?;
    let mut collector = Collector::new(Arc::clone(&meta), Arc::clone(&store), CollectionMetrics::default());
    let collected = async {
        if folder.is_some() {
            compare(&Domain::new(Arc::clone(&meta), store, Limits::default(), Tasks::new())).await?;
        }
        if !evictions.is_empty() {
            let usage = usage::for_run(usage.as_ref(), &*meta, asker).await;
            collector = collector.evicting(Evicting { caches: evictions, usage });
        }
        Ok(collector.collect().await?.counts())
    }
    .await;
    hand_over(folder.as_deref()).await;
    collected
}

/// A registry that is open beside whatever serves from the same stores, and serves nobody.
pub(super) struct Beside {
    pub(super) registry: Registry,
    folder: Option<Arc<SqliteStore>>,
}

impl Beside {
    /// Makes sure that the database holds all that the bucket does.
    pub(super) async fn compared(&self) -> Result<(), Failure> {
        compare(self.registry.domain()).await
    }

    /// Ends what runs in the background.
    pub(super) async fn close(self) {
        self.registry.close().await;
        hand_over(self.folder.as_deref()).await;
    }
}

/// The registry, with its mirrors, virtual repositories and limits, for a command that reads or writes content.
pub(super) async fn beside(config: &Config, data_dir: &Path) -> Result<Beside, Failure> {
    let store = objects(&config.storage, data_dir).await?;
    let (meta, folder) = rows(&config.database, data_dir, config.collection.grace).await?;
    let registry = Registry::builder().limits(limits(config)).over(meta, store).await?;
    super::serve::apply_to(&registry, config);
    Ok(Beside { registry, folder })
}

/// Where nobody serves from the data folder, we are its new holder: a new incarnation, to be compared first.
async fn compare(domain: &Domain) -> Result<(), Failure> {
    let token = domain.trust().enter().await?;
    if !token.trusted {
        Walk::new(domain, Walk::alone(None), CancellationToken::new())
            .run(token.epoch)
            .await
            .map_err(RebuildError::from)?;
    }
    Ok(())
}

/// Leaves the folder to whoever takes its lock next. Without it graces begin anew, which harms nobody.
pub(super) async fn hand_over(folder: Option<&SqliteStore>) {
    let Some(folder) = folder else { return };
    if let Err(error) = folder.hand_over().await {
        tracing::warn!(
            error = explained(&error),
            "the data folder was not handed over; the graces of the garbage collection begin anew with the next start"
        );
    }
}

/// Deletes all data of the registry `confirmed`.
pub(super) async fn purge(backing: &Backing, data_dir: &Path, confirmed: Uuid) -> Result<Purged, Failure> {
    let store = objects(&backing.storage, data_dir).await?;
    let meta: Option<Box<dyn Leases>> = match &backing.database {
        Database::Sqlite => Some(Box::new(sqlite(data_dir, Timings::default()).await?)),
        Database::Postgres(server) => {
            match PostgresStore::connect(&server_options(server, Timings::default())).await {
                Ok(meta) => Some(Box::new(meta)),
                // The tables are gone, or were never made.
                Err(ConnectError::Meta(meta::Error::Schema { found: 0, .. })) => None,
                Err(error) => return Err(error.into()),
            }
        }
    };
    Ok(jobs::purge(&*store, meta.as_deref(), confirmed).await?)
}

/// Rebuilds the database from the bucket.
pub(super) async fn rebuild(
    backing: &Backing,
    data_dir: &Path,
    options: RebuildOptions,
) -> Result<Walked, Failure> {
    let store = objects(&backing.storage, data_dir).await?;
    let timings = timings(backing.grace);
    let meta: Arc<dyn MetaStore> = match &backing.database {
        Database::Sqlite => Arc::new(sqlite(data_dir, timings).await?),
        Database::Postgres(server) => {
            let server = server_options(server, timings).patiently();
            Arc::new(match PostgresStore::connect(&server).await {
                // Empty to the last table.
                Err(ConnectError::Meta(meta::Error::Schema { found: 0, .. }))
                    if options.adopt && !options.dry_run =>
                {
                    postgres::migrate(&server).await?;
                    PostgresStore::connect(&server).await?
                }
                connected => connected?,
            })
        }
    };
    let progress = Progress::begin();
    let walked = jobs::rebuild(meta, store, Limits::default(), options, |stage| progress.tell(&stage)).await;
    progress.end();
    Ok(walked?)
}

/// Compares database and bucket.
pub(super) async fn verify(
    backing: &Backing,
    data_dir: &Path,
    options: VerifyOptions,
    tell: impl Fn(&Finding) + Send + Sync + 'static,
) -> Result<Verified, Failure> {
    let store = objects(&backing.storage, data_dir).await?;
    let meta: Arc<dyn MetaStore> = match &backing.database {
        Database::Sqlite => {
            let beside = SqliteStore::open_as_found(data_dir, sqlite::Options::default()).await;
            Arc::new(beside.map_err(OpenError::from)?)
        }
        Database::Postgres(server) => {
            let options = server_options(server, Timings::default()).patiently();
            Arc::new(PostgresStore::connect(&options).await?)
        }
    };
    let progress = Progress::begin();
    let show = |pass: meta::Pass, objects| {
        progress.tell(&Stage { parts: WalkProgress { done: pass.done, total: pass.total }, objects });
    };
    let verified = jobs::verify(meta, store, options, tell, show).await;
    progress.end();
    Ok(verified?)
}

/// One run of a mirror that replicates, beside whatever serves.
pub(super) async fn sync(
    sync: &config::Sync,
    data_dir: &Path,
    replication: &Replication,
    mode: SyncMode,
    tell: &dyn Tell,
) -> Result<Synced, Failure> {
    let beside = pushing(&sync.pushing, data_dir).await?;
    let synced = beside.registry.replicate(replication, mode, tell).await;
    beside.close().await;
    Ok(synced)
}

/// Promotes an artifact, or asks the gates alone.
pub(super) async fn promote(
    promoting: &config::Promoting,
    data_dir: &Path,
    rule: &PromotionRule,
    request: &PromotionRequest,
    mode: PromotionMode,
) -> Result<Promotion, Failure> {
    let beside = pushing(&promoting.pushing, data_dir).await?;
    beside.registry.set_mirrors(super::mirrors::settings(&promoting.mirrors));
    let promoted = beside.registry.domain().promote(rule, request, mode).await;
    beside.close().await;
    promoted.map_err(Failure::Promote)
}

/// A registry that pushes beside whatever serves.
async fn pushing(pushing: &config::Pushing, data_dir: &Path) -> Result<Beside, Failure> {
    let backing = &pushing.backing;
    let store = objects(&backing.storage, data_dir).await?;
    let (meta, folder) = rows(&backing.database, data_dir, backing.grace).await?;
    let limits = Limits {
        max_blob_size: pushing.max_blob_size,
        trash_retention: pushing.retain_for,
        ..Limits::default()
    };
    let registry = Registry::builder().limits(limits).over(meta, store).await?;
    let beside = Beside { registry, folder };
    if beside.folder.is_some()
        && let Err(failure) = beside.compared().await
    {
        beside.close().await;
        return Err(failure);
    }
    let registry = &beside.registry;
    registry.apply(Settings::default(), pushing.strict_indexes.clone());
    registry.domain().set_immutability(super::serve::immutability(&pushing.immutability));
    registry.domain().set_promotions(super::promotions::rules(&pushing.promotions, pushing.mode));
    Ok(beside)
}

/// One run of a retention policy, beside whatever serves.
pub(super) async fn retention(
    asked: &config::RetentionRun,
    data_dir: &Path,
    policy: &str,
    asker: &usage::Asker,
    run: RetentionRun,
    tell: &mut (dyn FnMut(&PlanLine<'_>) + Send),
) -> Result<Retained, Failure> {
    let backing = &asked.backing;
    let store = objects(&backing.storage, data_dir).await?;
    let (meta, folder): (Arc<dyn MetaStore>, _) = match (&backing.database, run) {
        (Database::Sqlite, RetentionRun::Tell) => {
            let options = sqlite::Options { timings: timings(backing.grace), ..sqlite::Options::default() };
            let store = SqliteStore::open_as_found(data_dir, options).await.map_err(OpenError::from)?;
            (Arc::new(store), None)
        }
        (database, _) => rows(database, data_dir, backing.grace).await?,
    };
    let retained = async {
        if folder.is_some() {
            let domain = Domain::new(Arc::clone(&meta), Arc::clone(&store), Limits::default(), Tasks::new());
            compare(&domain).await?;
        }
        let usage =
            usage::for_run(asked.usage.as_ref(), &*meta, asker).await.map_err(RetentionError::from)?;
        let retainer = Retainer::new(meta, store, RetentionMetrics::default());
        Ok(retainer.run(&asked.retention, policy, usage, run, tell).await?)
    }
    .await;
    hand_over(folder.as_deref()).await;
    retained
}

/// The limits of the configuration, as the domain takes them.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        max_blob_size: config.limits.max_blob_size,
        max_concurrent_uploads: config.limits.max_concurrent_uploads,
        upload_memory: config.limits.upload_memory,
        cache_memory: config.limits.cache_memory,
        write_hold: config.write_hold,
        trash_retention: config.collection.retain_for,
        ..Limits::default()
    }
}

/// Whether the bucket answers.
pub(super) async fn ask(blobs: &dyn Store) -> Result<Answer, blobs::Error> {
    blobs.head(&Key::Format.to_string()).await.map(|_| Answer::Good)
}

/// Whether the database answers, and as whose. None is founded any more when this is asked.
pub(super) async fn ask_database(
    meta: &dyn MetaStore,
    whose: &(impl Fn(Uuid) + Sync),
) -> Result<Answer, meta::Error> {
    let Some(envelope) = meta.envelope().await? else { return Ok(Answer::Empty) };
    whose(envelope.registry);
    Ok(Answer::Good)
}
