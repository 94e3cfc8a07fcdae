// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where something goes that was found by a pattern: names with places that are filled in.

use std::fmt;
use std::str::FromStr;

use crate::{Glob, Name, Tag};

/// The name of a repository with the places `{path}`, what `**` at the end of a pattern matched, and `{name}`, the last
/// component of what matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryTemplate(String);

/// A tag with the place `{tag}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate(String);

/// The text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace that belongs to no place that is known.
    #[error("{0:?} has a brace that belongs to none of {1}")]
    Unknown(String, &'static str),
    /// Filled in, it is not what it should be.
    #[error("{0:?} is no {1}, whatever is filled in")]
    Illegal(String, &'static str),
}

const PATH: &str = "{path}";
const NAME: &str = "{name}";
const TAG: &str = "{tag}";

impl FromStr for RepositoryTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let filled = text.replace(PATH, "a").replace(NAME, "a");
        if filled.contains(['{', '}']) {
            return Err(TemplateError::Unknown(text.to_owned(), "{path} and {name}"));
        }
        match filled.parse::<Name>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_illegal) => Err(TemplateError::Illegal(text.to_owned(), "name of a repository")),
        }
    }
}

impl RepositoryTemplate {
    /// Where `source` goes, which `from` matches. `None`: there is no `**` at the end of it to fill `{path}`, or what comes
    /// out is too long.
    #[must_use]
    pub fn expand(&self, from: &Glob, source: &Name) -> Option<Name> {
        let mut text = self.0.clone();
        if text.contains(PATH) {
            text = text.replace(PATH, &matched_path(from, source)?);
        }
        text.replace(NAME, source.components().last()?).parse().ok()
    }

    /// Whether something that it gives may be matched by `glob`. In doubt it may.
    #[must_use]
    pub fn may_match(&self, glob: &Glob) -> bool {
        let component = |component: &str| match component {
            PATH => "**".to_owned(),
            // A path within a component reaches beyond it.
            other if other.contains(PATH) => "**".to_owned(),
            other => other.replace(NAME, "*"),
        };
        let pattern: Vec<String> = self.0.split('/').map(component).collect();
        let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
        let other: Vec<&str> = glob.as_str().split('/').collect();
        overlap(&pattern, &other)
    }
}

/// What the `**` at the end of a pattern matched.
fn matched_path(from: &Glob, source: &Name) -> Option<String> {
    let before = match from.as_str() {
        "**" => 0,
        other => other.strip_suffix("/**")?.split('/').count(),
    };
    let rest: Vec<&str> = source.components().skip(before).collect();
    (!rest.is_empty()).then(|| rest.join("/"))
}

/// Whether some name fits both: each takes one component at a time, `**` as many as it likes.
fn overlap(one: &[&str], other: &[&str]) -> bool {
    let mut seen = vec![vec![false; other.len() + 1]; one.len() + 1];
    let mut next = vec![(0, 0)];
    while let Some((at, by)) = next.pop() {
        if std::mem::replace(&mut seen[at][by], true) {
            continue;
        }
        match (one.get(at), other.get(by)) {
            (None, None) => return true,
            (Some(a), Some(b)) if fit(a, b) => {
                let stays = |pattern: &str| pattern == "**";
                next.push((at + 1, by + 1));
                next.extend(stays(a).then_some((at, by + 1)));
                next.extend(stays(b).then_some((at + 1, by)));
            }
            _ => {}
        }
    }
    false
}

/// Whether some component fits both.
fn fit(one: &str, other: &str) -> bool {
    if one == "**" || other == "**" {
        return true;
    }
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut seen = vec![vec![false; other.len() + 1]; one.len() + 1];
    let mut next = vec![(0, 0)];
    while let Some((at, by)) = next.pop() {
        if std::mem::replace(&mut seen[at][by], true) {
            continue;
        }
        let (a, b) = (one.get(at).copied(), other.get(by).copied());
        if a.is_none() && b.is_none() {
            return true;
        }
        // A star is nothing, or takes what the other has there.
        if a == Some(b'*') {
            next.push((at + 1, by));
            next.extend(b.map(|_| (at, by + 1)));
        }
        if b == Some(b'*') {
            next.push((at, by + 1));
            next.extend(a.map(|_| (at + 1, by)));
        }
        if let (Some(a), Some(b)) = (a, b)
            && (a == b || a == b'?' || b == b'?')
        {
            next.push((at + 1, by + 1));
        }
    }
    false
}

