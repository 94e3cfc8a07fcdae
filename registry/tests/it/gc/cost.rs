// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What it costs to collect: requests to the bucket, and round trips to the database.

use std::sync::Arc;
use std::time::Duration;

use stowage_registry::Registry;
use stowage_registry::blobs::{Counts, Memory, Observed, Observer, Request, Store};
use stowage_registry::domain::Limits;
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::postgres::{Options, PostgresStore};

use super::site::{Site, brief};
use crate::support::postgres::{database, proxied};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_image_costs_one_listing_and_two_records_and_removals_go_together() {
    const IMAGES: u64 = 60;
    let (proxy, url) = proxied(&database().await).await;
    let counts = Arc::new(Counts::default());
    let store: Arc<dyn Store> =
        Arc::new(Observed::over(Arc::new(Memory::new()), Arc::clone(&counts) as Arc<dyn Observer>));
    let options = Options { timings: brief(), max_connections: 4, ..Options::new(&url).patiently() };
    let meta: Arc<dyn MetaStore> = Arc::new(PostgresStore::connect(&options).await.unwrap());
    let limits = Limits { trash_retention: Duration::ZERO, ..Limits::default() };
    let registry =
        Registry::builder().limits(limits).over(Arc::clone(&meta), Arc::clone(&store)).await.unwrap();
    let site = Site::around(&registry, meta, store);
    for number in 0..IMAGES {
        let (tag, layers) = (format!("v{number}"), [format!("{number}-a"), format!("{number}-b")]);
        let layers: Vec<&[u8]> = layers.iter().map(String::as_bytes).collect();
        let image = site.push_image("a/b", &tag, &layers).await;
        site.delete(&format!("/v2/a/b/manifests/{image}")).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;

    let of = |request| counts.of(request);
    let before = (of(Request::List), of(Request::Put), of(Request::Delete), proxy.trips());
    let (mut passes, mut removed, mut quiet) = (0, 0, 0);
    while quiet < 2 {
        let collected = site.collect().await.unwrap().counts();
        quiet = if collected.values().any(|count| *count > 0) { 0 } else { quiet + 1 };
        removed += collected["deletedObjects"];
        passes += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (lists, puts) = (of(Request::List) - before.0, of(Request::Put) - before.1);
    let (deletes, trips) = (of(Request::Delete) - before.2, proxy.trips() - before.3);
    let cost = format!(
        "{removed} objects: {lists} lists, {puts} puts, {deletes} deletes, {trips} trips, {passes} passes"
    );
    println!("{cost}");
    // Tag record, tombstone, manifest record, marker, and of each layer data and link.
    assert!(removed >= 8 * IMAGES, "{cost}");
    // Its tag's records are listed before they go. Of each pass: the epochs, and whether the newest is ours.
    assert!(lists <= IMAGES + 8 * passes, "{cost}");
    // The tombstone and the marker once more, before what they are about.
    assert!(puts <= 2 * IMAGES, "{cost}");
    // One after another only what must be: a few of each pass, whatever they remove.
    assert!(deletes <= 8 * passes, "{cost}");
    // A tag is a transaction of its own; all else goes by lists.
    assert!(trips <= 15 * IMAGES + 150 * passes, "{cost}");
}
