// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Makes a cluster look like its Registries.
//!
//! An attempt observes, validates, builds and applies, in stages that wait for each other; whatever comes of it, a
//! status is computed and written if it differs.
//! Guarantees: once nothing changes, nothing is written. A repeat after any interruption ends in the same state.
//! Never: opens the database or the bucket, reads a Secret, or takes over an object of somebody else.

pub mod blocked;
pub mod build;
mod collection;
mod deletion;
mod exposed;
pub mod failure;
mod freeform;
mod gate;
pub mod jobs;
pub mod observe;
mod replicas;
pub mod replication;
pub mod retention;
mod status;
pub mod usage;
pub mod validate;

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource as _, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};
use serde_json::json;
use stowage_crds::{
    DeletionPolicy, Registry, RegistryStatus,
    conditions::{ConditionType, Reason},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::{
    build::{Plan, token_key},
    failure::Failure,
    observe::{Observed, key, observe},
    validate::{Replicas, Valid, validate},
};
use crate::{
    apply::Applier,
    context::Context,
    controllers::{Retry, condition_states},
    events::{self, Happening, Notice},
    names::{ABANDON_DATA, Component, DATA_FINALIZER, HANDOVER_MANAGER, MANAGER, RECONCILE},
    objects::Kind,
    policy::{Class, RESYNC, jittered},
};

/// The label of this controller in metrics.
pub const CONTROLLER: &str = "registry";
/// How long to wait when no watch tells of what is awaited.
const UNSETTLED: Duration = Duration::from_secs(15);
/// Failures in a row before a status speaks of what may pass by itself.
const QUIET_FAILURES: u32 = 3;

/// What an attempt came to.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen, with the answers to what was applied.
    seen: Observed,
    /// The Registry, if it can be rendered.
    valid: Option<Valid>,
    /// How far it came.
    result: Result<Stage, Failure>,
    /// What there is to tell beside the difference of two statuses.
    notices: Vec<Notice>,
}

/// How far an attempt came.
#[derive(Debug)]
enum Stage {
    /// All objects are as they should be.
    Applied,
    /// The migration runs.
    MigrationRunning,
    /// The migration waits for approval.
    MigrationRequired,
    /// Nothing was applied.
    Suspended,
    /// The data are being deleted; what is done now.
    Deleting(&'static str),
}

/// Brings one Registry forward.
pub async fn reconcile(object: Arc<DeserializeGuard<Registry>>, cx: Arc<Context>) -> Result<Action, Retry> {
    let started = Instant::now();
    let action = match &object.0 {
        Ok(registry) => Box::pin(bring_forward(&Arc::new(registry.clone()), &cx)).await,
        Err(invalid) => {
            warn!(k8s.kind = "Registry", k8s.name = ?invalid.metadata.name, error = %invalid, "resource unreadable");
            cx.metrics.invalid(CONTROLLER);
            Ok(Action::await_change())
        }
    };
    cx.metrics.reconciled(CONTROLLER, started.elapsed());
    action
}

async fn bring_forward(registry: &Arc<Registry>, cx: &Context) -> Result<Action, Retry> {
    let outcome = Box::pin(attempt(registry, cx)).await;
    if outcome.is_gone(registry) {
        forget(registry, cx);
        return Ok(Action::await_change());
    }
    let failed = outcome.result.as_ref().err().map(|failure| failed(registry, failure, cx));
    let speaks = !matches!(failed, Some(Retry { failures, .. }) if failures < QUIET_FAILURES);
    let ready = if speaks { report(registry, &outcome, cx).await? } else { false };
    cx.reports.pace(&key(registry), ready);
    if let Some(retry) = failed {
        return Err(retry);
    }
    cx.failures.reset(&(CONTROLLER, key(registry)));
    Ok(next(&outcome, ready))
}

impl Outcome {
    fn early(seen: Observed, failure: impl Into<Failure>) -> Self {
        Self { seen, valid: None, result: Err(failure.into()), notices: Vec::new() }
    }

