// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The bucket fails: at every request of a push, in every way; and when it is full.

use std::time::Duration;

use stowage_registry::blobs::{Effect, Failure, Fault, Occasion, Request};
use stowage_registry::domain::Limits;

use super::client::Push;
use super::cluster::{Cluster, Replica};
use crate::support::s3::Kind;

/// Pushes with `effect` at the n-th request to the bucket, for each n there is. Returns how many there were.
async fn fail_each_request(replica: &Replica, effect: Effect, push: impl Fn(u64) -> Push) -> u64 {
    for n in 1.. {
        let (push, occasion) = (push(n), format!("{effect:?} at request {n}"));
        replica.faults.clear();
        replica.faults.add(Fault::anywhere(effect.clone()).on(Occasion::Nth(n)));
        let pushed = push.attempt(&replica.client).await;
        let struck = replica.faults.struck();
        replica.faults.clear();
        if let Err(failed) = pushed {
            failed.assert_passing(&occasion);
            push.assert_whole_or_absent(&replica.client, &occasion).await;
            push.attempt(&replica.client).await.unwrap_or_else(|failed| panic!("{occasion}: {failed:?}"));
        }
        push.assert_there(&replica.client, &occasion).await;
        if struck == 0 {
            return n - 1;
        }
    }
    unreachable!("a push ends")
}

async fn fail_in_ways(replica: &Replica, effects: &[Effect], least: u64, push: fn(u64) -> Push) {
    let mut seed = 0;
    for effect in effects {
        seed += 1000;
        let requests = fail_each_request(replica, effect.clone(), |n| push(seed + n)).await;
        assert!(requests >= least, "{requests}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w114_l_74_a_large_push_whose_bucket_fails_anywhere_is_told_to_come_back_and_then_succeeds() {
    let replica = Cluster::on(Kind::Versitygw).await.replica().await;
    let effects = [Effect::Fail(Failure::Unavailable), Effect::LoseAnswer];
    fail_in_ways(&replica, &effects, 10, Push::large).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w114_l_74_a_small_push_whose_bucket_fails_anywhere_is_told_to_come_back_and_then_succeeds() {
    let replica = Cluster::on(Kind::Minio).await.replica().await;
    let effects = [
        Effect::Fail(Failure::Unavailable),
        Effect::LoseAnswer,
        Effect::Fail(Failure::Full),
        Effect::Fail(Failure::Refused),
    ];
    fail_in_ways(&replica, &effects, 6, Push::small).await;
    let folder = tempfile::tempdir().unwrap();
    let alone = Replica::embedded(&folder, Limits::default()).await;
    fail_in_ways(&alone, &effects, 6, Push::small).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l_74_a_bucket_that_stalls_at_a_request_only_delays_a_push() {
    let replica = Cluster::on(Kind::Versitygw).await.replica().await;
    let stall = Effect::Delay(Duration::from_millis(300));
    assert!(fail_each_request(&replica, stall, |n| Push::small(7000 + n)).await >= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn w476_without_its_bucket_a_registry_serves_what_the_database_holds() {
    let replica = Cluster::on(Kind::Versitygw).await.replica().await;
    let push = Push::small(1);
    push.attempt(&replica.client).await.unwrap();
    replica.faults.add(Fault::anywhere(Effect::Fail(Failure::Unavailable)));
    let manifest = replica.client.get(&format!("/v2/{}/manifests/v1", push.repository)).await;
    assert!(manifest.status == 200 && !manifest.is_degraded());
    let blob = format!("/v2/{}/blobs/{}", push.repository, super::client::sha256(&push.layer));
    assert_eq!(replica.client.ask(http::Method::HEAD, &blob).await.unwrap().status, 200);
    let answer = replica.client.get(&blob).await;
    assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE".to_owned()));
    Push::small(2).attempt(&replica.client).await.unwrap_err().assert_passing("without a bucket");
    replica.faults.clear();
    push.assert_there(&replica.client, "the bucket is back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l_79_a_full_bucket_takes_pushes_again_when_there_is_room() {
    let replica = Cluster::on(Kind::Versitygw).await.replica().await;
    let push = Push::large(3);
    for request in [Request::Put, Request::UploadPart] {
        replica.faults.add(Fault::at(request, Effect::Fail(Failure::Full)));
    }
    push.attempt(&replica.client).await.unwrap_err().assert_passing("full");
    replica.faults.clear();
    push.attempt(&replica.client).await.unwrap();
    push.assert_there(&replica.client, "there is room").await;
}
