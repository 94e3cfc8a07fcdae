// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the policies say of each tag of one repository.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stowage_oci::{Digest, Name, Tag, Version};

use super::{By, Immutable, MostRecent, Policy, Promoted, Rule};
use crate::labels::Labels;
use crate::signatures;

/// Milliseconds of a day.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// A tag, as far as rules look at it. Times are in milliseconds since 1970, by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The tag.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
    /// When its record was made.
    pub pushed: u64,
    /// The last day on which what it names was pulled, or a child of it; days since 1970.
    pub pulled: Option<u32>,
}

/// A promotion that took effect, from the repository that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// What was promoted.
    pub digest: Digest,
    /// Into which repository.
    pub to: Name,
    /// When.
    pub at: u64,
}

/// What becomes of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rule keeps it: by their places in the policies that match, and in that policy.
    Kept {
        /// Which policy.
        policy: u16,
        /// Which rule.
        rule: u16,
    },
    /// No rule keeps it, and it must not be deleted.
    Guarded(Guard),
    /// Nothing keeps it.
    Unkept,
}

/// Why a tag must not be deleted that no rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// It is younger than the largest `minAge`.
    TooYoung,
    /// It keeps its digest, and may not be deleted.
    Immutable,
    /// A promotion of it is under way.
    PromotionPending,
    /// A virtual repository pins it.
    Pinned,
    /// It is a signature, or the like, of what is here.
    SignatureOfLiveSubject,
    /// Something runs it.
    InUse,
}

impl Guard {
    /// The word in a plan.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooYoung => "TooYoung",
            Self::Immutable => "Immutable",
            Self::PromotionPending => "PromotionPending",
            Self::Pinned => "Pinned",
            Self::SignatureOfLiveSubject => "SignatureOfLiveSubject",
            Self::InUse => "InUse",
        }
    }
}

/// One repository under judgement.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Its name.
    pub repository: &'a Name,
    /// The policies that match it.
    pub policies: &'a [&'a Policy],
    /// The database's time, in milliseconds since 1970.
    pub now: u64,
    /// The newest day of which pulls may be missing, in days since 1970.
    pub gap: Option<u32>,
    /// Its tags.
    pub tags: &'a [Facts],
    /// Promotions from it that took effect.
    pub promotions: &'a [Promotion],
    /// Digests of unfinished promotions from it.
    pub pending: &'a HashSet<Digest>,
    /// Digests that virtual repositories pin in it.
    pub pinned: &'a HashSet<Digest>,
    /// Which tags may not be deleted, because they keep their digest.
    pub immutable: &'a [Immutable],
    /// Manifests that are live here, as far as tags of signatures are named after them.
    pub subjects: &'a HashSet<Digest>,
    /// What images say of themselves, where [`wants_labels`](Self::wants_labels). What is missing is unknown.
    pub labels: &'a HashMap<Digest, Labels>,
}

