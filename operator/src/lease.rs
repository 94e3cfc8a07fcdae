// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which of several operators acts: a Lease that one of them renews.
//!
//! Protocol: whoever finds the Lease free, or unchanged for its whole duration, writes its own name with the
//! `resourceVersion` it read. A holder writes every two seconds and calls the lease lost when no write has succeeded
//! for ten: five seconds before anybody else may take it.
//! Guarantees: expiry is measured on this process's monotonic clock, from the moment *it* saw the record change; the
//! times inside the record are for people. A write is timed from before it was sent.
//! Assumes: two clocks run at about the same speed; their readings may differ as they like.
//! Never: makes two leaders dangerous. Everything a leader does is an idempotent apply; the lease saves work only.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

/// The name of the Lease.
pub const NAME: &str = "stowage-operator";
/// Nobody takes the lease before it has been seen unchanged for so long.
pub const DURATION: Duration = Duration::from_secs(15);
/// The holder gives up when it could not renew for so long.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks or two renewals.
pub const RETRY: Duration = Duration::from_secs(2);

/// Why a holder holds no longer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Lost {
    /// Another operator wrote its name.
    #[error("lease was taken by {0}")]
    Taken(String),
    /// No write went through in time.
    #[error("lease could not be renewed for {} s", RENEW_DEADLINE.as_secs())]
    NotRenewed,
}

/// What to do about a record.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    Wait,
}

/// A record this process has seen, and when it saw it change.
#[derive(Debug)]
struct Seen {
    resource_version: Option<String>,
    since: Instant,
}

/// One operator that wants to lead.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    identity: String,
    now: fn() -> Timestamp,
    seen: Option<Seen>,
    held: Option<(Lease, Instant)>,
}

impl Elector {
    /// A contender in the operator's own namespace. `identity` must be unique to this process.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, now: fn() -> Timestamp) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, now, seen: None, held: None }
    }

    /// Returns when this process holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            if let Ok(true) = timeout(RENEW_DEADLINE, self.attempt()).await {
                info!(lease.holder = %self.identity, "lease acquired");
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// Returns when this process holds the lease no longer. Cancelling it keeps the lease, unrenewed.
    pub async fn hold(&mut self) -> Lost {
        loop {
            sleep(RETRY).await;
            let Some((_, renewed)) = &self.held else { return Lost::NotRenewed };
            let deadline = *renewed + RENEW_DEADLINE;
            if Instant::now() >= deadline {
                return Lost::NotRenewed;
            }
            match timeout_at(deadline, self.renew()).await {
                Ok(Some(lost)) => return lost,
                Ok(None) => {}
                Err(_elapsed) => return Lost::NotRenewed,
            }
        }
    }

    /// Gives the lease back so that the next operator need not wait. Best effort: an error costs it 15 seconds.
    pub async fn release(&mut self) {
        let Some((mut lease, _)) = self.held.take() else { return };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime((self.now)()));
        }
        let params = PostParams::default();
        match timeout(RETRY, self.api.replace(NAME, &params, &lease)).await {
            Ok(Ok(_)) => info!("lease released"),
            Ok(Err(error)) => warn!(%error, "lease could not be released"),
            Err(_elapsed) => warn!("lease could not be released in time"),
        }
    }

    /// One look, and one write if the lease is to be had. True when it is ours now.
    async fn attempt(&mut self) -> bool {
        let record = match self.api.get_opt(NAME).await {
            Ok(record) => record,
            Err(error) => {
                warn!(%error, "lease could not be read");
                return false;
            }
        };
        let unchanged = self.unchanged(record.as_ref());
        let started = Instant::now();
        let written = match decide(record.as_ref(), &self.identity, unchanged) {
            Step::Wait => return false,
            Step::Create => self.api.create(&PostParams::default(), &self.claim(None)).await,
            Step::Take => self.api.replace(NAME, &PostParams::default(), &self.claim(record)).await,
        };
        match written {
            Ok(lease) => {
                self.held = Some((lease, started));
                true
            }
            Err(error) => {
                warn!(%error, "lease could not be written");
                false
            }
        }
    }

    /// One renewal. Something only if the lease is lost for certain.
    async fn renew(&mut self) -> Option<Lost> {
        let (lease, _) = self.held.as_ref()?;
        let started = Instant::now();
        match self.api.replace(NAME, &PostParams::default(), &self.claim(Some(lease.clone()))).await {
            Ok(lease) => {
                self.held = Some((lease, started));
                None
            }
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                self.look_again().await
            }
            Err(error) => {
                warn!(%error, "lease could not be renewed");
                None
            }
        }
    }

    /// After a conflict: a write of ours whose answer was lost is adopted, without counting as a renewal.
    async fn look_again(&mut self) -> Option<Lost> {
        match self.api.get_opt(NAME).await {
            Ok(Some(lease)) if holder(&lease) == self.identity => {
                if let Some((held, _)) = self.held.as_mut() {
                    *held = lease;
                }
                None
            }
            Ok(Some(lease)) => Some(Lost::Taken(holder(&lease).to_owned())),
            Ok(None) => Some(Lost::Taken(String::from("a deletion"))),
            Err(error) => {
                warn!(%error, "lease could not be read");
                None
            }
        }
    }

    /// For how long this process has seen the record as it is.
    fn unchanged(&mut self, record: Option<&Lease>) -> Duration {
        let version = record.and_then(|lease| lease.metadata.resource_version.clone());
        match &self.seen {
            Some(seen) if seen.resource_version == version => seen.since.elapsed(),
            _ => {
                self.seen = Some(Seen { resource_version: version, since: Instant::now() });
                Duration::ZERO
            }
        }
    }

    /// The record with our name in it, on top of what was read.
    fn claim(&self, record: Option<Lease>) -> Lease {
        let now = MicroTime((self.now)());
        let (metadata, old) = match record {
            Some(lease) => (lease.metadata, lease.spec.unwrap_or_default()),
            None => (ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() }, LeaseSpec::default()),
        };
        let renews = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if renews { old.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!renews)),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn decide(record: Option<&Lease>, me: &str, unchanged: Duration) -> Step {
    match record {
        None => Step::Create,
        Some(lease) if holder(lease).is_empty() || holder(lease) == me => Step::Take,
        Some(_) if unchanged >= DURATION => Step::Take,
        Some(_) => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(name: &str) -> Lease {
        let spec = LeaseSpec { holder_identity: Some(name.into()), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_is_taken_when_free_own_or_unchanged_for_its_duration() {
        let almost = DURATION.checked_sub(Duration::from_millis(1)).unwrap();
        for (record, unchanged, step) in [
            (None, Duration::ZERO, Step::Create),
            (Some(held_by("")), Duration::ZERO, Step::Take),
            (Some(held_by("me")), Duration::ZERO, Step::Take),
            (Some(held_by("other")), almost, Step::Wait),
            (Some(held_by("other")), DURATION, Step::Take),
        ] {
            assert_eq!(decide(record.as_ref(), "me", unchanged), step);
        }
    }
}
