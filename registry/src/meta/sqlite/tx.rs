// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Connections and transactions. Nothing else opens either.
//!
//! There is one writer: transactions come one after the other, each from `BEGIN IMMEDIATE`. So a check and
//! what is done upon it cannot be parted by another writer, no row needs a lock, and there is no lock order.
//! Readers see the last commit and never wait for the writer.
//!
//! Guarantees: a transaction that is not committed leaves nothing, whether its caller failed, was cancelled or
//! forgot it: its connection is closed with it, and the next one opens another.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::query::{Query, QueryAs};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Executor as _, FromRow, Sqlite, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::error::{failed, is_busy};
use super::journal::Journal;
use crate::key::{Generation, Version};
use crate::meta::{Epoch, Error, Incarnation};

/// How often another process that writes is asked for a turn. SQLite itself would wait longer and longer, up to a tenth
/// of a second, and come too late again and again where the other one writes without a break.
const TURN: Duration = Duration::from_millis(1);

/// The connection that writes; `None` while there is none.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    patience: Duration,
    fence: Uuid,
    slot: Mutex<Option<SqliteConnection>>,
    journal: Journal,
    /// Nothing is written any more.
    ended: AtomicBool,
}

/// A transaction under way.
pub(super) struct Tx<'a> {
    journal: &'a Journal,
    slot: MutexGuard<'a, Option<SqliteConnection>>,
    connection: SqliteConnection,
}

impl Writer {
    /// `patience`: how long to wait for another process that writes.
    pub(super) fn new(options: SqliteConnectOptions, patience: Duration, fence: Uuid) -> Self {
        let journal = Journal::of(options.get_filename());
        Self { options, patience, fence, slot: Mutex::new(None), journal, ended: AtomicBool::new(false) }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Tx<'_>, Error> {
        let slot = self.slot.lock().await;
        if self.ended.load(Ordering::Acquire) { Err(Error::away()) } else { self.begin_on(slot).await }
    }

    /// Begins the last transaction: there is none after it, whatever becomes of it.
    pub(super) async fn begin_last(&self) -> Result<Tx<'_>, Error> {
        let slot = self.slot.lock().await;
        self.ended.store(true, Ordering::Release);
        self.begin_on(slot).await
    }

    async fn begin_on<'a>(
        &'a self,
        mut slot: MutexGuard<'a, Option<SqliteConnection>>,
    ) -> Result<Tx<'a>, Error> {
        let connection = match slot.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut tx = Tx { journal: &self.journal, slot, connection };
        let end = Instant::now() + self.patience;
        while let Err(error) = tx.run(sqlx::query("BEGIN IMMEDIATE")).await {
            if !is_busy(&error) || Instant::now() > end {
                return Err(error);
            }
            sleep(TURN).await;
        }
        Ok(tx)
    }

    async fn connect(&self) -> Result<SqliteConnection, Error> {
        let mut connection = self.options.connect().await.map_err(failed)?;
        connection.execute("PRAGMA busy_timeout = 0").await.map_err(failed)?;
        Ok(connection)
    }

    /// Begins a transaction that decides something in `epoch`.
    pub(super) async fn begin_in(&self, epoch: Epoch) -> Result<Tx<'_>, Error> {
        let mut tx = self.begin().await?;
        let current = sqlx::query_as("SELECT 1 FROM meta WHERE epoch = ?1 AND fence = ?2")
            .bind(epoch.0)
            .bind(self.fence);
        if tx.one::<(i64,)>(current).await?.is_none() {
            tx.rollback().await?;
            return Err(Error::Superseded);
        }
        Ok(tx)
    }

    /// Begins a transaction that collects in `epoch`.
    pub(super) async fn begin_collecting(&self, epoch: Epoch) -> Result<Tx<'_>, Error> {
        let (tx, incarnation) = self.begin_trusted().await?;
        if incarnation.epoch != epoch {
            tx.rollback().await?;
            return Err(Error::Superseded);
        }
        Ok(tx)
    }

    /// Begins a transaction that collects in whatever incarnation is trusted.
    pub(super) async fn begin_trusted(&self) -> Result<(Tx<'_>, Incarnation), Error> {
        let mut tx = self.begin().await?;
        let select = "SELECT epoch, epoch_gen FROM meta WHERE fence = ?1 AND reconciled = epoch";
        let trusted: Option<(u32, Option<Uuid>)> = tx.one(sqlx::query_as(select).bind(self.fence)).await?;
        let Some((epoch, Some(generation))) = trusted else {
            tx.rollback().await?;
            return Err(Error::Untrusted);
        };
        Ok((tx, Incarnation { epoch: Epoch(epoch), generation: Generation::from_uuid(generation) }))
    }

    /// Runs one statement as a transaction of its own, permanently; how many rows it changed.
    pub(super) async fn run(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let changed = tx.run(query).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// The same, where a power cut may take it back.
    pub(super) async fn note(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let changed = tx.run(query).await?;
        tx.commit_unflushed().await?;
        Ok(changed)
    }
}

