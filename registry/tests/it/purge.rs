// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `purge`: everything of a registry goes, nothing of another's, and it can be interrupted anywhere. The program
//! is called as the operator's Job calls it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use axum::body::Body;
use http::{Request as HttpRequest, StatusCode};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::Registry;
use stowage_registry::blobs::s3::{Credentials, Settings};
use stowage_registry::blobs::{Effect, Failure, Fault, Faulty, Filesystem, Occasion, Request, S3, Store};
use stowage_registry::jobs::{PurgeError, purge};
use stowage_registry::meta::postgres::{self, PostgresStore};
use stowage_registry::meta::sqlite::{self, SqliteStore};
use stowage_registry::meta::{self, MetaStore};
use tempfile::TempDir;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::support::postgres::database;
use crate::support::s3::{Kind, bucket};

/// Where a registry lies, and its configuration.
pub(crate) struct Place {
    folder: TempDir,
    /// Bucket and database; without them, files and SQLite in the folder.
    pub(crate) shared: Option<(Settings, String)>,
}

pub(crate) struct Stores {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) meta: Arc<dyn MetaStore>,
}

impl Place {
    pub(crate) fn embedded() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), shared: None };
        place.configure("filesystem: {}", "sqlite: {}");
        place
    }

    pub(crate) async fn clustered() -> Self {
        Self::on(Kind::Versitygw).await
    }

    /// Over PostgreSQL and a bucket of this server.
    pub(crate) async fn on(server: Kind) -> Self {
        let bucket = Settings { prefix: "some/prefix".to_owned(), ..bucket(server).await };
        let place = Self { folder: tempfile::tempdir().unwrap(), shared: Some((bucket, database().await)) };
        let (bucket, url) = place.shared.as_ref().unwrap();
        let Credentials::Static { access_key_id, secret_access_key, .. } = &bucket.credentials else {
            panic!("static credentials are what the tests have");
        };
        place.write("secrets/bucket/accessKeyId", access_key_id);
        place.write("secrets/bucket/secretAccessKey", secret_access_key);
        place.write("secrets/database/url", url);
        let storage = format!(
            "s3: {{bucket: {}, prefix: {}, endpoint: \"{}\", forcePathStyle: true, \
             credentialsSecretRef: {{name: bucket}}}}",
            bucket.bucket,
            bucket.prefix,
            bucket.endpoint.as_deref().unwrap(),
        );
        place.configure(&storage, "postgres: {urlSecretRef: {name: database, key: url}}");
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Adds lines to the spec.
    pub(crate) fn specify(&self, lines: &str) {
        let file = self.path().join("config/registry.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        self.write("config/registry.yaml", &format!("{text}{lines}"));
    }

    pub(crate) fn configure(&self, storage: &str, database: &str) {
        self.write(
            "config/registry.yaml",
            &format!(
                "apiVersion: stowage.dev/v1alpha1\nkind: Registry\nmetadata: {{name: main}}\n\
                 spec:\n  externalURL: https://registry.example.com\n  storage: {{{storage}}}\n  \
                 database: {{{database}}}\n"
            ),
        );
    }

    /// Throws the database away; a new one is empty.
    pub(crate) async fn lose_database(&self) {
        if self.shared.is_some() {
            self.write("secrets/database/url", &database().await);
        } else {
            for file in ["meta.sqlite", "meta.sqlite-wal", "meta.sqlite-shm"] {
                // Not all are there.
                drop(std::fs::remove_file(self.path().join("data").join(file)));
            }
        }
    }

    /// Somebody makes the database anew behind the registry's back, under the same address.
    pub(crate) async fn drop_tables(&self) {
        let url = std::fs::read_to_string(self.path().join("secrets/database/url")).unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// Whose the database is that the configuration names.
    pub(crate) async fn owner(&self) -> Option<Uuid> {
        let meta: Arc<dyn MetaStore> = if self.shared.is_some() {
            let url = std::fs::read_to_string(self.path().join("secrets/database/url")).unwrap();
            Arc::new(PostgresStore::connect(&postgres::Options::new(url)).await.unwrap())
        } else {
            self.open().await.meta
        };
        meta.envelope().await.unwrap().map(|envelope| envelope.registry)
    }

    pub(crate) async fn put(&self, key: &str, content: &'static [u8]) {
        self.open().await.store.put(key, vec![content.into()]).await.unwrap();
    }

    pub(crate) async fn remove(&self, key: &str) {
        self.open().await.store.delete(&[key.to_owned()]).await.unwrap();
    }

    pub(crate) async fn put_in_place(&self, key: &str, content: &'static [u8]) {
        self.store().await.put(key, vec![content.into()]).await.unwrap();
    }

    pub(crate) async fn remove_in_place(&self, key: &str) {
        self.store().await.delete(&[key.to_owned()]).await.unwrap();
    }

    pub(crate) async fn open(&self) -> Stores {
        let data = self.path().join("data");
        match &self.shared {
            None => Stores {
                store: Arc::new(Filesystem::open(&data).await.unwrap()),
                meta: Arc::new(SqliteStore::open(&data, sqlite::Options::default()).await.unwrap()),
            },
            Some((bucket, url)) => Stores {
                store: Arc::new(S3::new(bucket.clone()).await.unwrap()),
                meta: Arc::new(PostgresStore::connect(&postgres::Options::new(url)).await.unwrap()),
            },
        }
    }

    /// Founds a registry with a blob in it; its id.
    pub(crate) async fn founded(&self) -> Uuid {
        let Stores { store, meta } = self.open().await;
        let registry = Registry::builder().over(Arc::clone(&meta), store).await.unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let target = format!("/v2/a/b/blobs/uploads/?digest={digest}");
        let push = HttpRequest::post(target).body(Body::from("content")).unwrap();
        let answer = registry.router().oneshot(push).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        registry.close().await;
        meta.envelope().await.unwrap().unwrap().registry
    }

    fn purge(&self, confirm: &str) -> Output {
        let flag = |name: &str| self.path().join(name);
        Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
            .args(["purge", "--config"])
            .arg(flag("config"))
            .arg("--secrets-dir")
            .arg(flag("secrets"))
            .args(["--confirm", confirm])
            .env("STOWAGE_DATA_DIR", flag("data"))
            .output()
            .unwrap()
    }

    /// The bucket alone, which others may have open.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match &self.shared {
            None => Arc::new(Filesystem::open(self.path().join("data")).await.unwrap()),
            Some((bucket, _)) => Arc::new(S3::new(bucket.clone()).await.unwrap()),
        }
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        let store = self.store().await;
        store.list("v1/", None, 1000).await.unwrap().into_iter().map(|object| object.key).collect()
    }

    /// Everything with a name in the database.
    async fn tables(&self) -> Vec<String> {
        let found: Vec<(String,)> = match &self.shared {
            None => {
                let file = format!("sqlite://{}", self.path().join("data/meta.sqlite").display());
                let mut connection = SqliteConnection::connect(&file).await.unwrap();
                let names = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'";
                sqlx::query_as(names).fetch_all(&mut connection).await.unwrap()
            }
            Some((_, url)) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                let names = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
                sqlx::query_as(names).fetch_all(&mut connection).await.unwrap()
            }
        };
        found.into_iter().map(|(name,)| name).collect()
    }

    async fn assert_nothing_left(&self) {
        assert_eq!((self.keys().await, self.tables().await), (Vec::<String>::new(), Vec::<String>::new()));
    }
}

