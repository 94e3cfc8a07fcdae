// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether the database was found to be away a moment ago.
//!
//! Finding out takes a second. During an outage one request a second pays for it; the others are answered
//! from the bucket at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::reconcile::Unit;
use super::{Domain, Error};
use crate::meta::{self, Epoch};

/// How long the finding counts.
const MOMENT: Duration = Duration::from_secs(1);

/// How long a read waits for the database to be taken over, and for names to be compared.
const TAKE_OVER: Duration = Duration::from_secs(5);

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
    /// Asks the database about the names `units`. `None`: it is away, empty, or being taken over by somebody who
    /// takes long; ask the bucket.
    pub(super) async fn ask<T, F>(
        &self,
        units: &[Unit],
        question: impl Fn(Epoch) -> F,
    ) -> Result<Option<T>, Error>
    where
        F: Future<Output = Result<T, meta::Error>>,
    {
        if self.outage.is_on() {
            return Ok(None);
        }
        match self.ask_database(units, question).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::DatabaseAway(meta::Error::Unavailable(cause))) => {
                tracing::warn!(error = %cause, "the database is away; reading from the bucket");
                self.outage.found();
                Ok(None)
            }
            Err(Error::RebuildRequired | Error::DatabaseAway(meta::Error::Superseded)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, where nobody else can answer.
    pub(super) async fn ask_database<T, F>(
        &self,
        units: &[Unit],
        question: impl Fn(Epoch) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, meta::Error>>,
    {
        let superseded = || Error::DatabaseAway(meta::Error::Superseded);
        let deadline = tokio::time::Instant::now() + TAKE_OVER;
        loop {
            let asked = async {
                let token = self.trust.ensure(units).await?;
                self.step(token.epoch, question(token.epoch)).await
            };
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Err(Error::DatabaseAway(meta::Error::Superseded)))
                    if tokio::time::Instant::now() < deadline => {}
                Ok(answer) => return answer,
                Err(_) => return Err(superseded()),
            }
        }
    }
}
