// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the program asks for when nobody asks it.

use std::time::Duration;

use stowage_oci::{Algorithm, Digest};

use crate::purge::Place;
use crate::support::postgres::proxied;
use crate::support::program::{Program, ask, serve, until};
use crate::support::proxy::Line;

/// Requests to the bucket or folder so far, as the program counts them.
fn store_requests(process: &Program) -> u64 {
    let (status, _, body) = ask(process.address("ops_listen"), "GET", "/metrics", "", b"");
    assert_eq!(status, 200);
    let text = String::from_utf8(body).unwrap();
    let counts = text.lines().filter(|line| line.starts_with("stowage_store_requests_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn readiness(process: &Program) -> String {
    let (_, _, body) = ask(process.address("ops_listen"), "GET", "/readyz?verbose", "", b"");
    String::from_utf8(body).unwrap()
}

fn push(process: &Program, content: &str) -> u16 {
    let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(Algorithm::Sha256, content.as_bytes()));
    process.ask("POST", &target, "", content.as_bytes()).0
}

/// What the start has left to do is done, and a bit of traffic has passed.
async fn settled(place: &Place) -> Program {
    let process = Program::start(&mut serve(place.path())).await;
    assert_eq!(push(&process, "content"), 201);
    tokio::time::sleep(Duration::from_secs(5)).await;
    process
}

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn l_31_an_idle_replica_asks_the_database_at_most_four_times_a_minute_and_the_bucket_never() {
    let (shared, embedded) = (Place::clustered().await, Place::embedded());
    let (proxy, url) = proxied(&shared.shared.as_ref().unwrap().1).await;
    shared.write("secrets/database/url", &url);
    let (replica, single) = tokio::join!(settled(&shared), settled(&embedded));
    let requests = || [store_requests(&replica), store_requests(&single)];
    let (statements, asked) = (proxy.statements(), requests());
    assert!(
        statements > 0 && asked.iter().all(|count| *count > 0),
        "they are counted: {statements} {asked:?}"
    );
    // As a node and an operator do all the time.
    for _ in 0..12 {
        tokio::time::sleep(MINUTE / 12).await;
        assert!(readiness(&replica).ends_with("database: ok\nconfiguration: ok\nok\n"));
        ask(replica.address("ops_listen"), "GET", "/config", "", b"");
    }
    let more = proxy.statements() - statements;
    assert!(more <= 4, "{more} statements");
    assert_eq!(requests(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_noticed_by_the_first_request_and_so_is_its_return() {
    let place = Place::clustered().await;
    let (proxy, url) = proxied(&place.shared.as_ref().unwrap().1).await;
    place.write("secrets/database/url", &url);
    let process = settled(&place).await;
    proxy.set(Line::Dead);
    assert_eq!(process.ask("GET", "/v2/a/manifests/v1", "", b"").0, 404, "the bucket answers");
    let says = |what: &'static str| readiness(&process).contains(what).then_some(());
    until("it is noticed", || says("database: degraded: unreachable")).await;
    proxy.set(Line::Up);
    // Nobody asks for anything.
    until("its return is noticed", || says("database: ok")).await;
}
