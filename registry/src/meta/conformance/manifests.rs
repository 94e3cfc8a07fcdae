// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pin and publish: what a push holds, what it writes, who wins a tag.
#![expect(missing_docs, reason = "a claim is its name")]

use std::collections::BTreeMap;

use futures::future::join_all;
use stowage_oci::Tag;

use super::{
    DAY, Fixture, HOUR, World, digest, facts, index, manifest_key, marker_key, name, none, pin, tag, tag_key,
};
use crate::key::Key;
use crate::meta::{ManifestFacts, Pin, PinOutcome, PublishOutcome};

async fn missing(world: &World, pin: &Pin) -> Vec<stowage_oci::Digest> {
    match world.store.pin_manifest(world.epoch, pin).await.expect("pin") {
        PinOutcome::Missing(digests) => digests,
        PinOutcome::Pinned(_) | PinOutcome::Moved | PinOutcome::Immutable(_) => Vec::new(),
    }
}

pub async fn a_manifest_is_live_only_when_it_is_published(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let blob = world.push("a/b", "x").await;
    let facts = ManifestFacts {
        artifact_type: Some("application/x".to_owned()),
        annotations: Some(BTreeMap::from([("k".to_owned(), "v \u{0}".replace('\u{0}', "ü"))])),
        ..facts("m", &[blob.digest])
    };
    let pinned = world.pin("a/b", facts.clone(), &["v1", "latest"]).await;
    assert!(pinned.writes_record);
    let by_digest = facts.digest.to_string();
    for reference in ["v1", "latest", by_digest.as_str()] {
        assert_eq!(world.manifest("a/b", reference).await, None, "{reference}");
    }
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    for reference in ["v1", "latest", by_digest.as_str()] {
        let row = world.manifest("a/b", reference).await.expect("it is live");
        assert_eq!(
            (row.id, row.digest, row.generation),
            (pinned.manifest, facts.digest, pinned.pin.generation)
        );
        assert_eq!(
            (row.body, row.size, row.media_type),
            (facts.body.clone(), facts.size, facts.media_type.clone())
        );
        assert!(!row.lease_is_old);
        assert_eq!(world.manifest("a", reference).await, None, "another repository");
    }
    assert!(world.rows.candidates().await.contains(&('m', pinned.manifest.0)));
}

pub async fn a_long_manifest_is_kept_without_its_bytes(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let long = ManifestFacts { body: None, size: 1 << 20, ..facts("m", &[]) };
    world.push_manifest("a", long, &["v1"]).await;
    let row = world.manifest("a", "v1").await.expect("it is live");
    assert_eq!((row.body, row.size), (None, 1 << 20));
}

pub async fn a_pin_lists_the_blobs_that_are_missing(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let here = world.push("a", "x").await.digest;
    let elsewhere = world.push("b", "y").await.digest;
    let absent = world.push("a", "z").await;
    world.store.mark_absent(&absent.digest, absent.generation).await.expect("mark");
    let wanted = [here, elsewhere, absent.digest, digest("never"), here];
    let lacking = missing(&world, &pin("a", facts("m", &wanted), &["v1"])).await;
    assert_eq!(lacking, [elsewhere, absent.digest, digest("never")]);
    let nowhere = missing(&world, &pin("c", facts("m", &[here]), &[])).await;
    assert_eq!(nowhere, [here], "a repository that does not exist has nothing");
    assert!(world.rows.intents().await.is_empty(), "nothing is intended");
}

pub async fn children_may_come_later_unless_the_rules_are_strict(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let blob = world.push("a", "x").await.digest;
    let child = world.push_manifest("a", facts("child", &[blob]), &[]).await.pin.facts.digest;
    let later = digest("later");
    let strict = |children: &[_]| Pin { strict: true, ..pin("a", index("i", children), &["v1"]) };
    assert_eq!(missing(&world, &strict(&[child, later, blob])).await, [later]);
    assert_eq!(missing(&world, &strict(&[child, blob])).await, [], "a child may be a blob");
    world.push_manifest("a", index("j", &[child, later, blob]), &["v2"]).await;
    assert_eq!(world.tag("a", "v2").await, Some(digest("j")));
}

