// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What replicas share about other registries, and content that is awaited.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use uuid::Uuid;

use super::{DAY, Fixture, World, digest, facts, name, pin, tag};
use crate::key::{Generation, Mark};
use crate::meta::{
    Claim, Copied, Fetched, NewLimits, Pin, PinOutcome, PublishOutcome, TagState, TurnsWanted, UpstreamLimits,
};

const MINUTE: Duration = Duration::from_mins(1);

pub async fn when_a_tag_was_checked_is_known_and_never_earlier_than_that(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (repository, latest) = (name("hub/a"), tag("latest"));
    let checked = || async { world.store.tag_checked(&repository, &latest).await.expect("checked") };
    let note = |ago| world.store.note_tag_checked(&repository, &latest, ago);
    note(Duration::ZERO).await.expect("note");
    assert_eq!(checked().await, None, "there is no such repository, and none is made");
    assert!(world.store.repositories(world.epoch, None, 10).await.expect("repositories").is_empty());

    world.push("hub/a", "x").await;
    note(3 * MINUTE).await.expect("note");
    let ago = checked().await.expect("known");
    assert!(ago >= 3 * MINUTE && ago < 4 * MINUTE, "{ago:?}");
    note(9 * MINUTE).await.expect("note");
    assert!(checked().await.expect("known") < 4 * MINUTE, "that it was checked later is known");
    note(Duration::ZERO).await.expect("note");
    assert!(checked().await.expect("known") < MINUTE);
    assert_eq!(world.store.tag_checked(&repository, &tag("other")).await.expect("checked"), None);
}

pub async fn what_a_tag_is_elsewhere_is_known_since_it_was_seen_first(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (repository, latest) = (name("hub/never/here"), tag("latest"));
    let note = |text: &str| {
        let (digest, repository, latest) = (digest(text), repository.clone(), latest.clone());
        let store = &world.store;
        async move { store.note_seen(&repository, &latest, &digest).await.expect("note") }
    };
    assert_eq!(world.store.seen(&repository, &latest).await.expect("seen"), None);
    assert!(note("one").await < MINUTE);
    world.rows.pass(3 * MINUTE).await;
    let ago = note("one").await;
    assert!(ago >= 3 * MINUTE && ago < 4 * MINUTE, "{ago:?}");
    assert!(note("other").await < MINUTE, "another begins anew");
    let (seen, ago) = world.store.seen(&repository, &latest).await.expect("seen").expect("known");
    assert!(seen == digest("other") && ago < MINUTE, "{seen} {ago:?}");
    assert!(note("one").await < MINUTE, "so does one that comes back");
    assert_eq!(world.store.seen(&repository, &tag("other")).await.expect("seen"), None);
    assert!(world.store.repositories(world.epoch, None, 10).await.expect("repositories").is_empty());
}

pub async fn a_fetch_is_one_owners_until_it_ends_or_its_lease_runs_out(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let far = |done| Fetched { done, total: 9 };
    let claim = |owner, done, lease| world.store.claim_fetch("blob x", owner, far(done), lease);
    assert_eq!(claim(one, 0, MINUTE).await.expect("claim"), Claim::Ours);
    assert_eq!(claim(other, 0, MINUTE).await.expect("claim"), Claim::Theirs(far(0)));
    assert_eq!(claim(one, 5, MINUTE).await.expect("claim"), Claim::Ours, "and tells how far it is");
    assert_eq!(claim(other, 0, MINUTE).await.expect("claim"), Claim::Theirs(far(5)));
    let elsewhere = world.store.claim_fetch("blob y", other, far(0), MINUTE).await.expect("claim");
    assert_eq!(elsewhere, Claim::Ours);

    world.store.end_fetch("blob x", other).await.expect("end");
    assert_eq!(claim(other, 0, MINUTE).await.expect("claim"), Claim::Theirs(far(5)), "it was not its own");
    world.store.end_fetch("blob x", one).await.expect("end");
    assert_eq!(claim(other, 0, MINUTE).await.expect("claim"), Claim::Ours);

    world.rows.pass(2 * MINUTE).await;
    assert_eq!(claim(one, 1, MINUTE).await.expect("claim"), Claim::Ours, "the other's lease ran out");
}

