// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What retention reads, and what it deletes.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use stowage_oci::{Digest, Tag};

use super::{DAY, Fixture, HOUR, World, digest, facts, index, name, tag};
use crate::key::Key;
use crate::meta::{
    Error, ManifestFacts, ManifestId, OutgoingTag, RequestedPromotion, RetainedTag, RetentionFacts,
    UntaggedWanted,
};

impl World {
    async fn known(&self, repository: &str) -> RetentionFacts {
        self.store.retention_facts(&name(repository)).await.expect("facts")
    }

    async fn tags_known(&self, repository: &str) -> Vec<RetainedTag> {
        self.known(repository).await.tags
    }

    /// The tags as they are, to be deleted.
    async fn outgoing(&self, repository: &str) -> Vec<OutgoingTag> {
        let tags = self.tags_known(repository).await.into_iter();
        tags.map(|row| OutgoingTag {
            tag: row.tag,
            generation: row.generation,
            pulled: row.pulled,
            subject: None,
        })
        .collect()
    }

    /// Those that went.
    async fn retire(&self, repository: &str, tags: &[OutgoingTag]) -> Vec<Tag> {
        let planned = self.store.retention_clock().await.expect("clock").now;
        let retired = self.store.retire_tags(self.epoch, &name(repository), tags, planned, DAY).await;
        let retired = retired.expect("retire");
        for (_, removal) in &retired {
            self.finish(removal).await;
        }
        retired.into_iter().map(|(tag, _)| tag).collect()
    }

    async fn untagged(&self, wanted: UntaggedWanted) -> Vec<Digest> {
        let found = self.store.untagged(&name("a"), wanted, ManifestId(0), 100).await.expect("untagged");
        found.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Somebody asked for its promotion, by its digest.
    async fn awaits_promotion(&self, repository: &str, content: &str) {
        let (repository, digest) = (&name(repository), digest(content));
        let asked = RequestedPromotion {
            id: "request",
            policy: "p",
            hash: "sha256:x",
            repository,
            tag: None,
            digest,
        };
        self.store.keep_requested(&asked, DAY).await.expect("keep");
    }
}

fn referrer(content: &str, subject: &str) -> ManifestFacts {
    ManifestFacts { subject: Some(digest(subject)), ..facts(content, &[]) }
}

const WANTED: UntaggedWanted = UntaggedWanted { rest: DAY, spares_referrers: false };

pub async fn the_live_tags_of_a_repository_are_known_in_byte_order(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("one", &[]), &["b", "B", "gone"]).await;
    let pushed = world.push_manifest("a", facts("two", &[]), &["a"]).await;
    world.push_manifest("elsewhere", facts("one", &[]), &["a"]).await;
    let removal = world.store.delete_tag(world.epoch, &name("a"), &tag("gone"), DAY).await.expect("delete");
    world.finish(&removal.expect("it was there")).await;
    let known = world.tags_known("a").await;
    assert_eq!(known.iter().map(|row| row.tag.as_str()).collect::<Vec<_>>(), ["B", "a", "b"]);
    assert_eq!(known.iter().map(|row| row.digest).collect::<Vec<_>>(), ["one", "two", "one"].map(digest));
    assert_eq!(known[1].generation, pushed.tags[0].generation);
    let now = world.store.retention_clock().await.expect("clock").now;
    assert!(known.iter().all(|row| row.pushed <= now && now - row.pushed < 60_000 && row.pulled.is_none()));
    assert_eq!(world.known("never").await, RetentionFacts::default());
}

pub async fn a_pull_of_a_child_is_one_of_every_index_above(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("leaf", &[]), &[]).await;
    world.push_manifest("a", index("middle", &[digest("leaf")]), &["middle"]).await;
    world.push_manifest("a", index("top", &[digest("middle")]), &["top"]).await;
    world.push_manifest("a", facts("other", &[]), &["other"]).await;
    world.store.record_pulls(&[(name("a"), digest("leaf"))]).await.expect("record");
    let known = world.tags_known("a").await;
    let pulled: Vec<_> = known.iter().map(|row| (row.tag.as_str(), row.pulled.is_some())).collect();
    assert_eq!(pulled, [("middle", true), ("other", false), ("top", true)]);
    assert_eq!(known[0].pulled, known[2].pulled);
}

pub async fn a_gap_in_the_record_is_the_newest_day_that_may_lack_pulls(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let clock = world.store.retention_clock().await.expect("clock");
    assert_eq!(clock.gap, None);
    let today = world.store.record_pulls(&[]).await.expect("today").day;
    let writers = [(super::fresh(), today.plus(-3)), (super::fresh(), today.plus(-1))];
    world.store.note_pull_writers(world.epoch, &writers).await.expect("note");
    let gap = world.store.retention_clock().await.expect("clock").gap.expect("a gap");
    assert_eq!(u64::from(gap) + 1, clock.now / (24 * 60 * 60 * 1000), "yesterday");
}

