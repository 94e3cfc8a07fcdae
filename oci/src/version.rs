// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Versions in tags, and ranges of them.
//!
//! A tag is read leniently: one leading `v` is dropped, `_` stands for `+`, which tags cannot have, and missing parts
//! are 0. Ranges have the grammar of npm: `>=3.20 <4`, `^1.2`, `~1.4.2`, `1.x`, `1.2 - 1.4`, and `||` between them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A version (semver 2.0.0). Two that differ in build metadata alone are equal.
#[derive(Clone, Debug)]
pub struct Version {
    core: [u64; 3],
    pre: Vec<Identifier>,
}

/// One part of what says that a version is a pre-release. Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

/// A set of versions. A pre-release is in it only if a bound beside it names one: `>=1.0.0-0`.
#[derive(Clone, Debug)]
pub struct VersionRange {
    text: String,
    sets: Vec<Comparators>,
}

/// Bounds that hold together.
#[derive(Clone, Debug, Default)]
struct Comparators {
    bounds: Vec<Bound>,
    takes_pre_releases: bool,
}

#[derive(Clone, Debug)]
enum Bound {
    AtLeast(Version),
    Below(Version),
    Above(Version),
    AtMost(Version),
    Exactly(Version),
    Nothing,
}

/// The text is not a range of versions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a range of versions: {0:?}; write it as npm does: \">=3.20 <4\", \"^1.2\", \"~1.4.2 || 2.x\"")]
pub struct RangeError(String);

impl Version {
    /// The version that a tag is; `None` if it is none.
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Self> {
        let text = tag.strip_prefix('v').unwrap_or(tag).replace('_', "+");
        let (text, build) =
            text.split_once('+').map_or((text.as_str(), None), |(text, build)| (text, Some(build)));
        let is_word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if build.is_some_and(|build| !build.split(['.', '+']).all(is_word)) {
            return None;
        }
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let mut core = [0; 3];
        let mut parts = numbers.split('.');
        for (place, part) in core.iter_mut().zip(parts.by_ref()) {
            *place = number(part)?;
        }
        let is_whole = parts.next().is_none();
        let pre = pre.map_or(Some(Vec::new()), identifiers)?;
        is_whole.then_some(Self { core, pre })
    }

    fn new(core: [u64; 3]) -> Self {
        Self { core, pre: Vec::new() }
    }

    /// The lowest version of all with this core: what `<2` ends before, so that no pre-release of 2 is below 2.
    fn lowest(core: [u64; 3]) -> Self {
        Self { core, pre: vec![Identifier::Number(0)] }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        self.core.cmp(&other.core).then(by_pre)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn identifiers(text: &str) -> Option<Vec<Identifier>> {
    let identifier = |part: &str| {
        let is_legal = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        is_legal.then(|| number(part).map_or_else(|| Identifier::Word(part.to_owned()), Identifier::Number))
    };
    text.split('.').map(identifier).collect()
}

impl VersionRange {
    /// The longest range, in characters.
    pub const MAX: usize = 128;

    /// Whether the version is in it.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.sets.iter().any(|set| set.contains(version))
    }

    /// The range as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Comparators {
    fn contains(&self, version: &Version) -> bool {
        let may_be = version.pre.is_empty() || self.takes_pre_releases;
        may_be
            && self.bounds.iter().all(|bound| match bound {
                Bound::AtLeast(least) => version >= least,
                Bound::Below(end) => version < end,
                Bound::Above(start) => version > start,
                Bound::AtMost(most) => version <= most,
                Bound::Exactly(only) => version == only,
                Bound::Nothing => false,
            })
    }

    fn add(&mut self, (operator, partial): (&str, &Partial)) -> Option<()> {
        self.takes_pre_releases |= !partial.pre.is_empty();
        self.bounds.extend(bounds(operator, partial)?);
        Some(())
    }
}

/// A version of which parts may be missing.
struct Partial {
    core: Vec<u64>,
    pre: Vec<Identifier>,
}

impl Partial {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let parts: Vec<&str> = numbers.split('.').collect();
        let given = parts.iter().take_while(|part| !is_any(part)).count();
        let (given, rest) = parts.split_at(given);
        let core: Vec<u64> = given.iter().map(|part| number(part)).collect::<Option<_>>()?;
        let pre = pre.map_or(Some(Vec::new()), identifiers)?;
        let is_legal = parts.len() <= 3 && rest.iter().all(is_any) && (pre.is_empty() || core.len() == 3);
        is_legal.then_some(Self { core, pre })
    }

    /// The lowest version that it may stand for.
    fn start(&self) -> Version {
        let part = |at: usize| self.core.get(at).copied().unwrap_or(0);
        Version { core: [part(0), part(1), part(2)], pre: self.pre.clone() }
    }

    /// The end of what begins with its first `parts` parts.
    fn end_after(&self, parts: usize) -> Option<[u64; 3]> {
        let mut end = [0; 3];
        for (place, part) in end.iter_mut().zip(self.core.iter().take(parts)) {
            *place = *part;
        }
        let last = end.get_mut(parts.checked_sub(1)?)?;
        *last = last.checked_add(1)?;
        Some(end)
    }

    /// The first part that `^` holds on to.
    fn significant(&self) -> usize {
        let first = self.core.iter().position(|part| *part != 0);
        first.map_or(self.core.len(), |at| at + 1)
    }
}

fn is_any(part: &&str) -> bool {
    matches!(*part, "x" | "X" | "*")
}

