// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Method, raw path and raw query to an [`Operation`]. Pure.
//!
//! The path is split from the right on raw `/`, because repository names contain slashes and may look like
//! routes; then each segment is decoded once. Nothing is normalised and nothing redirected. A refusal here
//! depends on the request alone, never on what exists or who asks.

#![deny(clippy::wildcard_enum_match_arm)]

use http::Method;
use percent_encoding::percent_decode_str;
use stowage_oci::{
    Algorithm, Digest, DigestError, Name, NameError, Reference, ReferenceError, Tag, TagError,
};
use uuid::Uuid;

use super::query::{Query, TwoValues};
use crate::domain::Mirrors;
use crate::operation::{MountSource, Opening, Operation, Page};

/// The most tags that one push by digest may set.
const MAX_TAGS: usize = 100;
/// The most artifact types that one list may be filtered by.
const MAX_ARTIFACT_TYPES: usize = 20;

/// What the registry is called by its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Hosts (`host[:port]`) that mean this registry; the first is the external one.
    pub hosts: Vec<String>,
}

impl Site {
    fn is_called(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// Clients write `host/name`, and many stop at 255 characters for both.
    fn longest_name(&self) -> usize {
        let host = self.hosts.first().map_or(0, |host| host.len() + 1);
        Name::MAX.saturating_sub(host)
    }
}

/// Why a request is no operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No such endpoint.
    #[error("there is no such endpoint")]
    NoEndpoint,
    /// The endpoint has other methods.
    #[error("the endpoint allows {allow} only")]
    Method {
        /// Those it has.
        allow: &'static str,
    },
    /// Something of the path cannot be part of a name.
    #[error("path contains an escape that is malformed, or stands for what no path may contain")]
    Escape,
    /// Not a repository name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A push to what is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A manifest of what is no tag: it cannot exist.
    #[error("manifest is not known to this repository")]
    ManifestUnknown,
    /// An upload of what is no upload id: it cannot exist.
    #[error("upload is not known to this repository")]
    UploadUnknown,
    /// An upload is closed without saying what it is.
    #[error("parameter \"digest\" is missing")]
    DigestMissing,
    /// A parameter that may have one value has two.
    #[error("parameter {0:?} is given twice, with different values")]
    TwoValues(&'static str),
    /// A parameter has a value that it cannot have.
    #[error("parameter {0:?} has a value that it cannot have")]
    Parameter(&'static str),
    /// Too many values of a parameter.
    #[error("parameter \"artifactType\" is given more than {MAX_ARTIFACT_TYPES} times")]
    TooManyArtifactTypes,
    /// Too many tags.
    #[error("parameter \"tag\" is given more than {MAX_TAGS} times")]
    TooManyTags,
    /// The client means another registry's repository.
    #[error("this registry does not answer for the one named in \"ns\"")]
    OtherRegistry,
}

/// The endpoints, with what of the path belongs to them.
enum Endpoint<'a> {
    Ping,
    Catalog,
    Discover(Option<Name>),
    Manifest(Name, &'a str),
    Blob(Name, &'a str),
    Uploads(Name),
    Upload(Name, &'a str),
    Tags(Name),
    Referrers(Name, &'a str),
}

/// What a request to a path below `/v2` asks for.
pub(super) fn operation(
    site: &Site,
    mirrors: &Mirrors,
    method: &Method,
    path: &str,
    query: &Query,
) -> Result<Operation, Refusal> {
    let segments = path
        .strip_prefix("/v2")
        .and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_prefix('/') })
        .ok_or(Refusal::NoEndpoint)?
        .split('/')
        .map(decode)
        .collect::<Result<Vec<String>, Refusal>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let endpoint = endpoint(site, method, &segments)?;
    other_registry(site, mirrors, query)?;
    match endpoint {
        Endpoint::Ping => read(method, |_| Operation::Ping),
        Endpoint::Catalog => {
            let page = page(query)?;
            get(method, || Operation::Catalog { page })
        }
        Endpoint::Discover(repository) => get(method, || Operation::Discover { repository }),
        Endpoint::Manifest(repository, reference) => manifest(method, repository, reference, query),
        Endpoint::Blob(repository, digest) => blob(method, repository, digest),
        Endpoint::Uploads(repository) => uploads(method, repository, query),
        Endpoint::Upload(repository, id) => upload(method, repository, id, query),
        Endpoint::Tags(repository) => {
            let page = page(query)?;
            get(method, || Operation::ListTags { repository, page })
        }
        Endpoint::Referrers(repository, digest) => referrers(method, repository, digest, query),
    }
}

/// One segment of the path, decoded once.
fn decode(raw: &str) -> Result<String, Refusal> {
    let escapes = raw.split('%').skip(1);
    let well_formed = |escape: &str| {
        escape.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    if !escapes.clone().all(well_formed) {
        return Err(Refusal::Escape);
    }
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    let forbidden = |byte: &u8| !byte.is_ascii() || byte.is_ascii_control() || matches!(byte, b'/' | b'%');
    match String::from_utf8(decoded) {
        Ok(text) if !text.as_bytes().iter().any(forbidden) => Ok(text),
        Ok(_) | Err(_) => Err(Refusal::Escape),
    }
}

/// Reads the path from the right; what is left of the endpoint is the repository.
fn endpoint<'a>(site: &Site, method: &Method, segments: &[&'a str]) -> Result<Endpoint<'a>, Refusal> {
    let name = |segments: &[&str]| repository(site, segments);
    match segments {
        [""] => Ok(Endpoint::Ping),
        ["_catalog"] => Ok(Endpoint::Catalog),
        ["_oci", "ext", "discover"] => Ok(Endpoint::Discover(None)),
        [rest @ .., "_oci", "ext", "discover"] => Ok(Endpoint::Discover(Some(name(rest)?))),
        [rest @ .., "blobs", "uploads", ""] => Ok(Endpoint::Uploads(name(rest)?)),
        [rest @ .., "blobs", "uploads"] if method == Method::POST => Ok(Endpoint::Uploads(name(rest)?)),
        [rest @ .., "blobs", "uploads", id] => Ok(Endpoint::Upload(name(rest)?, id)),
        [_, .., "manifests" | "blobs" | "referrers", ""] => Err(Refusal::NoEndpoint),
        [rest @ .., "manifests", reference] => Ok(Endpoint::Manifest(name(rest)?, reference)),
        [rest @ .., "blobs", digest] => Ok(Endpoint::Blob(name(rest)?, digest)),
        [rest @ .., "tags", "list"] => Ok(Endpoint::Tags(name(rest)?)),
        [rest @ .., "referrers", digest] => Ok(Endpoint::Referrers(name(rest)?, digest)),
        _ => Err(Refusal::NoEndpoint),
    }
}

fn repository(site: &Site, segments: &[&str]) -> Result<Name, Refusal> {
    if segments.is_empty() {
        return Err(Refusal::NoEndpoint);
    }
    let name: Name = segments.join("/").parse()?;
    if name.as_str().len() > site.longest_name() { Err(NameError::TooLong.into()) } else { Ok(name) }
}

/// The registry that the client means, if that is one that we mirror. A client that names another must not get a
/// repository of ours that happens to have the name.
pub(super) fn other_registry<'a>(
    site: &Site,
    mirrors: &Mirrors,
    query: &'a Query,
) -> Result<Option<&'a str>, Refusal> {
    match single(query, "ns")? {
        Some(host) if site.is_called(host) => Ok(None),
        Some(host) if mirrors.is_named(host) => Ok(Some(host)),
        Some(_) => Err(Refusal::OtherRegistry),
        None => Ok(None),
    }
}