    /// A Registry on its way out without our finalizer: its objects go with it and there is nobody to report to.
    fn is_gone(&self, registry: &Registry) -> bool {
        registry.metadata.deletion_timestamp.is_some()
            && matches!(self.result, Ok(Stage::Deleting(deletion::DONE)))
    }
}

async fn attempt(registry: &Arc<Registry>, cx: &Context) -> Outcome {
    let Some(owner) = registry.controller_owner_ref(&()) else {
        return Outcome::early(Observed::default(), validate::unsaved());
    };
    let applier = Applier::new(cx.client.clone(), registry.namespace().unwrap_or_default(), &owner);
    let seen = match observe(cx, registry, &applier).await {
        Ok(seen) => seen,
        Err(error) => return Outcome::early(Observed::default(), error),
    };
    let mut outcome = match validate(registry, &seen, &cx.settings) {
        Ok(valid) => Outcome { seen, valid: Some(valid), result: Ok(Stage::Suspended), notices: Vec::new() },
        Err(refusal) => Outcome::early(seen, refusal),
    };
    if registry.metadata.deletion_timestamp.is_some() {
        outcome.result = deletion::advance(registry, &mut outcome, &applier, cx).await;
    } else if let Some(valid) = outcome.valid.clone()
        && !is_suspended(registry)
    {
        outcome.result = apply(registry, &valid, &mut outcome.seen, &applier, cx).await;
    }
    outcome
}

fn is_suspended(registry: &Registry) -> bool {
    registry.spec.suspend || registry.annotations().get(RECONCILE).is_some_and(|value| value == "disabled")
}

async fn apply(
    registry: &Registry,
    valid: &Valid,
    seen: &mut Observed,
    applier: &Applier,
    cx: &Context,
) -> Result<Stage, Failure> {
    keep_finalizer(registry, cx).await?;
    let plan = build::build(valid);
    for object in &plan.foundation {
        applier.apply(object, &mut seen.live).await?;
    }
    ensure_token_key(valid, seen, applier, cx).await?;
    applier.apply(&plan.document, &mut seen.live).await?;
    if let Some(waits) = gate::pass(valid, &plan, seen, applier, cx).await? {
        return Ok(waits);
    }
    hand_over_replicas(valid, seen, applier).await?;
    finish(valid, &plan, seen, applier).await?;
    seen.usage = usage::answer(valid, seen, applier, cx).await?;
    if let Some(rebuild) = &plan.rebuild {
        // How it stands is for the status to tell: the replicas do not wait for it.
        gate::run(valid, rebuild, seen, applier, cx).await?;
    }
    Ok(Stage::Applied)
}

async fn finish(valid: &Valid, plan: &Plan, seen: &mut Observed, applier: &Applier) -> Result<(), Failure> {
    for object in plan.workload.iter().chain(&plan.surroundings) {
        applier.apply(object, &mut seen.live).await?;
    }
    let mut wanted = plan.wanted();
    wanted.extend(usage::wanted(valid));
    Ok(applier.prune(&wanted, &mut seen.live).await?)
}

/// The finalizer is there while a deletion would have to purge, and only then.
async fn keep_finalizer(registry: &Registry, cx: &Context) -> Result<(), Failure> {
    let wanted = registry.spec.deletion_policy == DeletionPolicy::Delete;
    let present = registry.finalizers().iter().any(|finalizer| finalizer == DATA_FINALIZER);
    if wanted == present { Ok(()) } else { set_finalizer(registry, wanted, cx).await }
}

async fn set_finalizer(registry: &Registry, present: bool, cx: &Context) -> Result<(), Failure> {
    let others = registry.finalizers().iter().filter(|finalizer| *finalizer != DATA_FINALIZER).cloned();
    let finalizers: Vec<_> = others.chain(present.then(|| DATA_FINALIZER.to_owned())).collect();
    let version = &registry.metadata.resource_version;
    let body = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let api = cx.api::<Registry>(&registry.namespace().unwrap_or_default());
    match api.patch(&registry.name_any(), &params, &Patch::Merge(body)).await {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::Own { verb: "set the finalizer of", source }),
    }
}

/// Makes the token key once per process, and again when a replica may be missing it.
async fn ensure_token_key(
    valid: &Valid,
    seen: &Observed,
    applier: &Applier,
    cx: &Context,
) -> Result<(), Failure> {
    let uid = &valid.owner.uid;
    if misses_a_secret(seen) {
        cx.token_keys.undo(uid);
    }
    if !valid.spec().has_own_token_key() || cx.token_keys.is_done(uid) {
        return Ok(());
    }
    let pem = crate::keys::new_signing_key();
    if let Some(secret) = token_key::build(valid, Some(pem)) {
        applier.apply(&secret, &mut seen.live.clone()).await?;
    }
    cx.token_keys.done(uid.clone());
    Ok(())
}

/// A replica that runs says so; one that cannot start refuses its configuration, whatever is wrong with it.
fn misses_a_secret(seen: &Observed) -> bool {
    let said = seen.reports.all().flat_map(|report| &report.resources).any(|resource| {
        resource.kind == "Registry" && resource.reason.as_deref() == Some(Reason::SecretNotFound.as_str())
    });
    let trouble = replicas::trouble(seen.pods_of(Component::Registry));
    said || trouble.is_some_and(|trouble| trouble.reason == Reason::InvalidConfiguration)
}

