// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Two registries that copy each other.

use stowage_registry::domain::{Replication, Repositories, SyncMode};
use stowage_registry::testing::{TestRegistry, start};

use super::site::{INDEX, Told, replication, request, run};
use crate::mirror::site::Answer;
use crate::support::program::ask;
use crate::upstream::servers::{Image, push, settings};

struct Pair {
    one: TestRegistry,
    other: TestRegistry,
}

impl Pair {
    async fn new() -> Self {
        Self { one: start().await, other: start().await }
    }

    /// A run at `to`, of everything that `from` has.
    async fn run(&self, to: &TestRegistry, from: &TestRegistry) -> Told {
        run(to.registry(), &all_of(from), SyncMode::Copy).await
    }

    /// A run at each; what they told.
    async fn both(&self) -> [Vec<String>; 2] {
        let there = self.run(&self.other, &self.one).await;
        let back = self.run(&self.one, &self.other).await;
        [there.items, back.items]
    }
}

fn all_of(registry: &TestRegistry) -> Replication {
    let catalog = Repositories::Catalog { include: vec!["**".parse().unwrap()], exclude: Vec::new() };
    Replication { path: None, ..replication(settings(&registry.url()), catalog) }
}

fn pushed(to: &TestRegistry, tag: &str, layer: &[u8]) -> Image {
    push(&to.host(), "", "team/app", tag, layer)
}

async fn get(registry: &TestRegistry, reference: &str) -> Answer {
    let target = format!("/v2/team/app/manifests/{reference}");
    request(registry.registry(), "GET", &target, "", Vec::new()).await
}

async fn content(registry: &TestRegistry, reference: &str) -> Vec<u8> {
    get(registry, reference).await.body.to_vec()
}

fn unchanged(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| format!("unchanged team/app:{item}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w059_f53_two_registries_that_copy_each_other_agree_and_come_to_rest() {
    let pair = Pair::new().await;
    pushed(&pair.one, "1", b"earlier, at one");
    let later = pushed(&pair.other, "1", b"later, at the other");
    let two = pushed(&pair.one, "2", b"only at one");
    let told = pair.both().await;
    assert_eq!(told[0], ["copied team/app:2", "later team/app:1"]);
    assert_eq!(told[1], ["copied team/app:1", "unchanged team/app:2"]);
    for registry in [&pair.one, &pair.other] {
        assert_eq!(content(registry, "1").await, later.manifest);
        assert_eq!(content(registry, "2").await, two.manifest);
    }
    assert_eq!(pair.both().await, [unchanged(&["1", "2"]), unchanged(&["1", "2"])], "they rest");

    let version = |answer: &Answer| answer.header("stowage-tag-version").parse::<u64>().unwrap();
    let [here, there] = [get(&pair.one, "1").await, get(&pair.other, "1").await];
    assert_eq!(version(&here), version(&there), "the time of the origin is kept with the copy");
    let by_digest = get(&pair.one, &later.digest.to_string()).await;
    assert_eq!(by_digest.header("stowage-tag-version"), "");

    let moved = pushed(&pair.one, "1", b"later still, over the copy");
    assert!(version(&get(&pair.one, "1").await) > version(&there));
    pair.both().await;
    assert_eq!(content(&pair.other, "1").await, moved.manifest, "a client's push goes both ways");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f53_a_tag_that_was_deleted_does_not_come_back() {
    let pair = Pair::new().await;
    pushed(&pair.one, "1", b"layer");
    // Who lists nothing at all any more is not believed.
    pushed(&pair.one, "2", b"what stays");
    pair.both().await;
    let delete = |registry: &TestRegistry| {
        assert_eq!(ask(&registry.host(), "DELETE", "/v2/team/app/manifests/1", "", b"").0, 202);
    };
    delete(&pair.one);
    let back = pair.run(&pair.one, &pair.other).await;
    assert_eq!(back.items, ["later team/app:1", "unchanged team/app:2"], "the deletion is");
    let pruning = Replication { prunes: true, ..all_of(&pair.one) };
    let told = run(pair.other.registry(), &pruning, SyncMode::Copy).await;
    let pruned = ["pruned team/app:1", "unchanged team/app:2"];
    assert_eq!(told.items, pruned, "what this mirror set goes where it went");
    pushed(&pair.one, "1", b"pushed again");
    pair.both().await;
    assert_eq!(get(&pair.other, "1").await.status, 200, "a push is above the deletion");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f38e_n15_after_the_first_registry_is_gone_the_second_serves_all_that_was_synced() {
    let pair = Pair::new().await;
    let images: Vec<_> = ["1", "2", "3"].map(|tag| pushed(&pair.one, tag, tag.as_bytes())).into();
    let subject = serde_json::json!({
        "mediaType": super::site::IMAGE, "digest": images[0].digest, "size": images[0].manifest.len(),
    });
    let signature = crate::upstream::servers::push_manifest(
        &pair.one.host(),
        "",
        "team/app",
        &stowage_oci::Digest::of(stowage_oci::Algorithm::Sha256, b"").to_string().replace("sha256:", "of-"),
        b"signature",
        &subject,
    );
    assert_eq!(pair.run(&pair.other, &pair.one).await.synced.failed, 0);
    let Pair { one, other } = pair;
    drop(one);
    for image in images.iter().chain([&signature]) {
        assert_eq!(content(&other, &image.digest.to_string()).await, image.manifest);
        let target = format!("/v2/team/app/blobs/{}", image.layer_digest);
        let blob = request(other.registry(), "GET", &target, "", Vec::new()).await;
        assert_eq!((blob.status, &blob.body[..]), (200, &image.layer[..]));
    }
    let target = format!("/v2/team/app/referrers/{}", images[0].digest);
    let referrers = request(other.registry(), "GET", &target, "", Vec::new()).await;
    assert!(String::from_utf8_lossy(&referrers.body).contains(&signature.digest.to_string()));
    let put = request(
        other.registry(),
        "PUT",
        "/v2/team/app/manifests/4",
        INDEX,
        super::site::index(&serde_json::json!([])),
    )
    .await;
    assert_eq!(put.status, 201, "clients go on there");
}