/// What `operator` before `partial` means; `None` where it means nothing that anybody can have.
fn bounds(operator: &str, partial: &Partial) -> Option<Vec<Bound>> {
    let given = partial.core.len();
    let start = || partial.start();
    let end = |parts| partial.end_after(parts);
    Some(match (operator, given) {
        ("" | "=" | "~" | "~>" | "^" | ">=" | "<=", 0) => Vec::new(),
        (">" | "<", 0) => vec![Bound::Nothing],
        ("" | "=", 3) => vec![Bound::Exactly(start())],
        ("" | "=", _) => vec![Bound::AtLeast(start()), Bound::Below(Version::lowest(end(given)?))],
        (">", 3) => vec![Bound::Above(start())],
        (">", _) => vec![Bound::AtLeast(Version::new(end(given)?))],
        (">=", _) => vec![Bound::AtLeast(start())],
        ("<", 3) => vec![Bound::Below(start())],
        ("<", _) => vec![Bound::Below(Version::lowest(start().core))],
        ("<=", 3) => vec![Bound::AtMost(start())],
        ("<=", _) => vec![Bound::Below(Version::lowest(end(given)?))],
        ("~" | "~>", _) => {
            vec![Bound::AtLeast(start()), Bound::Below(Version::lowest(end(given.min(2))?))]
        }
        ("^", _) => {
            vec![Bound::AtLeast(start()), Bound::Below(Version::lowest(end(partial.significant())?))]
        }
        _ => return None,
    })
}

fn comparators(text: &str) -> Option<Comparators> {
    let mut set = Comparators::default();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let operator = word.bytes().take_while(|byte| b"<>=~^".contains(byte)).count();
        let (operator, version) = word.split_at(operator);
        // `>= 1.2` is `>=1.2`.
        let version = if version.is_empty() { words.next()? } else { version };
        let partial = Partial::parse(version)?;
        if operator.is_empty() && words.next_if_eq(&"-").is_some() {
            let last = Partial::parse(words.next()?)?;
            set.add((">=", &partial))?;
            set.add(("<=", &last))?;
        } else {
            set.add((operator, &partial))?;
        }
    }
    Some(set)
}

impl FromStr for VersionRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let refused = || RangeError(text.to_owned());
        if text.trim().is_empty() || text.len() > Self::MAX {
            return Err(refused());
        }
        let sets: Option<Vec<_>> = text.split("||").map(comparators).collect();
        Ok(Self { text: text.to_owned(), sets: sets.ok_or_else(refused)? })
    }
}

impl PartialEq for VersionRange {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for VersionRange {}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, tag: &str) -> bool {
        let range = range.parse::<VersionRange>().unwrap();
        Version::of_tag(tag).is_some_and(|version| range.contains(&version))
    }

    #[test]
    fn a_tag_is_a_version_with_a_v_an_underscore_and_missing_parts() {
        let version = |tag: &str| Version::of_tag(tag).unwrap();
        for (tag, same) in
            [("v3.20", "3.20.0"), ("3", "3.0.0"), ("1.2.3_build.7", "1.2.3"), ("22.04", "22.4.0")]
        {
            assert_eq!(version(tag), version(same), "{tag}");
        }
        for none in ["latest", "vv1", "1.2.3.4", "1.", "1.2.3-", "1.2.3_", "sha256-abc", "1.2.x", "v"] {
            assert!(Version::of_tag(none).is_none(), "{none}");
        }
    }

    #[test]
    fn the_order_is_that_of_semver() {
        let order = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
        ];
        for pair in order.windows(2) {
            assert!(Version::of_tag(pair[0]) < Version::of_tag(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn the_forms_of_npm_are_read() {
        for (range, inside, outside) in [
            (">=3.20 <4", "3.20 v3.20.3 3.99", "3.19.9 4 4.0.0-rc1"),
            ("^1.2.3", "1.2.3 1.9", "1.2.2 2 2.0.0-0"),
            ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
            ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
            ("^0.0", "0.0.0 0.0.9", "0.1.0"),
            ("^0", "0.9", "1"),
            ("~1.2.3", "1.2.3 1.2.9", "1.3.0"),
            ("~1.2", "1.2 1.2.9", "1.3"),
            ("~>1", "1.9", "2"),
            ("1.2 - 1.4", "1.2.0 1.4.9", "1.1.9 1.5.0"),
            ("1.2.3 - 2.0.0", "1.2.3 2", "2.0.1"),
            ("1.x || >=2.5.0", "1.0 1.9 2.5 9", "2.4 0.9"),
            ("> 1.2", "1.3.0", "1.2.9"),
            ("<=1.2", "1.2.9", "1.3.0"),
            ("*", "0 99.1", "latest 1.0.0-rc1"),
            ("=1.2.3", "1.2.3 v1.2.3", "1.2.4"),
        ] {
            inside.split(' ').for_each(|tag| assert!(contains(range, tag), "{range} has {tag}"));
            outside.split(' ').for_each(|tag| assert!(!contains(range, tag), "{range} has not {tag}"));
        }
    }

    #[test]
    fn a_pre_release_is_in_a_range_that_names_one() {
        assert!(!contains(">=1.0.0", "1.1.0-rc.1"));
        assert!(contains(">=1.0.0-0", "1.0.0-rc.1") && contains(">=1.0.0-0", "2.1.0-rc.1"));
        assert!(!contains(">=1.0.0-rc.2", "1.0.0-rc.1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "  ", "latest", ">=", "1.2.3.4", "1.x.3", ">=1 <", "=>1", "1 -", "^1,2", "1.x-rc"] {
            assert!(text.parse::<VersionRange>().is_err(), "{text:?}");
        }
        assert!("1".repeat(129).parse::<VersionRange>().is_err());
    }
}
