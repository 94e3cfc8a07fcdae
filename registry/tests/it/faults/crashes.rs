// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A replica dies at every request it makes to the bucket; the client goes on with another one.

use std::time::Duration;

use stowage_registry::blobs::{Effect, Fault, Gate, Occasion};
use stowage_registry::domain::Limits;

use super::client::{Client, Content, Push, noise, sha256};
use super::cluster::{Cluster, Replica};
use crate::support::s3::Kind;

const MIB: usize = 1 << 20;

/// Where the process ends: before the request reaches the bucket, or after the bucket has answered.
type Moment = fn(Gate) -> Effect;

/// What a client does when the connection broke in the middle: it asks how far the upload came, and goes on.
async fn go_on(client: &Client, repository: &str, upload: &str, content: &[u8]) {
    let digest = sha256(content);
    if let Some(offset) = client.offset(upload).await {
        match client.close(upload, &digest, &content[offset..]).await {
            Ok(_) => return,
            Err(failed) => assert_eq!(failed.status(), 404, "{failed:?}"),
        }
    }
    // A repeated close is answered as the first one, if that succeeded; else the client starts over.
    if let Err(failed) = client.close(upload, &digest, &[]).await {
        assert_eq!(failed.status(), 404, "{failed:?}");
        let upload = client.open_upload(repository).await.unwrap();
        client.close(&upload, &digest, content).await.unwrap();
    }
}

/// Kills a replica at its `n`-th request to the bucket while a blob comes in by `pieces`. `false`: there were
/// fewer requests.
async fn crash_in_upload(cluster: &Cluster, n: u64, moment: Moment, pieces: &[usize], seed: u64) -> bool {
    let content = noise(seed, pieces.iter().sum());
    let digest = sha256(&content);
    let (one, gate) = (cluster.replica().await, Gate::new());
    let upload = one.client.open_upload("app").await.unwrap();
    one.faults.add(Fault::anywhere(moment(gate.clone())).on(Occasion::Nth(n)));
    let (last, first) = pieces.split_last().unwrap();
    let client = one.client.clone();
    let push = async {
        let mut offset = 0;
        for length in first {
            client.patch(&upload, &content[offset..offset + length]).await.unwrap();
            offset += length;
        }
        client.close(&upload, &digest, &content[offset..offset + last]).await.unwrap();
    };
    tokio::select! {
        () = push => return false,
        () = gate.reached() => one.kill(),
    }
    let other = cluster.replica().await;
    let target = format!("/v2/app/blobs/{digest}");
    assert_eq!(other.client.get(&target).await.status, 404, "request {n}: seen before it was acknowledged");
    cluster.end_leases().await;
    go_on(&other.client, "app", &upload, &content).await;
    assert!(other.client.get(&target).await.body == content, "request {n}: other bytes");
    true
}

