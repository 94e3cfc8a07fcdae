// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The wall clock. The only place that reads it, so that it is easy to see that nothing is *ordered* by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
#[must_use]
pub fn seconds() -> u64 {
    milliseconds() / 1000
}
