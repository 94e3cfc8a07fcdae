// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The checker checked: forged histories must be found out, legal ones must pass, however tangled.
//!
//! Legal histories come from a simulated registry that does what a perfect one would: each operation takes effect at
//! one instant between its invocation and its end, a stray attempt at any later time or never.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stowage_oci::{Algorithm, Digest};

use super::check::{Rule, check, survivors};
use super::record::{
    Action, Cause, Fate, History, Moment, Operation, Outage, Outcome, Part, Policy, Reference, Setback,
};

const REPOSITORY: &str = "app";

fn digest(number: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_be_bytes())
}

fn repository() -> String {
    REPOSITORY.to_owned()
}

fn push(manifest: u64, tag: &str) -> Action {
    let tag = (!tag.is_empty()).then(|| tag.to_owned());
    Action::PushManifest {
        repository: repository(),
        digest: digest(manifest),
        tag,
        blobs: vec![blob(manifest)],
        children: Vec::new(),
    }
}

/// The one blob of a manifest.
fn blob(manifest: u64) -> Digest {
    digest(manifest + 1_000_000)
}

fn pull_tag(tag: &str) -> Action {
    Action::PullManifest { repository: repository(), reference: Reference::Tag(tag.to_owned()) }
}

fn pull(manifest: u64) -> Action {
    Action::PullManifest { repository: repository(), reference: Reference::Digest(digest(manifest)) }
}

fn delete_tag(tag: &str) -> Action {
    Action::DeleteTag { repository: repository(), tag: tag.to_owned() }
}

fn delete(manifest: u64) -> Action {
    Action::DeleteManifest { repository: repository(), digest: digest(manifest) }
}

fn push_blob(digest: Digest) -> Action {
    Action::PushBlob { repository: repository(), digest }
}

fn pull_blob(digest: Digest) -> Action {
    Action::PullBlob { repository: repository(), digest }
}

fn delete_blob(digest: Digest) -> Action {
    Action::DeleteBlob { repository: repository(), digest }
}

fn list() -> Action {
    Action::ListTags { repository: repository() }
}

fn found(manifest: u64) -> Outcome {
    Outcome::Found { digest: digest(manifest), claimed: None }
}

fn listed(tags: &[&str]) -> Outcome {
    Outcome::Listed { tags: tags.iter().map(|&tag| tag.to_owned()).collect() }
}

fn refused(status: u16, code: &str, missing: &[Digest]) -> Outcome {
    Outcome::Refused { status, code: code.to_owned(), missing: missing.to_vec() }
}

const DONE: Outcome = Outcome::Acknowledged;
const ABSENT: Outcome = Outcome::Absent;
const CRASHED: Outcome = Outcome::Crashed;

/// A history of these operations: what, from, to, what came of it. The ids count from 0.
fn history<const N: usize>(operations: [(Action, u64, u64, Outcome); N]) -> History {
    let operation = |(id, (action, invoked, ended, outcome)): (usize, _)| Operation {
        id: id as u64,
        client: 0,
        action,
        invoked: Moment(invoked),
        ended: Moment(ended),
        outcome,
        setbacks: Vec::new(),
    };
    History { operations: operations.into_iter().enumerate().map(operation).collect(), ..History::default() }
}

fn assert_legal(history: &History) {
    let verdict = check(history);
    assert!(verdict.is_legal(), "{verdict}");
}

/// That exactly these promises are found broken, by these operations.
#[track_caller]
fn assert_broken(history: &History, expected: &[(Rule, &[u64])]) {
    let verdict = check(history);
    let found: Vec<(Rule, &[u64])> = verdict
        .violations
        .iter()
        .map(|violation| (violation.rule, violation.operations.as_slice()))
        .collect();
    assert_eq!(found, expected, "{verdict}");
}

