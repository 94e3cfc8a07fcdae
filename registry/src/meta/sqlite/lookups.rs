// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Look-ups that answer requests, done by the thread that asks.
//!
//! What a pull needs is a handful of pages that are in memory nearly always: some microseconds of work, of which
//! handing it to another thread and back would make a multiple. Readers of a write-ahead log wait for nobody, so at
//! worst the thread waits for its disk, as it does where files are sent.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Params, Row};
use sqlx::sqlite::SqliteConnectOptions;

use crate::meta::Error;

/// Connections that read, as many as threads ever asked at once.
#[derive(Debug)]
pub(super) struct Lookups {
    database: PathBuf,
    busy_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

impl Lookups {
    pub(super) fn of(database: &SqliteConnectOptions, busy_timeout: Duration) -> Self {
        Self { database: database.get_filename().to_owned(), busy_timeout, idle: Mutex::default() }
    }

    /// What `read` makes of the one row of an answer that holds only in the epoch that was asked for: its column
    /// `ours`. Its column `found` says whether there is more.
    pub(super) fn one<T>(
        &self,
        statement: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let found = look(&connection, statement, parameters, read);
        self.idle().push(connection);
        found
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.database, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        Ok(connection)
    }
}

/// A database without the epoch, or without any, has no answer.
fn look<T>(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(parameters)?;
    let Some(row) = rows.next()? else { return Err(Error::Superseded) };
    if !row.get::<_, bool>("ours")? {
        return Err(Error::Superseded);
    }
    if row.get("found")? { read(row).map(Some) } else { Ok(None) }
}
