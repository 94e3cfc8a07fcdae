// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How the program starts when what it stands on is away, would harm it, or is elsewhere.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::purge::Place;
use crate::support::postgres::proxied;
use crate::support::program::{self, Program, free_port};
use crate::support::proxy::Line;
use crate::support::s3::{Kind, expire_after_a_day};

fn serve(place: &Place, ops: &str) -> Child {
    let flag = |name: &str| place.path().join(name);
    Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
        .args(["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--drain-delay=0"])
        .args(["--ops-listen", ops, "--config"])
        .arg(flag("config"))
        .arg("--secrets-dir")
        .arg(flag("secrets"))
        .arg("--data-dir")
        .arg(flag("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The answer of the operations port, empty while there is none.
fn readiness(ops: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(ops) {
        let request = "GET /readyz?verbose HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_string(&mut answer).unwrap();
    }
    answer
}

async fn until_ready(ops: &str, status: &str) -> String {
    for _ in 0..300 {
        let answer = readiness(ops);
        if answer.starts_with(&format!("HTTP/1.1 {status}")) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {status}: {}", readiness(ops));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_a_database_that_is_away() {
    let place = Place::clustered().await;
    let (proxy, url) = proxied(&place.shared.as_ref().unwrap().1).await;
    place.write("secrets/database/url", &url);
    proxy.set(Line::Dead);
    let ops = format!("127.0.0.1:{}", free_port());
    let mut process = serve(&place, &ops);
    let waiting = until_ready(&ops, "503").await;
    assert!(waiting.contains("starting"), "{waiting}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(process.try_wait().unwrap(), None);
    proxy.set(Line::Up);
    until_ready(&ops, "200").await;
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_rule_removes_old_objects_is_refused() {
    let place = Place::on(Kind::Minio).await;
    expire_after_a_day(&place.shared.as_ref().unwrap().0).await;
    let ended = serve(&place, "127.0.0.1:0").wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{log}");
    assert!(log.contains("lifecycle rule \"old\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_folder_that_was_packed_and_unpacked_elsewhere_answers_as_before() {
    let (here, there) = (Place::embedded(), Place::embedded());
    let first = Program::start(&mut program::serve(here.path())).await;
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let blob = format!("/v2/team/app/blobs/uploads/?digest={digest}");
    assert_eq!(first.ask("POST", &blob, "", b"{}").0, 201);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let config =
        format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}}"#);
    let manifest =
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[]}}"#);
    let tag = "/v2/team/app/manifests/1.0";
    let kind = format!("Content-Type: {media_type}\r\n");
    assert_eq!(first.ask("PUT", tag, &kind, manifest.as_bytes()).0, 201);
    first.stop().await;

    let pack = format!(
        "rm -rf '{1}/data' && tar -C '{0}' -c data | tar -C '{1}' -x && rm -r '{0}/data'",
        here.path().display(),
        there.path().display(),
    );
    assert!(Command::new("sh").args(["-c", &pack]).status().unwrap().success());
    let second = Program::start(&mut program::serve(there.path())).await;
    let read = |target: &str| {
        let (status, _, body) = second.ask("GET", target, "", b"");
        (status, String::from_utf8(body).unwrap())
    };
    assert_eq!(read(tag), (200, manifest));
    assert_eq!(read(&format!("/v2/team/app/blobs/{digest}")), (200, "{}".to_owned()));
    assert_eq!(read("/v2/team/app/tags/list").1, r#"{"name":"team/app","tags":["1.0"]}"#);
    assert_eq!(second.ask("DELETE", tag, "", b"").0, 202, "it goes on from there");
    second.stop().await;
}
