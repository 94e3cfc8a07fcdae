// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Eviction from what mirrors keep.

use std::collections::HashSet;
use std::sync::Arc;

use stowage_oci::Digest;
use stowage_registry::config::Eviction;
use stowage_registry::jobs::{Collector, Evicting, GcError};
use stowage_registry::meta::Stamp;
use stowage_registry::ops::metrics::CollectionMetrics;
use stowage_registry::usage::{Unanswered, Usage};

use crate::purge::Place;
use crate::rebuild::api::{attachment, digest_of, index};
use crate::rebuild::stand::{Replica, Stand};
use crate::support::program::program;

on_both!(
    p20_a_cache_keeps_no_more_than_its_size_and_what_was_pulled_last,
    what_runs_or_is_pinned_stays_whatever_the_limits,
    without_an_answer_what_runs_nothing_is_evicted_and_all_else_is_collected,
);

fn cache(max_size: Option<u64>, pinned: &[Digest]) -> Eviction {
    Eviction {
        mirror: "hub".to_owned(),
        path: "hub".parse().unwrap(),
        unused_for: None,
        max_age: None,
        max_size,
        pinned: pinned.iter().copied().collect(),
    }
}

async fn collect(
    replica: &Replica,
    cache: Eviction,
    usage: Result<Option<Usage>, Unanswered>,
) -> Result<u64, GcError> {
    let (meta, store) = (Arc::clone(&replica.meta), Arc::clone(&replica.store));
    let collector = Collector::new(meta, store, CollectionMetrics::default());
    let collected = collector.evicting(Evicting { caches: vec![cache], usage }).collect().await?;
    Ok(collected.evicted)
}

/// An image of a layer of so many bytes, pulled last so many days ago.
async fn image(replica: &Replica, repository: &str, tag: &str, size: usize, days_ago: i32) -> Digest {
    let layer = format!("{tag}{}", ".".repeat(size - tag.len()));
    let digest = replica.api.push_image(repository, Some(tag), &layer).await;
    let today = replica.meta.record_pulls(&[]).await.unwrap().day;
    let epoch = replica.meta.incarnation().await.unwrap().epoch;
    let stamp = Stamp { repository: repository.parse().unwrap(), digest, day: today.plus(-days_ago) };
    replica.meta.restore_pulls(epoch, &[stamp]).await.unwrap();
    digest
}

/// Which of the tags of `hub/app` there are.
async fn left(replica: &Replica) -> Vec<String> {
    replica.api.tags("hub/app").await
}

async fn p20_a_cache_keeps_no_more_than_its_size_and_what_was_pulled_last(stand: Stand) {
    let replica = stand.start().await;
    replica.walked().await;
    for (tag, days_ago) in [("old", 9), ("newest", 1), ("middle", 5)] {
        image(&replica, "hub/app", tag, 100, days_ago).await;
    }
    image(&replica, "hubble/app", "beside", 100, 90).await;
    // Three layers, and the configuration of all of them.
    let all = 302;
    assert_eq!(collect(&replica, cache(Some(all), &[]), Ok(None)).await.unwrap(), 0);
    assert_eq!(collect(&replica, cache(Some(all - 1), &[]), Ok(None)).await.unwrap(), 1);
    assert_eq!(left(&replica).await, ["middle", "newest"]);
    assert_eq!(collect(&replica, cache(Some(all - 1), &[]), Ok(None)).await.unwrap(), 0, "it is enough");
    assert_eq!(collect(&replica, cache(Some(150), &[]), Ok(None)).await.unwrap(), 1);
    assert_eq!(left(&replica).await, ["newest"]);
    replica.api.assert_pullable("hub/app", "newest").await;
    replica.api.assert_pullable("hubble/app", "beside").await;
    replica.stop().await;
}

async fn what_runs_or_is_pinned_stays_whatever_the_limits(stand: Stand) {
    let replica = stand.start().await;
    replica.walked().await;
    let child = image(&replica, "hub/app", "child", 100, 9).await;
    let list = index(&[child]);
    assert_eq!(replica.api.put("hub/app", Some("index"), &list).await.status, 201);
    let note = attachment(child, "signed");
    assert_eq!(replica.api.put("hub/app", None, &note).await.status, 201);
    let pinned = image(&replica, "hub/app", "pinned", 100, 9).await;
    image(&replica, "hub/app", "tagged", 100, 9).await;
    image(&replica, "hub/app", "idle", 100, 9).await;
    let runs = Usage {
        digests: HashSet::from([child]),
        names: HashSet::from([("hub/app".parse().unwrap(), "tagged".parse().unwrap())]),
    };
    let evicted = collect(&replica, cache(Some(0), &[pinned]), Ok(Some(runs))).await.unwrap();
    assert_eq!(
        (evicted, left(&replica).await),
        (1, ["child", "index", "pinned", "tagged"].map(str::to_owned).into())
    );
    assert_eq!(replica.api.referrers("hub/app", child).await, [digest_of(&note).to_string()]);
    assert_eq!(collect(&replica, cache(Some(0), &[]), Ok(None)).await.unwrap(), 5, "all of it");
    assert_eq!(left(&replica).await, [""; 0]);
    assert_eq!(replica.api.resolve("hub/app", &digest_of(&list).to_string()).await, None);
    replica.stop().await;
}

async fn without_an_answer_what_runs_nothing_is_evicted_and_all_else_is_collected(stand: Stand) {
    let replica = stand.start().await;
    replica.walked().await;
    image(&replica, "hub/app", "old", 100, 90).await;
    let missing = Unanswered::Missing("nobody answers".to_owned());
    let refused = collect(&replica, cache(Some(0), &[]), Err(missing)).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused:?}");
    assert_eq!(refused.reason(), Some("UsageReportMissing"));
    assert_eq!(left(&replica).await, ["old"]);
    replica.stop().await;
}

/// As the program is called, and what it ends with.
fn gc(place: &Place) -> (Option<i32>, String) {
    let done = program(&["gc"], place.path()).output().unwrap();
    let told = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&told).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_refuses_until_every_cluster_that_is_named_has_reported_and_asks_nobody_without_an_operator() {
    for place in [Place::embedded(), Place::clustered().await] {
        place.founded().await;
        place.write(
            "config/mirror.yaml",
            "apiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {name: hub}\nspec:\n  \
             registryRef: {name: main}\n  path: hub\n  mode: PullThrough\n  \
             upstream: {url: \"https://hub.example.com\"}\n  cache: {eviction: {maxSize: 1Gi}}\n",
        );
        let (code, told) = gc(&place);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("evictedManifests 0"), "{told}");
        place.specify(
            "  usageProtection: {scope: RemotesOnly, remotes: [{name: edge-1, reporter: {user: edge-1}}]}\n",
        );
        let (code, told) = gc(&place);
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains("edge-1") && told.contains("never reported"), "{told}");
        let reported = place.open().await.meta.report_usage("edge-1", &[], &[]).await;
        reported.unwrap();
        let (code, told) = gc(&place);
        assert_eq!(code, Some(0), "{told}");
    }
    let place = Place::embedded();
    place.specify("  usageProtection: {scope: Cluster}\n");
    let (code, told) = gc(&place);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("spec.usageProtection.scope"), "{told}");
}
