// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The walk in the background: helped with, broken off, gone on with.

use std::sync::Arc;
use std::time::Duration;

use stowage_registry::domain::{Domain, Limits, Walk, keep_compared};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::faulty::{Effect, Faulty, Gate, Occasion};
use stowage_registry::ops::tasks::Tasks;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::digest_of;
use super::stand::{Replica, Stand};

on_both!(
    w723_a_push_looks_at_its_own_children_and_no_further,
    w477_each_restart_is_compared_in_the_background_while_clients_push_and_pull,
    a_walk_that_breaks_off_at_any_step_goes_on_and_ends_right,
    a_walk_beside_clients_is_not_broken_off_by_a_step_that_fails_in_passing,
);

async fn pushed(replica: &Replica) {
    for n in 0..6 {
        replica.api.push_image(&format!("team-{}/app", n % 3), Some(&format!("v{n}")), &format!("{n}")).await;
    }
}

async fn w723_a_push_looks_at_its_own_children_and_no_further(stand: Stand) {
    let replica = stand.start().await;
    let mut child = replica.api.push_image("app", None, "leaf").await;
    replica.stop().await;
    stand.restart().await;
    let gate = Gate::new();
    let held = Effect::HoldBefore(gate.clone());
    let replica = stand.start_with(|faults| faults.inject("walk_progress", Occasion::Always, held)).await;
    let mut compared = Vec::new();
    for _ in 0..20 {
        let before = ["pin_manifest", "settle", "manifests"].map(|step| replica.database.calls(step));
        let parent = super::api::index(&[child]);
        assert_eq!(replica.api.put("app", None, &parent).await.status, http::StatusCode::CREATED);
        let after = ["pin_manifest", "settle", "manifests"].map(|step| replica.database.calls(step));
        compared.push([0, 1, 2].map(|at| after[at] - before[at]));
        child = digest_of(&parent);
    }
    // The first compares the leaf; from then on a push costs the same, however deep it is.
    assert!(compared[2..].iter().all(|one| *one == compared[1]), "{compared:?}");
    assert_eq!(compared[1][0], 1, "{compared:?}");
    gate.release();
    replica.walked().await;
    replica.stop().await;
}

async fn w477_each_restart_is_compared_in_the_background_while_clients_push_and_pull(mut stand: Stand) {
    let replica = stand.start().await;
    pushed(&replica).await;
    let copy = stand.copy().await;
    pushed_more(&replica).await;
    replica.stop().await;
    stand.restore(&copy).await;
    let replica = stand.start().await;
    let mut newest = Vec::new();
    for n in 0.. {
        let tag = format!("new{n}");
        newest.push((tag.clone(), replica.api.push_image("team-1/app", Some(&tag), &tag).await));
        replica.api.assert_pullable("team-0/app", "v0").await;
        replica.api.assert_pullable("team-2/late", "v1").await;
        let envelope = replica.meta.envelope().await.unwrap().unwrap();
        if envelope.walked && n > 5 {
            break;
        }
    }
    for (tag, digest) in newest {
        assert_eq!(replica.api.resolve("team-1/app", &tag).await, Some(digest), "{tag}");
    }
    replica.stop().await;
    let before = stand.rows().await;
    stand.lose().await;
    stand.adopt().await;
    stand.assert_rows(&before).await;
}

async fn pushed_more(replica: &Replica) {
    replica.api.push_image("team-2/late", Some("v1"), "late").await;
    replica.api.push_image("team-0/app", Some("v0"), "moved").await;
    let digest = replica.api.push_image("team-1/app", None, "soon gone").await;
    replica.api.delete(&format!("/v2/team-1/app/manifests/{digest}")).await;
}

/// A walk with a database that fails at step `n` of the walk.
async fn broken_walk(stand: &Stand, step: &'static str, effect: Effect) -> bool {
    let (faulty, faults) = Faulty::over(stand.meta().await);
    let meta: Arc<dyn MetaStore> = Arc::new(faulty);
    let domain = Domain::new(Arc::clone(&meta), stand.store().await, Limits::default(), Tasks::new());
    let token = domain.trust().enter().await.unwrap();
    faults.inject(step, Occasion::Nth(1), effect);
    let walk = Walk::new(&domain, Walk::alone(None), CancellationToken::new());
    let broke = walk.run(token.epoch).await.is_err();
    // The same walk goes on: it finds the parts it had.
    if broke {
        walk.run(token.epoch).await.unwrap();
    }
    assert!(meta.envelope().await.unwrap().unwrap().walked, "{step}");
    broke
}

