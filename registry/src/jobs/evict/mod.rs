// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Eviction: what of other registries is kept longer, older or more than its mirror says goes.
//!
//! A step of a collection. What goes is deleted like anything else, without a rest in the trash: it can be fetched
//! again. Guarantees: without the answer what runs nothing goes, where what runs is protected.

mod plan;

use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use super::gc::GcError;
use crate::blobs::Store;
use crate::config::Eviction;
use crate::meta::{DeleteOutcome, Epoch, MetaStore};
use crate::outbox;
use crate::usage::{Unanswered, Usage};

/// Rows of a page.
const ROWS: u32 = 200;

/// The caches to look at, and what runs: `None` where that is not protected.
#[derive(Debug)]
pub struct Evicting {
    /// What goes from which cache.
    pub caches: Vec<Eviction>,
    /// What runs, or why that is not known.
    pub usage: Result<Option<Usage>, Unanswered>,
}

/// Deletes what goes; how many manifests went.
pub(super) async fn evict(
    meta: &dyn MetaStore,
    store: &dyn Store,
    epoch: Epoch,
    caches: &[Eviction],
    usage: Option<&Usage>,
) -> Result<u64, GcError> {
    let mut count = 0;
    for rules in caches {
        let (mut cached, mut after) = (Vec::new(), None);
        loop {
            let page = meta.cached_manifests(&rules.path, after, ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            cached.extend(page);
        }
        let gap = meta.pull_gap().await?;
        for (repository, digest) in plan::plan(&cached, rules, usage, gap) {
            count += u64::from(delete(meta, store, epoch, &repository, &digest).await?);
        }
    }
    Ok(count)
}

/// `false`: it is gone already, or something refers to it by now.
async fn delete(
    meta: &dyn MetaStore,
    store: &dyn Store,
    epoch: Epoch,
    repository: &Name,
    digest: &Digest,
) -> Result<bool, GcError> {
    // Also with a tag that is immutable: it is a copy, whose original goes on naming what it does.
    let spared = |_: &Tag| false;
    match meta.delete_manifest(epoch, repository, digest, Duration::ZERO, &spared).await? {
        DeleteOutcome::Deleted(removal) => {
            outbox::carry_out(store, &removal.steps).await?;
            meta.finish_removal(&removal).await?;
            tracing::debug!(repo.name = %repository, manifest.digest = %digest, "evicted");
            Ok(true)
        }
        DeleteOutcome::Referenced | DeleteOutcome::Spared(_) | DeleteOutcome::Unknown => Ok(false),
    }
}
