// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Images that are fetched through a mirror ahead of need, by the program.

use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};

use super::line::{Line, Way};
use crate::purge::{Place, assert_code};
use crate::support::program::{Program, ask, program, serve};
use crate::upstream::servers::{Image, Process, distribution, push};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with a mirror, and what it mirrors.
struct Loading {
    place: Place,
    upstream: Process,
    line: Line,
}

impl Loading {
    async fn on(place: Place) -> Self {
        let upstream = distribution(&Value::Null, &[]).await;
        let line = Line::to(upstream.address()).await;
        let loading = Self { place, upstream, line };
        loading.mirror("");
        loading
    }

    fn mirror(&self, cache: &str) {
        let mirror = format!(
            "apiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: hub}}\nspec:\n  \
             registryRef: {{name: main}}\n  path: hub\n  mode: PullThrough\n  \
             upstream: {{url: \"http://{}\", network: Any, hosts: [hub.example.com]}}\n{cache}",
            self.line.address
        );
        self.place.write("config/mirror.yaml", &mirror);
    }

    fn push(&self, repository: &str, tag: &str, layer: &[u8]) -> Image {
        push(self.upstream.address(), "", repository, tag, layer)
    }

    /// Runs `load`; a line of JSON for each image and, if it was all, the summary.
    fn load(&self, code: i32, arguments: &[&str]) -> (Vec<Value>, String) {
        let mut load = program(&["load"], self.place.path());
        load.args(["--mirror=hub", "--output=json"]).args(arguments).current_dir(self.place.path());
        let output = load.output().unwrap();
        assert_code(&output, code);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(|line| line["name"].to_string());
        let log = String::from_utf8_lossy(&output.stderr);
        (lines, log.lines().last().unwrap_or_default().to_owned())
    }

    fn fetched(&self) -> Vec<String> {
        self.line
            .asked()
            .into_iter()
            .filter(|asked| asked.starts_with("GET") && asked.contains("/blobs/"))
            .collect()
    }
}

fn assert_here(at: &Program, repository: &str, image: &Image) {
    let target = format!("/v2/hub/{repository}/manifests/{}", image.digest);
    assert_eq!(at.ask("GET", &target, "", b"").2, image.manifest);
    let target = format!("/v2/hub/{repository}/blobs/{}", image.layer_digest);
    assert_eq!(at.ask("GET", &target, "", b"").2, image.layer);
}

async fn o9_a_list_is_fetched_once_and_served_without_the_upstream(place: Place) {
    let site = Loading::on(place).await;
    let one = site.push("team/app", "1.0", b"one");
    let other = site.push("team/app", "1.1", b"other");
    site.push("team/app", "2.0", b"not wanted");
    let tool = site.push("team/tool", "v1", b"tool");
    site.place.write("images.txt", "# what we need\nteam/app:1.*\nhub.example.com/team/tool:v1 # by host\n");
    let (lines, _) = site.load(0, &["--images=images.txt"]);
    let results: Vec<String> =
        lines.iter().map(|line| format!("{} {}", line["result"], line["name"])).collect();
    let expected = [
        "null null",
        "\"loaded\" \"hub/team/app:1.0\"",
        "\"loaded\" \"hub/team/app:1.1\"",
        "\"loaded\" \"hub/team/tool:v1\"",
    ];
    let mut sorted = results.clone();
    sorted.sort_by_key(|line| !line.starts_with("null"));
    assert_eq!(sorted, expected);
    let fetched = site.fetched();
    for image in [&one, &other, &tool] {
        let layer = image.layer_digest.to_string();
        assert_eq!(fetched.iter().filter(|asked| asked.ends_with(&layer)).count(), 1, "{fetched:#?}");
    }
    assert!(fetched.len() <= 3 + 2, "layers, and the config of each repository at most: {fetched:#?}");

    // Beside a server, again: all is here.
    let serving = Program::start(&mut serve(site.place.path())).await;
    let (lines, _) = site.load(0, &["--images=images.txt"]);
    assert_eq!(lines.iter().filter(|line| line["result"] == "present").count(), 3, "{lines:?}");
    assert!(site.fetched().is_empty());
    site.line.set(Way::Gone);
    for (repository, image) in [("team/app", &one), ("team/app", &other), ("team/tool", &tool)] {
        assert_here(&serving, repository, image);
    }
}

