// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database as PostgreSQL: the suite of all databases, and what is its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection as _, Executor as _, PgPool, SqlSafeStr as _};
use stowage_registry::meta::conformance::{Fixture, Inspect, Queued};
use stowage_registry::meta::faulty::{Effect, Faulty, Gate, Occasion};
use stowage_registry::meta::postgres::{ConnectError, Options, PostgresStore, SCHEMA, migrate};
use stowage_registry::meta::{Error, Leases as _};

use stowage_oci::{Algorithm, Digest};
use stowage_registry::key::{Form, Generation};
use stowage_registry::meta::{
    BlobFound, Difference, Epoch, Location, ManifestFacts, ManifestFound, Mode, Outcome, Reconcile as _,
    Scope, Settled,
};
use stowage_registry::ops::clock;

use crate::support::postgres::{database, empty_database, proxied};
use crate::support::proxy::Line;

stowage_registry::meta_conformance!(postgres, crate::meta_postgres::fixture);

pub(crate) async fn fixture() -> Fixture {
    let url = database().await;
    let store = PostgresStore::connect(&Options::new(&url).patiently()).await.unwrap();
    let rows = Rows(PgPool::connect(&url).await.unwrap());
    Fixture { store: Arc::new(store), rows: Arc::new(rows), guard: Box::new(()) }
}

/// The rows of this database.
pub(crate) async fn rows(url: &str) -> impl Inspect + use<> {
    Rows(PgPool::connect(url).await.unwrap())
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
            "UPDATE manifests SET touched = touched - make_interval(secs => $1),
               trashed_until = trashed_until - make_interval(secs => $1)",
            "UPDATE tags SET trashed_until = trashed_until - make_interval(secs => $1)",
            "UPDATE intents SET deadline = deadline - make_interval(secs => $1)",
            "UPDATE usage_reports SET reported_at = reported_at - make_interval(secs => $1)",
            "UPDATE promotion_candidates SET due = due - make_interval(secs => $1),
               since = since - make_interval(secs => $1)",
            "UPDATE gc_queue SET due = due - make_interval(secs => $1)",
            "UPDATE outbox SET due = due - make_interval(secs => $1)",
            "UPDATE blobs SET freed = freed - make_interval(secs => $1)",
            "UPDATE uploads SET lock_until = lock_until - make_interval(secs => $1),
               expires_at = expires_at - make_interval(secs => $1)",
            "UPDATE meta SET claim_until = claim_until - make_interval(secs => $1),
               walked_at = walked_at - make_interval(secs => $1)",
            "UPDATE shards SET until = until - make_interval(secs => $1)",
            "UPDATE mirror_tags SET checked_at = checked_at - make_interval(secs => $1)",
            "UPDATE mirror_seen SET seen_at = seen_at - make_interval(secs => $1)",
            "UPDATE fetches SET until = until - make_interval(secs => $1)",
            "UPDATE upstreams SET paused_until = paused_until - make_interval(secs => $1),
               scarce_until = scarce_until - make_interval(secs => $1),
               turns_until = turns_until - make_interval(secs => $1)",
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

#[tokio::test]
async fn a_faulty_database_fails_holds_and_loses_what_it_was_told_to() {
    let (faulty, faults) = Faulty::over(fixture().await.store);
    let faulty = Arc::new(faulty);
    let registry = uuid::Uuid::new_v4();
    let unavailable = |outcome| matches!(outcome, Err(Error::Unavailable(_)));

    faults.inject("found", Occasion::Nth(2), Effect::LoseAnswer);
    faults.inject("found", Occasion::Nth(1), Effect::Fail);
    assert!(unavailable(faulty.found(registry).await));
    assert!(faulty.envelope().await.unwrap().is_none(), "refused");
    assert!(unavailable(faulty.found(registry).await));
    assert!(faulty.envelope().await.unwrap().is_some(), "done, and not told");
    assert!(!faulty.found(registry).await.unwrap());
    assert_eq!(faults.calls("found"), 3);

    let gate = Gate::new();
    faults.inject("ping", Occasion::First(1), Effect::HoldBefore(gate.clone()));
    let held = async { faulty.ping().await.unwrap() };
    let meanwhile = async {
        gate.reached().await;
        faulty.ping().await.unwrap();
        gate.release();
    };
    tokio::join!(held, meanwhile);

    faults.cut();
    assert!(matches!(faulty.ping().await, Err(Error::Unavailable(_))));
    faults.mend();
    faulty.ping().await.unwrap();
}

/// The network goes on trying for many minutes; nobody may wait for it, nor may its connections count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_vanishes_is_unavailable_at_once_and_leaves_no_connection_behind() {
    let (proxy, url) = proxied(&database().await).await;
    let store = PostgresStore::connect(&Options { max_connections: 4, ..Options::new(url) }).await.unwrap();
    let all = || futures::future::join_all((0..8).map(|_| store.envelope()));
    assert!(all().await.iter().all(Result::is_ok));

    proxy.set(Line::Dead);
    let begun = std::time::Instant::now();
    let outcomes = all().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Unavailable(_)))), "{outcomes:?}");
    let founding = store.found(uuid::Uuid::new_v4()).await;
    assert!(matches!(founding, Err(Error::Unavailable(_))), "{founding:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    proxy.set(Line::Up);
    let outcomes = all().await;
    assert!(outcomes.iter().all(Result::is_ok), "new connections are made: {outcomes:?}");
}

