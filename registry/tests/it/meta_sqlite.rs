// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database in a file: the suite for all databases, and what is SQLite's own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{Connection, Executor, SqliteConnection};
use stowage_oci::Algorithm;
use stowage_registry::key::Generation;
use stowage_registry::meta::conformance::{Fixture, Inspect, Queued};
use stowage_registry::meta::sqlite::{OpenError, Options, SCHEMA, SqliteStore};
use stowage_registry::meta::{Epoch, Error, LeaseOutcome, Leases, NewUpload, Receive, Reconcile, UploadKey};
use stowage_registry::ops::clock;
use uuid::Uuid;

stowage_registry::meta_conformance!(sqlite, crate::meta_sqlite::fixture);

fn file(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(folder.join("meta.sqlite"))
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Options::default()).await.unwrap();
    let rows = Rows(SqlitePool::connect_lazy_with(file(folder.path())));
    Fixture { store: Arc::new(store), rows: Arc::new(rows), guard: Box::new(folder) }
}

/// The rows of the database in this folder.
pub(crate) fn rows(folder: &Path) -> impl Inspect + use<> {
    Rows(SqlitePool::connect_lazy_with(file(folder)))
}

/// The rows, seen by another connection.
struct Rows(SqlitePool);

impl Rows {
    async fn candidates(&self) -> Vec<(String, i64)> {
        sqlx::query_as("SELECT kind, ref FROM gc_queue ORDER BY id").fetch_all(&self.0).await.unwrap()
    }
}

fn letter(text: &str) -> char {
    text.chars().next().unwrap()
}

#[derive(sqlx::FromRow)]
struct OutboxColumns {
    id: i64,
    steps: String,
    lane: Option<String>,
    then_kind: Option<String>,
    then_ref: Option<i64>,
    due_in: i64,
}

#[async_trait]
impl Inspect for Rows {
    async fn outbox(&self) -> Vec<Queued> {
        let select = "SELECT id, steps, lane, then_kind, then_ref, due - now AS due_in
                      FROM outbox, clock ORDER BY id";
        let rows: Vec<OutboxColumns> = sqlx::query_as(select).fetch_all(&self.0).await.unwrap();
        let queued = rows.into_iter().map(|row| Queued {
            id: row.id,
            steps: serde_json::from_str(&row.steps).unwrap(),
            lane: row.lane,
            then: row.then_kind.as_deref().map(letter).zip(row.then_ref),
            due_in: Duration::from_micros(u64::try_from(row.due_in).unwrap_or_default()),
        });
        queued.collect()
    }

    async fn candidates(&self) -> Vec<(char, i64)> {
        self.candidates().await.into_iter().map(|(kind, row)| (letter(&kind), row)).collect()
    }

    async fn intents(&self) -> Vec<Vec<String>> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT keys FROM intents ORDER BY id").fetch_all(&self.0).await.unwrap();
        rows.iter().map(|(keys,)| serde_json::from_str(keys).unwrap()).collect()
    }

    async fn blobs(&self) -> u64 {
        let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM blobs").fetch_one(&self.0).await.unwrap();
        count.unsigned_abs()
    }

    async fn pass(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        for update in [
            "UPDATE meta SET claim_until = claim_until - ?1, walked_at = walked_at - ?1",
            "UPDATE blobs SET freed = freed - ?1",
            "UPDATE repo_blobs SET touched = touched - ?1",
            "UPDATE manifests SET touched = touched - ?1, pushed_at = pushed_at - ?1,
               pending_until = pending_until - ?1, trashed_until = trashed_until - ?1",
            "UPDATE tags SET pushed_at = pushed_at - ?1, trashed_until = trashed_until - ?1",
            "UPDATE intents SET deadline = deadline - ?1",
            "UPDATE uploads SET lock_until = lock_until - ?1, expires_at = expires_at - ?1",
            "UPDATE shards SET until = until - ?1",
            "UPDATE mirror_tags SET checked_at = checked_at - ?1",
            "UPDATE mirror_seen SET seen_at = seen_at - ?1",
            "UPDATE fetches SET until = until - ?1",
            "UPDATE upstreams SET paused_until = paused_until - ?1, scarce_until = scarce_until - ?1,
               turns_until = turns_until - ?1",
            "UPDATE usage_reports SET reported_at = reported_at - ?1",
            "UPDATE promotion_candidates SET due = due - ?1, since = since - ?1",
            "UPDATE gc_queue SET due = due - ?1",
            "UPDATE outbox SET due = due - ?1",
        ] {
            sqlx::query(update).bind(by).execute(&self.0).await.unwrap();
        }
    }

    async fn restart(&self) {
        sqlx::query("UPDATE meta SET fence = randomblob(16)").execute(&self.0).await.unwrap();
    }
}

