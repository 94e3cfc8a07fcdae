// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Many at once, on two replicas.

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::client::{image, noise, sha256};
use super::cluster::Cluster;
use crate::support::s3::Kind;

fn numbered(n: usize) -> Value {
    let mut manifest = image(&[]);
    manifest["annotations"] = json!({ "n": n.to_string() });
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn w174_w850_a_tag_pushed_on_one_is_seen_on_the_other_a_thousand_times_in_a_row() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let replicas = [cluster.replica().await, cluster.replica().await];
    replicas[0].client.push_blob("app", b"{}").await.unwrap();
    for n in 0..1000 {
        let manifest = numbered(n);
        let digest = sha256(manifest.to_string().as_bytes()).to_string();
        let (writer, reader) = (&replicas[n % 2].client, &replicas[(n + 1) % 2].client);
        writer.put_manifest("app", "v1", &manifest).await.unwrap();
        let head = reader.ask(Method::HEAD, "/v2/app/manifests/v1").await.unwrap();
        assert_eq!(head.header("docker-content-digest"), digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w175_w284_a_hundred_pushes_of_one_tag_show_an_old_or_a_new_manifest_and_end_alike_everywhere() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let replicas = [cluster.replica().await, cluster.replica().await];
    replicas[0].client.push_blob("app", b"{}").await.unwrap();
    replicas[0].client.put_manifest("app", "v1", &numbered(0)).await.unwrap();
    let whole: Vec<String> = (0..=100).map(|n| numbered(n).to_string()).collect();
    let pushes = join_all((1..=100).map(|n| {
        let client = &replicas[n % 2].client;
        async move { client.put_manifest("app", "v1", &numbered(n)).await.unwrap() }
    }));
    let reads = async {
        for n in 0..200 {
            let answer = replicas[n % 2].client.get("/v2/app/manifests/v1").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            assert_eq!(sha256(body.as_bytes()).to_string(), answer.headers["docker-content-digest"]);
            assert!(whole.contains(&body), "{body}");
        }
    };
    futures::join!(pushes, reads);
    let [one, other] = [0, 1].map(|at: usize| replicas[at].client.get("/v2/app/manifests/v1"));
    let (one, other) = futures::join!(one, other);
    assert_eq!(one.body, other.body);
    // The bucket alone says the same.
    let records = cluster.bucket().await.list("v1/", None, 10_000).await.unwrap();
    let newest = records.iter().map(|object| object.key.as_str()).find(|key| key.contains("/~t/v1/"));
    let digest = sha256(&one.body).to_string().replace(':', "-");
    assert!(newest.is_some_and(|key| key.contains(&digest)), "{newest:?} {digest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn w228_fifty_clients_that_push_one_blob_at_once_are_all_served() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let replicas = [cluster.replica().await, cluster.replica().await];
    for content in [b"{}".to_vec(), noise(1, 100_000)] {
        let pushes = join_all((0..50).map(|n| {
            let (client, content) = (&replicas[n % 2].client, &content);
            async move { client.push_blob(&format!("app/n{}", n % 5), content).await.unwrap() }
        }));
        let digest = pushes.await[0];
        for n in 0..5 {
            let answer = replicas[n % 2].client.get(&format!("/v2/app/n{n}/blobs/{digest}")).await;
            assert_eq!(answer.body, content);
        }
    }
    assert_eq!(cluster.count("blobs").await, 2);
    assert_eq!(cluster.count("uploads").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn w229_pushes_and_deletes_of_one_blob_at_once_are_all_answered_right_and_the_last_push_stays() {
    let cluster = Cluster::on(Kind::Versitygw).await;
    let replicas = [cluster.replica().await, cluster.replica().await];
    let content = noise(2, 50_000);
    let target = format!("/v2/app/blobs/{}", sha256(&content));
    for _ in 0..20 {
        let turns = join_all((0..6).map(|n| {
            let (client, content, target) = (&replicas[n % 2].client, &content, &target);
            async move {
                if n % 3 == 1 {
                    let deleted = client.ask(Method::DELETE, target).await.unwrap();
                    assert!(matches!(deleted.status, 202 | 404), "{deleted:?}");
                } else {
                    client.push_blob("app", content).await.unwrap();
                }
            }
        }));
        turns.await;
        replicas[0].client.push_blob("app", &content).await.unwrap();
        for replica in &replicas {
            assert!(replica.client.get(&target).await.body == content);
        }
    }
}
