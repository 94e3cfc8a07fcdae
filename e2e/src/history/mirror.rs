// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is promised of repositories that are copies of another registry's.
//!
//! What is pushed there is recorded as pushed to the copy. A manifest or blob that the other registry has acknowledged
//! can be read from then on. A tag may be as old as a copy may be, where only time counts in which somebody could have
//! asked. Without the other registry nobody gets what was never fetched; what a client once had whole, while nothing
//! kept the replicas from storing it, is there for all.

use std::collections::HashMap;
use std::time::Duration;

use stowage_oci::Digest;

use super::record::{Action, History, Mirror, Moment, Operation, Outage, Outcome, Part, Reference};

/// Content of a repository, as it is asked for.
type Content<'a> = (&'a str, Key<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Tag(&'a str),
    Manifest(Digest),
    Blob(Digest),
}

/// What is known of the copies of a history; nothing, if there are none.
pub(super) struct Mirrored<'a> {
    mirror: Option<&'a Mirror>,
    /// The times in which nobody could compare a tag; they do not touch, the first comes first.
    deaf: Vec<(Moment, Moment)>,
    /// From when on it needs no upstream.
    kept: HashMap<Content<'a>, Moment>,
}

impl<'a> Mirrored<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let Some(mirror) = &history.policy.mirror else {
            return Self { mirror: None, deaf: Vec::new(), kept: HashMap::new() };
        };
        Self { mirror: Some(mirror), deaf: deaf(history, mirror), kept: kept(history, mirror) }
    }

    /// From when on what an operation shows may have been so: its invocation, or earlier for a tag of a copy.
    pub(super) fn shows_since(&self, operation: &Operation) -> Moment {
        let is_tag = matches!(&operation.action, Action::PullManifest { reference: Reference::Tag(_), .. });
        match self.mirror {
            Some(mirror) if is_tag && mirror.has(operation) => self.back(operation.invoked, mirror.staleness),
            _ => operation.invoked,
        }
    }

    /// The instant before `from` since which it was possible to compare tags for so long.
    fn back(&self, from: Moment, time: Duration) -> Moment {
        let (mut at, mut left) = (from.0, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        for (begun, over) in self.deaf.iter().rev().filter(|(begun, _)| *begun < from) {
            let heard = at - over.0.min(at);
            if heard >= left {
                break;
            }
            left -= heard;
            at = begun.0;
        }
        Moment(at.saturating_sub(left))
    }

    /// Whether the upstream is needed to answer an attempt of this operation that began then.
    pub(super) fn needs_upstream(&self, operation: &Operation, since: Moment) -> bool {
        let is_copied = self.mirror.is_some_and(|mirror| mirror.has(operation));
        is_copied
            && asked(operation).is_some_and(|asked| self.kept.get(&asked).is_none_or(|kept| *kept >= since))
    }
}

impl Mirror {
    fn has(&self, operation: &Operation) -> bool {
        operation.action.repository().starts_with(&self.path)
    }
}

fn asked(operation: &Operation) -> Option<Content<'_>> {
    match &operation.action {
        Action::PullManifest { repository, reference: Reference::Tag(tag) } => {
            Some((repository, Key::Tag(tag)))
        }
        Action::PullManifest { repository, reference: Reference::Digest(digest) } => {
            Some((repository, Key::Manifest(*digest)))
        }
        Action::PullBlob { repository, digest } => Some((repository, Key::Blob(*digest))),
        _ => None,
    }
}

fn deaf(history: &History, mirror: &Mirror) -> Vec<(Moment, Moment)> {
    let slack = |outage: &Outage| match outage.part {
        Part::Upstream => Some(mirror.recovery),
        // What is stored is answered as it is.
        Part::Database => Some(history.policy.recovery),
        _ => None,
    };
    let end = Moment(u64::MAX);
    let time = |outage: &Outage| {
        Some((outage.from, outage.until.map_or(end, |until| until.after(slack(outage).unwrap_or_default()))))
            .filter(|_| slack(outage).is_some())
    };
    let mut times: Vec<(Moment, Moment)> = history.outages.iter().filter_map(time).collect();
    times.sort_unstable();
    times.dedup_by(|next, before| {
        let touches = next.0 <= before.1;
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    times
}

/// What was read whole while it could be stored. A blob stays for a manifest that lists it and was there before.
fn kept<'a>(history: &'a History, mirror: &Mirror) -> HashMap<Content<'a>, Moment> {
    let mut kept = HashMap::<Content<'_>, Moment>::new();
    let mut blobs = Vec::new();
    for operation in history.operations.iter().filter(|operation| mirror.has(operation)) {
        let since = operation.ended.after(mirror.settling);
        let (Some((repository, key)), Outcome::Found { digest, .. }) = (asked(operation), &operation.outcome)
        else {
            continue;
        };
        if was_disturbed(history, operation.invoked, since) {
            continue;
        }
        match key {
            Key::Blob(blob) => blobs.push((repository, blob, since)),
            Key::Manifest(_) => keep(&mut kept, (repository, key), since),
            Key::Tag(_) => {
                keep(&mut kept, (repository, key), since);
                keep(&mut kept, (repository, Key::Manifest(*digest)), since);
            }
        }
    }
    let holders = holders(history);
    for (repository, blob, since) in blobs {
        let mut holders = holders.get(&(repository, blob)).into_iter().flatten();
        let is_there = |holder: &Digest| {
            kept.get(&(repository, Key::Manifest(*holder))).is_some_and(|first| *first <= since)
        };
        if holders.any(is_there) {
            keep(&mut kept, (repository, Key::Blob(blob)), since);
        }
    }
    kept
}

