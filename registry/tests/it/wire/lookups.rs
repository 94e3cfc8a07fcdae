// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Many pulls at once: what is asked of the database together, and what may not be.

use std::pin::Pin;

use futures::future::join_all;
use futures::poll;
use stowage_registry::meta::faulty::{Effect, Faults, Gate, Occasion};

use super::registry::{Answer, OCI_IMAGE, Registry, image, sha256};

const TAG: &str = "/v2/app/manifests/v1";
/// Questions that are put at the same time.
const LANES: u64 = 2;

type Pull<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

/// A pull that is on its way: it has put its question, or waits until it may.
async fn pulling<'a>(registry: &'a Registry, target: &'a str) -> Pull<'a> {
    let mut pull: Pull<'a> = Box::pin(registry.get(target).send());
    assert!(poll!(&mut pull).is_pending());
    pull
}

/// As many pulls as questions are put at once; their answers are held.
async fn held<'a>(registry: &'a Registry, faults: &Faults, gate: &Gate) -> Vec<Pull<'a>> {
    faults.inject("tagged", Occasion::First(LANES), Effect::HoldAfter(gate.clone()));
    let mut pulls = Vec::new();
    for _ in 0..LANES {
        let mut pull = pulling(registry, TAG).await;
        let reached = gate.reached();
        tokio::pin!(reached);
        futures::future::select(&mut pull, reached).await;
        pulls.push(pull);
    }
    pulls
}

async fn many<'a>(registry: &'a Registry, target: &'a str) -> Vec<Pull<'a>> {
    let mut pulls = Vec::new();
    for _ in 0..20 {
        pulls.push(pulling(registry, target).await);
    }
    pulls
}

#[tokio::test]
async fn w174_a_pull_that_comes_after_the_tag_moved_sees_that_though_older_questions_are_open() {
    let (registry, faults) = Registry::with_faulty_database().await;
    let old = registry.push_image("app", "v1").await;
    let gate = Gate::new();
    let early = held(&registry, &faults, &gate).await;

    let moved = image(&[b"layer of app:v1", b"layer of app:v1"]);
    assert_eq!(registry.put_manifest("app", "v1", &moved).await.status, 201);
    let late = many(&registry, TAG).await;
    assert_eq!(faults.calls("tagged"), LANES, "the late ones wait");

    gate.release();
    let (early, late) = futures::join!(join_all(early), join_all(late));
    for answer in early {
        assert_eq!(sha256(&answer.body), old);
    }
    for answer in late {
        assert_eq!((answer.status, answer.body.as_ref()), (200, moved.to_string().as_bytes()));
        assert_eq!(answer.header("content-type"), OCI_IMAGE);
    }
    assert_eq!(faults.calls("tagged"), LANES + 1, "twenty pulls, one question");
}

#[tokio::test]
async fn a_question_that_fails_fails_for_all_who_share_it_and_each_is_answered_from_the_bucket() {
    let (registry, faults) = Registry::with_faulty_database().await;
    let digest = registry.push_image("app", "v1").await;
    let gate = Gate::new();
    let early = held(&registry, &faults, &gate).await;
    faults.inject("tagged", Occasion::Nth(1), Effect::Fail);
    let late = many(&registry, TAG).await;
    gate.release();
    let (early, late) = futures::join!(join_all(early), join_all(late));
    assert!(early.iter().all(|answer| !answer.headers.contains_key("warning")));
    for answer in late {
        assert_eq!((answer.status, sha256(&answer.body)), (200, digest));
        assert!(answer.headers.contains_key("warning"));
    }
    assert_eq!(faults.calls("tagged"), LANES + 1, "nobody asks again");
}

#[tokio::test]
async fn a_client_that_goes_takes_no_other_along() {
    let (registry, faults) = Registry::with_faulty_database().await;
    let digest = registry.push_image("app", "v1").await;
    let gate = Gate::new();
    let mut early = held(&registry, &faults, &gate).await;
    let mut late = many(&registry, TAG).await;
    // One that asks, and some that wait; its lane is the others' at once.
    early.pop();
    late.truncate(10);
    for answer in join_all(late).await {
        assert_eq!((answer.status, sha256(&answer.body)), (200, digest));
    }
    assert_eq!(faults.calls("tagged"), LANES + 1);
    gate.release();
    assert_eq!(join_all(early).await.len(), 1);
}
