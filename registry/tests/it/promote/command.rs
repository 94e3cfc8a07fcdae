// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The command, by hand and by a file, with the sample policies.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::purge::Place;
use crate::support::program::{Program, ask, program, serve, until};
use crate::upstream::servers::{Image, push};

fn run(place: &Place, arguments: &[&str]) -> Output {
    program(&["promote"], place.path()).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn failure(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

/// A registry with the sample policies, by which things are promoted so.
fn configured(place: &Place, trigger: &str) {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let policies = fs::read_to_string(samples.join("promotionpolicy.yaml")).unwrap();
    let automatic = "trigger: Automatic";
    assert_eq!(policies.matches(automatic).count(), 2);
    place.write("config/policies.yaml", &policies.replace(automatic, &format!("trigger: {trigger}")));
}

fn pull(program: &Program, name: &str) -> (u16, Vec<u8>) {
    let (repository, tag) = name.split_once(':').unwrap();
    let (status, _, body) =
        ask(program.address("listen"), "GET", &format!("/v2/{repository}/manifests/{tag}"), "", b"");
    (status, body)
}

fn pushed(program: &Program, tag: &str) -> Image {
    push(program.address("listen"), "", "dev/team/app", tag, tag.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_images_go_from_dev_to_staging_to_prod_by_the_sample_policies_alone() {
    let place = Place::clustered().await;
    configured(&place, "Automatic");
    let serving = Program::start(&mut serve(place.path())).await;
    let image = pushed(&serving, "1.4.2");
    pushed(&serving, "latest");
    until_pulled(&serving, "staging/team/app:1.4.2", &image).await;
    let waits =
        run(&place, &["--policy=staging-to-prod", "staging/team/app:1.4.2", "--dry-run", "--output=json"]);
    assert_eq!(said(&waits)["result"], "WaitingForGates", "{waits:?}");
    for absent in ["staging/team/app:latest", "prod/team/app:1.4.2"] {
        assert_eq!(pull(&serving, absent).0, 404, "{absent}");
    }

    // Two days later.
    let policies = fs::read_to_string(place.path().join("config/policies.yaml")).unwrap();
    place.write("config/policies.yaml", &policies.replace("duration: 48h", "duration: 1ms"));
    until_pulled(&serving, "prod/team/app:1.4.2", &image).await;
    let counted = |text: &str, policy: &str| {
        text.contains(&format!("stowage_promotions_total{{policy=\"{policy}\",result=\"Promoted\"}} 1"))
    };
    let metrics = body(&serving, "/metrics");
    assert!(counted(&metrics, "dev-to-staging") && counted(&metrics, "staging-to-prod"), "{metrics}");
    let report: Value = serde_json::from_str(&body(&serving, "/config")).unwrap();
    let of = |resource: &&Value| resource["name"] == "staging-to-prod";
    let last = &report["resources"].as_array().unwrap().iter().find(of).unwrap()["promoted"];
    assert_eq!(
        (&last["source"], &last["target"], &last["digest"]),
        (&"staging/team/app:1.4.2".into(), &"prod/team/app:1.4.2".into(), &image.digest.to_string().into())
    );
    serving.stop().await;
}

async fn until_pulled(program: &Program, name: &str, image: &Image) {
    until(name, || (pull(program, name) == (200, image.manifest.clone())).then_some(())).await;
}

/// What the operations port says.
fn body(program: &Program, path: &str) -> String {
    let (_, _, body) = ask(program.address("ops_listen"), "GET", path, "", b"");
    String::from_utf8(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_images_go_from_dev_to_staging_to_prod_when_they_are_asked_for() {
    let place = Place::clustered().await;
    configured(&place, "Manual");
    let serving = Program::start(&mut serve(place.path())).await;
    let image = pushed(&serving, "1.4.2");
    pushed(&serving, "latest");

    let excluded = run(&place, &["--policy=dev-to-staging", "dev/team/app:latest"]);
    assert_eq!(code(&excluded), 3, "{excluded:?}");
    assert!(failure(&excluded).contains("NotCovered"), "{}", failure(&excluded));
    let early = run(&place, &["--policy=staging-to-prod", "staging/team/app:1.4.2"]);
    assert!(code(&early) == 3 && failure(&early).contains("ArtifactNotFound"), "{early:?}");

    let dry = run(&place, &["--policy=dev-to-staging", "dev/team/app:1.4.2", "--dry-run", "--output=json"]);
    assert_eq!((code(&dry), &said(&dry)["result"]), (0, &"AllPassed".into()), "{dry:?}");
    assert_eq!(pull(&serving, "staging/team/app:1.4.2").0, 404);
    let done = run(&place, &["--policy=dev-to-staging", "dev/team/app:1.4.2", "--output=json"]);
    assert_eq!((code(&done), &said(&done)["result"]), (0, &"Promoted".into()), "{done:?}");
    assert_eq!(said(&done)["target"]["repository"], "staging/team/app");
    assert_eq!(pull(&serving, "staging/team/app:1.4.2"), (200, image.manifest.clone()));
    let again = run(&place, &["--policy=dev-to-staging", "dev/team/app:1.4.2"]);
    assert_eq!(code(&again), 0, "{again:?}");
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("AlreadyPromoted "), "{again:?}");

    let young = run(&place, &["--policy=staging-to-prod", "staging/team/app:1.4.2", "--output=json"]);
    assert_eq!((code(&young), &said(&young)["result"]), (3, &"WaitingForGates".into()), "{young:?}");
    let gates = &said(&young)["gates"];
    assert_eq!((&gates[0]["reason"], &gates[0]["status"]), (&"PromotedBy".into(), &"True".into()));
    assert_eq!((&gates[1]["reason"], &gates[1]["status"]), (&"TooYoung".into(), &"Unknown".into()));
    assert!(gates[1]["notBefore"].is_string(), "{gates}");

    // Two days later.
    let policies = fs::read_to_string(place.path().join("config/policies.yaml")).unwrap();
    place.write("config/policies.yaml", &policies.replace("duration: 48h", "duration: 1ms"));
    let done = run(&place, &["--policy=staging-to-prod", "staging/team/app:1.4.2", "--output=json"]);
    assert_eq!((code(&done), &said(&done)["result"]), (0, &"Promoted".into()), "{done:?}");
    assert_eq!(pull(&serving, "prod/team/app:1.4.2"), (200, image.manifest.clone()));
    is_listed(&place, &image);
    serving.stop().await;
}

/// The image went from dev to staging to prod, each once.
fn is_listed(place: &Place, image: &Image) {
    let list = |arguments: &[&str]| {
        let output = program(&["promotions", "list"], place.path()).args(arguments).output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = list(&[]);
    let told: Vec<&str> = all.lines().filter_map(|line| line.split_once(' ')).map(|(_, told)| told).collect();
    let line = |from: &str, to: &str| {
        let digest = image.digest;
        format!("Promoted {from}/team/app:1.4.2 to {to}/team/app:1.4.2 {digest} by {from}-to-{to}")
    };
    assert_eq!(told, [line("staging", "prod"), line("dev", "staging")]);
    let filter = ["--repository=prod/team/app", "--policy=staging-to-prod", "--output=json"];
    let one: Value = serde_json::from_str(&list(&filter)).unwrap();
    assert_eq!((&one["result"], &one["gates"][1]["reason"]), (&"Promoted".into(), &"OldEnough".into()));
    assert_eq!(list(&["--digest", &image.digest.to_string()]), all);
    assert_eq!(list(&["--policy=other"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_a_request_in_a_file_pins_its_digest_and_counts_its_approvals() {
    let place = Place::embedded();
    let policy = "apiVersion: stowage.dev/v1alpha1\nkind: PromotionPolicy\nmetadata: {name: approved}\nspec:\n  \
                  registryRef: {name: main}\n  from: {repositories: [\"dev/**\"]}\n  \
                  to: {repository: \"prod/{path}\"}\n  gates: [{name: yes-men, approval: {required: 1}}]\n";
    place.write("config/policy.yaml", policy);
    let serving = Program::start(&mut serve(place.path())).await;
    let (old, new) = (pushed(&serving, "1.0"), pushed(&serving, "1.1"));
    serving.stop().await;
    let asked = |tag: &str, user: &str, digest: &str, pinned: &str| {
        let text = format!(
            "apiVersion: stowage.dev/v1alpha1\nkind: Promotion\nmetadata: {{name: x, namespace: prod}}\nspec:\n  \
             policyRef: {{name: approved}}\n  artifact: {{repository: dev/team/app, tag: \"{tag}\"}}\n  \
             requestedBy: carol\n  approvals: [{{user: {user}, digest: \"{digest}\"}}]\nstatus:\n  \
             artifact: {{repository: dev/team/app, digest: \"{pinned}\"}}\n"
        );
        place.write("request.yaml", &text);
        let file = place.path().join("request.yaml");
        run(&place, &["--request", file.to_str().unwrap(), "--output=json"])
    };
    let (old, new) = (old.digest.to_string(), new.digest.to_string());
    let own = asked("1.0", "carol", &old, &old);
    assert!(code(&own) == 2 && failure(&own).contains("cannot approve"), "{own:?}");
    let other = asked("1.0", "alice", &new, &old);
    assert_eq!((code(&other), &said(&other)["result"]), (3, &"WaitingForGates".into()), "{other:?}");
    let changed = asked("1.0", "alice", &new, &new);
    assert_eq!((code(&changed), &said(&changed)["result"]), (3, &"ArtifactChanged".into()), "{changed:?}");
    let done = asked("1.0", "alice", &old, &old);
    assert_eq!((code(&done), &said(&done)["result"]), (0, &"Promoted".into()), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_a_promotion_that_cannot_be_is_refused_with_what_to_do() {
    let place = Place::embedded();
    let policy = |more: &str| {
        format!(
            "apiVersion: stowage.dev/v1alpha1\nkind: PromotionPolicy\nmetadata: {{name: to-prod}}\nspec:\n  \
             registryRef: {{name: main}}\n  from: {{repositories: [\"dev/**\"]}}\n  {more}\n"
        )
    };
    place.write("config/policy.yaml", &policy("to: {repository: \"prod/{path}\"}"));
    let unknown = run(&place, &["--policy=other", "dev/app:1"]);
    assert!(code(&unknown) == 2 && failure(&unknown).contains("to-prod"), "{unknown:?}");
    for arguments in [&["--policy=to-prod"][..], &["dev/app:1"], &[], &["--policy=to-prod", "dev/app"]] {
        assert_eq!(code(&run(&place, arguments)), 2, "{arguments:?}");
    }
    place.write("config/policy.yaml", &policy("to: {repository: \"prod/{path}\"}\n  suspend: true"));
    let suspended = run(&place, &["--policy=to-prod", "dev/app:1"]);
    assert!(code(&suspended) == 3 && failure(&suspended).contains("PolicySuspended"), "{suspended:?}");
    place.write("config/policy.yaml", &policy("to: {repository: \"prod/{tag}\"}"));
    let broken = run(&place, &["--policy=to-prod", "dev/app:1"]);
    assert!(code(&broken) == 2 && failure(&broken).contains("spec.to.repository"), "{broken:?}");
    place.write(
        "config/policy.yaml",
        "apiVersion: stowage.dev/v1alpha1\nkind: Promotion\nmetadata: {name: x}\n",
    );
    let misplaced = run(&place, &["--policy=to-prod", "dev/app:1"]);
    assert!(code(&misplaced) == 2 && failure(&misplaced).contains("promote --request"), "{misplaced:?}");
}
