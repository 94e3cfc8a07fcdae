// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What became of each item of a run, and of all together.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use stowage_oci::Name;

use super::{SyncProgress, Tell};
use crate::domain::Error;
use crate::signatures::Unsigned;
use crate::upstream::{self, Kind, Refusal};

/// The most failures that are kept by name.
const MOST_FAILURES: usize = 10;

/// A tag, or what else could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncItem {
    /// `repository:tag` by its name at the upstream; a repository or a list where that failed as a whole.
    pub reference: String,
    /// What became of it.
    pub fate: SyncFate,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncFate {
    /// It, or something that refers to it, was copied.
    Copied,
    /// It was the same here.
    Unchanged,
    /// What is here is later.
    Later,
    /// It was deleted here, as the upstream has it no longer.
    Pruned,
    /// It was not copied.
    Failed {
        /// Why, in one CamelCase word.
        reason: &'static str,
        /// Why, for a human.
        message: String,
    },
}

impl SyncFate {
    /// Its name in output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Unchanged => "unchanged",
            Self::Later => "later",
            Self::Pruned => "pruned",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Tags that were copied, or something that refers to them was.
    pub copied: u64,
    /// Tags that were the same, or later, here.
    pub skipped: u64,
    /// What was not copied.
    pub failed: u64,
    /// Tags that were deleted here.
    pub pruned: u64,
    /// Blobs that were fetched.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What failed, the first ten: reference, and why in one CamelCase word.
    pub failures: Vec<(String, &'static str)>,
}

impl Synced {
    /// What it counted, by name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        [
            ("copied", self.copied),
            ("skipped", self.skipped),
            ("failed", self.failed),
            ("pruned", self.pruned),
            ("fetchedBlobs", self.blobs),
            ("fetchedBytes", self.bytes),
        ]
        .into()
    }
}

/// Counts what becomes of items, and tells it.
pub(super) struct Tally<'a> {
    tell: &'a dyn Tell,
    known: AtomicU64,
    done: AtomicU64,
    synced: Mutex<Synced>,
    fetched: Fetched,
}

/// What was fetched.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetched(std::sync::Arc<(AtomicU64, AtomicU64)>);

impl Fetched {
    /// Some bytes of a blob.
    pub(super) fn bytes(&self, bytes: u64) {
        self.0.1.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A blob to its end.
    pub(super) fn blob(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<'a> Tally<'a> {
    pub(super) fn new(tell: &'a dyn Tell) -> Self {
        Self {
            tell,
            known: AtomicU64::new(0),
            done: AtomicU64::new(0),
            synced: Mutex::default(),
            fetched: Fetched::default(),
        }
    }

    /// So many items more are known of.
    pub(super) fn expect(&self, items: usize) {
        self.known.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// One of them was a repository, whose tags are known now.
    pub(super) fn found(&self) {
        self.known.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) const fn fetched(&self) -> &Fetched {
        &self.fetched
    }

    pub(super) fn has_failures(&self) -> bool {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).failed > 0
    }

    pub(super) fn failed(&self, reference: String, fault: &Fault) {
        let fate = SyncFate::Failed { reason: fault.reason(), message: fault.to_string() };
        self.told(reference, fate);
    }

    pub(super) fn told(&self, reference: String, fate: SyncFate) {
        let item = SyncItem { reference, fate };
        {
            let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
            match &item.fate {
                SyncFate::Copied => synced.copied += 1,
                SyncFate::Unchanged | SyncFate::Later => synced.skipped += 1,
                SyncFate::Pruned => synced.pruned += 1,
                SyncFate::Failed { reason, .. } => {
                    synced.failed += 1;
                    if synced.failures.len() < MOST_FAILURES {
                        synced.failures.push((item.reference.clone(), reason));
                    }
                }
            }
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let known = self.known.load(Ordering::Relaxed).max(done);
        (self.tell)(&item, SyncProgress { done, known });
    }

    pub(super) fn end(&self) -> Synced {
        let counted = &*self.fetched.0;
        let (blobs, bytes) = (counted.0.load(Ordering::Relaxed), counted.1.load(Ordering::Relaxed));
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Synced { blobs, bytes, ..synced }
    }
}

/// Why an item was not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Upstream(#[from] upstream::Error),
    #[error("{}", told(.0))]
    Own(#[from] Error),
    #[error(
        "a client set this tag here, and the upstream does not say when it set its own: delete the tag here, or leave \
         it out of the mirror"
    )]
    SetLocally,
    #[error("the tag is being set again and again, here or at the upstream; the next run looks at it")]
    Moving,
    #[error(
        "the repository would be below {0}, which is another mirror's or a virtual repository's: give this mirror a path"
    )]
    PathTaken(Name),
    #[error("the repository would have a name that is none: {0}")]
    Name(String),
    #[error("what refers to it goes too deep")]
    TooDeep,
    #[error(
        "the upstream lists no tag of it at all, and tags are here that came from it: nothing is pruned. If it is meant \
         to have none, leave it out of the mirror"
    )]
    UpstreamEmpty,
    #[error("this mirror takes signed images only: {0}")]
    Unsigned(Unsigned),
}

