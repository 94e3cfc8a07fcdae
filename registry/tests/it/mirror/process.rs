// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A mirror as a resource, served by the program.

use std::fs;

use super::line::{Line, Way};
use crate::purge::Place;
use crate::support::program::{Program, ask, serve, until};
use crate::upstream::servers::{Stowage, push};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o26_p41_a_mirror_is_configured_counted_logged_and_its_trouble_is_told() {
    let upstream = Stowage::open().await;
    let image = push(&upstream.address(), "", "team/app", "1.0", b"layer");
    let line = Line::to(&upstream.address()).await;
    let place = Place::embedded();
    place.configure("filesystem: {}", "sqlite: {}");
    let file = place.path().join("config/registry.yaml");
    let mirror = format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: hub}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: mirrors/hub\n  mode: PullThrough\n  \
         upstream: {{url: \"http://{}\", network: Any}}\n  cache: {{tagTTL: 1s}}\n",
        line.address
    );
    fs::write(&file, fs::read_to_string(&file).unwrap() + &mirror).unwrap();
    let program = Program::start(&mut serve(place.path())).await;
    let pull = || program.ask("GET", "/v2/mirrors/hub/team/app/manifests/1.0", "", b"");
    assert_eq!((pull().0, pull().2), (200, image.manifest.clone()));
    let blob = format!("/v2/mirrors/hub/team/app/blobs/{}", image.layer_digest);
    assert_eq!(program.ask("GET", &blob, "", b"").2, b"layer");

    let lines =
        until("all is logged", || Some(program.lines("request answered")).filter(|lines| lines.len() == 3))
            .await;
    let results: Vec<&str> = lines.iter().filter_map(|line| line["mirror.result"].as_str()).collect();
    assert_eq!(results, ["miss", "hit", "miss"]);
    assert!(lines.iter().all(|line| line["mirror.name"] == "hub"), "{lines:?}");
    let metrics = || {
        let (_, _, body) = ask(program.address("ops_listen"), "GET", "/metrics", "", b"");
        String::from_utf8(body).unwrap()
    };
    let received = image.manifest.len() + image.layer.len();
    for counted in [
        r#"stowage_mirror_requests_total{mirror="hub",result="miss"} 2"#.to_owned(),
        r#"stowage_mirror_requests_total{mirror="hub",result="hit"} 1"#.to_owned(),
        format!(r#"stowage_mirror_upstream_bytes_total{{mirror="hub"}} {received}"#),
    ] {
        assert!(metrics().lines().any(|line| line == counted), "{counted}\n{}", metrics());
    }

    line.set(Way::Gone);
    until("it is told", || {
        assert_eq!(pull().0, 200);
        let (_, _, body) = ask(program.address("ops_listen"), "GET", "/config", "", b"");
        let report: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let resources = report["resources"].as_array().unwrap();
        let mirror = resources.iter().find(|resource| resource["kind"] == "Mirror").unwrap();
        (mirror["reason"] == "UpstreamUnreachable").then_some(())
    })
    .await;
}
