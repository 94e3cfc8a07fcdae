// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the upstream has: repositories, tags, and what a tag is.

use std::collections::BTreeSet;

use stowage_oci::{Digest, Glob, Name, Reference, Tag};

use super::told::Fault;
use super::{Listed, Repositories, Run};
use crate::upstream::{Begin, Error, Kind};

impl<'a> Run<'a> {
    /// The repositories that are asked for, each with all that is asked of it. A list that cannot be read is a failure.
    pub(super) async fn repositories(&self) -> Listed<'a> {
        let mut listed = Listed { is_complete: true, ..Listed::default() };
        for artifacts in &self.asked.artifacts {
            let found = match self.listed(&artifacts.repositories).await {
                Ok(found) => found,
                Err(error) => {
                    listed.is_complete = false;
                    self.tally.failed(artifacts.repositories.to_string(), &Fault::Upstream(error));
                    continue;
                }
            };
            for name in found {
                listed.repositories.entry(name).or_default().push(&artifacts.selection);
            }
        }
        listed
    }

    async fn listed(&self, repositories: &Repositories) -> Result<BTreeSet<Name>, Error> {
        match repositories {
            Repositories::One(name) => Ok([self.upstream.repository(name)].into()),
            Repositories::Catalog { .. } => {
                let (mut found, mut from) = (BTreeSet::new(), Begin::First);
                loop {
                    let page = self.ask(|| self.upstream.catalog(from.clone())).await?;
                    found.extend(page.items.into_iter().filter(|name| repositories.take(name)));
                    let Some(next) = page.next else { return Ok(found) };
                    from = Begin::At(next);
                }
            }
            Repositories::Organization { name, .. } => {
                let mut listed = self.ask(|| self.upstream.organization(name)).await?;
                listed.repositories.retain(|name| repositories.take(name));
                Ok(listed.repositories)
            }
        }
    }

    /// All tags of a repository. One that only a list names may have none any more.
    pub(super) async fn tags_of(&self, repository: &Name) -> Result<BTreeSet<Tag>, Fault> {
        let (mut tags, mut from) = (BTreeSet::new(), Begin::First);
        loop {
            let page = match self.ask(|| self.upstream.tags(repository, from.clone())).await {
                Err(error) if error.kind == Kind::NotFound && !self.is_asked_for_by_name(repository) => {
                    return Ok(BTreeSet::new());
                }
                page => page?,
            };
            tags.extend(page.items);
            let Some(next) = page.next else { return Ok(tags) };
            from = Begin::At(next);
        }
    }

    fn is_asked_for_by_name(&self, repository: &Name) -> bool {
        self.asked.artifacts.iter().any(|artifacts| match &artifacts.repositories {
            Repositories::One(name) => self.upstream.repository(name) == *repository,
            Repositories::Catalog { .. } | Repositories::Organization { .. } => false,
        })
    }

    /// What a tag names, and since when, in milliseconds, if the upstream says so.
    pub(super) async fn tagged(&self, repository: &Name, tag: &Tag) -> Result<(Digest, Option<u64>), Fault> {
        let reference = Reference::Tag(tag.clone());
        let head = self.ask(|| self.upstream.manifest_head(repository, &reference)).await?;
        if let Some(digest) = head.digest {
            return Ok((digest, head.tag_version));
        }
        let manifest = self.ask(|| self.upstream.manifest(repository, &reference)).await?;
        Ok((manifest.digest, head.tag_version))
    }
}

impl Repositories {
    /// Whether a list's repository is meant.
    pub(super) fn take(&self, name: &Name) -> bool {
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name.as_str()));
        match self {
            Self::One(wanted) => wanted == name,
            Self::Catalog { include, exclude } => fits(include) && !fits(exclude),
            Self::Organization { name: organization, exclude } => {
                let below = name.as_str().strip_prefix(organization.as_str());
                below.is_some_and(|rest| rest.starts_with('/')) && !fits(exclude)
            }
        }
    }
}

impl std::fmt::Display for Repositories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(name) => write!(f, "{name}"),
            Self::Catalog { .. } => f.write_str("catalog"),
            Self::Organization { name, .. } => write!(f, "organization {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f21_lists_give_what_is_included_and_not_excluded() {
        let globs = |globs: &[&str]| globs.iter().map(|glob| glob.parse().unwrap()).collect();
        let taken = |repositories: &Repositories| {
            let names = ["acme/app", "acme/tmp-1", "acme", "acmes/app", "team/a/b"];
            let is_taken = |name: &&&str| repositories.take(&name.parse().unwrap());
            names.iter().filter(is_taken).copied().collect::<Vec<_>>().join(" ")
        };
        let catalog =
            Repositories::Catalog { include: globs(&["acme/*", "team/**"]), exclude: globs(&["*/tmp-*"]) };
        assert_eq!(taken(&catalog), "acme/app team/a/b");
        let organization =
            Repositories::Organization { name: "acme".to_owned(), exclude: globs(&["acme/tmp-*"]) };
        assert_eq!(taken(&organization), "acme/app");
    }
}
