// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Every task of the process, and its end.
//!
//! Guarantees: a task started here is told of the shutdown and waited for; one that panics ends the process, because
//! a controller that silently stopped would look like a healthy one.
//! Never: kills a task that still writes; after the grace it is reported and left behind.

use std::{future::Future, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::{error, warn};

/// Tells a task that the process is ending.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Resolves when the shutdown begins.
    pub async fn begun(mut self) {
        // An error means that the sender is gone, which is an end as well.
        drop(self.0.wait_for(|ending| *ending).await);
    }
}

/// The tasks of the process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<&'static str>,
    ending: watch::Sender<bool>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { set: JoinSet::new(), ending: watch::Sender::new(false) }
    }
}

impl Tasks {
    /// A receiver of the shutdown.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.ending.subscribe())
    }

    /// Starts `work` under a name for the log.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(async move {
            work.await;
            name
        });
    }

    /// Waits for the first task to end, whichever it is and however it ends.
    pub async fn first_end(&mut self) -> Option<&'static str> {
        self.set.join_next().await.map(name_of)
    }

    /// Tells every task to end and waits for them, at most `grace`.
    pub async fn end(mut self, grace: Duration) {
        self.ending.send_replace(true);
        let all = async { while self.set.join_next().await.is_some() {} };
        if timeout(grace, all).await.is_err() {
            warn!(left = self.set.len(), "tasks outlived the shutdown grace");
            self.set.detach_all();
        }
    }
}

fn name_of(ended: Result<&'static str, JoinError>) -> &'static str {
    match ended {
        Ok(name) => name,
        Err(error) => {
            error!(%error, "task panicked");
            "panicked"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shutdown_reaches_every_task_and_waits_for_it() {
        let mut tasks = Tasks::default();
        let (done, mut seen) = tokio::sync::mpsc::channel(2);
        for _ in 0..2 {
            let (shutdown, done) = (tasks.shutdown(), done.clone());
            tasks.spawn("worker", async move {
                shutdown.begun().await;
                done.send(()).await.unwrap();
            });
        }
        tasks.end(Duration::from_secs(5)).await;
        assert!(seen.try_recv().is_ok() && seen.try_recv().is_ok());
    }
}
