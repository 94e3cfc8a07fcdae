// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A database that lost commits: an older copy of it comes back over the bucket as it is.

use http::StatusCode;
use stowage_registry::blobs::{self, Fault, Request};
use stowage_registry::meta::faulty::{Effect, Gate, Occasion};

use super::api::{attachment, digest_of, image, index, sha256};
use super::stand::Stand;

on_both!(
    w349_what_was_acknowledged_after_the_copy_is_there_before_and_after_the_walk,
    w477_pushes_and_pulls_go_on_before_the_walk_and_deleting_by_digest_waits_for_it,
    w886_a_push_before_the_walk_is_never_lost_by_it,
    p43_an_older_copy_over_the_same_bucket_is_made_right_by_the_walk,
    a_deletion_that_meets_a_restart_holds_once_it_is_acknowledged,
);

/// A replica over the restored copy, whose walk has not begun.
async fn unwalked(stand: &Stand) -> (super::stand::Replica, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let replica = stand
        .start_with(|faults| {
            // The first step of a walk.
            faults.inject("walk_progress", Occasion::Always, Effect::HoldBefore(held));
        })
        .await;
    (replica, gate)
}

async fn w349_what_was_acknowledged_after_the_copy_is_there_before_and_after_the_walk(mut stand: Stand) {
    let replica = stand.start().await;
    let first = replica.api.push_image("app", Some("v1"), "one").await;
    let old = replica.api.push_image("app", Some("moved"), "one").await;
    replica.api.push_image("app", Some("deleted"), "gone soon").await;
    let gone = replica.api.push_image("app", None, "gone by digest").await;
    let copy = stand.copy().await;

    let second = replica.api.push_image("app", Some("v2"), "two").await;
    let moved = replica.api.push_image("app", Some("moved"), "three").await;
    let note = attachment(first, "signed");
    assert_eq!(replica.api.put("app", None, &note).await.status, StatusCode::CREATED);
    let both = index(&[first, second]);
    assert_eq!(replica.api.put("app", Some("all"), &both).await.status, StatusCode::CREATED);
    assert_eq!(replica.api.delete("/v2/app/manifests/deleted").await.status, StatusCode::ACCEPTED);
    let target = format!("/v2/app/manifests/{gone}");
    assert_eq!(replica.api.delete(&target).await.status, StatusCode::ACCEPTED);
    replica.api.push_image("new/repository", Some("v1"), "four").await;
    replica.stop().await;

    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    let check = async |api: &super::api::Api| {
        api.assert_pullable("app", "v1").await;
        api.assert_pullable("app", "v2").await;
        api.assert_pullable("app", &second.to_string()).await;
        api.assert_pullable("new/repository", "v1").await;
        assert_eq!(api.resolve("app", "moved").await, Some(moved), "not {old}");
        assert_eq!(api.resolve("app", "all").await, Some(digest_of(&both)));
        assert_eq!(api.resolve("app", "deleted").await, None);
        assert_eq!(api.resolve("app", &gone.to_string()).await, None);
        assert_eq!(api.referrers("app", first).await, [digest_of(&note).to_string()]);
        assert_eq!(api.tags("app").await, ["all", "moved", "v1", "v2"]);
        for content in ["one", "two", "three"] {
            let answer = api.head(&format!("/v2/app/blobs/{}", sha256(content.as_bytes()))).await;
            assert!(answer.status == StatusCode::OK && !answer.is_degraded(), "{content}: {answer:?}");
        }
    };
    check(&replica.api).await;
    gate.release();
    replica.walked().await;
    check(&replica.api).await;
    replica.stop().await;
}

