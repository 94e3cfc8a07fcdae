// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! On which day a manifest was pulled last.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use super::{DAY, Fixture, World, digest, facts, fresh, index, name, none};
use crate::key::{Day, Generation};
use crate::meta::{Error, Stamp};

impl World {
    async fn last(&self, repository: &str, contents: &[&str]) -> Vec<Option<Day>> {
        let digests: Vec<_> = contents.iter().map(|content| digest(content)).collect();
        self.store.last_pulls(&name(repository), &digests).await.expect("last pulls")
    }

    async fn stamps(&self) -> Vec<Stamp> {
        let (mut all, mut after) = (Vec::new(), None);
        while let Some((id, stamp)) = self.store.pull_stamps(after, 1).await.expect("stamps").pop() {
            all.push(stamp);
            after = Some(id);
        }
        all
    }
}

fn stamp(repository: &str, content: &str, day: Day) -> Stamp {
    Stamp { repository: name(repository), digest: digest(content), day }
}

pub async fn a_pull_is_noted_on_the_databases_day_for_what_lives(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for content in ["one", "two", "never"] {
        world.push_manifest("a", facts(content, &[]), &[]).await;
    }
    world.push_manifest("b", facts("one", &[]), &[]).await;
    let pulled = [("a", "one"), ("a", "gone"), ("nowhere", "one"), ("a", "two"), ("a", "one")]
        .map(|(repository, content)| (name(repository), digest(content)));
    let today = world.store.record_pulls(&pulled).await.expect("record");
    assert!(!today.left.is_zero() && today.left <= DAY, "{today:?}");
    let day = Some(today.day);
    assert_eq!(world.last("a", &["two", "never", "gone", "one"]).await, [day, None, None, day]);
    assert_eq!(world.last("b", &["one"]).await, [None], "each repository's is its own");
    let again = world.store.record_pulls(&[]).await.expect("what day it is");
    assert!(again.day >= today.day && again.left.abs_diff(today.left) < Duration::from_hours(25));
    assert_eq!(world.stamps().await, [stamp("a", "one", today.day), stamp("a", "two", today.day)]);
}

pub async fn the_later_day_stays(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("x", &[]), &[]).await;
    let today = world.store.record_pulls(&[]).await.expect("what day it is").day;
    let (last_week, tomorrow) = (today.plus(-7), today.plus(1));
    let told = [stamp("a", "x", today.plus(-9)), stamp("a", "x", last_week), stamp("a", "gone", today)];
    world.store.restore_pulls(world.epoch, &told).await.expect("restore");
    assert_eq!(world.last("a", &["x"]).await, [Some(last_week)]);
    world.store.record_pulls(&[(name("a"), digest("x"))]).await.expect("record");
    assert_eq!(world.last("a", &["x"]).await, [Some(today)]);
    world.store.restore_pulls(world.epoch, &told).await.expect("restore");
    assert_eq!(world.last("a", &["x"]).await, [Some(today)]);
    world.store.restore_pulls(world.epoch, &[stamp("a", "x", tomorrow)]).await.expect("restore");
    world.store.record_pulls(&[(name("a"), digest("x"))]).await.expect("record");
    assert_eq!(world.last("a", &["x"]).await, [Some(tomorrow)], "whatever a clock did");
}

pub async fn a_pull_of_a_child_counts_for_its_indexes(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("child", &[]), &[]).await;
    world.push_manifest("a", index("index", &[digest("child")]), &[]).await;
    world.push_manifest("a", index("other", &[digest("elsewhere")]), &[]).await;
    let today = world.store.record_pulls(&[(name("a"), digest("child"))]).await.expect("record").day;
    assert_eq!(world.last("a", &["index", "other", "child"]).await, [Some(today), None, Some(today)]);
}

pub async fn a_deleted_manifest_takes_its_day_along(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("x", &[]), &[]).await;
    world.store.record_pulls(&[(name("a"), digest("x"))]).await.expect("record");
    world.store.delete_manifest(world.epoch, &name("a"), &digest("x"), DAY, &none).await.expect("delete");
    assert_eq!(world.last("a", &["x"]).await, [None]);
    assert_eq!(world.stamps().await, []);
    world.push_manifest("a", facts("x", &[]), &[]).await;
    assert_eq!(world.last("a", &["x"]).await, [None]);
}

pub async fn the_gap_is_the_last_day_that_a_process_may_not_have_told_of(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let gap = || async { world.store.pull_gap().await.expect("gap") };
    assert_eq!(gap().await, None);
    let today = world.store.record_pulls(&[]).await.expect("what day it is").day;
    let ([one, two], yesterday) = ([fresh(), fresh()], today.plus(-1));
    let note = async |writers: &[(Generation, Day)]| {
        world.store.note_pull_writers(world.epoch, writers).await.expect("note");
    };
    note(&[(one, yesterday), (two, today)]).await;
    assert_eq!(gap().await, Some(today));
    note(&[(two, yesterday)]).await;
    let writers = world.store.pull_writers().await.expect("writers");
    assert_eq!(writers, [(one, yesterday), (two, today)], "the later day stays");
    world.store.forget_pull_writer(world.epoch, two).await.expect("forget");
    assert_eq!(gap().await, Some(yesterday));
    world.store.forget_pull_writer(world.epoch, one).await.expect("forget");
    assert_eq!(gap().await, None);
}

pub async fn what_is_told_of_another_incarnation_is_refused(fixture: Fixture) {
    let world = World::begin(fixture).await;
    world.push_manifest("a", facts("x", &[]), &[]).await;
    let today = world.store.record_pulls(&[]).await.expect("what day it is").day;
    world.rows.restart().await;
    let told = [stamp("a", "x", today)];
    for refused in [
        world.store.restore_pulls(world.epoch, &told).await,
        world.store.note_pull_writers(world.epoch, &[(fresh(), today)]).await,
        world.store.forget_pull_writer(world.epoch, fresh()).await,
    ] {
        assert!(matches!(refused, Err(Error::Superseded)), "{refused:?}");
    }
}
