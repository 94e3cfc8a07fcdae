// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs of jobs, and the reports that tell of them.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use super::{Fixture, World, digest, fresh};
use crate::key::{RunKind, RunName, RunOutcome};
use crate::meta::{Error, ExpiredIntent, Reaped, RunRow};

/// Longer than an intent lives.
const LATER: Duration = Duration::from_mins(11);

fn run(name: &str) -> RunRow {
    RunRow {
        kind: RunKind::Retention,
        name: name.parse().expect("a name"),
        generation: fresh(),
        outcome: RunOutcome::Succeeded,
        started: 1_700_000_000_001,
        ended: 1_700_000_000_002,
        summary: r#"{"command":"retention"}"#.to_owned(),
        rules: Some(digest("rules")),
    }
}

impl World {
    async fn record(&self, run: &RunRow) {
        let intent = self.store.intend_run(self.epoch, &run.key()).await.expect("intend");
        assert!(self.store.record_run(self.epoch, intent, run).await.expect("record"));
    }

    async fn newest(&self, name: &str, limit: u32) -> Vec<RunRow> {
        let name: RunName = name.parse().expect("a name");
        let mut found = self.store.runs(RunKind::Retention, &name, limit).await.expect("runs");
        for run in &mut found {
            // A database may write JSON with other blanks.
            run.summary.retain(|letter| !letter.is_whitespace());
        }
        found
    }
}

pub async fn a_run_is_remembered_once_its_report_is_stored(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (one, two, other) = (run("a"), RunRow { rules: None, ..run("a") }, run("b"));
    let intent = world.store.intend_run(world.epoch, &one.key()).await.expect("intend");
    assert_eq!(world.rows.intents().await, [[one.key().to_string()]]);
    assert_eq!(world.newest("a", 9).await, []);
    assert!(world.store.record_run(world.epoch, intent, &one).await.expect("record"));
    assert!(!world.store.record_run(world.epoch, intent, &one).await.expect("record"), "it is done");
    for run in [&two, &other] {
        world.record(run).await;
    }
    assert_eq!(world.newest("a", 9).await, [two.clone(), one], "newest first");
    assert_eq!(world.newest("a", 1).await, [two]);
    assert_eq!(world.newest("b", 9).await, [other]);
    assert_eq!(world.rows.intents().await.len(), 0);
}

pub async fn a_report_whose_run_was_not_recorded_goes(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let run = run("a");
    let intent = world.store.intend_run(world.epoch, &run.key()).await.expect("intend");
    world.rows.pass(LATER).await;
    let expired: Vec<ExpiredIntent> = world.store.expired_intents(0, 10).await.expect("intents");
    let reaped = world.store.reap_intent(world.epoch, &expired[0], &[run.key()]).await.expect("reap");
    assert_eq!(reaped, Reaped::Withdrawn);
    assert_eq!(world.steps().await, [format!("-{}", run.key())]);
    assert!(!world.store.record_run(world.epoch, intent, &run).await.expect("record"), "it is too late");
    assert_eq!(world.newest("a", 9).await, []);
}

pub async fn a_report_that_is_found_is_adopted_unless_its_writer_is_under_way(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (found, written) = (run("a"), run("a"));
    assert!(world.store.adopt_run(world.epoch, &found).await.expect("adopt"));
    assert!(!world.store.adopt_run(world.epoch, &found).await.expect("adopt"), "it is known");
    let intent = world.store.intend_run(world.epoch, &written.key()).await.expect("intend");
    assert!(!world.store.adopt_run(world.epoch, &written).await.expect("adopt"));
    assert!(world.store.record_run(world.epoch, intent, &written).await.expect("record"));
    assert_eq!(world.newest("a", 9).await, [written, found]);
}

pub async fn the_newest_reports_of_each_name_stay(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let runs: Vec<RunRow> = (0..4).map(|_| run("a")).collect();
    for run in &runs {
        world.record(run).await;
    }
    let other = run("b");
    world.record(&other).await;
    assert_eq!(world.store.forget_runs(world.epoch, 2, 100).await.expect("forget"), 2);
    assert_eq!(world.newest("a", 9).await, [runs[3].clone(), runs[2].clone()]);
    assert_eq!(world.newest("b", 9).await, [other]);
    let mut steps = world.steps().await;
    steps.sort();
    let mut expected = [format!("-{}", runs[0].key()), format!("-{}", runs[1].key())];
    expected.sort();
    assert_eq!(steps, expected);
    assert_eq!(world.store.forget_runs(world.epoch, 2, 100).await.expect("forget"), 0);
}

pub async fn a_report_of_a_run_that_is_remembered_is_not_removed(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let run = run("a");
    world.record(&run).await;
    let refused = world.store.discard(world.epoch, &[run.key()]).await;
    assert!(matches!(refused, Err(Error::Live { .. })), "{refused:?}");
}
