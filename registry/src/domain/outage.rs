// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether the database was found to be away a moment ago.
//!
//! Finding out takes a second. During an outage one request a second pays for it; the others are answered
//! from the bucket at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Domain, Error};
use crate::meta;

/// How long the finding counts.
const MOMENT: Duration = Duration::from_secs(1);

/// The memory of the last finding.
pub(super) struct Outage {
    start: Instant,
    /// Milliseconds after `start`.
    until: AtomicU64,
}

impl Outage {
    pub(super) fn none() -> Self {
        Self { start: Instant::now(), until: AtomicU64::new(0) }
    }

    pub(super) fn is_on(&self) -> bool {
        self.milliseconds() < self.until.load(Ordering::Relaxed)
    }

    pub(super) fn found(&self) {
        let moment = u64::try_from(MOMENT.as_millis()).unwrap_or(u64::MAX);
        self.until.store(self.milliseconds() + moment, Ordering::Relaxed);
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Domain {
    /// Asks the database. `None`: it is away; ask the bucket.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, meta::Error>>,
    ) -> Result<Option<T>, Error> {
        if self.outage.is_on() {
            return Ok(None);
        }
        match question.await {
            Ok(answer) => Ok(Some(answer)),
            Err(meta::Error::Unavailable(cause)) => {
                tracing::warn!(error = %cause, "the database is away; reading from the bucket");
                self.outage.found();
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
