// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether a run cannot begin, although it was asked for or is due. Pure.
//!
//! Without a word it would only seem to be slow: a Job whose pod no node takes counts as running, and beside a replica
//! that holds a volume there is no Job at all.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use stowage_crds::conditions::{ConditionType, Finding, Reason};

use super::jobs::JOB_NAME;

/// The condition, if a run is held up. `request` is the annotation that asks for a Job where none can be.
#[must_use]
pub fn blocked<'a>(request: Option<&str>, pods: impl IntoIterator<Item = &'a Pod>) -> Option<Finding> {
    let found = |reason, text| Finding::new(ConditionType::RunBlocked, true, reason, text);
    if let Some(annotation) = request {
        let text = format!(
            "no Job can run beside the replica that holds the volume, so the annotation {annotation} does nothing: take \
             it away"
        );
        return Some(found(Reason::NoJobs, text));
    }
    let waiting = pods.into_iter().filter(|pod| is_unschedulable(pod));
    let job = waiting.filter_map(|pod| pod.labels().get(JOB_NAME)).min()?;
    Some(found(
        Reason::Unschedulable,
        format!("no node takes the pod of Job {job}: the events of the pod say why"),
    ))
}

/// The scheduler looked and found no node: the volume may be on another one, or there is no room.
fn is_unschedulable(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let waits = status.phase.as_deref().is_none_or(|phase| phase == "Pending");
    waits
        && status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn pod(job: Option<&str>, scheduled: &str, reason: &str) -> Pod {
        let labels = job.map(|job| json!({ JOB_NAME: job }));
        from_value(json!({
            "metadata": { "name": "p", "labels": labels },
            "status": { "conditions": [{ "type": "PodScheduled", "status": scheduled, "reason": reason }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_of_a_job_that_no_node_takes_holds_up_its_run() {
        let stuck = pod(Some("main-purge"), "False", "Unschedulable");
        let found = blocked(None, [&stuck]).unwrap();
        assert_eq!((found.condition, found.reason), (ConditionType::RunBlocked, Reason::Unschedulable));
        assert!(found.message.contains("Job main-purge"), "{}", found.message);
        let scheduled = pod(Some("main-gc-1"), "True", "");
        let gated = pod(Some("main-gc-1"), "False", "SchedulingGated");
        let replica = pod(None, "False", "Unschedulable");
        assert_eq!(blocked(None, [&scheduled, &gated, &replica]), None);
    }

    #[test]
    fn a_request_for_a_job_that_cannot_be_is_answered() {
        let found = blocked(Some("stowage.dev/run-requested-at"), []).unwrap();
        assert_eq!(found.reason, Reason::NoJobs);
        assert!(found.message.contains("stowage.dev/run-requested-at"), "{}", found.message);
    }
}