fn told(error: &Error) -> String {
    crate::config::explained(error)
}

impl Fault {
    /// Whether the upstream lacks something of an image: a tag that moved meanwhile may name one that is whole.
    pub(super) fn is_of_what_is_gone(&self) -> bool {
        matches!(self, Self::Moving) || matches!(self, Self::Upstream(error) if error.kind == Kind::NotFound)
    }

    /// One CamelCase word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Upstream(error) => reason_of(error.kind),
            Self::Own(error) => own_reason(error),
            Self::SetLocally => "TagSetLocally",
            Self::Moving => "TagMoves",
            Self::PathTaken(_) => "PathConflict",
            Self::Name(_) => "InvalidName",
            Self::TooDeep => "TooDeep",
            Self::UpstreamEmpty => "UpstreamEmpty",
            Self::Unsigned(unsigned) => unsigned_reason(unsigned),
        }
    }
}

const fn unsigned_reason(unsigned: &Unsigned) -> &'static str {
    match unsigned {
        Unsigned::Missing(_) => "SignatureMissing",
        Unsigned::Invalid { .. } => "SignatureInvalid",
    }
}

const fn reason_of(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "NotFound",
        Kind::Refused(Refusal::Credential) => "AuthenticationFailed",
        Kind::Refused(Refusal::Content) => "AccessDenied",
        Kind::RateLimited { .. } | Kind::NotNow { retry_after: Some(_) } => "RateLimited",
        Kind::NotNow { retry_after: None } => "DatabaseUnavailable",
        Kind::Unavailable { .. } => "UpstreamUnreachable",
        Kind::CertificateInvalid => "CertificateInvalid",
        Kind::NotARegistry => "NotARegistry",
        Kind::TooLarge => "TooLarge",
        Kind::WrongContent => "WrongContent",
    }
}

fn own_reason(error: &Error) -> &'static str {
    match error {
        Error::BodyBroken(cause) => match cause.downcast_ref::<upstream::Error>() {
            Some(error) => reason_of(error.kind),
            None => "UpstreamUnreachable",
        },
        Error::Upstream(error) => reason_of(error.kind),
        Error::Unsigned(unsigned) => unsigned_reason(unsigned),
        Error::BodyStalled => "UpstreamUnreachable",
        Error::DigestMismatch { .. } | Error::LengthMismatch { .. } => "WrongContent",
        Error::BlobTooLarge { .. } => "TooLarge",
        Error::TagImmutable { .. } => "TagImmutable",
        Error::ManifestInvalid(_) => "InvalidManifest",
        Error::ReferencesMissing(_) => "ReferencesMissing",
        Error::TooManyReferrers(_) => "TooManyReferrers",
        Error::TooManyUploads => "TooManyUploads",
        Error::DatabaseAway(_) | Error::RebuildRequired | Error::NotCompared => "DatabaseUnavailable",
        Error::StoreAway(_) => "StorageUnavailable",
        Error::Stopping | Error::Overtaken => "BrokenOff",
        Error::NameUnknown
        | Error::ManifestUnknown
        | Error::BlobUnknown
        | Error::NotInTrash
        | Error::UploadUnknown
        | Error::NotAtOffset { .. }
        | Error::Referenced
        | Error::ModeForbids(_)
        | Error::MirrorLoop
        | Error::Suspended
        | Error::Quarantined { .. }
        | Error::NotFetched { .. }
        | Error::Internal(_) => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f34_what_fails_is_counted_and_the_first_ten_named() {
        let seen = Mutex::new(Vec::new());
        let tell = |item: &SyncItem, progress: SyncProgress| {
            seen.lock().unwrap().push((item.fate.name(), progress.done, progress.known));
        };
        let tally = Tally::new(&tell);
        tally.expect(3);
        tally.found();
        tally.told("a:1".to_owned(), SyncFate::Copied);
        tally.told("a:2".to_owned(), SyncFate::Unchanged);
        assert!(!tally.has_failures());
        for number in 0..12 {
            tally.failed(format!("b:{number}"), &Fault::SetLocally);
        }
        let synced = tally.end();
        assert_eq!((synced.copied, synced.skipped, synced.failed), (1, 1, 12));
        assert_eq!(synced.failures.len(), 10);
        assert_eq!(synced.failures[0], ("b:0".to_owned(), "TagSetLocally"));
        assert_eq!(seen.lock().unwrap()[..3], [("copied", 1, 2), ("unchanged", 2, 2), ("failed", 3, 3)]);
    }
}
