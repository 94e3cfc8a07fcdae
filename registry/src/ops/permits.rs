// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A limit that can be changed while it is in use.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::tasks::Tasks;

/// So many at the same time. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Permits {
    semaphore: Arc<Semaphore>,
    limit: Arc<Mutex<usize>>,
}

impl Permits {
    /// At most `limit` at the same time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(limit)), limit: Arc::new(Mutex::new(limit)) }
    }

    /// One, if there is one now.
    #[must_use]
    pub fn try_one(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    /// `count` of them, as soon as there are so many.
    pub async fn many(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).acquire_many_owned(count).await.ok()
    }

    /// Another limit from now on. What is in use stays so; a lower limit holds once enough has ended.
    pub fn set(&self, limit: usize, tasks: &Tasks) {
        let wanted = limit.min(Semaphore::MAX_PERMITS);
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (*limit, wanted);
        *limit = wanted;
        drop(limit);
        if after > before {
            self.semaphore.add_permits(after - before);
            return;
        }
        let in_use = (before - after) - self.semaphore.forget_permits(before - after);
        if in_use > 0 {
            let (semaphore, stopping) = (Arc::clone(&self.semaphore), tasks.stopping());
            tasks.spawn(async move {
                let excess = semaphore.acquire_many_owned(u32::try_from(in_use).unwrap_or(u32::MAX));
                if let Some(Ok(excess)) = stopping.run_until_cancelled(excess).await {
                    excess.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_that_is_raised_holds_at_once() {
        let permits = Permits::new(1);
        let one = permits.try_one().unwrap();
        assert!(permits.try_one().is_none());
        permits.set(2, &Tasks::new());
        let two = permits.try_one().unwrap();
        assert!(permits.try_one().is_none());
        drop((one, two));
    }

    #[tokio::test]
    async fn a_limit_that_is_lowered_holds_when_enough_has_ended() {
        let (permits, tasks) = (Permits::new(3), Tasks::new());
        let held = [permits.try_one().unwrap(), permits.try_one().unwrap()];
        permits.set(1, &tasks);
        assert!(permits.try_one().is_none());
        drop(held);
        assert!(tasks.wait(std::time::Duration::from_secs(5)).await);
        let one = permits.try_one().unwrap();
        assert!(permits.try_one().is_none());
        drop(one);
    }
}