pub async fn a_tag_goes_only_as_it_was(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("one", &[]), &["moved"]).await;
    world.push_manifest("a", facts("one", &[]), &["gone", "goes"]).await;
    let planned = world.outgoing("a").await;
    world.push_manifest("a", facts("two", &[]), &["moved"]).await;
    let removal = world.store.delete_tag(world.epoch, &name("a"), &tag("gone"), DAY).await.expect("delete");
    world.finish(&removal.expect("it was there")).await;
    assert_eq!(world.retire("a", &planned).await, [tag("goes")]);
    assert_eq!(world.tag("a", "goes").await, None);
    assert_eq!(world.tag("a", "moved").await, Some(digest("two")));
    assert!(world.manifest("a", &digest("one").to_string()).await.is_some(), "what it named stays");
    assert_eq!(world.retire("a", &planned).await, [], "again: nothing is left to do");
    assert_eq!(world.retire("never", &planned).await, []);
}

pub async fn a_deleted_tag_leaves_a_tombstone_in_its_lane(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("one", &[]), &["x", "y"]).await;
    let planned = world.outgoing("a").await;
    let now = world.store.retention_clock().await.expect("clock").now;
    let retired = world.store.retire_tags(world.epoch, &name("a"), &planned, now, DAY).await.expect("retire");
    let steps: Vec<String> = retired.iter().flat_map(|(_, removal)| removal.steps.clone()).collect();
    for (step, text) in steps.iter().zip(["x", "y"]) {
        let key: Key = step.strip_prefix('+').expect("a write").parse().expect("a key");
        assert!(matches!(key, Key::Tag { tag, target: None, .. } if tag.as_str() == text), "{step}");
    }
    let rows: Vec<i64> = retired.iter().map(|(_, removal)| removal.outbox).collect();
    let queued = world.rows.outbox().await;
    assert!(rows.iter().all(|row| queued.iter().any(|found| found.id == *row && found.lane.is_some())));
    world.store.settle_removals(world.epoch, &rows).await.expect("settle");
    assert_eq!(world.rows.outbox().await.len(), 0);
}

pub async fn what_was_pulled_since_or_signs_what_is_here_does_not_go(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("leaf", &[]), &[]).await;
    world.push_manifest("a", index("top", &[digest("leaf")]), &["pulled"]).await;
    world.push_manifest("a", facts("signature", &[]), &["signature"]).await;
    world.push_manifest("a", facts("image", &[]), &[]).await;
    let mut planned = world.outgoing("a").await;
    planned[1].subject = Some(digest("image"));
    world.store.record_pulls(&[(name("a"), digest("leaf"))]).await.expect("record");
    assert_eq!(world.retire("a", &planned).await, []);
    planned[1].subject = Some(digest("gone"));
    planned[0].pulled = world.tags_known("a").await[0].pulled;
    assert_eq!(world.retire("a", &planned).await, [tag("pulled"), tag("signature")]);
}

pub async fn nothing_is_retired_in_a_database_that_is_not_trusted(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("one", &[]), &["x"]).await;
    let planned = world.outgoing("a").await;
    world.rows.restart().await;
    let refused = world.store.retire_tags(world.epoch, &name("a"), &planned, u64::MAX / 2000, DAY).await;
    assert!(matches!(refused, Err(Error::Untrusted)), "{refused:?}");
    let refused = world.store.trash_untagged(world.epoch, &[ManifestId(1)], DAY, DAY).await;
    assert!(matches!(refused, Err(Error::Untrusted)), "{refused:?}");
}

pub async fn a_family_is_all_that_stands_or_falls_with_a_manifest(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let config = world.push("a", "config").await;
    world.push_manifest("a", facts("leaf", &[config.digest]), &[]).await;
    world.push_manifest("a", facts("sibling", &[]), &[]).await;
    world.push_manifest("a", index("top", &[digest("leaf"), digest("sibling")]), &[]).await;
    world.push_manifest("a", referrer("signature", "leaf"), &[]).await;
    world.push_manifest("a", facts("stranger", &[]), &[]).await;
    let family = async |content: &str| {
        let pairs = world.store.families(&name("a"), &[digest(content)]).await.expect("families");
        assert!(pairs.iter().all(|(root, _)| *root == digest(content)));
        let mut found: Vec<Digest> = pairs.into_iter().map(|(_, digest)| digest).collect();
        found.sort_by_key(ToString::to_string);
        found
    };
    let expected = |contents: &[&str]| {
        let mut digests: Vec<Digest> = contents.iter().map(|content| digest(content)).collect();
        digests.sort_by_key(ToString::to_string);
        digests
    };
    assert_eq!(family("leaf").await, expected(&["leaf", "config", "top"]));
    assert_eq!(family("top").await, expected(&["top", "leaf", "config", "sibling"]));
    assert_eq!(family("signature").await, expected(&["signature", "leaf", "config", "top"]));
    assert_eq!(family("stranger").await, expected(&["stranger"]));
    assert_eq!(family("gone").await, []);
    let among = [digest("leaf"), digest("gone"), digest("top")];
    let mut live = world.store.live_among(&name("a"), &among).await.expect("live");
    live.sort_by_key(ToString::to_string);
    assert_eq!(live, expected(&["leaf", "top"]));
}

