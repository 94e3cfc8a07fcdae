// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database in a file: SQLite, for one process.
//!
//! Flow: the lock of the data folder is taken, the schema is brought up to date, one connection writes and a
//! few read. Each start is a new incarnation (see `lock`).
//! A process that ends in order hands the folder over: then the graces of the collectors go on with the next one.
//! Guarantees: what was acknowledged survives the end of the process and of the machine (see `journal`).
//! Times are the database's, which here are this machine's.
//! A list that is bound is joined by `CROSS JOIN`, whose order SQLite keeps: else it would go through the list for each
//! row of a repository.
//! Assumes: the folder is on a local disk; WAL does not work on network file systems.

mod blobs;
mod cached;
mod candidates;
mod collect;
mod error;
mod guard;
mod journal;
mod leases;
mod ledger;
mod lock;
mod lookups;
mod manifests;
mod mirroring;
mod outbox;
mod publish;
mod pulls;
mod queue;
mod reap;
mod receive;
mod reconcile;
mod reconcile_rows;
mod removals;
mod resolve;
mod restore;
mod retain;
mod runs;
mod sweep;
mod tags;
mod trash;
mod tx;
mod uploads;
mod usages;
mod values;
mod verify;

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::{Error, Leases as _, Timings};
pub use error::OpenError;

/// The schema that this version works with: the newest of the migrations.
pub const SCHEMA: i32 = 4;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long things last.
    pub timings: Timings,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// How many connections read.
    pub readers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { timings: Timings::default(), busy_timeout: Duration::from_secs(5), readers: 4 }
    }
}

/// A [`MetaStore`](crate::meta::MetaStore) in a file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: tx::Writer,
    readers: tx::Readers,
    lookups: lookups::Lookups,
    timings: Timings,
    lock: lock::FolderLock,
}

impl SqliteStore {
    /// Opens the database in `folder`, making both if need be, and holds the folder's lock until dropped.
    pub async fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(folder, options, lock::FolderLock::take(folder)?).await
    }

    /// Opens a database that exists, in the incarnation that it has: beside a process that may serve from the folder,
    /// or while nobody does.
    pub async fn open_as_found(folder: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(folder, options, lock::FolderLock::join(folder)?).await
    }

    /// The same; beside a process that serves from the folder, in its incarnation and without the lock.
    pub async fn open_beside(folder: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(folder, options, lock::FolderLock::take_or_find(folder)?).await
    }

    /// Opens a database that exists, to read it only: neither lock nor file are touched. A step that writes fails
    /// in whatever incarnation it is.
    pub async fn open_to_read(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = lock::FolderLock::find(folder).unwrap_or_default();
        let connect = connect_options(folder, options).create_if_missing(false).read_only(true);
        let readers = tx::Readers::open(&connect, options.readers).await?;
        let lookups = lookups::Lookups::of(&connect, options.busy_timeout);
        let writer = tx::Writer::new(connect, options.busy_timeout, lock.fence);
        Ok(Self { writer, readers, lookups, timings: options.timings, lock })
    }

    async fn open_with(folder: &Path, options: Options, lock: lock::FolderLock) -> Result<Self, OpenError> {
        let connect = connect_options(folder, options);
        if lock.is_ours() {
            migrate(&connect).await?;
        }
        let writer = tx::Writer::new(connect.clone(), options.busy_timeout, lock.fence);
        if lock.is_ours() {
            // Claims of earlier holders of the lock are dead.
            writer.run(sqlx::query("UPDATE meta SET schema = ?1, claim_until = NULL").bind(SCHEMA)).await?;
            // So are the requests that held an upload: it goes on at once.
            let free = "UPDATE uploads SET lock_token = NULL, lock_until = NULL WHERE lock_token IS NOT NULL";
            writer.note(sqlx::query(free)).await?;
            // And so is who made the database anew.
            writer.note(sqlx::query("DELETE FROM shards WHERE job = 'rebuild'")).await?;
        }
        let readers = tx::Readers::open(&connect, options.readers).await?;
        let lookups = lookups::Lookups::of(&connect, options.busy_timeout);
        let store = Self { writer, readers, lookups, timings: options.timings, lock };
        match store.envelope().await? {
            Some(envelope) if envelope.schema != SCHEMA => {
                Err(Error::Schema { found: envelope.schema, supported: SCHEMA }.into())
            }
            _ => Ok(store),
        }
    }
}

fn connect_options(folder: &Path, options: Options) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.join("meta.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Commits are flushed by `journal`, where something is promised.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .statement_cache_capacity(256)
        .disable_statement_logging()
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
