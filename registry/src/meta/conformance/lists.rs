// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lists: pages by key, in byte order.
#![expect(missing_docs, reason = "a claim is its name")]

use super::{DAY, Fixture, World, digest, facts, fresh, index, name, none, tag};
use crate::key::Generation;
use crate::meta::{ManifestFacts, ReferrerRow};

async fn tags(world: &World, after: Option<&str>, limit: u32) -> Vec<String> {
    let tags =
        world.store.tags(world.epoch, &name("a"), after, limit).await.expect("tags").expect("it exists");
    tags.iter().map(ToString::to_string).collect()
}

/// Found and not found, twice the same, of several repositories: each answer stands where its question stood.
pub async fn what_is_looked_up_together_is_answered_in_order(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let [one, two] = ["one", "two"];
    for repository in ["a", "b"] {
        let blob = world.push(repository, &format!("blob of {repository}")).await;
        for content in [one, two] {
            let facts = facts(&format!("{content} of {repository}"), &[blob.digest]);
            world.push_manifest(repository, facts, &[content]).await;
        }
    }
    let of = |content: &str, repository: &str| digest(&format!("{content} of {repository}"));

    let wanted =
        [("b", two), ("a", "none"), ("a", one), ("none", one), ("b", two)].map(|(r, t)| (name(r), tag(t)));
    let found = world.store.tagged(world.epoch, &wanted).await.expect("tagged");
    let digests: Vec<_> = found.iter().map(|row| row.as_ref().map(|row| row.digest)).collect();
    assert_eq!(digests, [Some(of(two, "b")), None, Some(of(one, "a")), None, Some(of(two, "b"))]);
    assert_eq!(found[2].as_ref().and_then(|row| row.body.as_deref()), Some(&b"one of a"[..]));

    let wanted = [("a", of(one, "b")), ("b", of(one, "b")), ("a", of(two, "a"))].map(|(r, d)| (name(r), d));
    let found = world.store.manifests(world.epoch, &wanted).await.expect("manifests");
    let digests: Vec<_> = found.into_iter().map(|row| row.map(|row| row.digest)).collect();
    assert_eq!(digests, [None, Some(of(one, "b")), Some(of(two, "a"))]);

    let wanted = ["b", "a"].map(|repository| (name(repository), of("blob", "a")));
    let found = world.store.blobs(world.epoch, &wanted).await.expect("blobs");
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);

    assert_eq!(world.store.tagged(world.epoch, &[]).await.expect("nothing is asked"), []);
}

pub async fn tags_are_pages_in_byte_order(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pushed = ["b", "B", "a.1", "_x", "a-1", "a_1", "10", "9", "gone"];
    world.push_manifest("a", facts("m", &[]), &pushed).await;
    world.push_manifest("a/b", facts("m", &[]), &["elsewhere"]).await;
    world.store.delete_tag(world.epoch, &name("a"), &tag("gone"), DAY).await.expect("delete");
    let all = ["10", "9", "B", "_x", "a-1", "a.1", "a_1", "b"];
    assert_eq!(tags(&world, None, 100).await, all);
    assert_eq!(tags(&world, None, 3).await, all[..3]);
    assert_eq!(tags(&world, Some("B"), 3).await, all[3..6]);
    assert_eq!(tags(&world, Some("a-2"), 100).await, all[5..], "it need not exist");
    assert_eq!(tags(&world, Some("b"), 100).await, [""; 0]);
    assert_eq!(tags(&world, None, 0).await, [""; 0]);
}

pub async fn a_repository_that_was_never_pushed_to_has_no_tags(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(world.store.tags(world.epoch, &name("a"), None, 10).await.expect("tags"), None);
    world.open("a").await;
    assert_eq!(world.store.tags(world.epoch, &name("a"), None, 10).await.expect("tags"), Some(vec![]));
}

async fn referrers(world: &World, types: &[&str], after: Option<Generation>, limit: u32) -> Vec<ReferrerRow> {
    let types: Vec<String> = types.iter().map(ToString::to_string).collect();
    let found =
        world.store.referrers(world.epoch, &name("a"), &digest("subject"), &types, after, limit).await;
    found.expect("referrers")
}

