// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What gates find, where cosign itself has signed and attested.

use std::time::Duration;

use http::StatusCode;
use stowage_oci::Digest;
use stowage_registry::domain::{Ending, Promotion, PromotionRequest, PromotionRule, Since, Verdict, Wanted};
use stowage_registry::meta::LedgerApproval;
use stowage_registry::signatures::Keys;

use super::{gate, labels, listening, promote, ready, request, rule};
use crate::rebuild::api::{attachment, index};
use crate::rebuild::stand::Stand;
use crate::signatures::cosign::{At, Form, Signer};

on_both!(
    p24_f39_signatures_by_as_many_keys_as_are_asked_for_let_an_image_pass,
    p25_a_young_attestation_of_the_type_by_one_of_the_keys_lets_an_image_pass,
    n5_gates_wait_for_time_approvals_and_an_earlier_promotion,
    n5_labels_are_those_of_the_image_or_its_annotations,
    n5_labels_of_what_is_not_all_here_are_waited_for,
);

const SCAN: &str = "https://example.com/scan/v1";

fn at(address: &str) -> At<'_> {
    At { address, repository: "staging/app", login: None }
}

fn reason(promotion: &Promotion) -> (Ending, &'static str) {
    (promotion.ending, promotion.gates[0].reason)
}

/// cosign asks the registry, which is in this process.
async fn beside(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work).await.unwrap();
}

async fn p24_f39_signatures_by_as_many_keys_as_are_asked_for_let_an_image_pass(stand: Stand) {
    let replica = ready(&stand).await;
    let address = listening(&replica).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let (release, vendor) = (Signer::new("release"), Signer::new("vendor"));
    let stranger = Signer::new("stranger");
    let keys = Keys::new(vec![release.key(), vendor.key()]);
    let wants = |required| rule(vec![gate("signed", Wanted::Signature { keys: keys.clone(), required })]);
    let judged = async |required| reason(&promote(&replica, &wants(required), &request("1.0")).await);
    assert_eq!(judged(1).await, (Ending::WaitingForGates, "SignatureMissing"));

    let to = address.clone();
    beside(move || stranger.sign(at(&to), &image, Form::Bundle)).await;
    assert_eq!(judged(1).await, (Ending::WaitingForGates, "SignatureInvalid"));

    let to = address.clone();
    beside(move || release.sign(at(&to), &image, Form::Bundle)).await;
    assert_eq!(judged(2).await, (Ending::WaitingForGates, "SignatureMissing"));
    let promotion = promote(&replica, &wants(1), &request("1.0")).await;
    assert_eq!(reason(&promotion), (Ending::Promoted, "SignatureValid"), "{promotion:?}");
    assert_eq!(promotion.gates[0].evidence["key"], "release");

    beside(move || vendor.sign(at(&address), &image, Form::Tag)).await;
    let again = promote(&replica, &wants(2), &request("1.0")).await;
    assert_eq!(again.ending, Ending::AlreadyPromoted);
    assert_eq!(again.gates[0].evidence["key"], "release,vendor");
    replica.stop().await;
}

async fn p25_a_young_attestation_of_the_type_by_one_of_the_keys_lets_an_image_pass(stand: Stand) {
    let replica = ready(&stand).await;
    let address = listening(&replica).await;
    let release = Signer::new("release");
    let keys = release.only();
    let hour = Duration::from_hours(1);
    let wants = |max_age| {
        let predicate_type = SCAN.to_owned();
        let wants = Wanted::Attestation { predicate_type, keys: keys.clone(), max_age };
        PromotionRule {
            to_tag: "stable".parse().unwrap(),
            overwrites: true,
            ..rule(vec![gate("scan", wants)])
        }
    };
    let judged = async |tag: &str, max_age| reason(&promote(&replica, &wants(max_age), &request(tag)).await);
    let push = async |tag: &str| replica.api.push_image("staging/app", Some(tag), tag).await;
    let images: [Digest; 4] = [push("new").await, push("old").await, push("other").await, push("aged").await];
    assert_eq!(judged("new", None).await, (Ending::WaitingForGates, "AttestationMissing"));

    // Anybody can attach what calls itself an attestation.
    let posing = attachment(images[0], "scanned");
    assert_eq!(replica.api.put("staging/app", None, &posing).await.status, StatusCode::CREATED);
    assert_eq!(judged("new", None).await, (Ending::WaitingForGates, "AttestationMissing"));

    let aged = r#"{"metadata": {"scanFinishedOn": "2020-01-01T00:00:00Z"}}"#;
    beside(move || {
        let at = at(&address);
        release.attest_as(at, &images[0], SCAN, "{}", Form::Bundle);
        release.attest_as(at, &images[1], SCAN, "{}", Form::Tag);
        Signer::new("stranger").attest_as(at, &images[2], SCAN, "{}", Form::Bundle);
        release.attest_as(at, &images[2], "https://example.com/other/v1", "{}", Form::Bundle);
        release.attest_as(at, &images[3], SCAN, aged, Form::Bundle);
    })
    .await;
    for tag in ["new", "old"] {
        assert_eq!(judged(tag, Some(hour)).await, (Ending::Promoted, "AttestationValid"), "{tag}");
    }
    assert_eq!(judged("other", None).await, (Ending::WaitingForGates, "AttestationInvalid"));
    assert_eq!(judged("aged", Some(hour)).await, (Ending::WaitingForGates, "AttestationTooOld"));
    assert_eq!(judged("aged", None).await, (Ending::Promoted, "AttestationValid"));
    replica.stop().await;
}

