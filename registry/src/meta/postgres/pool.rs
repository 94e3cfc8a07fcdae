// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Connections to the server, at most so many at a time, each lent for one step.
//!
//! Not the driver's pool: it asks the server once more after each use, which makes two round trips of one.
//! Guarantees: who gets none in time is told so. One that rested is asked whether it lives before it is
//! lent. What is not given back is closed: it was dropped in the middle of a step (a time limit, a client that
//! went), and if its server is gone the system goes on trying for many minutes.
//! Assumes: who gives back has ended its statement and its transaction.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Between two attempts while the server starts.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection may rest and be lent without a question.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long it rests before it is closed.
const REST: Duration = Duration::from_mins(10);
/// How long it lives: addresses and limits of the server may change.
const LIFE: Duration = Duration::from_mins(30);

/// The connections. Clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    options: PgConnectOptions,
    most: usize,
    /// How long to wait for a connection.
    patience: Duration,
    slots: Arc<Semaphore>,
    resting: Arc<Mutex<VecDeque<Resting>>>,
}

struct Resting {
    open: Open,
    since: Instant,
}

struct Open {
    connection: PgConnection,
    born: Instant,
}

/// A connection for one step.
pub(super) struct Lent {
    open: Open,
    pool: Pool,
    slot: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, most: u32, patience: Duration) -> Self {
        let most = usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS).max(1);
        Self { options, most, patience, slots: Arc::new(Semaphore::new(most)), resting: Arc::default() }
    }

    /// A connection, made if none rests.
    pub(super) async fn lend(&self) -> Result<Lent, sqlx::Error> {
        tokio::time::timeout(self.patience, self.find()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn find(&self) -> Result<Lent, sqlx::Error> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_closed| sqlx::Error::PoolClosed)?;
        let open = loop {
            // The one that rested shortest: the others may come to their end.
            let Some(Resting { mut open, since }) = self.resting().pop_back() else {
                break Open { connection: self.connect().await?, born: Instant::now() };
            };
            if since.elapsed() < TRUSTED || open.connection.ping().await.is_ok() {
                break open;
            }
        };
        Ok(Lent { open, pool: self.clone(), slot })
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        loop {
            match PgConnection::connect_with(&self.options).await {
                Err(error) if is_starting(&error) => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    /// How many connections there are.
    pub(super) fn size(&self) -> usize {
        self.most - self.slots.available_permits().min(self.most) + self.resting().len()
    }

    /// Closes those that rest; no more are lent, and those that are lent are closed when they come back.
    pub(super) async fn close(&self) {
        self.slots.close();
        let resting = std::mem::take(&mut *self.resting());
        for Resting { open, .. } in resting {
            if let Err(error) = open.connection.close().await {
                tracing::debug!(%error, "a connection to the database was not closed in order");
            }
        }
    }

    fn resting(&self) -> MutexGuard<'_, VecDeque<Resting>> {
        // Nothing panics while it is locked.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The password is none of anybody's business.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("most", &self.most).finish_non_exhaustive()
    }
}

/// Nobody listens yet, or it says itself that it is not ready (`cannot_connect_now`).
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().as_deref() == Some("57P03"),
        _ => false,
    }
}

impl Lent {
    /// Back to the others: no statement runs, no transaction is open.
    pub(super) fn give_back(self) {
        let Self { open, pool, slot } = self;
        let mut resting = pool.resting();
        while resting.front().is_some_and(|oldest| oldest.since.elapsed() > REST) {
            resting.pop_front();
        }
        if open.born.elapsed() < LIFE && !pool.slots.is_closed() {
            resting.push_back(Resting { open, since: Instant::now() });
        }
        drop(resting);
        // Only now may another look for one.
        drop(slot);
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.open.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.open.connection
    }
}