impl Tx<'_> {
    /// Makes everything permanent. The next transaction does not wait for the disk.
    pub(super) async fn commit(self) -> Result<(), Error> {
        let journal = self.journal;
        self.commit_unflushed().await?;
        journal.flush().await
    }

    /// Makes everything visible, and permanent with the next [`commit`](Self::commit) of anybody: enough for
    /// what nobody was promised. A power cut leaves at worst an object that no row names.
    pub(super) async fn commit_unflushed(mut self) -> Result<(), Error> {
        self.run(sqlx::query("COMMIT")).await?;
        *self.slot = Some(self.connection);
        Ok(())
    }

    /// Takes everything back.
    pub(super) async fn rollback(mut self) -> Result<(), Error> {
        self.run(sqlx::query("ROLLBACK")).await?;
        *self.slot = Some(self.connection);
        Ok(())
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn run(&mut self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, Error> {
        Ok(query.execute(&mut self.connection).await.map_err(failed)?.rows_affected())
    }

    /// The row of a statement that gives at most one.
    pub(super) async fn one<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Option<T>, Error>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        query.fetch_optional(&mut self.connection).await.map_err(failed)
    }

    /// The rows of a statement.
    pub(super) async fn all<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Vec<T>, Error>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        query.fetch_all(&mut self.connection).await.map_err(failed)
    }

    /// The row of a statement that always gives one.
    pub(super) async fn single<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<T, Error>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        query.fetch_one(&mut self.connection).await.map_err(failed)
    }

    /// Milliseconds since 1970 by the database's clock.
    pub(super) async fn milliseconds(&mut self) -> Result<u64, Error> {
        let (now,): (i64,) = self.single(sqlx::query_as("SELECT now / 1000 FROM clock")).await?;
        Ok(u64::try_from(now).unwrap_or_default())
    }

    /// The next place in the order of tags.
    pub(super) async fn next_version(&mut self, epoch: Epoch) -> Result<Version, Error> {
        let next = "UPDATE counters SET value = value + 1 WHERE name = 'versions' RETURNING value";
        let (seq,): (i64,) = self.single(sqlx::query_as(next)).await?;
        let seq = u64::try_from(seq)
            .map_err(|error| Error::Unreadable { table: "counters", what: error.to_string() })?;
        Ok(Version { epoch: epoch.0, seq })
    }
}

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    connections: Vec<Mutex<SqliteConnection>>,
    next: AtomicUsize,
}

impl Readers {
    /// Opens `count` connections, at least one.
    pub(super) async fn open(options: &SqliteConnectOptions, count: usize) -> Result<Self, Error> {
        let options = options.clone().read_only(true).create_if_missing(false);
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count.max(1) {
            connections.push(Mutex::new(options.connect().await.map_err(failed)?));
        }
        Ok(Self { connections, next: AtomicUsize::new(0) })
    }

    /// The first free connection, whose cache is the warmest; a turn in some queue when all are busy.
    async fn connection(&self) -> MutexGuard<'_, SqliteConnection> {
        for connection in &self.connections {
            if let Ok(connection) = connection.try_lock() {
                return connection;
            }
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        self.connections[turn].lock().await
    }

    /// The row of a statement that gives at most one.
    pub(super) async fn one<T>(
        &self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Option<T>, Error>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        query.fetch_optional(&mut *self.connection().await).await.map_err(failed)
    }

    /// The rows of a statement.
    pub(super) async fn all<T>(&self, query: QueryAs<'_, Sqlite, T, SqliteArguments>) -> Result<Vec<T>, Error>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        query.fetch_all(&mut *self.connection().await).await.map_err(failed)
    }
}
