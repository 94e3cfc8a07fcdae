// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One owner per prefix: bucket and database name the same registry, or nothing starts.

use uuid::Uuid;

use crate::blobs::{self, Store};
use crate::key::Key;
use crate::meta::{self, Envelope, MetaStore};

/// The layout of keys that this version reads and writes.
const LAYOUT: u32 = 1;

/// What `v1/FORMAT` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Format {
    layout: u32,
    registry: Uuid,
}

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
        "the database is empty but the bucket holds registry {0}: restore the database, \
         or choose an empty prefix (rebuilding a database from its bucket comes in a later release)"
    )]
    RebuildRequired(Uuid),
    /// The database is used, the bucket is empty.
    #[error("the database belongs to registry {0}, but the bucket has no v1/FORMAT: check bucket and prefix")]
    BucketEmpty(Uuid),
    /// `FORMAT` is of another layout, or not readable.
    #[error("v1/FORMAT of the bucket is not of layout {LAYOUT}: a newer version wrote it, or it is damaged")]
    UnknownLayout,
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
        let verdict = judge(read_format(store).await?, meta.envelope().await?)?;
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
        let format =
            serde_json::to_vec(&Format { layout: LAYOUT, registry }).expect("a number and an id serialise");
        store.put(&Key::Format.to_string(), vec![format.into()]).await?;
        tracing::info!(registry = %registry, "founded a registry");
        return Ok(registry);
    }
}

fn judge(format: Option<Format>, envelope: Option<Envelope>) -> Result<Verdict, OwnershipError> {
    match (format, envelope) {
        (Some(format), _) if format.layout != LAYOUT => Err(OwnershipError::UnknownLayout),
        (Some(format), Some(envelope)) if format.registry == envelope.registry => {
            Ok(Verdict::Serve(format.registry))
        }
        (Some(format), Some(envelope)) => {
            Err(OwnershipError::Foreign { bucket: format.registry, database: envelope.registry })
        }
        (Some(format), None) => Err(OwnershipError::RebuildRequired(format.registry)),
        // No epoch was ever entered, so nothing was ever written.
        (None, Some(envelope)) if envelope.epoch.0 == 0 => Ok(Verdict::Finish(envelope.registry)),
        (None, Some(envelope)) => Err(OwnershipError::BucketEmpty(envelope.registry)),
        (None, None) => Ok(Verdict::Found),
    }
}

async fn read_format(store: &dyn Store) -> Result<Option<Format>, OwnershipError> {
    use futures::TryStreamExt as _;
    let Some(content) = store.get(&Key::Format.to_string(), None).await? else { return Ok(None) };
    let chunks: Vec<bytes::Bytes> = content.stream.try_collect().await?;
    match serde_json::from_slice(&chunks.concat()) {
        Ok(format) => Ok(Some(format)),
        Err(error) => {
            tracing::error!(%error, "v1/FORMAT cannot be read");
            Err(OwnershipError::UnknownLayout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Epoch;

    fn database(registry: u128, epoch: u32) -> Option<Envelope> {
        let registry = Uuid::from_u128(registry);
        Some(Envelope { registry, schema: 1, epoch: Epoch(epoch), ours: true, walked: true })
    }

    fn bucket(layout: u32, registry: u128) -> Option<Format> {
        Some(Format { layout, registry: Uuid::from_u128(registry) })
    }

    #[test]
    fn only_a_pair_with_one_owner_is_served() {
        assert_eq!(judge(bucket(1, 7), database(7, 3)).unwrap(), Verdict::Serve(Uuid::from_u128(7)));
        assert_eq!(judge(None, None).unwrap(), Verdict::Found);
        assert!(matches!(judge(bucket(1, 7), database(8, 3)), Err(OwnershipError::Foreign { .. })));
        assert!(matches!(judge(bucket(1, 7), None), Err(OwnershipError::RebuildRequired(_))));
        assert!(matches!(judge(None, database(7, 3)), Err(OwnershipError::BucketEmpty(_))));
        assert!(matches!(judge(bucket(2, 7), database(7, 3)), Err(OwnershipError::UnknownLayout)));
    }

    #[test]
    fn a_founding_that_was_interrupted_is_finished() {
        assert_eq!(judge(None, database(7, 0)).unwrap(), Verdict::Finish(Uuid::from_u128(7)));
    }
}
