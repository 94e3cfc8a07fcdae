// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How the program starts when what it stands on is away, or would harm it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::purge::Place;
use crate::support::postgres::proxied;
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
    let ops = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
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
