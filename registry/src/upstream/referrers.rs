// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What refers to a manifest of an upstream: by the referrers API, else by the tag that clients keep in its place.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use stowage_oci::{Digest, Manifest, ManifestKind, Name, Reference, Tag};
use url::Url;

use super::error::{Error, Kind};
use super::exchange::Ask;
use super::lists::Extent;
use super::manifests::pull;
use super::{Answered, Budget, Upstream};

/// Referrers of one manifest, at most (W-735).
const MOST: usize = 10_000;
/// Bytes of all pages of a list, at most.
const MOST_BYTES: usize = 64 << 20;
/// Pages of a list, at most: each may be empty, and name another.
const MOST_PAGES: usize = 1_000;

/// What refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    /// In the upstream's order.
    pub manifests: Vec<Referrer>,
    /// Whether the upstream has the API; else they were read from the tag.
    pub by_api: bool,
}

/// The descriptor of a manifest that refers to another.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// What it is.
    pub media_type: String,
    /// Where it is.
    pub digest: Digest,
    /// How long it is.
    pub size: u64,
    /// What it is for.
    pub artifact_type: Option<String>,
    /// What it says of itself.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A page of a list.
struct Listed {
    manifests: Vec<Referrer>,
    /// Where the next page is.
    next: Option<Url>,
    bytes: usize,
    budget: Budget,
}

#[derive(Deserialize)]
struct Index {
    manifests: Option<Vec<Referrer>>,
}

impl Upstream {
    /// What refers to `subject`, of this artifact type if one is given. All pages.
    pub async fn referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Answered<Referrers>, Error> {
        let is_wanted = |referrer: &Referrer| {
            artifact_type.is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
        };
        let mut manifests = Vec::new();
        let mut page = Some(self.first_referrers(&self.repository(repository), subject, artifact_type));
        let mut budget = Budget::default();
        let mut read = Extent::default();
        while let Some(url) = page {
            let Some(listed) = self.referrers_page(repository, subject, url).await? else {
                return self.referrers_by_tag(repository, subject, is_wanted).await;
            };
            // Whether or not the upstream filtered.
            manifests.extend(listed.manifests.into_iter().filter(is_wanted));
            budget = listed.budget;
            read = read.and(listed.bytes);
            if manifests.len() > MOST || read.pages > MOST_PAGES || read.bytes > MOST_BYTES {
                let cause = format!("has a list of referrers of {subject} that is too long");
                return Err(self.0.error(Kind::TooLarge, cause).with(&budget));
            }
            page = listed.next;
        }
        Ok(Answered { value: Referrers { manifests, by_api: true }, budget })
    }

    fn first_referrers(&self, repository: &Name, subject: &Digest, artifact_type: Option<&str>) -> Url {
        let mut url = self.0.settings.origin.at(&format!("/v2/{repository}/referrers/{subject}"));
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        url
    }

    /// A page; none if the upstream does not have the API.
    async fn referrers_page(
        &self,
        repository: &Name,
        subject: &Digest,
        url: Url,
    ) -> Result<Option<Listed>, Error> {
        let repository = self.repository(repository);
        let ask = Ask {
            accept: Some(ManifestKind::OciIndex.media_type()),
            what: format!("the referrers of {subject} in {repository}"),
            ..Ask::get(url, pull(&repository))
        };
        let answer = match self.0.ask(&ask).await {
            Ok(answer) => answer,
            // 404 by the specification; what is in front of some registries, or older than the API, says other things.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::NotARegistry) => return Ok(None),
            Err(error) => return Err(error),
        };
        let media_type = answer.header(&CONTENT_TYPE).unwrap_or_default();
        if media_type.split(';').next().map(str::trim) != Some(ManifestKind::OciIndex.media_type()) {
            return Ok(None);
        }
        let next = self.next_page(&ask.url, &answer)?;
        let budget = answer.budget.clone();
        let body = self.body(answer, Manifest::MAX_SIZE, &ask.what).await?;
        let manifests = self.descriptors(&body, &ask.what).map_err(|error| error.with(&budget))?;
        Ok(Some(Listed { manifests, next, bytes: body.len(), budget }))
    }

    /// By the referrers tag schema: an index under the digest as a tag.
    async fn referrers_by_tag(
        &self,
        repository: &Name,
        subject: &Digest,
        is_wanted: impl Fn(&Referrer) -> bool,
    ) -> Result<Answered<Referrers>, Error> {
        let none = |budget| Answered { value: Referrers { manifests: Vec::new(), by_api: false }, budget };
        let tag = Reference::Tag(self.referrers_tag(subject)?);
        let found = match self.manifest(repository, &tag).await {
            Ok(found) => found,
            Err(error) if error.kind == Kind::NotFound => return Ok(none(*error.budget)),
            Err(error) => return Err(error),
        };
        let mut answered = none(found.budget);
        let all = self.descriptors(&found.value.bytes, "the referrers tag");
        let all = all.map_err(|error| error.with(&answered.budget))?;
        answered.value.manifests = all.into_iter().filter(is_wanted).collect();
        Ok(answered)
    }

    /// `sha256-<hex>`, cut to what a tag can hold.
    fn referrers_tag(&self, subject: &Digest) -> Result<Tag, Error> {
        let text: String =
            format!("{}-{}", subject.algorithm(), subject.hex()).chars().take(Tag::MAX).collect();
        text.parse().map_err(|error| self.0.error(Kind::WrongContent, format!("{error}")))
    }

    fn descriptors(&self, body: &Bytes, what: &str) -> Result<Vec<Referrer>, Error> {
        let index: Index = serde_json::from_slice(body)
            .map_err(|error| self.0.error(Kind::WrongContent, format!("{what} cannot be read: {error}")))?;
        Ok(index.manifests.unwrap_or_default())
    }
}
