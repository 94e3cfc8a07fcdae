// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database as PostgreSQL 15 or later.
//!
//! Constant statements only, so that they stay prepared. One round trip a read. Connections are held for one
//! step, never while a body streams.
//! Assumes: sessions have no state of ours, so a pooler in transaction mode (with prepared statements) will do.
//! Never: opens a transaction outside `tx`.

mod cached;
mod candidates;
mod collect;
mod commit;
mod delete;
mod error;
mod guard;
mod leases;
mod ledger;
mod migrate;
mod mirroring;
mod mount;
mod pool;
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
mod row;
mod runs;
mod sweep;
mod tags;
mod trash;
mod tx;
mod usages;
mod verify;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use self::error::Fault;
use self::pool::Pool;
use super::{Error, Timings};
use crate::ops::metrics::Metrics;
pub use migrate::migrate;

/// The schema this version works with.
pub const SCHEMA: i32 = 4;

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://…`. Holds the password: not logged.
    pub url: String,
    /// Authorities whose certificates are believed beside those of the public ones. Implies
    /// `sslmode=verify-full`.
    pub ca: Option<PathBuf>,
    /// How many connections at most.
    pub max_connections: u32,
    /// How long to wait for one of them. Reads of clients turn to the bucket then.
    pub patience: Duration,
    /// How long things last.
    pub timings: Timings,
}

impl Options {
    /// The defaults for `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let patience = Duration::from_secs(1);
        Self { url: url.into(), ca: None, max_connections: 16, patience, timings: Timings::default() }
    }

    /// The same for a command, beside which no client waits: its own steps may wait for each other.
    #[must_use]
    pub fn patiently(self) -> Self {
        Self { patience: Duration::from_secs(30), ..self }
    }

    fn driver(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let options = PgConnectOptions::from_str(&self.url)?.application_name("stowage-registry");
        Ok(match &self.ca {
            Some(ca) => options.ssl_root_cert(ca).ssl_mode(PgSslMode::VerifyFull),
            None => options,
        })
    }
}

/// Why this database is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be read.
    #[error("the database's URL cannot be read")]
    Url(#[source] sqlx::Error),
    /// The server's configuration would lose what was acknowledged.
    #[error("the database has {setting}; {remedy}")]
    Unsafe {
        /// What was found.
        setting: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Whoever answers did not show that it is the database.
    #[error(
        "the database cannot be trusted: caSecretRef must hold the authority of its certificate, which must name \
         the host of the URL"
    )]
    Untrusted(#[source] sqlx::Error),
    /// The database said no, or nothing.
    #[error(transparent)]
    Meta(#[from] Error),
}

/// Why there is no first connection.
fn unconnected(error: sqlx::Error) -> ConnectError {
    let is_about_trust = match &error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => is_of_tls(error),
        _ => false,
    };
    if is_about_trust { ConnectError::Untrusted(error) } else { Fault::from(error).into() }
}

/// Whether it is what the handshake came to, which the driver tells as a failure of the line.
fn is_of_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.downcast_ref::<rustls::Error>().is_some())
}

impl From<Fault> for ConnectError {
    fn from(fault: Fault) -> Self {
        Self::Meta(match fault {
            Fault::Conflict(error) => Error::Unavailable(error),
            Fault::Final(error) => error,
        })
    }
}

/// A `MetaStore` over a pool of connections.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pool: Pool,
    timings: Timings,
    metrics: Option<Metrics>,
}

impl PostgresStore {
    /// Connects, and refuses a server that would lose commits or that has another schema.
    pub async fn connect(options: &Options) -> Result<Self, ConnectError> {
        let driver = options.driver().map_err(ConnectError::Url)?;
        let pool = Pool::new(driver, options.max_connections, options.patience);
        // Why there is no first connection decides whether to wait for one.
        pool.lend().await.map_err(unconnected)?.give_back();
        let store = Self { pool, timings: options.timings, metrics: None };
        store.check_server().await?;
        store.check_schema().await?;
        Ok(store)
    }

    /// Tells these how its connections are used.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// One whose server is not there, for tests of what asks no database.
    #[cfg(test)]
    pub(crate) fn unreachable() -> Self {
        let pool = Pool::new(PgConnectOptions::new_without_pgpass().port(1), 1, Duration::ZERO);
        Self { pool, timings: Timings::default(), metrics: None }
    }

    async fn check_server(&self) -> Result<(), ConnectError> {
        let statement = sqlx::query_as(
            "SELECT current_setting('synchronous_commit'), current_setting('server_version_num')::int",
        );
        let found: Option<(String, i32)> = tx::read(self.row(statement)).await?;
        let (commit, version) = found.unwrap_or_default();
        if commit == "off" {
            // A backend that crashes loses commits, and nothing shows that it did.
            let remedy = "set it to on for this role or database";
            return Err(ConnectError::Unsafe { setting: "synchronous_commit=off".to_owned(), remedy });
        }
        if version < 150_000 {
            let setting = format!("server_version_num {version}");
            return Err(ConnectError::Unsafe { setting, remedy: "use PostgreSQL 15 or later" });
        }
        Ok(())
    }

    async fn check_schema(&self) -> Result<(), Error> {
        let found = tx::read(self.schema()).await?;
        // A database is migrated before the replicas are: they run beside it with the schema after theirs,
        // which only adds.
        if found == SCHEMA || found == SCHEMA + 1 {
            Ok(())
        } else {
            Err(Error::Schema { found, supported: SCHEMA })
        }
    }

    /// Half of the lease, in seconds: then it is renewed.
    fn half_lease(&self) -> f64 {
        seconds(self.timings.lease / 2)
    }
}

/// As statements take durations.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
