// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! No plan deletes what something keeps, whatever the policies and whatever is in the registry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use stowage_oci::{Digest, Name, TagSelection, TagsWanted};

use super::tests::{DAY, NOW, digest, policy};
use super::*;
use crate::labels::Labels;

/// A few names, so that tags share digests and rules meet tags.
const TAGS: [&str; 15] = [
    "latest",
    "edge",
    "1.0.0",
    "v1.0.0",
    "1.1.0",
    "1.1.0-rc1",
    "2.0.0",
    "dev-1",
    "dev-2",
    "prod-1",
    "x",
    "y",
    // What cosign signed of what is called 0, of what is called 1, and of what is not here.
    "sha256-5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9.sig",
    "sha256-6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b.att",
    "sha256-d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35.sig",
];

fn selection() -> impl Strategy<Value = TagSelection> {
    let wanted = prop_oneof![
        Just(TagsWanted::All),
        Just(TagsWanted::Versions(">=1.0.0 <2".parse().unwrap())),
        Just(TagsWanted::Globs(vec!["*-1".parse().unwrap()])),
        Just(TagsWanted::Expressions(vec!["[a-z]+".parse().unwrap()])),
        (0..TAGS.len()).prop_map(|at| TagsWanted::Exactly([TAGS[at].parse().unwrap()].into())),
    ];
    let exclude = prop_oneof![Just(Vec::new()), Just(vec!["*rc*".parse().unwrap()])];
    (wanted, exclude).prop_map(|(wanted, exclude)| TagSelection { wanted, exclude })
}

fn span() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of((0_u64..400).prop_map(|days| Duration::from_hours(24 * days)))
}

fn most_recent() -> impl Strategy<Value = Option<MostRecent>> {
    let by = prop_oneof![Just(By::Pushed), Just(By::Pulled), Just(By::Version)];
    let groups = prop_oneof![Just(None), Just(Some("^([a-z]+)-".parse().unwrap()))];
    prop::option::of((1_usize..4, by, groups).prop_map(|(count, by, groups)| MostRecent {
        count,
        by,
        groups,
    }))
}

fn rule() -> impl Strategy<Value = Rule> {
    let promoted =
        prop::option::of(span().prop_map(|within| Promoted { to: vec!["prod/**".parse().unwrap()], within }));
    let labels = prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => Just(BTreeMap::from([("keep".to_owned(), "true".to_owned())])),
    ];
    (selection(), labels, span(), span(), promoted, most_recent()).prop_map(
        |(tags, labels, pushed_within, pulled_within, promoted, most_recent)| Rule {
            name: "r".to_owned(),
            tags,
            labels,
            pushed_within,
            pulled_within,
            promoted,
            most_recent,
        },
    )
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let one = (prop::collection::vec(rule(), 0..4), any::<bool>(), any::<bool>(), 0_u64..100);
    let one = one.prop_map(|(keep, suspended, enforces, age)| Policy {
        suspended,
        mode: if enforces { PolicyMode::Enforce } else { PolicyMode::DryRun },
        min_age: Duration::from_hours(24 * age),
        ..policy("p", keep)
    });
    prop::collection::vec(one, 1..4)
}

fn tags() -> impl Strategy<Value = Vec<Facts>> {
    let names = prop::sample::subsequence(TAGS.to_vec(), 0..=TAGS.len());
    names.prop_flat_map(|names| {
        let facts = names.into_iter().map(|name| {
            (0_u64..500, 0..4_u8, prop::option::of(500_u32..=1000)).prop_map(
                move |(pushed, content, pulled)| Facts {
                    tag: name.parse().unwrap(),
                    digest: digest(&content.to_string()),
                    pushed: NOW - pushed * DAY,
                    pulled,
                },
            )
        });
        facts.collect::<Vec<_>>()
    })
}

/// What is known beside policies and tags.
#[derive(Clone, Debug)]
struct World {
    policies: Vec<Policy>,
    tags: Vec<Facts>,
    gap: Option<u32>,
    promotions: Vec<Promotion>,
    pending: HashSet<Digest>,
    pinned: HashSet<Digest>,
    labels: HashMap<Digest, Labels>,
    subjects: HashSet<Digest>,
}

fn some_digests() -> impl Strategy<Value = HashSet<Digest>> {
    prop::collection::hash_set((0..4_u8).prop_map(|content| digest(&content.to_string())), 0..3)
}

fn labels() -> impl Strategy<Value = HashMap<Digest, Labels>> {
    let known = |value: &str| Labels::Known([("keep".to_owned(), value.to_owned())].into());
    let labels = prop_oneof![Just(known("true")), Just(known("no")), Just(Labels::Unknown)];
    prop::collection::hash_map((0..4_u8).prop_map(|content| digest(&content.to_string())), labels, 0..4)
}

