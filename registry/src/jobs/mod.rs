// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is done once and ends, and how it tells what it did.
//!
//! Assumes nothing about who else runs: what a job does can be repeated, by anybody, after a crash at any point.

mod evict;
mod export;
mod gc;
mod import;
mod load;
mod platforms;
mod promote;
mod pulls;
mod purge;
mod rebuild;
mod replicate;
mod retention;
mod schedule;
mod verify;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stowage_crds::Outcome;

pub use stowage_crds::{Summary, Termination};

pub use evict::Evicting;
pub use export::{Export, ExportCounts, ExportError, ExportOptions, Exported, Wanted, WantedError, Which};
pub use gc::{Collected, Collector, GcError, due, finish_requests};
pub use import::{ImportCounts, ImportError, Imported, Placement, Rules, import};
pub use load::{LoadCounts, LoadError, LoadOptions, Loaded, load};
pub use promote::{last_promotion, promote_termination};
pub use purge::{PurgeError, Purged, purge};
pub use rebuild::{RebuildError, RebuildOptions, Stage, rebuild};
pub use replicate::{Replicating, replicate_by_schedule, sync_termination};
pub use retention::{
    Held, PlanLine, Retained, Retainer, Retaining, RetentionError, RetentionRun, retain_by_schedule,
};
pub use schedule::collect_by_schedule;
pub use verify::{VerifyError, advice, keep_scrubbed, log, verify};

use crate::ops::clock;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It did what it was asked; what it counted.
    Done(BTreeMap<&'static str, u64>),
    /// It stopped on a failure, in words for a human.
    Failed(String),
    /// It did what it was asked and found something wrong: in words for a human, and what it counted.
    Found(String, BTreeMap<&'static str, u64>),
    /// It did not act, for safety, in words for a human.
    Refused(String),
    /// The same, with a word for it.
    RefusedFor(&'static str, String),
}

/// One run of a command, from its beginning.
#[derive(Clone, Debug)]
pub struct Run {
    command: &'static str,
    begun: Option<Time>,
}

impl Run {
    /// The command begins.
    #[must_use]
    pub fn begin(command: &'static str) -> Self {
        Self { command, begun: now() }
    }

    /// The run has ended: the text that Kubernetes keeps of it.
    #[must_use]
    pub fn summary(&self, end: &End) -> String {
        self.summed_up(end).to_termination_message()
    }

    /// The same before it is text.
    #[must_use]
    pub fn summed_up(&self, end: &End) -> Summary {
        let (result, message, counts) = match end {
            End::Done(counts) => (Outcome::Succeeded, None, counts.clone()),
            End::Found(message, counts) => (Outcome::Failed, Some(message.clone()), counts.clone()),
            End::Failed(message) => (Outcome::Failed, Some(message.clone()), BTreeMap::new()),
            End::Refused(message) | End::RefusedFor(_, message) => {
                (Outcome::Refused, Some(message.clone()), BTreeMap::new())
            }
        };
        let reason = if let End::RefusedFor(reason, _) = end { Some((*reason).to_owned()) } else { None };
        Summary { reason, message, ..self.ended(result, counts) }
    }

    /// What the summary of any run says that has ended now.
    fn ended(&self, result: Outcome, counts: BTreeMap<&'static str, u64>) -> Summary {
        let counted =
            |(name, count): (&str, u64)| (name.to_owned(), i64::try_from(count).unwrap_or(i64::MAX));
        Summary {
            start_time: self.begun.clone(),
            completion_time: now(),
            counts: counts.into_iter().map(counted).collect(),
            ..Summary::new(self.command, result)
        }
    }
}

fn now() -> Option<Time> {
    Timestamp::from_second(i64::try_from(clock::seconds()).ok()?).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_how_it_ended_and_what_it_counted() {
        let run = Run::begin("purge");
        let read = |end: &End| Summary::from_termination_message(&run.summary(end)).unwrap();
        let done = read(&End::Done([("deletedObjects", 7)].into()));
        assert_eq!((done.command.as_str(), done.result, done.message), ("purge", Outcome::Succeeded, None));
        assert_eq!(done.counts.get("deletedObjects"), Some(&7));
        assert!(done.start_time.is_some() && done.start_time <= done.completion_time);
        let refused = read(&End::Refused("not yours".to_owned()));
        assert_eq!((refused.result, refused.message.as_deref()), (Outcome::Refused, Some("not yours")));
    }
}