pub async fn an_intent_names_every_key_that_the_push_writes(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let facts = ManifestFacts { subject: Some(digest("subject")), ..facts("m", &[]) };
    let pinned = world.pin("a", facts, &["v1"]).await;
    let (generation, digest_m) = (pinned.pin.generation, digest("m"));
    let referrer =
        Key::Referrer { repository: name("a"), subject: digest("subject"), digest: digest_m, generation };
    let mut keys = world.rows.intents().await.concat();
    let mut expected =
        [manifest_key("a", &pinned), referrer, tag_key("a", &pinned)].map(|key| key.to_string());
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
}

pub async fn a_push_of_a_live_manifest_writes_only_tags(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let first = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let second = world.pin("a", facts("m", &[]), &["v2"]).await;
    assert!(!second.writes_record);
    assert_eq!(world.rows.intents().await, [vec![tag_key("a", &second).to_string()]]);
    assert_eq!(world.publish(&second).await, PublishOutcome::Published);
    let row = world.manifest("a", "v2").await.expect("tagged");
    assert_eq!((row.id, row.generation), (first.manifest, first.pin.generation));
    assert_eq!(world.steps().await, [""; 0], "both tags stand, nothing is superseded");
}

pub async fn the_later_pin_wins_the_tag_whatever_is_published_last(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let early = world.pin("a", facts("early", &[]), &["v1"]).await;
    let late = world.pin("a", facts("late", &[]), &["v1"]).await;
    assert!(early.tags[0].version < late.tags[0].version);
    assert_eq!(world.publish(&late).await, PublishOutcome::Published);
    assert_eq!(world.publish(&early).await, PublishOutcome::Published, "overtaken, and done all the same");
    assert_eq!(world.tag("a", "v1").await, Some(digest("late")));
    assert!(world.manifest("a", &digest("early").to_string()).await.is_some());
    let removal = format!("-{}", tag_key("a", &early));
    let row = world.queued(&removal).await.expect("the record of the overtaken push goes");
    assert!(row.lane.is_some() && row.due_in > HOUR / 2, "{row:?}");
}

pub async fn a_moved_tag_queues_its_old_record_in_its_lane(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let old = world.push_manifest("a", facts("old", &[]), &["v1"]).await;
    let seen = world.rows.candidates().await.len();
    let new = world.push_manifest("a", facts("new", &[]), &["v1"]).await;
    assert_eq!(world.tag("a", "v1").await, Some(digest("new")));
    let outbox = world.rows.outbox().await;
    let steps: Vec<_> = outbox.iter().flat_map(|row| row.steps.clone()).collect();
    assert_eq!(steps, [format!("-{}", tag_key("a", &old))], "without a marker: it is superseded");
    assert!(outbox.iter().all(|row| row.lane.is_some() && row.due_in > HOUR / 2), "{outbox:?}");
    let candidates = world.rows.candidates().await.split_off(seen);
    assert!(candidates.contains(&('m', old.manifest.0)) && candidates.contains(&('m', new.manifest.0)));
    let elsewhere = world.push_manifest("a", facts("old", &[]), &["v2"]).await;
    world.push_manifest("a", facts("new", &[]), &["v2"]).await;
    let other = world.queued(&format!("-{}", tag_key("a", &elsewhere))).await.expect("queued");
    assert_ne!(other.lane, outbox[0].lane, "each tag has a lane of its own");
}

