// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! N1: the database is made again from the bucket, and is equal.

use http::StatusCode;
use stowage_oci::Digest;

use super::api::{Api, attachment, digest_of, index, sha256};
use super::stand::Stand;

on_both!(
    w349_a_rebuilt_database_is_equal_and_what_was_deleted_stays_deleted,
    w395_many_referrers_are_newest_first_before_and_after_a_rebuild_and_without_a_database,
    a_walk_over_an_equal_database_changes_nothing,
    n6_what_was_deleted_comes_back_after_a_rebuild,
    o7_a_folder_or_bucket_without_its_database_answers_as_before_after_a_rebuild,
);

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.roll(all.len())) }
    }
}

/// What was pushed to a repository, as far as a client remembers.
#[derive(Default)]
struct Memory {
    manifests: Vec<Digest>,
    deleted: Vec<String>,
}

const REPOSITORIES: [&str; 4] = ["app", "team/app", "team/app/deep", "other-team/x"];
const TAGS: [&str; 5] = ["v1", "v1.0", "v1-rc", "latest", "Upper"];

/// Pushes, tags, moves, deletes and attaches at random; what was deleted last and not pushed again.
pub(crate) async fn live(api: &Api, seed: u64, steps: usize) -> Vec<String> {
    let mut dice = Dice(seed);
    let mut memories: Vec<Memory> = REPOSITORIES.iter().map(|_| Memory::default()).collect();
    for step in 0..steps {
        let at = dice.roll(REPOSITORIES.len());
        let (name, memory) = (REPOSITORIES[at], &mut memories[at]);
        let tag = dice.pick(&TAGS).copied().filter(|_| true);
        let target = |reference: &str| format!("/v2/{name}/manifests/{reference}");
        match dice.roll(20) {
            0..=7 => {
                // Few layers, so that they are shared, and pushed again.
                let layer = format!("layer {}", dice.roll(12));
                let digest = api.push_image(name, tag.filter(|_| step % 4 != 0), &layer).await;
                memory.manifests.push(digest);
                memory.deleted.retain(|one| *one != target(&digest.to_string()));
                memory.deleted.retain(|one| tag.is_none_or(|tag| *one != target(tag)));
            }
            8 | 9 => {
                let children: Vec<Digest> =
                    (0..2).filter_map(|_| dice.pick(&memory.manifests).copied()).collect();
                // Some of them were deleted: indexes may be sparse.
                let sparse = sha256(&[u8::try_from(dice.roll(9)).unwrap()]);
                let manifest = index(&[&children[..], &[sparse]].concat());
                assert_eq!(api.put(name, tag, &manifest).await.status, StatusCode::CREATED);
                memory.manifests.push(digest_of(&manifest));
                memory.deleted.retain(|one| tag.is_none_or(|tag| *one != target(tag)));
            }
            10 | 11 => {
                let Some(subject) = dice.pick(&memory.manifests).copied() else { continue };
                api.push_blob(name, b"{}").await;
                let manifest = attachment(subject, &format!("note {}", dice.roll(6)));
                assert_eq!(api.put(name, None, &manifest).await.status, StatusCode::CREATED);
                memory.manifests.push(digest_of(&manifest));
                memory.deleted.retain(|one| *one != target(&digest_of(&manifest).to_string()));
            }
            12..=14 => {
                let Some(tag) = tag else { continue };
                if api.delete(&target(tag)).await.status == StatusCode::ACCEPTED {
                    memory.deleted.push(target(tag));
                }
            }
            15 | 16 => {
                let Some(digest) = dice.pick(&memory.manifests).copied() else { continue };
                let target = target(&digest.to_string());
                let status = api.delete(&target).await.status;
                assert!(status != StatusCode::SERVICE_UNAVAILABLE, "all is compared");
                if status == StatusCode::ACCEPTED {
                    memory.deleted.push(target);
                }
            }
            17 => {
                let digest = sha256(format!("layer {}", dice.roll(12)).as_bytes());
                api.delete(&format!("/v2/{name}/blobs/{digest}")).await;
            }
            18 => {
                let digest = sha256(format!("layer {}", dice.roll(12)).as_bytes());
                let from = dice.pick(&REPOSITORIES).unwrap();
                let target = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
                api.send(http::Method::POST, &target, "", b"").await;
            }
            _ => {
                api.push_blob(name, format!("alone {}", dice.roll(5)).as_bytes()).await;
            }
        }
    }
    memories.into_iter().flat_map(|memory| memory.deleted).collect()
}

/// What clients see, of every repository.
async fn seen(api: &Api) -> Vec<String> {
    let mut all = Vec::new();
    for name in REPOSITORIES {
        for tag in api.tags(name).await {
            all.push(format!("{name}:{tag} {:?}", api.resolve(name, &tag).await));
        }
        for layer in 0..12 {
            let subject = digest_of(&super::api::image(&format!("layer {layer}")));
            all.push(format!("{name} {subject} {:?}", api.referrers(name, subject).await));
        }
    }
    all
}

