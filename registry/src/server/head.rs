// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How long HTTP/1 waits for the head of a request: long for one to begin, short for one that began.
//!
//! Hyper has one deadline for both. A connection that rests between two requests must live longer than a proxy
//! keeps it, else requests are lost on connections that are just being closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// How many bytes the client of a connection has said so far.
pub(super) type Said = Arc<AtomicU64>;

/// Hyper's clock for the head of requests on one connection.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer {
    said: Said,
    idle: Duration,
}

impl HeadTimer {
    /// A connection may rest for `idle`.
    pub(super) fn new(said: Said, idle: Duration) -> Self {
        Self { said, idle }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, head: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline {
            said: Arc::clone(&self.said),
            before: self.said.load(Ordering::Relaxed),
            head,
            has_begun: false,
            sleep: Box::pin(tokio::time::sleep(self.idle)),
        })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

struct Deadline {
    said: Said,
    before: u64,
    head: Duration,
    has_begun: bool,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun && self.said.load(Ordering::Relaxed) != self.before {
            self.has_begun = true;
            let until = tokio::time::Instant::now() + self.head;
            self.sleep.as_mut().reset(until);
        }
        self.sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_mins(1);

    async fn passes(mut sleep: Pin<Box<dyn Sleep>>) -> bool {
        let passed = std::future::poll_fn(|cx| sleep.as_mut().poll(cx));
        tokio::time::timeout(SHORT * 10, passed).await.is_ok()
    }

    #[tokio::test]
    async fn w727_a_head_that_began_must_end_soon() {
        let said = Said::default();
        let sleep = HeadTimer::new(Arc::clone(&said), LONG).sleep(SHORT);
        said.fetch_add(1, Ordering::Relaxed);
        assert!(passes(sleep).await);
    }

    #[tokio::test]
    async fn a_connection_may_rest_between_requests() {
        let said = Said::default();
        said.fetch_add(1, Ordering::Relaxed);
        assert!(!passes(HeadTimer::new(Arc::clone(&said), LONG).sleep(SHORT)).await);
        assert!(passes(HeadTimer::new(said, SHORT).sleep(LONG)).await);
    }
}
