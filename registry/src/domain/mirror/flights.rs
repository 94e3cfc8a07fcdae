// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What several want at once is done once, in a task of its own.
//!
//! Guarantees: who comes while it is done gets its outcome; whoever goes away ends nothing. Nothing is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tracing::Instrument as _;

use crate::ops::tasks::Tasks;

/// What is under way.
pub(super) struct Flights<K, T>(Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>);

impl<K, T> Clone for Flights<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone + Send + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// The outcome of `work`, or of what is under way. `None`: it was ended with the process.
    pub(super) async fn join<F>(&self, tasks: &Tasks, key: K, work: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut outcome = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flights.get(&key) {
                flight.clone()
            } else {
                let (done, outcome) = watch::channel(None);
                flights.insert(key.clone(), outcome.clone());
                let (work, landing) = (work(), Landing { flights: self.clone(), key });
                tasks.spawn(
                    async move {
                        let value = work.await;
                        // Whoever comes from now on begins anew.
                        drop(landing);
                        done.send_replace(Some(value));
                    }
                    .in_current_span(),
                );
                outcome
            }
        };
        let value = outcome.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }
}

/// Takes a flight off the list, however it ends.
struct Landing<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::ops::gate::Gate;

    #[tokio::test]
    async fn all_that_come_meanwhile_share_one_outcome_and_the_next_begins_anew() {
        let (flights, tasks, count) = (Flights::default(), Tasks::new(), Arc::new(AtomicU32::new(0)));
        let gate = Gate::new();
        let work = || {
            let (count, gate) = (Arc::clone(&count), gate.clone());
            async move {
                gate.pass().await;
                count.fetch_add(1, Ordering::SeqCst)
            }
        };
        let (one, other) = (flights.join(&tasks, "a", work), flights.join(&tasks, "a", work));
        let release = async {
            gate.reached().await;
            gate.release();
        };
        let (one, other, ()) = tokio::join!(one, other, release);
        assert_eq!((one, other), (Some(0), Some(0)));
        assert_eq!(flights.join(&tasks, "a", work).await, Some(1));
    }

    #[tokio::test]
    async fn who_goes_away_does_not_end_it() {
        let (flights, tasks, gate) = (Flights::default(), Tasks::new(), Gate::new());
        let work = || {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                7
            }
        };
        let mut first = Box::pin(flights.join(&tasks, "a", work));
        assert!(futures::poll!(&mut first).is_pending());
        gate.reached().await;
        drop(first);
        let second = flights.join(&tasks, "a", || std::future::ready(8));
        let mut second = Box::pin(second);
        assert!(futures::poll!(&mut second).is_pending());
        gate.release();
        assert_eq!(second.await, Some(7));
    }
}
