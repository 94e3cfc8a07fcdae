// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who makes a request, once it is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use stowage_oci::Name;

use super::rules::Actions;

/// Somebody whose credential was verified: a user of htpasswd today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name that rules and logs know.
    pub name: Arc<str>,
    /// The groups it is a member of.
    pub groups: Arc<[String]>,
}

/// What a bearer token allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Actions on repositories.
    pub repositories: BTreeMap<Name, Actions>,
    /// Actions on members of virtual repositories, in requests to those.
    pub members: BTreeMap<Name, Actions>,
    /// Whether the catalog may be read.
    pub catalog: bool,
    /// With the catalog: the policies that decide what of it is shown.
    pub policies: Vec<Arc<str>>,
    /// Whether what its bearer pulls does not count as pulled.
    pub uncounted: bool,
}

impl Grants {
    /// What may be done with a repository.
    #[must_use]
    pub fn on(&self, repository: &Name) -> Actions {
        self.repositories.get(repository).copied().unwrap_or_default()
    }

    /// What may be done with a repository as a member of a virtual one.
    #[must_use]
    pub fn on_member(&self, repository: &Name) -> Actions {
        self.members.get(repository).copied().unwrap_or_default().or(self.on(repository))
    }
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nobody in particular: no credential was presented.
    Anonymous,
    /// A principal that presented its own credential with the request.
    User(Principal),
    /// The bearer of one of our tokens.
    Bearer {
        /// The principal that the token was given to; `None` for an anonymous one.
        subject: Option<Arc<str>>,
        /// What the token allows.
        grants: Grants,
    },
}

impl Identity {
    /// The name of the principal; `None` for the anonymous.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::User(principal) => Some(&principal.name),
            Self::Bearer { subject, .. } => subject.as_deref(),
        }
    }
}