fn single<'a>(query: &'a Query, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    query.one(name).map_err(|TwoValues| Refusal::TwoValues(name))
}

fn get(method: &Method, operation: impl FnOnce() -> Operation) -> Result<Operation, Refusal> {
    if method == Method::GET { Ok(operation()) } else { Err(Refusal::Method { allow: "GET" }) }
}

/// For endpoints with GET and HEAD; `operation` is told whether it is HEAD.
fn read(method: &Method, operation: impl FnOnce(bool) -> Operation) -> Result<Operation, Refusal> {
    match *method {
        Method::GET => Ok(operation(false)),
        Method::HEAD => Ok(operation(true)),
        _ => Err(Refusal::Method { allow: "GET, HEAD" }),
    }
}

fn blob(method: &Method, repository: Name, digest: &str) -> Result<Operation, Refusal> {
    const ALLOW: &str = "GET, HEAD, DELETE";
    // A path that looks like the uploads of a repository has no digest, and no other method either.
    if digest == "uploads" {
        return Err(Refusal::Method { allow: "POST" });
    }
    let digest: Digest = digest.parse()?;
    match *method {
        Method::GET => Ok(Operation::GetBlob { repository, digest, head: false }),
        Method::HEAD => Ok(Operation::GetBlob { repository, digest, head: true }),
        Method::DELETE => Ok(Operation::DeleteBlob { repository, digest }),
        _ => Err(Refusal::Method { allow: ALLOW }),
    }
}

fn manifest(method: &Method, repository: Name, reference: &str, query: &Query) -> Result<Operation, Refusal> {
    let parsed = reference.parse::<Reference>();
    // Clients ask for tags longer than any tag (fallback tags of sha512 digests): those do not exist.
    let existing = || match &parsed {
        Ok(reference) => Ok(reference.clone()),
        Err(ReferenceError::Tag(_)) => Err(Refusal::ManifestUnknown),
        Err(ReferenceError::Digest(error)) => Err(Refusal::Digest(*error)),
    };
    match *method {
        Method::GET => Ok(Operation::GetManifest { repository, reference: existing()?, head: false }),
        Method::HEAD => Ok(Operation::GetManifest { repository, reference: existing()?, head: true }),
        Method::DELETE => Ok(Operation::DeleteManifest { repository, reference: existing()? }),
        Method::PUT => match parsed {
            Ok(reference) => put_manifest(repository, reference, query),
            Err(ReferenceError::Tag(error)) => Err(Refusal::Tag(error)),
            Err(ReferenceError::Digest(error)) => Err(Refusal::Digest(error)),
        },
        _ => Err(Refusal::Method { allow: "GET, HEAD, PUT, DELETE" }),
    }
}

