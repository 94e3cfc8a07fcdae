// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Asks the upstream, and again when it may go well a moment later.
//!
//! What an upstream says about when to come back holds for the whole run, and is told to the replicas. One that does not
//! answer at all is not waited for by everyone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use crate::upstream::{Answered, Error, Kind};

/// Attempts at one question.
const ATTEMPTS: u32 = 4;
/// Before the second; twice as long before each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Nobody waits longer for an upstream: what it was asked for has failed, until the next run.
const LONGEST: Duration = Duration::from_mins(5);

/// When the upstream may be asked.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Not before.
    until: Mutex<Option<Instant>>,
    /// Whether it did not answer however often it was asked.
    is_down: AtomicBool,
}

impl Run<'_> {
    /// The answer to a question.
    pub(super) async fn ask<T, F>(&self, question: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Answered<T>, Error>>,
    {
        let mut attempt = 1;
        loop {
            let until = *self.patience.until.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(until) = until {
                tokio::time::sleep_until(until).await;
            }
            let error = match question().await {
                Ok(answered) => {
                    self.rate.note(&answered.budget).await;
                    self.patience.is_down.store(false, Ordering::Relaxed);
                    return Ok(answered.value);
                }
                Err(error) => error,
            };
            self.rate.note_error(&error).await;
            let is_down = self.patience.is_down.load(Ordering::Relaxed);
            let Some(pause) = pause_after(error.kind, attempt, is_down) else {
                if matches!(error.kind, Kind::Unavailable { .. }) {
                    self.patience.is_down.store(true, Ordering::Relaxed);
                }
                return Err(error);
            };
            tracing::debug!(mirror.name = self.asked.name, %error, attempt, "the upstream is asked again");
            self.wait(error.kind, pause).await;
            attempt += u32::from(!is_unasked(error.kind));
        }
    }

    async fn wait(&self, kind: Kind, pause: Duration) {
        if matches!(kind, Kind::RateLimited { .. } | Kind::NotNow { .. }) {
            let mut until = self.patience.until.lock().unwrap_or_else(PoisonError::into_inner);
            let then = Instant::now() + pause;
            *until = Some(until.map_or(then, |before| before.max(then)));
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait before the next attempt; `None`: there is none.
fn pause_after(kind: Kind, attempt: u32, is_down: bool) -> Option<Duration> {
    let (Kind::RateLimited { retry_after }
    | Kind::NotNow { retry_after }
    | Kind::Unavailable { retry_after }) = kind
    else {
        return None;
    };
    let is_silent = is_down && matches!(kind, Kind::Unavailable { .. });
    let pause = retry_after.unwrap_or(PAUSE * 2_u32.pow(attempt.saturating_sub(1).min(ATTEMPTS)));
    let is_left = is_unasked(kind) || attempt < ATTEMPTS;
    (is_left && !is_silent && pause <= LONGEST).then_some(pause)
}

/// Whether it is known when there is a turn to ask: to wait for it is no attempt.
const fn is_unasked(kind: Kind) -> bool {
    matches!(kind, Kind::NotNow { retry_after: Some(_) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_asked_again_a_few_times_and_when_the_upstream_says() {
        let (limited, away) =
            (|retry_after| Kind::RateLimited { retry_after }, Kind::Unavailable { retry_after: None });
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pause_after(away, 1, false), seconds(1));
        assert_eq!(pause_after(away, 3, false), seconds(4));
        assert_eq!(pause_after(away, 4, false), None);
        assert_eq!(pause_after(away, 1, true), None, "it did not answer others either");
        assert_eq!(pause_after(limited(seconds(30)), 1, true), seconds(30));
        assert_eq!(pause_after(limited(seconds(3600)), 1, false), None, "that is for the next run");
        assert_eq!(pause_after(Kind::NotFound, 1, false), None);
        let unasked = |retry_after| Kind::NotNow { retry_after };
        assert_eq!(pause_after(unasked(seconds(30)), 9, false), seconds(30), "that was no attempt");
        assert_eq!(pause_after(unasked(seconds(3600)), 1, false), None);
        assert_eq!(pause_after(unasked(None), 1, false), seconds(1), "nobody knows: the database is away");
        assert_eq!(pause_after(unasked(None), 4, false), None);
    }
}
