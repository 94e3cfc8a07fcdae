// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The races between clients, a database that becomes another incarnation, and the walk; each held at the point
//! where it hurts. The numbers are those of the protocol's list.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use stowage_registry::blobs::{
    self, Content, Fault, MultipartId, Object, OpenMultipart, Part, Presign, Read, Request, Store, Sweep,
    Write,
};
use stowage_registry::domain::{Domain, Limits, Walk};
use stowage_registry::key::{Generation, Key, Version};
use stowage_registry::meta::faulty::{Effect, Gate, Occasion};
use stowage_registry::ops::clock;
use stowage_registry::ops::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::api::{digest_of, image, index, sha256};
use super::stand::{Replica, Stand};

on_both!(
    race_15_16_pushes_that_a_failover_lost_are_there_and_later_ones_are_above_them,
    race_17_an_upload_whose_commit_was_lost_is_not_undone,
    race_18_a_row_whose_data_is_long_gone_promises_nothing,
    race_19_an_answer_of_the_old_incarnation_is_not_used_in_the_new_one,
    race_19_a_push_that_was_checked_in_the_old_incarnation_is_checked_again,
    race_20_a_child_of_an_index_that_is_not_known_yet_is_not_deleted,
    race_21_a_push_begun_before_the_failover_starts_over_and_leaves_nothing_behind,
    race_22_what_is_pushed_after_the_listing_stays,
    race_24_a_listing_that_leaves_out_half_loses_nothing,
    race_25_a_tag_record_whose_manifest_never_came_stays_withdrawn_when_it_comes,
    a_name_is_compared_once_in_an_epoch_however_many_ask,
);

/// A replica whose walk waits at its first step.
async fn unwalked(stand: &Stand) -> (Replica, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let prepare = |faults: &stowage_registry::meta::faulty::Faults| {
        faults.inject("walk_progress", Occasion::Always, Effect::HoldBefore(held));
    };
    (stand.start_with(prepare).await, gate)
}

/// The database is made once more, from the bucket alone, and is equal.
async fn assert_rebuildable(mut stand: Stand) {
    let before = stand.rows().await;
    stand.lose().await;
    stand.adopt().await;
    stand.assert_rows(&before).await;
}

async fn race_15_16_pushes_that_a_failover_lost_are_there_and_later_ones_are_above_them(mut stand: Stand) {
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "old").await;
    let copy = stand.copy().await;
    // The sequence of the copy is far behind these.
    for n in 0..10 {
        replica.api.push_image("app", Some("v1"), &format!("lost {n}")).await;
    }
    let lost = digest_of(&image("lost 9"));
    replica.stop().await;
    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(lost));
    let newest = replica.api.push_image("app", Some("v1"), "newest").await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(newest));
    gate.release();
    replica.walked().await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(newest));
    replica.stop().await;
    assert_rebuildable(stand).await;
}

async fn race_17_an_upload_whose_commit_was_lost_is_not_undone(mut stand: Stand) {
    let replica = stand.start().await;
    let api = &replica.api;
    let opened = api.send(Method::POST, "/v2/app/blobs/uploads/", "", b"").await;
    let upload = opened.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(api.send(Method::PATCH, &upload, "", b"content").await.status, StatusCode::ACCEPTED);
    let copy = stand.copy().await;
    let digest = sha256(b"content");
    let closed = api.send(Method::PUT, &format!("{upload}?digest={digest}"), "", b"").await;
    assert_eq!(closed.status, StatusCode::CREATED, "{closed:?}");
    replica.stop().await;
    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    let api = &replica.api;
    let target = format!("/v2/app/blobs/{digest}");
    assert_eq!(api.get(&target).await.body, &b"content"[..]);
    // The row looks open; closing it again is the same blob.
    let again = api.send(Method::PUT, &format!("{upload}?digest={digest}"), "", b"").await;
    assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
    assert_eq!(api.get(&target).await.body, &b"content"[..]);
    gate.release();
    replica.walked().await;
    assert_eq!(api.get(&target).await.body, &b"content"[..]);
    replica.stop().await;
    let store = stand.store().await;
    let queued = stand
        .texts("SELECT unnest(steps) FROM outbox", "SELECT value FROM outbox, json_each(outbox.steps)")
        .await;
    let data = store.list("v1/", None, 1000).await.unwrap();
    let blob = data.iter().find(|object| object.key.contains(&digest.hex())).expect("it is there");
    assert!(!queued.contains(&format!("-{}", blob.key)), "{queued:?}");
    assert_rebuildable(stand).await;
}

