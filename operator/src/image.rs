// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The image of the replicas: what the operator was started with, and what a Registry says otherwise.

use std::str::FromStr;

use stowage_crds::Image as Asked;
use thiserror::Error;

use crate::names::label_value;

/// A reference to an image by repository and tag, digest or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// The text is no reference to an image.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not an image reference: {0:?}; expected repository:tag or repository@digest")]
pub struct NotAnImage(String);

impl FromStr for ImageRef {
    type Err = NotAnImage;

    fn from_str(text: &str) -> Result<Self, NotAnImage> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (name, None),
        };
        let legal = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
        let complete = tag.is_some() || digest.is_some();
        if !complete || ![Some(repository), tag, digest].into_iter().flatten().all(legal) {
            return Err(NotAnImage(text.to_owned()));
        }
        let owned = |part: Option<&str>| part.map(str::to_owned);
        Ok(Self { repository: repository.to_owned(), tag: owned(tag), digest: owned(digest) })
    }
}

impl ImageRef {
    /// This reference with what the spec says in place of its own parts. A tag or digest of the spec stands alone:
    /// our tag beside its digest would name another image.
    #[must_use]
    pub fn with(&self, asked: Option<&Asked>) -> Self {
        let Some(asked) = asked else { return self.clone() };
        let repository = asked.repository.clone().unwrap_or_else(|| self.repository.clone());
        if asked.tag.is_some() || asked.digest.is_some() {
            return Self { repository, tag: asked.tag.clone(), digest: asked.digest.clone() };
        }
        Self { repository, ..self.clone() }
    }

    /// As a container runtime reads it.
    #[must_use]
    pub fn reference(&self) -> String {
        let mut reference = self.repository.clone();
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if let Some(part) = part {
                reference.push(mark);
                reference.push_str(part);
            }
        }
        reference
    }

    /// What people call it: the tag, or the beginning of the digest. Legal as a label.
    #[must_use]
    pub fn version(&self) -> String {
        let digest = || self.digest.as_deref().map(|digest| digest.chars().take(19).collect());
        label_value(&self.tag.clone().or_else(digest).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_their_text() {
        for text in ["example.com:5000/a/b:1.2", "a/b@sha256:abc", "127.0.0.1:5000/a:1@sha256:abc", "a:b"] {
            assert_eq!(text.parse::<ImageRef>().unwrap().reference(), text);
        }
    }

    #[test]
    fn a_reference_without_tag_and_digest_is_refused() {
        for text in ["", "a/b", "example.com:5000/a", "a:", "a@", "a b:c"] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_tag_of_the_spec_drops_the_digest_of_the_default() {
        let default: ImageRef = "a/b:1@sha256:abc".parse().unwrap();
        let asked = |tag: Option<&str>, repository: Option<&str>| Asked {
            tag: tag.map(str::to_owned),
            repository: repository.map(str::to_owned),
            ..Asked::default()
        };
        assert_eq!(default.with(Some(&asked(Some("2"), None))).reference(), "a/b:2");
        assert_eq!(default.with(Some(&asked(None, Some("c/d")))).reference(), "c/d:1@sha256:abc");
        assert_eq!(default.with(None), default);
    }

    #[test]
    fn the_version_is_what_people_call_it() {
        assert_eq!("a/b:1.2.3".parse::<ImageRef>().unwrap().version(), "1.2.3");
        let digest = format!("a/b@sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(digest.parse::<ImageRef>().unwrap().version(), "sha256_0123456789ab");
    }
}