pub async fn limits_of_an_upstream_are_known_to_all_and_end(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let limits = || async { world.store.upstream_limits("hub").await.expect("limits") };
    let note = |pause, scarce_for| world.store.note_upstream_limits("hub", NewLimits { pause, scarce_for });
    let is_long = |left: Option<Duration>| left.is_some_and(|left| left > 2 * MINUTE && left <= 3 * MINUTE);
    assert_eq!(limits().await, UpstreamLimits::default());
    note(Some(3 * MINUTE), None).await.expect("note");
    let found = limits().await;
    assert!(is_long(found.paused) && found.scarce.is_none(), "{found:?}");
    note(Some(MINUTE), Some(3 * MINUTE)).await.expect("note");
    let found = limits().await;
    assert!(is_long(found.paused) && is_long(found.scarce), "the later end of a pause: {found:?}");
    note(None, Some(Duration::ZERO)).await.expect("note");
    let found = limits().await;
    assert!(found.paused.is_some() && found.scarce.is_none(), "{found:?}");
    assert_eq!(world.store.upstream_limits("quay").await.expect("limits"), UpstreamLimits::default());
    world.rows.pass(5 * MINUTE).await;
    assert_eq!(limits().await, UpstreamLimits::default());
}

/// In how long the first of `count` turns is, a minute apart, if that is within `within`.
async fn turn(world: &World, count: u32, within: Duration) -> Option<Duration> {
    let wanted = TurnsWanted { count, pace: MINUTE, within };
    world.store.take_turns("hub", wanted).await.expect("turns").map(|taken| taken.first_in)
}

/// Whether it is `minutes`, less the time that this took.
fn is_in(first_in: Option<Duration>, minutes: u32) -> bool {
    first_in.is_some_and(|first_in| first_in <= minutes * MINUTE && first_in + MINUTE > minutes * MINUTE)
}

pub async fn turns_of_an_upstream_do_not_overlap_and_are_not_saved_up(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(turn(&world, 1, Duration::ZERO).await, Some(Duration::ZERO), "nobody asks");
    assert_eq!(turn(&world, 1, Duration::ZERO).await, None, "none is so soon");
    let second = turn(&world, 3, 9 * MINUTE).await;
    assert!(is_in(second, 1), "{second:?}");
    let fifth = turn(&world, 1, 9 * MINUTE).await;
    assert!(is_in(fifth, 4), "after the three before: {fifth:?}");
    let limits = world.store.upstream_limits("hub").await.expect("limits");
    assert!(is_in(limits.busy, 5) && limits.paused.is_none(), "{limits:?}");
    assert_eq!(turn(&world, 1, 3 * MINUTE).await, None);
    let limits = world.store.upstream_limits("hub").await.expect("limits");
    assert!(is_in(limits.busy, 5), "what was refused takes nothing: {limits:?}");
    let other = TurnsWanted { count: 1, pace: MINUTE, within: Duration::ZERO };
    let other =
        world.store.take_turns("quay", other).await.expect("turns").expect("each upstream has its own");
    assert_eq!((other.first_in, other.scarce), (Duration::ZERO, None));

    world.rows.pass(60 * MINUTE).await;
    assert_eq!(turn(&world, 1, Duration::ZERO).await, Some(Duration::ZERO));
    let next = turn(&world, 1, 9 * MINUTE).await;
    assert!(is_in(next, 1), "the hour in which nobody asked gives no more: {next:?}");
}

pub async fn turns_that_are_taken_at_once_are_each_ones_own(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let taken = futures::future::join_all((0..8).map(|_| turn(&world, 2, 60 * MINUTE))).await;
    let minutes = |first_in: &Option<Duration>| (first_in.expect("taken").as_secs() + 30) / 60;
    let mut minutes: Vec<u64> = taken.iter().map(minutes).collect();
    minutes.sort_unstable();
    assert_eq!(minutes, [0, 2, 4, 6, 8, 10, 12, 14]);
}

