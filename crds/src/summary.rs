// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a Job reports when it ends: JSON in its termination message, copied into the status of its resource.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Evaluation, SyncFailure};

/// The longest termination message that a kubelet hands on, in bytes.
const LONGEST: usize = 4096;
/// The most counts that a status holds of one.
const MOST_COUNTS: usize = 32;
/// The longest text a summary carries, in bytes.
const LONGEST_MESSAGE: usize = 512;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Outcome {
    /// It did what it was asked.
    Succeeded,
    /// It stopped on a failure; a repeat may do better.
    Failed,
    /// It did not act, for safety; the reason says what to lift.
    Refused,
}

/// What one run of a command did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The subcommand: `gc`, `migrate`, `retention`, …
    pub command: String,
    /// How it ended.
    pub result: Outcome,
    /// One CamelCase word, when there is more to say than the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// The mode it ran in, where the command has modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What it counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub counts: BTreeMap<String, i64>,
}

impl Summary {
    /// The summary of `command` with nothing but its result.
    #[must_use]
    pub fn new(command: impl Into<String>, result: Outcome) -> Self {
        Self {
            command: command.into(),
            result,
            reason: None,
            message: None,
            mode: None,
            start_time: None,
            completion_time: None,
            counts: BTreeMap::new(),
        }
    }

    /// The text for the termination log: JSON that fits, its message cut if it must be.
    #[must_use]
    pub fn to_termination_message(&self) -> String {
        self.clone().cut().json()
    }

    /// Reads a termination message; `None` if it is none of ours (the pod died before it could write one). What is
    /// longer than a status may hold is cut.
    #[must_use]
    pub fn from_termination_message(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self::cut)
    }

    fn cut(mut self) -> Self {
        self.message = self.message.as_deref().map(|message| shortened(message, LONGEST_MESSAGE).to_owned());
        while self.counts.len() > MOST_COUNTS || (self.json().len() > LONGEST && !self.counts.is_empty()) {
            self.counts.pop_last();
        }
        self
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and times are JSON")
    }
}

/// What a Job says when it ends: its summary, and what of the work it names. Read as a [`Summary`], it is that.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Termination {
    /// The summary.
    #[serde(flatten)]
    pub summary: Summary,
    /// What could not be done, the first of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<SyncFailure>,
    /// What of a promotion was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
}

impl Termination {
    /// The most failures that are named.
    pub const MOST_FAILURES: usize = 10;

    /// The text for the termination log: JSON that fits, with as many failures as it has room for.
    #[must_use]
    pub fn to_termination_message(&self) -> String {
        let summary = self.summary.clone().cut();
        let mut named = self.failures.len().min(Self::MOST_FAILURES);
        let mut evaluation = self.evaluation.clone();
        loop {
            let failures = self.failures.iter().take(named).cloned().collect();
            let cut = Self { summary: summary.clone(), failures, evaluation: evaluation.clone() };
            let text = serde_json::to_string(&cut).expect("strings, numbers and times are JSON");
            if text.len() <= LONGEST {
                return text;
            }
            match (named, &mut evaluation) {
                (0, None) => return text,
                (0, Some(told)) if told.gates.iter().all(|gate| gate.message.is_empty()) => evaluation = None,
                // The reasons have room, the messages may not.
                (0, Some(told)) => told.gates.iter_mut().for_each(|gate| gate.message.clear()),
                _ => named -= 1,
            }
        }
    }

    /// Reads a termination message; `None` if it is none of ours. What is longer than a status may hold is cut.
    #[must_use]
    pub fn from_termination_message(text: &str) -> Option<Self> {
        let mut read = serde_json::from_str::<Self>(text).ok()?;
        read.summary = read.summary.cut();
        read.failures.truncate(Self::MOST_FAILURES);
        Some(read)
    }
}

/// The longest prefix of `text` of at most `most` bytes that ends between characters.
fn shortened(text: &str, most: usize) -> &str {
    text.split_at(text.floor_char_boundary(most)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_survives_the_termination_log() {
        let mut summary = Summary::new("gc", Outcome::Succeeded);
        summary.counts.insert("deletedBlobs".to_owned(), 812);
        let text = summary.to_termination_message();
        assert_eq!(text, r#"{"command":"gc","result":"Succeeded","counts":{"deletedBlobs":812}}"#);
        assert_eq!(Summary::from_termination_message(&text), Some(summary));
    }

    #[test]
    fn a_long_summary_is_cut_to_what_a_kubelet_keeps() {
        let mut summary = Summary::new("gc", Outcome::Failed);
        summary.message = Some("ü".repeat(1000));
        summary.counts = (0..1000).map(|n| (format!("counter-{n:04}-{}", "x".repeat(200)), n)).collect();
        let text = summary.to_termination_message();
        assert!(text.len() <= LONGEST, "{}", text.len());
        let read = Summary::from_termination_message(&text).unwrap();
        assert_eq!(read.message.unwrap().len(), 512);
        assert!(!read.counts.is_empty());
    }

    #[test]
    fn what_somebody_else_wrote_is_cut_to_what_a_status_holds() {
        let mut summary = Summary::new("gc", Outcome::Failed);
        summary.message = Some("x".repeat(600));
        summary.counts = (0..40).map(|n| (format!("c{n:02}"), n)).collect();
        let read = Summary::from_termination_message(&summary.json()).unwrap();
        assert_eq!((read.message.unwrap().len(), read.counts.len()), (512, 32));
    }

    #[test]
    fn a_termination_names_as_many_failures_as_have_room() {
        let failure = |reference: String| SyncFailure { reference, reason: "UpstreamUnreachable".to_owned() };
        let summary = Summary::new("sync", Outcome::Failed);
        let told = Termination {
            evaluation: None,
            summary,
            failures: (0..12).map(|n| failure(format!("a:{n}"))).collect(),
        };
        let read = Termination::from_termination_message(&told.to_termination_message()).unwrap();
        assert_eq!((&read.failures[..], read.failures.len()), (&told.failures[..10], 10));
        let text = told.to_termination_message();
        assert_eq!(Summary::from_termination_message(&text), Some(read.summary));
        let long = Termination { failures: vec![failure("x".repeat(900)); 10], ..told };
        let text = long.to_termination_message();
        assert!(text.len() <= LONGEST);
        assert_eq!(Termination::from_termination_message(&text).unwrap().failures.len(), 4);
    }

    #[test]
    fn text_that_is_no_summary_is_none() {
        assert_eq!(Summary::from_termination_message("panicked at"), None);
    }
}
