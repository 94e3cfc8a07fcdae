// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry whose database can be copied, restored and thrown away, and whose rows can be compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use stowage_registry::Registry;
use stowage_registry::blobs::s3::{S3, Settings};
use stowage_registry::blobs::{self, Filesystem, Store};
use stowage_registry::domain::{Limits, Walked};
use stowage_registry::jobs::{RebuildError, RebuildOptions, rebuild};
use stowage_registry::meta::faulty::Faulty;
use stowage_registry::meta::postgres::{Options, PostgresStore};
use stowage_registry::meta::sqlite::{self, SqliteStore};
use stowage_registry::meta::{self, MetaStore};
use tempfile::TempDir;

use super::api::Api;
use crate::support::postgres::database;
use crate::support::s3;

/// Where a registry's data is.
pub(crate) enum Stand {
    Postgres { url: String, bucket: Settings },
    Sqlite { folder: TempDir },
}

/// A database as it was once.
pub(crate) enum Copy {
    Postgres(String),
    Sqlite(PathBuf),
}

/// A replica, and what goes wrong with its database and bucket.
pub(crate) struct Replica {
    pub(crate) api: Api,
    pub(crate) registry: Registry,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) database: meta::faulty::Faults,
    pub(crate) bucket: blobs::Faults,
}