async fn n5_gates_wait_for_time_approvals_and_an_earlier_promotion(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("dev/app", Some("1.0"), "x").await;
    let to_staging = PromotionRule {
        name: "to-staging".to_owned(),
        from: vec!["dev/**".parse().unwrap()],
        to: "staging/{path}".parse().unwrap(),
        ..rule(Vec::new())
    };
    replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let of = |wants| rule(vec![gate("g", wants)]);
    let by_policy = of(Wanted::PromotedBy("to-staging".to_owned()));
    let soaked = |age| of(Wanted::MinimumAge { age, since: Since::PromotedToSource });
    assert_eq!(reason(&promote(&replica, &by_policy, &request("1.0")).await).1, "NotPromoted");
    assert_eq!(reason(&promote(&replica, &soaked(Duration::ZERO), &request("1.0")).await).1, "NotPromoted");
    let asked = PromotionRequest { repository: "dev/app".parse().unwrap(), ..request("1.0") };
    assert_eq!(promote(&replica, &to_staging, &asked).await.ending, Ending::Promoted);

    let day = Duration::from_hours(24);
    let young = promote(&replica, &soaked(day), &request("1.0")).await;
    assert_eq!(reason(&young), (Ending::WaitingForGates, "TooYoung"));
    assert!(young.not_before().is_some());
    let pushed = of(Wanted::MinimumAge { age: day, since: Since::Pushed });
    assert_eq!(reason(&promote(&replica, &pushed, &request("1.0")).await).1, "TooYoung");

    let approved = of(Wanted::Approval { required: 1 });
    let yes = |user: &str| LedgerApproval { user: user.to_owned(), digest: image };
    let asked = |user| PromotionRequest { approvals: vec![yes(user)], ..request("1.0") };
    let own = promote(&replica, &approved, &asked("carol")).await;
    assert_eq!(reason(&own), (Ending::WaitingForGates, "ApprovalsMissing"), "carol asked for it");
    assert_eq!(own.gates[0].verdict, Verdict::Waits);

    let all = PromotionRule {
        gates: [by_policy.gates, soaked(Duration::ZERO).gates, approved.gates].concat(),
        ..rule(Vec::new())
    };
    let promotion = promote(&replica, &all, &asked("alice")).await;
    assert_eq!(promotion.ending, Ending::Promoted, "{promotion:?}");
    replica.stop().await;
}

async fn n5_labels_are_those_of_the_image_or_its_annotations(stand: Stand) {
    let replica = ready(&stand).await;
    let api = &replica.api;
    let config = r#"{"config": {"Labels": {"vendor": "acme"}}}"#;
    let config_digest = api.push_blob("staging/app", config.as_bytes()).await;
    api.push_blob("staging/app", b"layer").await;
    let mut image = crate::rebuild::api::image("layer");
    image["config"]["digest"] = config_digest.to_string().into();
    image["config"]["size"] = config.len().into();
    assert_eq!(api.put("staging/app", Some("1.0"), &image).await.status, StatusCode::CREATED);
    let list = index(&[crate::rebuild::api::digest_of(&image)]);
    assert_eq!(api.put("staging/app", Some("2.0"), &list).await.status, StatusCode::CREATED);
    for tag in ["1.0", "2.0"] {
        let wants = |pairs: &[(&str, &str)]| rule(vec![gate("labelled", labels(pairs))]);
        let other = promote(&replica, &wants(&[("vendor", "other")]), &request(tag)).await;
        assert_eq!(reason(&other), (Ending::GateFailed, "LabelsDiffer"), "{tag}");
        let both = promote(&replica, &wants(&[("vendor", "acme"), ("layer", "layer")]), &request(tag)).await;
        assert_eq!(reason(&both), (Ending::Promoted, "LabelsMatch"), "{tag}");
    }
    replica.stop().await;
}

async fn n5_labels_of_what_is_not_all_here_are_waited_for(stand: Stand) {
    let replica = ready(&stand).await;
    let image = crate::rebuild::api::image("layer");
    let list = index(&[crate::rebuild::api::digest_of(&image)]);
    assert_eq!(replica.api.put("staging/app", Some("1.0"), &list).await.status, StatusCode::CREATED);
    let rule = rule(vec![gate("labelled", labels(&[("layer", "layer")]))]);
    let sparse = promote(&replica, &rule, &request("1.0")).await;
    assert_eq!(reason(&sparse), (Ending::WaitingForGates, "LabelsUnknown"));
    replica.api.push_image("staging/app", None, "layer").await;
    let whole = promote(&replica, &rule, &request("1.0")).await;
    assert_eq!(reason(&whole), (Ending::Promoted, "LabelsMatch"));
    replica.stop().await;
}
