// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What Kubernetes keeps of a container that has ended: why a service stopped, what a job did.

use std::collections::BTreeMap;
use std::path::Path;

use stowage_registry::config::explained;
use stowage_registry::jobs::{End, Run, Summary};

use super::Failure;

/// Where Kubernetes looks.
const LOG: &str = "/dev/termination-log";

/// What a job counted.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// The outcome of a service, its failure written down.
pub(super) fn told(outcome: Result<(), Failure>) -> Result<(), Failure> {
    if let Err(failure) = &outcome {
        write(&explained(failure));
    }
    outcome
}

/// Does a job and writes its summary down.
pub(super) fn summed_up(
    command: &'static str,
    job: impl FnOnce() -> Result<Counts, Failure>,
) -> Result<(), Failure> {
    let run = Run::begin(command);
    let outcome = job();
    let end = match &outcome {
        Ok(counts) => End::Done(counts.clone()),
        Err(failure @ Failure::Findings { counts, .. }) => End::Found(explained(failure), counts.clone()),
        Err(failure) => end_of(failure),
    };
    write(&run.summary(&end));
    outcome.map(drop)
}

/// Writes down that a job did not come to what it was for.
pub(super) fn failed(run: &Run, failure: &Failure) {
    write(&summary_of(run, failure).to_termination_message());
}

/// A run that did not come to what it was for.
pub(super) fn summary_of(run: &Run, failure: &Failure) -> Summary {
    run.summed_up(&end_of(failure))
}

fn end_of(failure: &Failure) -> End {
    let told = explained(failure);
    match failure.reason() {
        _ if !failure.is_refusal() => End::Failed(told),
        Some(reason) => End::RefusedFor(reason, told),
        None => End::Refused(told),
    }
}

/// Only a container has such a file. Nobody is left to be told that it could not be written.
pub(super) fn write(text: &str) {
    if Path::new(LOG).exists() {
        let _written = std::fs::write(LOG, text);
    }
}

#[cfg(test)]
mod tests {
    use stowage_registry::jobs::{GcError, RetentionError};
    use stowage_registry::meta;
    use stowage_registry::usage::Unanswered;

    use super::*;

    #[test]
    fn a_refusal_of_retention_says_why_in_a_word() {
        let failure = Failure::Retention(RetentionError::Unanswered(Unanswered::Missing("prod".into())));
        let summary = summary_of(&Run::begin("retention"), &failure);
        assert_eq!(summary.reason.as_deref(), Some("UsageReportMissing"));
    }

    #[test]
    fn a_collection_that_does_not_trust_the_database_says_so_in_a_word() {
        let of = |error| summary_of(&Run::begin("gc"), &Failure::Gc(error)).reason;
        assert_eq!(of(GcError::from(meta::Error::Untrusted)).as_deref(), Some("CollectorFrozen"));
        assert_eq!(of(GcError::Foreign("another registry".into())), None);
    }
}
