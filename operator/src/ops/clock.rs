// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The only place that reads the wall clock.
//!
//! Used for times that people read (condition transitions, the lease record). Nothing is decided by comparing such a
//! time with one of another process; what must expire is measured with tokio's monotonic clock.

use jiff::Timestamp;

/// The present.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
