// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Five mirrors in one Registry, each of which gets into its upstream in another way, and one name for them all.

use std::fs;

use serde_json::Value;

use crate::purge::Place;
use crate::support::certificates::Authority;
use crate::support::program::{Program, ask, serve};
use crate::upstream::login::{with_password, with_tokens};
use crate::upstream::secure::over_tls;
use crate::upstream::servers::{Image, distribution, push};

/// A mirror of the upstream at `url` below its own name, with these fields in `upstream`.
fn mirror(name: &str, url: &str, fields: &str) -> String {
    format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: {name}}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: {name}\n  mode: PullThrough\n  \
         upstream: {{url: '{url}', network: Any{fields}}}\n"
    )
}

/// All of them under one path.
fn one_name(mirrors: &[&str]) -> String {
    let member = |name: &&str| format!("  - {{name: {name}, mirrorRef: {{name: {name}}}}}\n");
    let members: String = mirrors.iter().map(member).collect();
    format!(
        "---\napiVersion: stowage.dev/v1alpha1\nkind: VirtualRepository\nmetadata: {{name: all}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: all\n  members:\n{members}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o2_five_mirrors_of_one_registry_get_in_each_in_its_own_way_and_have_one_name() {
    let open = distribution(&Value::Null, &[]).await;
    let anonymous = push(open.address(), "", "anybody/app", "1", b"anonymous");
    let (basic, with_basic) = with_password().await;
    let (_issuer, bearer, with_bearer) = with_tokens().await;
    let (authority, clients) = (Authority::new("theirs"), Authority::new("of clients"));
    let (sealed, behind_tls) = over_tls(&authority, None).await;
    let (mutual, behind_both) = over_tls(&authority, Some(&clients)).await;

    let place = Place::embedded();
    for (login, password) in [("basic", "p:w"), ("bearer", "secret")] {
        place.write(&format!("secrets/{login}/username"), "alice");
        place.write(&format!("secrets/{login}/password"), password);
    }
    let us = clients.issue(&["us"]);
    place.write("secrets/us/tls.crt", &us.chain);
    place.write("secrets/us/tls.key", &us.key);
    place.write("secrets/theirs/ca.crt", &authority.pem());
    let believing = ", caSecretRef: {name: theirs, key: ca.crt}";
    let names = ["anonymous", "basic", "bearer", "sealed", "mutual"];
    let documents = [
        mirror("anonymous", &open.origin(), ""),
        mirror("basic", &basic.origin(), ", secretRef: {name: basic}"),
        mirror("bearer", &bearer.origin(), ", secretRef: {name: bearer}"),
        mirror("sealed", &format!("https://{}", sealed.address()), believing),
        mirror(
            "mutual",
            &format!("https://{}", mutual.address()),
            &format!("{believing}, clientCertSecretRef: {{name: us}}"),
        ),
        one_name(&names),
    ];
    let file = place.path().join("config/registry.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + &documents.concat()).unwrap();
    let process = Program::start(&mut serve(place.path())).await;

    let is_served = |path: &str, image: &Image| {
        let (status, head, manifest) = process.ask("GET", &format!("/v2/{path}/manifests/1"), "", b"");
        assert_eq!((status, manifest == image.manifest), (200, true), "{path}: {head}");
        let blob = format!("/v2/{path}/blobs/{}", image.layer_digest);
        let (status, head, layer) = process.ask("GET", &blob, "", b"");
        assert_eq!((status, layer == image.layer), (200, true), "{path}: {head}");
    };
    let own = [
        ("anonymous/anybody/app", &anonymous),
        ("basic/app", &with_basic),
        ("bearer/team/app", &with_bearer),
        ("sealed/app", &behind_tls),
        ("mutual/app", &behind_both),
    ];
    for (path, image) in own {
        is_served(path, image);
    }
    // Of those that three upstreams have under one name, the first counts.
    for (path, image) in
        [("all/anybody/app", &anonymous), ("all/team/app", &with_bearer), ("all/app", &with_basic)]
    {
        is_served(path, image);
    }
    let (_, _, body) = ask(process.address("ops_listen"), "GET", "/config", "", b"");
    let report: Value = serde_json::from_slice(&body).unwrap();
    let resources = report["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 6, "{report:#}");
    assert!(resources.iter().all(|resource| resource["reason"].is_null()), "one is in trouble: {report:#}");
}
