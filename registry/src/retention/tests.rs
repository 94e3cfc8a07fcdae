// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use stowage_oci::{Algorithm, Digest, Name, TagSelection, TagsWanted};

use super::*;
use crate::labels::Labels;

/// Milliseconds of a day.
pub(super) const DAY: u64 = 24 * 60 * 60 * 1000;
/// Day 1000 since 1970, at noon.
pub(super) const NOW: u64 = 1000 * DAY + DAY / 2;

pub(super) fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

pub(super) fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

/// A tag that was pushed so many days ago, and names what is called as it is.
pub(super) fn tag(name: &str, pushed: u64) -> Facts {
    Facts { tag: name.parse().unwrap(), digest: digest(name), pushed: NOW - pushed * DAY, pulled: None }
}

pub(super) fn policy(name: &str, keep: Vec<Rule>) -> Policy {
    Policy {
        name: name.to_owned(),
        include: vec!["**".parse().unwrap()],
        exclude: Vec::new(),
        mode: PolicyMode::Enforce,
        suspended: false,
        keep,
        min_age: Duration::ZERO,
        untagged: None,
        referrers: Referrers::FollowSubject,
        limits: Limits { deletions: 1000, percent: 20 },
        hash: digest(name),
    }
}

fn rule() -> Rule {
    Rule { name: "r".to_owned(), ..Rule::default() }
}

/// What is known beside the tags.
#[derive(Default)]
struct Beside {
    gap: Option<u32>,
    promotions: Vec<Promotion>,
    pending: HashSet<Digest>,
    pinned: HashSet<Digest>,
    immutable: Vec<Immutable>,
    subjects: HashSet<Digest>,
    labels: HashMap<Digest, Labels>,
}

impl Beside {
    fn judge(&self, policies: &[Policy], tags: &[Facts]) -> Vec<Verdict> {
        let repository: Name = "team/app".parse().unwrap();
        let policies: Vec<&Policy> = policies.iter().collect();
        let plan = Plan {
            repository: &repository,
            policies: &policies,
            now: NOW,
            gap: self.gap,
            tags,
            promotions: &self.promotions,
            pending: &self.pending,
            pinned: &self.pinned,
            immutable: &self.immutable,
            subjects: &self.subjects,
            labels: &self.labels,
        };
        plan.judge()
    }

    /// The tags that one rule keeps, in their order.
    fn kept(&self, rule: Rule, tags: &[Facts]) -> String {
        let verdicts = self.judge(&[policy("p", vec![rule])], tags);
        let kept = tags.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Kept { .. }));
        kept.map(|(facts, _)| facts.tag.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn guards(&self, tags: &[Facts]) -> Vec<Option<Guard>> {
        let guard = |verdict| match verdict {
            Verdict::Guarded(guard) => Some(guard),
            Verdict::Kept { .. } | Verdict::Unkept => None,
        };
        self.judge(&[policy("p", Vec::new())], tags).into_iter().map(guard).collect()
    }
}

#[test]
fn p12_tags_are_kept_by_name_pattern_expression_and_version() {
    let tags = ["1.0.0", "1.1.0-rc1", "2.0.0", "edge", "latest"].map(|name| tag(name, 100));
    let kept = |wanted| {
        Beside::default().kept(Rule { tags: TagSelection { wanted, exclude: Vec::new() }, ..rule() }, &tags)
    };
    assert_eq!(kept(TagsWanted::All), "1.0.0 1.1.0-rc1 2.0.0 edge latest");
    assert_eq!(kept(TagsWanted::Exactly(["latest".parse().unwrap()].into())), "latest");
    assert_eq!(kept(TagsWanted::Globs(vec!["?.*".parse().unwrap()])), "1.0.0 1.1.0-rc1 2.0.0");
    assert_eq!(kept(TagsWanted::Expressions(vec!["[a-z]+".parse().unwrap()])), "edge latest");
    assert_eq!(kept(TagsWanted::Versions(">=1.0.0".parse().unwrap())), "1.0.0 2.0.0");
    assert_eq!(kept(TagsWanted::Versions(">=1.0.0-0".parse().unwrap())), "1.0.0 1.1.0-rc1 2.0.0");
}

#[test]
fn p12_what_was_pushed_within_a_span_is_kept() {
    let tags = [tag("new", 1), tag("edge", 30), tag("old", 31)];
    let within = Rule { pushed_within: Some(days(30)), ..rule() };
    assert_eq!(Beside::default().kept(within, &tags), "new", "thirty days ago is not within thirty days");
}

