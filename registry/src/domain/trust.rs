// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The epoch this process works in: which incarnation of the database it has met.
//!
//! A database that was restarted, failed over or restored is a new incarnation. Whoever notices first takes
//! over: it claims the next number above both the database's and the bucket's newest, writes the epoch object,
//! and enters. A claim that crashed is followed by a higher one.
//!
//! Guarantees: an epoch that was entered is in the bucket; no two incarnations share a number.
//! Never: deletes anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::blobs::Store;
use crate::domain::Error;
use crate::key::{Generation, Key};
use crate::meta::{self, Epoch, MetaStore};
use crate::ops::clock;

/// Knows the current epoch, and finds the next.
pub struct Trust {
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    /// 0: none is known.
    current: AtomicU32,
    taking_over: tokio::sync::Mutex<()>,
}

impl Trust {
    pub(super) fn new(meta: Arc<dyn MetaStore>, store: Arc<dyn Store>) -> Self {
        Self { meta, store, current: AtomicU32::new(0), taking_over: tokio::sync::Mutex::new(()) }
    }

    /// The current epoch; takes the database over first if its incarnation is new.
    pub async fn enter(&self) -> Result<Epoch, Error> {
        if let Some(epoch) = self.known() {
            return Ok(epoch);
        }
        let _one_at_a_time = self.taking_over.lock().await;
        if let Some(epoch) = self.known() {
            return Ok(epoch);
        }
        let epoch = self.find().await?;
        self.current.store(epoch.0, Ordering::Release);
        Ok(epoch)
    }

    /// Forgets `epoch`: a step was told that it is over.
    pub(super) fn leave(&self, epoch: Epoch) {
        let known = &self.current;
        if known.compare_exchange(epoch.0, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
            tracing::debug!(epoch = epoch.0, "the next epoch is known already");
        }
    }

    fn known(&self) -> Option<Epoch> {
        match self.current.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(Epoch(epoch)),
        }
    }

    async fn find(&self) -> Result<Epoch, Error> {
        /// How often to look again while somebody else takes over: in all a little longer than a claim lasts.
        const ATTEMPTS: u32 = 700;
        for _ in 0..ATTEMPTS {
            let envelope =
                self.meta.envelope().await?.ok_or_else(|| Error::Internal("the database is empty".into()))?;
            if envelope.ours && envelope.epoch.0 > 0 {
                return Ok(envelope.epoch);
            }
            if !self.take_over().await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Err(Error::DatabaseAway(meta::Error::Superseded))
    }

    /// `false`: somebody else is at it, or was faster.
    async fn take_over(&self) -> Result<bool, Error> {
        let newest = self.store.list(Key::EPOCHS, None, 1).await?;
        let bucket = newest.first().and_then(|object| match object.key.parse() {
            Ok(Key::Epoch { epoch, .. }) => Some(epoch),
            _ => None,
        });
        let generation = Generation::at(clock::milliseconds());
        let Some(epoch) = self.meta.claim_epoch(bucket.unwrap_or(0), generation).await? else {
            return Ok(false);
        };
        self.store.put(&Key::Epoch { epoch, generation }.to_string(), Vec::new()).await?;
        if !self.meta.enter_epoch(epoch, generation).await? {
            return Ok(false);
        }
        tracing::info!(epoch, "took over a new incarnation of the database");
        // Bucket and database are written together by the same process and nothing collects yet, so there is
        // nothing to compare: the epoch counts as walked.
        self.meta.finish_walk(Epoch(epoch)).await?;
        Ok(true)
    }
}