fn put_manifest(repository: Name, reference: Reference, query: &Query) -> Result<Operation, Refusal> {
    let (digest, tags) = match reference {
        Reference::Tag(_) => (single(query, "digest")?.map(str::parse).transpose()?, Vec::new()),
        Reference::Digest(_) => (None, further_tags(query)?),
    };
    Ok(Operation::PutManifest { repository, reference, digest, tags })
}

fn further_tags(query: &Query) -> Result<Vec<Tag>, Refusal> {
    if query.all("tag").nth(MAX_TAGS).is_some() {
        return Err(Refusal::TooManyTags);
    }
    query.all("tag").map(|tag| tag.parse().map_err(Refusal::Tag)).collect()
}

fn uploads(method: &Method, repository: Name, query: &Query) -> Result<Operation, Refusal> {
    if method != Method::POST {
        return Err(Refusal::Method { allow: "POST" });
    }
    let digest = single(query, "digest")?.map(str::parse::<Digest>).transpose()?;
    let opening = match single(query, "mount")?.map(str::parse::<Digest>).transpose()? {
        Some(mounted) => {
            let from = mount_source(query)?;
            let session = Opening::Session { algorithm: mounted.algorithm() };
            let or = digest.map_or(session, |digest| Opening::Monolithic { digest });
            Opening::Mount { digest: mounted, from, or: Box::new(or) }
        }
        None => match digest {
            Some(digest) => Opening::Monolithic { digest },
            None => Opening::Session { algorithm: algorithm(query)? },
        },
    };
    Ok(Operation::OpenUpload { repository, opening })
}

/// Where a mount may come from; a name that cannot be is no reason to refuse the upload.
fn mount_source(query: &Query) -> Result<MountSource, Refusal> {
    Ok(match single(query, "from")?.map(str::parse) {
        None => MountSource::Any,
        Some(Ok(name)) => MountSource::Repository(name),
        Some(Err(_)) => MountSource::Nowhere,
    })
}

fn algorithm(query: &Query) -> Result<Algorithm, Refusal> {
    Ok(single(query, "digest-algorithm")?.map_or(Ok(Algorithm::Sha256), str::parse)?)
}

fn upload(method: &Method, repository: Name, id: &str, query: &Query) -> Result<Operation, Refusal> {
    // Only the form we give out is an id: others would be one upload under two addresses.
    let known = Uuid::try_parse(id).ok().filter(|upload| upload.hyphenated().to_string() == id);
    let existing = || known.ok_or(Refusal::UploadUnknown);
    match *method {
        Method::GET | Method::HEAD => Ok(Operation::UploadStatus { repository, upload: existing()? }),
        Method::PATCH => Ok(Operation::Append { repository, upload: existing()? }),
        Method::DELETE => Ok(Operation::CancelUpload { repository, upload: existing()? }),
        Method::PUT => {
            let digest = single(query, "digest")?.ok_or(Refusal::DigestMissing)?.parse()?;
            Ok(Operation::CloseUpload { repository, upload: existing()?, digest })
        }
        _ => Err(Refusal::Method { allow: "GET, HEAD, PATCH, PUT, DELETE" }),
    }
}

fn referrers(method: &Method, repository: Name, digest: &str, query: &Query) -> Result<Operation, Refusal> {
    let subject = match digest.parse() {
        Ok(digest) => Some(digest),
        Err(DigestError::Unsupported) => None,
        Err(error @ DigestError::Malformed) => return Err(error.into()),
    };
    let (artifact_types, page) = (artifact_types(query)?, page(query)?);
    get(method, || Operation::ListReferrers { repository, subject, artifact_types, page })
}

/// The types to filter by. Clients forget to escape the `+` of `…+json`, which then arrives as a space.
fn artifact_types(query: &Query) -> Result<Vec<String>, Refusal> {
    let given: Vec<&str> = query.all("artifactType").filter(|value| !value.is_empty()).collect();
    if given.len() > MAX_ARTIFACT_TYPES {
        return Err(Refusal::TooManyArtifactTypes);
    }
    if given.iter().any(|value| value.contains(char::is_control)) {
        return Err(Refusal::Parameter("artifactType"));
    }
    let repaired = given.iter().filter(|value| value.contains(' ')).map(|value| value.replace(' ', "+"));
    Ok(given.iter().map(|value| (*value).to_owned()).chain(repaired).collect())
}

/// Which part of a list is asked for. More than can be is as much as there may be.
fn page(query: &Query) -> Result<Page, Refusal> {
    let limit = if query.has("n") {
        let digits = single(query, "n")?.unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refusal::Parameter("n"));
        }
        Some(digits.parse().unwrap_or(u32::MAX))
    } else {
        None
    };
    let after = single(query, "last")?.map(str::to_owned);
    if after.as_deref().is_some_and(|after| after.contains(char::is_control)) {
        return Err(Refusal::Parameter("last"));
    }
    Ok(Page { limit, after })
}

#[cfg(test)]
mod tests;
