// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How often an upstream may be asked. What it says to one replica, and what its mirror allows, holds for all.
//!
//! Flow: before each request a turn is taken in the upstream's row of the database; requests that come at the same time
//! take theirs in one statement. What an answer says about limits is noted in that row.
//! Guarantees: the turns of all processes together are no closer than the mirror allows, and none are saved up. Nothing
//! is sent by a process that read, since it was asked to send it, that the upstream wants to be left alone.
//! Without the database: who must count does not ask. Others ask, unless this process itself was told not to.
//! Never: waits out a pause.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use super::Domain;
use super::gather::Gather;
use crate::meta::{MetaStore, NewLimits, TurnsWanted, UpstreamLimits};
use crate::upstream::{Budget, Error, Kind, NotNow, Settings, Turns};

/// How long an upstream is left alone that says that it was asked too often, and not for how long.
const UNTOLD: Duration = Duration::from_mins(1);
/// For how long few requests are left, where it is not told.
const UNTOLD_WINDOW: Duration = Duration::from_hours(1);
/// No request waits longer for its turn.
const LONGEST: Duration = Duration::from_secs(30);
/// Who waited longer for its turn looks again whether the upstream may be asked.
const CURRENT: Duration = Duration::from_secs(1);
/// Requests that find out together whether they may be sent, where they are not counted.
const TOGETHER: usize = 256;

/// The limits of one upstream, for one credential.
pub(super) struct RateLimit {
    row: Arc<Row>,
    turns: Gather<Uuid, Result<Instant, NotNow>>,
}

/// What the database says about an upstream, and this process knows of it.
struct Row {
    meta: Arc<dyn MetaStore>,
    /// What all processes call it.
    key: String,
    /// Between two turns; `None`: they are not counted.
    pace: Option<Duration>,
    known: Mutex<Known>,
}

/// What this process knows.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    paused_until: Option<Instant>,
    scarce_until: Option<Instant>,
}

impl RateLimit {
    /// Of the upstream of the mirror `name`.
    pub(super) fn new(domain: &Domain, name: &str, upstream: &Settings) -> Self {
        let row = Arc::new(Row {
            meta: Arc::clone(&domain.meta),
            key: format!("{name}@{}", upstream.origin),
            pace: upstream.requests_per_second.map(pace),
            known: Mutex::default(),
        });
        let taken_from = Arc::clone(&row);
        let turns = Gather::new(1, most(upstream.requests_per_second), domain.tasks.clone(), move |askers| {
            let row = Arc::clone(&taken_from);
            Box::pin(async move { row.turns(askers.len()).await })
        });
        Self { row, turns }
    }

    /// Whether few requests are left, as far as any replica was told.
    pub(super) async fn is_scarce(&self) -> bool {
        if !self.row.known().is_scarce(Instant::now()) {
            self.row.look().await;
        }
        self.row.known().is_scarce(Instant::now())
    }

    /// Notes what an answer said about limits.
    pub(super) async fn note(&self, budget: &Budget) {
        self.note_told(budget, None).await;
    }

    /// The same of an error.
    pub(super) async fn note_error(&self, error: &Error) {
        self.note_told(&error.budget, Some(error.kind)).await;
    }

    async fn note_told(&self, budget: &Budget, kind: Option<Kind>) {
        let was_scarce = self.row.known().is_scarce(Instant::now());
        let Some(limits) = told(budget, kind, was_scarce) else { return };
        self.row.known().note(limits, Instant::now());
        if let Err(error) = self.row.meta.note_upstream_limits(&self.row.key, limits).await {
            tracing::warn!(%error, "what an upstream says about its limits is not told to the other replicas");
        }
    }
}

#[async_trait]
impl Turns for RateLimit {
    async fn next(&self) -> Result<(), NotNow> {
        self.row.known().check(Instant::now())?;
        let turn = self.turns.ask(Uuid::new_v4()).await?;
        let waits = turn.saturating_duration_since(Instant::now());
        tokio::time::sleep_until(turn).await;
        if waits > CURRENT {
            self.row.look().await;
        }
        self.row.known().check(Instant::now())
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("key", &self.row.key).finish_non_exhaustive()
    }
}

impl Row {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is locked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When `count` requests may be sent, or why they may not.
    async fn turns(&self, count: usize) -> Vec<Result<Instant, NotNow>> {
        let Some(pace) = self.pace else {
            self.look().await;
            return vec![Ok(Instant::now()); count];
        };
        match self.take(count, pace).await {
            Ok(first) => {
                let turns = std::iter::successors(Some(first), |turn| turn.checked_add(pace));
                turns.take(count).map(Ok).collect()
            }
            Err(refused) => vec![Err(refused); count],
        }
    }

    /// The first of `count` turns.
    async fn take(&self, count: usize, pace: Duration) -> Result<Instant, NotNow> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let wanted = TurnsWanted { count, pace, within: LONGEST };
        let taken = self.meta.take_turns(&self.key, wanted).await.map_err(|error| uncounted(&error))?;
        if let Some(taken) = taken {
            let now = Instant::now();
            self.known().learn(&UpstreamLimits { scarce: taken.scarce, ..UpstreamLimits::default() }, now);
            return Ok(now + taken.first_in);
        }
        let limits = self.meta.upstream_limits(&self.key).await.map_err(|error| uncounted(&error))?;
        self.known().learn(&limits, Instant::now());
        self.known().check(Instant::now())?;
        // Without a wait, all were taken a moment ago.
        let busy = limits.busy.unwrap_or(LONGEST);
        let cause =
            format!("is asked as often as its mirror allows, for the next {} seconds", busy.as_secs());
        Err(NotNow { retry_after: Some(busy), cause })
    }

    /// Learns what the other replicas were told.
    async fn look(&self) {
        match self.meta.upstream_limits(&self.key).await {
            Ok(limits) => self.known().learn(&limits, Instant::now()),
            Err(error) => tracing::debug!(%error, "what an upstream said to other replicas is not known"),
        }
    }
}

