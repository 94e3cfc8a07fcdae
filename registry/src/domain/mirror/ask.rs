// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A question to the upstream of a mirror, and what its answer says about the upstream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Domain;
use super::Mirror;
use crate::upstream::{Answered, Error, Kind, Refusal};

/// How long an upstream that does not answer is not asked for what can wait.
const DOWN: Duration = Duration::from_secs(10);

impl Domain {
    /// The answer to a question. What it says about limits holds for all replicas.
    pub(super) async fn ask_upstream<T>(
        &self,
        mirror: &Mirror,
        question: impl Future<Output = Result<Answered<T>, Error>>,
    ) -> Result<T, Error> {
        match question.await {
            Ok(answered) => {
                mirror.rate.note(&answered.budget).await;
                mirror.note(None);
                Ok(answered.value)
            }
            Err(error) => {
                mirror.rate.note_error(&error).await;
                mirror.note(Some(&error));
                Err(error)
            }
        }
    }
}

impl Mirror {
    /// Notes what it says of the upstream that what was asked at `begun` came to nothing.
    pub(super) fn note_pulse(&self, begun: Instant, error: &Error) {
        match error.kind {
            Kind::Unavailable { .. } | Kind::CertificateInvalid | Kind::NotARegistry => {
                self.pulse.silent(begun, error, DOWN);
            }
            Kind::NotFound
            | Kind::Refused(_)
            | Kind::RateLimited { .. }
            | Kind::TooLarge
            | Kind::WrongContent => self.pulse.answered(begun),
            Kind::NotNow { .. } => {}
        }
    }

    /// Notes whether its upstream is in order.
    fn note(&self, error: Option<&Error>) {
        if matches!(error, Some(Error { kind: Kind::NotNow { .. }, .. })) {
            return;
        }
        let trouble = error.filter(|error| !is_about_content(error.kind)).cloned();
        let name = &self.settings.name;
        let before = self.trouble.swap(Arc::new(trouble.clone()));
        match (&*before, &trouble) {
            (None, Some(error)) => {
                tracing::warn!(mirror.name = name, %error, "the upstream of a mirror is in trouble");
            }
            (Some(_), None) => {
                tracing::info!(mirror.name = name, "the upstream of a mirror is in order again");
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// Whether the upstream is well, and only this content is not to be had.
const fn is_about_content(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Refused(Refusal::Content) | Kind::TooLarge | Kind::WrongContent)
}
