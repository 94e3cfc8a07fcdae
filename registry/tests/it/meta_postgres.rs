// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database as PostgreSQL: the suite of all databases, and what is its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgPool;
use stowage_registry::meta::Error;
use stowage_registry::meta::conformance::{Fixture, Inspect, Queued};
use stowage_registry::meta::postgres::{ConnectError, Options, PostgresStore, SCHEMA, migrate};

use crate::support::postgres::{database, empty_database};

stowage_registry::meta_conformance!(postgres, crate::meta_postgres::fixture);

pub(crate) async fn fixture() -> Fixture {
    let url = database().await;
    let store = PostgresStore::connect(&Options::new(&url)).await.unwrap();
    let rows = Rows(PgPool::connect(&url).await.unwrap());
    Fixture { store: Arc::new(store), rows: Arc::new(rows), guard: Box::new(()) }
}

struct Rows(PgPool);

#[derive(sqlx::FromRow)]
struct OutboxColumns {
    id: i64,
    steps: Vec<String>,
    lane: Option<String>,
    then_kind: Option<String>,
    then_ref: Option<i64>,
    due_in: f64,
}

#[async_trait]
impl Inspect for Rows {
    async fn outbox(&self) -> Vec<Queued> {
        let rows: Vec<OutboxColumns> = sqlx::query_as(
            "SELECT id, steps, lane, then_kind::text, then_ref,
                    extract(epoch FROM due - clock_timestamp())::float8 AS due_in
             FROM outbox ORDER BY id",
        )
        .fetch_all(&self.0)
        .await
        .unwrap();
        rows.into_iter()
            .map(|row| Queued {
                id: row.id,
                steps: row.steps,
                lane: row.lane,
                then: row.then_kind.and_then(|kind| kind.chars().next()).zip(row.then_ref),
                due_in: Duration::try_from_secs_f64(row.due_in).unwrap_or_default(),
            })
            .collect()
    }

    async fn candidates(&self) -> Vec<(char, i64)> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT kind::text, ref FROM gc_queue ORDER BY id")
            .fetch_all(&self.0)
            .await
            .unwrap();
        rows.into_iter().map(|(kind, row)| (kind.chars().next().unwrap(), row)).collect()
    }

    async fn intents(&self) -> Vec<Vec<String>> {
        sqlx::query_scalar("SELECT keys FROM intents ORDER BY id").fetch_all(&self.0).await.unwrap()
    }

    async fn blobs(&self) -> u64 {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM blobs").fetch_one(&self.0).await.unwrap();
        count.try_into().unwrap()
    }

    async fn pass(&self, by: Duration) {
        for statement in [
            "UPDATE repo_blobs SET touched = touched - make_interval(secs => $1)",
            "UPDATE manifests SET touched = touched - make_interval(secs => $1)",
            "UPDATE blobs SET freed = freed - make_interval(secs => $1)",
            "UPDATE uploads SET lock_until = lock_until - make_interval(secs => $1),
               expires_at = expires_at - make_interval(secs => $1)",
            "UPDATE meta SET claim_until = claim_until - make_interval(secs => $1)",
        ] {
            sqlx::query(statement).bind(by.as_secs_f64()).execute(&self.0).await.unwrap();
        }
    }

    async fn restart(&self) {
        sqlx::query("UPDATE meta SET fence = '-infinity'").execute(&self.0).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_without_tables_is_refused_until_it_is_migrated() {
    let options = Options::new(empty_database().await);
    let refused = PostgresStore::connect(&options).await;
    assert!(
        matches!(refused, Err(ConnectError::Meta(Error::Schema { found: 0, supported: SCHEMA }))),
        "{refused:?}"
    );
    migrate(&options).await.unwrap();
    PostgresStore::connect(&options).await.unwrap();
}

#[tokio::test]
async fn migrations_that_meet_wait_for_each_other_and_may_be_repeated() {
    let options = Options::new(empty_database().await);
    let (one, two, three) = tokio::join!(migrate(&options), migrate(&options), migrate(&options));
    for outcome in [one, two, three, migrate(&options).await] {
        outcome.unwrap();
    }
    PostgresStore::connect(&options).await.unwrap();
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused() {
    let url = database().await;
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES ($1, 'later', true, '', 0)",
    )
    .bind(i64::from(SCHEMA) + 2)
    .execute(&pool)
    .await
    .unwrap();
    let refused = PostgresStore::connect(&Options::new(&url)).await;
    assert!(matches!(refused, Err(ConnectError::Meta(Error::Schema { .. }))), "{refused:?}");
    let refused = migrate(&Options::new(&url)).await;
    assert!(matches!(refused, Err(ConnectError::Meta(Error::Schema { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_loses_commits_is_refused() {
    let url = format!("{}&options=-csynchronous_commit%3Doff", database().await);
    let refused = PostgresStore::connect(&Options::new(url)).await;
    assert!(matches!(refused, Err(ConnectError::Unsafe { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_within_seconds() {
    let begun = std::time::Instant::now();
    let refused = PostgresStore::connect(&Options::new("postgres://nobody@127.0.0.1:1/none")).await;
    assert!(matches!(refused, Err(ConnectError::Meta(Error::Unavailable(_)))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
