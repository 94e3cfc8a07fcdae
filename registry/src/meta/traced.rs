// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A span for every step of a database that is done for a request.

use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use super::layered::Around;
use super::{Error, Layered, MetaStore};
use crate::ops::traces::{self, TARGET};

/// The layer of [`Traced`].
#[derive(Clone, Debug)]
pub struct Spans {
    system: &'static str,
}

/// A database whose steps are seen in traces.
pub type Traced = Layered<Spans>;

impl Traced {
    /// Makes spans of the steps of `inner`, a database of that kind: `postgresql`, `sqlite`.
    #[must_use]
    pub fn over(inner: Arc<dyn MetaStore>, system: &'static str) -> Self {
        Self::new(inner, Spans { system })
    }
}

impl Around for Spans {
    async fn around<T: Send>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if !traces::are_taken() {
            return work.await;
        }
        let span = info_span!(
            target: TARGET,
            "database",
            otel.name = step,
            otel.kind = "client",
            otel.status_code = Empty,
            otel.status_description = Empty,
            db.system.name = self.system,
            db.operation = step,
        );
        let result = work.instrument(span.clone()).await;
        if let Err(error) = &result {
            traces::failed(&span, error);
        }
        result
    }
}
