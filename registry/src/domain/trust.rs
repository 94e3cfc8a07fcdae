// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How far the database is believed: which incarnation of it this process has met, and what of it was compared
//! with the bucket.
//!
//! A database that was restarted, failed over or restored is a new incarnation. Whoever notices first takes
//! over: it claims the next number above both the database's and the bucket's newest, writes the epoch object,
//! and enters. A claim that crashed is followed by a higher one.
//!
//! Until a walk has compared everything, each name that an operation touches is compared first (a *unit*). The
//! statement that uses the answer checks that the epoch is still that of the [`Token`].
//!
//! Guarantees: an epoch that was entered is in the bucket; no two incarnations share a number; no promise rests
//! on a row that was not compared in its epoch. A registry that was just founded has nothing to compare.
//! Never: deletes anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use quick_cache::sync::Cache;
use tokio::sync::Notify;

use super::reconcile::{Comparer, Unit};
use crate::blobs::Store;
use crate::domain::Error;
use crate::key::{Generation, Key};
use crate::meta::{self, Epoch, MetaStore};
use crate::ops::clock;

/// How many names are remembered as compared. What is forgotten is compared again.
const REMEMBERED: usize = 100_000;

/// In which epoch an operation works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The epoch.
    pub epoch: Epoch,
    /// Whether everything was compared with the bucket in it.
    pub trusted: bool,
}

/// Knows the current epoch, and finds the next.
pub struct Trust {
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    comparer: Comparer,
    /// Epoch and whether it is walked, as `2 * epoch + walked`. 0: none is known.
    current: AtomicU64,
    taking_over: tokio::sync::Mutex<()>,
    compared: Cache<(Epoch, Unit), ()>,
    entered: Notify,
}

impl Trust {
    pub(super) fn new(comparer: Comparer) -> Self {
        Self {
            meta: Arc::clone(&comparer.meta),
            store: Arc::clone(&comparer.store),
            comparer,
            current: AtomicU64::new(0),
            taking_over: tokio::sync::Mutex::new(()),
            compared: Cache::new(REMEMBERED),
            entered: Notify::new(),
        }
    }

    /// The current epoch; takes the database over first if its incarnation is new.
    pub async fn enter(&self) -> Result<Token, Error> {
        if let Some(token) = self.known() {
            return Ok(token);
        }
        let _one_at_a_time = self.taking_over.lock().await;
        if let Some(token) = self.known() {
            return Ok(token);
        }
        let token = self.find().await?;
        self.know(token);
        self.entered.notify_waiters();
        Ok(token)
    }

    /// Makes sure that the names are compared with the bucket.
    pub(super) async fn ensure(&self, units: &[Unit]) -> Result<Token, Error> {
        let token = self.enter().await?;
        if token.trusted || units.is_empty() {
            return Ok(token);
        }
        let compare = |unit| -> BoxFuture<'_, _> { Box::pin(self.compare(token.epoch, unit)) };
        let compared = try_join_all(units.iter().map(compare)).await;
        match compared {
            Ok(_) => Ok(token),
            Err(error) => {
                if matches!(error, Error::DatabaseAway(meta::Error::Superseded)) {
                    self.leave(token.epoch);
                }
                Err(error)
            }
        }
    }

    /// Those who ask for the same name wait for one comparison.
    async fn compare(&self, epoch: Epoch, unit: &Unit) -> Result<(), Error> {
        let Err(ours) = self.compared.get_value_or_guard_async(&(epoch, unit.clone())).await else {
            return Ok(());
        };
        if self.comparer.unit(epoch, unit).await? {
            // Not remembered: the epoch was. A full cache or one that was emptied forgets it, too.
            let _kept = ours.insert(());
        } else {
            self.walked(epoch);
        }
        Ok(())
    }

    /// The current epoch, if all of it was compared.
    pub(super) async fn trusted(&self) -> Result<Epoch, Error> {
        let token = self.enter().await?;
        if token.trusted {
            return Ok(token.epoch);
        }
        self.look_again().await?;
        match self.enter().await? {
            Token { epoch, trusted: true } => Ok(epoch),
            Token { .. } => Err(Error::NotCompared),
        }
    }