impl Replica {
    /// Until all is compared with the bucket.
    pub(crate) async fn walked(&self) {
        let begun = Instant::now();
        loop {
            let envelope = self.meta.envelope().await;
            if envelope.is_ok_and(|found| found.is_some_and(|found| found.ours && found.walked)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "the walk does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn stop(self) {
        let Self { api, registry, meta, .. } = self;
        drop(api);
        registry.close().await;
        // The folder's lock goes with the last who holds it.
        let begun = Instant::now();
        while Arc::strong_count(&meta) > 1 && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Stand {
    pub(crate) async fn postgres() -> Self {
        Self::Postgres { url: database().await, bucket: s3::bucket(s3::Kind::Versitygw).await }
    }

    pub(crate) fn sqlite() -> Self {
        Self::Sqlite { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Postgres { bucket, .. } => Arc::new(S3::new(bucket.clone()).await.unwrap()),
            Self::Sqlite { folder } => Arc::new(Filesystem::open(folder.path()).await.unwrap()),
        }
    }

    pub(crate) async fn meta(&self) -> Arc<dyn MetaStore> {
        match self {
            Self::Postgres { url, .. } => Arc::new(PostgresStore::connect(&Options::new(url)).await.unwrap()),
            Self::Sqlite { folder } => {
                // Whoever had it before may still be about to let go.
                let begun = Instant::now();
                loop {
                    match SqliteStore::open(folder.path(), sqlite::Options::default()).await {
                        Ok(store) => return Arc::new(store),
                        Err(sqlite::OpenError::InUse { .. }) if begun.elapsed() < Duration::from_mins(1) => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }

    /// A replica that serves.
    pub(crate) async fn start(&self) -> Replica {
        self.start_with(|_| {}).await
    }

    /// A replica whose database fails from the start.
    pub(crate) async fn start_with(&self, prepare: impl FnOnce(&meta::faulty::Faults)) -> Replica {
        let (faulty, database) = Faulty::over(self.meta().await);
        prepare(&database);
        let meta: Arc<dyn MetaStore> = Arc::new(faulty);
        let (store, bucket) = blobs::Faulty::over(self.store().await);
        let store: Arc<dyn Store> = Arc::new(store);
        let limits = Limits { write_hold: Duration::from_secs(10), ..Limits::default() };
        let registry =
            Registry::builder().limits(limits).over(Arc::clone(&meta), Arc::clone(&store)).await.unwrap();
        Replica { api: Api(registry.router()), registry, meta, store, database, bucket }
    }

    /// The database as it is now.
    pub(crate) async fn copy(&self) -> Copy {
        match self {
            Self::Postgres { url, .. } => {
                let copy = fresh_name();
                duplicate(url, &copy).await;
                Copy::Postgres(copy)
            }
            Self::Sqlite { folder } => {
                let path = folder.path().with_extension(fresh_name());
                let mut connection = self.connection().await;
                let into: &'static str = format!("VACUUM INTO '{}'", path.display()).leak();
                connection.execute(into).await.unwrap();
                Copy::Sqlite(path)
            }
        }
    }

    /// Goes back to a copy, as after a failover to a standby that lagged. Nobody serves meanwhile.
    pub(crate) async fn restore(&mut self, copy: &Copy) {
        match (&mut *self, copy) {
            (Self::Postgres { url, .. }, Copy::Postgres(copy)) => {
                let own = database_of(url);
                let (kept, name) = (url.replace(&format!("/{own}?"), &format!("/{copy}?")), fresh_name());
                duplicate(&kept, &name).await;
                *url = kept.replace(&format!("/{copy}?"), &format!("/{name}?"));
            }
            (Self::Sqlite { .. }, Copy::Sqlite(copy)) => {
                self.remove_sqlite();
                let Self::Sqlite { folder } = self else { unreachable!() };
                std::fs::copy(copy, folder.path().join("meta.sqlite")).unwrap();
            }
            _ => panic!("a copy of another kind"),
        }
        self.restart().await;
    }

    /// Makes the database another incarnation, as a restart does.
    pub(crate) async fn restart(&self) {
        self.execute("UPDATE meta SET fence = '-infinity'", "UPDATE meta SET fence = randomblob(16)").await;
    }

    /// Throws the database away; a new one is empty.
    pub(crate) async fn lose(&mut self) {
        match self {
            Self::Postgres { url, .. } => *url = database().await,
            Self::Sqlite { .. } => self.remove_sqlite(),
        }
    }

    fn remove_sqlite(&self) {
        let Self::Sqlite { folder } = self else { return };
        for file in ["meta.sqlite", "meta.sqlite-wal", "meta.sqlite-shm"] {
            // Not all are there.
            drop(std::fs::remove_file(folder.path().join(file)));
        }
    }

    pub(crate) async fn rebuild(&self, options: RebuildOptions) -> Result<Walked, RebuildError> {
        let meta: Arc<dyn MetaStore> = match self {
            // As the command does.
            Self::Postgres { url, .. } => {
                Arc::new(PostgresStore::connect(&Options::new(url).patiently()).await.unwrap())
            }
            Self::Sqlite { .. } => self.meta().await,
        };
        rebuild(meta, self.store().await, Limits::default(), options, |_| {}).await
    }

    /// Rebuilds an empty database.
    pub(crate) async fn adopt(&self) -> Walked {
        self.rebuild(RebuildOptions { adopt: true, ..RebuildOptions::default() }).await.unwrap()
    }

    async fn connection(&self) -> SqliteConnection {
        let Self::Sqlite { folder } = self else { panic!("it is not SQLite") };
        let options = SqliteConnectOptions::new().filename(folder.path().join("meta.sqlite"));
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// The rows of a statement of one column of text, which is the same for both databases but for `hex`.
    pub(crate) async fn texts(&self, postgres: &'static str, sqlite: &'static str) -> Vec<String> {
        let mut rows: Vec<String> = match self {
            Self::Postgres { url, .. } => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(postgres).fetch_all(&mut connection).await.unwrap()
            }
            Self::Sqlite { .. } => {
                sqlx::query_scalar(sqlite).fetch_all(&mut self.connection().await).await.unwrap()
            }
        };
        rows.sort();
        rows
    }

    /// Runs a statement behind the registry's back.
    pub(crate) async fn execute(&self, postgres: &'static str, sqlite: &'static str) {
        match self {
            Self::Postgres { url, .. } => {
                PgConnection::connect(url).await.unwrap().execute(postgres).await.unwrap();
            }
            Self::Sqlite { .. } => {
                self.connection().await.execute(sqlite).await.unwrap();
            }
        }
    }

    /// All rows that a rebuild must bring back, table by table.
    ///
    /// Not compared, as they are facts of a run: row ids; leases and times of touching; when a manifest was
    /// published (its record's time is some milliseconds before) and until when trash can be restored; open
    /// uploads, intents and queues; repositories without any content; on which of several pushes of one manifest a
    /// deleted tag hangs.
    pub(crate) async fn rows(&self) -> Vec<(&'static str, Vec<String>)> {
        let blobs = self
            .texts(
                "SELECT concat_ws(' ', encode(digest, 'hex'), size, gen, form, tail) FROM blobs",
                "SELECT concat_ws(' ', hex(digest), size, hex(gen), form, tail) FROM blobs",
            )
            .await;
        let links = self
            .texts(
                "SELECT concat_ws(' ', r.name, encode(l.digest, 'hex'), encode(b.digest, 'hex'), l.gen)
             FROM repo_blobs l JOIN repositories r ON r.id = l.repo_id JOIN blobs b ON b.id = l.blob_id",
                "SELECT concat_ws(' ', r.name, hex(l.digest), hex(b.digest), hex(l.gen))
             FROM repo_blobs l JOIN repositories r ON r.id = l.repo_id JOIN blobs b ON b.id = l.blob_id",
            )
            .await;
        let manifests = self
            .texts(
            "SELECT concat_ws(' ', r.name, encode(m.digest, 'hex'), state, gen, media_type, artifact_type,
                              encode(subject, 'hex'), annotations::text, size, md5(body))
             FROM manifests m JOIN repositories r ON r.id = m.repo_id WHERE state IN (1, 2)",
            "SELECT concat_ws(' ', r.name, hex(m.digest), state, hex(gen), media_type, artifact_type,
                              hex(subject), annotations, size, hex(body))
             FROM manifests m JOIN repositories r ON r.id = m.repo_id WHERE state IN (1, 2)",
        )
            .await;
        let blobs_of = self
            .texts(
                "SELECT concat_ws(' ', m.gen, encode(l.digest, 'hex')) FROM manifest_blobs f
             JOIN manifests m ON m.id = f.manifest_id JOIN repo_blobs l ON l.id = f.link_id
             WHERE m.state IN (1, 2)",
                "SELECT concat_ws(' ', hex(m.gen), hex(l.digest)) FROM manifest_blobs f
             JOIN manifests m ON m.id = f.manifest_id JOIN repo_blobs l ON l.id = f.link_id
             WHERE m.state IN (1, 2)",
            )
            .await;
        let children = self
            .texts(
                "SELECT concat_ws(' ', m.gen, r.name, encode(c.child, 'hex')) FROM manifest_children c
             JOIN manifests m ON m.id = c.parent_id JOIN repositories r ON r.id = c.repo_id
             WHERE m.state IN (1, 2)",
                "SELECT concat_ws(' ', hex(m.gen), r.name, hex(c.child)) FROM manifest_children c
             JOIN manifests m ON m.id = c.parent_id JOIN repositories r ON r.id = c.repo_id
             WHERE m.state IN (1, 2)",
            )
            .await;
        let tags = self
            .texts(
            "SELECT concat_ws(' ', r.name, t.name, CASE WHEN t.trashed_until IS NULL THEN m.gen END, encode(m.digest, 'hex'), t.epoch, t.seq, t.gen,
                              extract(epoch FROM t.pushed_at)::bigint, t.trashed_until IS NOT NULL,
                              prev_epoch, prev_seq, prev_gen)
             FROM tags t JOIN manifests m ON m.id = t.manifest_id JOIN repositories r ON r.id = t.repo_id",
            "SELECT concat_ws(' ', r.name, t.name, iif(t.trashed_until IS NULL, hex(m.gen), ''), hex(m.digest), t.epoch, t.seq, hex(t.gen),
                              t.pushed_at, t.trashed_until IS NOT NULL, prev_epoch, prev_seq, hex(prev_gen))
             FROM tags t JOIN manifests m ON m.id = t.manifest_id JOIN repositories r ON r.id = t.repo_id",
        )
            .await;
        vec![
            ("blobs", blobs),
            ("links", links),
            ("manifests", manifests),
            ("blobs of manifests", blobs_of),
            ("children", children),
            ("tags", tags),
        ]
    }

    /// Compares all rows with those of before, or says which differ.
    pub(crate) async fn assert_rows(&self, before: &[(&'static str, Vec<String>)]) {
        for ((table, before), (_, after)) in before.iter().zip(self.rows().await) {
            let missing: Vec<&String> = before.iter().filter(|row| !after.contains(row)).collect();
            let added: Vec<&String> = after.iter().filter(|row| !before.contains(row)).collect();
            assert!(
                missing.is_empty() && added.is_empty(),
                "{table}\nmissing: {missing:#?}\nadded: {added:#?}"
            );
        }
    }
}

fn fresh_name() -> String {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    format!("copy_{}", COPIES.fetch_add(1, Ordering::Relaxed))
}

fn database_of(url: &str) -> &str {
    url.rsplit_once('/').and_then(|_| url.split('/').nth(3)).and_then(|rest| rest.split('?').next()).unwrap()
}

/// Copies a database that others may be connected to.
async fn duplicate(url: &str, copy: &str) {
    let own = database_of(url);
    let mut admin = PgConnection::connect(&url.replace(&format!("/{own}?"), "/postgres?")).await.unwrap();
    let begun = Instant::now();
    loop {
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{own}' AND pid <> pg_backend_pid()"
        );
        admin.execute(sqlx::AssertSqlSafe(end)).await.unwrap();
        let make = format!("CREATE DATABASE {copy} TEMPLATE {own}");
        match admin.execute(sqlx::AssertSqlSafe(make)).await {
            Ok(_) => return,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
