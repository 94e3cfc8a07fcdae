// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The runs of Mirrors that copy: schedules, and Jobs beside them.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use stowage_crds::Mode;

use super::{
    job::{self, Clock},
    metadata, pod,
};
use crate::{
    controllers::registry::{
        replication::{COMMAND, Replication},
        validate::{Backing, Valid},
    },
    names::{Component, MIRROR_LABEL, MirrorNames},
    objects::{Kind, Object},
};

/// On a volume the replica runs them by itself: no pod beside it can mount the volume.
pub(super) fn build(valid: &Valid) -> Vec<Object> {
    if valid.backing != Backing::Shared {
        return Vec::new();
    }
    let of = |replication| schedule(valid, replication).into_iter().chain(runs(valid, replication));
    valid.replications.iter().flat_map(of).collect()
}

fn schedule(valid: &Valid, replication: &Replication) -> Option<Object> {
    let (cron, time_zone) = replication.schedule.as_ref()?;
    let clock = Clock {
        schedule: cron.as_str(),
        time_zone: time_zone.as_ref(),
        suspend: replication.suspended || valid.spec().mode == Mode::ReadOnly,
    };
    let mut metadata = metadata(valid, MirrorNames::of(&replication.mirror).schedule(), Component::Sync);
    metadata.labels.get_or_insert_default().extend([label(replication)]);
    Some(job::cron_job(metadata, &clock, run(valid, replication)))
}

/// Those that are wanted now.
fn runs<'a>(valid: &'a Valid, replication: &'a Replication) -> impl Iterator<Item = Object> + 'a {
    replication.runs.iter().map(move |name| {
        let mut metadata = metadata(valid, name.clone(), Component::Sync);
        metadata.labels.get_or_insert_default().extend([label(replication)]);
        let spec = JobSpec { ttl_seconds_after_finished: Some(job::DAY), ..run(valid, replication) };
        Object::typed(Kind::Job, &Job { metadata, spec: Some(spec), status: None })
    })
}

fn run(valid: &Valid, replication: &Replication) -> JobSpec {
    let mut args = pod::command(COMMAND);
    args.extend(["--mirror".to_owned(), replication.mirror.clone()]);
    let mut secrets = valid.job_secrets();
    let own = replication.secrets.iter().filter(|secret| !secrets.contains(secret));
    secrets.extend(own.cloned().collect::<Vec<_>>());
    let mut template = pod::job(valid, Component::Sync, args, &secrets);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.extend([label(replication)]);
    job::spec(template, 24 * job::HOUR)
}

fn label(replication: &Replication) -> (String, String) {
    (MIRROR_LABEL.to_owned(), MirrorNames::of(&replication.mirror).label())
}