async fn race_18_a_row_whose_data_is_long_gone_promises_nothing(mut stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_blob("app", b"collected since").await;
    replica.api.push_blob("app", b"{}").await;
    let copy = stand.copy().await;
    replica.stop().await;
    let store = stand.store().await;
    for prefix in [Key::blob_prefix(&digest), Key::link_prefix(&"app".parse().unwrap(), &digest)] {
        let keys = store.list(&prefix, None, 10).await.unwrap().into_iter().map(|object| object.key);
        store.delete(&keys.collect::<Vec<_>>()).await.unwrap();
    }
    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    let target = format!("/v2/app/blobs/{digest}");
    assert_eq!(replica.api.head(&target).await.status, StatusCode::NOT_FOUND);
    let refused = replica.api.put("app", Some("v1"), &image("collected since")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let mount = format!("/v2/other/blobs/uploads/?mount={digest}&from=app");
    assert_eq!(replica.api.send(Method::POST, &mount, "", b"").await.status, StatusCode::ACCEPTED);
    // The bytes come again, and all is well.
    replica.api.push_image("app", Some("v1"), "collected since").await;
    replica.api.assert_pullable("app", "v1").await;
    gate.release();
    replica.walked().await;
    replica.api.assert_pullable("app", "v1").await;
    replica.stop().await;
}

async fn race_19_an_answer_of_the_old_incarnation_is_not_used_in_the_new_one(stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_blob("app", b"content").await;
    let gate = Gate::new();
    replica.database.inject("blobs", Occasion::First(1), Effect::HoldBefore(gate.clone()));
    let target = format!("/v2/app/blobs/{digest}");
    let asked = replica.api.head(&target);
    let meanwhile = async {
        gate.reached().await;
        // The row comes back with an older state; what it names is gone.
        let store = stand.store().await;
        let prefix = Key::blob_prefix(&digest);
        let keys = store.list(&prefix, None, 10).await.unwrap().into_iter().map(|object| object.key);
        store.delete(&keys.collect::<Vec<_>>()).await.unwrap();
        stand.restart().await;
        gate.release();
    };
    let (answer, ()) = tokio::join!(asked, meanwhile);
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
    replica.stop().await;
}

async fn race_19_a_push_that_was_checked_in_the_old_incarnation_is_checked_again(stand: Stand) {
    let replica = stand.start().await;
    replica.api.push_blob("app", b"{}").await;
    let digest = replica.api.push_blob("app", b"layer").await;
    let gate = Gate::new();
    replica.database.inject("pin_manifest", Occasion::First(1), Effect::HoldBefore(gate.clone()));
    let manifest = image("layer");
    let pushed = replica.api.put("app", Some("v1"), &manifest);
    let meanwhile = async {
        gate.reached().await;
        let store = stand.store().await;
        let prefix = Key::blob_prefix(&digest);
        let keys = store.list(&prefix, None, 10).await.unwrap().into_iter().map(|object| object.key);
        store.delete(&keys.collect::<Vec<_>>()).await.unwrap();
        stand.restart().await;
        gate.release();
    };
    let (answer, ()) = tokio::join!(pushed, meanwhile);
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    replica.stop().await;
}

async fn race_20_a_child_of_an_index_that_is_not_known_yet_is_not_deleted(mut stand: Stand) {
    let replica = stand.start().await;
    let child = replica.api.push_image("app", None, "child").await;
    let copy = stand.copy().await;
    let parent = index(&[child]);
    assert_eq!(replica.api.put("app", Some("all"), &parent).await.status, StatusCode::CREATED);
    replica.stop().await;
    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    let target = format!("/v2/app/manifests/{child}");
    assert_eq!(replica.api.delete(&target).await.status, StatusCode::SERVICE_UNAVAILABLE);
    gate.release();
    replica.walked().await;
    assert_eq!(replica.api.delete(&target).await.status, StatusCode::METHOD_NOT_ALLOWED);
    replica.api.assert_pullable("app", &child.to_string()).await;
    replica.stop().await;
}

async fn race_21_a_push_begun_before_the_failover_starts_over_and_leaves_nothing_behind(stand: Stand) {
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "old").await;
    replica.api.push_blob("app", b"layer").await;
    let gate = Gate::new();
    // Its records are in the bucket.
    replica.database.inject("publish_manifest", Occasion::First(1), Effect::HoldBefore(gate.clone()));
    let manifest = image("layer");
    let pushed = replica.api.put("app", Some("v1"), &manifest);
    let meanwhile = async {
        gate.reached().await;
        stand.restart().await;
        // Somebody asks: the records are whole, and roll forward.
        let seen = replica.api.resolve("app", "v1").await;
        assert_eq!(seen, Some(digest_of(&manifest)));
        gate.release();
    };
    let (answer, ()) = tokio::join!(pushed, meanwhile);
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(replica.api.resolve("app", "v1").await, Some(digest_of(&manifest)));
    replica.walked().await;
    replica.api.assert_pullable("app", "v1").await;
    replica.stop().await;
    let intents = stand.texts("SELECT keys::text FROM intents", "SELECT keys FROM intents").await;
    assert!(intents.is_empty(), "{intents:?}");
    assert_rebuildable(stand).await;
}

