// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The end of a registry: every object and every table of it goes.
//!
//! Guarantees: nothing is deleted unless bucket and database name the registry that was confirmed, as far as they
//! still name one. `FORMAT` goes last of the objects, the tables after it, in one transaction: whoever repeats
//! what was interrupted still finds whose the rest is.
//! Assumes: nobody serves the registry any more.
//! Never: touches an object whose key this layout does not know. It may be that of a registry further down.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::blobs::selftest::{FormatError, read_format};
use crate::blobs::{self, Object, Store};
use crate::key::Key;
use crate::meta::{self, Leases};

/// What all objects of this layout are below.
const ROOT: &str = "v1/";
/// Objects of the self-test, which removes them unless it is killed.
const PROBES: &str = "v1/probe/";
/// How many objects are listed, and deleted, at once.
const BATCH: usize = 1000;
/// How often the log is told how far it is.
const TELL: Duration = Duration::from_secs(5);

/// Why data was not purged. The first two may pass; after them it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// It is not the confirmed registry's.
    #[error("the {what} belongs to registry {found}, not to {confirmed}; nothing was deleted")]
    Foreign {
        /// Bucket or database.
        what: &'static str,
        /// Whose it is.
        found: Uuid,
        /// Whose data may be deleted.
        confirmed: Uuid,
    },
    /// There are objects, and nothing says whose they are.
    #[error(
        "there are objects below v1/, but no v1/FORMAT that says whose they are: \
         check bucket and prefix; nothing was deleted"
    )]
    Unowned,
    /// `FORMAT` is of another layout, or not readable.
    #[error("v1/FORMAT cannot be read; nothing was deleted")]
    Format(#[source] FormatError),
}

impl PurgeError {
    /// Whether nothing was done, for safety.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::Database(_) | Self::Store(_))
    }
}

impl From<FormatError> for PurgeError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Store(error) => Self::Store(error),
            FormatError::Unreadable(_) | FormatError::Layout(_) => Self::Format(error),
        }
    }
}

/// What was purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Objects that were deleted.
    pub objects: u64,
    /// Objects below the prefix that are not ours and were left.
    pub foreign: u64,
}

/// Deletes all data of the registry `confirmed`. `meta` is `None` when the database has no tables (any more).
pub async fn purge(
    store: &dyn Store,
    meta: Option<&dyn Leases>,
    confirmed: Uuid,
) -> Result<Purged, PurgeError> {
    let bucket = read_format(store).await?.map(|format| format.registry);
    let database = match meta {
        Some(meta) => meta.envelope().await?.map(|envelope| envelope.registry),
        None => None,
    };
    ensure_ours("bucket", bucket, confirmed)?;
    ensure_ours("database", database, confirmed)?;
    let purged = match bucket {
        Some(_) => empty(store).await?,
        None if store.list(ROOT, None, 1).await?.is_empty() => Purged::default(),
        None => return Err(PurgeError::Unowned),
    };
    if let Some(meta) = meta {
        meta.destroy(confirmed).await?;
        tracing::info!("deleted the tables");
    }
    Ok(purged)
}

fn ensure_ours(what: &'static str, found: Option<Uuid>, confirmed: Uuid) -> Result<(), PurgeError> {
    match found {
        Some(found) if found != confirmed => Err(PurgeError::Foreign { what, found, confirmed }),
        _ => Ok(()),
    }
}

/// Deletes every object of ours, `FORMAT` last.
async fn empty(store: &dyn Store) -> Result<Purged, PurgeError> {
    let format = Key::Format.to_string();
    let mut purged = Purged::default();
    let mut after: Option<String> = None;
    let mut told = Instant::now();
    loop {
        let page = store.list(ROOT, after.as_deref(), BATCH).await?;
        let is_last = page.len() < BATCH;
        after = page.last().map(|object| object.key.clone());
        let (ours, foreign) = sorted(page);
        purged.foreign += foreign.len() as u64;
        if let Some(key) = foreign.first() {
            tracing::warn!(object.key = key, objects = foreign.len(), "objects that are not ours are left");
        }
        let ours: Vec<String> = ours.into_iter().filter(|key| *key != format).collect();
        if !ours.is_empty() {
            store.delete(&ours).await?;
        }
        purged.objects += ours.len() as u64;
        if told.elapsed() > TELL {
            told = Instant::now();
            tracing::info!(objects = purged.objects, "deleting");
        }
        if is_last {
            break;
        }
    }
    store.delete(&[format]).await?;
    purged.objects += 1;
    tracing::info!(objects = purged.objects, "deleted the objects");
    Ok(purged)
}

/// Keys of ours, and others.
fn sorted(page: Vec<Object>) -> (Vec<String>, Vec<String>) {
    let is_ours = |key: &String| key.starts_with(PROBES) || key.parse::<Key>().is_ok();
    page.into_iter().map(|object| object.key).partition(is_ours)
}
