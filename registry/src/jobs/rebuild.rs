// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `rebuild`: the database is made, or made right, from the bucket alone.
//!
//! It begins a new epoch and walks it; replicas that serve help, and go on answering pulls and pushes meanwhile.
//! An epoch that is not walked yet is gone on with: what is compared stays compared.
//! Guarantees: nothing is taken over that belongs to somebody else, or that the database is ahead of; nothing is
//! deleted, only queued by the rules of the protocol.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::blobs::selftest::{FormatError, read_format};
use crate::blobs::{self, Store};
use crate::domain::{self, Domain, Limits, Walk, WalkError, Walked};
use crate::key::Key;
use crate::meta::{self, Epoch, MetaStore, WalkProgress};
use crate::ops::tasks::Tasks;

/// What all objects of this layout are below.
const ROOT: &str = "v1/";

/// How a database is rebuilt.
#[derive(Clone, Copy, Debug, Default)]
pub struct RebuildOptions {
    /// Nothing is changed, only counted.
    pub dry_run: bool,
    /// An empty database may be made that of the bucket's registry.
    pub adopt: bool,
    /// Only if the bucket is that registry's.
    pub confirm: Option<Uuid>,
    /// Rows go whose objects are missing, however many.
    pub accept_loss: bool,
    /// Requests to the bucket a second.
    pub requests_per_second: Option<NonZeroU32>,
}

/// Why a database was not rebuilt. All but the first three are refusals for safety.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// The walk did not come to its end.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// There is nothing in the bucket.
    #[error("the bucket holds no registry: check bucket and prefix; nothing was changed")]
    EmptyBucket,
    /// There are objects, and nothing says whose they are.
    #[error(
        "there are objects below v1/, but no v1/FORMAT that says whose they are: \
         check bucket and prefix; nothing was changed"
    )]
    Unowned,
    /// `FORMAT` is of another layout, or not readable.
    #[error("v1/FORMAT cannot be read; use the release that wrote it; nothing was changed")]
    Format(#[source] FormatError),
    /// Bucket and database are of different registries.
    #[error(
        "the bucket belongs to registry {bucket}, the database to {database}: check bucket, prefix and \
         database URL; nothing was changed"
    )]
    Foreign {
        /// Who `FORMAT` names.
        bucket: Uuid,
        /// Who the database names.
        database: Uuid,
    },
    /// An empty database is only given to the bucket's registry when that is asked for.
    #[error(
        "the database is empty and the bucket holds registry {0}: to make this its database, run \
         `rebuild --adopt`; nothing was changed"
    )]
    AdoptionNotAsked(Uuid),
    /// The bucket is another's than it was meant to be.
    #[error(
        "the bucket belongs to registry {bucket}, not to {confirmed}: check bucket and prefix; nothing was changed"
    )]
    NotConfirmed {
        /// Who `FORMAT` names.
        bucket: Uuid,
        /// Who was asked for.
        confirmed: Uuid,
    },
    /// The database has entered epochs that the bucket does not know.
    #[error(
        "the database is ahead of the bucket (epoch {} against {}): this is an older copy of the bucket, or \
         another one; check bucket and prefix, or empty the database first; nothing was changed",
        .database.0, .bucket.0
    )]
    DatabaseAhead {
        /// The database's epoch.
        database: Epoch,
        /// The bucket's newest.
        bucket: Epoch,
    },
    /// One at a time.
    #[error("another rebuild of this registry is running; wait for it, or a minute if it has died")]
    AnotherRuns,
}

impl RebuildError {
    /// Whether nothing was done, or no more, for safety.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Database(_) | Self::Store(_) | Self::Walk(WalkError::Domain(_) | WalkError::Stopped)
        )
    }
}

impl From<FormatError> for RebuildError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Store(error) => Self::Store(error),
            FormatError::Unreadable(_) | FormatError::Layout(_) => Self::Format(error),
        }
    }
}

impl From<crate::domain::Error> for RebuildError {
    fn from(error: crate::domain::Error) -> Self {
        Self::Walk(error.into())
    }
}

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage {
    /// Parts of the bucket that are compared, by all replicas.
    pub parts: WalkProgress,
    /// Objects that this process has listed.
    pub objects: u64,
}

/// Rebuilds the database of `meta` from `store`, and tells `progress` every second how far it is.
pub async fn rebuild(
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    limits: Limits,
    options: RebuildOptions,
    progress: impl Fn(Stage) + Send + Sync,
) -> Result<Walked, RebuildError> {
    let resumed = prepare(&*meta, &*store, options).await?;
    let domain = Domain::new(Arc::clone(&meta), Arc::clone(&store), limits, Tasks::new());
    let walk = Walk::new(&domain, Walk::alone(options.requests_per_second), CancellationToken::new());
    let walk = if options.accept_loss { walk.accepting_loss() } else { walk };
    if options.dry_run {
        let told = telling(&walk, None, &progress);
        return tokio::select! {
            walked = walk.dry_run() => Ok(walked?),
            never = told => match never {},
        };
    }
    let owner = Uuid::new_v4();
    if !meta.hold_rebuild(owner).await? {
        return Err(RebuildError::AnotherRuns);
    }
    if !resumed {
        meta.forget_incarnation().await?;
    }
    let walked = tokio::select! {
        walked = begin(&domain, &walk, &progress) => walked,
        () = lost(&*meta, owner) => return Err(RebuildError::AnotherRuns),
    };
    meta.end_rebuild(owner).await?;
    walked
}