async fn w349_a_rebuilt_database_is_equal_and_what_was_deleted_stays_deleted(mut stand: Stand) {
    for seed in [1, 2] {
        let replica = stand.start().await;
        replica.walked().await;
        let deleted = live(&replica.api, seed, 150).await;
        let seen_before = seen(&replica.api).await;
        replica.stop().await;
        let before = stand.rows().await;
        assert!(before.iter().all(|(_, rows)| !rows.is_empty()), "{before:?}");

        stand.lose().await;
        let walked = stand.adopt().await;
        assert_eq!(walked.foreign, 0);
        assert!(walked.changes.contains_key("adoptedManifests"), "{walked:?}");
        stand.assert_rows(&before).await;

        let replica = stand.start().await;
        assert_eq!(seen(&replica.api).await, seen_before);
        assert!(deleted.len() > 3, "{deleted:?}");
        for target in deleted {
            assert_eq!(replica.api.get(&target).await.status, StatusCode::NOT_FOUND, "{target}");
        }
        replica.stop().await;
    }
}

/// More than a comparison settles in one transaction.
async fn w395_many_referrers_are_newest_first_before_and_after_a_rebuild_and_without_a_database(
    mut stand: Stand,
) {
    let replica = stand.start().await;
    replica.walked().await;
    let subject = replica.api.push_image("app", Some("v1"), "layer").await;
    replica.api.push_blob("app", b"{}").await;
    let mut pushed = Vec::new();
    for number in 0..620 {
        let manifest = attachment(subject, &format!("note {number}"));
        assert_eq!(replica.api.put("app", None, &manifest).await.status, StatusCode::CREATED);
        pushed.insert(0, digest_of(&manifest).to_string());
    }
    assert!(replica.api.referrers("app", subject).await == pushed, "before");
    replica.stop().await;
    stand.lose().await;
    let replica = stand.start().await;
    assert!(replica.api.referrers("app", subject).await == pushed, "without a database");
    replica.stop().await;
    stand.adopt().await;
    let replica = stand.start().await;
    assert!(replica.api.referrers("app", subject).await == pushed, "after a rebuild");
    replica.stop().await;
}

async fn a_walk_over_an_equal_database_changes_nothing(stand: Stand) {
    let replica = stand.start().await;
    replica.walked().await;
    live(&replica.api, 3, 80).await;
    replica.stop().await;
    let before = stand.rows().await;
    let dry = stand.rebuild(stowage_registry::jobs::RebuildOptions { dry_run: true, ..Default::default() });
    let dry = dry.await.unwrap();
    assert!(dry.changes.is_empty(), "{dry:?}");
    let walked = stand.rebuild(stowage_registry::jobs::RebuildOptions::default()).await.unwrap();
    assert!(walked.changes.is_empty() && walked.listed > 100, "{walked:?}");
    stand.assert_rows(&before).await;
}

async fn n6_what_was_deleted_comes_back_after_a_rebuild(mut stand: Stand) {
    let replica = stand.start().await;
    replica.walked().await;
    let tagged = replica.api.push_image("app", Some("v1"), "one").await;
    let by_digest = replica.api.push_image("app", None, "two").await;
    for reference in ["v1".to_owned(), by_digest.to_string()] {
        let deleted = replica.api.delete(&format!("/v2/app/manifests/{reference}")).await;
        assert_eq!(deleted.status, StatusCode::ACCEPTED);
    }
    replica.stop().await;
    stand.lose().await;
    stand.adopt().await;

    let replica = stand.start().await;
    replica.walked().await;
    let trash = replica.registry.domain().trash(None, None, 10).await.unwrap();
    let items: Vec<String> = trash.iter().map(|found| found.item.to_string()).collect();
    assert_eq!(items, [format!("app@{by_digest}"), "app:v1".to_owned()]);
    for found in &trash {
        replica.registry.domain().restore(&found.item, false).await.unwrap();
    }
    replica.api.assert_pullable("app", "v1").await;
    replica.api.assert_pullable("app", &by_digest.to_string()).await;
    let tag = replica.api.head("/v2/app/manifests/v1").await;
    assert_eq!(tag.headers["docker-content-digest"], tagged.to_string());
    replica.stop().await;
}

async fn o7_a_folder_or_bucket_without_its_database_answers_as_before_after_a_rebuild(mut stand: Stand) {
    let replica = stand.start().await;
    let digest = replica.api.push_image("team/app", Some("v1"), "layer").await;
    replica.stop().await;
    stand.lose().await;

    // Until then there are only pulls, from the bucket.
    let replica = stand.start().await;
    let answer = replica.api.get("/v2/team/app/manifests/v1").await;
    assert!(answer.status == StatusCode::OK && answer.is_degraded(), "{answer:?}");
    replica.api.assert_pullable("team/app", &digest.to_string()).await;
    let refused = replica.api.send(http::Method::POST, "/v2/team/app/blobs/uploads/", "", b"").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("rebuilt"), "{refused:?}");
    replica.stop().await;

    stand.adopt().await;
    let replica = stand.start().await;
    let answer = replica.api.get("/v2/team/app/manifests/v1").await;
    assert!(answer.status == StatusCode::OK && !answer.is_degraded(), "{answer:?}");
    replica.api.assert_pullable("team/app", "v1").await;
    replica.api.push_image("team/app", Some("v2"), "another").await;
    replica.stop().await;
}
