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

/// A regular expression whose first group names the group of a tag.
#[derive(Clone, Debug)]
pub struct TagGroups(Regex);

/// The text names no groups of tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    /// It is no expression.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// It has no group.
    #[error("{0:?} has no group: put what names the group of a tag in parentheses, as in \"^v?([0-9]+)\"")]
    NoGroup(String),
}

impl TagGroups {
    /// The group of a tag, whichever part of it the expression fits; `None`: it is in no group with others.
    #[must_use]
    pub fn of<'t>(&self, tag: &'t Tag) -> Option<&'t str> {
        Some(self.0.captures(tag.as_str())?.get(1)?.as_str())
    }
}

impl FromStr for TagGroups {
    type Err = GroupsError;

    fn from_str(text: &str) -> Result<Self, GroupsError> {
        if text.is_empty() || text.chars().count() > TagExpression::MAX {
            let problem = format!("{text:?} has not 1 to {} characters", TagExpression::MAX);
            return Err(ExpressionError(problem).into());
        }
        let read = RegexBuilder::new(text).size_limit(MOST_MEMORY).build();
        let expression = read.map_err(|error| ExpressionError(error.to_string()))?;
        if expression.captures_len() < 2 {
            Err(GroupsError::NoGroup(text.to_owned()))
        } else {
            Ok(Self(expression))
        }
    }
}

impl PartialEq for TagGroups {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for TagGroups {}

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

    #[test]
    fn a_tag_is_in_the_group_that_the_expression_names() {
        let groups: TagGroups = r"^v?([0-9]+)\.".parse().unwrap();
        let of = |tag: &str| groups.of(&tag.parse().unwrap()).map(str::to_owned);
        assert_eq!((of("v1.2"), of("12.0"), of("latest")), (Some("1".into()), Some("12".into()), None));
        let optional: TagGroups = "^(dev-)?x".parse().unwrap();
        assert_eq!(optional.of(&"x".parse().unwrap()), None, "the group is not there");
        for text in ["", "(", "^v[0-9]+", &"(a)".repeat(100)] {
            assert!(text.parse::<TagGroups>().is_err(), "{text:?}");
        }
    }
}
