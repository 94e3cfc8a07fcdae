// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Bucket and database of a registry, in both the ways that there are.

use std::sync::Arc;

use stowage_registry::blobs::{Filesystem, Store};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::postgres::{self, PostgresStore};
use stowage_registry::meta::sqlite::{Options, SqliteStore};
use tempfile::TempDir;

use super::postgres::database;
use super::s3;

/// Both, new and empty, and a folder that must outlive them.
pub(crate) struct Stores {
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: TempDir,
}

/// A folder with SQLite.
pub(crate) async fn embedded() -> Stores {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Filesystem::open(folder.path()).await.unwrap());
    let meta = Arc::new(SqliteStore::open(folder.path(), Options::default()).await.unwrap());
    Stores { meta, store, folder }
}

/// A bucket of versitygw with PostgreSQL.
pub(crate) async fn clustered() -> Stores {
    let (store, ()) = s3::store(s3::Kind::Versitygw).await;
    let meta = PostgresStore::connect(&postgres::Options::new(database().await)).await.unwrap();
    Stores { meta: Arc::new(meta), store, folder: tempfile::tempdir().unwrap() }
}
