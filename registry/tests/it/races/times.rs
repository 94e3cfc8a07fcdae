// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The protocol's times, shortened so that a minute sees what otherwise takes days.
//!
//! What delays carry in real life must hold here, too: what is removed late may be removed before a late
//! request is executed; trash and markers outlive every request.

use std::time::Duration;

use stowage_registry::meta::{Timings, postgres, sqlite};

/// Times of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long deleted things rest.
    pub(super) trash: Duration,
    /// What the database knows.
    pub(super) timings: Timings,
}

impl Default for Times {
    fn default() -> Self {
        let timings = Timings {
            lease: Duration::from_millis(150),
            blob_grace: Duration::from_millis(150),
            tombstone_delay: Duration::from_millis(60),
            intent: Duration::from_millis(800),
            marker: Duration::from_secs(2),
            upload_lease: Duration::from_secs(2),
            take_over: Duration::from_millis(200),
            removal_lease: Duration::from_millis(500),
            again: Duration::from_millis(50),
        };
        Self { trash: Duration::from_secs(1), timings }
    }
}

impl Times {
    /// Leases end at once, so that only locks protect.
    pub(super) fn tiny() -> Self {
        let standard = Self::default();
        let grace = Duration::from_millis(3);
        let timings = Timings { lease: grace, blob_grace: grace, ..standard.timings };
        Self { trash: Duration::from_millis(150), timings }
    }

    /// Nothing is collected but uploads, and those are taken from whoever is slow.
    pub(super) fn uploads() -> Self {
        let standard = Self::default();
        let lease = Duration::from_hours(1);
        Self {
            timings: Timings { lease, upload_lease: Duration::from_millis(30), ..standard.timings },
            ..standard
        }
    }

    pub(super) fn postgres(&self, url: &str) -> postgres::Options {
        postgres::Options { max_connections: 8, timings: self.timings, ..postgres::Options::new(url) }
    }

    pub(super) fn sqlite(&self) -> sqlite::Options {
        sqlite::Options { timings: self.timings, ..sqlite::Options::default() }
    }
}
