// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The command as a Job or a human runs it: the program itself, with its real graces. Time passes in the rows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use stowage_registry::Registry;
use stowage_registry::domain::Limits;
use stowage_registry::meta::conformance::Inspect;

use super::site::{IMAGE, Site, image, sha256};
use crate::purge::{Place, Stores, assert_code};
use crate::support::program::{Program, ask, program, serve, until};
use crate::{meta_postgres, meta_sqlite};

/// Longer than any grace.
const ALL_GRACES: Duration = Duration::from_hours(25);

/// A registry that serves.
struct Registered {
    place: Place,
    rows: Arc<dyn Inspect>,
    serving: Program,
}

impl Registered {
    /// Holds one image, and the remains of others.
    async fn filled(place: Place) -> Self {
        let rows: Arc<dyn Inspect> = match &place.shared {
            None => Arc::new(meta_sqlite::rows(&place.path().join("data"))),
            Some((_, url)) => Arc::new(meta_postgres::rows(url).await),
        };
        let Stores { store, meta } = place.open().await;
        let limits = Limits { trash_retention: Duration::ZERO, ..Limits::default() };
        let registry =
            Registry::builder().limits(limits).over(Arc::clone(&meta), Arc::clone(&store)).await.unwrap();
        fill(&Site::around(&registry, meta, store)).await;
        registry.close().await;
        let serving = Program::start(&mut serve(place.path())).await;
        let filled = Self { place, rows, serving };
        // The first request takes the database over.
        filled.push_blob("of nobody, too");
        if filled.place.shared.is_none() {
            let compared = "the database is compared with the bucket";
            until("its walk has ended", || filled.serving.lines(compared).pop()).await;
        }
        filled
    }

    /// The start of a server over SQLite is an incarnation, which it compares with the bucket in the background.
    async fn until_compared(&self) {
        const COMPARED: &str = "SELECT count(*) FROM meta WHERE reconciled = epoch";
        let ask = async || -> i64 {
            match &self.place.shared {
                None => {
                    let file = format!("sqlite://{}", self.place.path().join("data/meta.sqlite").display());
                    let mut connection = SqliteConnection::connect(&file).await.unwrap();
                    sqlx::query_scalar(COMPARED).fetch_one(&mut connection).await.unwrap()
                }
                Some((_, url)) => {
                    let mut connection = PgConnection::connect(url).await.unwrap();
                    sqlx::query_scalar(COMPARED).fetch_one(&mut connection).await.unwrap()
                }
            }
        };
        while ask().await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn push_blob(&self, content: &str) {
        let target = format!("/v2/kept/blobs/uploads/?digest={}", sha256(content.as_bytes()));
        assert_eq!(self.serving.ask("POST", &target, "", content.as_bytes()).0, 201);
    }

    fn assert_blob(&self, content: &str) {
        let target = format!("/v2/kept/blobs/{}", sha256(content.as_bytes()));
        let (status, _, body) = self.serving.ask("GET", &target, "", b"");
        assert_eq!((status, body), (200, content.as_bytes().to_vec()), "{content}");
    }

    fn gc(&self, flags: &[&str]) -> Output {
        program(&["gc"], self.place.path()).args(flags).output().unwrap()
    }

    async fn left(&self) -> Vec<String> {
        left(&self.place).await
    }

    /// Runs of a day each, until only the image is left.
    async fn collect_all(&self) {
        for _ in 0..12 {
            if self.left().await.len() == OF_THE_IMAGE {
                return;
            }
            self.rows.pass(ALL_GRACES).await;
            assert_code(&self.gc(&[]), 0);
        }
        panic!("too much is left: {:#?}", self.left().await);
    }

    fn assert_whole(&self) {
        assert_eq!(self.serving.ask("GET", "/v2/kept/manifests/v1", "", b"").0, 200);
        for layer in ["{}", "kept", "shared"] {
            self.assert_blob(layer);
        }
    }

    /// Everything in bucket and database, byte by byte.
    async fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        read_all(&self.place.path().join("data"), &mut all);
        if let Some((_, url)) = &self.place.shared {
            let store = self.place.store().await;
            for object in store.list("", None, 100_000).await.unwrap() {
                all.insert(PathBuf::from(&object.key), format!("{object:?}").into_bytes());
            }
            let mut connection = PgConnection::connect(url).await.unwrap();
            let tables: String = sqlx::query_scalar(
                "SELECT string_agg(table_to_xml(oid::regclass, true, false, '')::text, '' ORDER BY relname)
                 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            all.insert("tables".into(), tables.into_bytes());
        }
        all
    }

    /// Something due that this version cannot carry out.
    async fn queue_what_nobody_understands(&self) {
        match &self.place.shared {
            None => {
                let file = format!("sqlite://{}", self.place.path().join("data/meta.sqlite").display());
                let mut connection = SqliteConnection::connect(&file).await.unwrap();
                let insert = "INSERT INTO outbox (due, steps) VALUES (0, '[\"?v1/what\"]')";
                sqlx::query(insert).execute(&mut connection).await.unwrap();
            }
            Some((_, url)) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                let insert = "INSERT INTO outbox (due, steps) VALUES (clock_timestamp(), '{?v1/what}')";
                sqlx::query(insert).execute(&mut connection).await.unwrap();
            }
        }
    }
}

