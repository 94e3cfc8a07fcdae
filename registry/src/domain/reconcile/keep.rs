// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every replica does in the background: notices a new incarnation of the database, and walks.
//!
//! All replicas take parts of the same walk; none waits for another that has died longer than a minute, and for one
//! that was told to stop not at all.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Walk, WalkError};
use crate::domain::{Domain, Error};
use crate::meta::Epoch;

/// How often an idle replica looks whether the incarnation is still the one it knows.
const LOOK: Duration = Duration::from_secs(30);
/// How often, during a walk, it is looked whether there is anything left to walk for.
const WATCH: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The same after the breaker: a human has to look.
const STOPPED: Duration = Duration::from_mins(1);

/// Keeps the database compared with the bucket until `stopping`. Ended at a step: whatever was not finished is done
/// again.
pub async fn keep_compared(domain: Domain, stopping: CancellationToken) {
    while let Some(entered) = stopping.run_until_cancelled(domain.trust.enter()).await {
        let pause = match entered {
            Ok(token) if token.trusted => {
                let _ended = stopping.run_until_cancelled(look(&domain)).await;
                continue;
            }
            Ok(token) => walk(&domain, token.epoch, &stopping).await,
            Err(Error::RebuildRequired) => LOOK,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the epoch is not known");
                RETRY
            }
        };
        let _ended = stopping.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Waits until the epoch may be another.
async fn look(domain: &Domain) {
    let next = domain.trust.next_epoch();
    if tokio::time::timeout(LOOK, next).await.is_err()
        && let Err(error) = domain.trust.look_again().await
    {
        tracing::debug!(error = &error as &dyn std::error::Error, "the incarnation was not asked for");
    }
}

/// Walks, or helps to; how long to wait before the next look.
async fn walk(domain: &Domain, epoch: Epoch, stopping: &CancellationToken) -> Duration {
    let walk = Walk::new(domain, Walk::beside_clients(), stopping.clone()).patiently();
    loop {
        let ended = tokio::select! {
            ended = walk.run(epoch) => ended,
            () = until_over(domain, epoch) => return Duration::ZERO,
        };
        match ended {
            Ok(walked) => {
                domain.trust.walked(epoch);
                tracing::info!(
                    epoch = epoch.0,
                    objects = walked.listed,
                    foreign = walked.foreign,
                    changes = ?walked.changes,
                    "the database is compared with the bucket"
                );
                return Duration::ZERO;
            }
            Err(error @ WalkError::TooManyLosses(_)) => {
                tracing::error!(epoch = epoch.0, %error, "the comparison with the bucket was stopped");
                return STOPPED;
            }
            Err(WalkError::Domain(error)) => {
                if stopping.run_until_cancelled(is_over(domain, epoch)).await != Some(false) {
                    return Duration::ZERO;
                }
                tracing::warn!(
                    epoch = epoch.0,
                    error = &error as &dyn std::error::Error,
                    "the comparison with the bucket is tried again"
                );
                let _ended = stopping.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
            Err(WalkError::Stopped) => return RETRY,
        }
    }
}

/// A step that takes long, on a connection whose other end has vanished, would be waited for much longer.
async fn until_over(domain: &Domain, epoch: Epoch) {
    loop {
        tokio::time::sleep(WATCH).await;
        if is_over(domain, epoch).await {
            return;
        }
    }
}

/// Whether there is another epoch by now, or nothing left to compare.
async fn is_over(domain: &Domain, epoch: Epoch) -> bool {
    domain.trust.look_again().await.is_ok()
        && domain.trust.enter().await.is_ok_and(|token| token.epoch != epoch || token.trusted)
}