fn fresh() -> Generation {
    Generation::at(clock::milliseconds())
}

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, Options::default()).await.unwrap()
}

/// Takes the database over, as each start does.
async fn enter(store: &SqliteStore) -> Epoch {
    let generation = fresh();
    let claim = store.claim_epoch(0, generation).await.unwrap().unwrap();
    assert!(store.enter_epoch(claim, generation).await.unwrap());
    Epoch(claim)
}

fn upload() -> NewUpload {
    NewUpload {
        repository: "a/b".parse().unwrap(),
        principal: String::new(),
        algorithm: Algorithm::Sha256,
        generation: fresh(),
    }
}

#[tokio::test]
async fn a_folder_is_served_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).await;
    let second = SqliteStore::open(folder.path(), Options::default()).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(first);
    open(folder.path()).await;
}

#[tokio::test]
async fn each_start_is_a_new_epoch_that_does_not_wait_for_a_dead_claim() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(store.envelope().await.unwrap().is_none());
    assert!(store.found(Uuid::new_v4()).await.unwrap());
    assert_eq!(enter(&store).await, Epoch(1));
    assert!(store.finish_walk(Epoch(1)).await.unwrap());
    drop(store);
    let store = open(folder.path()).await;
    let envelope = store.envelope().await.unwrap().unwrap();
    assert_eq!((envelope.epoch, envelope.ours), (Epoch(1), false));
    // Claimed, never entered: its process dies here.
    assert_eq!(store.claim_epoch(0, fresh()).await.unwrap(), Some(2));
    drop(store);
    assert_eq!(enter(&open(folder.path()).await).await, Epoch(3));
}

/// A walked epoch in the database of this folder, as after a start.
async fn walked(folder: &Path) -> SqliteStore {
    let store = open(folder).await;
    let founded = store.found(Uuid::new_v4()).await.unwrap();
    let epoch = enter(&store).await;
    assert_eq!(epoch == Epoch(1), founded);
    assert!(store.finish_walk(epoch).await.unwrap());
    store
}

/// From when graces count at least.
async fn walked_at(folder: &Path) -> i64 {
    let mut connection = SqliteConnection::connect_with(&file(folder)).await.unwrap();
    sqlx::query_scalar("SELECT walked_at FROM meta").fetch_one(&mut connection).await.unwrap()
}

/// Closes it, so that its file holds everything.
async fn close(store: SqliteStore, folder: &Path) {
    drop(store);
    let mut connection = SqliteConnection::connect_with(&file(folder)).await.unwrap();
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
}

#[tokio::test]
async fn graces_go_on_where_the_folder_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = walked(folder.path()).await;
    let begun = walked_at(folder.path()).await;
    store.hand_over().await.unwrap();
    drop(store);
    for walks in [true, false, true] {
        let store = open(folder.path()).await;
        // One that ends before it served hands on what it got, and so does one that ends before its walk.
        if walks {
            let epoch = enter(&store).await;
            assert!(!store.envelope().await.unwrap().unwrap().walked, "it is compared like any other");
            assert!(store.finish_walk(epoch).await.unwrap());
        }
        store.hand_over().await.unwrap();
        assert_eq!(walked_at(folder.path()).await, begun);
    }
}

#[tokio::test]
async fn nothing_is_written_after_the_folder_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = walked(folder.path()).await;
    store.hand_over().await.unwrap();
    let written = store.open_upload(&upload(), Duration::from_hours(1), u32::MAX).await;
    assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    assert!(store.envelope().await.unwrap().unwrap().walked, "it can be read");
}

