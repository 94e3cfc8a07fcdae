// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What of a mirror's cache goes. Pure.
//!
//! What goes, goes as a family: a manifest that nothing lists, with all that it lists and all that is about it.
//! Guarantees: nothing goes of which a part is in use, promoted or pinned, or that a family which stays needs.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stowage_oci::{Digest, Name};

use crate::config::Eviction;
use crate::key::Day;
use crate::meta::CachedManifest;
use crate::usage::Usage;

/// A manifest that goes, by its repository and digest.
pub(super) type Evicted = (Name, Digest);

/// What nothing lists, with all that it brings.
struct Family {
    members: Vec<usize>,
    /// How many days ago any of it was pulled last, or stored if nobody pulled it; how long ago exactly it was stored.
    unused: (i32, Duration),
    age: Duration,
    stays: bool,
}

/// What goes of what is `cached`, in the order in which it may be deleted; `gap`: up to that day it is not known what
/// was pulled.
pub(super) fn plan(
    cached: &[CachedManifest],
    rules: &Eviction,
    usage: Option<&Usage>,
    gap: Option<Day>,
) -> Vec<Evicted> {
    let shape = Shape::of(cached);
    let protected: Vec<bool> = cached.iter().map(|manifest| is_protected(manifest, rules, usage)).collect();
    let mut families: Vec<Family> =
        shape.roots().map(|root| family(cached, &shape, &protected, root)).collect();
    families.sort_by_key(|family| Reverse(family.unused));
    let mut goes: Vec<bool> =
        families.iter().map(|family| !family.stays && is_over(family, rules, gap, cached)).collect();
    if let Some(most) = rules.max_size {
        shrink(cached, &families, &mut goes, most);
    }
    let needed: HashSet<usize> = families
        .iter()
        .zip(&goes)
        .filter(|(_, goes)| !**goes)
        .flat_map(|(family, _)| family.members.iter().copied())
        .collect();
    let (mut told, mut evicted) = (HashSet::new(), Vec::new());
    for (family, _) in families.iter().zip(&goes).filter(|(_, goes)| **goes) {
        for member in family.members.iter().filter(|member| !needed.contains(member)) {
            if let Some(manifest) = cached.get(*member).filter(|_| told.insert(*member)) {
                evicted.push((manifest.repository.clone(), manifest.digest));
            }
        }
    }
    evicted
}

/// Who lists whom, and what is about whom.
struct Shape {
    /// What each lists, and what is about it.
    below: Vec<Vec<usize>>,
    is_below: Vec<bool>,
}

impl Shape {
    fn of(cached: &[CachedManifest]) -> Self {
        let places: HashMap<(&Name, &Digest), usize> = cached
            .iter()
            .enumerate()
            .map(|(place, manifest)| ((&manifest.repository, &manifest.digest), place))
            .collect();
        let mut shape = Self { below: vec![Vec::new(); cached.len()], is_below: vec![false; cached.len()] };
        for (place, manifest) in cached.iter().enumerate() {
            let find = |digest| places.get(&(&manifest.repository, digest)).copied();
            for child in manifest.children.iter().filter_map(find) {
                shape.put_below(place, child);
            }
            if let Some(subject) = manifest.subject.as_ref().and_then(find) {
                shape.put_below(subject, place);
            }
        }
        shape
    }

    fn put_below(&mut self, above: usize, below: usize) {
        if let Some(all) = self.below.get_mut(above) {
            all.push(below);
        }
        if let Some(is_below) = self.is_below.get_mut(below) {
            *is_below = true;
        }
    }

    fn roots(&self) -> impl Iterator<Item = usize> {
        self.is_below.iter().enumerate().filter(|(_, is_below)| !**is_below).map(|(place, _)| place)
    }
}

/// All that a root brings, what lists before what is listed.
fn family(cached: &[CachedManifest], shape: &Shape, protected: &[bool], root: usize) -> Family {
    let (mut members, mut known, mut next) = (vec![root], HashSet::from([root]), 0);
    while let Some(place) = members.get(next).copied() {
        next += 1;
        let below = shape.below.get(place).into_iter().flatten().copied();
        members.extend(below.filter(|below| known.insert(*below)));
    }
    let all = || members.iter().filter_map(|place| cached.get(*place));
    let unused = |manifest: &CachedManifest| {
        let stored = i32::try_from(manifest.age.as_secs() / DAY).unwrap_or(i32::MAX);
        let pulled = manifest.pulled.map(|day| days_between(day, manifest.today));
        (pulled.unwrap_or(stored), manifest.age)
    };
    Family {
        unused: all().map(unused).min().unwrap_or_default(),
        age: all().map(|manifest| manifest.age).min().unwrap_or_default(),
        stays: members.iter().any(|place| protected.get(*place).copied().unwrap_or(true)),
        members,
    }
}