    /// Asks the database whether the epoch is still the current one, and whether it is walked by now.
    pub async fn look_again(&self) -> Result<(), Error> {
        let Some(token) = self.known() else { return Ok(()) };
        match self.meta.envelope().await? {
            Some(envelope) if envelope.ours && envelope.epoch == token.epoch => {
                if envelope.walked {
                    self.walked(token.epoch);
                }
            }
            _ => self.leave(token.epoch),
        }
        Ok(())
    }

    /// All of `epoch` was compared.
    pub fn walked(&self, epoch: Epoch) {
        let (unwalked, walked) = (encoded(epoch, false), encoded(epoch, true));
        let swapped = self.current.compare_exchange(unwalked, walked, Ordering::AcqRel, Ordering::Acquire);
        if swapped.is_ok() {
            self.compared.clear();
        }
    }

    /// Forgets `epoch`: a step was told that it is over.
    pub(super) fn leave(&self, epoch: Epoch) {
        let known = self.current.load(Ordering::Acquire);
        if decoded(known).is_some_and(|token| token.epoch == epoch) {
            // Somebody may have found the next one meanwhile: then there is nothing to forget.
            let forgotten = self.current.compare_exchange(known, 0, Ordering::AcqRel, Ordering::Acquire);
            tracing::debug!(epoch = epoch.0, forgotten = forgotten.is_ok(), "the epoch is over");
        }
    }

    /// Becomes ready when an epoch was entered after this was called.
    pub fn next_epoch(&self) -> impl Future<Output = ()> + '_ {
        self.entered.notified()
    }

    /// The current epoch, as far as it is known without asking.
    pub(super) fn known(&self) -> Option<Token> {
        decoded(self.current.load(Ordering::Acquire))
    }

    fn know(&self, token: Token) {
        // What was compared in an earlier epoch will not be asked for again.
        self.compared.clear();
        self.current.store(encoded(token.epoch, token.trusted), Ordering::Release);
    }

    async fn find(&self) -> Result<Token, Error> {
        /// How often to look again while somebody else takes over: in all a little longer than a claim lasts.
        const ATTEMPTS: u32 = 700;
        for _ in 0..ATTEMPTS {
            let envelope = self.meta.envelope().await?.ok_or(Error::RebuildRequired)?;
            if envelope.ours && envelope.epoch.0 > 0 {
                return Ok(Token { epoch: envelope.epoch, trusted: envelope.walked });
            }
            if !self.take_over(envelope.epoch).await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Err(Error::DatabaseAway(meta::Error::Superseded))
    }

    /// `false`: somebody else is at it, or was faster.
    async fn take_over(&self, last: Epoch) -> Result<bool, Error> {
        let newest = self.comparer.newest_epoch().await?;
        let generation = Generation::at(clock::milliseconds());
        let Some(epoch) = self.meta.claim_epoch(newest.map_or(0, |epoch| epoch.0), generation).await? else {
            return Ok(false);
        };
        self.store.put(&Key::Epoch { epoch, generation }.to_string(), Vec::new()).await?;
        if !self.meta.enter_epoch(epoch, generation).await? {
            return Ok(false);
        }
        // Nothing is written before an epoch was entered: neither side holds anything.
        let is_founded = last == Epoch(0) && newest.is_none() && self.holds_nothing().await?;
        if is_founded {
            self.meta.finish_walk(Epoch(epoch)).await?;
        }
        tracing::info!(epoch, founded = is_founded, "took over a new incarnation of the database");
        Ok(true)
    }

    /// Whether there is neither data nor a record in the bucket.
    async fn holds_nothing(&self) -> Result<bool, Error> {
        for prefix in [Key::BLOBS, Key::REPOSITORIES] {
            if !self.store.list(prefix, None, 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn encoded(epoch: Epoch, walked: bool) -> u64 {
    u64::from(epoch.0) << 1 | u64::from(walked)
}

fn decoded(current: u64) -> Option<Token> {
    let epoch = u32::try_from(current >> 1).ok().filter(|epoch| *epoch > 0)?;
    Some(Token { epoch: Epoch(epoch), trusted: current & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_and_whether_it_is_walked_fit_into_one_number() {
        for (epoch, walked) in [(1, false), (1, true), (u32::MAX, true)] {
            let token = Token { epoch: Epoch(epoch), trusted: walked };
            assert_eq!(decoded(encoded(Epoch(epoch), walked)), Some(token));
        }
        assert_eq!(decoded(0), None);
    }
}
