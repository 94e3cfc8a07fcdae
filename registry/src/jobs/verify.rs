// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `verify`: whether database and bucket agree, told finding by finding; and the same in the background of a
//! replica, spread over days (the *scrub*).
//!
//! Guarantees: a database that is not trusted is not verified, as nobody could tell what is wrong with it; nothing
//! is looked at below a prefix of another owner, or for a database that another one has taken over from.
//! Never: deletes anything but through the outbox.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::blobs::selftest::{FormatError, read_format};
use crate::blobs::{self, Store};
use crate::config::Scrub;
use crate::domain::{self, Domain, Limits, Verified, Verify, VerifyOptions};
use crate::key::Key;
use crate::meta::{self, Epoch, Finding, MetaStore, Pass, Problem};
use crate::ops::metrics::VerificationMetrics;
use crate::ops::tasks::Tasks;

/// Why nothing was verified, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// It was broken off.
    #[error("the verification was not finished; run it again")]
    BrokenOff(#[source] domain::Error),
    /// Bucket and database are not one registry.
    #[error(
        "the bucket belongs to {}, the database to {}: check bucket, prefix and database; nothing was verified",
        name(*.bucket), name(*.database)
    )]
    Foreign {
        /// Who `FORMAT` names.
        bucket: Option<Uuid>,
        /// Who the database names.
        database: Option<Uuid>,
    },
    /// `FORMAT` is of another layout, or not readable.
    #[error("v1/FORMAT cannot be read; use the release that wrote it; nothing was verified")]
    Format(#[source] FormatError),
    /// The database has a new incarnation, or has not been compared with the bucket in it.
    #[error(
        "the database is not trusted: it was restarted, restored or failed over (epoch {}) and has not been \
         compared with the bucket since; let a replica that serves finish that, or run `rebuild`; nothing was \
         verified", .0.0
    )]
    Untrusted(Epoch),
    /// Another database has taken over.
    #[error(
        "the bucket knows a newer incarnation of the database (epoch {}) than this one is (epoch {}): this is an \
         old primary, or a copy; check the database URL; nothing was verified", .bucket.0, .database.0
    )]
    Outdated {
        /// The database's epoch.
        database: Epoch,
        /// The bucket's newest.
        bucket: Epoch,
    },
}

fn name(owner: Option<Uuid>) -> String {
    owner.map_or_else(|| "nobody".to_owned(), |owner| format!("registry {owner}"))
}

impl VerifyError {
    /// Whether nothing was done for safety.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Format(_) | Self::Untrusted(_) | Self::Outdated { .. })
    }
}

impl From<FormatError> for VerifyError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Store(error) => Self::Store(error),
            FormatError::Unreadable(_) | FormatError::Layout(_) => Self::Format(error),
        }
    }
}

impl From<domain::Error> for VerifyError {
    fn from(error: domain::Error) -> Self {
        Self::BrokenOff(error)
    }
}

/// Verifies the registry of `meta` and `store`; each finding is told as it is made, and `progress` every second how
/// far it is.
pub async fn verify(
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    options: VerifyOptions,
    tell: impl Fn(&Finding) + Send + Sync + 'static,
    progress: impl Fn(Pass, u64) + Send + Sync,
) -> Result<Verified, VerifyError> {
    let epoch = ensure_trusted(&*meta, &*store).await?;
    let domain = Domain::new(meta, store, Limits::default(), Tasks::new());
    let verify = Verify::alone(&domain, options, CancellationToken::new(), tell);
    let told = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // It is only shown.
            progress(verify.progress().await.unwrap_or_default(), verify.done().objects);
        }
    };
    tokio::select! {
        verified = verify.run(epoch) => Ok(verified?),
        () = told => unreachable!("it tells for ever"),
    }
}

/// The epoch, if bucket and database are one registry and the database is trusted.
async fn ensure_trusted(meta: &dyn MetaStore, store: &dyn Store) -> Result<Epoch, VerifyError> {
    let bucket = read_format(store).await?.map(|format| format.registry);
    let envelope = meta.envelope().await?;
    let database = envelope.as_ref().map(|envelope| envelope.registry);
    let Some(envelope) = envelope.filter(|_| bucket == database) else {
        return Err(VerifyError::Foreign { bucket, database });
    };
    if !(envelope.ours && envelope.walked) {
        return Err(VerifyError::Untrusted(envelope.epoch));
    }
    let newest = store.list(Key::EPOCHS, None, 1).await?;
    match newest.first().and_then(|object| object.key.parse().ok()) {
        Some(Key::Epoch { epoch, .. }) if Epoch(epoch) > envelope.epoch => {
            Err(VerifyError::Outdated { database: envelope.epoch, bucket: Epoch(epoch) })
        }
        _ => Ok(envelope.epoch),
    }
}

