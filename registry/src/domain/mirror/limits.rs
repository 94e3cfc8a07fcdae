// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How often an upstream may be asked: what it said to one replica holds for all.
//!
//! Without the database nobody knows, and it is asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::Domain;
use super::Mirror;
use crate::meta::NewLimits;
use crate::upstream::{Answered, Budget, Error, Kind, Refusal};

/// How long an upstream is left alone that says that it was asked too often, and not for how long.
const UNTOLD: Duration = Duration::from_mins(1);
/// For how long few requests are left, where it is not told.
const UNTOLD_WINDOW: Duration = Duration::from_hours(1);

impl Domain {
    /// Asks an upstream, unless it wants to be left alone, and notes what it says about that.
    pub(super) async fn ask_upstream<T>(
        &self,
        mirror: &Mirror,
        question: impl Future<Output = Result<Answered<T>, Error>>,
    ) -> Result<T, Error> {
        let known = self.meta.upstream_limits(&mirror.key).await.unwrap_or_default();
        if let Some(left) = known.paused {
            return Err(mirror.upstream.left_alone(left));
        }
        let outcome = question.await;
        let (budget, kind) = match &outcome {
            Ok(answered) => (&answered.budget, None),
            Err(error) => (&*error.budget, Some(error.kind)),
        };
        let was_scarce = mirror.is_scarce.load(Ordering::Relaxed) || known.scarce;
        if let Some(limits) = told(budget, kind, was_scarce) {
            mirror.is_scarce.store(limits.scarce_for.is_some_and(|long| !long.is_zero()), Ordering::Relaxed);
            if let Err(error) = self.meta.note_upstream_limits(&mirror.key, limits).await {
                tracing::debug!(mirror.name = mirror.settings.name, %error, "limits not noted");
            }
        }
        mirror.note(&outcome);
        outcome.map(|answered| answered.value)
    }
}

impl Mirror {
    /// Notes whether its upstream is in order.
    fn note<T>(&self, outcome: &Result<T, Error>) {
        let trouble = match outcome {
            Err(error) if !is_about_content(error.kind) => Some(error.clone()),
            Ok(_) | Err(_) => None,
        };
        let name = &self.settings.name;
        let before = self.trouble.swap(Arc::new(trouble.clone()));
        match (&*before, &trouble) {
            (None, Some(error)) => {
                tracing::warn!(mirror.name = name, %error, "the upstream of a mirror is in trouble");
            }
            (Some(_), None) => {
                tracing::info!(mirror.name = name, "the upstream of a mirror is in order again");
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// Whether the upstream is well, and only this content is not to be had.
const fn is_about_content(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Refused(Refusal::Content) | Kind::TooLarge | Kind::WrongContent)
}

/// What is to be noted after an answer with this budget. `was_scarce`: few requests were left before.
fn told(budget: &Budget, kind: Option<Kind>, was_scarce: bool) -> Option<NewLimits> {
    let pause = match kind {
        Some(Kind::RateLimited { retry_after }) => {
            Some(retry_after.unwrap_or(UNTOLD).max(Duration::from_secs(1)))
        }
        _ => None,
    };
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
}
