// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deletes tags that the upstream has no longer.
//!
//! Guarantees: only what this mirror set, and nobody since; only after everything was listed and copied. A list without
//! any tag, where tags are here that came by it, is none: so answers a registry that lost its data, or shows us none of
//! it any more.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use stowage_oci::{Name, Tag};

use super::super::mirror::names::below;
use super::told::Fault;
use super::{At, Listed, Repositories, Run, SyncFate, SyncMode};
use crate::meta::TagState;
use crate::operation::Page;

impl Run<'_> {
    /// Deletes what this mirror set and the upstream does not have.
    pub(super) async fn prune(&self, listed: &Listed<'_>) {
        if !listed.is_complete || self.tally.has_failures() {
            tracing::info!(
                mirror.name = self.asked.name,
                "nothing is pruned: not everything was listed and copied"
            );
            return;
        }
        let known = std::mem::take(&mut *self.tags.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.is_believed(&known).await {
            return;
        }
        for (at, tags) in &known {
            self.prune_repository(&at.upstream, &at.here, tags).await;
        }
        match self.gone(listed).await {
            Ok(gone) => {
                for (upstream, here) in gone {
                    self.prune_repository(&upstream, &here, &BTreeSet::new()).await;
                }
            }
            Err(fault) => {
                self.tally.failed("repositories that the upstream has no longer".to_owned(), &fault);
            }
        }
    }

    /// Whether everything that was asked for has some tag, or nothing here to lose. What has not is a failure.
    async fn is_believed(&self, known: &[(At, BTreeSet<Tag>)]) -> bool {
        let mut asked: Vec<&Repositories> = Vec::new();
        for artifacts in &self.asked.artifacts {
            if !asked.contains(&&artifacts.repositories) {
                asked.push(&artifacts.repositories);
            }
        }
        let mut is_believed = true;
        for repositories in asked {
            let mut named = known.iter().filter(|(at, _)| self.is_named_by(repositories, &at.upstream));
            if named.any(|(_, tags)| !tags.is_empty()) {
                continue;
            }
            let fault = match self.has_copies_of(repositories).await {
                Ok(false) => continue,
                Ok(true) => Fault::UpstreamEmpty,
                Err(fault) => fault,
            };
            self.tally.failed(repositories.to_string(), &fault);
            is_believed = false;
        }
        is_believed
    }

    fn is_named_by(&self, repositories: &Repositories, upstream: &Name) -> bool {
        match repositories {
            Repositories::One(name) => self.upstream.repository(name) == *upstream,
            Repositories::Catalog { .. } | Repositories::Organization { .. } => repositories.take(upstream),
        }
    }

    /// Whether a tag is here that this mirror set in one of these.
    async fn has_copies_of(&self, repositories: &Repositories) -> Result<bool, Fault> {
        let places = match repositories {
            Repositories::One(name) => vec![self.at(name)?.here],
            Repositories::Catalog { .. } | Repositories::Organization { .. } => {
                self.named_here(&[repositories]).await?.into_iter().map(|(_, here)| here).collect()
            }
        };
        for here in places {
            if self.states(&here).await?.values().any(|state| self.is_ours(state)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_ours(&self, state: &TagState) -> bool {
        !state.is_deleted && state.generation.has(self.mark)
    }

    async fn prune_repository(&self, upstream: &Name, here: &Name, tags: &BTreeSet<Tag>) {
        let pruned = async {
            let (states, rules) = (self.states(here).await?, self.domain.immutability());
            for state in states.into_values() {
                if !self.is_ours(&state) || tags.contains(&state.tag) {
                    continue;
                }
                if rules.covering(here, &state.tag).is_some() {
                    self.tally.expect(1);
                    let refusal = Fault::from(rules.refusal(here, state.tag.clone()));
                    self.tally.failed(format!("{upstream}:{}", state.tag), &refusal);
                    continue;
                }
                let goes = match self.mode {
                    SyncMode::DryRun => true,
                    SyncMode::Copy => self.domain.delete_tag_of(here, &state.tag, state.generation).await?,
                };
                if goes {
                    self.tally.expect(1);
                    self.tally.told(format!("{upstream}:{}", state.tag), SyncFate::Pruned);
                }
            }
            Ok::<_, Fault>(())
        };
        if let Err(fault) = pruned.await {
            self.tally.failed(upstream.to_string(), &fault);
        }
    }

    /// Repositories here that a list would name if the upstream still had them: by their names there and here.
    async fn gone(&self, listed: &Listed<'_>) -> Result<Vec<(Name, Name)>, Fault> {
        let lists: Vec<&Repositories> = self
            .asked
            .artifacts
            .iter()
            .map(|artifacts| &artifacts.repositories)
            .filter(|repositories| !matches!(repositories, Repositories::One(_)))
            .collect();
        let mut gone = self.named_here(&lists).await?;
        gone.retain(|(upstream, _)| !listed.repositories.contains_key(upstream));
        Ok(gone)
    }

    /// Repositories here whose names one of the lists takes: by their names there and here.
    async fn named_here(&self, lists: &[&Repositories]) -> Result<Vec<(Name, Name)>, Fault> {
        let (mut named, mut after) = (Vec::new(), None);
        while !lists.is_empty() {
            let page = Page { limit: None, after: after.take() };
            let found = self.domain.catalog(&page, |_| true).await?;
            for here in &found.repositories {
                let upstream = match &self.asked.path {
                    None => Some(here.clone()),
                    Some(path) => below(here, path),
                };
                let upstream = upstream.filter(|name| lists.iter().any(|list| list.take(name)));
                named.extend(upstream.map(|name| (name, here.clone())));
            }
            match found.repositories.last() {
                Some(last) if found.more => after = Some(last.to_string()),
                _ => break,
            }
        }
        Ok(named)
    }
}
