// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Why an attempt at a Registry failed, whose turn it is, and what its status says about it.
#![deny(clippy::wildcard_enum_match_arm)]

use stowage_crds::conditions::Reason;
use thiserror::Error;

use super::{jobs::JobFailure, observe, validate::Refusal};
use crate::{apply, policy::Class};

/// Why an attempt failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// Something could not be looked at.
    #[error("observe")]
    Observe(#[from] observe::Error),
    /// The spec cannot be rendered.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An object could not be applied.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The resource itself could not be written.
    #[error("{verb} the registry")]
    Own {
        /// What was tried.
        verb: &'static str,
        /// What came back.
        #[source]
        source: kube::Error,
    },
    /// The migration of the database failed.
    #[error("the migration failed: {}", .0.message)]
    Migration(JobFailure),
    /// The data could not be purged.
    #[error("the data could not be purged: {}", .0.message)]
    Purge(JobFailure),
    /// No replica ever said whose data they are, so none may be purged.
    #[error(
        "no replica has reported the registry's id: annotate stowage.dev/abandon-data=true to leave the data"
    )]
    UnknownRegistry,
}

impl Failure {
    /// Condition reason and metric label.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Apply(error) | Self::Observe(observe::Error::Owned(error)) => of_apply(error),
            Self::Observe(observe::Error::Beside { .. }) | Self::Own { .. } => Reason::Retrying,
            Self::Migration(_) => Reason::MigrationFailed,
            Self::Purge(_) => Reason::LastRunFailed,
            Self::UnknownRegistry => Reason::Refused,
        }
    }

    /// Whose turn it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::UnknownRegistry => Class::Terminal,
            Self::Apply(error) | Self::Observe(observe::Error::Owned(error)) => error.class(),
            Self::Observe(observe::Error::Beside { .. }) | Self::Own { .. } => Class::Transient,
            Self::Migration(failure) | Self::Purge(failure) if failure.is_decided() => Class::Terminal,
            Self::Migration(failure) | Self::Purge(failure) => Class::Waiting(failure.pause()),
        }
    }

    /// For a human, the same as long as the cause is the same.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Apply(error) | Self::Observe(observe::Error::Owned(error)) => describe_apply(error),
            Self::Observe(observe::Error::Beside { what, source }) => {
                format!("list {what}: {}", crate::policy::describe(source))
            }
            Self::Own { verb, source } => format!("{verb} the Registry: {}", crate::policy::describe(source)),
            Self::Refused(_) | Self::Migration(_) | Self::Purge(_) | Self::UnknownRegistry => {
                self.to_string()
            }
        }
    }
}

fn of_apply(error: &apply::Error) -> Reason {
    match error {
        apply::Error::NameTaken { .. } => Reason::NameTaken,
        apply::Error::Rejected { .. } => Reason::InvalidSpec,
        apply::Error::Api { .. } => Reason::Retrying,
    }
}

fn describe_apply(error: &apply::Error) -> String {
    match error {
        apply::Error::Api { source, .. } => format!("{error}: {}", crate::policy::describe(source)),
        apply::Error::NameTaken { .. } | apply::Error::Rejected { .. } => error.to_string(),
    }
}
