// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Why a configuration cannot be used. Each names the place: file, document, field.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::secrets::SecretError;
use crate::auth::{HtpasswdError, KeyError};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is no YAML.
    #[error("{}: not YAML", .file.display())]
    Yaml {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// The resources break rules.
    #[error("{}", listed(.0))]
    Invalid(Vec<Problem>),
    /// Nothing says which registry to be.
    #[error("there is no Registry in the configuration")]
    NoRegistry,
    /// Several could be meant.
    #[error("the configuration has several registries ({}); choose one with --registry", .0.join(", "))]
    SeveralRegistries(Vec<String>),
    /// The one that was asked for is not there.
    #[error("there is no Registry named {0:?} in the configuration")]
    UnknownRegistry(String),
    /// The compiled document cannot be used.
    #[error("{}", .file.display())]
    Document {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: stowage_crds::document::ParseError,
    },
    /// The document beside resources: it is not clear what holds.
    #[error("{} stands beside other files; a compiled document must be alone", .0.display())]
    Mixed(PathBuf),
    /// A field names a secret that cannot be read.
    #[error("{field}")]
    Secret {
        /// Path of the field.
        field: &'static str,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The users or groups cannot be read.
    #[error("{field}")]
    Users {
        /// Path of the field.
        field: &'static str,
        /// File, line and why.
        #[source]
        source: HtpasswdError,
    },
    /// The keys of tokens cannot be read.
    #[error("{field}")]
    Keys {
        /// Path of the field, or what stands for it.
        field: &'static str,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The certificate or its key cannot be used.
    #[error("spec.tls")]
    Tls(#[source] super::tls::TlsError),
    /// A field's value cannot be used.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// Everybody on the network could push, and nobody said so (W-736).
    #[error(
        "anybody who reaches {0} could push: there is no authentication. Listen on a loopback address, or configure spec.auth (spec.auth.anonymous: PullPush allows it in so many words)"
    )]
    OpenToTheWorld(SocketAddr),
}

/// One rule that one document breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The document within it, from 1.
    pub document: usize,
    /// The field, and what was expected of it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}: {}", self.file.display(), self.document, self.message)
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The error and its causes in one line: what a human gets to read.
#[must_use]
pub fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