fn keep<'a>(kept: &mut HashMap<Content<'a>, Moment>, content: Content<'a>, since: Moment) {
    let earliest = kept.entry(content).or_insert(since);
    *earliest = since.min(*earliest);
}

fn holders(history: &History) -> HashMap<(&str, Digest), Vec<Digest>> {
    let mut holders = HashMap::<_, Vec<_>>::new();
    for operation in &history.operations {
        if let Action::PushManifest { repository, digest, blobs, .. } = &operation.action {
            for blob in blobs {
                holders.entry((repository.as_str(), *blob)).or_default().push(*digest);
            }
        }
    }
    holders
}

/// Whether something may have kept the replicas from storing what they fetched between these instants.
fn was_disturbed(history: &History, from: Moment, until: Moment) -> bool {
    history.outages.iter().any(|outage| {
        let slack = match outage.part {
            Part::Database | Part::Bucket => history.policy.recovery,
            Part::Replica(_) | Part::Room => Duration::ZERO,
            Part::Uploads | Part::References | Part::Upstream => return false,
        };
        outage.from <= until && outage.until.is_none_or(|over| over.after(slack) >= from)
    })
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::super::check::{Rule, check};
    use super::super::record::{Cause, Fate, Policy, Setback};
    use super::*;

    const APP: &str = "mirror/app";
    const DONE: Outcome = Outcome::Acknowledged;

    fn digest(number: u64) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    fn push(number: u64) -> Action {
        let blobs = vec![digest(number + 100)];
        let (repository, digest) = (APP.to_owned(), digest(number));
        Action::PushManifest { repository, digest, tag: Some("a".to_owned()), blobs, children: Vec::new() }
    }

    fn push_blob(number: u64) -> Action {
        Action::PushBlob { repository: APP.to_owned(), digest: digest(number + 100) }
    }

    fn tag() -> Action {
        Action::PullManifest { repository: APP.to_owned(), reference: Reference::Tag("a".to_owned()) }
    }

    fn manifest(number: u64) -> Action {
        Action::PullManifest { repository: APP.to_owned(), reference: Reference::Digest(digest(number)) }
    }

    fn blob(number: u64) -> Action {
        Action::PullBlob { repository: APP.to_owned(), digest: digest(number + 100) }
    }

    fn found(number: u64) -> Outcome {
        Outcome::Found { digest: digest(number), claimed: None }
    }

    /// Copies that may be 10 old and are stored 5 after they were read; each outage is felt for 2 more.
    fn history<const N: usize>(
        operations: [(Action, u64, u64, Outcome); N],
        outages: &[(Part, u64, u64)],
    ) -> History {
        let time = Duration::from_nanos;
        let path = "mirror/".to_owned();
        let mirror = Mirror { path, staleness: time(10), settling: time(5), recovery: time(2) };
        let operation = |(id, (action, invoked, ended, outcome)): (usize, _)| Operation {
            id: id as u64,
            client: 0,
            action,
            invoked: Moment(invoked),
            ended: Moment(ended),
            outcome,
            setbacks: Vec::new(),
        };
        let outage = |&(part, from, until): &(Part, u64, u64)| Outage {
            part,
            reason: String::new(),
            from: Moment(from),
            until: Some(Moment(until)),
        };
        History {
            policy: Policy { recovery: time(2), mirror: Some(mirror), ..Policy::default() },
            outages: outages.iter().map(outage).collect(),
            operations: operations.into_iter().enumerate().map(operation).collect(),
        }
    }

    #[track_caller]
    fn assert_rules(history: &History, expected: &[Rule]) {
        let verdict = check(history);
        let rules: Vec<Rule> = verdict.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(rules, expected, "{verdict}");
    }

    /// A tag that moved at 20 is seen as it was before then.
    fn moved(read: u64, outages: &[(Part, u64, u64)]) -> History {
        let operations = [(push(1), 1, 2, DONE), (push(2), 20, 21, DONE), (tag(), read, read + 1, found(1))];
        history(operations, outages)
    }

    #[test]
    fn a_tag_of_a_copy_may_be_as_old_as_that_and_older_only_while_nobody_can_ask() {
        assert_rules(&moved(31, &[]), &[]);
        assert_rules(&moved(32, &[]), &[Rule::StaleRead]);
        for part in [Part::Upstream, Part::Database] {
            // With what it leaves behind it lasts from 25 to 32, and twice from 22 on.
            assert_rules(&moved(38, &[(part, 25, 30)]), &[]);
            assert_rules(&moved(39, &[(part, 25, 30)]), &[Rule::StaleRead]);
            assert_rules(&moved(41, &[(part, 25, 30), (part, 22, 26)]), &[]);
            assert_rules(&moved(42, &[(part, 25, 30), (part, 22, 26)]), &[Rule::StaleRead]);
        }
        assert_rules(&moved(38, &[(Part::Bucket, 25, 30)]), &[Rule::StaleRead]);
    }

    #[test]
    fn a_tag_of_a_copy_shows_what_the_upstream_had_and_nothing_else() {
        assert_rules(
            &history([(push(1), 1, 2, DONE), (tag(), 3, 4, found(3))], &[(Part::Upstream, 3, 4)]),
            &[Rule::Phantom],
        );
        let of = |outcome| history([(push(1), 1, 2, DONE), (tag(), 50, 51, outcome)], &[]);
        assert_rules(&of(found(1)), &[]);
        assert_rules(&of(Outcome::Absent), &[Rule::LostPush]);
        // By its digest it is asked for at once.
        let gone = history([(push(1), 1, 2, DONE), (manifest(1), 3, 4, Outcome::Absent)], &[]);
        assert_rules(&gone, &[Rule::LostPush]);
    }

    /// An image that is pulled at 10 and again at 100, which a client is told to come back for.
    fn again(action: Action, outages: &[(Part, u64, u64)]) -> History {
        let bytes = Outcome::Found { digest: digest(101), claimed: None };
        let seen = if matches!(action, Action::PullBlob { .. }) { bytes.clone() } else { found(1) };
        let mut history = history(
            [
                (push_blob(1), 1, 2, DONE),
                (push(1), 3, 4, DONE),
                (tag(), 10, 11, found(1)),
                (blob(1), 12, 13, bytes),
                (action, 100, 110, seen),
            ],
            outages,
        );
        let cause = Cause::Unavailable { status: 503, retry_after: Some(1) };
        let (invoked, ended) = (Moment(100), Moment(101));
        history.operations[4].setbacks =
            vec![Setback { invoked, ended, replica: 0, cause, fate: Fate::NoEffect }];
        history
    }

    #[test]
    fn what_a_client_once_had_whole_needs_no_upstream() {
        let away = (Part::Upstream, 90, 105);
        for action in [tag(), manifest(1), blob(1)] {
            assert_rules(&again(action.clone(), &[away]), &[Rule::Interrupted]);
            // Perhaps it could not be stored.
            for part in [Part::Database, Part::Bucket, Part::Replica(2)] {
                assert_rules(&again(action.clone(), &[(part, 11, 12), away]), &[]);
            }
        }
    }

    #[test]
    fn a_blob_is_kept_for_a_manifest_that_was_there_before_it_and_for_no_later_one() {
        let mut history = again(blob(1), &[(Part::Upstream, 90, 105)]);
        // Until the manifest comes nothing lists the blob, and a collection may take it.
        (history.operations[2].invoked, history.operations[2].ended) = (Moment(40), Moment(41));
        assert_rules(&history, &[]);
        (history.operations[3].invoked, history.operations[3].ended) = (Moment(42), Moment(43));
        assert_rules(&history, &[Rule::Interrupted]);
    }

    #[test]
    fn what_was_never_fetched_needs_the_upstream_and_nothing_else_excuses_that_it_is_not_had() {
        for action in [manifest(2), blob(2)] {
            let with = |outages: &[(Part, u64, u64)]| {
                let mut history = again(action.clone(), outages);
                history.operations[4].outcome = Outcome::Failed;
                history
            };
            assert_rules(&with(&[(Part::Upstream, 90, 120)]), &[]);
            assert_rules(&with(&[(Part::Upstream, 90, 97)]), &[Rule::Interrupted, Rule::Failed]);
            assert_rules(&with(&[(Part::Database, 90, 120)]), &[Rule::Interrupted, Rule::Failed]);
        }
        // Another registry's absence is no excuse for what is ours.
        let mut ours = again(manifest(2), &[(Part::Upstream, 90, 105)]);
        ours.operations[4].action = Action::ListTags { repository: "app".to_owned() };
        ours.operations[4].outcome = Outcome::Absent;
        assert_rules(&ours, &[Rule::Interrupted]);
    }
}