#[test]
fn a_lost_push_is_found() {
    assert_broken(
        &history([(push(1, ""), 1, 2, DONE), (pull(1), 3, 4, ABSENT)]),
        &[(Rule::LostPush, &[1, 0])],
    );
    assert_broken(
        &history([(push(1, "a"), 1, 2, DONE), (pull_tag("a"), 3, 4, ABSENT)]),
        &[(Rule::LostPush, &[1, 0])],
    );
    assert_broken(
        &history([(push(1, "a"), 1, 2, DONE), (list(), 3, 4, listed(&[]))]),
        &[(Rule::LostPush, &[1, 0])],
    );
    // A deletion that was refused before it began is none, nor is one of another manifest.
    assert_broken(
        &history([
            (push(1, ""), 1, 2, DONE),
            (delete(1), 3, 4, refused(405, "DENIED", &[])),
            (delete(2), 3, 4, ABSENT),
            (pull(1), 5, 6, ABSENT),
        ]),
        &[(Rule::LostPush, &[3, 0]), (Rule::Refused, &[1])],
    );
}

#[test]
fn a_stale_read_is_found() {
    assert_broken(
        &history([(push(1, "a"), 1, 2, DONE), (push(2, "a"), 3, 4, DONE), (pull_tag("a"), 5, 6, found(1))]),
        &[(Rule::StaleRead, &[2, 0, 1])],
    );
}

#[test]
fn a_tag_that_goes_back_is_found() {
    assert_broken(
        &history([
            (push(1, "a"), 1, 2, DONE),
            (push(2, "a"), 3, 20, DONE),
            (pull_tag("a"), 4, 5, found(1)),
            (pull_tag("a"), 6, 7, found(2)),
            (pull_tag("a"), 8, 9, found(1)),
        ]),
        &[(Rule::WentBack, &[4, 2, 3])],
    );
}

#[test]
fn what_was_deleted_long_ago_is_not_read_again() {
    assert_broken(
        &history([
            (push(1, "a"), 1, 2, DONE),
            (delete_tag("a"), 3, 4, DONE),
            (pull_tag("a"), 50, 51, found(1)),
        ]),
        &[(Rule::Resurrected, &[2, 0, 1])],
    );
    assert_broken(
        &history([(push(1, ""), 1, 2, DONE), (delete(1), 3, 4, DONE), (pull(1), 50, 51, found(1))]),
        &[(Rule::Resurrected, &[2, 0, 1])],
    );
    // The deletion of a manifest takes its tags along.
    let tagged = history([
        (push(1, "a"), 1, 2, DONE),
        (delete(1), 3, 4, DONE),
        (pull_tag("a"), 50, 51, found(1)),
        (list(), 52, 53, listed(&["a"])),
    ]);
    let rules: BTreeSet<Rule> = check(&tagged).violations.iter().map(|violation| violation.rule).collect();
    assert!(rules.contains(&Rule::Resurrected), "{rules:?}");
    // A blob is one of content too.
    let taken = digest(7);
    assert_broken(
        &history([
            (push_blob(taken), 1, 2, DONE),
            (delete_blob(taken), 3, 4, DONE),
            (pull_blob(taken), 5, 6, Outcome::Found { digest: taken, claimed: None }),
        ]),
        &[(Rule::Resurrected, &[2, 1])],
    );
}

#[test]
fn a_push_of_a_tag_outlives_the_deletion_of_what_the_tag_named() {
    let before = (push(1, "a"), 1, 2, DONE);
    // However the two overlap.
    for (pushed, deleted) in [((3, 20), (4, 10)), ((4, 10), (3, 20)), ((3, 10), (4, 20))] {
        let with = |seen| {
            history([
                before.clone(),
                (push(2, "a"), pushed.0, pushed.1, DONE),
                (delete(1), deleted.0, deleted.1, DONE),
                (pull_tag("a"), 30, 31, seen),
            ])
        };
        assert_legal(&with(found(2)));
        assert!(!check(&with(ABSENT)).is_legal(), "{pushed:?} {deleted:?}");
    }
}

#[test]
fn a_tag_that_was_seen_deleted_does_not_come_back() {
    assert_broken(
        &history([
            (push(1, "a"), 1, 2, DONE),
            (delete_tag("a"), 3, 20, DONE),
            (pull_tag("a"), 4, 5, found(1)),
            (pull_tag("a"), 6, 7, ABSENT),
            (pull_tag("a"), 8, 9, found(1)),
        ]),
        &[(Rule::WentBack, &[4, 2, 3])],
    );
}

