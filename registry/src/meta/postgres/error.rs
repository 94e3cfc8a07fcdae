// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a failure of the driver or the server means to the protocol.
#![deny(clippy::wildcard_enum_match_arm)]

use crate::meta::Error;

/// How an attempt ended that did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another transaction was in the way: the whole attempt is repeated.
    Conflict(sqlx::Error),
    /// Told to the caller.
    Final(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        #[expect(clippy::match_same_arms, reason = "the wildcard stands for kinds that do not exist yet")]
        let kind = match &error {
            sqlx::Error::Database(database) => state(database.code().as_deref().unwrap_or_default()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Kind::Unavailable,
            sqlx::Error::Configuration(_)
            | sqlx::Error::InvalidArgument(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::AnyDriverError(_)
            | sqlx::Error::Migrate(_)
            | sqlx::Error::InvalidSavePointStatement => Kind::Broken,
            // Kinds that later versions of the driver add.
            _ => Kind::Broken,
        };
        match kind {
            Kind::Conflict => Self::Conflict(error),
            Kind::Unavailable => Self::Final(Error::Unavailable(error)),
            Kind::Full => Self::Final(Error::Full(error)),
            // The tables were there when we connected: this is another database than we knew.
            Kind::NoTable => Self::Final(Error::Superseded),
            Kind::Broken => Self::Final(Error::Broken(error)),
        }
    }
}

enum Kind {
    Conflict,
    Unavailable,
    Full,
    NoTable,
    Broken,
}

/// By SQLSTATE. Violated constraints are broken on purpose: the protocol foresees none.
fn state(code: &str) -> Kind {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Kind::Conflict,
        // lock_not_available and query_canceled are our time limits; a standby says
        // read_only_sql_transaction; a database may be dropped and restored.
        "55P03" | "57014" | "25P03" | "25006" | "3D000" => Kind::Unavailable,
        // disk_full
        "53100" => Kind::Full,
        // undefined_table
        "42P01" => Kind::NoTable,
        // Connections, authorization (a rotated password), resources, shutdown, the server's own I/O.
        _ if ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Kind::Unavailable,
        _ => Kind::Broken,
    }
}
