// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How fast a database is rebuilt. Prints figures; asserts only that all is there.
//!
//! `cargo test --release -p stowage-registry --test it rebuild::speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use stowage_oci::Digest;
use stowage_registry::Registry;
use stowage_registry::blobs::{Counts, Memory, Observed, Observer, Request, Store};
use stowage_registry::domain::Limits;
use stowage_registry::jobs::{RebuildOptions, rebuild};
use stowage_registry::key::{Form, Generation, Key, Version};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::postgres::{Options, PostgresStore};

use super::api::{digest_of, image, sha256};
use super::stand::Stand;
use crate::support::postgres::{database, proxied};

/// As many records as `manifests` pushes of images with three layers of their own leave, in some repositories.
async fn fill(store: &dyn Store, manifests: usize, repositories: usize) -> u64 {
    let mut objects: Vec<(String, Bytes)> = Vec::new();
    for n in 0..manifests {
        let repository: stowage_oci::Name = format!("team-{}/app", n % repositories).parse().unwrap();
        let milliseconds = 1_700_000_000_000 + n as u64;
        let generation = || Generation::at(milliseconds);
        let mut manifest = image(&format!("{n}-0"));
        for layer in 1..3 {
            let more = image(&format!("{n}-{layer}"));
            manifest["layers"].as_array_mut().unwrap().push(more["layers"][0].clone());
        }
        let digest = digest_of(&manifest);
        let layers = (0..3).map(|layer| sha256(format!("{n}-{layer}").as_bytes()));
        let blobs: Vec<Digest> = layers.chain([sha256(b"{}")]).collect();
        for blob in blobs {
            let of = repository.clone();
            let data = Key::Blob { digest: blob, generation: generation(), size: 5, form: Form::Inline };
            if blob != sha256(b"{}") || n == 0 {
                objects.push((data.to_string(), Bytes::from_static(b"12345")));
            }
            let link = Key::Link { repository: of, digest: blob, generation: generation() };
            objects.push((link.to_string(), Bytes::new()));
        }
        let record = Key::Manifest { repository: repository.clone(), digest, generation: generation() };
        objects.push((record.to_string(), Bytes::from(manifest.to_string())));
        let tag = Key::Tag {
            repository,
            tag: format!("v{n}").parse().unwrap(),
            version: Version { epoch: 1, seq: n as u64 },
            generation: generation(),
            target: Some(digest),
        };
        objects.push((tag.to_string(), Bytes::new()));
    }
    let count = objects.len() as u64;
    let put = |(key, body): (String, Bytes)| async move { store.put(&key, vec![body]).await.unwrap() };
    stream::iter(objects).map(put).buffer_unordered(64).collect::<Vec<()>>().await;
    count
}

async fn measure(mut stand: Stand, manifests: usize, repositories: usize) {
    let replica = stand.start().await;
    replica.stop().await;
    let objects = fill(&*stand.store().await, manifests, repositories).await;
    stand.lose().await;
    for what in ["empty database", "equal database"] {
        let begun = Instant::now();
        let walked = stand.adopt().await;
        let milliseconds = begun.elapsed().as_millis().max(1);
        assert!(walked.listed >= objects, "{walked:?}");
        let rate = |count: u128| count * 1000 / milliseconds;
        println!(
            "{what}: {manifests} manifests, {} objects in {milliseconds} ms: {} manifests/s, {} keys/s",
            walked.listed,
            rate(manifests as u128),
            rate(u128::from(walked.listed)),
        );
    }
    let tags =
        stand.texts("SELECT count(*)::text FROM tags", "SELECT cast(count(*) AS text) FROM tags").await;
    assert_eq!(tags, [manifests.to_string()]);
}

fn size() -> usize {
    std::env::var("MANIFESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn postgres_and_s3() {
    measure(Stand::postgres().await, size(), 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn sqlite_and_folder() {
    measure(Stand::sqlite(), size(), 20).await;
}

/// Requests to the bucket by kind, and round trips to the database, of one rebuild.
#[derive(Debug)]
struct Cost {
    lists: u64,
    gets: u64,
    others: u64,
    trips: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_asks_once_for_each_page_and_manifest_and_seldom_for_rows() {
    const MANIFESTS: usize = 3_000;
    let (proxy, url) = proxied(&database().await).await;
    let counts = Arc::new(Counts::default());
    let store: Arc<dyn Store> =
        Arc::new(Observed::over(Arc::new(Memory::new()), Arc::clone(&counts) as Arc<dyn Observer>));
    let open = async || {
        // Few, as each prepares its statements first; enough for what is under way at once.
        let options = Options { max_connections: 10, ..Options::new(&url).patiently() };
        let meta: Arc<dyn MetaStore> = Arc::new(PostgresStore::connect(&options).await.unwrap());
        meta
    };
    let founded = Registry::builder().over(open().await, Arc::clone(&store)).await.unwrap();
    founded.close().await;
    let keys = fill(&*store, MANIFESTS, 2).await;
    let of = |request| counts.of(request);
    let rebuild = async || {
        let before = (of(Request::List), of(Request::Get), counts.total(), proxy.trips());
        rebuild(open().await, Arc::clone(&store), Limits::default(), RebuildOptions::default(), |_| {})
            .await
            .unwrap();
        let (lists, gets) = (of(Request::List) - before.0, of(Request::Get) - before.1);
        let others = counts.total() - before.2 - lists - gets;
        Cost { lists, gets, others, trips: proxy.trips() - before.3 }
    };
    let pages = keys / 1000;
    for manifests in [MANIFESTS as u64, 0] {
        let cost = rebuild().await;
        println!("{keys} keys: {cost:?}");
        // The manifests that no row knows, and FORMAT.
        assert_eq!(cost.gets, manifests + 1, "{cost:?}");
        // Beside the pages: two of each of some twenty parts, the first of each letter, the leaps, and what lies
        // outside of all of that.
        assert!(cost.lists <= pages + 150, "{cost:?}");
        // The epoch's object.
        assert!(cost.others <= 2, "{cost:?}");
        // A batch of 500 names is a dozen, a part half a dozen, and each connection prepares its statements.
        assert!(cost.trips <= 120 * pages, "{cost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pages_of_everything_are_compared_to_the_last_object() {
    // More than a page of data, of links, of manifests and of tags, so that parts, batches and pages all end somewhere.
    measure(Stand::postgres().await, 1_100, 1).await;
    measure(Stand::sqlite(), 1_100, 2).await;
}
