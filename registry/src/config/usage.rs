// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whose workloads keep what they run, of the document.

use std::collections::BTreeSet;

use stowage_crds::UsageProtection;
use stowage_crds::document::Document;
use stowage_oci::Name;

use super::build::{field, subjects};
use super::error::ConfigError;
use super::files::Origin;
use crate::usage::{Protection, Remote};

/// `None`: what runs is not protected.
pub(super) fn protection(document: &Document, origin: Origin) -> Result<Option<Protection>, ConfigError> {
    let Some(asked) = &document.registry.spec.usage_protection else { return Ok(None) };
    if origin == Origin::Standalone && asked.asks_operator() {
        let problem = "without the operator nobody says what a cluster runs: only RemotesOnly works, with clusters that report";
        return Err(field("spec.usageProtection.scope", problem));
    }
    Ok(Some(Protection {
        asks_operator: asked.asks_operator(),
        remotes: remotes(asked)?,
        paths: paths(document),
    }))
}

fn remotes(asked: &UsageProtection) -> Result<Vec<Remote>, ConfigError> {
    let mut remotes = Vec::new();
    for (place, remote) in asked.remotes.iter().enumerate() {
        let reporter = subjects([&remote.reporter]).pop();
        let path = format!("spec.usageProtection.remotes[{place}].reporter");
        remotes.push(Remote {
            name: remote.name.to_string(),
            reporter: reporter.ok_or_else(|| field(path, "exactly one kind of subject must be set"))?,
            max_age: remote.max_age.to_std(),
        });
    }
    Ok(remotes)
}

/// What stands before names of repositories, in requests and in the database.
fn paths(document: &Document) -> Vec<Name> {
    let mirrors = document.mirrors.iter().filter_map(|entry| entry.spec.path.as_ref());
    let mirrors = mirrors.map(ToString::to_string);
    let virtuals = document.virtual_repositories.iter().flat_map(|entry| {
        let members = entry.spec.members.iter().filter_map(|member| member.repository.as_ref());
        members.map(ToString::to_string).chain([entry.spec.path.to_string()])
    });
    let all: BTreeSet<Name> = mirrors.chain(virtuals).filter_map(|path| path.parse().ok()).collect();
    all.into_iter().collect()
}