async fn race_22_what_is_pushed_after_the_listing_stays(stand: Stand) {
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "old").await;
    let gate = Gate::new();
    let held = blobs::Effect::HoldAfter(gate.clone());
    replica.bucket.add(Fault::at(Request::List, held).matching("v1/r/").on(blobs::Occasion::Nth(2)));
    stand.restart().await;
    let walk = async {
        // The first listing plans, the second compares.
        let domain = Domain::new(
            Arc::clone(&replica.meta),
            Arc::clone(&replica.store),
            Limits::default(),
            Tasks::new(),
        );
        let epoch = domain.trust().enter().await.unwrap().epoch;
        Walk::new(&domain, Walk::alone(None), CancellationToken::new()).run(epoch).await.unwrap();
    };
    let push = async {
        gate.reached().await;
        let (moved, new) = (
            replica.api.push_image("app", Some("v1"), "moved").await,
            replica.api.push_image("app", Some("v2"), "new").await,
        );
        replica.api.push_image("app", None, "untagged").await;
        gate.release();
        (moved, new)
    };
    let ((), (moved, new)) = tokio::join!(walk, push);
    replica.walked().await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(moved));
    assert_eq!(replica.api.resolve("app", "v2").await, Some(new));
    for reference in ["v1", "v2", &digest_of(&image("untagged")).to_string()] {
        replica.api.assert_pullable("app", reference).await;
    }
    replica.stop().await;
    assert_rebuildable(stand).await;
}

/// A bucket whose listings leave out every second object.
struct Forgetful(Arc<dyn Store>);

