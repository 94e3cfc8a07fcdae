// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Transactions. Nothing else in this room opens one.
//!
//! READ COMMITTED is required, not just enough: after a lock was waited for, the next statement must see what
//! the holder did. Lock order: `meta`; uploads by id; manifests by id; tags by repository and name; blobs by id;
//! links by repository and digest. Whoever must take one out of order takes it with SKIP LOCKED.
//! Conflicts (40001, 40P01) repeat the whole attempt; a caller never sees them.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use super::PostgresStore;
use super::error::Fault;
use crate::meta::{Epoch, Error};

/// One round trip. The limits are the server's, so that they hold when we are gone; SET LOCAL, because a session
/// setting would leak through a pooler.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL lock_timeout = '5s'; \
    SET LOCAL statement_timeout = '30s'; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// How long a read may take, beside the wait for a connection: after that the bucket is asked.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// How long one attempt of a write may take. Its outcome is unknown then.
const WRITE_LIMIT: Duration = Duration::from_secs(15);

impl PostgresStore {
    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Fault> {
        Ok(self.pool.begin_with(BEGIN).await?)
    }

    /// Begins a transaction that decides something in `epoch`. The incarnation cannot change beneath it: a
    /// restart of the server ends it.
    pub(super) async fn begin_in(&self, epoch: Epoch) -> Result<Transaction<'static, Postgres>, Fault> {
        let mut tx = self.begin().await?;
        let ours: Option<bool> =
            sqlx::query_scalar("SELECT epoch = $1 AND fence = pg_postmaster_start_time() FROM meta")
                .bind(i64::from(epoch.0))
                .fetch_optional(&mut *tx)
                .await?;
        if ours == Some(true) { Ok(tx) } else { Err(Error::Superseded.into()) }
    }
}

/// A read: one statement.
pub(super) async fn read<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    let outcome = within(READ_LIMIT, async { Ok(statement.await?) }).await;
    outcome.map_err(|fault| match fault {
        Fault::Conflict(error) => Error::Unavailable(error),
        Fault::Final(error) => error,
    })
}

/// A write: one statement or one transaction, repeated while others are in the way.
pub(super) async fn write<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Fault>>,
{
    const ATTEMPTS: u32 = 8;
    let mut made = 0;
    loop {
        made += 1;
        match within(WRITE_LIMIT, attempt()).await {
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

async fn within<T>(limit: Duration, attempt: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|elapsed| {
        let cause = std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed);
        Err(Error::Unavailable(sqlx::Error::Io(cause)).into())
    })
}

/// What all steps of a transaction take.
pub(super) type Connection = PgConnection;