/// Writes a finding to the log.
pub fn log(finding: &Finding) {
    let Finding { problem, key, repaired } = finding;
    let (found, advice) = (problem.name(), advice(finding));
    match problem {
        Problem::Missing | Problem::WrongLength | Problem::WrongContent | Problem::Marked => {
            tracing::error!(object.key = key, found, repaired, advice, "database and bucket disagree");
        }
        Problem::Unknown | Problem::Spare | Problem::Foreign | Problem::Multipart => {
            tracing::warn!(object.key = key, found, repaired, advice, "database and bucket disagree");
        }
    }
}

/// What is to be done about a finding.
#[must_use]
pub fn advice(finding: &Finding) -> &'static str {
    match (finding.problem, finding.repaired, is_blob(&finding.key)) {
        (Problem::Missing | Problem::WrongLength | Problem::WrongContent, true, true) => {
            "the blob answers 404 now; push it again"
        }
        (Problem::Missing | Problem::WrongLength | Problem::WrongContent, true, false)
        | (Problem::Marked, true, _) => "the record was written again",
        (Problem::Missing | Problem::WrongLength | Problem::WrongContent | Problem::Marked, false, _) => {
            "run `verify --repair`; if that does not help, delete what needs it and push it again"
        }
        (Problem::Unknown, ..) => "run `rebuild`, which takes it over",
        (Problem::Spare, true, _) => "its removal is queued",
        (Problem::Spare, false, _) => "run `verify --repair`, which queues its removal",
        (Problem::Foreign, ..) => "nothing of this registry; move or delete it yourself",
        (Problem::Multipart, true, _) => "it was aborted",
        (Problem::Multipart, false, _) => "run `verify --repair`, which aborts it",
    }
}

fn is_blob(key: &str) -> bool {
    key.starts_with(Key::BLOBS)
}

/// Looks at a part of everything now and then until `stopping`; `settings` says how, `None`: not at all. All
/// replicas share a pass. Nothing is repaired.
pub async fn keep_scrubbed(
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    settings: impl Fn() -> Option<Scrub> + Send + Sync,
    metrics: VerificationMetrics,
    stopping: CancellationToken,
) {
    let domain = Domain::new(Arc::clone(&meta), Arc::clone(&store), Limits::default(), Tasks::new());
    let keep = async {
        loop {
            let Some(scrub) = settings() else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            match scrub_part(&domain, (&*meta, &*store), scrub, &metrics, &stopping).await {
                // Perhaps the time of more has come.
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(pause(scrub.interval)).await,
                // It is known elsewhere that something is away, or not compared yet.
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "nothing is scrubbed");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    };
    // Ended at a step: the part is looked at again.
    let _ended = stopping.run_until_cancelled(keep).await;
}

/// How often it is asked whether there is something to do at all.
const LOOK: Duration = Duration::from_mins(1);

/// How often it is asked whether the time of a part has come: often enough to keep up, and no query each second.
fn pause(interval: Duration) -> Duration {
    /// A pass has mostly some hundred parts.
    const PARTS: u32 = 1000;
    (interval / PARTS).clamp(LOOK, Duration::from_hours(1))
}

async fn scrub_part(
    domain: &Domain,
    (meta, store): (&dyn MetaStore, &dyn Store),
    scrub: Scrub,
    metrics: &VerificationMetrics,
    stopping: &CancellationToken,
) -> Result<bool, VerifyError> {
    let Some(epoch) = ensure_due((meta, store), scrub.interval).await? else { return Ok(false) };
    let options = VerifyOptions {
        deep: true,
        bytes_per_second: Some(scrub.bytes_per_second),
        ..VerifyOptions::default()
    };
    let counted = metrics.clone();
    let tell = move |finding: &Finding| {
        counted.found(finding.problem.name());
        log(finding);
    };
    let verify = Verify::beside_clients(domain, options, stopping.clone(), tell);
    let looked = verify.scrub(epoch, scrub.interval).await?;
    let done = verify.done();
    metrics.looked_at(done.objects, done.bytes);
    Ok(looked)
}

/// The epoch, if the time of a part may have come: until then the database is asked once, and the bucket not at all.
async fn ensure_due(
    (meta, store): (&dyn MetaStore, &dyn Store),
    interval: Duration,
) -> Result<Option<Epoch>, VerifyError> {
    let pass = meta.pass(meta::Job::Scrub).await?;
    if pass.is_over(interval) || pass.is_due(interval) {
        return ensure_trusted(meta, store).await.map(Some);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_advice_and_what_was_repaired_needs_no_more() {
        for problem in Problem::ALL {
            for (key, repaired) in [("v1/blob/x", false), ("v1/blob/x", true), ("v1/r/x", true)] {
                let told = advice(&Finding { problem, key: key.to_owned(), repaired });
                assert!(!told.is_empty());
                let asks_for_repair = told.contains("run `verify --repair`");
                assert!(!(repaired && asks_for_repair), "{problem:?}");
            }
        }
    }

    #[test]
    fn a_scrub_asks_at_most_once_a_minute() {
        assert_eq!(pause(Duration::from_hours(1)), LOOK);
        assert_eq!(pause(Duration::from_hours(24 * 7)), Duration::from_millis(604_800));
        assert_eq!(pause(Duration::from_hours(24 * 365)), Duration::from_hours(1));
    }
}
