// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What runs have told.

use super::{Domain, Error};
use crate::key::{RunKind, RunName};
use crate::reports::{self, ReportError, Told};

impl Domain {
    /// What the newest run of that kind and name has told; `None`: nothing is kept of any.
    pub async fn told(&self, kind: RunKind, name: &RunName) -> Result<Option<Told>, Error> {
        reports::newest(&*self.meta, &*self.store, kind, name).await.map_err(|error| match error {
            ReportError::Database(error) => error.into(),
            ReportError::Store(error) => error.into(),
            error @ (ReportError::TooLate | ReportError::Unreadable(_)) => Error::Internal(Box::new(error)),
        })
    }
}
