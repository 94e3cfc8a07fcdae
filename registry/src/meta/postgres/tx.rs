// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Transactions. Nothing else in this room opens one.
//!
//! READ COMMITTED is required, not just enough: after a lock was waited for, the next statement must see what
//! the holder did. Lock order: `meta`; uploads by id; manifests by id; tags by repository and name; blobs by id;
//! links by repository and digest. Whoever must take one out of order takes it with SKIP LOCKED.
//! Conflicts (40001, 40P01) repeat the whole attempt; a caller never sees them.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::{Query, QueryAs};
use sqlx::{FromRow, PgConnection, Postgres};
use uuid::Uuid;

use super::error::Fault;
use super::pool::Lent;
use super::{PostgresStore, row};
use crate::key::Generation;
use crate::meta::{Epoch, Error, Incarnation};

/// One round trip. The limits are the server's, so that they hold when we are gone; SET LOCAL, because a session
/// setting would leak through a pooler.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL lock_timeout = '5s'; \
    SET LOCAL statement_timeout = '30s'; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// The same for collectors: they give way at once, and a standby that may be promoted has what they decided before
/// anything is done upon it.
const BEGIN_COLLECTING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL lock_timeout = '200ms'; \
    SET LOCAL statement_timeout = '30s'; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'; \
    SET LOCAL synchronous_commit = 'remote_apply'";

/// How long a read may take, beside the wait for a connection: after that the bucket is asked.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// How long one attempt of a write may take. Its outcome is unknown then.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
/// The same for one that looks at every row of a table.
const LONG_LIMIT: Duration = Duration::from_mins(30);

/// A transaction. Dropped without an end, it is undone by the end of its connection.
pub(super) struct Tx(Lent);

impl Tx {
    pub(super) async fn commit(mut self) -> Result<(), Fault> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.0).await?;
        self.0.give_back();
        Ok(())
    }

    /// Goes on if it decides in the current epoch. The incarnation cannot change beneath it: a restart of the
    /// server ends it.
    pub(super) async fn in_epoch(mut self, epoch: Epoch) -> Result<Self, Fault> {
        let ours: Option<bool> =
            sqlx::query_scalar("SELECT epoch = $1 AND fence = pg_postmaster_start_time() FROM meta")
                .bind(i64::from(epoch.0))
                .fetch_optional(&mut *self)
                .await?;
        if ours == Some(true) { Ok(self) } else { self.undo(Err(Error::Superseded.into())).await? }
    }

    /// Undoes everything, and answers so.
    pub(super) async fn undo<T>(mut self, answer: T) -> Result<T, Fault> {
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.0).await?;
        self.0.give_back();
        Ok(answer)
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

impl PostgresStore {
    pub(super) async fn lend(&self) -> Result<Lent, sqlx::Error> {
        let begun = Instant::now();
        let connection = self.pool.lend().await;
        if let Some(metrics) = &self.metrics {
            metrics.pool_waited(begun.elapsed());
            metrics.pool_connections(u32::try_from(self.pool.size()).unwrap_or(u32::MAX));
        }
        connection
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Tx, Fault> {
        let mut connection = self.lend().await?;
        sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
        Ok(Tx(connection))
    }

    /// Begins a transaction whose statements may look at every row of a table.
    pub(super) async fn begin_long(&self) -> Result<Tx, Fault> {
        let mut tx = self.begin().await?;
        sqlx::raw_sql("SET LOCAL statement_timeout = '30min'").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Begins a transaction that decides something in `epoch`.
    pub(super) async fn begin_in(&self, epoch: Epoch) -> Result<Tx, Fault> {
        self.begin().await?.in_epoch(epoch).await
    }

    /// Begins a transaction that collects in `epoch`; the incarnation cannot change, nor a walk end, beneath it.
    pub(super) async fn begin_collecting(&self, epoch: Epoch) -> Result<Tx, Fault> {
        let (tx, incarnation) = self.begin_trusted().await?;
        if incarnation.epoch == epoch { Ok(tx) } else { tx.undo(Err(Error::Superseded.into())).await? }
    }

    /// Begins a transaction that collects in whatever incarnation is trusted.
    pub(super) async fn begin_trusted(&self) -> Result<(Tx, Incarnation), Fault> {
        let mut connection = self.lend().await?;
        sqlx::raw_sql(BEGIN_COLLECTING).execute(&mut *connection).await?;
        let mut tx = Tx(connection);
        let trusted: Option<(i64, Option<Uuid>)> =
            sqlx::query_as(include_str!("sql/collect_in.sql")).fetch_optional(&mut *tx).await?;
        let Some((epoch, Some(generation))) = trusted else {
            return tx.undo(Err(Error::Untrusted.into())).await?;
        };
        let epoch = Epoch(row::number("meta", epoch)?);
        Ok((tx, Incarnation { epoch, generation: Generation::from_uuid(generation) }))
    }

    /// A statement that answers with at most one row, outside a transaction.
    pub(super) async fn row<O>(
        &self,
        statement: QueryAs<'_, Postgres, O, PgArguments>,
    ) -> Result<Option<O>, Fault>
    where
        O: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut connection = self.lend().await?;
        settled(statement.fetch_optional(&mut *connection).await, connection)
    }

    /// A statement that answers with rows, outside a transaction.
    pub(super) async fn rows<O>(
        &self,
        statement: QueryAs<'_, Postgres, O, PgArguments>,
    ) -> Result<Vec<O>, Fault>
    where
        O: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut connection = self.lend().await?;
        settled(statement.fetch_all(&mut *connection).await, connection)
    }