impl Known {
    /// Whether the upstream may be asked.
    fn check(self, now: Instant) -> Result<(), NotNow> {
        match self.paused_until.filter(|until| *until > now) {
            None => Ok(()),
            Some(until) => Err(NotNow {
                retry_after: Some(until - now),
                cause: "asked to be left alone for a while".to_owned(),
            }),
        }
    }

    fn is_scarce(self, now: Instant) -> bool {
        self.scarce_until.is_some_and(|until| until > now)
    }

    fn learn(&mut self, limits: &UpstreamLimits, now: Instant) {
        // That of this process may not have reached the database.
        self.paused_until = self.paused_until.max(limits.paused.map(|left| now + left));
        self.scarce_until = limits.scarce.map(|left| now + left);
    }

    fn note(&mut self, limits: NewLimits, now: Instant) {
        self.paused_until = self.paused_until.max(limits.pause.map(|long| now + long));
        if let Some(long) = limits.scarce_for {
            self.scarce_until = Some(now + long);
        }
    }
}

/// Between two turns.
fn pace(per_second: NonZeroU32) -> Duration {
    Duration::from_secs(1) / per_second.get()
}

/// How many turns are taken at once: those of a second, so that no replica takes them from the others for longer.
fn most(per_second: Option<NonZeroU32>) -> usize {
    per_second.map_or(TOGETHER, |count| usize::try_from(count.get()).unwrap_or(usize::MAX))
}

fn uncounted(error: &crate::meta::Error) -> NotNow {
    tracing::debug!(%error, "no turn");
    let cause = "is not asked while the database is away, in which its requests are counted".to_owned();
    NotNow { retry_after: None, cause }
}

/// What is to be noted after an answer with this budget. `was_scarce`: few requests were left before.
fn told(budget: &Budget, kind: Option<Kind>, was_scarce: bool) -> Option<NewLimits> {
    let pause = match kind {
        Some(Kind::RateLimited { retry_after }) => Some(retry_after.unwrap_or(UNTOLD)),
        // Without a time it is asked again by who needs something.
        Some(Kind::Unavailable { retry_after }) => retry_after,
        _ => None,
    };
    let pause = pause.map(|pause| pause.max(Duration::from_secs(1)));
    let scarce_for = match (budget.remaining, budget.limit) {
        (Some(remaining), Some(limit)) if remaining.saturating_mul(10) < limit => {
            Some(budget.window.unwrap_or(UNTOLD_WINDOW))
        }
        (Some(_), _) if was_scarce => Some(Duration::ZERO),
        _ => None,
    };
    (pause.is_some() || scarce_for.is_some()).then_some(NewLimits { pause, scarce_for })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w875_p18_who_asked_too_often_waits_as_long_as_it_is_told() {
        let told = |retry_after| {
            let limited = Kind::RateLimited { retry_after };
            told(&Budget::default(), Some(limited), false).and_then(|limits| limits.pause)
        };
        assert_eq!(told(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(told(Some(Duration::ZERO)), Some(Duration::from_secs(1)));
        assert_eq!(told(None), Some(UNTOLD));
    }

    #[test]
    fn p18_who_is_away_is_left_alone_as_long_as_it_says() {
        let told = |retry_after| {
            let away = Kind::Unavailable { retry_after };
            told(&Budget::default(), Some(away), false).and_then(|limits| limits.pause)
        };
        assert_eq!(told(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(told(None), None);
    }

    #[test]
    fn p18_what_was_not_asked_pauses_nobody() {
        let unasked = Kind::NotNow { retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(told(&Budget::default(), Some(unasked), false), None);
    }

    #[test]
    fn p18_below_a_tenth_requests_are_scarce() {
        let window = Some(Duration::from_hours(6));
        let left =
            |remaining| Budget { limit: Some(100), remaining: Some(remaining), window, ..Budget::default() };
        let scarce = |remaining, was| told(&left(remaining), None, was).map(|limits| limits.scarce_for);
        assert_eq!(scarce(9, false), Some(window));
        assert_eq!(scarce(10, false), None, "nothing new");
        assert_eq!(scarce(10, true), Some(Some(Duration::ZERO)), "there are enough again");
        assert_eq!(told(&Budget::default(), None, true), None, "nothing is told");
    }

    #[test]
    fn p18_a_pause_that_this_process_was_told_is_not_forgotten_for_the_databases_sake() {
        let (now, minute) = (Instant::now(), Duration::from_mins(1));
        let mut known = Known::default();
        assert_eq!(known.check(now), Ok(()));
        known.note(NewLimits { pause: Some(minute), scarce_for: Some(minute) }, now);
        assert_eq!(known.check(now).map_err(|refused| refused.retry_after), Err(Some(minute)));
        known.learn(&UpstreamLimits::default(), now);
        assert!(known.check(now).is_err() && known.check(now + minute).is_ok());
        assert!(!known.is_scarce(now), "of that the database knows more");
        let longer = UpstreamLimits { paused: Some(2 * minute), scarce: Some(minute), busy: None };
        known.learn(&longer, now);
        assert!(known.check(now + minute).is_err() && known.is_scarce(now));
    }
}
