// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The ledger: written with the tag, finished by the reaper, made again from the bucket.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use stowage_registry::blobs::{Effect, Failure, Fault, Request};
use stowage_registry::domain::{Ending, PromotionMode, PromotionRequest, PromotionRule, Wanted};
use stowage_registry::jobs::Collector;
use stowage_registry::meta::LedgerApproval;
use stowage_registry::ops::metrics::CollectionMetrics;

use super::{gate, labels, of_digest, promote, ready, request, rule};
use crate::rebuild::stand::{Replica, Stand};

on_both!(
    n5_n1_a_rebuild_brings_the_ledger_back_equal,
    n5_a_promotion_that_was_cut_off_before_its_record_is_finished_with_it,
    n5_the_ledger_says_by_what_it_was_decided,
    n5_a_promotion_that_failed_is_in_the_ledger_and_has_no_record,
    n5_what_was_asked_for_is_pending_while_its_gates_wait,
);

/// All rows of promotions that took effect.
async fn promotions(stand: &Stand) -> Vec<String> {
    stand
        .texts(
            "SELECT concat_ws(' ', encode(digest, 'hex'), source_repo, source_tag, target_repo, target_tag, policy, outcome,
                              actor, extract(epoch FROM at), epoch, seq, gen, evidence::text)
             FROM promotions WHERE gen IS NOT NULL",
            "SELECT concat_ws(' ', hex(digest), source_repo, source_tag, target_repo, target_tag, policy, outcome, actor, at,
                              epoch, seq, hex(gen), evidence)
             FROM promotions WHERE gen IS NOT NULL",
        )
        .await
}

async fn outcomes(stand: &Stand) -> Vec<String> {
    let all = "SELECT outcome FROM promotions";
    stand.texts(all, all).await
}

async fn records(replica: &Replica) -> Vec<String> {
    let all = replica.store.list("v1/r/", None, 1000).await.unwrap();
    all.into_iter().map(|object| object.key).filter(|key| key.contains("/~p/")).collect()
}

async fn n5_n1_a_rebuild_brings_the_ledger_back_equal(mut stand: Stand) {
    let replica = ready(&stand).await;
    let api = &replica.api;
    let overwrites = PromotionRule { overwrites: true, ..rule(Vec::new()) };
    let old = api.push_image("staging/app", Some("1.0"), "old").await;
    promote(&replica, &overwrites, &request("1.0")).await;
    api.push_image("staging/app", Some("1.0"), "new").await;
    promote(&replica, &overwrites, &request("1.0")).await;
    promote(&replica, &overwrites, &of_digest(old, "1.0")).await;
    api.push_image("staging/team/other", Some("2"), "other").await;
    let other = PromotionRequest { repository: "staging/team/other".parse().unwrap(), ..request("2") };
    promote(&replica, &overwrites, &other).await;
    // Content goes, the ledger stays.
    assert_eq!(api.delete("/v2/prod/team/other/manifests/2").await.status, StatusCode::ACCEPTED);
    replica.stop().await;
    let before = promotions(&stand).await;
    assert_eq!(before.len(), 4, "{before:#?}");

    stand.lose().await;
    let walked = stand.adopt().await;
    assert_eq!((walked.foreign, walked.changes.get("insertedPromotions")), (0, Some(&4)), "{walked:?}");
    assert_eq!(promotions(&stand).await, before);
    let replica = ready(&stand).await;
    assert_eq!(promote(&replica, &overwrites, &of_digest(old, "1.0")).await.ending, Ending::AlreadyPromoted);
    replica.stop().await;
}

