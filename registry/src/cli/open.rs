// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The configured database and bucket, opened.

use std::path::Path;
use std::sync::Arc;

use stowage_registry::OpenError;
use stowage_registry::blobs::{self, Filesystem, Store};
use stowage_registry::config::{Config, Database, Storage};
use stowage_registry::domain::Limits;
use stowage_registry::key::Key;
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::sqlite::{self, SqliteStore};

use super::Failure;

/// What a registry stands on.
pub(super) struct Stores {
    pub(super) meta: Arc<dyn MetaStore>,
    pub(super) blobs: Arc<dyn Store>,
}

/// Opens both.
pub(super) async fn stores(config: &Config, data_dir: &Path) -> Result<Stores, Failure> {
    let blobs: Arc<dyn Store> = match &config.storage {
        Storage::Filesystem => Arc::new(filesystem(data_dir).await?),
        Storage::S3(_) => todo!(),
    };
    let meta: Arc<dyn MetaStore> = match &config.database {
        Database::Sqlite => Arc::new(sqlite(data_dir).await?),
        Database::Postgres(_) => todo!(),
    };
    Ok(Stores { meta, blobs })
}

async fn filesystem(data_dir: &Path) -> Result<Filesystem, OpenError> {
    let folder = data_dir.display().to_string();
    Filesystem::open(data_dir).await.map_err(|source| OpenError::Folder { folder, source })
}

async fn sqlite(data_dir: &Path) -> Result<SqliteStore, OpenError> {
    Ok(SqliteStore::open(data_dir, sqlite::Options::default()).await?)
}

/// Brings the schema up to this version.
pub(super) async fn migrate(database: &Database, data_dir: &Path) -> Result<(), Failure> {
    match database {
        // Opening it does.
        Database::Sqlite => {
            std::fs::create_dir_all(data_dir)
                .map_err(|source| Failure::System { what: "make the data folder", source })?;
            sqlite(data_dir).await?;
        }
        Database::Postgres(_) => todo!(),
    }
    tracing::info!("the schema is up to date");
    Ok(())
}

/// The limits of the configuration, as the domain takes them.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        max_blob_size: config.limits.max_blob_size,
        max_concurrent_uploads: config.limits.max_concurrent_uploads,
        upload_memory: config.limits.upload_memory,
        cache_memory: config.limits.cache_memory,
        write_hold: config.write_hold,
        ..Limits::default()
    }
}

/// Whether the bucket answers.
pub(super) async fn ask(blobs: &dyn Store) -> Result<(), blobs::Error> {
    blobs.head(&Key::Format.to_string()).await.map(drop)
}