async fn w477_pushes_and_pulls_go_on_before_the_walk_and_deleting_by_digest_waits_for_it(mut stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_image("app", Some("v1"), "one").await;
    replica.api.push_image("app", Some("v2"), "two").await;
    let copy = stand.copy().await;
    replica.stop().await;
    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    let api = &replica.api;

    api.push_image("app", Some("v3"), "three").await;
    api.assert_pullable("app", "v3").await;
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", sha256(b"one"));
    assert_eq!(api.send(http::Method::POST, &mount, "", b"").await.status, StatusCode::CREATED);
    assert_eq!(api.delete("/v2/app/manifests/v2").await.status, StatusCode::ACCEPTED);
    assert_eq!(api.tags("app").await, ["v1", "v3"]);
    let layer = sha256(b"three");
    for target in [format!("/v2/app/manifests/{digest}"), format!("/v2/app/blobs/{layer}")] {
        let answer = api.delete(&target).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"));
        let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("is being compared"), "{message}");
    }
    assert_eq!(api.get("/v2/_catalog").await.status, StatusCode::SERVICE_UNAVAILABLE);

    gate.release();
    replica.walked().await;
    let target = format!("/v2/app/manifests/{digest}");
    assert_eq!(api.delete(&target).await.status, StatusCode::ACCEPTED);
    assert_eq!(api.get("/v2/_catalog").await.status, StatusCode::OK);
    replica.stop().await;
}

async fn w886_a_push_before_the_walk_is_never_lost_by_it(mut stand: Stand) {
    let replica = stand.start().await;
    replica.api.push_image("app", Some("v1"), "one").await;
    let copy = stand.copy().await;
    replica.api.push_image("app", Some("v1"), "two").await;
    replica.stop().await;
    stand.restore(&copy).await;
    let (replica, gate) = unwalked(&stand).await;
    // Its data was pushed after the copy, and the tag is ordered above what the copy knows.
    let newest = replica.api.push_image("app", Some("v1"), "two").await;
    let third = replica.api.push_image("app", Some("v3"), "three").await;
    gate.release();
    replica.walked().await;
    assert_eq!(replica.api.resolve("app", "v1").await, Some(newest));
    assert_eq!(replica.api.resolve("app", "v3").await, Some(third));
    replica.api.assert_pullable("app", "v1").await;
    replica.stop().await;
    // And once more, from the bucket alone.
    let before = stand.rows().await;
    stand.lose().await;
    stand.adopt().await;
    stand.assert_rows(&before).await;
}

async fn p43_an_older_copy_over_the_same_bucket_is_made_right_by_the_walk(mut stand: Stand) {
    let replica = stand.start().await;
    for n in 0..10 {
        replica.api.push_image("app", Some(&format!("v{n}")), &format!("layer {n}")).await;
    }
    let copy = stand.copy().await;
    for n in 5..15 {
        replica.api.push_image("app", Some(&format!("v{n}")), &format!("layer {}", n + 100)).await;
    }
    for n in 0..3 {
        let digest = digest_of(&image(&format!("layer {n}")));
        let target = format!("/v2/app/manifests/{digest}");
        assert_eq!(replica.api.delete(&target).await.status, StatusCode::ACCEPTED);
    }
    replica.stop().await;
    let before = stand.rows().await;
    stand.restore(&copy).await;
    let replica = stand.start().await;
    replica.walked().await;
    replica.stop().await;
    stand.assert_rows(&before).await;
    let again = stand.rebuild(stowage_registry::jobs::RebuildOptions::default()).await.unwrap();
    assert!(again.changes.is_empty(), "{again:?}");
}

async fn a_deletion_that_meets_a_restart_holds_once_it_is_acknowledged(stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_image("app", Some("v1"), "one").await;
    let target = format!("/v2/app/manifests/{digest}");
    for (target, evidence) in [("/v2/app/manifests/v1", "/~t/v1/"), (&target, "/~m/")] {
        let gate = Gate::new();
        replica
            .bucket
            .add(Fault::at(Request::Put, blobs::Effect::HoldBefore(gate.clone())).matching(evidence));
        let meanwhile = async {
            gate.reached().await;
            // All of the bucket is compared in the next epoch, and lacks what comes late.
            stand.restart().await;
            replica.api.resolve("app", "v1").await;
            replica.walked().await;
            gate.release();
        };
        let (answer, ()) = tokio::join!(replica.api.delete(target), meanwhile);
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{target}");
        assert_eq!(replica.api.get(target).await.status, StatusCode::NOT_FOUND, "{target}");
        stand.restart().await;
        replica.api.resolve("app", "v1").await;
        replica.walked().await;
        assert_eq!(
            replica.api.get(target).await.status,
            StatusCode::NOT_FOUND,
            "{target}, after another walk"
        );
    }
    replica.stop().await;
}
