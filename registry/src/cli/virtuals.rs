// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The virtual repositories of a configuration → those that the registry serves, and back what their paths hide.

use std::sync::Arc;

use stowage_registry::Registry;
use stowage_registry::config::{self, Config, RemoteShadowing, TagResolution, Trouble};
use stowage_registry::domain::{Listing, Member, MemberSource, Pin, Shadowing, VirtualSettings, Virtuals};

/// As the registry takes them.
pub(super) fn settings(config: &Config) -> Vec<VirtualSettings> {
    config.virtuals.iter().map(virtual_repository).collect()
}

fn virtual_repository(configured: &config::Virtual) -> VirtualSettings {
    VirtualSettings {
        name: configured.name.clone(),
        path: configured.path.clone(),
        members: configured.members.iter().map(member).collect(),
        listing: match configured.tag_resolution {
            TagResolution::FirstMember => Listing::FirstMember,
            TagResolution::MergeTags => Listing::Merged,
        },
        shadowing: match configured.remote_shadowing {
            RemoteShadowing::Forbid => Shadowing::Forbidden,
            RemoteShadowing::Allow => Shadowing::Allowed,
        },
        pins: configured.pins.iter().map(pin).collect(),
        is_suspended: configured.is_suspended,
    }
}

fn pin(configured: &config::Pin) -> Pin {
    let config::Pin { repository, tag, digest } = configured.clone();
    Pin { repository, tag, digest }
}

fn member(configured: &config::Member) -> Member {
    Member {
        source: match &configured.source {
            config::Source::Local(prefix) => MemberSource::Local(prefix.clone()),
            config::Source::Copied(prefix) => MemberSource::Copied(prefix.clone()),
            config::Source::Mirror(name) => MemberSource::Mirror(name.clone()),
        },
        include: configured.include.clone(),
        exclude: configured.exclude.clone(),
        takes_pushes: configured.takes_pushes,
    }
}

/// What the paths of virtual repositories hide. Looked for once for each configuration: nothing can be pushed below a
/// path that is virtual.
#[derive(Default)]
pub(super) struct Hiding {
    looked_at: Arc<Virtuals>,
    troubles: Vec<Trouble>,
}

impl Hiding {
    pub(super) async fn troubles(&mut self, registry: &Registry) -> Vec<Trouble> {
        let now = registry.virtuals();
        if !Arc::ptr_eq(&now, &self.looked_at) {
            match registry.hidden_repositories().await {
                Ok(hidden) => {
                    self.looked_at = now;
                    self.troubles =
                        hidden.iter().map(|(name, hidden)| Trouble::of_hidden(name, hidden)).collect();
                    for (_, hidden) in &hidden {
                        tracing::warn!(repo.name = %hidden, "the path of a virtual repository hides a repository");
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "what virtual repositories hide is not known yet");
                }
            }
        }
        self.troubles.clone()
    }
}