#[tokio::test]
async fn every_statement_is_understood_by_a_migrated_database() {
    let mut connection = sqlx::PgConnection::connect(&database().await).await.unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/meta/postgres/sql");
    let mut prepared = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let outcome = connection.prepare(sqlx::AssertSqlSafe(text).into_sql_str()).await;
        assert!(outcome.is_ok(), "{}: {:?}", path.display(), outcome.err());
        prepared += 1;
    }
    assert!(prepared > 40, "{prepared}");
}

#[tokio::test]
async fn a_list_of_names_is_looked_up_name_by_name_whatever_statistics_say() {
    // Without statistics, as a rebuild finds them, a filter would read all links of a repository for each batch.
    const STATEMENTS: [&str; 12] = [
        include_str!("../../src/meta/postgres/sql/blob_facts.sql"),
        include_str!("../../src/meta/postgres/sql/lock_blob_facts.sql"),
        include_str!("../../src/meta/postgres/sql/link_facts.sql"),
        include_str!("../../src/meta/postgres/sql/lock_link_facts.sql"),
        include_str!("../../src/meta/postgres/sql/manifest_facts.sql"),
        include_str!("../../src/meta/postgres/sql/lock_manifest_facts.sql"),
        include_str!("../../src/meta/postgres/sql/lives.sql"),
        include_str!("../../src/meta/postgres/sql/lock_lives.sql"),
        include_str!("../../src/meta/postgres/sql/tag_facts.sql"),
        include_str!("../../src/meta/postgres/sql/lock_tags.sql"),
        include_str!("../../src/meta/postgres/sql/insert_links.sql"),
        include_str!("../../src/meta/postgres/sql/insert_all_references.sql"),
    ];
    let mut connection = sqlx::PgConnection::connect(&database().await).await.unwrap();
    // As if the tables were as small as they can be, or not known.
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    for statement in STATEMENTS {
        let parameters = (1..10).take_while(|number| statement.contains(&format!("${number}"))).count();
        let nothing = vec!["NULL"; parameters].join(", ");
        let prepare = format!("PREPARE asked AS {statement}");
        connection.execute(sqlx::AssertSqlSafe(prepare)).await.unwrap();
        let explain = format!("EXPLAIN EXECUTE asked ({nothing})");
        let plan: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        connection.execute("DEALLOCATE asked").await.unwrap();
        let has = |what: &str| plan.iter().any(|line| line.contains(what));
        assert!(has("Nested Loop") && has("Function Scan on"), "{statement}\n{plan:#?}");
        let by_filter =
            |line: &&String| line.contains("Filter: (digest = ANY") || line.contains("Filter: (name = ANY");
        let whole = ["Hash Join", "Merge Join"].iter().any(|join| has(join))
            || plan.iter().any(|line| by_filter(&line));
        assert!(!whole, "{statement}\n{plan:#?}");
    }
}

