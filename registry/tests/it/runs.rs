// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs that somebody asks for on the admin port of the program.

use std::time::Duration;

use serde_json::{Value, json};

use crate::purge::Place;
use crate::support::program::{Program, ask, free_port, program, until};
use crate::sync::command::{APP, configure, mirror};
use crate::upstream::login::basic;
use crate::upstream::servers::{Stowage, push};

const RIGHTS: &str = "
---
apiVersion: stowage.dev/v1alpha1
kind: AccessPolicy
metadata: {name: bob}
spec:
  registryRef: {name: main}
  repositories: ['**']
  subjects: [{user: bob}]
  actions: [Pull, Administer]
---
apiVersion: stowage.dev/v1alpha1
kind: RetentionPolicy
metadata: {name: yearly}
spec:
  registryRef: {name: main}
  repositories: {include: ['**']}
  schedule: '0 0 1 1 *'
  keep: [{name: all, always: true}]
";

/// A program that starts no run by itself within a test, and its admin port.
async fn serving(place: &Place) -> (Program, String) {
    let hash = bcrypt::hash("pw", 4).unwrap();
    place.write("secrets/users/htpasswd", &format!("alice:{hash}\nbob:{hash}\n"));
    let admin = format!("127.0.0.1:{}", free_port());
    let mut serve = program(&["serve", "--drain-delay=0"], place.path());
    serve.args(["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--admin-listen", &admin]);
    (Program::start(&mut serve).await, admin)
}

fn login(user: &str) -> String {
    basic(user, "pw")
}

/// What the process says of its runs: of collections, of the mirror, of the policy.
fn reported(process: &Program) -> [Value; 3] {
    let (_, _, body) = ask(process.address("ops_listen"), "GET", "/config", "", b"");
    let report: Value = serde_json::from_slice(&body).unwrap();
    let run = |kind: &str| {
        let resources = report["resources"].as_array().unwrap();
        resources.iter().find(|resource| resource["kind"] == kind).map_or(Value::Null, |it| it["run"].clone())
    };
    [report["runs"][0].clone(), run("Mirror"), run("RetentionPolicy")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_f28_runs_that_are_asked_for_on_the_admin_port_are_done_once_and_told() {
    let upstream = Stowage::open().await;
    push(&upstream.address(), "", "team/app", "1", b"first");
    let place = Place::embedded();
    place.specify("  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n");
    let suspended = mirror(&upstream.address(), &format!("{APP}  interval: 1h\n  suspend: true\n"));
    configure(&place, &format!("{suspended}{RIGHTS}"));
    let (process, admin) = serving(&place).await;
    assert_eq!(reported(&process), [Value::Null, Value::Null, Value::Null]);
    let runs = [
        ("/admin/v1/gc", json!({ "run": "gc" })),
        ("/admin/v1/mirrors/base/sync", json!({ "run": "sync", "mirror": "base" })),
        ("/admin/v1/retention/yearly/run", json!({ "run": "retention", "policy": "yearly" })),
    ];
    for (target, run) in runs {
        for (fields, status) in [(String::new(), 401), (login("alice"), 403)] {
            assert_eq!(ask(&admin, "POST", target, &fields, b"").0, status, "{target}");
        }
        let (status, _, body) = ask(&admin, "POST", target, &login("bob"), b"");
        assert_eq!((status, serde_json::from_slice::<Value>(&body).unwrap()), (202, run), "{target}");
        assert_eq!(ask(process.address("listen"), "POST", target, &login("bob"), b"").0, 404, "{target}");
    }
    until("all have ended", || {
        let told = reported(&process);
        told.iter().all(|run| run["result"] == "Succeeded").then_some(told)
    })
    .await;
    let pulled = process.ask("GET", "/v2/base/team/app/manifests/1", &login("bob"), b"");
    assert_eq!(pulled.0, 200, "the suspended mirror has copied");
    // For longer than it takes to look at what is due.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((process.lines("replicated").len(), process.lines("collected").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_what_no_run_is_of_cannot_be_asked_for() {
    let place = Place::embedded();
    place.specify("  mode: ReadOnly\n  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n");
    configure(&place, &format!("{}{RIGHTS}", mirror("127.0.0.1:1", &format!("{APP}  interval: 1h\n"))));
    let (_process, admin) = serving(&place).await;
    for (target, named) in [
        ("/admin/v1/mirrors/nobody/sync", "nobody"),
        ("/admin/v1/retention/base/run", "base"),
        // It would copy into a registry that takes nothing.
        ("/admin/v1/mirrors/base/sync", "base"),
    ] {
        let (status, _, body) = ask(&admin, "POST", target, &login("bob"), b"");
        let told: Value = serde_json::from_slice(&body).unwrap();
        let message = told["errors"][0]["message"].as_str().unwrap();
        assert_eq!((status, &told["errors"][0]["code"]), (404, &json!("UNSUPPORTED")), "{target}");
        assert!(message.contains("starts no run") && message.contains(named), "{message}");
    }
    assert_eq!(ask(&admin, "GET", "/admin/v1/gc", &login("bob"), b"").0, 404);
}
