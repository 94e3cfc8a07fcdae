// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `sync` as a Job or a human runs it, and runs by the schedule of the process that serves.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use super::site::IMAGE;
use crate::mirror::line::Line;
use crate::purge::{Place, assert_code};
use crate::support::program::{Program, ask, program, serve, until};
use crate::upstream::servers::{Stowage, distribution, push};

/// A mirror of what is at `address`, with these lines in its spec.
pub(crate) fn mirror(address: &str, lines: &str) -> String {
    format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: base}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: base\n  mode: Replicate\n  \
         upstream: {{url: \"http://{address}\", network: Any}}\n{lines}"
    )
}

pub(crate) const APP: &str = "  artifacts: [{repository: team/app}]\n";

pub(crate) fn configure(place: &Place, more: &str) {
    let file = place.path().join("config/registry.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let own = text.split("\n---\n").next().unwrap();
    fs::write(&file, format!("{own}{more}")).unwrap();
}

pub(super) fn sync(place: &Place, flags: &[&str]) -> Command {
    let mut sync = program(&["sync"], place.path());
    sync.arg("--mirror=base").args(flags);
    sync
}

pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn a_run_tells_what_it_did_and_ends_as_it_went(place: Place) {
    let upstream = distribution(&Value::Null, &[]).await;
    push(upstream.address(), "", "team/app", "1.0", b"layer");
    configure(&place, &mirror(upstream.address(), APP));
    let dry = sync(&place, &["--dry-run"]).output().unwrap();
    assert_code(&dry, 0);
    assert!(text(&dry).starts_with("copied team/app:1.0\n"), "{}", text(&dry));
    let copied = sync(&place, &[]).output().unwrap();
    assert_code(&copied, 0);
    assert!(text(&copied).contains("copied: 1\n") && text(&copied).contains("fetchedBytes: 7\n"));
    let again = sync(&place, &["--output=json"]).output().unwrap();
    assert_code(&again, 0);
    let lines: Vec<Value> = text(&again).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], serde_json::json!({"reference": "team/app:1.0", "result": "unchanged"}));
    assert_eq!(
        (&lines[1]["summary"]["skipped"], &lines[1]["summary"]["fetchedBytes"]),
        (&1.into(), &0.into())
    );

    configure(
        &place,
        &mirror(upstream.address(), "  artifacts: [{repository: team/app}, {repository: absent}]\n"),
    );
    let failed = sync(&place, &[]).output().unwrap();
    assert_code(&failed, 1);
    assert!(text(&failed).contains("failed absent: NotFound: "), "{}", text(&failed));
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(told.lines().last().unwrap().contains("absent (NotFound)"), "{told}");
    let unknown = program(&["sync", "--mirror=other"], place.path()).output().unwrap();
    assert_code(&unknown, 2);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no Mirror \"other\""), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_a_run_over_a_folder_tells_what_it_did_and_ends_as_it_went() {
    a_run_tells_what_it_did_and_ends_as_it_went(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_a_run_over_a_bucket_and_postgresql_tells_what_it_did_and_ends_as_it_went() {
    a_run_tells_what_it_did_and_ends_as_it_went(Place::clustered().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w478_what_the_registry_forbids_holds_for_mirrors_too() {
    let place = Place::embedded();
    let upstream = distribution(&Value::Null, &[]).await;
    push(upstream.address(), "", "team/app", "1.0", b"layer");
    for (mode, lines, code) in [
        ("ReadOnly", APP.to_owned(), 3),
        ("NoDelete", format!("{APP}  prune: RemovedUpstream\n"), 3),
        ("NoDelete", APP.to_owned(), 0),
    ] {
        place.configure("filesystem: {}", "sqlite: {}");
        place.specify(&format!("  mode: {mode}\n"));
        configure(&place, &mirror(upstream.address(), &lines));
        assert_code(&sync(&place, &[]).output().unwrap(), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f44_a_run_that_was_killed_is_gone_on_with_and_copies_only_the_rest() {
    const IMAGES: usize = 8;
    let upstream = distribution(&Value::Null, &[]).await;
    let images: Vec<_> = (0..IMAGES)
        .map(|number| {
            push(
                upstream.address(),
                "",
                "team/app",
                &format!("{number}"),
                &vec![u8::try_from(number).unwrap(); 200_000],
            )
        })
        .collect();
    let line = Line::to(upstream.address()).await;
    let place = Place::embedded();
    configure(
        &place,
        &mirror(&line.address, &format!("{APP}  limits: {{parallelism: 1, bytesPerSecond: 400k}}\n")),
    );
    let mut first = sync(&place, &[]).spawn().unwrap();
    let layers = |asked: &[String]| -> Vec<usize> {
        let is_of = |line: &String, image: &crate::upstream::servers::Image| {
            line.starts_with("GET") && line.ends_with(&image.layer_digest.to_string())
        };
        asked.iter().filter_map(|line| images.iter().position(|image| is_of(line, image))).collect()
    };
    let mut before = Vec::new();
    until("some are fetched", || {
        before.extend(layers(&line.asked()));
        (before.len() >= 4).then_some(())
    })
    .await;
    first.kill().unwrap();
    first.wait().unwrap();
    before.extend(layers(&line.asked()));
    assert!(before.len() < IMAGES, "it was killed in the middle");
    configure(&place, &mirror(&line.address, APP));
    let second = sync(&place, &[]).output().unwrap();
    assert_code(&second, 0);
    let after = layers(&line.asked());
    // The last one may have been on its way.
    for done in &before[..before.len() - 1] {
        assert!(!after.contains(done), "{before:?} {after:?}");
    }
    assert_eq!(after.len(), IMAGES - before.len() + usize::from(after.contains(before.last().unwrap())));
    let serving = Program::start(&mut serve(place.path())).await;
    for (number, image) in images.iter().enumerate() {
        let target = format!("/v2/base/team/app/manifests/{number}");
        let (status, _, body) = serving.ask("GET", &target, &format!("Accept: {IMAGE}\r\n"), b"");
        assert_eq!((status, &body), (200, &image.manifest));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_do_no_harm() {
    let upstream = distribution(&Value::Null, &[]).await;
    let images: Vec<_> = (0..6)
        .map(|number| push(upstream.address(), "", "team/app", &number.to_string(), &[number; 1000]))
        .collect();
    let place = Place::embedded();
    configure(&place, &mirror(upstream.address(), APP));
    let serving = Program::start(&mut serve(place.path())).await;
    let mut runs = [(); 2].map(|()| sync(&place, &[]).spawn().unwrap());
    for run in &mut runs {
        assert!(run.wait().unwrap().success());
    }
    for (number, image) in images.iter().enumerate() {
        let (status, _, body) = serving.ask("GET", &format!("/v2/base/team/app/manifests/{number}"), "", b"");
        assert_eq!((status, &body), (200, &image.manifest));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_the_process_that_serves_copies_by_its_schedule() {
    let upstream = Stowage::open().await;
    push(&upstream.address(), "", "team/app", "1", b"first");
    let place = Place::embedded();
    configure(&place, &mirror(&upstream.address(), &format!("{APP}  interval: 1s\n")));
    let serving = Program::start(&mut serve(place.path())).await;
    let pull = |tag: &str| serving.ask("GET", &format!("/v2/base/team/app/manifests/{tag}"), "", b"");
    until("the first run has copied", || (pull("1").0 == 200).then_some(())).await;
    let image = push(&upstream.address(), "", "team/app", "2", b"second");
    until("a later run has copied", || (pull("2").0 == 200).then_some(())).await;
    assert_eq!(pull("2").2, image.manifest);
    let (status, _, _) = serving.ask("PUT", "/v2/base/team/app/manifests/own", "", b"{}");
    assert_eq!(status, 405, "clients cannot push below its path");
    assert!(!serving.lines("replicated").is_empty());
    let (_, _, body) = ask(serving.address("ops_listen"), "GET", "/config", "", b"");
    let report: Value = serde_json::from_slice(&body).unwrap();
    let resources = report["resources"].as_array().unwrap();
    let mirror = resources.iter().find(|resource| resource["kind"] == "Mirror").unwrap();
    assert_eq!((&mirror["run"]["command"], &mirror["run"]["result"]), (&"sync".into(), &"Succeeded".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_copied_is_whose_it_was_after_the_database_is_made_again() {
    let upstream = Stowage::open().await;
    push(&upstream.address(), "", "team/app", "1", b"first");
    push(&upstream.address(), "", "team/app", "2", b"second");
    let place = Place::embedded();
    configure(&place, &mirror(&upstream.address(), &format!("{APP}  prune: RemovedUpstream\n")));
    assert_code(&sync(&place, &[]).output().unwrap(), 0);
    place.lose_database().await;
    let rebuilt = program(&["rebuild", "--adopt"], place.path()).output().unwrap();
    assert_code(&rebuilt, 0);
    let deleted = ask(&upstream.address(), "DELETE", "/v2/team/app/manifests/2", "", b"");
    assert_eq!(deleted.0, 202);
    let pruned = sync(&place, &[]).output().unwrap();
    assert_code(&pruned, 0);
    assert!(text(&pruned).contains("pruned team/app:2\n"), "{}", text(&pruned));
    assert!(text(&pruned).contains("unchanged team/app:1\n"), "{}", text(&pruned));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_a_suspended_mirror_starts_no_run_and_one_that_is_asked_for_copies() {
    let upstream = Stowage::open().await;
    for repository in ["team/app", "team/other"] {
        push(&upstream.address(), "", repository, "1", b"first");
    }
    let line = Line::to(&upstream.address()).await;
    let place = Place::embedded();
    let suspended = mirror(&line.address, &format!("{APP}  interval: 1s\n  suspend: true\n"));
    let other = mirror(&upstream.address(), "  artifacts: [{repository: team/other}]\n  interval: 1s\n");
    let other = other.replace("name: base", "name: other").replace("path: base", "path: other");
    configure(&place, &format!("{suspended}{other}"));
    let serving = Program::start(&mut serve(place.path())).await;
    let pull = |name: &str| serving.ask("GET", &format!("/v2/{name}"), "", b"").0;
    for tag in ["1", "2"] {
        push(&upstream.address(), "", "team/other", tag, tag.as_bytes());
        let target = format!("other/team/other/manifests/{tag}");
        until("the other mirror runs", || (pull(&target) == 200).then_some(())).await;
    }
    assert_eq!(pull("base/team/app/manifests/1"), 404);
    assert_eq!(line.asked(), [""; 0], "its upstream is left alone");
    assert_code(&sync(&place, &[]).output().unwrap(), 0);
    assert_eq!(pull("base/team/app/manifests/1"), 200);
}