fn world() -> impl Strategy<Value = World> {
    let promotion = (0..4_u8, any::<bool>(), 0_u64..400).prop_map(|(content, is_prod, ago)| Promotion {
        digest: digest(&content.to_string()),
        to: if is_prod { "prod/app" } else { "qa/app" }.parse().unwrap(),
        at: NOW - ago * DAY,
    });
    let parts = (
        policies(),
        tags(),
        prop::option::of(800_u32..=1000),
        prop::collection::vec(promotion, 0..4),
        some_digests(),
        some_digests(),
        labels(),
        some_digests(),
    );
    parts.prop_map(|(policies, tags, gap, promotions, pending, pinned, labels, subjects)| World {
        policies,
        tags,
        gap,
        promotions,
        pending,
        pinned,
        labels,
        subjects,
    })
}

impl World {
    fn judge(&self, policies: &[Policy]) -> Vec<Verdict> {
        let repository: Name = "team/app".parse().unwrap();
        let policies: Vec<&Policy> = policies.iter().collect();
        let immutable = [Immutable {
            repositories: vec!["**".parse().unwrap()],
            tags: TagSelection {
                wanted: TagsWanted::Exactly(["2.0.0".parse().unwrap()].into()),
                exclude: Vec::new(),
            },
            signature_tags: false,
        }];
        Plan {
            repository: &repository,
            policies: &policies,
            now: NOW,
            gap: self.gap,
            tags: &self.tags,
            promotions: &self.promotions,
            pending: &self.pending,
            pinned: &self.pinned,
            immutable: &immutable,
            subjects: &self.subjects,
            labels: &self.labels,
        }
        .judge()
    }

    fn unkept(&self, policies: &[Policy]) -> HashSet<&str> {
        let verdicts = self.judge(policies);
        let unkept = self.tags.iter().zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::Unkept);
        unkept.map(|(facts, _)| facts.tag.as_str()).collect()
    }
}

/// When a tag was used last: the end of the day on which it was pulled, or its push.
fn used(facts: &Facts) -> u64 {
    facts.pulled.map_or(facts.pushed, |day| facts.pushed.max((u64::from(day) + 1) * DAY))
}

/// The conditions of a rule, written down once more and otherwise: one tag at a time, without an order.
fn holds(world: &World, rule: &Rule, facts: &Facts) -> bool {
    let ago = |time: u64| Duration::from_millis(NOW.saturating_sub(time));
    let gap_is_young = |within| world.gap.is_some_and(|day| ago((u64::from(day) + 1) * DAY) < within);
    let is_promoted = |wanted: &Promoted| {
        let mut promotions = world.promotions.iter().filter(|promotion| promotion.digest == facts.digest);
        promotions.any(|promotion| {
            promotion.to.as_str().starts_with("prod/")
                && wanted.within.is_none_or(|within| ago(promotion.at) < within)
        })
    };
    let is_labelled = match world.labels.get(&facts.digest) {
        Some(Labels::Known(labels)) => {
            rule.labels.iter().all(|(name, value)| labels.contains(&(name.clone(), value.clone())))
        }
        Some(Labels::Unknown) | None => true,
    };
    rule.tags.takes(&facts.tag)
        && (rule.labels.is_empty() || is_labelled)
        && rule.pushed_within.is_none_or(|within| ago(facts.pushed) < within)
        && rule.pulled_within.is_none_or(|within| gap_is_young(within) || ago(used(facts)) < within)
        && rule.promoted.as_ref().is_none_or(is_promoted)
}

fn is_signature(facts: &Facts) -> bool {
    facts.tag.as_str().starts_with("sha256-")
}

/// How many of those that a rule is about come before a tag for sure, in its group; `None`: it is in none.
fn before(world: &World, rule: &Rule, recent: &MostRecent, facts: &Facts) -> Option<usize> {
    let group = |facts: &Facts| {
        if recent.groups.is_none() {
            return Some(String::new());
        }
        let (word, _) = facts.tag.as_str().split_once('-')?;
        (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase())).then(|| word.to_owned())
    };
    let own = group(facts)?;
    // What was pulled since the last gap was pulled last then for sure.
    let is_sure = |facts: &Facts| world.gap.is_none_or(|gap| facts.pulled.is_some_and(|day| day > gap));
    let rank = |facts: &Facts| match recent.by {
        By::Pushed => Some(facts.pushed),
        By::Pulled | By::Version => is_sure(facts).then(|| used(facts)),
    };
    let rivals = world.tags.iter().filter(|rival| {
        rival.tag != facts.tag
            && !is_signature(rival)
            && holds(world, rule, rival)
            && group(rival).as_ref() == Some(&own)
    });
    let own = rank(facts);
    let ahead = rivals.filter(|rival| rank(rival).is_some_and(|rank| own.is_none_or(|own| rank >= own)));
    Some(ahead.count())
}