/// Settles a difference whose row `insert` makes meanwhile, in a transaction that ends when it is waited for.
async fn settled_beside(insert: &'static str, difference: Difference<'_>) -> (Settled, Vec<Queued>) {
    let url = database().await;
    let store = PostgresStore::connect(&Options::new(&url)).await.unwrap();
    assert!(store.found(uuid::Uuid::new_v4()).await.unwrap());
    let generation = Generation::at(clock::milliseconds());
    let epoch = store.claim_epoch(0, generation).await.unwrap().unwrap();
    assert!(store.enter_epoch(epoch, generation).await.unwrap());
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(insert).execute(&mut other).await.unwrap();
    let scope = Scope { epoch: Epoch(epoch), retain: Duration::from_hours(1), mode: Mode::OnDemand };
    let ends = async {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock')";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut other).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        other.execute("COMMIT").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(store.settle(&scope, &difference), ends);
    let Outcome::Settled(settled) = outcome.unwrap() else { panic!("not settled") };
    (settled, rows(&url).await.outbox().await)
}

/// Another replica has adopted other data, by another listing: ours would call that superfluous.
#[tokio::test]
async fn data_that_somebody_else_adopts_meanwhile_is_compared_again() {
    let location = |n: u128| {
        let generation = Generation::from_uuid(uuid::Uuid::from_u128(n));
        Location { generation, form: Form::Inline, size: 1 }
    };
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let listed = vec![location(2), location(1)];
    let found = [BlobFound { digest, listed, gone: vec![], damaged: vec![] }];
    let insert = "BEGIN; INSERT INTO blobs (digest, size, gen, form)
        VALUES ('\\x01'::bytea || sha256('x'), 1, '00000000-0000-0000-0000-000000000001', 1)";
    let (settled, queued) = settled_beside(insert, Difference::Blobs(&found)).await;
    assert_eq!(settled.again, [0]);
    assert!(queued.is_empty(), "{queued:?}");
}

/// The same of manifests, one live and one deleted: no record has two rows, and none that lives is withdrawn.
#[tokio::test]
async fn manifests_that_somebody_else_adopts_meanwhile_are_compared_again() {
    let at = |n: u128| Generation::from_uuid(uuid::Uuid::from_u128(n));
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let facts = ManifestFacts {
        digest,
        media_type: "m".to_owned(),
        artifact_type: None,
        subject: None,
        annotations: None,
        size: 1,
        body: None,
        blobs: vec![],
        children: vec![],
    };
    let found = |markers: Vec<Generation>| ManifestFound {
        digest,
        records: vec![at(1), at(2)],
        markers,
        gone: vec![],
        damaged: vec![],
        facts: Some(facts.clone()),
        owes_referrer: false,
    };
    let live = "BEGIN; INSERT INTO repositories (name) VALUES ('a'); COMMIT; BEGIN;
        INSERT INTO manifests (repo_id, digest, state, gen, media_type, size)
        SELECT id, '\\x01'::bytea || sha256('x'), 1, '00000000-0000-0000-0000-000000000001', 'm', 1 FROM repositories";
    let buried = "BEGIN; INSERT INTO repositories (name) VALUES ('a'); COMMIT; BEGIN;
        INSERT INTO manifests (repo_id, digest, state, gen, trashed_until, media_type, size)
        SELECT id, '\\x01'::bytea || sha256('x'), 2, '00000000-0000-0000-0000-000000000001', clock_timestamp(), 'm', 1
        FROM repositories";
    for (insert, markers) in [(live, vec![]), (buried, vec![at(1), at(2)])] {
        let found = [found(markers)];
        let name = "a".parse().unwrap();
        let (settled, queued) = settled_beside(insert, Difference::Manifests(&name, &found)).await;
        assert_eq!(settled.again, [0], "{insert}");
        assert!(queued.is_empty(), "{queued:?}");
    }
}
