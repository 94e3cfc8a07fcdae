// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs of the program from an upstream whose certificate has expired.

use std::fs;

use serde_json::Value;

use super::command::{APP, configure, sync, text};
use crate::purge::{Place, assert_code};
use crate::support::program::{Program, ask, serve, until};
use crate::upstream::front::{Front, Notary};
use crate::upstream::servers::{distribution, push};

async fn a_certificate_that_has_expired_is_named_and_the_next_one_is_believed(place: Place) {
    let upstream = distribution(&Value::Null, &[]).await;
    push(upstream.address(), "", "team/app", "1.0", b"layer");
    let notary = Notary::new();
    let front = Front::to(upstream.address(), &notary.valid()).await;
    place.write("secrets/upstream-ca/ca.crt", &notary.pem());
    let mirror = format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: base}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: base\n  mode: Replicate\n  upstream: {{url: \"{}\", \
         network: Any, caSecretRef: {{name: upstream-ca, key: ca.crt}}}}\n{APP}",
        front.origin()
    );
    configure(&place, &mirror);
    assert_code(&sync(&place, &[]).output().unwrap(), 0);
    push(upstream.address(), "", "team/app", "2.0", b"another layer");

    front.show(&notary.expired());
    let failed = sync(&place, &[]).output().unwrap();
    assert_code(&failed, 1);
    let told = text(&failed);
    let line = told.lines().find(|line| line.starts_with("failed ")).unwrap_or_default();
    assert!(line.starts_with("failed team/app: CertificateInvalid: ") && line.contains("expired"), "{told}");
    let log = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(log.lines().last().unwrap().contains("team/app (CertificateInvalid)"), "{log}");

    // The process that serves starts runs, too; what they came to is in its report.
    let file = place.path().join("config/registry.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "  interval: 1s\n").unwrap();
    let serving = Program::start(&mut serve(place.path())).await;
    let run = || {
        let (_, _, body) = ask(serving.address("ops_listen"), "GET", "/config", "", b"");
        let report: Value = serde_json::from_slice(&body).unwrap();
        let resources = report["resources"].as_array().unwrap().clone();
        let mirror = resources.into_iter().find(|resource| resource["kind"] == "Mirror")?;
        Some(mirror["run"].clone()).filter(|run| run["result"].is_string())
    };
    let pull = |tag: &str| serving.ask("GET", &format!("/v2/base/team/app/manifests/{tag}"), "", b"").0;
    let told = until("a run is told of", run).await;
    assert_eq!(told["result"], "Failed", "{told}");
    assert!(told["message"].as_str().unwrap().contains("team/app (CertificateInvalid)"), "{told}");
    assert_eq!((pull("1.0"), pull("2.0")), (200, 404), "what is here stays");
    front.show(&notary.valid());
    until("a later run succeeds", || run().filter(|run| run["result"] == "Succeeded")).await;
    assert_eq!((pull("1.0"), pull("2.0")), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_over_a_folder_an_expired_certificate_is_named_and_the_next_one_is_believed() {
    a_certificate_that_has_expired_is_named_and_the_next_one_is_believed(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_over_a_bucket_and_postgresql_an_expired_certificate_is_named_and_the_next_one_is_believed() {
    a_certificate_that_has_expired_is_named_and_the_next_one_is_believed(Place::clustered().await).await;
}
