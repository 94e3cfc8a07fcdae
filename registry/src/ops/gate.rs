// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Holding a step at a named point, so that a race becomes a deterministic test. The decorators that fail on
//! purpose, of database and bucket, share it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Where whoever is held waits. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: CancellationToken,
}

impl Default for Gate {
    fn default() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: CancellationToken::new() }
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until one more stands at the gate.
    pub async fn reached(&self) {
        self.arrived.acquire().await.expect("the semaphore is never closed").forget();
    }

    /// Lets all through, now and from now on.
    pub fn release(&self) {
        self.open.cancel();
    }

    /// Stands at the gate until it is open.
    pub async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.cancelled().await;
    }
}
