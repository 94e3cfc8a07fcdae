// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which tags are meant: by version, by pattern, by name.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};

use crate::{Tag, TagGlob, Version, VersionRange};

/// The most memory that a compiled expression may take, in bytes.
const MOST_MEMORY: usize = 1 << 20;

/// Which tags are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagSelection {
    /// Which are.
    pub wanted: TagsWanted,
    /// Which of these are not.
    pub exclude: Vec<TagGlob>,
}

/// Which tags are meant, before exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagsWanted {
    /// Every one.
    #[default]
    All,
    /// Those that are versions in a range.
    Versions(VersionRange),
    /// Those that one of the patterns fits.
    Globs(Vec<TagGlob>),
    /// Those that one of the expressions fits as a whole.
    Expressions(Vec<TagExpression>),
    /// These.
    Exactly(BTreeSet<Tag>),
}

impl TagSelection {
    /// Whether the tag is meant.
    #[must_use]
    pub fn takes(&self, tag: &Tag) -> bool {
        let text = tag.as_str();
        let wanted = match &self.wanted {
            TagsWanted::All => true,
            TagsWanted::Versions(range) => {
                Version::of_tag(text).is_some_and(|version| range.contains(&version))
            }
            TagsWanted::Globs(globs) => globs.iter().any(|glob| glob.matches(text)),
            TagsWanted::Expressions(expressions) => expressions.iter().any(|found| found.0.is_match(text)),
            TagsWanted::Exactly(tags) => tags.contains(tag),
        };
        wanted && !self.exclude.iter().any(|glob| glob.matches(text))
    }
}

/// A regular expression over whole tags.
#[derive(Clone, Debug)]
pub struct TagExpression(Regex);

/// The text is not a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a regular expression: {0}")]
pub struct ExpressionError(String);

impl TagExpression {
    /// The longest expression, in characters.
    pub const MAX: usize = 256;
}

impl FromStr for TagExpression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.is_empty() || text.chars().count() > Self::MAX {
            return Err(ExpressionError(format!("{text:?} has not 1 to {} characters", Self::MAX)));
        }
        // It is read by itself first: a `)` must not close the group around it.
        let read = Regex::new(text)
            .and_then(|_| RegexBuilder::new(&format!("^(?:{text})$")).size_limit(MOST_MEMORY).build());
        read.map(Self).map_err(|error| ExpressionError(error.to_string()))
    }
}

impl PartialEq for TagExpression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for TagExpression {}

impl fmt::Display for TagExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wanted: TagsWanted, exclude: &[&str], tags: &str) -> String {
        let exclude = exclude.iter().map(|glob| glob.parse().unwrap()).collect();
        let selection = TagSelection { wanted, exclude };
        let is_taken = |tag: &&str| selection.takes(&tag.parse().unwrap());
        tags.split(' ').filter(is_taken).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tags_are_taken_by_version_pattern_expression_or_name() {
        let tags = "3.19 3.20 3.21-rc1 edge latest v3.20.1";
        assert_eq!(taken(TagsWanted::All, &[], tags), tags);
        let range = TagsWanted::Versions(">=3.20".parse().unwrap());
        assert_eq!(taken(range, &[], tags), "3.20 v3.20.1");
        let globs = TagsWanted::Globs(vec!["3.*".parse().unwrap(), "la?est".parse().unwrap()]);
        assert_eq!(taken(globs, &["*-rc*"], tags), "3.19 3.20 latest");
        let expressions = TagsWanted::Expressions(vec![r"3\.2\d|edge".parse().unwrap()]);
        assert_eq!(taken(expressions, &[], tags), "3.20 edge", "as a whole");
        let exact = TagsWanted::Exactly(["edge".parse().unwrap()].into());
        assert_eq!(taken(exact, &[], tags), "edge");
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "(", "a)(b", "[", &"a".repeat(257), r"(\w{100}){100}{100}"] {
            assert!(text.parse::<TagExpression>().is_err(), "{text:?}");
        }
    }
}