#[test]
fn wrong_bytes_are_found() {
    assert_broken(
        &history([(push(1, ""), 1, 2, DONE), (pull(1), 3, 4, found(2))]),
        &[(Rule::WrongBytes, &[1])],
    );
    let named = Outcome::Found { digest: digest(1), claimed: Some(digest(2)) };
    assert_broken(
        &history([(push(1, "a"), 1, 2, DONE), (pull_tag("a"), 3, 4, named)]),
        &[(Rule::WrongBytes, &[1])],
    );
    let other = Outcome::Found { digest: digest(8), claimed: None };
    assert_broken(
        &history([(push_blob(digest(7)), 1, 2, DONE), (pull_blob(digest(7)), 3, 4, other)]),
        &[(Rule::WrongBytes, &[1])],
    );
}

#[test]
fn a_value_that_nobody_wrote_or_not_yet_is_found() {
    assert_broken(&history([(pull_tag("a"), 3, 4, found(1))]), &[(Rule::Phantom, &[0])]);
    assert_broken(&history([(list(), 3, 4, listed(&["a"]))]), &[(Rule::Phantom, &[0])]);
    let blob = Outcome::Found { digest: digest(7), claimed: None };
    assert_broken(&history([(pull_blob(digest(7)), 3, 4, blob)]), &[(Rule::Phantom, &[0])]);
    assert_broken(
        &history([(pull_tag("a"), 1, 2, found(1)), (push(1, "a"), 3, 4, DONE)]),
        &[(Rule::Phantom, &[0]), (Rule::Phantom, &[0])], // the tag and the manifest behind it
    );
    // What was refused was not written.
    assert_broken(
        &history([
            (push(1, "a"), 1, 2, refused(400, "MANIFEST_BLOB_UNKNOWN", &[digest(9)])),
            (pull_tag("a"), 3, 4, found(1)),
        ]),
        &[(Rule::Phantom, &[1]), (Rule::Phantom, &[1])],
    );
}

#[test]
fn a_blob_that_a_manifest_lists_must_be_there() {
    let is_missing = |until_delete: bool| {
        let delete = if until_delete { delete(1) } else { delete(2) };
        history([
            (push_blob(blob(1)), 1, 2, DONE),
            (push(1, ""), 3, 4, DONE),
            (delete, 5, 6, if until_delete { DONE } else { ABSENT }),
            (pull_blob(blob(1)), 900, 901, ABSENT),
        ])
    };
    let grace = Policy { blob_grace: Some(std::time::Duration::from_nanos(100)), ..Policy::default() };
    let with_collector = |history: History| History { policy: grace.clone(), ..history };
    assert_broken(&with_collector(is_missing(false)), &[(Rule::MissingBlob, &[3, 1])]);
    assert_legal(&with_collector(is_missing(true)));
    assert_broken(&is_missing(true), &[(Rule::MissingBlob, &[3, 0])]);
    // The same, told to somebody who pushes.
    let refused = refused(400, "MANIFEST_BLOB_UNKNOWN", &[blob(1)]);
    assert_broken(
        &with_collector(history([(push_blob(blob(1)), 1, 2, DONE), (push(1, ""), 50, 60, refused.clone())])),
        &[(Rule::MissingBlob, &[1, 0])],
    );
    assert_legal(&with_collector(history([
        (push_blob(blob(1)), 1, 2, DONE),
        (push(1, ""), 150, 160, refused),
    ])));
}

