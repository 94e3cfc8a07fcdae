// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lists: tags, referrers, repositories. Pages by key, in byte order; nothing is counted or skipped.

use stowage_oci::{Digest, Name, Tag};

use super::reconcile::Unit;
use super::{Domain, Error};
use crate::key::{Generation, Key};
use crate::meta::ReferrerRow;
use crate::operation::Page;

/// The most tags of a page, and what a page holds unless asked.
pub(super) const TAGS: u32 = 10_000;
/// What a page of repositories holds unless asked.
const REPOSITORIES: u32 = 100;
/// The most repositories of a page.
const MOST_REPOSITORIES: u32 = 1000;
/// Referrers read at once.
const REFERRERS: u32 = 1000;
/// The longest page of referrers, in bytes of their annotations and fixed fields.
const REFERRER_BYTES: usize = 4 << 20;

/// A page of tags.
#[derive(Clone, Debug)]
pub struct TagList {
    /// In byte order.
    pub tags: Vec<Tag>,
    /// Whether another page follows.
    pub more: bool,
}

/// A page of referrers.
#[derive(Clone, Debug)]
pub struct ReferrerList {
    /// Newest first.
    pub manifests: Vec<ReferrerRow>,
    /// What to ask the next page after.
    pub next: Option<String>,
    /// Answered from the bucket, because the database is away.
    pub degraded: bool,
    /// Without what the registry that is mirrored may list besides: it could not be asked.
    pub stale: bool,
}

/// A page of repositories.
#[derive(Clone, Debug)]
pub struct RepositoryList {
    /// In byte order.
    pub repositories: Vec<Name>,
    /// Whether another page follows.
    pub more: bool,
}

impl Domain {
    /// A page of the repository's tags.
    pub async fn tags(&self, repository: &Name, page: &Page) -> Result<TagList, Error> {
        let limit = page.limit.unwrap_or(TAGS).min(TAGS);
        // One more than asked for tells whether another page follows.
        let unit = [Unit::Tags(repository.clone())];
        let after = page.after.as_deref();
        let question = |epoch| self.meta.tags(epoch, repository, after, limit + 1);
        let tags = self.ask_database(&unit, question).await?;
        let (tags, more) = cut(tags.ok_or(Error::NameUnknown)?, limit);
        Ok(TagList { tags, more: more && limit > 0 })
    }

    /// A page of the manifests whose subject is `subject`. Never an error for what is not there.
    pub async fn referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        artifact_types: &[String],
        page: &Page,
    ) -> Result<ReferrerList, Error> {
        let after = page.after.as_deref().and_then(|text| text.parse::<Generation>().ok());
        let unit = Unit::Referrers(repository.clone(), *subject);
        let question =
            |epoch| self.meta.referrers(epoch, repository, subject, artifact_types, after, REFERRERS + 1);
        let Some(rows) = self.ask(&[unit], question).await? else {
            return self.all_recorded_referrers(repository, subject, artifact_types).await;
        };
        let (manifests, more) = cut(rows, REFERRERS);
        let read = manifests.len();
        let manifests = fitting(manifests);
        let more = more || manifests.len() < read;
        let next = manifests.last().filter(|_| more).map(|last| last.generation.to_string());
        Ok(ReferrerList { manifests, next, degraded: false, stale: false })
    }

    async fn all_recorded_referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        artifact_types: &[String],
    ) -> Result<ReferrerList, Error> {
        let mut manifests = self.degraded_referrers(repository, subject).await?;
        manifests.retain(|row| {
            artifact_types.is_empty()
                || row.artifact_type.as_ref().is_some_and(|own| artifact_types.contains(own))
        });
        Ok(ReferrerList { manifests, next: None, degraded: true, stale: false })
    }

    /// A page of the repositories that `visible` lets through.
    pub async fn catalog(
        &self,
        page: &Page,
        visible: impl Fn(&Name) -> bool,
    ) -> Result<RepositoryList, Error> {
        let limit = page.limit.unwrap_or(REPOSITORIES).min(MOST_REPOSITORIES);
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut repositories: Vec<Name> = Vec::new();
        let mut after = page.after.clone();
        // Who sees all has a page at once; where little is visible, few questions must do.
        let mut batch = limit + 1;
        while repositories.len() <= wanted && limit > 0 {
            // What exists is known when all is compared.
            let epoch = self.trust.trusted().await?;
            let read = self.step(epoch, self.meta.repositories(epoch, after.as_deref(), batch)).await?;
            let Some(last) = read.last() else { break };
            after = Some(last.to_string());
            repositories.extend(read.into_iter().filter(&visible));
            batch = MOST_REPOSITORIES;
        }
        let (repositories, more) = cut(repositories, limit);
        Ok(RepositoryList { repositories, more })
    }

    /// Whether the repository was ever pushed to.
    pub async fn has_repository(&self, repository: &Name) -> Result<bool, Error> {
        let unit = [Unit::Tags(repository.clone())];
        let question = |epoch| self.meta.tags(epoch, repository, None, 0);
        if let Some(tags) = self.ask(&unit, question).await? {
            return Ok(tags.is_some());
        }
        Ok(!self.store.list(&Key::repository_prefix(repository), None, 1).await?.is_empty())
    }

    /// Repositories that have the blob, not more than a mount looks at.
    pub async fn repositories_with(&self, digest: &Digest) -> Result<Vec<Name>, Error> {
        const LOOKED_AT: u32 = 100;
        Ok(self.meta.repositories_with(digest, LOOKED_AT).await?)
    }
}

/// At most `limit` items, and whether there were more.
pub(super) fn cut<T>(mut items: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

/// As many as fit into a page, at least one.
pub(super) fn fitting(mut rows: Vec<ReferrerRow>) -> Vec<ReferrerRow> {
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        bytes += row_bytes(row);
        bytes <= REFERRER_BYTES
    });
    let count = fit.count().max(1);
    rows.truncate(count);
    rows
}

/// The length of the descriptor in the answer, estimated from above: JSON may escape a character as six.
pub(super) fn row_bytes(row: &ReferrerRow) -> usize {
    const FIXED: usize = 400;
    let escaped = |text: &str| serde_json::to_string(text).map_or(0, |json| json.len() + 2);
    let annotations = row.annotations.iter().flatten().map(|(key, value)| escaped(key) + escaped(value));
    FIXED
        + escaped(&row.media_type)
        + row.artifact_type.as_deref().map_or(0, escaped)
        + annotations.sum::<usize>()
}