impl Plan<'_> {
    /// Digests whose labels decide something.
    #[must_use]
    pub fn wants_labels(&self) -> HashSet<Digest> {
        let rules =
            self.policies.iter().flat_map(|policy| &policy.keep).filter(|rule| !rule.labels.is_empty());
        let wanted =
            rules.flat_map(|rule| self.tags.iter().filter(|facts| self.meets_all_but_labels(rule, facts)));
        wanted.map(|facts| facts.digest).collect()
    }

    /// The verdict on each tag, in their order. Whether something runs a tag is not asked.
    #[must_use]
    pub fn judge(&self) -> Vec<Verdict> {
        let mut kept: Vec<Option<(u16, u16)>> = vec![None; self.tags.len()];
        for (policy, of) in (0..).zip(self.policies) {
            for (rule, keeps) in (0..).zip(&of.keep) {
                for at in self.kept_by(keeps) {
                    kept[at].get_or_insert((policy, rule));
                }
            }
        }
        let verdict = |(facts, kept): (&Facts, Option<(u16, u16)>)| match kept {
            Some((policy, rule)) => Verdict::Kept { policy, rule },
            None => self.guard(facts).map_or(Verdict::Unkept, Verdict::Guarded),
        };
        self.tags.iter().zip(kept).map(verdict).collect()
    }

    /// The places of the tags that a rule keeps.
    fn kept_by(&self, rule: &Rule) -> Vec<usize> {
        let meets = |facts: &Facts| self.meets_all_but_labels(rule, facts) && self.meets_labels(rule, facts);
        let met: Vec<usize> = (0..self.tags.len()).filter(|at| meets(&self.tags[*at])).collect();
        match &rule.most_recent {
            None => met,
            Some(most_recent) => self.most_recent(most_recent, met),
        }
    }

    fn meets_all_but_labels(&self, rule: &Rule, facts: &Facts) -> bool {
        rule.tags.takes(&facts.tag)
            && rule.pushed_within.is_none_or(|within| self.is_within(facts.pushed, within))
            && rule.pulled_within.is_none_or(|within| self.is_pulled_within(facts, within))
            && rule.promoted.as_ref().is_none_or(|promoted| self.is_promoted(facts, promoted))
    }

    /// What cannot be read has every label.
    fn meets_labels(&self, rule: &Rule, facts: &Facts) -> bool {
        self.labels.get(&facts.digest).is_none_or(|labels| labels.lacks(&rule.labels).is_none())
    }

    /// Whether `time` is less than `within` ago. A time to come is.
    fn is_within(&self, time: u64, within: Duration) -> bool {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.now.saturating_sub(time) < within
    }

    /// A day counts as its end. While pulls may be missing that would count, every tag counts as pulled.
    fn is_pulled_within(&self, facts: &Facts, within: Duration) -> bool {
        let doubtful = self.gap.is_some_and(|gap| self.is_within(end_of(gap), within));
        doubtful || self.is_within(last_use(facts), within)
    }

    fn is_promoted(&self, facts: &Facts, wanted: &Promoted) -> bool {
        self.promotions.iter().any(|promotion| {
            promotion.digest == facts.digest
                && wanted.to.iter().any(|glob| glob.matches(promotion.to.as_str()))
                && wanted.within.is_none_or(|within| self.is_within(promotion.at, within))
        })
    }

    /// Of the tags that a rule is about, the first of each group. Those of signatures take no place of an image: they
    /// stay as long as what they are about.
    fn most_recent(&self, wanted: &MostRecent, met: Vec<usize>) -> Vec<usize> {
        let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut kept = Vec::new();
        for at in met.into_iter().filter(|at| subject_of(&self.tags[*at].tag).is_none()) {
            let group = wanted.groups.as_ref().map_or(Some(""), |groups| groups.of(&self.tags[at].tag));
            match group {
                Some(group) => groups.entry(group).or_default().push(at),
                // A group of its own, of which it is the first.
                None => kept.push(at),
            }
        }
        for group in groups.into_values() {
            kept.extend(self.first_of(wanted, group));
        }
        kept
    }

    fn first_of(&self, wanted: &MostRecent, group: Vec<usize>) -> Vec<usize> {
        let facts = |at: &usize| &self.tags[*at];
        match wanted.by {
            By::Pushed => first(wanted.count, group, |at| (Reverse(facts(at).pushed), &facts(at).tag)),
            By::Version => {
                let versions = group
                    .into_iter()
                    .filter_map(|at| Some((Reverse(Version::of_tag(self.tags[at].tag.as_str())?), at)));
                let mut versions: Vec<_> = versions.collect();
                versions.sort_by(|(a, at), (b, other)| {
                    a.cmp(b).then_with(|| facts(at).tag.cmp(&facts(other).tag))
                });
                versions.into_iter().take(wanted.count).map(|(_, at)| at).collect()
            }
            By::Pulled => {
                // Those whose last pull is known to be younger than what is missing are first for sure. The others
                // may be in any order.
                let is_sure =
                    |at: &usize| self.gap.is_none_or(|gap| facts(at).pulled.is_some_and(|day| day > gap));
                let (sure, doubtful): (Vec<_>, Vec<_>) = group.into_iter().partition(is_sure);
                let rest = if sure.len() < wanted.count { doubtful } else { Vec::new() };
                let mut kept = first(wanted.count, sure, |at| (Reverse(last_use(facts(at))), &facts(at).tag));
                kept.extend(rest);
                kept
            }
        }
    }

    fn guard(&self, facts: &Facts) -> Option<Guard> {
        let young = self.policies.iter().map(|policy| policy.min_age).max().unwrap_or_default();
        let subject = subject_of(&facts.tag);
        if self.is_within(facts.pushed, young) {
            Some(Guard::TooYoung)
        } else if self.is_immutable(&facts.tag) {
            Some(Guard::Immutable)
        } else if self.pending.contains(&facts.digest) {
            Some(Guard::PromotionPending)
        } else if self.pinned.contains(&facts.digest) {
            Some(Guard::Pinned)
        } else if subject.is_some_and(|subject| self.subjects.contains(&subject)) {
            Some(Guard::SignatureOfLiveSubject)
        } else {
            None
        }
    }

    fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable.iter().any(|rule| {
            rule.repositories.iter().any(|glob| glob.matches(self.repository.as_str()))
                && (rule.signature_tags || subject_of(tag).is_none())
                && rule.tags.takes(tag)
        })
    }
}

/// The first `count` in the order of `key`.
fn first<K: Ord>(count: usize, mut places: Vec<usize>, key: impl Fn(&usize) -> K) -> Vec<usize> {
    places.sort_by_key(key);
    places.truncate(count);
    places
}

/// When it was pulled last, at the latest; what was never pulled: when it was pushed.
fn last_use(facts: &Facts) -> u64 {
    facts.pulled.map_or(facts.pushed, |day| end_of(day).max(facts.pushed))
}

/// The end of a day that is so many days after 1970 began.
fn end_of(day: u32) -> u64 {
    (u64::from(day) + 1) * DAY
}

/// What a tag such as `sha256-<hex>.sig` is about, if it is of a kind that is known.
#[must_use]
pub fn subject_of(tag: &Tag) -> Option<Digest> {
    let kind = tag.as_str().split_once('.').map(|(_, kind)| kind);
    let is_known = matches!(kind, None | Some("sig" | "att" | "sbom"));
    is_known.then(|| signatures::subject_of(tag)).flatten()
}