#[test]
fn an_operation_that_fails_without_an_outage_is_found() {
    let setback =
        |cause| Setback { invoked: Moment(10), ended: Moment(20), replica: 1, cause, fate: Fate::Unknown };
    let later = || Cause::Unavailable { status: 503, retry_after: Some(1) };
    let with = |action: Action, outcome, cause, outages: &[Part]| {
        let mut history = history([(action, 5, 30, outcome)]);
        history.operations[0].setbacks.push(setback(cause));
        let outage = |&part| Outage { part, reason: String::new(), from: Moment(8), until: Some(Moment(12)) };
        history.outages = outages.iter().map(outage).collect();
        history
    };
    let both = [Part::Database, Part::Bucket];
    for (action, outcome, cause, outages) in [
        (push(1, "a"), DONE, later(), &[Part::Database][..]),
        (push(1, "a"), DONE, later(), &[Part::Bucket]),
        (push(1, "a"), DONE, Cause::Broken, &[Part::Replica(1)]),
        (pull_tag("a"), ABSENT, Cause::Unreachable, &[Part::Replica(1)]),
        (pull_tag("a"), ABSENT, later(), &both),
        (push(1, "a"), Outcome::Failed, later(), &[Part::Database]),
        (push_blob(blob(1)), DONE, Cause::UploadGone { status: 404 }, &[Part::Uploads]),
        (delete(1), DONE, later(), &[Part::References]),
        (list(), ABSENT, later(), &[Part::References]),
        (delete_tag("a"), DONE, later(), &[Part::Room]),
    ] {
        assert_legal(&with(action, outcome, cause, outages));
    }
    for (action, cause, outages) in [
        (pull_tag("a"), later(), &[Part::Database][..]),
        (pull_tag("a"), later(), &[Part::Bucket]),
        (pull_tag("a"), Cause::Broken, &[Part::Replica(2)]),
        (pull_tag("a"), later(), &[Part::Room]),
        (push(1, "a"), later(), &[]),
        (delete_tag("a"), later(), &[Part::References]),
        (push(1, "a"), Cause::Unavailable { status: 503, retry_after: None }, &both),
        (push(1, "a"), Cause::Faulty { status: 500 }, &both),
        (push(1, "a"), Cause::Broken, &both),
        (push_blob(blob(1)), Cause::UploadGone { status: 404 }, &both),
    ] {
        let is_pull = action.is_pull();
        let outcome = if is_pull { ABSENT } else { DONE };
        assert_broken(&with(action, outcome, cause, outages), &[(Rule::Interrupted, &[0])]);
    }
    assert_broken(&history([(pull_tag("a"), 1, 2, Outcome::Failed)]), &[(Rule::Failed, &[0])]);
    let mut gave_up_later = with(push(1, "a"), Outcome::Failed, later(), &[Part::Database]);
    gave_up_later.policy.recovery = std::time::Duration::from_secs(1);
    gave_up_later.outages[0].until = Some(Moment(9));
    assert_broken(&gave_up_later, &[(Rule::Failed, &[0])]);
}

#[test]
fn a_refusal_needs_a_reason() {
    let denied = || refused(405, "UNSUPPORTED", &[]);
    assert_broken(&history([(delete(1), 1, 2, denied())]), &[(Rule::Refused, &[0])]);
    assert_broken(
        &history([(push(1, "a"), 1, 2, refused(401, "UNAUTHORIZED", &[]))]),
        &[(Rule::Refused, &[0])],
    );
    assert_legal(&history([(push(1, ""), 1, 9, CRASHED), (delete_blob(blob(1)), 2, 3, denied())]));
}

#[test]
fn what_overlaps_or_is_unknown_leaves_both_possible() {
    // A deletion that overlaps the read.
    for outcome in [found(1), ABSENT] {
        assert_legal(&history([
            (push(1, ""), 1, 2, DONE),
            (delete(1), 3, 9, DONE),
            (pull(1), 4, 5, outcome),
        ]));
    }
    // A deletion that nobody knows the end of, long ago: before, after, and both in this order.
    assert_legal(&history([
        (push(1, "a"), 1, 2, DONE),
        (delete(1), 3, 4, CRASHED),
        (pull(1), 50, 51, found(1)),
        (pull_tag("a"), 52, 53, ABSENT),
        (pull(1), 54, 55, ABSENT),
    ]));
    // A push of unknown fate, seen long after another.
    assert_legal(&history([
        (push(1, "a"), 1, 2, CRASHED),
        (push(2, "a"), 3, 4, DONE),
        (pull_tag("a"), 5, 6, found(2)),
        (pull_tag("a"), 7, 8, found(1)),
    ]));
    // … but not twice.
    assert_broken(
        &history([
            (push(1, "a"), 1, 2, CRASHED),
            (pull_tag("a"), 3, 4, found(1)),
            (push(2, "a"), 5, 6, DONE),
            (pull_tag("a"), 7, 8, found(1)),
        ]),
        &[(Rule::StaleRead, &[3, 0, 2])],
    );
    // Pushes that overlap, seen in either order.
    assert_legal(&history([
        (push(1, "a"), 1, 9, DONE),
        (push(2, "a"), 2, 8, DONE),
        (pull_tag("a"), 3, 4, found(2)),
        (pull_tag("a"), 10, 11, found(1)),
    ]));
    // The same manifest pushed again after its deletion.
    assert_legal(&history([
        (push(1, "a"), 1, 2, DONE),
        (delete(1), 3, 4, DONE),
        (pull_tag("a"), 5, 6, ABSENT),
        (push(1, "a"), 7, 8, DONE),
        (pull_tag("a"), 9, 10, found(1)),
        (list(), 11, 12, listed(&["a"])),
    ]));
}

