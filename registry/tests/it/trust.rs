// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who must show a certificate to whom: the database to the program, clients to the data port. With a real
//! PostgreSQL and a real curl.

use std::path::Path;
use std::process::{Command, Output};

use stowage_registry::meta::postgres::{ConnectError, Options, PostgresStore, migrate};

use crate::purge::Place;
use crate::support::certificates::{Authority, Issued};
use crate::support::postgres::Restartable;
use crate::support::program::{Program, program, serve};

/// A server whose certificate names `localhost`, and its authority.
async fn database() -> (Restartable, u16, Authority) {
    let authority = Authority::new("of the database");
    let (server, port) = Restartable::with_certificate(&authority.issue(&["localhost"])).await;
    (server, port, authority)
}

fn url(host: &str, port: u16, mode: &str) -> String {
    format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}")
}

/// Runs a command of a registry whose database is at `url`, under the authority `ca`.
fn run(command: &[&str], url: &str, ca: &str) -> Output {
    let place = Place::embedded();
    let database =
        "postgres: {urlSecretRef: {name: database, key: url}, caSecretRef: {name: database, key: ca.crt}}";
    place.configure("s3: {bucket: none, region: none}", database);
    place.write("secrets/database/url", url);
    place.write("secrets/database/ca.crt", ca);
    program(command, place.path()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_a_database_must_show_a_certificate_of_its_authority_for_its_host() {
    let (_server, port, authority) = database().await;
    let (own, other) = (authority.pem(), Authority::new("of somebody else").pem());
    for (host, mode, ca, code) in [
        ("localhost", "verify-full", &own, 0),
        // Less is never done where there is an authority.
        ("localhost", "prefer", &own, 0),
        ("localhost", "prefer", &other, 3),
        ("localhost", "verify-full", &other, 3),
        ("127.0.0.1", "verify-full", &own, 3),
    ] {
        let ended = run(&["migrate"], &url(host, port, mode), ca);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{host} {mode}: {said}");
        if code != 0 {
            let last = said.lines().last().unwrap();
            assert!(last.contains("spec.database.postgres") && last.contains("caSecretRef"), "{last}");
            assert!(last.contains("certificate"), "{last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_verify_full_in_the_url_alone_trusts_no_private_authority() {
    let (_server, port, authority) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, authority.pem()).unwrap();
    let trusting = Options { ca: Some(ca), ..Options::new(url("localhost", port, "verify-full")) };
    migrate(&trusting).await.unwrap();
    PostgresStore::connect(&trusting).await.unwrap();
    let refused = PostgresStore::connect(&Options { ca: None, ..trusting }).await;
    assert!(matches!(refused, Err(ConnectError::Untrusted(_))), "{refused:?}");
    // The server itself takes nobody without TLS, so the first connection was over it.
    let plain = PostgresStore::connect(&Options::new(url("localhost", port, "disable"))).await;
    assert!(plain.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_a_start_does_not_wait_for_a_database_that_it_must_not_trust() {
    let (_server, port, _) = database().await;
    let ca = Authority::new("of somebody else").pem();
    let place = Place::clustered().await;
    place.write("secrets/database/url", &url("localhost", port, "verify-full"));
    place.write("secrets/database/ca.crt", &ca);
    let configuration = std::fs::read_to_string(place.path().join("config/registry.yaml")).unwrap();
    let trusting = configuration.replace(
        "urlSecretRef: {name: database, key: url}",
        "urlSecretRef: {name: database, key: url}, caSecretRef: {name: database, key: ca.crt}",
    );
    assert_ne!(trusting, configuration);
    place.write("config/registry.yaml", &trusting);
    let ended = serve(place.path()).output().unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// What curl gets from `/v2/`, and the code it ends with.
fn curl(folder: &Path, address: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let port = address.rsplit(':').next().unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--write-out", "%{http_code}", "--output", "/dev/null"]);
    curl.args(["--max-time", "20", "--cacert", "server-ca.crt"]).args(arguments);
    curl.arg(format!("https://localhost:{port}/v2/")).current_dir(folder).env_clear();
    let output = curl.env("PATH", std::env::var_os("PATH").unwrap()).output().expect("run curl");
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn o16_no_certificate_no_handshake() {
    let (servers, clients) = (Authority::new("of servers"), Authority::new("of clients"));
    let place = Place::embedded();
    let write = |name: &str, Issued { chain, key }: &Issued| {
        place.write(&format!("{name}.crt"), chain);
        place.write(&format!("{name}.key"), key);
    };
    write("secrets/tls/tls", &servers.issue(&["localhost"]));
    place.write("secrets/tls/clients.crt", &clients.pem());
    place.write("server-ca.crt", &servers.pem());
    write("known", &clients.issue(&["client"]));
    write("stranger", &Authority::new("of clients").issue(&["client"]));
    place.specify("  tls: {secretRef: {name: tls}, clientCASecretRef: {name: tls, key: clients.crt}}\n");
    let process = Program::start(&mut serve(place.path())).await;
    let address = process.address("listen");
    for version in ["--tls-max=1.2", "--tlsv1.3"] {
        let version: Vec<&str> = version.split('=').collect();
        let with = |name: &str| {
            let files = [format!("{name}.crt"), format!("{name}.key")];
            let arguments = [&version[..], &["--cert", &files[0], "--key", &files[1]]].concat();
            curl(place.path(), address, &arguments)
        };
        assert_eq!(with("known"), ("200".to_owned(), Some(0)), "{version:?}");
        for (what, (status, code)) in
            [("none", curl(place.path(), address, &version)), ("a stranger's", with("stranger"))]
        {
            assert_eq!(status, "000", "{version:?}, {what}");
            // Where it notices depends on the version of TLS and on which of both is faster.
            assert_ne!(code, Some(0), "{version:?}, {what}");
        }
    }
    let answered = process.lines("request answered");
    assert!(answered.len() == 2 && answered.iter().all(|line| line["http.status"] == 200), "{answered:?}");
}
