// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The runs of `RetentionPolicy` resources: schedules, and Jobs beside them.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stowage_crds::Mode;

use super::{
    job::{self, Clock},
    metadata, pod, usage,
};
use crate::{
    controllers::registry::{
        retention::{COMMAND, Retention},
        validate::{Backing, Valid},
    },
    names::{Component, RETENTION_LABEL, RetentionNames},
    objects::{Kind, Object},
};

/// On a volume the replica runs them by itself: no pod beside it can mount the volume.
pub(super) fn build(valid: &Valid) -> Vec<Object> {
    if valid.backing != Backing::Shared {
        return Vec::new();
    }
    let of = |retention| std::iter::once(schedule(valid, retention)).chain(requested(valid, retention));
    valid.retentions.iter().flat_map(of).collect()
}

fn schedule(valid: &Valid, retention: &Retention) -> Object {
    let clock = Clock {
        schedule: retention.schedule.as_str(),
        time_zone: retention.time_zone.as_ref(),
        suspend: retention.suspended || valid.spec().mode == Mode::ReadOnly,
    };
    let metadata = run_metadata(valid, RetentionNames::of(&retention.policy).schedule(), retention);
    job::cron_job(metadata, &clock, run(valid, retention))
}

/// The run that is asked for, until it is known to have been started.
fn requested(valid: &Valid, retention: &Retention) -> Option<Object> {
    let metadata = run_metadata(valid, retention.requested.clone()?, retention);
    let spec = JobSpec { ttl_seconds_after_finished: Some(job::DAY), ..run(valid, retention) };
    Some(Object::typed(Kind::Job, &Job { metadata, spec: Some(spec), status: None }))
}

/// Who deletes asks what runs.
fn run_metadata(valid: &Valid, name: String, retention: &Retention) -> ObjectMeta {
    let mut metadata = metadata(valid, name, Component::Retention);
    metadata.labels.get_or_insert_default().extend([label(retention)]);
    usage::label(valid, &mut metadata);
    metadata
}

fn run(valid: &Valid, retention: &Retention) -> JobSpec {
    let mut args = pod::command(COMMAND);
    args.extend(["--policy".to_owned(), retention.policy.clone()]);
    let mut template = pod::job(valid, Component::Retention, args, &valid.job_secrets());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.extend([label(retention)]);
    if let Some(pod) = template.spec.as_mut() {
        usage::read(valid, pod);
    }
    job::spec(template, 6 * job::HOUR)
}

fn label(retention: &Retention) -> (String, String) {
    (RETENTION_LABEL.to_owned(), RetentionNames::of(&retention.policy).label())
}