proptest! {
    #[test]
    fn no_plan_deletes_what_is_among_the_most_recent(world in world()) {
        let unkept = world.unkept(&world.policies);
        for rule in world.policies.iter().flat_map(|policy| &policy.keep) {
            let Some(recent) = rule.most_recent.as_ref().filter(|recent| recent.by != By::Version) else { continue };
            for facts in world.tags.iter().filter(|facts| !is_signature(facts) && holds(&world, rule, facts)) {
                let is_kept = before(&world, rule, recent, facts).is_none_or(|before| before < recent.count);
                prop_assert!(!is_kept || !unkept.contains(facts.tag.as_str()), "{:?} by {:?}", facts, rule);
            }
        }
    }

    #[test]
    fn no_plan_deletes_what_a_rule_keeps(world in world()) {
        let unkept = world.unkept(&world.policies);
        let rules = world.policies.iter().flat_map(|policy| &policy.keep);
        for rule in rules.filter(|rule| rule.most_recent.is_none()) {
            for facts in world.tags.iter().filter(|facts| holds(&world, rule, facts)) {
                prop_assert!(!unkept.contains(facts.tag.as_str()), "{:?} by {:?}", facts, rule);
            }
        }
    }

    #[test]
    fn no_plan_deletes_the_newest_of_what_a_rule_is_about(world in world()) {
        let unkept = world.unkept(&world.policies);
        let newest = |rule: &&Rule| rule.most_recent.as_ref().is_some_and(|found| found.by == By::Pushed);
        for rule in world.policies.iter().flat_map(|policy| &policy.keep).filter(newest) {
            let met = world.tags.iter().filter(|facts| holds(&world, rule, facts));
            if let Some(latest) = met.filter(|facts| !is_signature(facts)).max_by_key(|facts| facts.pushed) {
                let rivals = world.tags.iter().filter(|facts| facts.pushed == latest.pushed).count();
                prop_assert!(rivals > 1 || !unkept.contains(latest.tag.as_str()), "{:?} by {:?}", latest, rule);
            }
        }
    }

    #[test]
    fn no_plan_deletes_what_is_guarded(world in world()) {
        let unkept = world.unkept(&world.policies);
        let oldest = world.policies.iter().map(|policy| policy.min_age).max().unwrap();
        for facts in &world.tags {
            let is_young = Duration::from_millis(NOW - facts.pushed) < oldest;
            let is_held = world.pending.contains(&facts.digest) || world.pinned.contains(&facts.digest);
            let signs = |subject: &Digest| facts.tag.as_str().starts_with(&format!("sha256-{}", subject.hex()));
            if is_young || is_held || world.subjects.iter().any(signs) || facts.tag.as_str() == "2.0.0" {
                prop_assert!(!unkept.contains(facts.tag.as_str()), "{:?}", facts);
            }
        }
    }

    #[test]
    fn another_policy_never_lets_more_be_deleted(world in world(), more in policies()) {
        let before = world.unkept(&world.policies);
        let all: Vec<Policy> = world.policies.iter().cloned().chain(more).collect();
        prop_assert!(world.unkept(&all).is_subset(&before));
    }

    #[test]
    fn a_tag_is_judged_by_itself_and_not_by_its_digest(world in world()) {
        // The same tags with digests of their own, and nothing that is known by digest.
        let apart = World {
            tags: world.tags.iter().map(|facts| Facts { digest: digest(facts.tag.as_str()), ..facts.clone() }).collect(),
            promotions: Vec::new(), pending: HashSet::new(), pinned: HashSet::new(), labels: HashMap::new(),
            ..world.clone()
        };
        let shared = World { tags: world.tags.clone(), ..apart.clone() };
        prop_assert_eq!(apart.judge(&apart.policies), shared.judge(&shared.policies));
    }

    #[test]
    fn no_breaker_lets_more_go_than_its_limits(evaluated in 0_u64..5000, found in 0_u64..5000, deletions in 1_u64..2000, percent in 1_u64..=100) {
        let found = found.min(evaluated);
        if (Limits { deletions, percent }).allow(evaluated, found).is_ok() {
            prop_assert!(found <= deletions);
            prop_assert!(found <= 10 || found * 100 <= percent * evaluated);
        }
    }
}