/// Checks that bucket and database belong together, and makes an empty database the bucket's. Whether a walk that
/// is under way can be gone on with.
async fn prepare(
    meta: &dyn MetaStore,
    store: &dyn Store,
    options: RebuildOptions,
) -> Result<bool, RebuildError> {
    let Some(format) = read_format(store).await? else {
        let is_empty = store.list(ROOT, None, 1).await?.is_empty();
        return Err(if is_empty { RebuildError::EmptyBucket } else { RebuildError::Unowned });
    };
    let bucket = format.registry;
    if let Some(confirmed) = options.confirm.filter(|confirmed| *confirmed != bucket) {
        return Err(RebuildError::NotConfirmed { bucket, confirmed });
    }
    let Some(envelope) = meta.envelope().await? else {
        if options.dry_run {
            return Ok(false);
        }
        if !options.adopt {
            return Err(RebuildError::AdoptionNotAsked(bucket));
        }
        meta.found(bucket).await?;
        tracing::info!(registry = %bucket, "the empty database is the bucket's from now on");
        return Ok(false);
    };
    if envelope.registry != bucket {
        return Err(RebuildError::Foreign { bucket, database: envelope.registry });
    }
    let newest = store.list(Key::EPOCHS, None, 1).await?;
    let newest = newest.first().and_then(|object| match object.key.parse() {
        Ok(Key::Epoch { epoch, .. }) => Some(Epoch(epoch)),
        _ => None,
    });
    let newest = newest.unwrap_or(Epoch(0));
    if envelope.epoch > newest {
        return Err(RebuildError::DatabaseAhead { database: envelope.epoch, bucket: newest });
    }
    Ok(envelope.ours && !envelope.walked && envelope.epoch > Epoch(0))
}

async fn begin(
    domain: &Domain,
    walk: &Walk,
    progress: &(impl Fn(Stage) + Send + Sync),
) -> Result<Walked, RebuildError> {
    let mut patience = Patience::default();
    loop {
        let token = domain.trust().enter().await?;
        if token.trusted {
            // Founded just now, or the replicas were faster.
            return Ok(walk.done());
        }
        let told = telling(walk, Some(token.epoch), progress);
        let walked = tokio::select! {
            walked = walk.run(token.epoch) => walked,
            never = told => match never {},
        };
        match walked {
            Ok(walked) => {
                domain.trust().walked(token.epoch);
                progress(stage(walk, Some(token.epoch)).await);
                return Ok(walked);
            }
            Err(WalkError::Domain(error)) => {
                // The database may have been restarted under the walk: it goes on in the next epoch.
                domain.trust().look_again().await?;
                if domain.trust().enter().await?.epoch == token.epoch {
                    // Or one of them was slow for a moment: what is compared stays so.
                    let done = stage(walk, Some(token.epoch)).await.parts.done;
                    if !is_passing(&error) || !patience.is_left(done) {
                        return Err(error.into());
                    }
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the comparison with the bucket goes on after a moment"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long a walk rests that broke off.
const PAUSE: Duration = Duration::from_secs(2);

/// How often a walk may break off that comes no further.
#[derive(Debug, Default)]
struct Patience {
    done: u64,
    failures: u32,
}

impl Patience {
    const FAILURES: u32 = 5;

    /// Whether it may go on, after it broke off with so many parts done.
    fn is_left(&mut self, done: u64) -> bool {
        self.failures = if done > self.done { 1 } else { self.failures + 1 };
        self.done = done;
        self.failures < Self::FAILURES
    }
}

/// Whether the database or the bucket did not answer: the next time they may.
const fn is_passing(error: &domain::Error) -> bool {
    matches!(
        error,
        domain::Error::DatabaseAway(meta::Error::Unavailable(_))
            | domain::Error::StoreAway(blobs::Error::Unavailable { .. })
    )
}

async fn stage(walk: &Walk, epoch: Option<Epoch>) -> Stage {
    let parts = match epoch {
        // It is only shown.
        Some(epoch) => walk.progress(epoch).await.unwrap_or_default(),
        None => WalkProgress::default(),
    };
    Stage { parts, objects: walk.listed() }
}

enum Never {}

async fn telling(walk: &Walk, epoch: Option<Epoch>, progress: &(impl Fn(Stage) + Send + Sync)) -> Never {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        progress(stage(walk, epoch).await);
    }
}

/// Ends when another rebuild has taken over.
async fn lost(meta: &dyn MetaStore, owner: Uuid) {
    const RENEWAL: Duration = Duration::from_secs(20);
    loop {
        tokio::time::sleep(RENEWAL).await;
        if matches!(meta.hold_rebuild(owner).await, Ok(false)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_on_as_long_as_it_comes_further() {
        let mut patience = Patience::default();
        assert!((1..100).all(|done| patience.is_left(done)));
        let left: Vec<bool> = (0..4).map(|_| patience.is_left(99)).collect();
        assert_eq!(left, [true, true, true, false]);
    }
}