const DAY: u64 = 24 * 60 * 60;

fn days_between(earlier: Day, later: Day) -> i32 {
    later.days_since_1970() - earlier.days_since_1970()
}

fn is_protected(manifest: &CachedManifest, rules: &Eviction, usage: Option<&Usage>) -> bool {
    let is_run = usage.is_some_and(|usage| {
        let blobs = manifest.blobs.iter().map(|(digest, _)| digest);
        let mut tags = manifest.tags.iter().map(|tag| (manifest.repository.clone(), tag.clone()));
        // Some runtimes report the digest of the configuration.
        std::iter::once(&manifest.digest).chain(blobs).any(|digest| usage.digests.contains(digest))
            || tags.any(|name| usage.names.contains(&name))
    });
    is_run || manifest.is_promoted || rules.pinned.contains(&manifest.digest)
}

/// Whether its time is over. A day of a pull says nothing about the hour: it counts as the end of it.
fn is_over(family: &Family, rules: &Eviction, gap: Option<Day>, cached: &[CachedManifest]) -> bool {
    let days = |duration: Duration| i32::try_from(duration.as_secs() / DAY).unwrap_or(i32::MAX);
    let today = cached.first().map(|manifest| manifest.today);
    let is_unused = rules.unused_for.is_some_and(|limit| {
        let is_known = gap.zip(today).is_none_or(|(gap, today)| days_between(gap, today) > days(limit));
        is_known && family.unused.0 > days(limit) && family.age > limit
    });
    is_unused || rules.max_age.is_some_and(|limit| family.age > limit)
}