#[test]
fn an_attempt_of_unknown_fate_may_take_effect_after_its_operation() {
    let stray = |fate| {
        let mut history = history([
            (push(1, "a"), 1, 5, DONE),
            (push(2, "a"), 6, 7, DONE),
            (pull_tag("a"), 8, 9, found(2)),
            (pull_tag("a"), 10, 11, found(1)),
        ]);
        history.outages =
            vec![Outage { part: Part::Replica(0), reason: String::new(), from: Moment(0), until: None }];
        history.operations[0].setbacks =
            vec![Setback { invoked: Moment(1), ended: Moment(2), replica: 0, cause: Cause::Broken, fate }];
        history
    };
    assert_legal(&stray(Fate::Unknown));
    assert_broken(&stray(Fate::NoEffect), &[(Rule::StaleRead, &[3, 0, 1])]);
}

#[test]
fn who_survives_was_pushed_and_not_deleted_since() {
    let history = history([
        (push(1, "a"), 1, 2, DONE),
        (push(2, ""), 1, 2, DONE),
        (delete(2), 3, 4, DONE),
        (push(3, ""), 1, 2, DONE),
        (delete(3), 3, 4, CRASHED),
        (push(3, ""), 5, 6, DONE),
        (push(4, ""), 1, 2, CRASHED),
        (delete(5), 1, 2, DONE),
        (push(5, ""), 3, 4, DONE),
    ]);
    let mut expected = vec![(REPOSITORY, digest(1)), (REPOSITORY, digest(5))];
    expected.sort_unstable();
    assert_eq!(survivors(&history), expected);
}

#[test]
fn a_history_reads_back_as_it_was_written_and_nothing_else_does() {
    let (history, _) = Simulation::run(1, 200, None);
    let mut written = Vec::new();
    history.write(&mut written).unwrap();
    assert_eq!(History::read(written.as_slice()).unwrap(), history);
    let twice = [written.as_slice(), written.as_slice()].concat();
    assert!(History::read(twice.as_slice()).unwrap_err().to_string().contains("the id 0"));
    let torn = &written[..written.len() - 9];
    assert!(History::read(torn).unwrap_err().to_string().starts_with("read line "));
}

/// What a registry with a fault does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// It acknowledges a push and forgets it.
    ForgetsPush,
    /// It answers pulls of tags from what it knew a while ago.
    ServesStale,
    /// It forgets that a tag was deleted.
    ForgetsDeletion,
    /// It moves a tag to the manifest it had before.
    RollsBack,
}

/// A registry of which each operation takes effect at one instant.
#[derive(Default)]
struct Simulation {
    tags: BTreeMap<String, u64>,
    manifests: BTreeSet<u64>,
    /// The tags as they were after each change.
    past: Vec<BTreeMap<String, u64>>,
    /// Of the manifests, by their digests.
    numbers: HashMap<Digest, u64>,
}

const CLIENTS: u64 = 6;
const TAGS: [&str; 3] = ["a", "b", "c"];

