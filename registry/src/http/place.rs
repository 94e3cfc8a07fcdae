// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where a request leads: to a repository of ours, or to one of a mirror.
//!
//! It is decided before rights are, because rights are about the name under which a repository is stored.

use http::request::Parts;
use stowage_oci::Name;

use super::Site;
use super::dispatch::Named;
use super::error::Failure;
use super::parse::{self, Refusal};
use super::query::Query;
use crate::domain::{Domain, Mirrored, Place};
use crate::operation::{Action, Operation};

/// What is asked for, in our words.
pub(super) struct Asked {
    /// About the name that is stored.
    pub(super) operation: Operation,
    /// The repository in the client's words, where they are others.
    pub(super) named: Option<Named>,
    pub(super) place: Where,
}

/// Who has the repository.
pub(super) enum Where {
    /// We do.
    Here,
    /// A mirror.
    There(Mirrored),
    /// The name is a mirror's path, and nobody's repository.
    Nowhere,
}

/// What the request asks for, and of whom.
pub(super) async fn asked(
    domain: &Domain,
    site: &Site,
    parts: &Parts,
    query: &Query,
) -> Result<Asked, Failure> {
    let mirrors = domain.mirrors();
    let operation = parse::operation(site, &mirrors, &parts.method, parts.uri.path(), query)?;
    let here = |operation| Asked { operation, named: None, place: Where::Here };
    let Some(name) = operation.repository().cloned() else { return Ok(here(operation)) };
    let registry = parse::other_registry(site, &mirrors, query)?.map(str::to_owned);
    let there = |operation: Operation, name: Name, at: Mirrored| Asked {
        operation: operation.in_repository(at.stored.clone()),
        named: Some(Named { name, registry: registry.clone() }),
        place: Where::There(at),
    };
    Ok(match mirrors.place(&name, registry.as_deref()).map_err(Refusal::Name)? {
        Place::Local(_) => here(operation),
        Place::Nowhere => Asked { operation, named: None, place: Where::Nowhere },
        Place::Mirror(at) => there(operation, name, at),
        // A push makes a repository of ours; a pull needs one.
        Place::Either(_, _) if operation.action() != Some(Action::Pull) => here(operation),
        Place::Either(_, at) => {
            if domain.has_repository(&name).await? {
                here(operation)
            } else {
                there(operation, name, at)
            }
        }
    })
}