pub(crate) fn assert_code(output: &Output, code: i32) {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{log}");
}

async fn everything_of_a_registry_goes_and_a_repeat_finds_nothing(place: Place) {
    let id = place.founded().await;
    assert!(place.keys().await.len() > 3 && place.tables().await.len() > 10);
    assert_code(&place.purge(&id.to_string()), 0);
    place.assert_nothing_left().await;
    assert_code(&place.purge(&id.to_string()), 0);
    place.assert_nothing_left().await;
}

async fn another_registrys_id_is_refused_and_nothing_is_deleted(place: Place) {
    place.founded().await;
    let before = (place.keys().await, place.tables().await);
    let refused = place.purge(&Uuid::new_v4().to_string());
    assert_code(&refused, 3);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing was deleted"), "{refused:?}");
    assert_eq!((place.keys().await, place.tables().await), before);
    assert_code(&place.purge("main"), 2);
}

async fn objects_that_nobody_owns_are_left(place: Place) {
    let id = place.founded().await;
    let Stores { store, meta } = place.open().await;
    store.delete(&["v1/FORMAT".to_owned()]).await.unwrap();
    let refused = purge(&*store, Some(&*meta), id).await;
    assert!(matches!(refused, Err(PurgeError::Unowned)), "{refused:?}");
    assert!(place.keys().await.len() > 2);
}

async fn a_key_of_another_layout_is_left(place: Place) {
    let id = place.founded().await;
    let Stores { store, meta } = place.open().await;
    store.put("v1/later/x", Vec::new()).await.unwrap();
    let purged = purge(&*store, Some(&*meta), id).await.unwrap();
    assert_eq!(purged.foreign, 1);
    assert_eq!(place.keys().await, ["v1/later/x"]);
}

async fn a_purge_that_is_interrupted_is_finished_by_the_next(place: Place) {
    let id = place.founded().await;
    let Stores { store, meta } = place.open().await;
    let (store, faults) = Faulty::over(store);
    let (fail, lose) = (Effect::Fail(Failure::Unavailable), Effect::LoseAnswer);
    // Before and after all objects but FORMAT go, before and after that one does.
    for effect in [fail.clone(), lose.clone(), fail, lose] {
        faults.add(Fault::at(Request::Delete, effect).on(Occasion::Nth(1)));
        let interrupted = purge(&store, Some(&*meta), id).await;
        assert!(matches!(interrupted, Err(PurgeError::Store(_))), "{interrupted:?}");
        faults.clear();
    }
    assert_eq!(place.keys().await, Vec::<String>::new());
    assert!(!place.tables().await.is_empty());
    // Before the tables go, and after it.
    let (meta, faults) = meta::faulty::Faulty::over(meta);
    for effect in [meta::faulty::Effect::Fail, meta::faulty::Effect::LoseAnswer] {
        faults.inject("destroy", meta::faulty::Occasion::First(1), effect);
        let interrupted = purge(&store, Some(&meta), id).await;
        assert!(matches!(interrupted, Err(PurgeError::Database(_))), "{interrupted:?}");
    }
    drop((store, meta));
    assert_code(&place.purge(&id.to_string()), 0);
    place.assert_nothing_left().await;
}

async fn the_tables_of_another_registry_stay(place: Place) {
    let id = place.founded().await;
    let Stores { meta, .. } = place.open().await;
    assert!(!meta.destroy(Uuid::new_v4()).await.unwrap());
    assert_eq!(meta.envelope().await.unwrap().unwrap().registry, id);
}

macro_rules! both_places {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Place::embedded()).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Place::clustered().await).await;
            })*
        }
    };
}

both_places! {
    everything_of_a_registry_goes_and_a_repeat_finds_nothing,
    another_registrys_id_is_refused_and_nothing_is_deleted,
    objects_that_nobody_owns_are_left,
    a_key_of_another_layout_is_left,
    a_purge_that_is_interrupted_is_finished_by_the_next,
    the_tables_of_another_registry_stay,
}
