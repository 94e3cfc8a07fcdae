// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! N6: `trash list` and `trash restore`, as an administrator calls them.

use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};
use stowage_oci::Digest;
use stowage_registry::Registry;

use crate::purge::{Place, Stores};
use crate::rebuild::api::Api;

fn trash(place: &Place, arguments: &[&str]) -> Output {
    let flag = |name: &str| place.path().join(name);
    Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
        .arg("trash")
        .args(arguments)
        .arg("--config")
        .arg(flag("config"))
        .arg("--secrets-dir")
        .arg(flag("secrets"))
        .arg("--data-dir")
        .arg(flag("data"))
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn open(place: &Place) -> (Registry, Api) {
    let Stores { store, meta } = place.open().await;
    let registry = Registry::builder().over(Arc::clone(&meta), store).await.unwrap();
    let api = Api(registry.router());
    (registry, api)
}

/// `team/app` has `v1`, which was deleted, and `v2`.
async fn with_trash(place: &Place) -> Digest {
    let (registry, api) = open(place).await;
    let digest = api.push_image("team/app", Some("v1"), "layer").await;
    api.push_image("team/app", Some("v2"), "another").await;
    assert_eq!(api.delete("/v2/team/app/manifests/v1").await.status, 202);
    drop(api);
    registry.close().await;
    digest
}

async fn is_listed_and_restored(place: Place) {
    let digest = with_trash(&place).await;
    let listed = told(&trash(&place, &["list"]));
    assert!(listed.starts_with(&format!("team/app:v1 {digest} until 2")), "{listed}");
    assert_eq!(listed.lines().count(), 1);
    let listed = told(&trash(&place, &["list", "--repository", "team/app", "--output", "json"]));
    let entry: Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!((&entry["tag"], &entry["digest"]), (&json!("v1"), &json!(digest)));
    assert_eq!(told(&trash(&place, &["list", "--repository", "team/other"])), "");

    let again = told(&trash(&place, &["restore", "team/app:v1"]));
    assert_eq!(again, format!("team/app:v1 is {digest} again\n"));
    assert_eq!(told(&trash(&place, &["list"])), "");
    let (registry, api) = open(&place).await;
    api.assert_pullable("team/app", "v1").await;
    drop(api);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n6_trash_list_and_restore_on_the_command_line() {
    is_listed_and_restored(Place::embedded()).await;
    is_listed_and_restored(Place::clustered().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_command_cannot_restore_it_names() {
    let place = Place::embedded();
    with_trash(&place).await;
    let failed = |arguments: &[&str], code: i32, said: &str| {
        let output = trash(&place, arguments);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(said), "{log}");
    };
    failed(&["restore", "team/app:v2"], 1, "team/app:v2 was not restored");
    failed(&["restore", "team/app:v2"], 1, "not in the trash");
    failed(&["restore", "team/app"], 2, "team/app:1.0");
    place.specify("  mode: ReadOnly\n");
    failed(&["restore", "team/app:v1"], 3, "read-only");
    assert!(told(&trash(&place, &["list"])).contains("team/app:v1"));
}