pub async fn what_only_some_tags_need_can_be_reclaimed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let [own, shared, elsewhere] =
        [world.push("a", "own").await, world.push("a", "shared!").await, world.push("a", "elsewhere").await];
    world.push("b", "elsewhere").await;
    world.push_manifest("a", facts("one", &[own.digest, shared.digest, elsewhere.digest]), &["x"]).await;
    world.push_manifest("a", facts("two", &[shared.digest]), &["y"]).await;
    let bytes = async |tags: &[&str]| {
        let tags: Vec<Tag> = tags.iter().map(|text| tag(text)).collect();
        world.store.reclaimable(&name("a"), &tags).await.expect("reclaimable")
    };
    assert_eq!(bytes(&["x"]).await, 3, "its own blob");
    assert_eq!(bytes(&["y"]).await, 0, "the other image needs it");
    assert_eq!(bytes(&["x", "y"]).await, 3 + 7);
    world.push_manifest("a", index("top", &[digest("one")]), &["top"]).await;
    assert_eq!(bytes(&["x"]).await, 0, "an index lists it");
    assert_eq!(bytes(&["top"]).await, 0, "it has a tag of its own");
    assert_eq!(bytes(&["x", "top", "y"]).await, 3 + 7, "it goes with its index");
    assert_eq!(bytes(&["gone"]).await, 0);
}

pub async fn only_what_nothing_holds_and_nobody_pulled_is_untagged(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("tagged", &[]), &["x"]).await;
    world.push_manifest("a", facts("leaf", &[]), &[]).await;
    world.push_manifest("a", index("top", &[digest("leaf")]), &["top"]).await;
    world.push_manifest("a", referrer("signature", "tagged"), &[]).await;
    world.push_manifest("a", referrer("orphan", "gone"), &[]).await;
    world.push_manifest("a", facts("free", &[]), &[]).await;
    world.push_manifest("b", facts("free", &[]), &[]).await;
    assert_eq!(world.untagged(WANTED).await, [], "all of it is young");
    world.rows.pass(2 * DAY).await;
    let young = UntaggedWanted { rest: 3 * DAY, ..WANTED };
    assert_eq!(world.untagged(young).await, []);
    assert_eq!(world.untagged(WANTED).await, [digest("orphan"), digest("free")]);
    let sparing = UntaggedWanted { spares_referrers: true, ..WANTED };
    assert_eq!(world.untagged(sparing).await, [digest("free")]);
    world.store.record_pulls(&[(name("a"), digest("free"))]).await.expect("record");
    assert_eq!(world.untagged(WANTED).await, [digest("orphan")]);
    world.awaits_promotion("a", "orphan").await;
    assert_eq!(world.untagged(WANTED).await, []);
}

pub async fn an_untagged_manifest_rests_in_the_trash_unless_something_came_to_hold_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("free", &[]), &[]).await;
    world.push_manifest("a", facts("held", &[]), &[]).await;
    world.push_manifest("a", facts("awaited", &[]), &[]).await;
    world.rows.pass(2 * DAY).await;
    let found = world.store.untagged(&name("a"), WANTED, ManifestId(0), 100).await.expect("untagged");
    assert_eq!(found.len(), 3);
    let first = world.store.untagged(&name("a"), WANTED, ManifestId(0), 1).await.expect("untagged");
    assert_eq!(first, found[..1]);
    let second = world.store.untagged(&name("a"), WANTED, first[0].0, 1).await.expect("untagged");
    assert_eq!(second, found[1..2]);
    world.push_manifest("a", facts("held", &[]), &["now"]).await;
    world.awaits_promotion("a", "awaited").await;
    let ids: Vec<ManifestId> = found.iter().map(|(id, _)| *id).collect();
    let gone = world.store.trash_untagged(world.epoch, &ids, DAY, HOUR).await.expect("trash");
    assert_eq!(gone, 1);
    assert!(world.manifest("a", &digest("free").to_string()).await.is_none());
    assert!(world.manifest("a", &digest("awaited").to_string()).await.is_some());
    assert_eq!(world.tag("a", "now").await, Some(digest("held")));
    let steps = world.steps().await;
    assert!(steps.iter().any(|step| step.starts_with('+') && step.strip_suffix(".x").is_some()), "{steps:?}");
    let again = world.store.trash_untagged(world.epoch, &ids, DAY, Duration::ZERO).await.expect("trash");
    assert_eq!(again, 0);
}
