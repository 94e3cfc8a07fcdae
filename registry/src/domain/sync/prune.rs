// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deletes tags that the upstream has no longer.
//!
//! Guarantees: only what this mirror set, and nobody since; only after everything was listed and copied.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use stowage_oci::{Name, Tag};

use super::super::mirror::names::below;
use super::told::Fault;
use super::{Listed, Repositories, Run, SyncFate, SyncMode};
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

    async fn prune_repository(&self, upstream: &Name, here: &Name, tags: &BTreeSet<Tag>) {
        let pruned = async {
            let states = self.states(here).await?;
            for state in states.into_values() {
                let is_ours = !state.is_deleted && state.generation.has(self.mark);
                if !is_ours || tags.contains(&state.tag) {
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
        let (mut gone, mut after) = (Vec::new(), None);
        while !lists.is_empty() {
            let page = Page { limit: None, after: after.take() };
            let found = self.domain.catalog(&page, |_| true).await?;
            for here in &found.repositories {
                let upstream = match &self.asked.path {
                    None => Some(here.clone()),
                    Some(path) => below(here, path),
                };
                let upstream = upstream.filter(|name| lists.iter().any(|list| list.take(name)));
                if let Some(name) = upstream.filter(|name| !listed.repositories.contains_key(name)) {
                    gone.push((name, here.clone()));
                }
            }
            match found.repositories.last() {
                Some(last) if found.more => after = Some(last.to_string()),
                _ => break,
            }
        }
        Ok(gone)
    }
}