#[tokio::test]
async fn a_job_beside_the_holder_hands_nothing_over() {
    let folder = tempfile::tempdir().unwrap();
    let holder = walked(folder.path()).await;
    let begun = walked_at(folder.path()).await;
    SqliteStore::open_beside(folder.path(), Options::default()).await.unwrap().hand_over().await.unwrap();
    // Killed.
    drop(holder);
    drop(walked(folder.path()).await);
    assert!(walked_at(folder.path()).await > begun);
}

#[tokio::test]
async fn graces_begin_anew_where_the_last_holder_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    walked(folder.path()).await.hand_over().await.unwrap();
    let begun = walked_at(folder.path()).await;
    // The one that was handed over to ends as by a kill.
    let killed = walked(folder.path()).await;
    assert_eq!(walked_at(folder.path()).await, begun);
    drop(killed);
    drop(walked(folder.path()).await);
    assert!(walked_at(folder.path()).await > begun);
}

#[tokio::test]
async fn graces_begin_anew_where_an_older_copy_of_the_database_was_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("meta.sqlite");
    let store = walked(folder.path()).await;
    store.hand_over().await.unwrap();
    close(store, folder.path()).await;
    let begun = walked_at(folder.path()).await;
    let copy = std::fs::read(&database).unwrap();
    let store = walked(folder.path()).await;
    store.hand_over().await.unwrap();
    close(store, folder.path()).await;
    assert_eq!(walked_at(folder.path()).await, begun);
    std::fs::write(&database, copy).unwrap();
    drop(walked(folder.path()).await);
    assert!(walked_at(folder.path()).await > begun);
}

#[tokio::test]
async fn graces_begin_anew_where_the_bucket_knows_a_later_holder() {
    // The whole folder may be a copy, its lock too; a bucket elsewhere is not.
    let folder = tempfile::tempdir().unwrap();
    walked(folder.path()).await.hand_over().await.unwrap();
    let begun = walked_at(folder.path()).await;
    let store = open(folder.path()).await;
    let generation = fresh();
    assert_eq!(store.claim_epoch(2, generation).await.unwrap(), Some(3));
    assert!(store.enter_epoch(3, generation).await.unwrap());
    assert!(store.finish_walk(Epoch(3)).await.unwrap());
    assert!(walked_at(folder.path()).await > begun);
}

#[tokio::test]
async fn graces_begin_anew_after_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    walked(folder.path()).await.hand_over().await.unwrap();
    let begun = walked_at(folder.path()).await;
    let store = open(folder.path()).await;
    store.forget_incarnation().await.unwrap();
    let epoch = enter(&store).await;
    assert!(store.finish_walk(epoch).await.unwrap());
    assert!(walked_at(folder.path()).await > begun);
}

#[tokio::test]
async fn an_upload_goes_on_at_once_when_the_process_of_the_request_that_held_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let new = upload();
    let id = store.open_upload(&new, Duration::from_hours(1), u32::MAX).await.unwrap().unwrap();
    let key = UploadKey { id, repository: new.repository, principal: new.principal };
    assert!(matches!(store.lease_upload(&key, Uuid::new_v4()).await.unwrap(), LeaseOutcome::Leased(_)));
    assert!(matches!(store.lease_upload(&key, Uuid::new_v4()).await.unwrap(), LeaseOutcome::Busy { .. }));
    drop(store);
    let leased = open(folder.path()).await.lease_upload(&key, Uuid::new_v4()).await.unwrap();
    assert!(matches!(leased, LeaseOutcome::Leased(_)), "{leased:?}");
}

#[tokio::test]
async fn a_rebuild_whose_process_is_gone_holds_nobody_off() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(store.hold_rebuild(Uuid::new_v4()).await.unwrap());
    assert!(!store.hold_rebuild(Uuid::new_v4()).await.unwrap(), "it is under way");
    drop(store);
    assert!(open(folder.path()).await.hold_rebuild(Uuid::new_v4()).await.unwrap());
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await);
    let mut connection = SqliteConnection::connect_with(&file(folder.path())).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'from the future', true, x'00', 0)";
    connection.execute(newer).await.unwrap();
    let refused = SqliteStore::open(folder.path(), Options::default()).await;
    let expected =
        matches!(refused, Err(OpenError::Database(Error::Schema { found: 99, supported: SCHEMA })));
    assert!(expected, "{refused:?}");
}

