// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program `rebuild`: what it says, what it refuses, and with which code it ends.

use std::process::{Command, Output};

use serde_json::Value;
use stowage_oci::{Algorithm, Digest};
use stowage_registry::jobs::{RebuildError, RebuildOptions};
use stowage_registry::meta::Leases as _;
use stowage_registry::meta::postgres::{Options, PostgresStore};
use uuid::Uuid;

use super::stand::Stand;
use crate::purge::Place;
use crate::support::postgres::database;
use crate::support::program::{Program, ask, serve, until};

fn rebuild(place: &Place, flags: &[&str]) -> Output {
    let path = |name: &str| place.path().join(name);
    Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
        .arg("rebuild")
        .args(flags)
        .arg("--config")
        .arg(path("config"))
        .arg("--secrets-dir")
        .arg(path("secrets"))
        .arg("--data-dir")
        .arg(path("data"))
        .output()
        .unwrap()
}

/// Ends with this code, and says this on standard error.
fn assert_ends(output: &Output, code: i32, says: &str) {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(log.contains(says), "{says:?} is not in {last:?}");
}

async fn places() -> [Place; 2] {
    [Place::embedded(), Place::clustered().await]
}

#[tokio::test(flavor = "multi_thread")]
async fn h9_a_database_is_made_again_from_its_bucket_when_that_is_asked_for() {
    for place in places().await {
        let id = place.founded().await;
        assert_ends(&rebuild(&place, &["--dry-run"]), 0, "");
        assert_ends(&rebuild(&place, &[]), 0, "");
        place.lose_database().await;
        let dry = rebuild(&place, &["--dry-run"]);
        assert_ends(&dry, 0, "");
        let counted = String::from_utf8(dry.stdout).unwrap();
        assert!(counted.contains("adoptedBlobs 1\n"), "{counted}");
        assert_ends(&rebuild(&place, &[]), 3, "run `rebuild --adopt`");
        let other = Uuid::new_v4().to_string();
        assert_ends(&rebuild(&place, &["--adopt", "--confirm", &other]), 3, &format!("not to {other}"));
        assert_ends(&rebuild(&place, &["--adopt", "--requests-per-second", "1000"]), 0, "took over");
        assert_eq!(place.owner().await, Some(id));
        assert_ends(&rebuild(&place, &["--adopt", "--confirm", &id.to_string()]), 0, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_loses_its_tables_is_an_empty_one_and_gets_them_again() {
    let place = Place::clustered().await;
    place.founded().await;
    let replica = Program::start(&mut serve(place.path())).await;
    let blob = format!("/v2/a/b/blobs/{}", Digest::of(Algorithm::Sha256, b"content"));
    assert_eq!(replica.ask("GET", &blob, "", b"").0, 200);
    place.drop_tables().await;
    assert_eq!(replica.ask("GET", &blob, "", b"").0, 200, "the bucket has it");
    assert_eq!(replica.ask("POST", "/v2/a/b/blobs/uploads/", "", b"").0, 503);
    assert_ends(&rebuild(&place, &[]), 3, "");
    assert_ends(&rebuild(&place, &["--adopt"]), 0, "took over");
    let upload = format!("/v2/a/b/blobs/uploads/?digest={}", Digest::of(Algorithm::Sha256, b"more"));
    until("pushes work again", || (replica.ask("POST", &upload, "", b"more").0 == 201).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_reports_an_empty_database_over_a_used_bucket_until_it_is_rebuilt() {
    let place = Place::clustered().await;
    let id = place.founded().await;
    place.lose_database().await;
    let replica = Program::start(&mut serve(place.path())).await;
    let ops = |target: &str| {
        let (status, _, body) = ask(replica.address("ops_listen"), "GET", target, "", b"");
        (status, String::from_utf8(body).unwrap())
    };
    let report = || serde_json::from_str::<Value>(&ops("/config").1).unwrap();
    let says = |what: &str| report()["checks"]["database"].as_str().is_some_and(|check| check == what);
    until("it says that it is empty", || says("Empty").then_some(())).await;
    assert_eq!(report()["registryID"], Value::Null);
    let (status, checks) = ops("/readyz?verbose");
    assert_eq!(status, 200, "{checks}");
    assert!(checks.contains("database: degraded: empty, restore or rebuild it\n"), "{checks}");
    let blob = format!("/v2/a/b/blobs/{}", Digest::of(Algorithm::Sha256, b"content"));
    assert_eq!(replica.ask("GET", &blob, "", b"").0, 200);
    assert_eq!(replica.ask("POST", "/v2/a/b/blobs/uploads/", "", b"").0, 503);
    assert_ends(&rebuild(&place, &["--adopt"]), 0, "took over");
    until("it says that it is not empty", || says("Ok").then_some(())).await;
    assert_eq!(report()["registryID"], id.to_string());
    let upload = format!("/v2/a/b/blobs/uploads/?digest={}", Digest::of(Algorithm::Sha256, b"more"));
    assert_eq!(replica.ask("POST", &upload, "", b"more").0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_empty_or_anothers_or_of_another_layout_is_refused() {
    for place in places().await {
        assert_ends(&rebuild(&place, &["--adopt"]), 3, "holds no registry");
        place.founded().await;
        place.put("v1/FORMAT", br#"{"layout":2,"registry":"7d444840-9dc0-41d1-b245-5ffdce74fad2"}"#).await;
        assert_ends(&rebuild(&place, &["--adopt"]), 3, "FORMAT");
        place.put("v1/FORMAT", br#"{"layout":1,"registry":"7d444840-9dc0-41d1-b245-5ffdce74fad2"}"#).await;
        assert_ends(&rebuild(&place, &["--adopt"]), 3, "belongs to registry 7d444840");
        place.remove("v1/FORMAT").await;
        assert_ends(&rebuild(&place, &["--adopt"]), 3, "no v1/FORMAT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_others_are_left_alone_and_told() {
    for place in places().await {
        place.founded().await;
        // Inside of what is compared, and outside.
        let strange =
            ["v1/blob/sha256/aa/nothing", "v1/r/app/~q/x/y", "v1/r/UPPER/x", "v1/FORMAT2", "v1/later/x"];
        for key in strange {
            place.put(key, b"not ours").await;
        }
        let dry = rebuild(&place, &["--dry-run"]);
        assert!(String::from_utf8(dry.stdout).unwrap().contains("foreignObjects 5\n"));
        assert_ends(&rebuild(&place, &[]), 3, "5 objects below the prefix are not of this layout");
        let keys = place.keys().await;
        for key in strange {
            assert!(keys.iter().any(|found| found == key), "{key} is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rebuilds_at_once_are_refused() {
    let stand = Stand::postgres().await;
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "layer").await;
    assert!(replica.meta.hold_rebuild(Uuid::new_v4()).await.unwrap());
    let refused = stand.rebuild(RebuildOptions::default()).await;
    let Err(error @ RebuildError::AnotherRuns) = refused else { panic!("{refused:?}") };
    assert!(error.is_refusal());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_registry_is_refused() {
    let mut stand = Stand::postgres().await;
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "layer").await;
    replica.stop().await;
    let other = database().await;
    let meta = PostgresStore::connect(&Options::new(&other)).await.unwrap();
    assert!(meta.found(Uuid::new_v4()).await.unwrap());
    if let Stand::Postgres { url, .. } = &mut stand {
        *url = other;
    }
    let adopt = RebuildOptions { adopt: true, ..RebuildOptions::default() };
    let refused = stand.rebuild(adopt).await;
    assert!(matches!(refused, Err(RebuildError::Foreign { .. })), "{refused:?}");
}
