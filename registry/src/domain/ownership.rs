// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One owner per prefix: bucket and database name the same registry, or nothing starts.

use uuid::Uuid;

use crate::blobs::selftest::{FormatError, read_format, write_format};
use crate::blobs::{self, Store};
use crate::meta::{self, Envelope, Epoch, MetaStore};

/// Why bucket and database cannot be used together. All but the first two are refusals for safety.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// The bucket belongs to another registry.
    #[error(
        "the bucket belongs to registry {bucket}, the database to {database}: \
         check bucket, prefix and database URL"
    )]
    Foreign {
        /// Who `FORMAT` names.
        bucket: Uuid,
        /// Who the database names.
        database: Uuid,
    },
    /// The bucket is used, the database is empty.
    #[error(
        "the database is empty but the bucket holds registry {0}: run `rebuild --adopt`, or restore the \
         database, or choose an empty prefix"
    )]
    RebuildRequired(Uuid),
    /// The database is used, the bucket is empty.
    #[error("the database belongs to registry {0}, but the bucket has no v1/FORMAT: check bucket and prefix")]
    BucketEmpty(Uuid),
    /// `FORMAT` is of another layout, or not readable.
    #[error(transparent)]
    Format(FormatError),
}

impl From<FormatError> for OwnershipError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Store(error) => Self::Store(error),
            FormatError::Unreadable(_) | FormatError::Layout(_) => Self::Format(error),
        }
    }
}

/// What to do about what bucket and database say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Serve(Uuid),
    /// Both are empty.
    Found,
    /// The registry was founded in the database, and the process ended before it wrote `FORMAT`.
    Finish(Uuid),
}

/// Checks that `store` and `meta` belong together; founds a registry when both are empty. Returns its id.
pub async fn ensure_owner(store: &dyn Store, meta: &dyn MetaStore) -> Result<Uuid, OwnershipError> {
    loop {
        let verdict = judge(read_format(store).await?.map(|format| format.registry), meta.envelope().await?)?;
        let registry = match verdict {
            Verdict::Serve(registry) => return Ok(registry),
            Verdict::Finish(registry) => registry,
            Verdict::Found => {
                let registry = Uuid::new_v4();
                if !meta.found(registry).await? {
                    // Another replica was faster: look again at what it made.
                    continue;
                }
                registry
            }
        };
        write_format(store, registry).await?;
        tracing::info!(registry = %registry, "founded a registry");
        return Ok(registry);
    }
}

/// `bucket` is who `FORMAT` names.
fn judge(bucket: Option<Uuid>, database: Option<Envelope>) -> Result<Verdict, OwnershipError> {
    match (bucket, database.map(|envelope| (envelope.registry, envelope.epoch))) {
        (Some(bucket), Some((database, _))) if bucket == database => Ok(Verdict::Serve(bucket)),
        (Some(bucket), Some((database, _))) => Err(OwnershipError::Foreign { bucket, database }),
        (Some(bucket), None) => Err(OwnershipError::RebuildRequired(bucket)),
        // No epoch was ever entered, so nothing was ever written.
        (None, Some((database, Epoch(0)))) => Ok(Verdict::Finish(database)),
        (None, Some((database, _))) => Err(OwnershipError::BucketEmpty(database)),
        (None, None) => Ok(Verdict::Found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(7);
    const THEIRS: Uuid = Uuid::from_u128(8);

    fn database(registry: Uuid, epoch: u32) -> Envelope {
        Envelope { registry, schema: 1, epoch: Epoch(epoch), ours: true, walked: true }
    }

    #[test]
    fn only_a_pair_with_one_owner_is_served() {
        assert_eq!(judge(Some(OURS), Some(database(OURS, 3))).unwrap(), Verdict::Serve(OURS));
        assert_eq!(judge(None, None).unwrap(), Verdict::Found);
        let foreign = judge(Some(OURS), Some(database(THEIRS, 3)));
        assert!(matches!(foreign, Err(OwnershipError::Foreign { bucket: OURS, database: THEIRS })));
        assert!(matches!(judge(Some(OURS), None), Err(OwnershipError::RebuildRequired(OURS))));
        assert!(matches!(judge(None, Some(database(OURS, 3))), Err(OwnershipError::BucketEmpty(OURS))));
    }

    #[test]
    fn a_founding_that_was_interrupted_is_finished() {
        assert_eq!(judge(None, Some(database(OURS, 0))).unwrap(), Verdict::Finish(OURS));
    }
}
