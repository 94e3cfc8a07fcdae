// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The end of a Registry whose data go with it: stop the replicas, purge, let it go.
//!
//! Guarantees: nothing is purged while a replica could write; the purge is told whose data it may delete. It never
//! gives up by itself: only `stowage.dev/abandon-data` or the end of the namespace leaves data behind.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use stowage_crds::{Registry, conditions::Reason};

use super::{
    Outcome, Stage, build,
    build::job::purge,
    failure::Failure,
    gate, is_abandoned,
    jobs::JobState,
    set_finalizer,
    validate::{Refusal, Valid},
};
use crate::{
    apply::{self, Applier},
    context::Context,
    events::{Happening, Notice},
    names::{Component, DATA_FINALIZER},
    objects::Kind,
};

/// There is nothing left to do.
pub(super) const DONE: &str = "it is being deleted";

/// Takes the next step towards the end.
pub(super) async fn advance(
    registry: &Registry,
    outcome: &mut Outcome,
    applier: &Applier,
    cx: &Context,
) -> Result<Stage, Failure> {
    if !registry.finalizers().iter().any(|finalizer| finalizer == DATA_FINALIZER) {
        return Ok(Stage::Deleting(DONE));
    }
    if is_abandoned(registry) {
        let notice = Notice::warning(Happening::DataRetained, "the data were left as asked");
        return let_go(registry, outcome, cx, notice).await;
    }
    let Some(valid) = outcome.valid.clone() else {
        let message = "the Registry cannot be rendered, so its data cannot be purged; correct the spec, or annotate \
                       stowage.dev/abandon-data=true to leave the data";
        return Err(Refusal { reason: Reason::InvalidSpec, message: message.into() }.into());
    };
    if let Some(id) = registry.status.as_ref().and_then(|status| status.registry_id.clone()) {
        delete_data(registry, valid, &id, outcome, applier, cx).await
    } else {
        Err(Failure::UnknownRegistry)
    }
}

async fn delete_data(
    registry: &Registry,
    valid: Valid,
    id: &str,
    outcome: &mut Outcome,
    applier: &Applier,
    cx: &Context,
) -> Result<Stage, Failure> {
    match purged(&valid.stopped(), id, outcome, applier, cx).await {
        Ok(None) => {
            let notice =
                Notice::normal(Happening::DataPurged, "every object and table of the registry was deleted");
            let_go(registry, outcome, cx, notice).await
        }
        Ok(Some(what)) => Ok(Stage::Deleting(what)),
        Err(failure) if is_end_of_namespace(&failure) => {
            let notice = Notice::warning(
                Happening::DataRetained,
                "the namespace is being deleted, so no purge could be started",
            );
            let_go(registry, outcome, cx, notice).await
        }
        Err(failure) => Err(failure),
    }
}

/// Stops everything that could write and purges. Nothing when it is done, else what is waited for.
async fn purged(
    valid: &Valid,
    id: &str,
    outcome: &mut Outcome,
    applier: &Applier,
    cx: &Context,
) -> Result<Option<&'static str>, Failure> {
    let job = purge(valid, id);
    if outcome.seen.live.get(Kind::Job, job.name()).is_none() {
        stop(valid, outcome, applier).await?;
        if outcome.seen.pods_of(Component::Registry).next().is_some() || is_running(outcome) {
            return Ok(Some("the replicas are being stopped before the data are purged"));
        }
    }
    match gate::run(valid, &job, &mut outcome.seen, applier, cx).await? {
        JobState::Complete => Ok(None),
        JobState::Running => Ok(Some("the data are being purged")),
        JobState::Failed(failure) => Err(Failure::Purge(failure)),
    }
}

/// A collection that runs writes too, and so do runs of mirrors, policies and promotions.
fn is_running(outcome: &Outcome) -> bool {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let runs = [Component::GarbageCollection, Component::Sync, Component::Promote, Component::Retention];
    let mut pods = runs.into_iter().flat_map(|component| outcome.seen.pods_of(component));
    pods.any(|pod| !["Succeeded", "Failed"].contains(&phase(pod).as_str()))
}

async fn stop(valid: &Valid, outcome: &mut Outcome, applier: &Applier) -> Result<(), Failure> {
    let live = &mut outcome.seen.live;
    let schedules: Vec<_> = live
        .iter()
        .filter(|((kind, _), object)| *kind == Kind::CronJob || apply::is_run(*kind, object))
        .map(|((kind, name), object)| (*kind, name.clone(), object.uid()))
        .collect();
    for (kind, name, uid) in schedules {
        applier.delete(kind, &name, uid).await?;
        live.remove(kind, &name);
    }
    let deployment =
        build::build(valid).workload.into_iter().find(|object| object.kind() == Kind::Deployment);
    if let Some(deployment) = deployment {
        applier.apply(&deployment, live).await?;
    }
    Ok(())
}

async fn let_go(
    registry: &Registry,
    outcome: &mut Outcome,
    cx: &Context,
    notice: Notice,
) -> Result<Stage, Failure> {
    // Told before it is done: afterwards there may be nothing left to tell it about.
    crate::events::publish(&cx.recorder, &kube::Resource::object_ref(registry, &()), vec![notice]).await;
    set_finalizer(registry, false, cx).await?;
    outcome.notices.clear();
    Ok(Stage::Deleting(DONE))
}

/// Nothing can be made in a namespace that is being deleted.
fn is_end_of_namespace(failure: &Failure) -> bool {
    let Failure::Apply(apply::Error::Api { source: kube::Error::Api(status), .. }) = failure else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