pub async fn the_second_writer_of_one_manifest_queues_its_own_record(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let facts = ManifestFacts { subject: Some(digest("subject")), ..facts("m", &[]) };
    let first = world.pin("a", facts.clone(), &[]).await;
    let second = world.pin("a", facts, &["v1"]).await;
    assert!(first.writes_record && second.writes_record, "neither knows who will be first");
    assert_eq!(first.manifest, second.manifest);
    assert_eq!(world.publish(&first).await, PublishOutcome::Published);
    assert_eq!(world.publish(&second).await, PublishOutcome::Published);
    let row = world.manifest("a", "v1").await.expect("tagged");
    assert_eq!(row.generation, first.pin.generation);
    let steps = world.steps().await;
    let marked = format!("+{}", marker_key("a", &second));
    let removed = format!("-{}", manifest_key("a", &second));
    assert_eq!(steps.get(..2), Some(&[marked, removed][..]), "marked before it is removed");
    assert_eq!(steps.len(), 3, "the referrer entry goes as well: {steps:?}");
}

pub async fn a_manifest_deleted_before_publish_starts_over(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    let pinned = world.pin("a", facts("m", &[]), &["v2"]).await;
    assert!(!pinned.writes_record);
    world.store.delete_manifest(world.epoch, &name("a"), &digest("m"), DAY, &none).await.expect("delete");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::StartOver);
    assert_eq!(world.tag("a", "v2").await, None);
    let row = world.queued(&format!("-{}", tag_key("a", &pinned))).await.expect("its record goes");
    let marker = format!("+{}.x", tag_key("a", &pinned));
    assert_eq!(row.steps.first(), Some(&marker), "{row:?}");
    let anew = world.push_manifest("a", facts("m", &[]), &["v2"]).await;
    assert!(anew.writes_record && anew.manifest != pinned.manifest);
    assert_eq!(world.tag("a", "v2").await, Some(digest("m")));
}

pub async fn a_push_is_published_once_and_found_again(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pinned = world.push_manifest("a", facts("m", &[]), &["v1"]).await;
    assert!(world.rows.intents().await.is_empty());
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    assert_eq!(world.steps().await, [""; 0], "its keys are live and stay");
}

pub async fn a_push_that_is_overtaken_is_not_pushed_again(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let early = world.push_manifest("a", facts("early", &[]), &["v1"]).await;
    let untagged = world.push_manifest("a", facts("untagged", &[]), &[]).await;
    world.push_manifest("a", facts("late", &[]), &["v1"]).await;
    assert_eq!(world.publish(&early).await, PublishOutcome::Published, "it was there before the later one");
    assert_eq!(world.tag("a", "v1").await, Some(digest("late")));
    assert!(world.took_effect(&early).await && world.took_effect(&untagged).await);
    world.store.delete_tag(world.epoch, &name("a"), &tag("v1"), DAY).await.expect("delete");
    assert!(world.took_effect(&early).await, "the deletion came later, too");
}

pub async fn a_push_took_no_effect_whose_manifest_or_tag_is_not_there(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pending = world.pin("a", facts("m", &[]), &["v1"]).await;
    assert!(!world.took_effect(&pending).await, "it is not live");
    world.push_manifest("a", facts("m", &[]), &[]).await;
    assert!(!world.took_effect(&pending).await, "live by another, without the tag");
    assert!(
        !world.took_effect(&world.pin("b", facts("m", &[]), &[]).await).await,
        "live in another repository"
    );
    world.push_manifest("a", facts("old", &[]), &["v2"]).await;
    let swept = world.pin("a", facts("m", &[]), &["v2"]).await;
    assert!(!world.took_effect(&swept).await, "the tag has its lower version still");
    world.store.delete_manifest(world.epoch, &name("a"), &digest("old"), DAY, &none).await.expect("delete");
    assert!(!world.took_effect(&swept).await, "nobody deleted the tag itself");
}

/// `content` under the immutable tag `v1`.
fn once(content: &str) -> Pin {
    Pin { immutable: vec![tag("v1")], ..super::pin("a", facts(content, &[]), &["v1", "latest"]) }
}

