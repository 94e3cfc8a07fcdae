// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a failure means for the one who waits: who must act, and when we look again.
//!
//! Guarantees: every failure has one class; the delay between two attempts at one object grows from a second to five
//! minutes and returns to a second after a success.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::Rng as _;

/// Looked at again when nothing happens for this long.
pub const RESYNC: Duration = Duration::from_mins(10);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_mins(5);

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A human: `Stalled`, and nothing is tried before something changes.
    Terminal,
    /// Somebody else, who is expected to: looked at again after the delay, or on their event.
    Waiting(Duration),
    /// Nobody: try again with growing delays.
    Transient,
}

/// Consecutive failures per object.
#[derive(Debug)]
pub struct Failures<Key>(Mutex<HashMap<Key, u32>>);

impl<Key> Default for Failures<Key> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Eq + Hash> Failures<Key> {
    /// Counts one more; returns how many there are now in a row, and how long to wait.
    pub fn count(&self, key: Key) -> (u32, Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = counts.entry(key).or_default();
        *failures = failures.saturating_add(1);
        (*failures, jittered(backoff(*failures), 0.2))
    }

    /// Forgets the failures of an object that succeeded or is gone.
    pub fn reset(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// The delay after so many failures in a row, before jitter.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    LONGEST_DELAY.min(FIRST_DELAY.saturating_mul(1 << doublings))
}

/// `delay`, up to `share` shorter or longer.
#[must_use]
pub fn jittered(delay: Duration, share: f64) -> Duration {
    delay.mul_f64(rand::rng().random_range(1.0 - share..=1.0 + share))
}

/// What an error of the API server means, in words that stay the same as long as the cause does.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 409 => "it was changed meanwhile".to_owned(),
        kube::Error::Api(status) => status.message.clone(),
        _ => "the API server could not be reached".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_a_second_to_five_minutes() {
        let delays: Vec<u64> = (1..=11).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn a_success_starts_the_delays_anew() {
        let failures = Failures::default();
        for _ in 0..8 {
            failures.count("main");
        }
        failures.reset(&"main");
        let (count, delay) = failures.count("main");
        assert_eq!(count, 1);
        assert!(delay <= Duration::from_millis(1200));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        for _ in 0..1000 {
            let delay = jittered(Duration::from_secs(10), 0.2);
            assert!((8.0..=12.0).contains(&delay.as_secs_f64()));
        }
    }
}
