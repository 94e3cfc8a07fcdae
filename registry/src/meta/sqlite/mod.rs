// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database in a file: SQLite, for one process.
//!
//! Flow: the lock of the data folder is taken, the schema is brought up to date, one connection writes and a
//! few read. Each start is a new incarnation (see `lock`).
//! Guarantees: what was acknowledged survives the end of the process and of the machine (see `journal`).
//! Times are the database's, which here are this machine's.
//! Assumes: the folder is on a local disk; WAL does not work on network file systems.

mod blobs;
mod error;
mod journal;
mod leases;
mod lock;
mod manifests;
mod publish;
mod queue;
mod receive;
mod removals;
mod resolve;
mod tags;
mod tx;
mod uploads;
mod values;

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

pub use error::OpenError;

/// The schema that this version works with: the newest of the migrations.
pub const SCHEMA: i32 = 1;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// What can be set. The defaults are those of the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For how long a client may rely on what it was told exists.
    pub lease: Duration,
    /// How long data is kept without a link.
    pub blob_grace: Duration,
    /// How long what is no longer named stays in the bucket.
    pub tombstone_delay: Duration,
    /// How long a push may take from pin to publish.
    pub intent: Duration,
    /// How long a request holds an upload without renewing.
    pub upload_lease: Duration,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// How many connections read.
    pub readers: usize,
}

impl Default for Options {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_hours(1);
        Self {
            lease: 24 * HOUR,
            blob_grace: HOUR,
            tombstone_delay: HOUR,
            intent: Duration::from_mins(10),
            upload_lease: Duration::from_mins(1),
            busy_timeout: Duration::from_secs(5),
            readers: 4,
        }
    }
}

/// A [`MetaStore`](crate::meta::MetaStore) in a file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: tx::Writer,
    readers: tx::Readers,
    options: Options,
    lock: lock::FolderLock,
}

impl SqliteStore {
    /// Opens the database in `folder`, making both if need be, and holds the folder's lock until dropped.
    pub async fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = lock::FolderLock::take(folder)?;
        let connect = SqliteConnectOptions::new()
            .filename(folder.join("meta.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Commits are flushed by `journal`, where something is promised.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(options.busy_timeout)
            .statement_cache_capacity(256)
            .disable_statement_logging();
        migrate(&connect).await?;
        let writer = tx::Writer::new(connect.clone(), lock.fence);
        // Claims of earlier holders of the lock are dead.
        writer.run(sqlx::query("UPDATE meta SET schema = ?1, claim_until = NULL").bind(SCHEMA)).await?;
        let readers = tx::Readers::open(&connect, options.readers).await?;
        Ok(Self { writer, readers, options, lock })
    }
}

async fn migrate(options: &SqliteConnectOptions) -> Result<(), crate::meta::Error> {
    let mut connection = options.connect().await.map_err(error::failed)?;
    // `run` would take the connection through a trait whose future is not known to be `Send`.
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| error::not_migrated(error, SCHEMA))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it compiles is the proof.
    #[test]
    fn a_store_can_be_opened_from_any_thread() {
        fn sendable<T: Send>(_: T) {}
        sendable(SqliteStore::open(Path::new("/nowhere"), Options::default()));
    }

    #[test]
    fn the_schema_is_the_newest_migration() {
        assert_eq!(MIGRATIONS.iter().map(|migration| migration.version).max(), Some(i64::from(SCHEMA)));
    }
}