pub async fn referrers_are_newest_first_and_filtered(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for (content, artifact_type) in [("1", Some("sbom")), ("2", Some("sig")), ("3", None), ("4", Some("sig"))]
    {
        let facts = ManifestFacts {
            subject: Some(digest("subject")),
            artifact_type: artifact_type.map(ToOwned::to_owned),
            annotations: Some([("n".to_owned(), content.to_owned())].into()),
            ..facts(content, &[])
        };
        world.push_manifest("a", facts.clone(), &[]).await;
        world.push_manifest("b", facts, &[]).await;
    }
    let pending = ManifestFacts { subject: Some(digest("subject")), ..facts("5", &[]) };
    world.pin("a", pending, &[]).await;
    world.store.delete_manifest(world.epoch, &name("a"), &digest("3"), DAY, &none).await.expect("delete");
    let of = |rows: &[ReferrerRow]| rows.iter().map(|row| row.digest).collect::<Vec<_>>();
    let all = referrers(&world, &[], None, 100).await;
    assert_eq!(of(&all), [digest("4"), digest("2"), digest("1")]);
    assert_eq!(all[0].annotations, Some([("n".to_owned(), "4".to_owned())].into()));
    assert_eq!((all[2].artifact_type.as_deref(), all[2].size), (Some("sbom"), 1));
    assert_eq!(of(&referrers(&world, &["sig"], None, 100).await), [digest("4"), digest("2")]);
    assert_eq!(referrers(&world, &["sig", "sbom"], None, 100).await.len(), 3);
    assert_eq!(of(&referrers(&world, &[], None, 1).await), [digest("4")]);
    assert_eq!(of(&referrers(&world, &[], Some(all[0].generation), 1).await), [digest("2")]);
    assert_eq!(referrers(&world, &["other"], None, 100).await, []);
}

pub async fn a_subject_need_not_exist(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(referrers(&world, &[], None, 10).await, [], "nor the repository");
    let facts = ManifestFacts { subject: Some(digest("subject")), ..facts("m", &[]) };
    world.push_manifest("a", facts, &[]).await;
    assert_eq!(referrers(&world, &[], None, 10).await.len(), 1);
}

async fn repositories(world: &World, after: Option<&str>, limit: u32) -> Vec<String> {
    let names = world.store.repositories(world.epoch, after, limit).await.expect("repositories");
    names.iter().map(ToString::to_string).collect()
}

pub async fn repositories_are_pages_in_byte_order(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for repository in ["b", "a/b", "a-b", "a", "a.b", "a0"] {
        world.push_manifest(repository, facts("m", &[]), &["v1"]).await;
    }
    let all = ["a", "a-b", "a.b", "a/b", "a0", "b"];
    assert_eq!(repositories(&world, None, 100).await, all);
    assert_eq!(repositories(&world, Some("a-b"), 2).await, all[2..4]);
    assert_eq!(repositories(&world, Some("b"), 100).await, [""; 0]);
}

pub async fn repositories_with_a_blob_are_those_that_see_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let stored = world.push("a", "x").await;
    for repository in ["c", "b", "hidden"] {
        world.push(repository, "x").await;
    }
    world.push("other", "y").await;
    world.push_manifest("hidden", facts("m", &[stored.digest]), &[]).await;
    world
        .store
        .delete_manifest(world.epoch, &name("hidden"), &digest("m"), DAY, &none)
        .await
        .expect("delete");
    world.store.delete_blob(world.epoch, &name("hidden"), &stored.digest).await.expect("delete");
    let with = async |limit| {
        let names = world.store.repositories_with(&stored.digest, limit).await.expect("repositories");
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut all = with(10).await;
    all.sort();
    assert_eq!(all, ["a", "b", "c"]);
    assert_eq!(with(2).await.len(), 2);
    world.store.mark_absent(&stored.digest, fresh()).await.expect("mark another");
    assert_eq!(with(10).await.len(), 3);
    world.store.mark_absent(&stored.digest, stored.generation).await.expect("mark");
    assert_eq!(with(10).await, [""; 0]);
}

pub async fn indexes_with_a_child_are_those_that_live_here(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let child = digest("child");
    for (repository, content) in [("a", "one"), ("a", "two"), ("a", "gone"), ("b", "elsewhere")] {
        world.push_manifest(repository, index(content, &[child, digest("sibling")]), &[]).await;
    }
    world.push_manifest("a", index("of another", &[digest("sibling")]), &[]).await;
    world.store.delete_manifest(world.epoch, &name("a"), &digest("gone"), DAY, &none).await.expect("delete");
    let with = async |repository, limit| {
        world.store.indexes_with(&name(repository), &child, limit).await.expect("indexes")
    };
    let mut all = with("a", 10).await;
    all.sort();
    let mut expected = [digest("one"), digest("two")];
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(with("a", 1).await.len(), 1);
    assert_eq!(with("c", 10).await, []);
}
