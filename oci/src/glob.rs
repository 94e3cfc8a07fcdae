// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Patterns over repository names and tags.
//!
//! Matching takes time in proportion to pattern times text, whatever the pattern.

use std::fmt;
use std::str::FromStr;

/// A pattern over repository names. It is matched component by component: `**` stands for one or more whole
/// components, `*` for any run of characters within one, `?` for one character. `team/**` is not `team`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

/// A pattern over tags: `*` stands for any run of characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TagGlob(String);

/// The text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Not a [`Glob`].
    #[error(
        "pattern must be 1 to 255 characters: components joined by '/', each '**', or of lower-case letters, digits, '.', '_', '-', '?' and single '*'"
    )]
    Name,
    /// Not a [`TagGlob`].
    #[error("tag pattern must be 1 to 128 letters, digits, '_', '.', '-', '?' or '*'")]
    Tag,
}

/// One step through the components of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// One component that fits.
    One(String),
    /// Any number of components.
    Any,
}

impl Glob {
    /// The longest pattern, in characters.
    pub const MAX: usize = 255;

    /// Whether the repository name fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let components: Vec<&str> = name.split('/').collect();
        fits(
            &self.parts,
            &components,
            |part| *part == Part::Any,
            |part, component| match part {
                Part::One(pattern) => text_fits(pattern, component),
                Part::Any => true,
            },
        )
    }

    /// Whether every repository name fits: `**`.
    #[must_use]
    pub fn matches_everything(&self) -> bool {
        self.text == "**"
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TagGlob {
    /// The longest pattern, in characters.
    pub const MAX: usize = 128;

    /// Whether the tag fits.
    #[must_use]
    pub fn matches(&self, tag: &str) -> bool {
        text_fits(&self.0, tag)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn text_fits(pattern: &str, text: &str) -> bool {
    fits(pattern.as_bytes(), text.as_bytes(), |p| *p == b'*', |p, t| *p == b'?' || p == t)
}

/// Whether `pattern` covers all of `text`, where an item that `is_star` covers any run. Only the last star
/// seen is ever tried again: an earlier one that took more could not help.
fn fits<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    fits_one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    // The star, and where in the text what follows it is tried.
    let mut retry: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(item) if is_star(item) => {
                retry = Some((at_pattern, at_text));
                at_pattern += 1;
            }
            Some(item) if fits_one(item, &text[at_text]) => {
                at_pattern += 1;
                at_text += 1;
            }
            Some(_) | None => {
                let Some((star, tried)) = retry else { return false };
                retry = Some((star, tried + 1));
                at_pattern = star + 1;
                at_text = tried + 1;
            }
        }
    }
    pattern[at_pattern..].iter().all(is_star)
}

/// `\*|\*?([a-z0-9._?-]+\*?)+`
fn is_component(text: &str) -> bool {
    let legal =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'?' | b'-' | b'*');
    !text.is_empty() && text.bytes().all(legal) && !text.contains("**")
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.len() > Self::MAX {
            return Err(GlobError::Name);
        }
        let mut parts = Vec::new();
        for component in text.split('/') {
            if component == "**" {
                parts.extend([Part::One("*".to_owned()), Part::Any]);
            } else if is_component(component) {
                parts.push(Part::One(component.to_owned()));
            } else {
                return Err(GlobError::Name);
            }
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl FromStr for TagGlob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'?' | b'*');
        let is_glob = (1..=Self::MAX).contains(&text.len()) && text.bytes().all(legal);
        is_glob.then(|| Self(text.to_owned())).ok_or(GlobError::Tag)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TagGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Glob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> serde::Deserialize<'de> for TagGlob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Glob>().unwrap().matches(name)
    }

    #[test]
    fn two_stars_are_one_or_more_components() {
        assert!(matches("**", "a") && matches("**", "a/b/c"));
        assert!(matches("team/**", "team/a") && matches("team/**", "team/a/b"));
        assert!(!matches("team/**", "team") && !matches("team/**", "teams/a"));
        assert!(matches("**/app", "x/app") && matches("**/app", "x/app/app") && !matches("**/app", "app"));
        assert!(matches("a/**/z", "a/b/z") && matches("a/**/z", "a/z/z/z") && !matches("a/**/z", "a/z"));
        assert!(matches("**/**", "a/b") && !matches("**/**", "a"));
    }

    #[test]
    fn a_star_and_a_question_mark_stay_within_a_component() {
        assert!(matches("library/*", "library/alpine") && !matches("library/*", "library/a/b"));
        assert!(matches("a*c", "ac") && matches("a*c", "abbc") && !matches("a*c", "a/c"));
        assert!(
            matches("*-dev", "x-dev") && matches("v?", "v1") && !matches("v?", "v") && !matches("v?", "v12")
        );
        assert!(matches("a.b", "a.b") && !matches("a.b", "axb"));
    }

    #[test]
    fn the_grammar_is_followed() {
        for good in ["a", "*", "**", "a/*/b?c", "*a*b*", "a**".trim_end_matches('*'), "?"] {
            assert_eq!(good.parse::<Glob>().unwrap().to_string(), good);
        }
        let long = "a".repeat(256);
        for bad in ["", "/", "a/", "/a", "a**", "**a", "***", "A", "a b", "a\\b", "[a]", "{a,b}", &long] {
            assert_eq!(bad.parse::<Glob>(), Err(GlobError::Name), "{bad}");
        }
        assert!("v1.*-RC?".parse::<TagGlob>().unwrap().matches("v1.2-RC3"));
        for bad in ["", "a/b", "a+b", &"a".repeat(129)] {
            assert_eq!(bad.parse::<TagGlob>(), Err(GlobError::Tag), "{bad}");
        }
    }

    /// The definition, without regard for time.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            ([b'*', rest @ ..], text) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
            ([first, pattern @ ..], [char, text @ ..]) => {
                (*first == b'?' || first == char) && naive(pattern, text)
            }
            (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab?*]{0,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(text_fits(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
