// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A virtual repository as a resource, served by the program.

use std::fs;

use serde_json::Value;

use crate::purge::Place;
use crate::support::program::{Program, ask, serve, until};
use crate::upstream::servers::{Stowage, push};

const VIRTUAL: &str = "---
apiVersion: stowage.dev/v1alpha1
kind: VirtualRepository
metadata: {name: all}
spec:
  registryRef: {name: main}
  path: all
  members:
  - {name: team, repository: team-a}
  - {name: hub, mirrorRef: {name: hub}}
  pushTo: team
";

fn report(program: &Program) -> Value {
    let (_, _, body) = ask(program.address("ops_listen"), "GET", "/config", "", b"");
    let report: Value = serde_json::from_slice(&body).unwrap();
    let mut resources = report["resources"].as_array().into_iter().flatten();
    resources.find(|resource| resource["kind"] == "VirtualRepository").cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w451_w882_h7_a_virtual_repository_is_configured_counted_logged_and_what_it_hides_is_told() {
    let upstream = Stowage::open().await;
    let theirs = push(&upstream.address(), "", "acme/base", "1.0", b"theirs");
    let place = Place::embedded();
    place.configure("filesystem: {}", "sqlite: {}");
    let file = place.path().join("config/registry.yaml");
    let registry = fs::read_to_string(&file).unwrap();
    let program = Program::start(&mut serve(place.path())).await;
    let own = program.address("listen").to_owned();
    push(&own, "", "all/before", "1.0", b"hidden");
    let mirror = format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: hub}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: mirrors/hub\n  mode: PullThrough\n  \
         upstream: {{url: \"http://{}\", network: Any}}\n",
        upstream.address()
    );
    fs::write(&file, format!("{registry}{mirror}{VIRTUAL}")).unwrap();
    until("it is in force", || (!report(&program).is_null()).then_some(())).await;

    let pushed = push(&own, "", "all/app", "1.0", b"ours");
    let pull = |name: &str| program.ask("GET", &format!("/v2/{name}/manifests/1.0"), "", b"");
    for (name, manifest) in
        [("all/app", &pushed.manifest), ("team-a/app", &pushed.manifest), ("all/acme/base", &theirs.manifest)]
    {
        let (status, _, body) = pull(name);
        assert_eq!((status, &body), (200, manifest), "{name}");
    }
    assert_eq!(pull("all/before").0, 404);
    let told =
        until("what it hides is told", || Some(report(&program)).filter(|told| !told["reason"].is_null()))
            .await;
    assert_eq!(told["reason"], "PathHidesRepositories");
    assert!(told["message"].as_str().unwrap().contains("all/before"), "{told}");

    let line = until("it is logged", || {
        program.lines("request answered").into_iter().find(|line| line["repo.name"] == "all/acme/base")
    })
    .await;
    assert_eq!((&line["mirror.name"], &line["mirror.result"]), (&"hub".into(), &"miss".into()));
    let (_, _, metrics) = ask(program.address("ops_listen"), "GET", "/metrics", "", b"");
    let counted = r#"stowage_mirror_requests_total{mirror="hub",result="miss"} 1"#;
    assert!(String::from_utf8(metrics).unwrap().lines().any(|line| line == counted));
}