/// Every object but those that are always there.
async fn left(place: &Place) -> Vec<String> {
    let keys = place.keys().await.into_iter();
    keys.filter(|key| {
        key != "v1/FORMAT" && !["v1/epoch/", "v1/pulls/"].iter().any(|kind| key.starts_with(kind))
    })
    .collect()
}

/// Manifest, tag, three links, three blobs with their bytes.
const OF_THE_IMAGE: usize = 8;

async fn fill(site: &Site) {
    site.push_image("kept", "v1", &[b"kept", b"shared"]).await;
    for tag in ["v1", "v2", "v2"] {
        site.push_image("dropped", tag, &[b"dropped", b"shared", tag.as_bytes()]).await;
    }
    site.push_blob("dropped", b"of nobody").await;
    for tag in ["v1", "v2"] {
        let digest = sha256(image(&[b"dropped", b"shared", tag.as_bytes()]).to_string().as_bytes());
        site.delete(&format!("/v2/dropped/manifests/{digest}")).await;
    }
}

fn read_all(folder: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, all);
        } else {
            all.insert(path.clone(), fs::read(path).unwrap());
        }
    }
}

fn count(output: &Output, what: &str) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {what}: {text}")).parse().unwrap()
}

async fn f28_gc_deletes_what_is_due_and_nothing_else(place: Place) {
    let site = Registered::filled(place).await;
    let before = site.left().await;
    let first = site.gc(&[]);
    assert_code(&first, 0);
    assert_eq!((count(&first, "deletedObjects"), site.left().await), (0, before), "no grace is over");
    site.collect_all().await;
    site.assert_whole();
}

async fn f27_a_dry_run_changes_nothing(place: Place) {
    let site = Registered::filled(place).await;
    site.until_compared().await;
    site.rows.pass(ALL_GRACES).await;
    let before = site.everything().await;
    let looked = site.gc(&["--dry-run"]);
    assert_code(&looked, 0);
    assert!(count(&looked, "dueTags") == 2 && count(&looked, "dueLinks") > 0, "{looked:?}");
    let after = site.everything().await;
    let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    // SQLite's table of who reads is not content.
    for (path, bytes) in before.into_iter().filter(|(path, _)| !path.ends_with("meta.sqlite-shm")) {
        assert!(after[&path] == bytes, "{} has changed", path.display());
    }
}

async fn l_13_an_absent_or_half_document_or_owner_deletes_nothing(place: Place) {
    let site = Registered::filled(place).await;
    site.rows.pass(ALL_GRACES).await;
    let before = site.left().await;
    let file = site.place.path().join("config/registry.yaml");
    let whole = fs::read_to_string(&file).unwrap();
    for half in ["", whole.split_at(whole.len() / 2).0, &whole.replace("storage:", "storages:")] {
        fs::write(&file, half).unwrap();
        assert_code(&site.gc(&[]), 2);
    }
    fs::remove_file(&file).unwrap();
    assert_code(&site.gc(&[]), 2);
    fs::write(&file, whole).unwrap();
    let store = site.place.store().await;
    let other = format!("{{\"layout\":1,\"registry\":\"{}\"}}", uuid::Uuid::new_v4());
    for format in [other.as_str(), "{", ""] {
        store.put("v1/FORMAT", vec![format.to_owned().into()]).await.unwrap();
        assert_code(&site.gc(&[]), 3);
    }
    store.delete(&["v1/FORMAT".to_owned()]).await.unwrap();
    assert_code(&site.gc(&[]), 3);
    assert_eq!(site.left().await, before);
}

async fn w470_w914_what_was_said_to_exist_can_be_relied_on_for_half_a_day(place: Place) {
    let site = Registered::filled(place).await;
    for layer in ["{}", "relied on"] {
        site.push_blob(layer);
    }
    site.rows.pass(Duration::from_hours(23)).await;
    for layer in ["{}", "relied on"] {
        let target = format!("/v2/kept/blobs/{}", sha256(layer.as_bytes()));
        assert_eq!(site.serving.ask("HEAD", &target, "", b"").0, 200);
    }
    site.rows.pass(Duration::from_hours(12)).await;
    assert_code(&site.gc(&[]), 0);
    let manifest = image(&[b"relied on"]).to_string();
    let kind = format!("Content-Type: {IMAGE}\r\n");
    let (status, _, body) = site.serving.ask("PUT", "/v2/kept/manifests/v2", &kind, manifest.as_bytes());
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    site.assert_blob("relied on");
}

