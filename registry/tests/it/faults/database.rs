// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database fails: at every answer of a push, for ten seconds, and by a restart.

use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};

use super::client::{Client, Push, image, sha256};
use super::cluster::{Cluster, holding};
use super::line::{Line, State};
use crate::support::postgres::{Restartable, database};

/// Everything that a pull asks of `push`, answered from the bucket.
async fn assert_pulled_degraded(client: &Client, push: &Push) {
    let repository = &push.repository;
    for target in [
        format!("/v2/{repository}/manifests/v1"),
        format!("/v2/{repository}/manifests/{}", push.digest()),
        format!("/v2/{repository}/blobs/{}", sha256(&push.layer)),
        format!("/v2/{repository}/referrers/{}", sha256(b"subject")),
    ] {
        let answer = client.get(&target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert!(answer.is_degraded(), "{target}: no warning");
        let head = client.ask(Method::HEAD, &target).await.unwrap();
        assert!(head.status == 200 || target.contains("referrers"), "{target}: {head:?}");
    }
    push.assert_there(client, "from the bucket").await;
    let unknown = format!("/v2/{repository}/blobs/{}", sha256(b"nobody pushed this"));
    assert_eq!(client.get(&unknown).await.status, 404);
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list")).await.status, 503);
    assert_eq!(client.get("/v2/").await.status, 200);
}

async fn ten_seconds_without(state: State) {
    let url = database().await;
    let (line, by_line) = Line::to(&url).await;
    let cluster = Cluster::over(url).await;
    let patient = cluster.replica_at(&by_line, holding(Duration::from_secs(30))).await;
    let hasty = cluster.replica_at(&by_line, holding(Duration::from_secs(1))).await;
    let push = Push::small(1);
    push.attempt(&patient.client).await.unwrap();
    line.set(state);
    let gone = Instant::now();
    let outage = async {
        assert_pulled_degraded(&hasty.client, &push).await;
        let failed = hasty.client.open_upload("app").await.unwrap_err();
        failed.assert_passing("a push that does not wait");
        while gone.elapsed() < Duration::from_secs(10) {
            assert_pulled_degraded(&patient.client, &push).await;
            sleep(Duration::from_millis(200)).await;
        }
        line.set(State::Up);
    };
    let mut later = push.manifest.clone();
    later["annotations"] = serde_json::json!({ "later": "yes" });
    let waiting = patient.client.put_manifest(&push.repository, "v2", &later);
    let other = Push::small(2);
    let (pushed, whole, ()) = futures::join!(waiting, other.attempt(&patient.client), outage);
    pushed.expect("a push that waits for the database succeeds when it is back");
    whole.expect("a push that begins in the outage does too");
    for replica in [&patient, &hasty] {
        recovered(&replica.client, &format!("/v2/{}/manifests/v1", push.repository)).await;
        other.assert_there(&replica.client, "after the outage").await;
        let tag = replica.client.get(&format!("/v2/{}/manifests/v2", push.repository)).await;
        assert_eq!(tag.body, later.to_string());
    }
}

/// Waits until answers come from the database again.
async fn recovered(client: &Client, target: &str) {
    let begun = Instant::now();
    while client.get(target).await.is_degraded() {
        assert!(begun.elapsed() < Duration::from_secs(10), "still degraded");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w400_w475_l_62_ten_seconds_without_a_database_stop_no_pull_and_fail_no_push_that_can_wait() {
    ten_seconds_without(State::Refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w400_w475_l_62_ten_seconds_of_a_database_that_stalls_stop_no_pull_and_fail_no_push_that_can_wait() {
    ten_seconds_without(State::Stalled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l_62_a_push_survives_the_loss_of_any_answer_of_the_database() {
    let url = database().await;
    let (line, by_line) = Line::to(&url).await;
    let cluster = Cluster::over(url).await;
    let replica = cluster.replica_at(&by_line, holding(Duration::from_secs(5))).await;
    for n in 1.. {
        let (push, occasion) = (Push::small(100 + n), format!("answer {n}"));
        line.set(State::CutAnswer(n));
        let pushed = push.attempt(&replica.client).await;
        let ended = line.answers() < n;
        line.set(State::Up);
        if let Err(failed) = pushed {
            // A request that lost its lease to its own repetition says 503; the client comes back.
            failed.assert_passing(&occasion);
            push.assert_whole_or_absent(&replica.client, &occasion).await;
            push.attempt(&replica.client).await.unwrap_or_else(|failed| panic!("{occasion}: {failed:?}"));
        }
        recovered(&replica.client, &format!("/v2/{}/manifests/v1", push.repository)).await;
        push.assert_there(&replica.client, &occasion).await;
        if ended {
            assert!(n > 20, "{n}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l_62_a_delete_survives_the_loss_of_any_answer_of_the_database() {
    let url = database().await;
    let (line, by_line) = Line::to(&url).await;
    let cluster = Cluster::over(url).await;
    let replica = cluster.replica_at(&by_line, holding(Duration::from_secs(5))).await;
    for n in 1.. {
        let push = Push::small(500 + n);
        push.attempt(&replica.client).await.unwrap();
        line.set(State::CutAnswer(n));
        for reference in ["v1".to_owned(), push.digest().to_string()] {
            let target = format!("/v2/{}/manifests/{reference}", push.repository);
            let answer = replica.client.ask(Method::DELETE, &target).await.unwrap();
            // 404: the first attempt did it, and its answer was lost.
            assert!(matches!(answer.status, 202 | 404 | 503), "answer {n}: {answer:?}");
        }
        let ended = line.answers() < n;
        line.set(State::Up);
        for reference in ["v1".to_owned(), push.digest().to_string()] {
            let target = format!("/v2/{}/manifests/{reference}", push.repository);
            let answer = replica.client.ask(Method::DELETE, &target).await.unwrap();
            assert!(matches!(answer.status, 202 | 404), "answer {n}: {answer:?}");
            assert_eq!(replica.client.get(&target).await.status, 404);
        }
        if ended {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w481_after_a_restart_of_the_database_pushes_go_on_in_a_new_epoch_and_tags_keep_their_order() {
    let server = Restartable::start().await;
    let cluster = Cluster::over(server.database().await).await;
    let replicas = [cluster.replica().await, cluster.replica().await];
    let epochs = async || cluster.bucket().await.list("v1/epoch/", None, 100).await.unwrap().len();
    replicas[0].client.push_blob("app", b"{}").await.unwrap();
    let mut newest = String::new();
    for turn in 0..3 {
        for (n, replica) in replicas.iter().enumerate() {
            let mut manifest = image(&[]);
            manifest["annotations"] = serde_json::json!({ "n": format!("{turn}.{n}") });
            replica.client.put_manifest("app", "v1", &manifest).await.unwrap();
            newest = manifest.to_string();
        }
        for replica in &replicas {
            assert_eq!(replica.client.get("/v2/app/manifests/v1").await.body, newest);
        }
        server.stop().await;
        let answer = replicas[0].client.get("/v2/app/manifests/v1").await;
        assert!(answer.body == newest && answer.is_degraded(), "{answer:?}");
        server.go_on().await;
    }
    assert_eq!(replicas[1].client.get("/v2/app/manifests/v1").await.body, newest);
    assert_eq!(epochs().await, 3);
}
