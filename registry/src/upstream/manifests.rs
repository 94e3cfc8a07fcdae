// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Manifests of an upstream: what a tag is now, and the bytes of a manifest.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, Method};
use stowage_oci::{Algorithm, Digest, Manifest as Document, Name, Reference};

use super::error::{Error, Kind};
use super::exchange::{Answer, Ask};
use super::{Answered, Upstream};

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

const TAG_VERSION: HeaderName = HeaderName::from_static("stowage-tag-version");

/// Every type that we store; so a registry does not make another of it.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// Types that say nothing: then the document does.
const UNSAID: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];

/// What an upstream says about a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its digest; a registry may leave it out.
    pub digest: Option<Digest>,
    /// Its media type, without parameters.
    pub media_type: Option<String>,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// By tag: when the tag was set, in milliseconds, if the upstream says so.
    pub tag_version: Option<u64>,
}

/// A manifest as the upstream has it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The digest of its bytes: the one asked for, the one the upstream said, else its SHA-256.
    pub digest: Digest,
    /// The bytes as they came.
    pub bytes: Bytes,
    /// What they are and refer to.
    pub document: Document,
}

impl Upstream {
    /// What a tag or a digest is, without its bytes. On Docker Hub this is no pull.
    pub async fn manifest_head(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<Answered<Head>, Error> {
        let answer = self.0.ask(&self.ask_manifest(Method::HEAD, repository, reference)).await?;
        self.refuse_page(&answer)?;
        let digest = self.said_digest(&answer, reference)?;
        let media_type = answer.header(&CONTENT_TYPE).map(essence);
        let size = answer.header(&CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let tag_version = answer.header(&TAG_VERSION).and_then(tag_version);
        Ok(Answered { value: Head { digest, media_type, size, tag_version }, budget: answer.budget })
    }

    /// A manifest, whose bytes have the digest that it is given out with, and are a manifest that we store.
    pub async fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<Answered<Manifest>, Error> {
        let ask = self.ask_manifest(Method::GET, repository, reference);
        let answer = self.0.ask(&ask).await?;
        self.refuse_page(&answer)?;
        let said = self.said_digest(&answer, reference)?;
        let media_type = answer.header(&CONTENT_TYPE).map(essence);
        let budget = answer.budget.clone();
        let bytes = self.body(answer, Document::MAX_SIZE, &ask.what).await?;
        let wrong = |cause: String| self.0.error(Kind::WrongContent, cause).with(&budget);
        let asked = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => None,
        };
        for wanted in [asked, said].into_iter().flatten() {
            let found = Digest::of(wanted.algorithm(), &bytes);
            if found != wanted {
                return Err(wrong(format!("{} has the digest {found}, and not {wanted}", ask.what)));
            }
        }
        let digest = asked.or(said).unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
        let media_type = media_type.filter(|media_type| !UNSAID.contains(&media_type.as_str()));
        let document = Document::parse(&bytes, media_type.as_deref())
            .map_err(|error| wrong(format!("{}: {error}", ask.what)))?;
        Ok(Answered { value: Manifest { digest, bytes, document }, budget })
    }

    fn ask_manifest(&self, method: Method, repository: &Name, reference: &Reference) -> Ask {
        let repository = self.repository(repository);
        let url = self.0.settings.origin.at(&format!("/v2/{repository}/manifests/{reference}"));
        Ask {
            method,
            accept: Some(ACCEPT),
            what: format!("manifest {reference} of {repository}"),
            ..Ask::get(url, pull(&repository))
        }
    }

    /// The digest in the head, if there is one that we know. It must not be another than the one asked for.
    fn said_digest(&self, answer: &Answer, reference: &Reference) -> Result<Option<Digest>, Error> {
        let Some(text) = answer.header(&CONTENT_DIGEST) else { return Ok(None) };
        let wrong = |cause: String| Err(self.0.error(Kind::WrongContent, cause).with(&answer.budget));
        let Ok(said) = text.parse::<Digest>() else {
            return wrong(format!("says a digest that is none, of {reference}"));
        };
        match reference {
            Reference::Digest(asked) if asked.algorithm() == said.algorithm() && *asked != said => {
                wrong(format!("answered with {said} to {asked}"))
            }
            Reference::Digest(_) | Reference::Tag(_) => Ok(Some(said)),
        }
    }

    pub(super) fn refuse_page(&self, answer: &Answer) -> Result<(), Error> {
        if answer.is_page() {
            let cause = "answered with a page for people, as no registry does";
            return Err(self.0.error(Kind::NotARegistry, cause).with(&answer.budget));
        }
        Ok(())
    }
}

/// What a token must allow to read a repository.
pub(super) fn pull(repository: &Name) -> String {
    format!("repository:{repository}:pull")
}

/// Milliseconds since 1970 that a record can hold.
fn tag_version(text: &str) -> Option<u64> {
    text.parse().ok().filter(|version| *version < 1 << 48)
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use stowage_oci::ManifestKind;

    use super::*;

    #[test]
    fn a_tag_version_is_a_time_that_a_record_can_hold() {
        assert_eq!(tag_version("1764432000000"), Some(1_764_432_000_000));
        for none in ["", "-1", "yesterday", "281474976710656", "1.5"] {
            assert_eq!(tag_version(none), None, "{none}");
        }
    }

    #[test]
    fn every_kind_that_is_stored_is_accepted() {
        let accepted: Vec<&str> = ACCEPT.split(", ").collect();
        assert_eq!(accepted.len(), ManifestKind::ALL.len());
        assert!(ManifestKind::ALL.iter().all(|kind| accepted.contains(&kind.media_type())));
    }
}
