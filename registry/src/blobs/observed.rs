// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tells somebody of every request to a store: metrics in production, request budgets in tests.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::layered::Around;
use super::{Error, Layered, Request, Store};

/// How a request ended, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the variants of `Error`")]
pub enum Outcome {
    Ok,
    Unavailable,
    Full,
    Refused,
    UnknownUpload,
}

impl Outcome {
    fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(Error::Unavailable { .. }) => Self::Unavailable,
            Err(Error::Full { .. }) => Self::Full,
            Err(Error::Refused { .. }) => Self::Refused,
            Err(Error::UnknownUpload { .. }) => Self::UnknownUpload,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::UnknownUpload => "unknown_upload",
        }
    }
}

/// Is told of every request when it has ended; of a `get`, when its content begins. Requests whose caller
/// went away are not told.
pub trait Observer: Send + Sync {
    /// A request has ended.
    fn ended(&self, request: Request, outcome: Outcome, took: Duration);
}

/// The layer of [`Observed`].
#[derive(Clone)]
pub struct Recorder(Arc<dyn Observer>);

/// A store whose requests are told to an [`Observer`].
pub type Observed = Layered<Recorder>;

impl Observed {
    /// Tells `observer` of the requests to `inner`.
    #[must_use]
    pub fn over(inner: Arc<dyn Store>, observer: Arc<dyn Observer>) -> Self {
        Self::new(inner, Recorder(observer))
    }
}

impl Around for Recorder {
    async fn around<T: Send>(
        &self,
        request: Request,
        _key: &str,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let result = call.await;
        self.0.ended(request, Outcome::of(&result), begun.elapsed());
        result
    }
}

/// Counts requests, for tests with a budget.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Request::ALL.len()]);

impl Counts {
    /// How many requests of this kind have ended.
    #[must_use]
    pub fn of(&self, request: Request) -> u64 {
        self.0.get(request as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many requests have ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        Request::ALL.into_iter().map(|request| self.of(request)).sum()
    }
}

impl Observer for Counts {
    fn ended(&self, request: Request, _outcome: Outcome, _took: Duration) {
        if let Some(count) = self.0.get(request as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