/// The texts of all statements, with their files; but for the script that ends the schema, which is many.
fn statements() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/meta/sqlite/sql");
    let paths = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| !path.ends_with("destroy.sql"));
    paths.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

#[tokio::test]
async fn every_statement_fits_the_schema_and_finds_its_rows_by_an_index() {
    // Those of one row, what is under way or waits, the last runs, the trash where all of it is asked for, and what is no table.
    const MAY_BE_SCANNED: [&str; 15] = [
        "below",
        "clock",
        "CONSTANT ROW",
        "family",
        "going",
        "intents",
        "links",
        "m USING INDEX manifests_trash",
        "meta",
        "page",
        "promotion_candidates",
        "runs USING COVERING INDEX runs_newest",
        "uploads",
        "uploads USING COVERING INDEX uploads_gen",
        "wanted",
    ];
    const NO_TABLES: [&str; 2] = ["json_each", "(subquery-"];
    let folder = tempfile::tempdir().unwrap();
    let _store = open(folder.path()).await;
    let mut connection = SqliteConnection::connect_with(&file(folder.path())).await.unwrap();
    let mut scans = Vec::new();
    for (path, statement) in statements() {
        let explain: &'static str = format!("EXPLAIN QUERY PLAN {statement}").leak();
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
            .fetch_all(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for pair in plan.windows(2) {
            // The list again for each row of a repository, rather than a row for each of the list.
            let [(.., row), (.., list)] = pair else { continue };
            if row.starts_with("SEARCH ") && list.starts_with("SCAN wanted VIRTUAL TABLE") {
                scans.push(format!("{}: {row}, {list}", path.display()));
            }
        }
        for (.., step) in plan {
            let scanned = step.strip_prefix("SCAN ").map(|what| what.trim_end_matches(" LEFT-JOIN"));
            // A list that is bound.
            let scanned = scanned.filter(|what| !what.ends_with(" VIRTUAL TABLE INDEX 1:"));
            let harmless = scanned.is_none_or(|what| {
                MAY_BE_SCANNED.contains(&what) || NO_TABLES.iter().any(|begin| what.starts_with(begin))
            });
            if !harmless {
                scans.push(format!("{}: {step}", path.display()));
            }
        }
    }
    assert!(scans.is_empty(), "{scans:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_step_leaves_nothing_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for pause in 0..200 {
        let (open_one, limit) = (upload(), Duration::from_micros(pause * 5));
        let opened = store.open_upload(&open_one, Duration::from_hours(1), u32::MAX);
        let _outcome_unknown = tokio::time::timeout(limit, opened).await;
    }
    assert!(store.open_upload(&upload(), Duration::from_hours(1), u32::MAX).await.unwrap().is_some());
    let mut connection = SqliteConnection::connect_with(&file(folder.path())).await.unwrap();
    let (sound,): (String,) =
        sqlx::query_as("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(sound, "ok");
}

const FOLDER: &str = "STOWAGE_TEST_FOLDER";

/// Not a test: the process that the next one kills.
#[tokio::test]
#[ignore = "runs as a child"]
async fn commits_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = open(Path::new(&folder)).await;
    loop {
        let opened = store.open_upload(&upload(), Duration::from_hours(1), u32::MAX).await.unwrap();
        println!("committed {}", opened.unwrap());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "meta_sqlite::commits_until_killed"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = lines.map_while(Result::ok).filter_map(|line| {
        let (_, id) = line.split_once("committed ")?;
        id.parse::<Uuid>().ok()
    });
    let mut ids: Vec<Uuid> = acknowledged.by_ref().take(50).collect();
    child.kill().unwrap();
    ids.extend(acknowledged);
    child.wait().unwrap();
    assert!(ids.len() >= 50);
    let store = open(folder.path()).await;
    for id in ids {
        let key = UploadKey { id, repository: upload().repository, principal: String::new() };
        assert_eq!(store.upload_offset(&key).await.unwrap(), Some(0), "{id}");
    }
}
