// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A span for every request to a store that is made for a request of a client; of a `get`, until its content begins.

use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use super::layered::Around;
use super::{Error, Layered, Request, Store};
use crate::ops::traces::{self, TARGET};

/// The layer of [`Traced`].
#[derive(Clone, Debug)]
pub struct Spans {
    store: &'static str,
}

/// A store whose requests are seen in traces.
pub type Traced = Layered<Spans>;

impl Traced {
    /// Makes spans of the requests to `inner`, a store of that kind: `s3`, `filesystem`.
    #[must_use]
    pub fn over(inner: Arc<dyn Store>, store: &'static str) -> Self {
        Self::new(inner, Spans { store })
    }
}

impl Around for Spans {
    async fn around<T: Send>(
        &self,
        request: Request,
        key: &str,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if !traces::are_taken() {
            return call.await;
        }
        let span = info_span!(
            target: TARGET,
            "store",
            otel.name = request.name(),
            otel.kind = "client",
            otel.status_code = Empty,
            otel.status_description = Empty,
            store.name = self.store,
            store.operation = request.name(),
            object.key = key,
        );
        let result = call.instrument(span.clone()).await;
        if let Err(error) = &result {
            traces::failed(&span, error);
        }
        result
    }
}
