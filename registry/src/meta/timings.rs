// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How long things last, and how much is done at once.

use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// How long things last, by the database's clock. None of it carries safety, locks do: a clock that jumps costs
/// comfort. Replicas and jobs of one registry should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// For how long a client may rely on what it was told exists (`garbageCollection.gracePeriod`).
    pub lease: Duration,
    /// How long data is kept without a link.
    pub blob_grace: Duration,
    /// How long what is no longer named stays in the bucket: as long as a reader may still be at it.
    pub tombstone_delay: Duration,
    /// How long a push may take from pin to publish.
    pub intent: Duration,
    /// How long a marker outlives its record: longer than a late repetition of the record's PUT can come.
    pub marker: Duration,
    /// How long a request holds an upload without renewing.
    pub upload_lease: Duration,
    /// When a worker carries out what the request itself should have carried out.
    pub take_over: Duration,
    /// How long a worker has for what it took from the outbox.
    pub removal_lease: Duration,
    /// When a candidate that somebody holds is looked at again.
    pub again: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            lease: 24 * HOUR,
            blob_grace: HOUR,
            tombstone_delay: HOUR,
            intent: 10 * MINUTE,
            marker: 24 * HOUR,
            upload_lease: MINUTE,
            take_over: MINUTE,
            removal_lease: 2 * MINUTE,
            again: MINUTE,
        }
    }
}
