// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How a Job stands, and why it failed. Pure.

use std::time::Duration;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ContainerStateTerminated, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt as _;
use stowage_crds::{Outcome, Summary, Termination, conditions::Reason};

use super::build::pod;

/// The label by which Kubernetes names the Job of a pod.
pub(super) const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Bad configuration.
pub const EXIT_CONFIGURATION: i32 = 2;
/// Refused for safety.
pub const EXIT_REFUSED: i32 = 3;

/// How a Job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It has not ended.
    Running,
    /// It has done what it was for.
    Complete,
    /// It has given up.
    Failed(JobFailure),
}

/// Why a Job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// What its last pod exited with, if that pod is still there.
    pub exit: Option<i32>,
    /// For a human.
    pub message: String,
}

impl JobFailure {
    /// Did the command decide, so that a human must change something?
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.exit, Some(EXIT_CONFIGURATION | EXIT_REFUSED))
    }

    /// How long to wait before it is tried again. What a human must change may be a Secret, which nobody tells us of.
    #[must_use]
    pub fn pause(&self) -> Duration {
        Duration::from_secs(if self.is_decided() { 300 } else { 60 })
    }
}

/// How a Job stands, with the pods around it.
#[must_use]
pub fn state(job: &Job, pods: &[Pod]) -> JobState {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended = |kind: &str| conditions.clone().any(|c| c.type_ == kind && c.status == "True");
    if ended("Complete") {
        return JobState::Complete;
    }
    if !ended("Failed") {
        return JobState::Running;
    }
    let end = last_end(&job.name_any(), pods);
    let exit = end.map(|end| end.exit_code);
    let message = end.and_then(said).unwrap_or_else(|| meaning(exit).to_owned());
    JobState::Failed(JobFailure { exit, message })
}

/// What a run of `command` that has ended says. When it began and ended is what Kubernetes says: clocks of nodes may
/// differ.
#[must_use]
pub fn ended(job: &Job, pods: &[Pod], command: &str) -> Option<Termination> {
    let end = last_end(&job.name_any(), pods);
    let (result, missing) = match state(job, pods) {
        JobState::Running => return None,
        JobState::Complete => (Outcome::Succeeded, "the run succeeded and left no summary".to_owned()),
        JobState::Failed(failure) if failure.exit == Some(EXIT_REFUSED) => {
            (Outcome::Refused, failure.message)
        }
        JobState::Failed(failure) => (Outcome::Failed, failure.message),
    };
    let said = end.and_then(|end| Termination::from_termination_message(end.message.as_deref()?));
    let said = said.filter(|said| said.summary.command == command).unwrap_or_else(|| Termination {
        summary: Summary {
            reason: Some(Reason::SummaryMissing.to_string()),
            message: Some(missing),
            ..Summary::new(command, result)
        },
        failures: Vec::new(),
        evaluation: None,
    });
    let status = job.status.as_ref()?;
    let summary = Summary {
        result,
        start_time: status.start_time.clone(),
        completion_time: status.completion_time.clone().or_else(|| failed_at(job)),
        ..said.summary
    };
    Some(Termination { summary, ..said })
}

fn failed_at(job: &Job) -> Option<Time> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed")?;
    failed.last_transition_time.clone()
}

/// How the last pod of a Job ended, if it is still there.
#[must_use]
pub fn last_end<'a>(job: &str, pods: &'a [Pod]) -> Option<&'a ContainerStateTerminated> {
    let of_job = pods.iter().filter(|pod| pod.labels().get(JOB_NAME).map(String::as_str) == Some(job));
    let ends = of_job.filter_map(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        let container = statuses.iter().find(|status| status.name == pod::CONTAINER)?;
        container.state.as_ref()?.terminated.as_ref()
    });
    ends.max_by_key(|end| end.finished_at.as_ref().map(|time| time.0))
}

/// What the command itself said, if it ended with a summary. Text of a log is never shown.
fn said(end: &ContainerStateTerminated) -> Option<String> {
    Summary::from_termination_message(end.message.as_deref()?)?.message
}

/// What an exit code means, where the command itself said nothing.
#[must_use]
pub fn meaning(exit: Option<i32>) -> &'static str {
    match exit {
        Some(EXIT_CONFIGURATION) => "the command refused its configuration (exit 2); its log says which part",
        Some(EXIT_REFUSED) => "the command refused to act, for safety (exit 3); its log says why",
        Some(_) => "the command failed; its log says why",
        None => "the command ended without a trace: its pod is gone",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn job(condition: &str) -> Job {
        from_value(json!({
            "metadata": { "name": "j" },
            "status": { "conditions": [{ "type": condition, "status": "True" }] },
        }))
        .unwrap()
    }

    fn pod(exit: i32, second: u32, message: &Value) -> Pod {
        from_value(json!({
            "metadata": { "name": "p", "labels": { "batch.kubernetes.io/job-name": "j" } },
            "status": { "containerStatuses": [{
                "name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": {
                    "exitCode": exit, "message": message, "finishedAt": format!("2026-01-01T00:00:{second:02}Z"),
                } },
            }] },
        }))
        .unwrap()
    }

    #[test]
    fn the_last_pod_says_why() {
        let summary = json!(r#"{"command":"migrate","result":"Failed","message":"no such host"}"#);
        let pods = [pod(2, 9, &summary), pod(1, 3, &Value::Null)];
        let JobState::Failed(failure) = state(&job("Failed"), &pods) else { panic!("it failed") };
        assert_eq!(failure, JobFailure { exit: Some(2), message: "no such host".into() });
        assert!(failure.is_decided());
    }

    #[test]
    fn log_text_is_not_shown() {
        let pods = [pod(1, 3, &json!("password=secret"))];
        let JobState::Failed(failure) = state(&job("Failed"), &pods) else { panic!("it failed") };
        assert!(!failure.message.contains("secret"));
        assert!(!failure.is_decided());
    }

    #[test]
    fn a_job_without_an_end_runs() {
        assert_eq!(state(&job("Suspended"), &[]), JobState::Running);
        assert_eq!(state(&job("Complete"), &[]), JobState::Complete);
    }
}
