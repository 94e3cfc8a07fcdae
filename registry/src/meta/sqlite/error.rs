// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What an error of SQLite means to the protocol.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use crate::meta::Error;

const BUSY: i32 = 5;

/// Why the database of a data folder was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves from this folder.
    #[error("{} is held by another process: one process at a time serves a data folder", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder or its lock file cannot be used.
    #[error("cannot use {}", path.display())]
    Folder {
        /// What was tried to open.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database itself cannot be used.
    #[error(transparent)]
    Database(#[from] Error),
}

/// The primary result code, of which SQLite's extended codes are refinements.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(primary)
}

/// Whether another process writes.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(error, Error::Unavailable(error) if primary_code(error) == Some(BUSY))
}

const fn primary(code: i32) -> i32 {
    code & 0xff
}

/// What an error of a primary code is, or of none. What passes by itself, or with room on the disk, is no bug.
fn of_code(code: Option<i32>) -> fn(sqlx::Error) -> Error {
    const LOCKED: i32 = 6;
    const OUT_OF_MEMORY: i32 = 7;
    const READ_ONLY: i32 = 8;
    const INPUT_OUTPUT: i32 = 10;
    const FULL: i32 = 13;
    const CANNOT_OPEN: i32 = 14;
    const PROTOCOL: i32 = 15;
    match code {
        Some(FULL) => Error::Full,
        Some(BUSY | LOCKED | OUT_OF_MEMORY | READ_ONLY | INPUT_OUTPUT | CANNOT_OPEN | PROTOCOL) => {
            Error::Unavailable
        }
        Some(_) | None => Error::Broken,
    }
}

/// A failed statement.
pub(super) fn failed(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => Error::Unavailable(error),
        _ => of_code(primary_code(&error))(error),
    }
}

/// A failed look-up.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error().map(|error| primary(error.extended_code));
        of_code(code)(sqlx::Error::AnyDriverError(error.into()))
    }
}

/// A failed migration to schema `supported`.
pub(super) fn not_migrated(error: MigrateError, supported: i32) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        MigrateError::VersionMissing(found) => {
            Error::Schema { found: i32::try_from(found).unwrap_or(i32::MAX), supported }
        }
        other => Error::Unreadable { table: "_sqlx_migrations", what: other.to_string() },
    }
}
