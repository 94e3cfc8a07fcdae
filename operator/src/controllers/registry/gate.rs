// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The gate between an image and its rollout: the migration Job has to succeed first.
//!
//! Guarantees: the replicas of the old image go on while it runs, waits or fails. A Job that failed is tried again
//! after a pause, and at once when the Registry was edited or a reconciliation was asked for.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;

use super::{
    Stage,
    build::Plan,
    failure::Failure,
    jobs::{self, JobFailure, JobState},
    observe::Observed,
    validate::Valid,
};
use crate::{
    apply::Applier,
    context::Context,
    names::MADE_FOR,
    objects::{Kind, Object},
};

/// Passes the gate, or says what it waits for.
pub(super) async fn pass(
    valid: &Valid,
    plan: &Plan,
    seen: &mut Observed,
    applier: &Applier,
    cx: &Context,
) -> Result<Option<Stage>, Failure> {
    let Some(object) = &plan.migration else { return Ok(None) };
    let exists = seen.live.get(Kind::Job, object.name()).is_some();
    if !exists && !valid.migration_approved() {
        return Ok(Some(Stage::MigrationRequired));
    }
    match run(valid, object, seen, applier, cx).await? {
        JobState::Complete => Ok(None),
        JobState::Running => Ok(Some(Stage::MigrationRunning)),
        JobState::Failed(failure) => Err(Failure::Migration(failure)),
    }
}

/// Makes a Job, or looks how it stands; takes away one that failed when it is time to try again.
pub(super) async fn run(
    valid: &Valid,
    object: &Object,
    seen: &mut Observed,
    applier: &Applier,
    cx: &Context,
) -> Result<JobState, Failure> {
    applier.apply(object, &mut seen.live).await?;
    let Some(job) = seen.live.typed::<Job>(Kind::Job, object.name()) else { return Ok(JobState::Running) };
    let state = jobs::state(&job, &seen.pods);
    if let JobState::Failed(failure) = &state
        && is_worth_repeating(&job, failure, valid, cx)
    {
        applier.delete(Kind::Job, object.name(), job.uid()).await?;
        seen.live.remove(Kind::Job, object.name());
        return Ok(JobState::Running);
    }
    Ok(state)
}

fn is_worth_repeating(job: &Job, failure: &JobFailure, valid: &Valid, cx: &Context) -> bool {
    let changed = job.annotations().get(MADE_FOR) != Some(&valid.made_for());
    changed || cx.failed_jobs.left(job.uid().unwrap_or_default(), failure.pause()).is_none()
}
