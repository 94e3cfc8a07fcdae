// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The memory for manifests.

use serde_json::{Value, json};
use stowage_registry::blobs::{Effect, Failure, Fault, Request};
use stowage_registry::domain::Limits;

use super::registry::{Registry, image, sha256};

super::both_stores!(f6_f48_manifests_in_memory_stay_within_the_bound_and_the_others_are_still_answered);

const BOUND: u64 = 1 << 20;
const MANIFESTS: usize = 60;

fn bounded(cache_memory: u64) -> Limits {
    Limits { cache_memory, ..Limits::default() }
}

/// A manifest that is too long for a row of the database, so that it is read from the bucket.
fn long(number: usize) -> Value {
    let mut manifest = image(&[]);
    manifest["annotations"] = json!({ "number": number.to_string(), "padding": "x".repeat(100_000) });
    manifest
}

async fn f6_f48_manifests_in_memory_stay_within_the_bound_and_the_others_are_still_answered(
    registry: Registry,
) {
    let builder = stowage_registry::Registry::builder().limits(bounded(BOUND));
    let registry = registry.reopened(builder).await;
    registry.push_blob("a", b"{}").await;
    let mut targets = Vec::new();
    for number in 0..MANIFESTS {
        let manifest = long(number);
        assert_eq!(registry.put_manifest("a", &format!("v{number}"), &manifest).await.status, 201);
        let body = manifest.to_string();
        targets.push((format!("/v2/a/manifests/{}", sha256(body.as_bytes())), body));
    }
    for bound in [BOUND, BOUND / 4] {
        registry.opened.set_limits(bounded(bound), 100);
        assert!(registry.opened.cached_bytes() <= bound);
        for (target, body) in &targets {
            let answer = registry.get(target).send().await;
            assert_eq!((answer.status, answer.body == body.as_bytes()), (200, true), "{target}");
            assert!(registry.opened.cached_bytes() <= bound, "{} bytes", registry.opened.cached_bytes());
        }
        assert!(registry.opened.cached_bytes() >= bound / 2, "{} bytes", registry.opened.cached_bytes());
        // Without the bucket only what is in memory is answered.
        registry.faults.add(Fault::at(Request::Get, Effect::Fail(Failure::Unavailable)));
        let mut held = 0;
        for (target, body) in &targets {
            match registry.get(target).send().await {
                answer if answer.status == 200 => held += answer.body.len().min(body.len()) as u64,
                answer => assert_eq!(answer.status, 503, "{answer:?}"),
            }
        }
        registry.faults.clear();
        assert!((1..=bound).contains(&held), "{held} bytes were held");
    }
}