impl Simulation {
    /// Runs clients for so many operations each. Returns their history, which is legal unless there is a bug, and how
    /// often that was acted on.
    fn run(seed: u64, operations: u64, bug: Option<Bug>) -> (History, usize) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut plan = Vec::new();
        for client in 0..CLIENTS {
            let mut now = rng.random_range(0..20);
            for number in 0..operations {
                now = Self::plan(&mut rng, client, number, now, &mut plan);
            }
        }
        // At the end everything is read once more, when all strays have settled.
        let end = 1_000_000_000;
        let all = (0..CLIENTS * operations).map(pull).chain(TAGS.map(pull_tag));
        plan.extend(all.map(|action| Planned {
            client: CLIENTS,
            action,
            invoked: end,
            ended: end + 1,
            effects: vec![end],
            stray: None,
            crashed: false,
        }));
        let mut instants: Vec<(u64, usize)> = plan
            .iter()
            .enumerate()
            .flat_map(|(at, planned)| planned.effects.iter().map(move |&when| (when, at)))
            .collect();
        instants.sort_unstable();
        let numbers = (0..CLIENTS * operations).map(|number| (digest(number), number)).collect();
        let mut registry = Self { numbers, ..Self::default() };
        let (mut outcomes, mut bugs) = (vec![CRASHED; plan.len()], 0);
        for (_, at) in instants {
            let faulty = bug.filter(|_| rng.random_bool(0.5));
            let (outcome, acted) = registry.apply(&plan[at].action, faulty);
            bugs += usize::from(acted);
            outcomes[at] = outcome;
        }
        let outage = Outage { part: Part::Replica(0), reason: String::new(), from: Moment(0), until: None };
        let operation =
            |(id, (planned, outcome)): (usize, (Planned, Outcome))| planned.recorded(id as u64, outcome);
        let operations = plan.into_iter().zip(outcomes).enumerate().map(operation).collect();
        (History { policy: Policy::default(), outages: vec![outage], operations }, bugs)
    }

    /// Plans the next operation of a client; when that is over.
    fn plan(rng: &mut StdRng, client: u64, number: u64, now: u64, plan: &mut Vec<Planned>) -> u64 {
        let tag = TAGS[rng.random_range(0..TAGS.len())];
        let known = rng.random_range(0..CLIENTS) + CLIENTS * rng.random_range(0..=number);
        let action = match rng.random_range(0..100) {
            0..35 => push(client + CLIENTS * number, if rng.random_bool(0.8) { tag } else { "" }),
            35..40 => push(known, tag),
            40..46 => delete_tag(tag),
            46..52 => delete(known),
            52..58 => list(),
            58..70 => pull(known),
            _ => pull_tag(tag),
        };
        let writes = !action.is_pull() && !matches!(action, Action::ListTags { .. });
        let (invoked, ended) = (now, now + rng.random_range(1..30));
        let late = |rng: &mut StdRng| invoked + rng.random_range(0..400);
        let crashed = writes && rng.random_bool(0.05);
        let mut effects = Vec::new();
        if !crashed {
            effects.push(rng.random_range(invoked..=ended));
        } else if rng.random_bool(0.5) {
            effects.push(late(rng));
        }
        let stray = (writes && rng.random_bool(0.05)).then_some(invoked);
        if stray.is_some() && rng.random_bool(0.5) {
            // The last instant decides what the client is told, so a stray comes before it or tells nobody.
            effects.insert(0, late(rng));
        }
        plan.push(Planned { client, action, invoked, ended, effects, stray, crashed });
        ended + rng.random_range(1..20)
    }

    /// Does what is asked, and whether a bug made a difference.
    fn apply(&mut self, action: &Action, bug: Option<Bug>) -> (Outcome, bool) {
        let numbered = |digest: &Digest| self.numbers.get(digest).copied();
        let before = self.tags.clone();
        let mut acted = false;
        let outcome = match action {
            Action::PushManifest { digest, tag, .. } => {
                let manifest = numbered(digest).unwrap();
                acted = bug == Some(Bug::ForgetsPush);
                if !acted {
                    self.manifests.insert(manifest);
                    self.tags.extend(tag.iter().map(|tag| (tag.clone(), manifest)));
                }
                DONE
            }
            Action::DeleteTag { tag, .. } => {
                let was_there = self.tags.contains_key(tag);
                acted = was_there && bug == Some(Bug::ForgetsDeletion);
                if !acted {
                    self.tags.remove(tag);
                }
                if was_there { DONE } else { ABSENT }
            }
            Action::DeleteManifest { digest, .. } => {
                let manifest = numbered(digest).unwrap();
                self.tags.retain(|_, tagged| *tagged != manifest);
                if self.manifests.remove(&manifest) { DONE } else { ABSENT }
            }
            Action::PullManifest { reference: Reference::Digest(digest), .. } => {
                let manifest = numbered(digest).unwrap();
                if self.manifests.contains(&manifest) { found(manifest) } else { ABSENT }
            }
            Action::PullManifest { reference: Reference::Tag(tag), .. } => {
                let shown = match bug {
                    Some(Bug::ServesStale) if self.past.len() > 20 => &self.past[self.past.len() - 20],
                    Some(Bug::RollsBack) if self.past.len() > 20 => {
                        self.tags = self.past[self.past.len() - 20].clone();
                        &self.tags
                    }
                    _ => &self.tags,
                };
                acted = *shown != before;
                shown.get(tag).map_or(ABSENT, |&manifest| found(manifest))
            }
            _ => Outcome::Listed { tags: self.tags.keys().cloned().collect() },
        };
        if self.tags != before {
            self.past.push(before);
        }
        (outcome, acted)
    }
}