#[async_trait]
impl Read for Forgetful {
    async fn head(&self, key: &str) -> Result<Option<u64>, blobs::Error> {
        self.0.head(key).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<Content>, blobs::Error> {
        self.0.get(key, range).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Object>, blobs::Error> {
        let page = self.0.list(prefix, after, limit).await?;
        if page.len() < 2 || prefix == Key::EPOCHS {
            return Ok(page);
        }
        Ok(page.into_iter().step_by(2).collect())
    }
}

#[async_trait]
impl Write for Forgetful {
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), blobs::Error> {
        self.0.put(key, segments).await
    }

    async fn create_multipart(&self, key: &str) -> Result<MultipartId, blobs::Error> {
        self.0.create_multipart(key).await
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, blobs::Error> {
        self.0.upload_part(key, id, number, offset, segments).await
    }

    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), blobs::Error> {
        self.0.complete(key, id, parts).await
    }

    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), blobs::Error> {
        self.0.abort(key, id).await
    }

    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, blobs::Error> {
        self.0.open_multiparts().await
    }

    fn part_size(&self) -> u64 {
        self.0.part_size()
    }

    fn prefers_large_chunks(&self) -> bool {
        self.0.prefers_large_chunks()
    }
}

#[async_trait]
impl Sweep for Forgetful {
    async fn delete(&self, keys: &[String]) -> Result<(), blobs::Error> {
        self.0.delete(keys).await
    }
}

impl Store for Forgetful {
    fn presigner(&self) -> Option<&dyn Presign> {
        None
    }
}

async fn race_24_a_listing_that_leaves_out_half_loses_nothing(stand: Stand) {
    let replica = stand.start().await;
    for n in 0..8 {
        replica.api.push_image("app", Some(&format!("v{n}")), &format!("layer {n}")).await;
    }
    replica.stop().await;
    let before = stand.rows().await;
    stand.restart().await;
    let store: Arc<dyn Store> = Arc::new(Forgetful(stand.store().await));
    let domain = Domain::new(stand.meta().await, store, Limits::default(), Tasks::new());
    let epoch = domain.trust().enter().await.unwrap().epoch;
    Walk::new(&domain, Walk::alone(None), CancellationToken::new()).run(epoch).await.unwrap();
    drop(domain);
    stand.assert_rows(&before).await;
}

async fn race_25_a_tag_record_whose_manifest_never_came_stays_withdrawn_when_it_comes(mut stand: Stand) {
    let replica = stand.start().await;
    let old = replica.api.push_image("app", Some("v1"), "old").await;
    let late = digest_of(&image("late"));
    let record = Key::Tag {
        repository: "app".parse().unwrap(),
        tag: "v1".parse().unwrap(),
        version: Version { epoch: 1, seq: 1_000_000 },
        generation: Generation::at(clock::milliseconds()),
        target: Some(late),
    };
    replica.store.put(&record.to_string(), Vec::new()).await.unwrap();
    replica.stop().await;
    stand.restart().await;
    let (replica, gate) = unwalked(&stand).await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(old));
    let marker = format!("{record}.x");
    assert_eq!(replica.store.head(&marker).await.unwrap(), Some(0), "withdrawn for everybody to see");
    replica.api.push_image("app", None, "late").await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(old));
    gate.release();
    replica.walked().await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(old));
    replica.stop().await;
    stand.lose().await;
    stand.adopt().await;
    let replica = stand.start().await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(old));
    replica.stop().await;
}

async fn a_name_is_compared_once_in_an_epoch_however_many_ask(stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_image("app", Some("v1"), "layer").await;
    replica.stop().await;
    stand.restart().await;
    let (replica, gate) = unwalked(&stand).await;
    let asked = (0..20).map(|_| replica.api.resolve("app", "v1"));
    for resolved in futures::future::join_all(asked).await {
        assert_eq!(resolved, Some(digest));
    }
    let settled = replica.database.calls("settle");
    assert!((2..10).contains(&settled), "{settled}");
    for _ in 0..5 {
        assert_eq!(replica.api.resolve("app", "v1").await, Some(digest));
    }
    assert_eq!(replica.database.calls("settle"), settled);
    gate.release();
    replica.walked().await;
    replica.stop().await;
}
