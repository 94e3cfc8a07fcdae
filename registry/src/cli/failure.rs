// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Why a command ended, and with which code.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use stowage_registry::OpenError;
use stowage_registry::archive::ArchiveError;
use stowage_registry::blobs::s3::SettingsError;
use stowage_registry::config::{ConfigError, NotAnArtifact};
use stowage_registry::domain::{self, OwnershipError};
use stowage_registry::jobs::{
    ExportError, GcError, ImportError, LoadError, PurgeError, RebuildError, RetentionError, VerifyError,
};
use stowage_registry::meta;
use stowage_registry::meta::postgres::ConnectError;
use stowage_registry::ops::telemetry::TelemetryError;
use stowage_registry::ops::traces::TracesError;

use super::images::ListError;

const FAILED: u8 = 1;
const UNUSABLE: u8 = 2;
const REFUSED: u8 = 3;

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The registry does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The bucket's settings cannot be used.
    #[error("spec.storage.s3")]
    Bucket(#[from] SettingsError),
    /// The bucket's own rules would remove content.
    #[error(
        "the bucket's lifecycle rule {0:?} removes objects of the registry when they become old: \
         remove the rule, or restrict it to other objects"
    )]
    Expiry(String),
    /// The database cannot be used.
    #[error("spec.database.postgres")]
    Database(#[from] ConnectError),
    /// Not everything was collected.
    #[error(transparent)]
    Gc(#[from] GcError),
    /// It failed on the way.
    #[error("promote")]
    Promote(#[source] domain::Error),
    /// The database's incarnation is new, and was not taken over.
    #[error("take over the database")]
    TakeOver(#[from] domain::Error),
    /// The data was not purged.
    #[error(transparent)]
    Purge(#[from] PurgeError),
    /// The database was not rebuilt.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The database is rebuilt, and there is more in the bucket than this layout knows.
    #[error(
        "the database is rebuilt; {0} objects below the prefix are not of this layout or cannot be read, and were \
         left alone: see the log for their keys, and move or delete them yourself"
    )]
    ForeignObjects(u64),
    /// Not everything was verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Database and bucket disagree.
    #[error(
        "database and bucket disagree in {total} places, of which this run put {repaired} right: see the log for \
         each and what to do about it"
    )]
    Findings { total: u64, repaired: u64, counts: BTreeMap<&'static str, u64> },
    /// Not everything that a mirror replicates is here.
    #[error(
        "{failed} of what the mirror replicates could not be copied, the first of it {first} ({reason}): see above for \
         each and why; the rest is here, and the next run goes on"
    )]
    NotSynced { failed: u64, first: String, reason: &'static str },
    /// Not all of a retention policy was done.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// A run of a retention policy ended before its end.
    #[error("not everything was deleted that the policy gives up; the next run goes on: {0}")]
    NotRetained(String),
    /// A run of a retention policy deleted nothing.
    #[error("nothing was deleted: {0}: {1}")]
    Held(&'static str, String),
    /// The registry takes no such changes.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What was deleted cannot be told.
    #[error("the trash cannot be read")]
    Trash(#[source] domain::Error),
    /// What was promoted cannot be told.
    #[error("the ledger of promotions cannot be read")]
    Ledger(#[source] domain::Error),
    /// It is where it was.
    #[error("{item} was not restored")]
    NotRestored {
        item: String,
        #[source]
        source: domain::Error,
    },
    /// Nothing is promoted.
    #[error("nothing is promoted: {reason}: {message}")]
    NotPromoted { reason: &'static str, message: String },
    /// What is to be promoted is not named.
    #[error(transparent)]
    Artifact(NotAnArtifact),
    /// The address of an upstream cannot be used.
    #[error("the upstream's url cannot be used; see the log")]
    Upstream,
    /// A file's images cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Not everything was exported; there is no file.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Not everything was imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Not everything was fetched.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A list of images cannot be used.
    #[error(transparent)]
    List(#[from] ListError),
    /// A flag does not say what it should.
    #[error("{0}")]
    Usage(String),
    /// The registry did not take what another cluster runs.
    #[error("what runs was not reported: {0}")]
    Unreported(String),
    /// A port cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The system refused something.
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Telemetry(_)
            | Self::Traces(_)
            | Self::Bucket(_)
            | Self::Upstream
            | Self::Artifact(_)
            | Self::Archive(_)
            | Self::List(_)
            | Self::Usage(_)
            | Self::Database(ConnectError::Url(_)) => UNUSABLE,
            Self::Import(error) if error.is_misuse() => UNUSABLE,
            Self::Import(error) if error.is_refusal() => REFUSED,
            Self::Load(error) if error.is_misuse() => UNUSABLE,
            Self::Database(
                ConnectError::Unsafe { .. }
                | ConnectError::Untrusted(_)
                | ConnectError::Meta(meta::Error::Schema { .. }),
            )
            | Self::Expiry(_)
            | Self::ForeignObjects(_)
            | Self::Forbidden(_)
            | Self::Held(..)
            | Self::NotPromoted { .. } => REFUSED,
            Self::Open(error) if is_refusal(error) => REFUSED,
            Self::Purge(error) if error.is_refusal() => REFUSED,
            Self::Gc(error) if error.is_refusal() => REFUSED,
            Self::Retention(error) if error.is_refusal() => REFUSED,
            Self::Rebuild(error) if error.is_refusal() => REFUSED,
            Self::Verify(error) if error.is_refusal() => REFUSED,
            Self::Open(_)
            | Self::Database(_)
            | Self::Purge(_)
            | Self::Gc(_)
            | Self::Rebuild(_)
            | Self::TakeOver(_)
            | Self::Promote(_)
            | Self::Verify(_)
            | Self::Findings { .. }
            | Self::NotSynced { .. }
            | Self::Trash(_)
            | Self::Ledger(_)
            | Self::NotRestored { .. }
            | Self::Retention(_)
            | Self::NotRetained(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Load(_)
            | Self::Unreported(_)
            | Self::Listen { .. }
            | Self::System { .. } => FAILED,
        }
    }

    /// The word for a refusal, if it has one.
    pub(crate) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Gc(error) => error.reason(),
            Self::Retention(error) => error.reason(),
            Self::Held(reason, _) => Some(reason),
            _ => None,
        }
    }

    /// Whether it did not act, for safety.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code() == REFUSED
    }
}

/// Whether going on could harm what somebody else relies on.
fn is_refusal(error: &OpenError) -> bool {
    match error {
        OpenError::Unfit(_) => true,
        OpenError::Ownership(cause) => {
            !matches!(cause, OwnershipError::Database(_) | OwnershipError::Store(_))
        }
        _ => false,
    }
}