#[test]
fn p12_what_was_pulled_within_a_span_is_kept_and_what_was_never_pulled_counts_from_its_push() {
    let pulled = |name, pushed, day| Facts { pulled: day, ..tag(name, pushed) };
    let tags = [
        pulled("fresh", 500, Some(999)),
        pulled("lately", 500, Some(910)),
        pulled("long-ago", 500, Some(909)),
        pulled("never", 89, None),
        pulled("never-ever", 91, None),
    ];
    let within = || Rule { pulled_within: Some(days(90)), ..rule() };
    assert_eq!(Beside::default().kept(within(), &tags), "fresh lately never");
}

#[test]
fn l51_a_gap_in_the_record_of_pulls_keeps_everything_while_it_is_young() {
    let tags = [Facts { pulled: Some(1), ..tag("old", 900) }];
    let kept = |gap| {
        Beside { gap, ..Beside::default() }.kept(Rule { pulled_within: Some(days(90)), ..rule() }, &tags)
    };
    assert_eq!((kept(None), kept(Some(910)), kept(Some(909))), (String::new(), "old".into(), String::new()));
}

#[test]
fn p12_what_was_promoted_is_kept_for_ever_or_for_a_span() {
    let tags = [tag("promoted", 300), tag("elsewhere", 300), tag("not", 300)];
    let promotion = |name: &str, to: &str| Promotion {
        digest: digest(name),
        to: to.parse().unwrap(),
        at: NOW - 100 * DAY,
    };
    let promotions = vec![promotion("promoted", "prod/app"), promotion("elsewhere", "qa/app")];
    let beside = Beside { promotions, ..Beside::default() };
    let promoted =
        |within| Rule { promoted: Some(Promoted { to: vec!["prod/**".parse().unwrap()], within }), ..rule() };
    assert_eq!(beside.kept(promoted(None), &tags), "promoted");
    assert_eq!(beside.kept(promoted(Some(days(101))), &tags), "promoted");
    assert_eq!(beside.kept(promoted(Some(days(100))), &tags), "");
}

#[test]
fn h8_what_was_never_promoted_and_is_older_than_its_grace_goes() {
    let tags = [tag("promoted", 300), tag("fresh", 13), tag("stale", 15)];
    let promotions = vec![Promotion { digest: digest("promoted"), to: "prod/app".parse().unwrap(), at: NOW }];
    let keep = vec![
        Rule { promoted: Some(Promoted { to: vec!["prod/**".parse().unwrap()], within: None }), ..rule() },
        Rule { pushed_within: Some(days(14)), ..rule() },
    ];
    let verdicts = Beside { promotions, ..Beside::default() }.judge(&[policy("p", keep)], &tags);
    let kept = |rule| Verdict::Kept { policy: 0, rule };
    assert_eq!(verdicts, [kept(0), kept(1), Verdict::Unkept]);
}

#[test]
fn p12_labels_keep_and_so_do_labels_that_cannot_be_read() {
    let tags = ["held", "free", "broken", "unread"].map(|name| tag(name, 100));
    let known = |value: &str| Labels::Known([("keep".to_owned(), value.to_owned())].into());
    let labels = [("held", known("true")), ("free", known("false")), ("broken", Labels::Unknown)];
    let labels = labels.into_iter().map(|(name, labels)| (digest(name), labels)).collect();
    let held = Rule { labels: BTreeMap::from([("keep".to_owned(), "true".to_owned())]), ..rule() };
    assert_eq!(Beside { labels, ..Beside::default() }.kept(held, &tags), "held broken unread");
}

#[test]
fn labels_are_wanted_only_where_they_decide() {
    let (old, new) = (tag("old", 100), tag("new", 1));
    let held = Rule {
        labels: BTreeMap::from([("keep".to_owned(), "true".to_owned())]),
        pushed_within: Some(days(30)),
        ..rule()
    };
    let (repository, own) = ("a".parse().unwrap(), policy("p", vec![held, rule()]));
    let (none, labels) = (HashSet::new(), HashMap::new());
    let plan = Plan {
        repository: &repository,
        policies: &[&own],
        now: NOW,
        gap: None,
        tags: &[old, new.clone()],
        promotions: &[],
        pending: &none,
        pinned: &none,
        immutable: &[],
        subjects: &none,
        labels: &labels,
    };
    assert_eq!(plan.wants_labels(), HashSet::from([new.digest]));
}

