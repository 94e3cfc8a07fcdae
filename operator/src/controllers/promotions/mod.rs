// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Carries Promotions out, each once: a Job evaluates and promotes, or says when to come again.
//!
//! Observe → decide (pure) → make the next Job, if one is due → write the status, if it differs.
//! Guarantees: at most one Job of a Promotion is made at a time, named by how many there were; what has ended is never
//! begun again. What is promoted is pinned by the first Job.
//! Never: judges a gate, opens the database or the bucket.

mod status;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::DeserializeGuard,
    runtime::controller::Action,
};
use serde_json::json;
use stowage_crds::{Promotion, PromotionPolicy, PromotionStatus, Registry, conditions::Reason};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::status::{Decision, decide};
use super::{
    Retry, condition_states,
    registry::{
        build::promote::{Asked, evaluation},
        observe::{self, observe},
        validate::{Refusal, validate},
    },
};
use crate::{
    apply::{self, Applier, Live},
    context::Context,
    events,
    names::{MANAGER, PROMOTION_LABEL, PromotionNames},
    policy::{RESYNC, jittered},
    reports::Key,
};

/// The label of this controller in metrics.
pub const CONTROLLER: &str = "promotion";

/// What there is to know around a Promotion.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its policy.
    policy: Option<PromotionPolicy>,
    /// The Registry of the policy.
    registry: Option<Registry>,
    /// Its Jobs, and their pods.
    runs: Vec<Job>,
    pods: Vec<Pod>,
}

/// Why an attempt did not come to its end.
#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Observe(#[from] observe::Error),
    #[error(transparent)]
    Registry(#[from] Refusal),
}

/// Brings one Promotion forward.
pub async fn reconcile(object: Arc<DeserializeGuard<Promotion>>, cx: Arc<Context>) -> Result<Action, Retry> {
    let started = Instant::now();
    let action = match &object.0 {
        Ok(promotion) => Box::pin(update(promotion, &cx)).await,
        Err(invalid) => {
            warn!(k8s.kind = "Promotion", k8s.name = ?invalid.metadata.name, error = %invalid, "resource unreadable");
            cx.metrics.invalid(CONTROLLER);
            Ok(Action::await_change())
        }
    };
    cx.metrics.reconciled(CONTROLLER, started.elapsed());
    action
}

/// Forgets a Promotion that is gone.
pub fn forget(key: &Key, cx: &Context) {
    cx.metrics.conditions("Promotion", &key.namespace, &key.name, &[]);
    cx.failures.reset(&(CONTROLLER, key.clone()));
}

async fn update(promotion: &Promotion, cx: &Context) -> Result<Action, Retry> {
    let key = Key { namespace: promotion.namespace().unwrap_or_default(), name: promotion.name_any() };
    if promotion.metadata.deletion_timestamp.is_some() {
        forget(&key, cx);
        return Ok(Action::await_change());
    }
    match bring_forward(promotion, cx).await {
        Ok(next) => {
            cx.failures.reset(&(CONTROLLER, key));
            Ok(Action::requeue(next.unwrap_or(jittered(RESYNC, 0.1))))
        }
        Err(error) => {
            debug!(k8s.name = %key.name, %error, "attempt failed");
            cx.metrics.failed(CONTROLLER, Reason::Retrying.as_str());
            let (failures, after) = cx.failures.count((CONTROLLER, key));
            Err(Retry { after, failures })
        }
    }
}

/// When to look again.
async fn bring_forward(promotion: &Promotion, cx: &Context) -> Result<Option<Duration>, Error> {
    let seen = look(promotion, cx).await?;
    let Decision { status, evaluates, expired, next } = decide(promotion, &seen, (cx.now)());
    if expired {
        delete(promotion, cx).await?;
        return Ok(None);
    }
    if let (true, Some(registry), Some(owner)) =
        (evaluates, &seen.registry, promotion.controller_owner_ref(&()))
    {
        evaluate(promotion, registry, &owner, &status, cx).await?;
    }
    write(promotion, &status, cx).await?;
    Ok(next)
}

async fn look(promotion: &Promotion, cx: &Context) -> Result<Seen, kube::Error> {
    let namespace = promotion.namespace().unwrap_or_default();
    let policies = cx.api::<DeserializeGuard<PromotionPolicy>>(&namespace);
    let policy = policies.get_opt(&promotion.spec.policy_ref.name).await?.and_then(|guard| guard.0.ok());
    let mut seen = Seen::default();
    if let Some(policy) = &policy {
        let registries = cx.api::<DeserializeGuard<Registry>>(&namespace);
        let registry = registries.get_opt(&policy.spec.registry_ref.name).await?;
        seen.registry = registry.and_then(|guard| guard.0.ok());
    }
    seen.policy = policy;
    let label = PromotionNames::of(&promotion.name_any()).label();
    let params = ListParams::default().labels(&format!("{PROMOTION_LABEL}={label}"));
    seen.runs = cx.api::<Job>(&namespace).list(&params).await?.items;
    if !seen.runs.is_empty() {
        seen.pods = cx.api::<Pod>(&namespace).list(&params).await?.items;
    }
    Ok(seen)
}

/// Makes the next Job. One of its name that is there already is it.
async fn evaluate(
    promotion: &Promotion,
    registry: &Registry,
    owner: &OwnerReference,
    status: &PromotionStatus,
    cx: &Context,
) -> Result<(), Error> {
    let namespace = promotion.namespace().unwrap_or_default();
    let registry = Arc::new(registry.clone());
    let Some(of_registry) = registry.controller_owner_ref(&()) else { return Ok(()) };
    let looking = Applier::new(cx.client.clone(), namespace.clone(), &of_registry);
    let around = observe(cx, &registry, &looking).await?;
    let valid = validate(&registry, &around, &cx.settings)?;
    let owner = OwnerReference { block_owner_deletion: Some(true), ..owner.clone() };
    let name = promotion.name_any();
    let asked = Asked {
        name: &name,
        owner: &owner,
        generation: promotion.metadata.generation.unwrap_or_default(),
        spec: &promotion.spec,
        status,
    };
    let applier = Applier::new(cx.client.clone(), namespace, &owner);
    let mut live = Live::default();
    for object in evaluation(&valid, &asked) {
        applier.apply(&object, &mut live).await?;
    }
    Ok(())
}

async fn write(promotion: &Promotion, status: &PromotionStatus, cx: &Context) -> Result<(), kube::Error> {
    let (namespace, name) = (promotion.namespace().unwrap_or_default(), promotion.name_any());
    cx.metrics.conditions("Promotion", &namespace, &name, &condition_states(&status.conditions));
    if promotion.status.as_ref() == Some(status) {
        return Ok(());
    }
    let body = json!({
        "apiVersion": Promotion::api_version(&()),
        "kind": Promotion::kind(&()),
        "metadata": { "name": name, "uid": promotion.uid() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    cx.api::<Promotion>(&namespace).patch_status(&name, &params, &Patch::Apply(body)).await?;
    let before = promotion.status.as_ref().map(|status| status.conditions.as_slice());
    let notices = events::of_promotion(before.unwrap_or_default(), &status.conditions);
    events::publish(&cx.recorder, &promotion.object_ref(&()), notices).await;
    Ok(())
}

/// It ended long ago.
async fn delete(promotion: &Promotion, cx: &Context) -> Result<(), kube::Error> {
    let namespace = promotion.namespace().unwrap_or_default();
    let params = DeleteParams::background()
        .preconditions(Preconditions { uid: promotion.uid(), resource_version: None });
    match cx.api::<Promotion>(&namespace).delete(&promotion.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