/// Lets the least recently used go until what stays takes no more than `most` bytes, each blob once.
fn shrink(cached: &[CachedManifest], families: &[Family], goes: &mut [bool], most: u64) {
    let mut holders: HashMap<&Digest, (u64, usize)> = HashMap::new();
    let blobs = |family: &Family| -> HashSet<(&Digest, u64)> {
        let members = family.members.iter().filter_map(|place| cached.get(*place));
        members.flat_map(|manifest| manifest.blobs.iter().map(|(digest, size)| (digest, *size))).collect()
    };
    for (family, _) in families.iter().zip(goes.iter()).filter(|(_, goes)| !**goes) {
        for (digest, size) in blobs(family) {
            // Hidden in one repository and shown in another.
            let held = holders.entry(digest).or_insert((size, 0));
            *held = (held.0.max(size), held.1 + 1);
        }
    }
    let mut total: u64 = holders.values().map(|(size, _)| size).sum();
    for (family, goes) in families.iter().zip(goes.iter_mut()) {
        if total <= most {
            return;
        }
        if *goes || family.stays {
            continue;
        }
        *goes = true;
        for (digest, _) in blobs(family) {
            if let Some((size, count)) = holders.get_mut(digest) {
                *count -= 1;
                total -= if *count == 0 { *size } else { 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;
    use crate::meta::ManifestId;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    const TODAY: i32 = 20_000;

    fn day(ago: i32) -> Day {
        Day::since_1970(TODAY - ago).unwrap()
    }

    /// Stored and pulled so many days ago, with a blob of ten bytes of its own.
    fn image(name: &str, stored: u64, pulled: Option<i32>) -> CachedManifest {
        CachedManifest {
            id: ManifestId(1),
            repository: "hub/app".parse().unwrap(),
            digest: digest(name),
            age: Duration::from_secs(stored * DAY + 60),
            pulled: pulled.map(day),
            today: day(0),
            is_promoted: false,
            subject: None,
            children: Vec::new(),
            tags: vec![name.parse().unwrap()],
            blobs: vec![(digest(&format!("blob of {name}")), 10)],
        }
    }

    fn rules() -> Eviction {
        Eviction {
            mirror: "hub".to_owned(),
            path: "hub".parse().unwrap(),
            unused_for: None,
            max_age: None,
            max_size: None,
            pinned: HashSet::new(),
        }
    }

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * DAY)
    }

    /// The names of what goes.
    fn goes(
        cached: &[CachedManifest],
        rules: &Eviction,
        usage: Option<&Usage>,
        gap: Option<Day>,
    ) -> Vec<String> {
        let evicted = plan(cached, rules, usage, gap);
        let name = |(_, digest): &Evicted| {
            let found = cached.iter().find(|manifest| manifest.digest == *digest).unwrap();
            found.tags[0].to_string()
        };
        evicted.iter().map(name).collect()
    }

    #[test]
    fn what_was_not_pulled_for_longer_goes_and_what_was_stored_since_stays() {
        let cached = [
            image("old", 90, Some(31)),
            image("used", 90, Some(30)),
            image("new", 30, None),
            image("never", 31, None),
        ];
        let rules = Eviction { unused_for: Some(days(30)), ..rules() };
        assert_eq!(goes(&cached, &rules, None, None), ["old", "never"]);
        assert_eq!(goes(&cached, &rules, None, Some(day(30))), [""; 0], "nobody knows who was pulled");
        assert_eq!(goes(&cached, &rules, None, Some(day(31))), ["old", "never"]);
    }

    #[test]
    fn what_is_older_goes_however_often_it_is_pulled() {
        let cached = [image("old", 180, Some(0)), image("young", 179, None)];
        assert_eq!(goes(&cached, &Eviction { max_age: Some(days(180)), ..rules() }, None, None), ["old"]);
        assert_eq!(goes(&cached, &rules(), None, None), [""; 0]);
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits_and_not_one_more() {
        let mut cached =
            [image("a", 9, Some(3)), image("b", 9, Some(1)), image("c", 9, Some(2)), image("d", 9, None)];
        let most = |bytes| Eviction { max_size: Some(bytes), ..rules() };
        assert_eq!(goes(&cached, &most(40), None, None), [""; 0]);
        assert_eq!(goes(&cached, &most(39), None, None), ["d"]);
        assert_eq!(goes(&cached, &most(11), None, None), ["d", "a", "c"]);
        // A blob that another image has, too, takes room as long as one of them stays.
        let shared = cached[1].blobs[0];
        cached[3].blobs = vec![shared];
        assert_eq!(goes(&cached, &most(20), None, None), ["d", "a"]);
        assert_eq!(goes(&cached, &most(0), None, None).len(), 4);
    }

    #[test]
    fn what_is_in_use_promoted_or_pinned_stays_with_all_above_and_below() {
        let mut index = image("index", 90, None);
        index.children = vec![digest("child"), digest("sparse")];
        let mut signature = image("signature", 90, None);
        signature.subject = Some(digest("child"));
        let mut cached = vec![index, image("child", 90, None), signature, image("other", 90, None)];
        let rules =
            Eviction { unused_for: Some(days(1)), max_age: Some(days(1)), max_size: Some(0), ..rules() };
        assert_eq!(goes(&cached, &rules, None, None).len(), 4);
        let digests = |text: &str| Usage { digests: [digest(text)].into(), ..Usage::default() };
        for usage in [
            digests("index"),
            digests("child"),
            digests("signature"),
            digests("blob of child"),
            Usage {
                names: [("hub/app".parse().unwrap(), "child".parse().unwrap())].into(),
                ..Usage::default()
            },
        ] {
            assert_eq!(goes(&cached, &rules, Some(&usage), None), ["other"], "{usage:?}");
        }
        let pinned = Eviction { pinned: [digest("child")].into(), ..rules.clone() };
        assert_eq!(goes(&cached, &pinned, None, None), ["other"]);
        cached[1].is_promoted = true;
        assert_eq!(goes(&cached, &rules, None, None), ["other"]);
    }

    #[test]
    fn a_pull_of_a_child_counts_for_its_index_and_a_child_of_two_stays_with_one() {
        let mut indexes = [image("one", 90, None), image("two", 90, Some(2))];
        for index in &mut indexes {
            index.children = vec![digest("shared")];
        }
        indexes[0].children.push(digest("alone"));
        let [one, two] = indexes;
        let rules = Eviction { unused_for: Some(days(30)), ..rules() };
        let cached = [image("alone", 90, None), one.clone(), two.clone(), image("shared", 90, None)];
        assert_eq!(goes(&cached, &rules, None, None), ["one", "alone"], "what lists comes first");
        let cached = [image("alone", 90, Some(2)), one, two, image("shared", 90, None)];
        assert_eq!(goes(&cached, &rules, None, None), [""; 0]);
    }
}