impl FromStr for TagTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let filled = text.replace(TAG, "a");
        if filled.contains(['{', '}']) {
            return Err(TemplateError::Unknown(text.to_owned(), "{tag}"));
        }
        match filled.parse::<Tag>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_illegal) => Err(TemplateError::Illegal(text.to_owned(), "tag")),
        }
    }
}

impl TagTemplate {
    /// The tag that `source` becomes. `None`: there is none to fill in, or what comes out is too long.
    #[must_use]
    pub fn expand(&self, source: Option<&Tag>) -> Option<Tag> {
        if !self.0.contains(TAG) {
            return self.0.parse().ok();
        }
        self.0.replace(TAG, source?.as_str()).parse().ok()
    }
}

impl fmt::Display for RepositoryTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str, from: &str, source: &str) -> Option<String> {
        let template: RepositoryTemplate = template.parse().unwrap();
        template.expand(&from.parse().unwrap(), &source.parse().unwrap()).map(|name| name.to_string())
    }

    #[test]
    fn places_are_filled_with_what_a_pattern_matched() {
        for (template, from, source, target) in [
            ("prod/{path}", "staging/**", "staging/team/app", Some("prod/team/app")),
            ("prod/{path}", "**", "team/app", Some("prod/team/app")),
            ("prod/{path}", "*/stage/**", "eu/stage/app", Some("prod/app")),
            ("prod/{name}", "staging/*/app", "staging/team/app", Some("prod/app")),
            ("prod/x-{name}", "a", "a", Some("prod/x-a")),
            ("prod/{path}", "staging/*", "staging/app", None),
            ("prod", "staging/app", "staging/app", Some("prod")),
        ] {
            assert_eq!(expanded(template, from, source).as_deref(), target, "{template} {from} {source}");
        }
        let long = "a".repeat(250);
        assert_eq!(expanded("production/{name}", "*", &long), None, "too long");
    }

    #[test]
    fn tags_are_filled_in_or_stand_by_themselves() {
        let expanded = |template: &str, tag: Option<&str>| {
            let tag = tag.map(|tag| tag.parse().unwrap());
            template.parse::<TagTemplate>().unwrap().expand(tag.as_ref()).map(|tag| tag.to_string())
        };
        assert_eq!(expanded("{tag}", Some("1.2")).as_deref(), Some("1.2"));
        assert_eq!(expanded("v{tag}-prod", Some("1.2")).as_deref(), Some("v1.2-prod"));
        assert_eq!(expanded("stable", None).as_deref(), Some("stable"));
        assert_eq!(expanded("{tag}", None), None);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["prod/{tag}", "prod/{path", "Prod/{path}", "prod//{name}", ""] {
            assert!(text.parse::<RepositoryTemplate>().is_err(), "{text}");
        }
        for text in ["{path}", "{tag", "-{tag}", ""] {
            assert!(text.parse::<TagTemplate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_may_match_what_some_name_of_it_does() {
        for (template, glob, may) in [
            ("prod/{path}", "prod/**", true),
            ("prod/{path}", "prod/*/app", true),
            ("prod/{path}", "staging/**", false),
            ("prod/{name}", "prod/a/b", false),
            ("prod/x-{name}", "prod/*-y", true),
            ("prod/x-{name}", "prod/y-*", false),
            ("{path}", "a/b/c", true),
            ("prod", "**", true),
            ("a/b", "*", false),
            ("a/{path}", "**/z", true),
        ] {
            let template: RepositoryTemplate = template.parse().unwrap();
            assert_eq!(template.may_match(&glob.parse().unwrap()), may, "{template} {glob}");
        }
    }
}