    /// A write that is one statement, made anew for each attempt: whether it changed anything.
    pub(super) async fn write_one<'q>(
        &self,
        statement: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<bool, Error> {
        write(|| self.changes(statement())).await
    }

    /// The same where nobody asks.
    pub(super) async fn run<'q>(
        &self,
        statement: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<(), Error> {
        self.write_one(statement).await.map(drop)
    }

    /// A statement that changes at most one row, outside a transaction: whether it did.
    pub(super) async fn changes(&self, statement: Query<'_, Postgres, PgArguments>) -> Result<bool, Fault> {
        let mut connection = self.lend().await?;
        let done = settled(statement.execute(&mut *connection).await, connection)?;
        Ok(done.rows_affected() > 0)
    }
}

/// After a statement that stood alone: an answer, even a refusal, leaves the connection fit for the next.
fn settled<T>(outcome: Result<T, sqlx::Error>, connection: Lent) -> Result<T, Fault> {
    if matches!(outcome, Ok(_) | Err(sqlx::Error::Database(_))) {
        connection.give_back();
    }
    Ok(outcome?)
}

/// A read: one statement.
pub(super) async fn read<T>(statement: impl Future<Output = Result<T, Fault>>) -> Result<T, Error> {
    within(READ_LIMIT, statement).await.map_err(|fault| match fault {
        Fault::Conflict(error) => Error::Unavailable(error),
        Fault::Final(error) => error,
    })
}

/// A write: one statement or one transaction, repeated while others are in the way.
pub(super) async fn write<T, F>(attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Fault>>,
{
    repeated(WRITE_LIMIT, attempt).await
}

/// The same for one that looks at every row of a table. It begins with [`begin_long`](PostgresStore::begin_long).
pub(super) async fn long_write<T, F>(attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Fault>>,
{
    repeated(LONG_LIMIT, attempt).await
}

async fn repeated<T, F>(limit: Duration, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Fault>>,
{
    const ATTEMPTS: u32 = 8;
    let mut made = 0;
    loop {
        made += 1;
        match within(limit, attempt()).await {
            Ok(done) => return Ok(done),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Conflict(error)) if made == ATTEMPTS => return Err(Error::Unavailable(error)),
            Err(Fault::Conflict(error)) => {
                tracing::debug!(attempt = made, %error, "transaction repeated");
                let jitter = rand::random_range(1..=10 * u64::from(made));
                tokio::time::sleep(Duration::from_millis(jitter)).await;
            }
        }
    }
}

/// A step of a collector. Waiting for a lock is a conflict like others to it: it gives way and comes back.
pub(super) async fn collect<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Fault>>,
{
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    write(|| {
        let attempt = Box::pin(attempt());
        async {
            attempt.await.map_err(|fault| match fault {
                Fault::Final(Error::Unavailable(error))
                    if error.as_database_error().and_then(DatabaseError::code).as_deref()
                        == Some(LOCK_NOT_AVAILABLE) =>
                {
                    Fault::Conflict(error)
                }
                other => other,
            })
        }
    })
    .await
}

async fn within<T>(limit: Duration, attempt: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|elapsed| {
        let cause = std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed);
        Err(Error::Unavailable(sqlx::Error::Io(cause)).into())
    })
}

/// What all steps of a transaction take.
pub(super) type Connection = PgConnection;