#[test]
fn p12_the_most_recent_are_those_pushed_or_pulled_last_or_with_the_highest_versions() {
    let pulled = |name, pushed, day| Facts { pulled: day, ..tag(name, pushed) };
    let tags = [
        pulled("1.0.0", 10, Some(999)),
        pulled("1.10.0", 30, Some(998)),
        pulled("1.9.0", 20, None),
        pulled("latest", 5, Some(997)),
    ];
    let first = |by| Rule { most_recent: Some(MostRecent { count: 2, by, groups: None }), ..rule() };
    let beside = Beside::default();
    assert_eq!(beside.kept(first(By::Pushed), &tags), "1.0.0 latest");
    assert_eq!(beside.kept(first(By::Pulled), &tags), "1.0.0 1.10.0");
    assert_eq!(beside.kept(first(By::Version), &tags), "1.10.0 1.9.0", "what is no version is not counted");
    let gap = Beside { gap: Some(997), ..Beside::default() };
    assert_eq!(gap.kept(first(By::Pulled), &tags), "1.0.0 1.10.0", "these are first for sure");
    let gap = Beside { gap: Some(998), ..Beside::default() };
    assert_eq!(
        gap.kept(first(By::Pulled), &tags),
        "1.0.0 1.10.0 1.9.0 latest",
        "the order of the others is not known"
    );
}

#[test]
fn l50_the_most_recent_are_counted_by_group() {
    let tags = [tag("dev-1", 9), tag("dev-2", 8), tag("dev-3", 7), tag("prod-1", 90), tag("other", 99)];
    let groups = Some("^([a-z]+)-".parse().unwrap());
    let newest = Rule { most_recent: Some(MostRecent { count: 2, by: By::Pushed, groups }), ..rule() };
    assert_eq!(
        Beside::default().kept(newest, &tags),
        "dev-2 dev-3 prod-1 other",
        "what is in no group is by itself"
    );
}

#[test]
fn l50_signatures_take_no_place_of_an_image() {
    let signature = format!("sha256-{}.sig", digest("a").hex());
    let tags = [tag("c", 1), tag(&signature, 2), tag("b", 3), tag("a", 4)];
    for by in [By::Pushed, By::Pulled] {
        let newest = Rule { most_recent: Some(MostRecent { count: 2, by, groups: None }), ..rule() };
        assert_eq!(Beside::default().kept(newest, &tags), "c b");
    }
}

#[test]
fn the_most_recent_are_of_those_that_the_other_conditions_hold_for() {
    let tags = [tag("a-1", 1), tag("b-1", 2), tag("a-2", 3)];
    let wanted = TagsWanted::Globs(vec!["a-*".parse().unwrap()]);
    let newest = Rule {
        tags: TagSelection { wanted, exclude: Vec::new() },
        most_recent: Some(MostRecent { count: 2, by: By::Pushed, groups: None }),
        ..rule()
    };
    assert_eq!(Beside::default().kept(newest, &tags), "a-1 a-2");
}

#[test]
fn conditions_of_a_rule_hold_together_and_rules_by_themselves() {
    let tags = [tag("a", 1), tag("b", 50), tag("c", 99)];
    let exactly = |names: &[&str]| TagSelection {
        wanted: TagsWanted::Exactly(names.iter().map(|name| name.parse().unwrap()).collect()),
        exclude: Vec::new(),
    };
    let both = Rule { tags: exactly(&["a", "b"]), pushed_within: Some(days(30)), ..rule() };
    assert_eq!(Beside::default().kept(both.clone(), &tags), "a");
    let one = Rule { tags: exactly(&["c"]), ..rule() };
    let verdicts = Beside::default().judge(&[policy("p", vec![both, one])], &tags);
    assert_eq!(verdicts[1], Verdict::Unkept);
    assert_eq!(verdicts[2], Verdict::Kept { policy: 0, rule: 1 });
}

#[test]
fn a_rule_of_any_policy_keeps_also_of_one_that_is_suspended_or_only_told() {
    let tags = [tag("a", 99)];
    for keeper in [
        Policy { suspended: true, ..policy("keeper", vec![rule()]) },
        Policy { mode: PolicyMode::DryRun, ..policy("keeper", vec![rule()]) },
    ] {
        let verdicts = Beside::default().judge(&[policy("deleter", Vec::new()), keeper], &tags);
        assert_eq!(verdicts, [Verdict::Kept { policy: 1, rule: 0 }]);
    }
}

#[test]
fn p12_nothing_younger_than_the_largest_minimum_age_goes() {
    let tags = [tag("young", 4), tag("old", 6)];
    let aged = |name, age| Policy { min_age: days(age), ..policy(name, Vec::new()) };
    let verdicts = Beside::default().judge(&[aged("a", 3), aged("b", 5)], &tags);
    assert_eq!(verdicts, [Verdict::Guarded(Guard::TooYoung), Verdict::Unkept]);
}

