// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `retention` as a Job or a human runs it, and runs by the schedule of the process that serves.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::gc::site::{IMAGE, image};
use crate::purge::{Place, assert_code};
use crate::support::program::{Program, ask, program, serve, until};

const KEEPS: &str = "keep: [{name: latest, tags: {exact: [latest]}}], minAge: 0s";

fn configure(place: &Place, spec: &str) {
    let file = place.path().join("config/registry.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let own = text.split("\n---\n").next().unwrap();
    let policy = format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: RetentionPolicy\nmetadata: {{name: team}}\nspec: \
         {{registryRef: {{name: main}}, repositories: {{include: [\"team/**\"]}}, {spec}}}\n"
    );
    fs::write(&file, format!("{own}{policy}")).unwrap();
}

fn retention(place: &Place, flags: &[&str]) -> Output {
    program(&["retention", "--policy=team"], place.path()).args(flags).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn push(program: &Program, tag: &str) {
    for content in [b"{}".as_slice(), tag.as_bytes()] {
        let target = format!("/v2/team/app/blobs/uploads/?digest={}", crate::gc::site::sha256(content));
        assert_eq!(program.ask("POST", &target, "", content).0, 201);
    }
    let target = format!("/v2/team/app/manifests/{tag}");
    let fields = format!("Content-Type: {IMAGE}\r\n");
    let manifest = image(&[tag.as_bytes()]).to_string();
    assert_eq!(program.ask("PUT", &target, &fields, manifest.as_bytes()).0, 201);
}

/// Tags and serves, until its database is compared with the bucket: before that nothing is deleted.
async fn serving(place: &Place) -> Program {
    let program = Program::start(&mut serve(place.path())).await;
    for tag in ["latest", "old", "older"] {
        push(&program, tag);
    }
    // A database that is made by this process is compared at once, a found one in the background.
    until("it is compared", || {
        let dry = retention(place, &["--dry-run"]);
        (dry.status.code() != Some(3)).then_some(())
    })
    .await;
    program
}

async fn n3_the_command_tells_each_tag_and_the_window_to_undo(place: Place) {
    configure(&place, KEEPS);
    let program = serving(&place).await;
    let dry = retention(&place, &["--dry-run"]);
    assert_code(&dry, 0);
    let told = text(&dry);
    assert!(
        told.starts_with("keep team/app:latest KeptBy team/latest\ndelete team/app:old NoRuleKeeps\n"),
        "{told}"
    );
    assert!(told.contains("\nwouldDeleteTags: 2\n"), "{told}");
    assert!(
        told.ends_with(
            "deleted tags can be restored for 168h (trash.retainFor)\nnothing was deleted: DryRun\n"
        )
    );
    let json = retention(&place, &["--dry-run", "--output=json"]);
    let lines: Vec<Value> = text(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["repository"], &lines[0]["tag"], &lines[0]["reason"]),
        (&json!("team/app"), &json!("latest"), &json!("KeptBy team/latest"))
    );
    let end = &lines[3];
    assert_eq!((&end["summary"]["keptTags"], &end["trashSeconds"]), (&json!(1), &json!(604_800)));

    configure(&place, &format!("{KEEPS}, mode: Enforce"));
    let first = retention(&place, &[]);
    assert_code(&first, 0);
    assert!(text(&first).contains("nothing was deleted: FirstRunOfRules"), "{}", text(&first));
    let second = retention(&place, &[]);
    assert_code(&second, 0);
    assert!(text(&second).contains("\ndeletedTags: 2\n"), "{}", text(&second));
    let (status, _, body) = program.ask("GET", "/v2/team/app/tags/list", "", b"");
    assert_eq!(
        (status, serde_json::from_slice::<Value>(&body).unwrap()["tags"].clone()),
        (200, json!(["latest"]))
    );
}

async fn a_policy_that_is_not_there_is_2_and_one_beyond_its_limits_3(place: Place) {
    configure(&place, KEEPS);
    let program = serving(&place).await;
    let unknown =
        crate::support::program::program(&["retention", "--policy=other"], place.path()).output().unwrap();
    assert_code(&unknown, 2);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(error.contains("there is no RetentionPolicy") && error.contains("team"), "{error}");
    configure(&place, "mode: Enforce");
    assert_code(&retention(&place, &[]), 2);
    configure(&place, "keep: [{name: a, tags: {semver: {range: \"latest\"}}}]");
    let broken = retention(&place, &[]);
    assert_code(&broken, 2);
    let error = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(error.contains("spec.keep[0].tags.semver.range"), "{error}");
    configure(&place, &format!("{KEEPS}, mode: Enforce, limits: {{maxDeletionsPerRun: 1}}"));
    let exceeded = retention(&place, &[]);
    assert_code(&exceeded, 3);
    let error = String::from_utf8_lossy(&exceeded.stderr).into_owned();
    assert!(error.contains("LimitExceeded") && error.contains("maxDeletionsPerRun"), "{error}");
    let (_, _, body) = program.ask("GET", "/v2/team/app/tags/list", "", b"");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["tags"], json!(["latest", "old", "older"]));
}

async fn p13_a_policy_runs_by_its_schedule_where_no_jobs_do_and_reports_it(place: Place) {
    configure(&place, &format!("{KEEPS}, suspend: true"));
    let program = serving(&place).await;
    configure(&place, &format!("{KEEPS}, schedule: \"* * * * *\""));
    let said = || {
        let (_, _, body) = ask(program.address("ops_listen"), "GET", "/config", "", b"");
        let report: Value = serde_json::from_slice(&body).unwrap();
        let resources = report["resources"].as_array().unwrap().clone();
        resources
            .into_iter()
            .find(|found| found["kind"] == "RetentionPolicy")
            .map(|found| found["run"].clone())
    };
    let mut run = Value::Null;
    for _ in 0..4 {
        if !run.is_null() {
            break;
        }
        run = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            loop {
                if let Some(found) = said().filter(|run| !run.is_null()) {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        })
        .await
        .unwrap_or(Value::Null);
    }
    assert_eq!(
        (&run["result"], &run["counts"]["wouldDeleteTags"]),
        (&json!("Succeeded"), &json!(2)),
        "{run}"
    );
    let (_, _, metrics) = ask(program.address("ops_listen"), "GET", "/metrics", "", b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("stowage_retention_kept_total{policy=\"team\"} 1"), "{metrics}");
    assert!(metrics.contains("stowage_retention_deleted_total{policy=\"team\"} 0"));
}

macro_rules! both_places {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::purge::Place::embedded()).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::purge::Place::clustered().await).await;
            })*
        }
    };
}

both_places!(
    n3_the_command_tells_each_tag_and_the_window_to_undo,
    a_policy_that_is_not_there_is_2_and_one_beyond_its_limits_3,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_a_standalone_registry_runs_its_policies() {
    p13_a_policy_runs_by_its_schedule_where_no_jobs_do_and_reports_it(Place::embedded()).await;
}
