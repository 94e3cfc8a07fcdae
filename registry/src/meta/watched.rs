// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tells somebody when a database did not answer a step.

use std::sync::Arc;

use super::layered::Around;
use super::{Error, Layered, MetaStore};

/// The layer of [`Watched`].
#[derive(Clone)]
pub struct Watch(Arc<dyn Fn() + Send + Sync>);

/// A database of which it is told when it was away.
pub type Watched = Layered<Watch>;

impl Watched {
    /// Calls `away` after each step that `inner` did not answer.
    #[must_use]
    pub fn over(inner: Arc<dyn MetaStore>, away: impl Fn() + Send + Sync + 'static) -> Self {
        Self::new(inner, Watch(Arc::new(away)))
    }
}

impl Around for Watch {
    async fn around<T: Send>(
        &self,
        _step: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let result = work.await;
        if let Err(Error::Unavailable(_)) = result {
            (self.0)();
        }
        result
    }
}
