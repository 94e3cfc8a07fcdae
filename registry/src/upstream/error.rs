// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What can be wrong with an upstream, by what is to be done about it.
//!
//! Causes are texts that are made here: those of libraries are taken into them, addresses without their queries.
//! So a message can be shown, and several waiters can be given the same error.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::budget::Budget;

/// An upstream did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{upstream}: {cause}")]
pub struct Error {
    /// What is to be done.
    pub kind: Kind,
    /// What the upstream said about its limits.
    pub budget: Box<Budget>,
    upstream: Arc<str>,
    cause: String,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The upstream does not have it: nor do we.
    NotFound,
    /// We may not have it.
    Refused(Refusal),
    /// Asked too often: ask again later, if at all.
    RateLimited {
        /// When, by the upstream.
        retry_after: Option<Duration>,
    },
    /// Not asked, by our own decision: it was asked often enough, by us or by other replicas.
    NotNow {
        /// When it may be asked again; `None`: nobody knows.
        retry_after: Option<Duration>,
    },
    /// It passes: time-outs, names that do not resolve, connections that break, answers of 5xx.
    Unavailable {
        /// When to ask again, by the upstream.
        retry_after: Option<Duration>,
    },
    /// Its certificate, or the files we should check it with.
    CertificateInvalid,
    /// What answers there is no registry, or not one that we can talk to.
    NotARegistry,
    /// More than we take.
    TooLarge,
    /// Not what it says it is: digest, length, type, or where to go on.
    WrongContent,
}

/// Who was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Our credential as such: somebody must change it.
    Credential,
    /// We, for this content. Registries answer so where somebody without a right asks for what does not exist, too.
    Content,
}

impl Error {
    pub(super) fn new(upstream: &Arc<str>, kind: Kind, cause: impl Into<String>) -> Self {
        Self { kind, budget: Box::default(), upstream: Arc::clone(upstream), cause: cause.into() }
    }

    /// The same, with what was said about limits.
    pub(super) fn with(mut self, budget: &Budget) -> Self {
        self.budget = Box::new(budget.clone());
        self
    }

    /// Whether the same may go well a moment later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self.kind, Kind::Unavailable { .. } | Kind::RateLimited { .. } | Kind::NotNow { .. })
    }

    /// What is wrong, without the upstream's name.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

impl Kind {
    pub(super) const UNAVAILABLE: Self = Self::Unavailable { retry_after: None };

    /// What an answer of the registry means that is not the one hoped for.
    pub(super) fn of(status: StatusCode, budget: &Budget) -> Self {
        match status.as_u16() {
            404 | 410 => Self::NotFound,
            401 | 403 | 451 => Self::Refused(Refusal::Content),
            429 => Self::RateLimited { retry_after: budget.retry_after },
            408 | 425 | 500.. => Self::Unavailable { retry_after: budget.retry_after },
            _ => Self::NotARegistry,
        }
    }
}

/// A library's error with all its causes, in one line.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let (mut next, mut told) = (Some(error), Vec::<String>::new());
    while let Some(error) = next {
        let cause = error.to_string();
        // Many repeat what they wrap.
        if !told.iter().any(|before| before.contains(&cause)) {
            told.push(cause);
        }
        next = error.source();
    }
    told.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_to_be_done() {
        let later = Budget { retry_after: Some(Duration::from_secs(7)), ..Budget::default() };
        let of = |status: u16| Kind::of(StatusCode::from_u16(status).unwrap(), &later);
        assert_eq!(of(404), Kind::NotFound);
        assert_eq!((of(401), of(403)), (Kind::Refused(Refusal::Content), Kind::Refused(Refusal::Content)));
        assert_eq!(of(429), Kind::RateLimited { retry_after: later.retry_after });
        for passing in [408, 500, 502, 503, 504] {
            assert_eq!(of(passing), Kind::Unavailable { retry_after: later.retry_after }, "{passing}");
        }
        assert_eq!((of(400), of(405), of(418)), (Kind::NotARegistry, Kind::NotARegistry, Kind::NotARegistry));
    }
}
