// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where a request leads: to a repository of ours, to one of a mirror, or to the members of a virtual one.
//!
//! It is decided before rights are, because rights are about the name under which a repository is stored. In this order:
//! `ns`, the path of a virtual repository, that of a mirror, the host of a mirror in the name, our own, the default.

use http::request::Parts;
use stowage_oci::Name;

use super::dispatch::Named;
use super::error::Failure;
use super::parse::{self, Refusal};
use super::query::Query;
use super::{Site, mirror, virtuals};
use crate::domain::{Combined, Domain, Mirrored, Place, Within};
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
    /// Members of a virtual repository.
    Members(Combined),
    /// The name is the path of a mirror or a virtual repository, and nobody's repository. Why it takes no writes.
    Nowhere(&'static str),
    /// A virtual repository that does not answer.
    Suspended,
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
    let here = |operation: Operation| {
        let writes = matches!(operation.action(), Some(Action::Push | Action::Delete));
        let is_copied = writes && operation.repository().is_some_and(|name| domain.is_copied(name));
        let place = if is_copied { Where::Nowhere(mirror::NO_WRITES) } else { Where::Here };
        Asked { operation, named: None, place }
    };
    let Some(name) = operation.repository().cloned() else { return Ok(here(operation)) };
    let registry = parse::other_registry(site, &mirrors, query)?.map(str::to_owned);
    let there = |operation: Operation, name: Name, at: Mirrored| Asked {
        operation: operation.in_repository(at.stored.clone()),
        named: Some(Named { name, registry: registry.clone() }),
        place: Where::There(at),
    };
    if registry.is_none()
        && let Some(within) = domain.virtuals().place(&name, &mirrors)
    {
        let place = match within {
            Within::Members(at) => Where::Members(Combined {
                push_to: at.push_to.filter(|member| !domain.is_copied(member)),
                ..at
            }),
            Within::Nowhere => Where::Nowhere(virtuals::NO_WRITES),
            Within::Suspended => Where::Suspended,
        };
        return Ok(Asked { operation, named: Some(Named { name, registry: None }), place });
    }
    Ok(match mirrors.place(&name, registry.as_deref()).map_err(Refusal::Name)? {
        Place::Local(_) => here(operation),
        Place::Nowhere => Asked { operation, named: None, place: Where::Nowhere(mirror::NO_WRITES) },
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
