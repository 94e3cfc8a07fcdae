// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Comparing the database with the bucket: the names that an operation touches ([`Unit`]), or everything (the
//! [`walk`]).
//!
//! One way for both: list what the bucket has under some prefixes, read what the rows claim, look for each
//! claimed object that the listing lacks, and settle the difference in one transaction.
//! Guarantees: nothing is believed to be missing that was only not listed. Whatever breaks off in the middle is
//! simply done again.
//! Never: removes an object; what is superfluous is queued.

mod compare;
mod join;
mod keep;
mod pace;
mod units;
mod verify;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use stowage_oci::{Digest, Name, Reference, Tag};
use tokio_util::sync::CancellationToken;

use super::{Error, Limits};
use crate::blobs::Store;
use crate::key::Key;
use crate::meta::{Changes, Epoch, Finding, Loss, MetaStore, Mode, Removal, Scope};
use crate::outbox;

pub use keep::keep_compared;
pub use pace::Pace;
pub use verify::{Verified, Verify, VerifyOptions};
pub use walk::{Walk, WalkError, Walked};

/// A name that an operation touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    /// Data of a digest.
    Blob(Digest),
    /// Whether a repository sees a blob, and its data.
    Link(Name, Digest),
    /// A manifest of a repository.
    Manifest(Name, Digest),
    /// A tag, and what it names.
    Tag(Name, Tag),
    /// The manifests that refer to a subject.
    Referrers(Name, Digest),
    /// All tags of a repository.
    Tags(Name),
}

impl Unit {
    /// What a reference names in a repository.
    pub(super) fn named(repository: &Name, reference: &Reference) -> Self {
        match reference {
            Reference::Digest(digest) => Self::Manifest(repository.clone(), *digest),
            Reference::Tag(tag) => Self::Tag(repository.clone(), tag.clone()),
        }
    }
}

/// Compares names of one database with those of its bucket.
#[derive(Clone)]
pub(super) struct Comparer {
    pub(super) meta: Arc<dyn MetaStore>,
    pub(super) store: Arc<dyn Store>,
    pub(super) limits: Arc<ArcSwap<Limits>>,
}

/// Why a comparison did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The database or the bucket.
    #[error(transparent)]
    Domain(#[from] Error),
    /// The epoch is walked by now.
    #[error("the epoch is walked")]
    Walked,
    /// The breaker.
    #[error("too many {} are missing from the bucket", .0.kind.name())]
    TooManyLosses(Loss),
}

impl From<crate::meta::Error> for Broken {
    fn from(error: crate::meta::Error) -> Self {
        Self::Domain(error.into())
    }
}

impl From<crate::blobs::Error> for Broken {
    fn from(error: crate::blobs::Error) -> Self {
        Self::Domain(error.into())
    }
}

/// One comparison: by whom, how, and how fast.
#[derive(Clone)]
pub(super) struct Work {
    comparer: Comparer,
    scope: Scope,
    pace: Pace,
    tally: Arc<walk::Tally>,
    /// Only of a verification.
    findings: Option<Arc<verify::Findings>>,
}

impl Comparer {
    /// The newest epoch in the bucket.
    pub(super) async fn newest_epoch(&self) -> Result<Option<Epoch>, Error> {
        let newest = self.store.list(Key::EPOCHS, None, 1).await?;
        Ok(newest.first().and_then(|object| match object.key.parse() {
            Ok(Key::Epoch { epoch, .. }) => Some(Epoch(epoch)),
            _ => None,
        }))
    }

    /// Compares a name. `false`: the epoch is walked, which makes it needless.
    pub(super) async fn unit(&self, epoch: Epoch, unit: &Unit) -> Result<bool, Error> {
        match self.work(epoch, Mode::OnDemand, Pace::unlimited()).unit(unit).await {
            Ok(()) => Ok(true),
            Err(Broken::Walked) => Ok(false),
            Err(Broken::Domain(error)) => Err(error),
            // The breaker is the walk's.
            Err(error @ Broken::TooManyLosses(_)) => Err(Error::Internal(Box::new(error))),
        }
    }

    fn work(&self, epoch: Epoch, mode: Mode, pace: Pace) -> Work {
        let retain: Duration = self.limits.load().trash_retention;
        let scope = Scope { epoch, retain, mode };
        Work { comparer: self.clone(), scope, pace, tally: Arc::default(), findings: None }
    }
}

impl Work {
    /// An object that is not of this layout.
    fn leave_alone(&self, key: &str) {
        /// Another program may have put many there. More are only counted.
        const NAMED: u64 = 100;
        let count = self.tally.foreign();
        if let Some(findings) = &self.findings {
            findings.report(&Finding::foreign(key));
        } else if count <= NAMED {
            tracing::warn!(object.key = key, "not an object of this layout; it is left alone");
        }
    }

    /// Writes what the bucket is owed. Whoever empties the queue would do it, too.
    async fn run_errands(&self, errands: &[Removal]) -> Result<(), Error> {
        if self.scope.mode == Mode::DryRun {
            return Ok(());
        }
        for errand in errands {
            outbox::carry_out(&*self.comparer.store, &errand.steps).await?;
            self.comparer.meta.finish_removal(errand).await?;
        }
        Ok(())
    }
}

/// Works on a part whose lease is renewed meanwhile. `None`: it was lost, somebody else does it again.
async fn under_lease<'a>(
    keep: impl Fn() -> BoxFuture<'a, Result<bool, crate::meta::Error>> + Send,
    stopping: &CancellationToken,
    work: BoxFuture<'a, Result<(), Broken>>,
) -> Result<Option<()>, Broken> {
    const RENEWAL: Duration = Duration::from_secs(20);
    let lost = async {
        loop {
            tokio::time::sleep(RENEWAL).await;
            // A database that is away tells nothing: the next renewal, or the end, does.
            if matches!(keep().await, Ok(false)) {
                return;
            }
        }
    };
    tokio::select! {
        done = work => done.map(Some),
        () = lost => Ok(None),
        () = stopping.cancelled() => Err(Error::Stopping.into()),
    }
}

fn merge(into: &mut Changes, more: Changes) {
    for (what, count) in more {
        *into.entry(what).or_default() += count;
    }
}