async fn a_walk_that_breaks_off_at_any_step_goes_on_and_ends_right(mut stand: Stand) {
    let replica = stand.start().await;
    pushed(&replica).await;
    let copy = stand.copy().await;
    pushed_more(&replica).await;
    replica.stop().await;
    let before = stand.rows().await;
    let mut broken = 0;
    for step in [
        "walk_progress",
        "plan_walk",
        "claim_shard",
        "blob_claims",
        "link_claims",
        "manifest_claims",
        "referrer_claims",
        "tag_claims",
        "settle",
        "repositories_below",
        "finish_shard",
        "queue_unreferenced",
        "end_walk",
    ] {
        for effect in [Effect::Fail, Effect::LoseAnswer] {
            stand.restore(&copy).await;
            broken += usize::from(broken_walk(&stand, step, effect).await);
            stand.assert_rows(&before).await;
        }
    }
    assert!(broken > 20, "{broken}");
}

async fn a_walk_beside_clients_is_not_broken_off_by_a_step_that_fails_in_passing(mut stand: Stand) {
    let replica = stand.start().await;
    pushed(&replica).await;
    let copy = stand.copy().await;
    pushed_more(&replica).await;
    replica.stop().await;
    let before = stand.rows().await;
    for step in ["claim_shard", "link_claims", "settle", "finish_shard"] {
        stand.restore(&copy).await;
        let (faulty, faults) = Faulty::over(stand.meta().await);
        let domain = Domain::new(Arc::new(faulty), stand.store().await, Limits::default(), Tasks::new());
        let epoch = domain.trust().enter().await.unwrap().epoch;
        for nth in [1, 2] {
            faults.inject(step, Occasion::Nth(nth), Effect::Fail);
        }
        let walk = Walk::new(&domain, Walk::beside_clients(), CancellationToken::new()).patiently();
        walk.run(epoch).await.unwrap();
        drop((walk, domain));
        stand.assert_rows(&before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_walkers_share_the_parts_and_one_that_stops_gives_its_own_back() {
    let mut stand = Stand::postgres().await;
    let replica = stand.start().await;
    pushed(&replica).await;
    let copy = stand.copy().await;
    pushed_more(&replica).await;
    replica.stop().await;
    let before = stand.rows().await;
    stand.restore(&copy).await;

    let (faulty, faults) = Faulty::over(stand.meta().await);
    let first = Domain::new(Arc::new(faulty), stand.store().await, Limits::default(), Tasks::new());
    let second = Domain::new(stand.meta().await, stand.store().await, Limits::default(), Tasks::new());
    let epoch = first.trust().enter().await.unwrap().epoch;
    let second = Walk::new(&second, Walk::beside_clients(), CancellationToken::new());
    // The first stands still with a part in its hands.
    let (gate, stopping) = (Gate::new(), CancellationToken::new());
    faults.inject("settle", Occasion::Always, Effect::HoldBefore(gate.clone()));
    let mut held = JoinSet::new();
    held.spawn(keep_compared(first, stopping.clone()));
    gate.reached().await;
    let mut other = JoinSet::new();
    other.spawn(async move { second.run(epoch).await });
    stopping.cancel();
    held.join_next().await.unwrap().unwrap();
    // Long before a minute has passed, after which it would count as dead.
    let ended = tokio::time::timeout(Duration::from_secs(30), other.join_next()).await.unwrap();
    ended.unwrap().unwrap().unwrap();
    stand.assert_rows(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_serve_find_a_new_incarnation_by_themselves_and_trust_it_together() {
    let stand = Stand::postgres().await;
    let replicas = [stand.start().await, stand.start().await];
    let digest = replicas[0].api.push_image("app", Some("v1"), "layer").await;
    stand.restart().await;
    for replica in &replicas {
        assert_eq!(replica.api.resolve("app", "v1").await, Some(digest));
        replica.walked().await;
        let target = format!("/v2/app/manifests/{}", digest_of(&super::api::image("layer")));
        assert_eq!(replica.api.head(&target).await.status, http::StatusCode::OK);
    }
    let epochs = stand.store().await.list("v1/epoch/", None, 10).await.unwrap();
    assert_eq!(epochs.len(), 2);
}