async fn n5_a_promotion_that_was_cut_off_before_its_record_is_finished_with_it(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let fault = Fault::at(Request::Put, Effect::Fail(Failure::Unavailable)).matching("/~p/");
    replica.bucket.add(fault);
    let domain = replica.registry.domain();
    domain.promote(&rule(Vec::new()), &request("1.0"), PromotionMode::Promote).await.unwrap_err();
    assert!(promotions(&stand).await.is_empty());
    replica.bucket.clear();
    stand
        .execute(
            "UPDATE intents SET deadline = 'epoch' WHERE ledger IS NOT NULL",
            "UPDATE intents SET deadline = 0 WHERE ledger IS NOT NULL",
        )
        .await;
    let (meta, store) = (Arc::clone(&replica.meta), Arc::clone(&replica.store));
    let collected = Collector::new(meta, store, CollectionMetrics::default()).collect().await.unwrap();
    assert_eq!(collected.finished, 1);
    assert_eq!(replica.api.resolve("prod/app", "1.0").await, Some(image));
    assert_eq!((promotions(&stand).await.len(), records(&replica).await.len()), (1, 1));
    let record = replica.store.get(&records(&replica).await[0], None).await.unwrap().unwrap();
    assert!(record.size > 100, "it is not empty");
    assert_eq!(promote(&replica, &rule(Vec::new()), &request("1.0")).await.ending, Ending::AlreadyPromoted);
    replica.stop().await;
}

async fn n5_the_ledger_says_by_what_it_was_decided(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let rule = rule(vec![gate("layered", labels(&[("layer", "x")]))]);
    let asked = PromotionRequest { reason: Some("CHG-1".to_owned()), ..request("1.0") };
    assert_eq!(promote(&replica, &rule, &asked).await.ending, Ending::Promoted);
    let evidence =
        stand.texts("SELECT evidence::text FROM promotions", "SELECT evidence FROM promotions").await;
    let record: Value = serde_json::from_str(&evidence[0]).unwrap();
    for (place, value) in [
        ("/v", Value::from(1)),
        ("/digest", image.to_string().into()),
        ("/source/repository", "staging/app".into()),
        ("/source/tag", "1.0".into()),
        ("/target/repository", "prod/app".into()),
        ("/target/tag", "1.0".into()),
        ("/policy/name", "to-prod".into()),
        ("/policy/generation", 1.into()),
        ("/policy/spec/to/repository", "prod/{path}".into()),
        ("/requestedBy", "carol".into()),
        ("/actor", "test".into()),
        ("/reason", "CHG-1".into()),
        ("/gates/0/name", "layered".into()),
        ("/gates/0/kind", "labels".into()),
        ("/gates/0/reason", "LabelsMatch".into()),
    ] {
        assert_eq!(record.pointer(place), Some(&value), "{place} of {record:#}");
    }
    replica.stop().await;
}

async fn n5_a_promotion_that_failed_is_in_the_ledger_and_has_no_record(stand: Stand) {
    let replica = ready(&stand).await;
    replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let rule = rule(vec![gate("vendor", labels(&[("vendor", "acme")]))]);
    let promotion = promote(&replica, &rule, &request("1.0")).await;
    assert_eq!((promotion.ending, promotion.gates[0].reason), (Ending::GateFailed, "LabelsDiffer"));
    assert!(promotion.message.contains("vendor=acme"), "{}", promotion.message);
    assert_eq!(outcomes(&stand).await, ["GateFailed"]);
    assert!(records(&replica).await.is_empty());
    replica.stop().await;
}

async fn n5_what_was_asked_for_is_pending_while_its_gates_wait(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let pending = async || replica.meta.retention_facts(&request("1.0").repository).await.unwrap().pending;
    let approved = rule(vec![gate("approved", Wanted::Approval { required: 1 })]);
    assert_eq!(promote(&replica, &approved, &request("1.0")).await.ending, Ending::WaitingForGates);
    assert_eq!(pending().await, [image]);
    let by_hand = PromotionRequest { id: None, ..request("1.0") };
    assert_eq!(promote(&replica, &rule(Vec::new()), &by_hand).await.ending, Ending::Promoted);
    assert_eq!(pending().await, [image], "that was something else");
    let yes = LedgerApproval { user: "alice".to_owned(), digest: image };
    let asked = PromotionRequest { approvals: vec![yes], ..request("1.0") };
    assert_eq!(promote(&replica, &approved, &asked).await.ending, Ending::AlreadyPromoted);
    assert!(pending().await.is_empty());
    replica.stop().await;
}
