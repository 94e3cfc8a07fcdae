// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Replicas over one real database and one real bucket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use stowage_registry::Registry;
use stowage_registry::blobs::s3::{S3, Settings};
use stowage_registry::blobs::{Faults, Faulty, Filesystem, Store};
use stowage_registry::domain::Limits;
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::postgres::{Options, PostgresStore};
use stowage_registry::meta::sqlite::{self, SqliteStore};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::client::Client;
use crate::support::postgres::database;
use crate::support::s3;

/// What the replicas share.
pub(super) struct Cluster {
    pub(super) database: String,
    bucket: Settings,
}

impl Cluster {
    pub(super) async fn on(kind: s3::Kind) -> Self {
        Self { database: database().await, bucket: s3::bucket(kind).await }
    }

    pub(super) async fn over(database: String) -> Self {
        Self { database, bucket: s3::bucket(s3::Kind::Versitygw).await }
    }

    pub(super) async fn replica(&self) -> Replica {
        self.replica_with(Limits::default()).await
    }

    pub(super) async fn replica_with(&self, limits: Limits) -> Replica {
        self.replica_at(&self.database, limits).await
    }

    /// A replica that reaches the database by another address.
    pub(super) async fn replica_at(&self, database: &str, limits: Limits) -> Replica {
        let (options, bucket) = (Options::new(database), self.bucket.clone());
        let stores = async move || {
            let meta = Arc::new(PostgresStore::connect(&options).await.unwrap()) as Arc<dyn MetaStore>;
            (meta, Arc::new(S3::new(bucket).await.unwrap()) as Arc<dyn Store>)
        };
        Replica::start(limits, stores).await
    }

    /// The bucket, to look behind the answers.
    pub(super) async fn bucket(&self) -> Arc<dyn Store> {
        Arc::new(S3::new(self.bucket.clone()).await.unwrap())
    }

    /// As if the time that a dead request still holds its upload were over.
    pub(super) async fn end_leases(&self) {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        sqlx::query("UPDATE uploads SET lock_until = clock_timestamp() - interval '1 s'")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// How many rows of `table` there are.
    pub(super) async fn count(&self, table: &str) -> i64 {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
    }
}

/// A registry that serves on a port of its own until it is killed or dropped.
pub(super) struct Replica {
    pub(super) client: Client,
    /// What goes wrong with its bucket.
    pub(super) faults: Faults,
    runtime: Option<Runtime>,
}

impl Replica {
    /// One alone, in a folder.
    pub(super) async fn embedded(folder: &TempDir, limits: Limits) -> Self {
        let folder = folder.path().to_owned();
        let stores = async move || {
            let meta = SqliteStore::open(&folder, sqlite::Options::default()).await.unwrap();
            let store = Filesystem::open(&folder).await.unwrap();
            (Arc::new(meta) as Arc<dyn MetaStore>, Arc::new(store) as Arc<dyn Store>)
        };
        Self::start(limits, stores).await
    }

    async fn start(
        limits: Limits,
        stores: impl AsyncFnOnce() -> (Arc<dyn MetaStore>, Arc<dyn Store>) + Send + 'static,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let open = async move || {
            let (meta, store) = stores().await;
            let (store, faults) = Faulty::over(store);
            let registry = Registry::builder().limits(limits).over(meta, Arc::new(store)).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let service = registry.router().into_make_service_with_connect_info::<SocketAddr>();
            let server = async move { axum::serve(listener, service).await };
            (host, faults, server)
        };
        let opened = tokio::task::spawn_blocking(move || handle.block_on(open()));
        let (host, faults, server) = opened.await.unwrap();
        runtime.spawn(server);
        Self { client: Client { host }, faults, runtime: Some(runtime) }
    }

    /// Ends it where it stands: nothing it was doing goes on, its connections close.
    pub(super) fn kill(self) {
        drop(self);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The defaults, with another time that writes wait for the database.
pub(super) fn holding(write_hold: Duration) -> Limits {
    Limits { write_hold, ..Limits::default() }
}
