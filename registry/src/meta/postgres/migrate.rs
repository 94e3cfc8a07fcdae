// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Brings the schema up to this version. All or nothing: one that is killed is simply run again.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::error::Fault;
use super::{ConnectError, Options, PostgresStore, SCHEMA, unconnected};
use crate::meta::Error;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// One process at a time changes the schema. Held until the end of the transaction; a lock of the session would
/// leak through a pooler.
pub(super) const LOCK_SCHEMA: &str = "SELECT pg_advisory_xact_lock(hashtext('stowage migrations'))";

/// Creates or upgrades the tables. Several at once wait for each other.
pub async fn migrate(options: &Options) -> Result<(), ConnectError> {
    let driver = options.driver().map_err(ConnectError::Url)?;
    let mut connection = PgConnection::connect_with(&driver).await.map_err(unconnected)?;
    let outcome = run(&mut connection).await;
    connection.close().await.map_err(Fault::from)?;
    Ok(outcome?)
}

async fn run(connection: &mut PgConnection) -> Result<(), Fault> {
    let mut tx = connection.begin().await?;
    sqlx::query(LOCK_SCHEMA).execute(&mut *tx).await?;
    let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_locking(false);
    migrator.run_direct(None, &mut *tx, false).await.map_err(refusal)?;
    sqlx::query("UPDATE meta SET schema = $1 WHERE schema < $1").bind(SCHEMA).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

fn refusal(error: MigrateError) -> Fault {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::VersionMissing(found) => {
            let found = i32::try_from(found).unwrap_or(i32::MAX);
            Error::Schema { found, supported: SCHEMA }.into()
        }
        other => Error::Broken(other.into()).into(),
    }
}

impl PostgresStore {
    /// The schema of the database; 0 when there is none.
    pub(super) async fn schema(&self) -> Result<i32, Fault> {
        const EXISTS: &str =
            "SELECT to_regclass('meta') IS NOT NULL AND to_regclass('_sqlx_migrations') IS NOT NULL";
        const NEWEST: &str = "SELECT max(version)::int FROM _sqlx_migrations WHERE success";
        if self.row(sqlx::query_as(EXISTS)).await? != Some((true,)) {
            return Ok(0);
        }
        let newest: Option<(Option<i32>,)> = self.row(sqlx::query_as(NEWEST)).await?;
        Ok(newest.and_then(|(version,)| version).unwrap_or(0))
    }
}
