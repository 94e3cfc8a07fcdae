// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Patterns over repository names: `*` and `?` within a component, `**` for one or more whole components.

use std::fmt;
use std::str::FromStr;

use stowage_oci::Name;

/// A pattern over repository names. `team/**` covers `team/app` and `team/a/b`, not `team` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    /// `**`
    Any,
    /// Text in which `*` and `?` are wildcards.
    One(String),
}

/// The text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern over repository names: {0:?}; write components joined by '/', as in team/** or lib-*")]
pub struct NotAGlob(String);

impl Glob {
    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern covers the whole name.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        if let [Component::Any] = self.components.as_slice() {
            return true;
        }
        let parts: Vec<&str> = name.components().collect();
        // reach[i]: what was read of the pattern can have consumed exactly the first i components.
        let mut reach = vec![false; parts.len() + 1];
        reach[0] = true;
        for component in &self.components {
            reach = advance(component, &parts, &reach);
        }
        reach[parts.len()]
    }
}

fn advance(component: &Component, parts: &[&str], reach: &[bool]) -> Vec<bool> {
    let mut next = vec![false; reach.len()];
    let mut open = false;
    for (at, part) in parts.iter().enumerate() {
        next[at + 1] = match component {
            Component::Any => {
                open |= reach[at];
                open
            }
            Component::One(pattern) => reach[at] && component_matches(pattern.as_bytes(), part.as_bytes()),
        };
    }
    next
}

/// Wildcard match in linear steps back: only the last `*` is ever reconsidered.
fn component_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                (p, t) = (star_p + 1, star_t + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl FromStr for Glob {
    type Err = NotAGlob;

    fn from_str(text: &str) -> Result<Self, NotAGlob> {
        let component = |part: &str| match part {
            "**" => Some(Component::Any),
            one => is_component(one).then(|| Component::One(one.to_owned())),
        };
        let components: Option<Vec<Component>> = text.split('/').map(component).collect();
        let short = text.len() <= Name::MAX;
        let components = components.filter(|_| short).ok_or_else(|| NotAGlob(text.to_owned()))?;
        Ok(Self { text: text.to_owned(), components })
    }
}

fn is_component(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._?-*".contains(&b);
    !text.is_empty() && text.bytes().all(legal) && !text.contains("**")
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        glob.parse::<Glob>().unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn two_stars_are_one_or_more_whole_components() {
        assert!(matches("**", "a") && matches("**", "a/b/c"));
        assert!(matches("team/**", "team/a") && matches("team/**", "team/a/b"));
        assert!(!matches("team/**", "team") && !matches("team/**", "team-b/a"));
        assert!(matches("**/app", "x/app") && matches("**/app", "x/y/app") && !matches("**/app", "app"));
        assert!(matches("a/**/z", "a/b/c/z") && !matches("a/**/z", "a/z"));
        assert!(matches("**/**", "a/b") && !matches("**/**", "a"));
    }

    #[test]
    fn one_star_and_question_mark_stay_in_their_component() {
        assert!(matches("lib-*", "lib-x") && matches("*", "a") && !matches("*", "a/b"));
        assert!(matches("v?/x", "v2/x") && !matches("v?/x", "v/x"));
        assert!(matches("*a*b*", "xaxbx") && !matches("*a*b", "xaxbx"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "/", "a/", "a//b", "A", "a***", "x**", "ä", "a b", &"a".repeat(256)] {
            assert!(text.parse::<Glob>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_covered_by_itself_and_by_everything(name in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,4}") {
            prop_assert!(matches(&name, &name));
            prop_assert!(matches("**", &name));
            let deeper = format!("{name}/x");
            let below = format!("{name}/**");
            prop_assert!(matches(&below, &deeper));
            prop_assert!(!matches(&below, &name));
        }
    }
}