async fn push_once(world: &World, content: &str) {
    let pinned = world.pin_as(&once(content)).await.expect("it is the first, or the same");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
}

async fn is_refused(world: &World, content: &str) -> bool {
    let outcome = world.store.pin_manifest(world.epoch, &once(content)).await.expect("pin");
    matches!(outcome, PinOutcome::Immutable(refused) if refused == tag("v1"))
}

pub async fn w285_an_immutable_tag_is_pushed_once_and_again_by_the_same_digest(fixture: Fixture) {
    let world = World::begin(fixture).await;
    push_once(&world, "m").await;
    assert!(is_refused(&world, "n").await);
    assert_eq!(world.tag("a", "latest").await, Some(digest("m")), "nothing of it is done");
    assert!(world.rows.intents().await.is_empty());
    push_once(&world, "m").await;
    assert_eq!(world.tag("a", "v1").await, Some(digest("m")));
    world.store.delete_tag(world.epoch, &name("a"), &tag("v1"), DAY).await.expect("delete");
    assert!(is_refused(&world, "n").await, "it can still come back from the trash");
    push_once(&world, "m").await;
}

pub async fn w285_of_pushes_at_the_same_time_one_gives_an_immutable_tag_its_digest(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let first = world.pin_as(&once("m")).await.expect("it is the first");
    assert!(is_refused(&world, "n").await, "somebody is about to set it");
    let same = world.pin_as(&once("m")).await.expect("the same is no other");
    for pinned in [first, same] {
        assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
    }
    let contents: Vec<String> = (0..12).map(|n| format!("content {n}")).collect();
    let pinning = contents.iter().map(|content| async {
        let pin = Pin { immutable: vec![tag("v2")], ..super::pin("a", facts(content, &[]), &["v2"]) };
        world.store.pin_manifest(world.epoch, &pin).await.expect("pin")
    });
    let outcomes = join_all(pinning).await;
    let pinned = outcomes.iter().filter(|outcome| matches!(outcome, PinOutcome::Pinned(_))).count();
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, PinOutcome::Immutable(_))).count();
    assert_eq!((pinned, refused), (1, 11));
}

pub async fn w285_a_push_that_was_taken_back_is_not_found_again_in_the_immutable_tag_of_another(
    fixture: Fixture,
) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("m", &[]), &["other"]).await;
    let late = world.pin_as(&once("m")).await.expect("it is the first");
    world.rows.pass(HOUR).await;
    let intent = world.store.expired_intents(0, 10).await.expect("intents").pop().expect("one is expired");
    world.store.reap_intent(world.epoch, &intent, &[]).await.expect("reap");
    push_once(&world, "n").await;
    assert_eq!(world.publish(&late).await, PublishOutcome::StartOver);
    assert!(is_refused(&world, "m").await);
}

pub async fn many_pushes_of_one_tag_end_with_the_highest_version(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pushed = join_all((0..24).map(|n| {
        let world = &world;
        async move { world.push_manifest("a", facts(&format!("m{}", n % 8), &[]), &["v1", "v2"]).await }
    }))
    .await;
    for text in ["v1", "v2"] {
        let wanted: Tag = tag(text);
        let records = pushed.iter().flat_map(|pinned| {
            let target = pinned.pin.facts.digest;
            pinned
                .tags
                .iter()
                .filter(|record| record.tag == wanted)
                .map(move |record| (record.clone(), target))
        });
        let mut records: Vec<_> = records.collect();
        records.sort_by_key(|(record, _)| record.version);
        let (_, winner) = records.pop().expect("there are some");
        assert_eq!(world.tag("a", text).await, Some(winner));
        let steps = world.steps().await;
        for (record, target) in records {
            let key = Key::Tag {
                repository: name("a"),
                tag: record.tag,
                version: record.version,
                generation: record.generation,
                target: Some(target),
            };
            assert!(steps.contains(&format!("-{key}")), "{key} is left behind");
        }
    }
}
