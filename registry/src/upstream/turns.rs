// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! When a request may be sent.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use super::Inner;
use super::error::{Error, Kind};

/// Says when a registry may be asked.
#[async_trait]
pub trait Turns: Debug + Send + Sync {
    /// Returns when one request may be sent.
    async fn next(&self) -> Result<(), NotNow>;
}

/// Why a request is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// In how long it may be; `None`: nobody knows.
    pub retry_after: Option<Duration>,
    /// Why.
    pub cause: String,
}

impl Inner {
    /// Waits for the turn of a request.
    pub(super) async fn turn(&self) -> Result<(), Error> {
        let Some(turns) = &self.turns else { return Ok(()) };
        let refused = |NotNow { retry_after, cause }| self.error(Kind::NotNow { retry_after }, cause);
        turns.next().await.map_err(refused)
    }
}