/// Before an autoscaler takes over, another manager holds the number of replicas: a field that nobody holds falls
/// back to its default, which is one.
async fn hand_over_replicas(valid: &Valid, seen: &Observed, applier: &Applier) -> Result<(), Failure> {
    let name = valid.names().main();
    let (Replicas::Autoscaled { .. }, Some(live)) = (valid.replicas, seen.live.get(Kind::Deployment, &name))
    else {
        return Ok(());
    };
    let replicas = live.data.pointer("/spec/replicas").cloned();
    if let Some(replicas) = replicas.filter(|_| owns_replicas(&live.metadata)) {
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "uid": live.metadata.uid },
            "spec": { "replicas": replicas },
        });
        applier.apply_as(HANDOVER_MANAGER, Kind::Deployment, &name, body).await?;
    }
    Ok(())
}

fn owns_replicas(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    })
}

/// Writes the status if it differs and tells what changed. True if the Registry is ready.
async fn report(registry: &Registry, outcome: &Outcome, cx: &Context) -> Result<bool, Retry> {
    let status = status::status(registry, outcome, &Time((cx.now)()));
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    cx.metrics.conditions("Registry", &namespace, &name, &condition_states(&status.conditions));
    let mut notices = outcome.notices.clone();
    if registry.status.as_ref() != Some(&status) {
        write_status(registry, &status, cx).await.map_err(|failure| failed(registry, &failure, cx))?;
        notices.extend(events::of_registry(registry.status.as_ref(), &status));
        notices.extend(without_policies(registry, outcome, &status));
        info!(k8s.kind = "Registry", k8s.namespace = %namespace, k8s.name = %name, "status changed");
    }
    events::publish(&cx.recorder, &registry.object_ref(&()), notices).await;
    Ok(stowage_crds::conditions::is_true(&status.conditions, ConditionType::Ready))
}

/// Users without any policy can do no more than anonymous: worth a word when it becomes ready.
fn without_policies(registry: &Registry, outcome: &Outcome, status: &RegistryStatus) -> Option<Notice> {
    let has_users = registry.spec.auth.as_ref().is_some_and(|auth| auth.htpasswd.is_some());
    let is_ready = |conditions| stowage_crds::conditions::is_true(conditions, ConditionType::Ready);
    let was_ready = registry.status.as_ref().is_some_and(|status| is_ready(&status.conditions));
    let alone = outcome.valid.as_ref().is_some_and(|valid| !valid.has_policies);
    (has_users && alone && !was_ready && is_ready(&status.conditions)).then(|| {
        let text = "users can log in, but no AccessPolicy grants them anything";
        Notice::warning(Happening::NoAccessPolicy, text)
    })
}

async fn write_status(registry: &Registry, status: &RegistryStatus, cx: &Context) -> Result<(), Failure> {
    let body = json!({
        "apiVersion": Registry::api_version(&()),
        "kind": Registry::kind(&()),
        "metadata": { "name": registry.name_any(), "uid": registry.uid() },
        "status": status,
    });
    let api = cx.api::<Registry>(&registry.namespace().unwrap_or_default());
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&registry.name_any(), &params, &Patch::Apply(body)).await {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::Own { verb: "write the status of", source }),
    }
}

fn failed(registry: &Registry, failure: &Failure, cx: &Context) -> Retry {
    let key = key(registry);
    debug!(k8s.namespace = %key.namespace, k8s.name = %key.name, error = %failure.describe(), "attempt failed");
    match failure.class() {
        Class::Terminal => Retry { after: jittered(RESYNC, 0.1), failures: QUIET_FAILURES },
        Class::Waiting(after) => Retry { after: after.min(UNSETTLED), failures: QUIET_FAILURES },
        Class::Transient => {
            cx.metrics.failed(CONTROLLER, failure.reason().as_str());
            let (failures, after) = cx.failures.count((CONTROLLER, key));
            Retry { after, failures }
        }
    }
}

fn next(outcome: &Outcome, ready: bool) -> Action {
    let next_run = outcome.valid.as_ref().and_then(Valid::next_run);
    match outcome.result {
        Ok(Stage::Suspended) if ready => Action::requeue(jittered(RESYNC, 0.1)),
        Ok(Stage::Applied) if ready => {
            let resync = jittered(RESYNC, 0.1);
            Action::requeue(next_run.map_or(resync, |next| next.min(resync)))
        }
        _ => Action::requeue(UNSETTLED),
    }
}

fn forget(registry: &Registry, cx: &Context) {
    let key = key(registry);
    cx.metrics.conditions("Registry", &key.namespace, &key.name, &[]);
    cx.reports.forget(&key);
    cx.failures.reset(&(CONTROLLER, key));
    if let Some(uid) = registry.uid() {
        cx.token_keys.undo(&uid);
    }
}

fn is_abandoned(registry: &Registry) -> bool {
    registry.annotations().get(ABANDON_DATA).is_some_and(|value| value == "true")
}
