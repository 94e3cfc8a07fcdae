// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How fast a comparison goes: requests in flight, and requests a second.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Bounds on what a comparison asks of bucket and database. Clones share them.
#[derive(Clone, Debug)]
pub struct Pace {
    bucket: Arc<Semaphore>,
    database: Arc<Semaphore>,
    /// When the next request may be sent, and how long after it the one that follows.
    rate: Option<(Arc<Mutex<Instant>>, Duration)>,
    /// When content may be read again, and how many bytes a second.
    bytes: Option<(Arc<Mutex<Instant>>, NonZeroU64)>,
}

impl Pace {
    /// No more than so many requests in flight.
    #[must_use]
    pub fn new(bucket: usize, database: usize) -> Self {
        Self {
            bucket: Arc::new(Semaphore::new(bucket)),
            database: Arc::new(Semaphore::new(database)),
            rate: None,
            bytes: None,
        }
    }

    /// As fast as one caller asks.
    pub(in crate::domain) fn unlimited() -> Self {
        Self::new(Semaphore::MAX_PERMITS, Semaphore::MAX_PERMITS)
    }

    /// No more than so many requests to the bucket a second, either.
    #[must_use]
    pub fn with_rate(self, requests_per_second: Option<NonZeroU32>) -> Self {
        let rate = requests_per_second.map(|per_second| {
            (Arc::new(Mutex::new(Instant::now())), Duration::from_secs(1) / per_second.get())
        });
        Self { rate, ..self }
    }

    /// No more than so many bytes of content a second, either.
    #[must_use]
    pub fn with_bytes(self, bytes_per_second: Option<NonZeroU64>) -> Self {
        let bytes = bytes_per_second.map(|per_second| (Arc::new(Mutex::new(Instant::now())), per_second));
        Self { bytes, ..self }
    }

    /// Waits until more content may be read, after so many bytes of it.
    pub(in crate::domain) async fn read(&self, bytes: usize) {
        let Some((next, per_second)) = &self.bytes else { return };
        let nanoseconds = (bytes as u128) * 1_000_000_000 / u128::from(per_second.get());
        let interval = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let turn = {
            let mut next = next.lock().await;
            take_turn(&mut next, Instant::now(), interval)
        };
        tokio::time::sleep_until(turn).await;
    }

    /// Waits for the turn of a request to the bucket, which lasts until the permit is dropped.
    pub(super) async fn bucket(&self) -> SemaphorePermit<'_> {
        if let Some((next, interval)) = &self.rate {
            let turn = {
                let mut next = next.lock().await;
                take_turn(&mut next, Instant::now(), *interval)
            };
            tokio::time::sleep_until(turn).await;
        }
        self.bucket.acquire().await.expect("the semaphore is never closed")
    }

    /// Waits for the turn of a step in the database.
    pub(super) async fn database(&self) -> SemaphorePermit<'_> {
        self.database.acquire().await.expect("the semaphore is never closed")
    }
}

/// When a request that is asked for `now` may be sent: no two closer than `interval`, and nothing saved up.
fn take_turn(next: &mut Instant, now: Instant, interval: Duration) -> Instant {
    let turn = (*next).max(now);
    *next = turn + interval;
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spread_over_the_second_and_idle_time_is_not_saved_up() {
        let now = Instant::now();
        let interval = Duration::from_millis(10);
        let mut next = now;
        let mut at = |now| take_turn(&mut next, now, interval);
        assert_eq!([at(now), at(now), at(now)], [now, now + interval, now + 2 * interval]);
        let later = now + Duration::from_secs(5);
        assert_eq!([at(later), at(later)], [later, later + interval]);
    }
}
