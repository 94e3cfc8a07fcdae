// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Starts runs of retention policies when they are due or asked for, in a process of which no Job does.
//!
//! One at a time, in the order of their names: what comes due while one is under way waits for it. A time that is missed
//! while the process is stopped is not made up for. Of several processes over one database one runs at each time, or
//! those that begin before it has ended.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use stowage_crds::{Schedule, Termination};
use tokio_util::sync::CancellationToken;

use crate::jobs::schedule::{came_due, now};
use crate::ops::run_requests::Requested;

/// How often it is looked at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// A policy, and when its runs are due.
#[derive(Clone, Debug)]
pub struct Retaining {
    /// Its name.
    pub policy: String,
    /// When; `None`: only when somebody asks.
    pub schedule: Option<Schedule>,
}

/// Starts `run` of each policy when it is due or `asked` for, with the time at which it was, until `stopping`; `policies`
/// may be others at every look. Each run is `told` when it has ended; `None`: another process had it.
pub async fn retain_by_schedule(
    policies: impl Fn() -> Vec<Retaining>,
    run: impl Fn(String, Timestamp) -> BoxFuture<'static, Option<Termination>>,
    asked: Requested,
    told: impl Fn(&str, Termination),
    stopping: CancellationToken,
) {
    let mut looked = now();
    while stopping.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let (now_is, asked) = (now(), asked.take());
        for Retaining { policy, schedule } in policies() {
            let due = came_due(schedule.as_ref(), looked, now_is);
            let Some(due) = due.or_else(|| asked.contains(&policy).then_some(now_is)) else { continue };
            match stopping.run_until_cancelled(run(policy.clone(), due)).await {
                Some(Some(termination)) => told(&policy, termination),
                Some(None) => {}
                None => return,
            }
        }
        looked = now_is;
    }
}
