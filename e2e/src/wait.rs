// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Waiting for a condition instead of for a time.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};

/// Asks again and again until the answer is `Some`. When `patience` runs out, the error tells `what` was waited for
/// and why the last attempt failed, if it did.
pub async fn until<T, F>(what: &str, patience: Duration, mut ask: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let mut last_failure = None;
    let answer = timeout(patience, async {
        loop {
            match ask().await {
                Ok(Some(answer)) => return answer,
                Ok(None) => last_failure = None,
                Err(failure) => last_failure = Some(failure),
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    match (answer, last_failure) {
        (Ok(answer), _) => Ok(answer),
        (Err(_), Some(failure)) => Err(failure.context(format!("waited {patience:?} for {what}"))),
        (Err(elapsed), None) => Err(elapsed).with_context(|| format!("waited {patience:?} for {what}")),
    }
}
