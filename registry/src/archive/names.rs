// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The names of images in files and lists: `[host/]repository[:tag][@digest]`. Pure.

use std::fmt;
use std::str::FromStr;

use stowage_oci::{Digest, DigestError, Name, NameError, Tag, TagError};

/// An image, as a file, a list or a human names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The registry, `host[:port]`, if it is named.
    pub host: Option<String>,
    /// The repository.
    pub repository: Name,
    /// The tag, if there is one.
    pub tag: Option<Tag>,
    /// The digest, if there is one.
    pub digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameTrouble {
    /// Its repository.
    #[error(transparent)]
    Repository(#[from] NameError),
    /// Its tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// Its digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for ImageName {
    type Err = NameTrouble;

    fn from_str(text: &str) -> Result<Self, NameTrouble> {
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => (text, Some(digest.parse()?)),
            None => (text, None),
        };
        let (text, tag) = match split_tag(text) {
            (text, Some(tag)) => (text, Some(tag.parse()?)),
            (text, None) => (text, None),
        };
        let (host, repository) = split_host(text);
        Ok(Self { host: host.map(str::to_owned), repository: repository.parse()?, tag, digest })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// What stands before the tag, and the tag: after a colon that is not that of a port.
pub(crate) fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
        _ => (text, None),
    }
}

/// The registry and the rest, by the rule that all clients have: the first part is a host if it has a dot or a port, or
/// is `localhost`.
pub(crate) fn split_host(text: &str) -> (Option<&str>, &str) {
    let is_host = |first: &str| {
        let begins = first.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        begins && (first.contains(['.', ':']) || first == "localhost")
    };
    match text.split_once('/') {
        Some((first, rest)) if is_host(first) => (Some(first), rest),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_clients_read_it() {
        let digest = Digest::of(stowage_oci::Algorithm::Sha256, b"");
        for (text, host, repository, tag) in [
            ("alpine", None, "alpine", None),
            ("alpine:3", None, "alpine", Some("3")),
            ("docker.io/library/alpine:3", Some("docker.io"), "library/alpine", Some("3")),
            ("localhost/team/app:v1", Some("localhost"), "team/app", Some("v1")),
            ("localhost:5000/team/app", Some("localhost:5000"), "team/app", None),
            ("team/app:v1", None, "team/app", Some("v1")),
        ] {
            let name: ImageName = text.parse().unwrap();
            let found = (name.host.as_deref(), name.repository.as_str(), name.tag.as_ref().map(Tag::as_str));
            assert_eq!(found, (host, repository, tag), "{text}");
            assert_eq!(name.to_string(), text);
            let pinned: ImageName = format!("{text}@{digest}").parse().unwrap();
            assert_eq!((pinned.digest, pinned.tag), (Some(digest), name.tag));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "Team/app", "team//app", "team/app:", "team/app:a b", "team/app@sha256:12", "../app"]
        {
            assert!(text.parse::<ImageName>().is_err(), "{text:?}");
        }
    }
}
