// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Deletes what a plan says, in batches, each of which looks again at what it deletes.
//!
//! Where it stands in the order of things: the rows stop naming and the tombstones are queued, in one transaction → the
//! tombstones are written → the queue forgets them. A run that dies in between leaves tombstones to the outbox.

use std::time::Duration;

use futures::future::{BoxFuture, join};
use futures::stream::{self, StreamExt as _};
use stowage_oci::{Name, Tag};

use super::{Outgoing, Pass, RetentionError};
use crate::meta::{ManifestId, OutgoingTag, Removal, UntaggedWanted};
use crate::outbox;
use crate::retention::{Policy, Referrers};

/// How many tags a transaction deletes.
const BATCH: usize = 200;
/// How many manifests a transaction deletes.
const MANIFESTS: u32 = 200;
/// Tombstones written at the same time.
const AT_ONCE: usize = 32;

impl Pass<'_> {
    /// Deletes the tags that the plan gave up, then the manifests that no tag holds.
    pub(super) async fn enforce(&mut self) -> Result<(), RetentionError> {
        // The tombstones of a batch are written while the next one is decided.
        let mut owed = Vec::new();
        for Outgoing { repository, tags } in std::mem::take(&mut self.outgoing) {
            for batch in tags.chunks(BATCH) {
                let (retired, written) = join(self.retire(&repository, batch), self.carry_out(owed)).await;
                written?;
                let retired = retired?;
                self.retained.skipped += (batch.len() - retired.len()) as u64;
                self.retained.deleted += retired.len() as u64;
                owed = retired.into_iter().map(|(_, removal)| removal).collect();
            }
        }
        self.carry_out(owed).await?;
        if self.policy.untagged.is_some() {
            for repository in std::mem::take(&mut self.repositories) {
                self.trash_untagged(&repository).await?;
            }
        }
        Ok(())
    }

    async fn retire(
        &self,
        repository: &Name,
        batch: &[OutgoingTag],
    ) -> Result<Vec<(Tag, Removal)>, RetentionError> {
        let (meta, planned, retain) =
            (&self.retainer.meta, self.clock.now, self.settings.retained(repository));
        let retired = meta.retire_tags(self.epoch, repository, batch, planned, retain).await?;
        for (tag, _) in &retired {
            tracing::info!(
                policy.name = self.policy.name,
                repo.name = %repository,
                tag.name = %tag,
                "tag deleted"
            );
        }
        Ok(retired)
    }

    /// Writes tombstones, and forgets those that are written. What fails stays queued.
    async fn carry_out(&self, removals: Vec<Removal>) -> Result<(), RetentionError> {
        let store = &*self.retainer.store;
        let writes: Vec<BoxFuture<'_, Result<i64, outbox::Error>>> = removals
            .into_iter()
            .map(|Removal { outbox, steps }| -> BoxFuture<'_, _> {
                Box::pin(async move { outbox::carry_out(store, &steps).await.map(|()| outbox) })
            })
            .collect();
        let outcomes: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        let (mut written, mut failed) = (Vec::new(), None);
        for outcome in outcomes {
            match outcome {
                Ok(row) => written.push(row),
                Err(error) => failed = Some(error),
            }
        }
        if !written.is_empty() {
            self.retainer.meta.settle_removals(self.epoch, &written).await?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Puts manifests of a repository into the trash that no tag, index or subject holds.
    async fn trash_untagged(&mut self, repository: &Name) -> Result<(), RetentionError> {
        let policies = self.settings.policies.of(repository);
        let (rest, retain) = (untagged_after(&policies), self.settings.retained(repository));
        let spares_referrers = policies.iter().any(|policy| policy.referrers == Referrers::Keep);
        let wanted = UntaggedWanted { rest, spares_referrers };
        let mut after = ManifestId(0);
        loop {
            let meta = &self.retainer.meta;
            let found = meta.untagged(repository, wanted, after, MANIFESTS).await?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            after = *last;
            let digests: Vec<_> = found.iter().map(|(_, digest)| *digest).collect();
            let running = self.running_of(repository, &digests).await?;
            let is_held = |digest| {
                running.contains(digest) || self.settings.pinned.contains(&(repository.clone(), *digest))
            };
            let gone = found.iter().filter(|(_, digest)| !is_held(digest)).map(|(id, _)| *id);
            let gone: Vec<ManifestId> = gone.collect();
            if !gone.is_empty() {
                self.retained.manifests += meta.trash_untagged(self.epoch, &gone, rest, retain).await?;
            }
        }
    }
}

/// How long a manifest of a repository without a tag stays: as long as all policies that match agree upon.
fn untagged_after(policies: &[&Policy]) -> Duration {
    let after = policies.iter().filter_map(|policy| policy.untagged).max().unwrap_or(Duration::MAX);
    after.max(policies.iter().map(|policy| policy.min_age).max().unwrap_or_default())
}