pub async fn an_upstream_that_wants_to_be_left_alone_gives_no_turns(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let pause = NewLimits { pause: Some(3 * MINUTE), scarce_for: Some(9 * MINUTE) };
    world.store.note_upstream_limits("hub", pause).await.expect("note");
    assert_eq!(turn(&world, 1, 60 * MINUTE).await, None);
    world.rows.pass(2 * MINUTE).await;
    assert_eq!(turn(&world, 1, 60 * MINUTE).await, None);
    let limits = world.store.upstream_limits("hub").await.expect("limits");
    assert!(limits.paused.is_some() && limits.busy.is_none(), "{limits:?}");
    world.rows.pass(2 * MINUTE).await;
    let wanted = TurnsWanted { count: 1, pace: MINUTE, within: Duration::ZERO };
    let taken = world.store.take_turns("hub", wanted).await.expect("turns").expect("the pause is over");
    assert!(taken.first_in.is_zero() && is_in(taken.scarce, 5), "{taken:?}");
}

/// A manifest of these blobs, of which none need be there.
fn lenient(repository: &str, content: &str, blobs: &[(&str, u64)]) -> Pin {
    let awaited: Vec<_> = blobs.iter().map(|(content, size)| (digest(content), *size)).collect();
    let digests: Vec<_> = awaited.iter().map(|(digest, _)| *digest).collect();
    Pin { awaited, ..pin(repository, facts(content, &digests), &["v1"]) }
}

async fn publish(world: &World, pin: Pin) {
    let pinned = match world.store.pin_manifest(world.epoch, &pin).await.expect("pin") {
        PinOutcome::Pinned(pinned) => Some(pinned),
        PinOutcome::Missing(_) | PinOutcome::Moved | PinOutcome::Immutable(_) => None,
    };
    let pinned = pinned.expect("nothing is missing");
    assert_eq!(world.publish(&pinned).await, PublishOutcome::Published);
}

pub async fn a_manifest_whose_blobs_are_awaited_is_live_and_its_blobs_are_not_seen(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let elsewhere = world.push("b", "stored").await;
    publish(&world, lenient("hub/a", "m", &[("absent", 7), ("stored", 6)])).await;
    assert_eq!(world.tag("hub/a", "v1").await, Some(digest("m")));
    assert_eq!(world.blob("hub/a", digest("absent")).await, None);
    assert_eq!(world.blob("hub/a", elsewhere.digest).await, None, "another repository's is not shown");
    assert!(world.blob("b", elsewhere.digest).await.is_some());
    let awaited = |content: &str| {
        let (repository, digest) = (name("hub/a"), digest(content));
        let store = &world.store;
        async move { store.awaited_blob(&repository, &digest).await.expect("awaited") }
    };
    assert_eq!((awaited("absent").await, awaited("stored").await), (Some(7), Some(6)));
    assert_eq!(awaited("never").await, None);
    let other = world.store.awaited_blob(&name("b"), &digest("stored")).await.expect("awaited");
    assert_eq!(other, None, "no manifest of it lists that");
}

pub async fn an_awaited_blob_is_seen_when_it_comes(fixture: Fixture) {
    let world = World::begin(fixture).await;
    publish(&world, lenient("hub/a", "m", &[("x", 1)])).await;
    publish(&world, lenient("hub/b", "m", &[("x", 1)])).await;
    let stored = world.push("hub/a", "x").await;
    assert_eq!(world.blob("hub/a", stored.digest).await.map(|row| row.location), Some(stored.location));
    assert_eq!(world.blob("hub/b", stored.digest).await, None, "that repository still hides it");
    assert_eq!(world.rows.blobs().await, 1);
    // The manifest again, now that one of its blobs is there.
    publish(&world, lenient("hub/a", "m", &[("x", 1)])).await;
    assert!(world.blob("hub/a", stored.digest).await.is_some());
}

pub async fn an_ordinary_push_does_not_rely_on_an_awaited_blob(fixture: Fixture) {
    let world = World::begin(fixture).await;
    publish(&world, lenient("hub/a", "m", &[("x", 1)])).await;
    let ordinary = pin("hub/a", facts("other", &[digest("x")]), &["v2"]);
    let outcome = world.store.pin_manifest(world.epoch, &ordinary).await.expect("pin");
    assert!(matches!(outcome, PinOutcome::Missing(missing) if missing == [digest("x")]));
}

/// A copy of `content` as the tag `v1`.
fn copy(content: &str, at: Option<u64>, over: Option<Generation>) -> Pin {
    let copied = Some(Copied { mark: Some(Mark::of_mirror("base")), at, over });
    Pin { copied, ..pin("a", facts(content, &[]), &["v1"]) }
}