async fn crash_at_each_request(kind: Kind, pieces: &[usize]) -> u64 {
    let cluster = Cluster::on(kind).await;
    drop(cluster.replica().await);
    let moments: [Moment; 2] = [Effect::HoldBefore, Effect::HoldAfter];
    let (mut crashes, mut seed) = (0, 0);
    for moment in moments {
        seed += 1000;
        let mut n = 1;
        while crash_in_upload(&cluster, n, moment, pieces, seed + n).await {
            n += 1;
        }
        crashes += n - 1;
    }
    assert_eq!(cluster.count("uploads").await, 0);
    crashes
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_l_73_a_crash_at_any_request_of_a_large_upload_costs_no_bytes() {
    // Part, remainder and the part sent ahead; close: what is left, complete, pointer, link.
    let crashes = crash_at_each_request(Kind::Versitygw, &[17 * MIB, 100_000]).await;
    assert!(crashes >= 14, "{crashes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_l_73_a_crash_at_any_request_of_a_close_without_body_is_carried_out_by_the_other() {
    let crashes = crash_at_each_request(Kind::Minio, &[17 * MIB, 0]).await;
    assert!(crashes >= 14, "{crashes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_l_73_a_crash_at_any_request_of_a_small_upload_costs_no_bytes() {
    assert!(crash_at_each_request(Kind::Versitygw, &[0, 100_000]).await >= 4);
    assert!(crash_at_each_request(Kind::Versitygw, &[100_000, 0]).await >= 6);
    assert!(crash_at_each_request(Kind::Versitygw, &[100_000, 50_000]).await >= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn l_73_a_crash_at_any_request_of_a_manifest_push_leaves_all_or_nothing() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let moments: [Moment; 2] = [Effect::HoldBefore, Effect::HoldAfter];
    let (mut crashes, mut seed) = (0, 0);
    for moment in moments {
        for n in 1.. {
            let (one, gate) = (cluster.replica().await, Gate::new());
            seed += 1;
            let push = Push::small(seed);
            one.client.push_blob(&push.repository, &push.layer).await.unwrap();
            one.client.push_blob(&push.repository, b"{}").await.unwrap();
            one.faults.add(Fault::anywhere(moment(gate.clone())).on(Occasion::Nth(n)));
            let client = one.client.clone();
            tokio::select! {
                pushed = client.put_manifest(&push.repository, "v1", &push.manifest) => {
                    pushed.unwrap();
                    break;
                }
                () = gate.reached() => one.kill(),
            }
            let (other, occasion) = (cluster.replica().await, format!("request {n}"));
            push.assert_whole_or_absent(&other.client, &occasion).await;
            other.client.put_manifest(&push.repository, "v1", &push.manifest).await.unwrap();
            push.assert_there(&other.client, &occasion).await;
            crashes += 1;
        }
    }
    // The records of the manifest, of its subject and of its tag.
    assert_eq!(crashes, 6);
}

async fn resumed_on_the_other(kind: Kind) {
    let cluster = Cluster::on(kind).await;
    let content = noise(3, 48 * MIB);
    let digest = sha256(&content);
    let cuts = [0, 20 * MIB, 20 * MIB + 7, 40 * MIB, 41 * MIB, 48 * MIB];
    let mut replica = cluster.replica().await;
    let upload = replica.client.open_upload("app").await.unwrap();
    for cut in cuts.windows(2).take(cuts.len() - 2) {
        let answer = replica.client.patch(&upload, &content[cut[0]..cut[1]]).await.unwrap();
        assert_eq!(answer.header("range"), format!("0-{}", cut[1] - 1));
        replica.kill();
        replica = cluster.replica().await;
    }
    let other = cluster.replica().await;
    other.client.close(&upload, &digest, &content[41 * MIB..]).await.unwrap();
    for client in [&other.client, &replica.client] {
        assert!(client.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_w856_each_request_of_an_upload_on_another_replica_of_which_the_last_died_on_versitygw() {
    resumed_on_the_other(Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_w856_each_request_of_an_upload_on_another_replica_of_which_the_last_died_on_minio() {
    resumed_on_the_other(Kind::Minio).await;
}

/// The offset, once the replica has noticed that the client is gone.
async fn settled(client: &Client, upload: &str, least: usize) -> usize {
    for _ in 0..100 {
        match client.offset(upload).await {
            Some(offset) if offset >= least => return offset,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("what came is not durable")
}

async fn broken_in_the_middle(one: &Client, other: &Client) {
    let content = noise(4, 30 * MIB);
    let digest = sha256(&content);
    let upload = one.open_upload("app").await.unwrap();
    let sent = 20 * MIB;
    let body = Content::broken(&content[..sent], content.len() as u64);
    one.send(http::Method::PATCH, &upload, &[], body).await.unwrap_err();
    let offset = settled(other, &upload, 1).await;
    assert!(offset <= sent);
    let begun = tokio::time::Instant::now();
    other.close(&upload, &digest, &content[offset..]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "the dead request still held the upload");
    assert!(one.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn w208_an_upload_whose_connection_broke_goes_on_where_it_is_durable() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let (one, other) = (cluster.replica().await, cluster.replica().await);
    broken_in_the_middle(&one.client, &other.client).await;
    let folder = tempfile::tempdir().unwrap();
    let alone = Replica::embedded(&folder, Limits::default()).await;
    broken_in_the_middle(&alone.client, &alone.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w215_a_client_that_gave_up_while_the_blob_was_closed_finds_it_closed() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let replica = cluster.replica().await;
    let (content, gate) = (noise(5, 17 * MIB), Gate::new());
    let digest = sha256(&content);
    let upload = replica.client.open_upload("app").await.unwrap();
    let hold = Fault::at(stowage_registry::blobs::Request::Complete, Effect::HoldBefore(gate.clone()));
    replica.faults.add(hold);
    tokio::select! {
        closed = replica.client.close(&upload, &digest, &content) => panic!("{closed:?}"),
        () = gate.reached() => {}
    }
    // The connection is closed by now, and the close goes on without it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.release();
    replica.client.close(&upload, &digest, &[]).await.unwrap();
    assert!(replica.client.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
}
