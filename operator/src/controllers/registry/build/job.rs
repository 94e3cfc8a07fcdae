// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The Jobs of a Registry: the migration that a rollout waits for, the rebuild of a lost database, the purge that a
//! deletion waits for, the schedule of the collector, and a run of it that was asked for.
//!
//! Exit codes 2 and 3 are decisions, not accidents: they end the Job at once. A pod that a drain took does not count.

use k8s_openapi::{
    api::{
        batch::v1::{
            CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec, PodFailurePolicy,
            PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
            PodFailurePolicyRule,
        },
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use stowage_crds::TimeZone;

use super::{metadata, pod, usage};
use crate::{
    controllers::registry::validate::{Backing, Valid},
    names::{Component, MADE_FOR},
    objects::{Kind, Object},
};

/// An hour, in seconds.
pub(super) const HOUR: i64 = 3600;
/// How long what a run said stays to be looked at, in seconds.
pub(super) const DAY: i32 = 24 * 3600;

/// The gate of the rollout. It stays when it has succeeded: its presence says that the schema fits the image.
pub(super) fn migration(valid: &Valid) -> Option<Object> {
    match valid.backing {
        Backing::Volume { .. } => None,
        Backing::Shared => {
            let template =
                pod::job(valid, Component::Migrate, pod::command("migrate"), &valid.database_secrets());
            let mut metadata = metadata(valid, valid.migration_name(), Component::Migrate);
            metadata.annotations = Some([(MADE_FOR.to_owned(), valid.made_for())].into());
            Some(Object::typed(Kind::Job, &Job { metadata, spec: Some(spec(template, HOUR)), status: None }))
        }
    }
}

/// Makes an empty database that of the bucket's registry, if that is the one that was confirmed.
pub(super) fn rebuild(valid: &Valid) -> Option<Object> {
    let confirmed = valid.rebuild.as_ref()?;
    let mut args = pod::command("rebuild");
    args.extend(["--adopt".to_owned(), format!("--confirm={confirmed}")]);
    let template = pod::job(valid, Component::Rebuild, args, &valid.job_secrets());
    let mut metadata = metadata(valid, valid.names().rebuild(), Component::Rebuild);
    metadata.annotations = Some([(MADE_FOR.to_owned(), valid.made_for())].into());
    Some(Object::typed(Kind::Job, &Job { metadata, spec: Some(spec(template, 24 * HOUR)), status: None }))
}

/// Removes every key under the prefix and every table. `confirm` is the registry's own id, so that a bucket that
/// another registry took over meanwhile is refused.
#[must_use]
pub fn purge(valid: &Valid, confirm: &str) -> Object {
    let mut args = pod::command("purge");
    args.extend(["--confirm".to_owned(), confirm.to_owned()]);
    let template = pod::job(valid, Component::Purge, args, &valid.job_secrets());
    let mut metadata = metadata(valid, valid.names().purge(), Component::Purge);
    metadata.annotations = Some([(MADE_FOR.to_owned(), valid.made_for())].into());
    Object::typed(Kind::Job, &Job { metadata, spec: Some(spec(template, 24 * HOUR)), status: None })
}

/// The collector's schedule. On a volume the replica collects by itself: no pod beside it can mount the volume.
pub(super) fn garbage_collection(valid: &Valid) -> Option<Object> {
    if valid.backing != Backing::Shared {
        return None;
    }
    let asked = valid.spec().garbage_collection();
    let clock = Clock {
        schedule: asked.schedule.as_str(),
        time_zone: asked.time_zone.as_ref(),
        suspend: asked.suspend,
    };
    let metadata = collection_metadata(valid, valid.names().garbage_collection());
    Some(cron_job(metadata, &clock, collection(valid)))
}

/// When the runs of a schedule begin.
pub(super) struct Clock<'a> {
    pub(super) schedule: &'a str,
    /// Without one, UTC.
    pub(super) time_zone: Option<&'a TimeZone>,
    pub(super) suspend: bool,
}

/// A schedule; its Jobs bear its labels.
pub(super) fn cron_job(metadata: ObjectMeta, clock: &Clock<'_>, run: JobSpec) -> Object {
    let job_template = JobTemplateSpec {
        metadata: Some(ObjectMeta { labels: metadata.labels.clone(), ..ObjectMeta::default() }),
        spec: Some(run),
    };
    let time_zone = clock.time_zone.map_or_else(|| "Etc/UTC".to_owned(), ToString::to_string);
    let cron = CronJob {
        metadata,
        spec: Some(CronJobSpec {
            schedule: clock.schedule.to_owned(),
            time_zone: Some(time_zone),
            concurrency_policy: Some("Forbid".into()),
            starting_deadline_seconds: Some(HOUR),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(3),
            suspend: Some(clock.suspend),
            job_template,
        }),
        status: None,
    };
    Object::typed(Kind::CronJob, &cron)
}

/// One collection that was asked for, until it is known to have been started.
pub(super) fn requested_collection(valid: &Valid) -> Option<Object> {
    let name = valid.requested_collection()?;
    let metadata = collection_metadata(valid, name);
    let spec = JobSpec { ttl_seconds_after_finished: Some(DAY), ..collection(valid) };
    Some(Object::typed(Kind::Job, &Job { metadata, spec: Some(spec), status: None }))
}

fn collection(valid: &Valid) -> JobSpec {
    let args = pod::command("gc");
    let mut template = pod::job(valid, Component::GarbageCollection, args, &valid.job_secrets());
    if let Some(pod) = template.spec.as_mut().filter(|_| valid.evicts) {
        usage::read(valid, pod);
    }
    spec(template, 6 * HOUR)
}

/// Who evicts what is unused from mirrors asks what is used.
fn collection_metadata(valid: &Valid, name: String) -> ObjectMeta {
    let mut metadata = metadata(valid, name, Component::GarbageCollection);
    if valid.evicts {
        usage::label(valid, &mut metadata);
    }
    metadata
}

pub(super) fn spec(template: PodTemplateSpec, deadline: i64) -> JobSpec {
    JobSpec {
        backoff_limit: Some(2),
        active_deadline_seconds: Some(deadline),
        pod_failure_policy: Some(PodFailurePolicy { rules: vec![decided(), disrupted()] }),
        template,
        ..JobSpec::default()
    }
}

fn decided() -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: "FailJob".into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(pod::CONTAINER.into()),
            operator: "In".into(),
            values: vec![2, 3],
        }),
        on_pod_conditions: None,
    }
}

fn disrupted() -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: "Ignore".into(),
        on_exit_codes: None,
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
        }]),
    }
}