/// An operation, and when it takes effect.
struct Planned {
    client: u64,
    action: Action,
    invoked: u64,
    ended: u64,
    /// The last of these is the one that the client is told of.
    effects: Vec<u64>,
    /// When an attempt began whose fate is unknown.
    stray: Option<u64>,
    crashed: bool,
}

impl Planned {
    fn recorded(self, id: u64, outcome: Outcome) -> Operation {
        let setback = |invoked| Setback {
            invoked: Moment(invoked),
            ended: Moment(invoked),
            replica: 0,
            cause: Cause::Broken,
            fate: Fate::Unknown,
        };
        Operation {
            id,
            client: u32::try_from(self.client).unwrap(),
            action: self.action,
            invoked: Moment(self.invoked),
            ended: Moment(self.ended),
            outcome: if self.crashed { CRASHED } else { outcome },
            setbacks: self.stray.map(setback).into_iter().collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_perfect_registry_does_is_legal(seed: u64) {
        let (history, _) = Simulation::run(seed, 40, None);
        let verdict = check(&history);
        prop_assert!(verdict.is_legal(), "{verdict}");
    }

    #[test]
    fn a_registry_with_a_bug_is_found_out(seed: u64, bug in 0..4_usize) {
        let bug = [Bug::ForgetsPush, Bug::ServesStale, Bug::ForgetsDeletion, Bug::RollsBack][bug];
        // Chance can leave what it did in one history without a witness, not in three.
        let mut unseen = 0;
        for history in 0..3 {
            let (history, acted) = Simulation::run(seed.wrapping_add(history), 120, Some(bug));
            prop_assert!(acted > 5);
            if !check(&history).is_legal() {
                return Ok(());
            }
            unseen += acted;
        }
        prop_assert!(false, "{:?} acted {} times unseen", bug, unseen);
    }

    /// A read forged to show what another acknowledged push had overwritten before the read began.
    #[test]
    fn each_stale_read_is_found(seed: u64, choice: proptest::sample::Index) {
        let (mut history, _) = Simulation::run(seed, 40, None);
        let forgeries = forgeries(&history);
        prop_assume!(!forgeries.is_empty());
        let (read, stale) = forgeries[choice.index(forgeries.len())];
        history.operations[read].outcome = Outcome::Found { digest: stale, claimed: None };
        let verdict = check(&history);
        let id = history.operations[read].id;
        prop_assert!(verdict.violations.iter().any(|violation| violation.operations.contains(&id)), "{verdict}");
    }
}

/// Reads of tags, each with a digest that it cannot show: pushed once, and overwritten before the read began.
fn forgeries(history: &History) -> Vec<(usize, Digest)> {
    let pushes = |of: &str| {
        let of = of.to_owned();
        history.operations.iter().filter_map(move |operation| match &operation.action {
            Action::PushManifest { digest, tag: Some(tag), .. } if *tag == of => Some((operation, *digest)),
            _ => None,
        })
    };
    let mut found = Vec::new();
    for (at, read) in history.operations.iter().enumerate() {
        let Action::PullManifest { reference: Reference::Tag(tag), .. } = &read.action else { continue };
        for (first, digest) in pushes(tag) {
            let once = pushes(tag).filter(|(_, other)| *other == digest).count() == 1;
            let known = first.outcome == DONE && first.setbacks.is_empty();
            let overwritten = pushes(tag).any(|(second, _)| {
                second.outcome == DONE && second.invoked > first.ended && second.ended < read.invoked
            });
            if once && known && overwritten {
                found.push((at, digest));
            }
        }
    }
    found
}

#[test]
fn a_history_of_a_hundred_thousand_operations_is_judged_in_seconds() {
    let (history, _) = Simulation::run(7, 8_400, None);
    assert!(history.operations.len() > 100_000);
    assert_legal(&history);
}