async fn l_15_what_cannot_be_carried_out_stays_and_the_rest_goes(place: Place) {
    let site = Registered::filled(place).await;
    site.queue_what_nobody_understands().await;
    let mut runs = 0;
    while site.left().await.len() > OF_THE_IMAGE {
        site.rows.pass(ALL_GRACES).await;
        assert_code(&site.gc(&[]), 1);
        runs += 1;
        assert!(runs < 12, "{:#?}", site.left().await);
    }
    assert_eq!(site.rows.outbox().await.len(), 1);
    site.assert_whole();
}

async fn l_02_a_run_that_is_killed_anywhere_is_finished_by_the_next(place: Place) {
    let site = Registered::filled(place).await;
    for delay in (0..16).map(|round| Duration::from_millis(round * 15)) {
        site.rows.pass(ALL_GRACES / 4).await;
        let mut run =
            program(&["gc"], site.place.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(delay).await;
        run.kill().unwrap();
        run.wait().unwrap();
    }
    site.assert_whole();
    site.collect_all().await;
    site.assert_whole();
}

async fn l_12_three_runs_at_once_beside_a_registry_that_serves_do_no_harm(place: Place) {
    let site = Registered::filled(place).await;
    for round in 0..6 {
        site.rows.pass(ALL_GRACES).await;
        let runs: Vec<_> = (0..3)
            .map(|_| {
                let mut run = program(&["gc"], site.place.path());
                run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let content = format!("pushed in round {round}");
        site.push_blob(&content);
        for run in runs {
            assert_code(&run.wait_with_output().unwrap(), 0);
        }
        site.assert_blob(&content);
        site.assert_whole();
    }
    site.collect_all().await;
    site.assert_whole();
}

macro_rules! both_places {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Place::embedded()).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Place::clustered().await).await;
            })*
        }
    };
}

both_places! {
    f28_gc_deletes_what_is_due_and_nothing_else,
    f27_a_dry_run_changes_nothing,
    l_13_an_absent_or_half_document_or_owner_deletes_nothing,
    w470_w914_what_was_said_to_exist_can_be_relied_on_for_half_a_day,
    l_15_what_cannot_be_carried_out_stays_and_the_rest_goes,
    l_02_a_run_that_is_killed_anywhere_is_finished_by_the_next,
    l_12_three_runs_at_once_beside_a_registry_that_serves_do_no_harm,
}

#[tokio::test(flavor = "multi_thread")]
async fn l_24_a_lone_run_collects_in_a_folder_however_often_somebody_starts_in_between() {
    let Registered { place, rows, serving } = Registered::filled(Place::embedded()).await;
    serving.stop().await;
    // A start between any two runs; each is a new epoch.
    for round in 0..12 {
        if round > 3 && left(&place).await.len() == OF_THE_IMAGE {
            break;
        }
        rows.pass(ALL_GRACES).await;
        assert_code(&program(&["gc"], place.path()).output().unwrap(), 0);
        let serving = Program::start(&mut serve(place.path())).await;
        // Compared, so that its end is one of those that a folder sees.
        assert_eq!(serving.ask("GET", "/v2/kept/manifests/v1", "", b"").0, 200);
        serving.stop().await;
    }
    let site = Registered { serving: Program::start(&mut serve(place.path())).await, place, rows };
    assert_eq!(site.left().await.len(), OF_THE_IMAGE, "{:#?}", site.left().await);
    site.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn f25_h6_a_registry_on_a_volume_collects_by_its_schedule_and_reports_it() {
    let place = Place::embedded();
    place.specify("  garbageCollection: {schedule: \"* * * * *\"}\n");
    let site = Registered::filled(place).await;
    let serving = &site.serving;
    site.rows.pass(ALL_GRACES).await;
    // A minute begins.
    for _ in 0..900 {
        if !serving.lines("collected").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, _, body) = ask(serving.address("ops_listen"), "GET", "/config", "", b"");
    let report: Value = serde_json::from_slice(&body).unwrap();
    let (run, collector) = (&report["runs"][0], &report["checks"]["collector"]);
    assert_eq!(
        (status, run["command"].as_str(), run["result"].as_str()),
        (200, Some("gc"), Some("Succeeded"))
    );
    assert_eq!(collector.as_str(), Some("Ok"), "{report}");
    assert_eq!(run["counts"]["purgedTags"].as_u64(), Some(2), "{report}");
    site.assert_whole();
}