async fn only_wanted_platforms_are_fetched(place: Place) {
    let site = Loading::on(place).await;
    let images = ["amd64", "arm64"].map(|name| site.push("team/multi", name, name.as_bytes()));
    let manifests: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .zip(&images)
        .map(|(architecture, image)| {
            json!({"mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let fields = format!("Content-Type: {INDEX}\r\n");
    let target = "/v2/team/multi/manifests/v1";
    assert_eq!(ask(site.upstream.address(), "PUT", target, &fields, index.as_bytes()).0, 201);

    let (lines, _) = site.load(0, &["team/multi:v1", "--platform=linux/arm64"]);
    let digest = Digest::of(Algorithm::Sha256, index.as_bytes()).to_string();
    assert!(lines.iter().any(|line| line["digest"] == digest.as_str()), "{lines:?}");
    let serving = Program::start(&mut serve(site.place.path())).await;
    site.line.set(Way::Gone);
    assert_here(&serving, "team/multi", &images[1]);
    let target = format!("/v2/hub/team/multi/blobs/{}", images[0].layer_digest);
    assert!(serving.ask("GET", &target, "", b"").0 >= 400);

    site.line.set(Way::Open);
    let (lines, _) = site.load(1, &["team/multi:v1", "--platform=linux/s390x"]);
    assert!(lines[0]["error"].as_str().unwrap().contains("it lists linux/amd64, linux/arm64"), "{lines:?}");
}

async fn what_cannot_be_had_holds_up_nothing_else(place: Place) {
    let site = Loading::on(place).await;
    let image = site.push("team/app", "1.0", b"one");
    let wanted = ["team/app:9", "team/none:*", "team/app:1.0", "team/app:x*"];
    let (lines, last) = site.load(1, &wanted);
    assert!(last.contains("3 of 4 images were not fetched"), "{last}");
    let failed: Vec<&str> = lines
        .iter()
        .filter(|line| line["result"] == "failed")
        .filter_map(|line| line["name"].as_str())
        .collect();
    assert_eq!(failed, ["hub/team/app:9", "hub/team/app:x*", "hub/team/none:*"]);
    let serving = Program::start(&mut serve(site.place.path())).await;
    assert_here(&serving, "team/app", &image);
    drop(serving);

    site.line.set(Way::Wrong);
    site.push("team/app", "1.1", b"another");
    let (lines, _) = site.load(1, &["team/app:1.1"]);
    assert_eq!(lines[0]["result"], "failed", "{lines:?}");
    site.line.set(Way::Open);
    site.load(0, &["team/app:1.1"]);
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
    o9_a_list_is_fetched_once_and_served_without_the_upstream,
    only_wanted_platforms_are_fetched,
    what_cannot_be_had_holds_up_nothing_else,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_asks_nobody_or_is_none_fetches_nothing() {
    let site = Loading::on(Place::embedded()).await;
    let (_, last) = site.load(2, &["other.example.com:v1", "hub:v1"]);
    assert!(last.contains("hub is not a repository of mirror hub"), "{last}");
    site.mirror("  cache: {offline: true}\n");
    let (_, last) = site.load(2, &["team/app:1.0"]);
    assert!(last.contains("suspended or offline"), "{last}");
    let mut load = program(&["load", "--mirror=hup", "a:b"], site.place.path());
    let output = load.output().unwrap();
    assert_code(&output, 2);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("there is no mirror") && log.contains("hub"), "{log}");
    assert!(site.line.asked().is_empty());
}