async fn copied(world: &World, pin: &Pin) -> Option<PublishOutcome> {
    match world.store.pin_manifest(world.epoch, pin).await.expect("pin") {
        PinOutcome::Pinned(pinned) => Some(world.publish(&pinned).await),
        PinOutcome::Missing(_) | PinOutcome::Moved | PinOutcome::Immutable(_) => None,
    }
}

async fn state(world: &World) -> Option<TagState> {
    let states = world.store.tag_states(&name("a"), None, 10).await.expect("states");
    assert!(states.len() <= 1);
    states.into_iter().next()
}

pub async fn a_copied_tag_tells_when_its_origin_set_it_and_which_mirror_copies_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(state(&world).await, None);
    assert_eq!(copied(&world, &copy("one", Some(1_000), None)).await, Some(PublishOutcome::Published));
    let (ours, other) = (Mark::of_mirror("base"), Mark::of_mirror("other"));
    let held = state(&world).await.expect("it is set");
    assert_eq!((held.target, held.is_deleted), (digest("one"), false));
    assert!(held.generation.has(ours) && !held.generation.has(other));
    assert_eq!(held.generation.milliseconds(), 1_000);
    let row = world.manifest("a", "v1").await.expect("it is live");
    assert_eq!(row.tag, Some(held.generation));
    assert_eq!(world.manifest("a", &digest("one").to_string()).await.expect("it is live").tag, None);

    let now = copy("two", None, Some(held.generation));
    assert_eq!(copied(&world, &now).await, Some(PublishOutcome::Published));
    let untimed = state(&world).await.expect("it is set").generation;
    assert!(untimed.milliseconds() > 1_000 && untimed.has(ours), "set now, as nobody says when");
    world.push_manifest("a", facts("pushed", &[]), &["v1"]).await;
    let pushed = state(&world).await.expect("it is set").generation;
    assert!(!pushed.has(ours) && pushed.milliseconds() > untimed.milliseconds());
}

pub async fn a_tag_that_moved_or_is_about_to_is_not_copied_over(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let under_way = world.pin("a", facts("pushed", &[]), &["v1"]).await;
    assert_eq!(copied(&world, &copy("copy", None, None)).await, None, "a push is about to set it");
    assert_eq!(world.publish(&under_way).await, PublishOutcome::Published);
    assert_eq!(copied(&world, &copy("copy", None, None)).await, None, "it was not there");
    let pushed = state(&world).await.expect("it is set");
    assert_eq!(pushed.target, digest("pushed"));
    let over = Some(pushed.generation);
    let begun = world.store.pin_manifest(world.epoch, &copy("killed", None, over)).await.expect("pin");
    assert!(matches!(begun, PinOutcome::Pinned(_)));
    let again = copied(&world, &copy("copy", None, over)).await;
    assert_eq!(again, Some(PublishOutcome::Published), "a run of its own that was killed is in nobody's way");

    world.store.delete_tag(world.epoch, &name("a"), &tag("v1"), DAY).await.expect("delete");
    let deleted = state(&world).await.expect("it rests");
    assert!(deleted.is_deleted && deleted.target == digest("copy"));
    assert_eq!(copied(&world, &copy("copy", None, over)).await, None, "it was deleted since");
    let over = Some(deleted.generation);
    assert_eq!(copied(&world, &copy("copy", None, over)).await, Some(PublishOutcome::Published));
    assert!(!state(&world).await.expect("it is set").is_deleted);
}

pub async fn a_tag_is_deleted_by_its_record_or_not_at_all(fixture: Fixture) {
    let world = World::begin(fixture).await;
    assert_eq!(copied(&world, &copy("one", Some(5), None)).await, Some(PublishOutcome::Published));
    let first = state(&world).await.expect("it is set").generation;
    world.push_manifest("a", facts("pushed", &[]), &["v1"]).await;
    let delete = async |generation| {
        let (repository, v1) = (name("a"), tag("v1"));
        world.store.delete_tag_of(world.epoch, &repository, &v1, generation, DAY).await.expect("delete")
    };
    assert_eq!(delete(first).await, None, "somebody has set it since");
    assert_eq!(world.tag("a", "v1").await, Some(digest("pushed")));
    let now = state(&world).await.expect("it is set").generation;
    assert!(delete(now).await.is_some());
    assert_eq!(world.tag("a", "v1").await, None);
    assert_eq!(delete(now).await, None, "it is deleted");
}