#[test]
fn what_is_immutable_pinned_or_about_to_be_promoted_is_guarded() {
    let tags = ["1.0.0", "pinned", "pending", "free"].map(|name| tag(name, 99));
    let beside = Beside {
        pinned: [digest("pinned")].into(),
        pending: [digest("pending")].into(),
        immutable: vec![Immutable {
            repositories: vec!["team/*".parse().unwrap()],
            tags: TagSelection { wanted: TagsWanted::Versions("*".parse().unwrap()), exclude: Vec::new() },
            signature_tags: false,
        }],
        ..Beside::default()
    };
    let guards = [Some(Guard::Immutable), Some(Guard::Pinned), Some(Guard::PromotionPending), None];
    assert_eq!(beside.guards(&tags), guards);
}

#[test]
fn a_signature_stays_while_its_subject_is_here() {
    let here = digest("here");
    let gone = digest("gone");
    let names = [&here, &gone].map(|digest| format!("sha256-{}", digest.hex()));
    let tags: Vec<Facts> = [".sig", ".att", ".sbom", "", ".txt"]
        .iter()
        .flat_map(|suffix| names.iter().map(move |name| tag(&format!("{name}{suffix}"), 99)))
        .collect();
    let beside = Beside { subjects: [here].into(), ..Beside::default() };
    let signature = Some(Guard::SignatureOfLiveSubject);
    let expected = [signature, None].repeat(4);
    assert_eq!(beside.guards(&tags), [expected, vec![None, None]].concat());
}

#[test]
fn l48_the_breaker_opens_by_number_and_by_part_but_not_for_a_few() {
    let limits = Limits { deletions: 100, percent: 20 };
    for (evaluated, found, allowed) in [
        (10, 10, true),
        (11, 11, false),
        (50, 11, false),
        (55, 11, true),
        (1000, 100, true),
        (1000, 101, false),
        (0, 0, true),
    ] {
        assert_eq!(limits.allow(evaluated, found).is_ok(), allowed, "{found} of {evaluated}");
    }
    assert!(matches!(limits.allow(1000, 101), Err(TooMany::Tags { found: 101, allowed: 100 })));
}

#[test]
fn rules_are_others_when_a_policy_comes_goes_or_changes() {
    let (own, other) = (policy("own", Vec::new()), policy("other", Vec::new()));
    let rules = |policies: &[&Policy]| {
        let mut involved = Involved::by(&own);
        involved.add(policies);
        involved.rules()
    };
    let changed = Policy { hash: digest("changed"), ..other.clone() };
    assert_eq!(rules(&[&own]), rules(&[]));
    assert_eq!(rules(&[&own, &other]), rules(&[&other]));
    assert_ne!(rules(&[&other]), rules(&[]));
    assert_ne!(rules(&[&other]), rules(&[&changed]));
    let mut involved = Involved::by(&own);
    involved.add(&[&other, &own]);
    assert_eq!(involved.others(), ["other"]);
}

/// Counted, as time depends on who else is busy: N3 measures it with `--release`.
#[test]
fn n3_a_plan_of_many_tags_asks_each_repository_once_and_keeps_none_of_them() {
    let globs = |text: &str| TagSelection {
        wanted: TagsWanted::Globs(vec![text.parse().unwrap()]),
        exclude: Vec::new(),
    };
    let keep = vec![
        Rule { tags: globs("latest"), ..rule() },
        Rule {
            tags: TagSelection {
                wanted: TagsWanted::Versions(">=1.0.0".parse().unwrap()),
                exclude: Vec::new(),
            },
            most_recent: Some(MostRecent {
                count: 20,
                by: By::Version,
                groups: Some("^v?([0-9]+)".parse().unwrap()),
            }),
            ..rule()
        },
        Rule { pushed_within: Some(days(30)), ..rule() },
        Rule { pulled_within: Some(days(90)), ..rule() },
    ];
    let scale: u64 = std::env::var("STOWAGE_PLAN_REPOSITORIES").map_or(100, |text| text.parse().unwrap());
    let tags: Vec<Facts> = (0..100).map(|at| tag(&format!("{}.{at}.0", at % 5), 1 + at * 3)).collect();
    let policies = [policy("p", keep)];
    let (mut tally, begun) = (Tally::default(), std::time::Instant::now());
    for _ in 0..scale {
        for verdict in Beside::default().judge(&policies, &tags) {
            tally.add(verdict);
        }
    }
    println!("{} tags in {:?}", tally.evaluated, begun.elapsed());
    assert_eq!(tally.evaluated, 100 * scale);
    assert_eq!(tally.kept + tally.guarded + tally.unkept, tally.evaluated);
    assert!(tally.kept > 0 && tally.unkept > 0, "{tally:?}");
}
