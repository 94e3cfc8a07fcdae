// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Says of an `AccessPolicy` whether it is in force. The Registry's controller brings it there, with the document.
//!
//! Guarantees: ready means that every ready replica runs this generation of it. Once it does, another resource's
//! change does not touch it: replicas only ever move to later documents, which hold it too.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};
use serde_json::json;
use stowage_crds::{
    AccessPolicy, AccessPolicyStatus, Kind, Registry, check,
    conditions::{self, ConditionType, Finding, Reason},
    document::Document,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Retry, condition_states, registry::build::document};
use crate::{
    context::Context,
    names::{MANAGER, Names, RECONCILE_REQUESTED_AT},
    policy::{RESYNC, jittered},
    reports::Key,
};

/// The label of this controller in metrics.
pub const CONTROLLER: &str = "accesspolicy";

/// What there is to know about the Registry of a policy.
#[derive(Debug, Default)]
struct Seen {
    registry: Option<Registry>,
    document: Option<(Document, String)>,
}

/// Where a policy stands.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    InForce,
    Waiting(Reason, String),
    Stuck(Reason, String),
}

/// Brings the status of one policy up to date.
pub async fn reconcile(
    object: Arc<DeserializeGuard<AccessPolicy>>,
    cx: Arc<Context>,
) -> Result<Action, Retry> {
    let started = Instant::now();
    let action = match &object.0 {
        Ok(policy) => update(policy, &cx).await,
        Err(invalid) => {
            warn!(k8s.kind = "AccessPolicy", k8s.name = ?invalid.metadata.name, error = %invalid, "resource unreadable");
            cx.metrics.invalid(CONTROLLER);
            Ok(Action::await_change())
        }
    };
    cx.metrics.reconciled(CONTROLLER, started.elapsed());
    action
}

async fn update(policy: &AccessPolicy, cx: &Context) -> Result<Action, Retry> {
    let key = Key { namespace: policy.namespace().unwrap_or_default(), name: policy.name_any() };
    if policy.metadata.deletion_timestamp.is_some() {
        cx.metrics.conditions("AccessPolicy", &key.namespace, &key.name, &[]);
        cx.failures.reset(&(CONTROLLER, key));
        return Ok(Action::await_change());
    }
    match look_and_write(policy, cx).await {
        Ok(()) => {
            cx.failures.reset(&(CONTROLLER, key));
            Ok(Action::requeue(jittered(RESYNC, 0.1)))
        }
        Err(error) => {
            debug!(k8s.name = %key.name, %error, "attempt failed");
            cx.metrics.failed(CONTROLLER, Reason::Retrying.as_str());
            let (failures, after) = cx.failures.count((CONTROLLER, key));
            Err(Retry { after, failures })
        }
    }
}

async fn look_and_write(policy: &AccessPolicy, cx: &Context) -> Result<(), kube::Error> {
    let seen = look(policy, cx).await?;
    let status = status(policy, &seen, &Time((cx.now)()));
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    cx.metrics.conditions("AccessPolicy", &namespace, &name, &condition_states(&status.conditions));
    if policy.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let body = json!({
        "apiVersion": AccessPolicy::api_version(&()),
        "kind": AccessPolicy::kind(&()),
        "metadata": { "name": name, "uid": policy.uid() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    cx.api::<AccessPolicy>(&namespace).patch_status(&name, &params, &Patch::Apply(body)).await?;
    Ok(())
}

async fn look(policy: &AccessPolicy, cx: &Context) -> Result<Seen, kube::Error> {
    let namespace = policy.namespace().unwrap_or_default();
    let name = &policy.spec.registry_ref.name;
    let registries = cx.api::<DeserializeGuard<Registry>>(&namespace);
    let registry = registries.get_opt(name).await?.and_then(|guard| guard.0.ok());
    let config = cx.api::<ConfigMap>(&namespace).get_opt(&Names::of(name).config()).await?;
    Ok(Seen { document: config.and_then(parse), registry })
}

fn parse(config: ConfigMap) -> Option<(Document, String)> {
    let data = config.data?;
    let hash = data.get(document::HASH)?;
    let document = Document::parse_checked(data.get(document::DOCUMENT)?.as_bytes(), hash).ok()?;
    Some((document, hash.clone()))
}

fn status(policy: &AccessPolicy, seen: &Seen, now: &Time) -> AccessPolicyStatus {
    let mut status = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation;
    let standing = standing(policy, &status.conditions, seen);
    status.observed_generation = generation;
    status.last_handled_reconcile_at = policy.annotations().get(RECONCILE_REQUESTED_AT).cloned();
    summarise(&mut status.conditions, &standing, generation, now);
    if policy.spec.suspend {
        let finding = Finding::new(ConditionType::Suspended, true, Reason::Suspended, "it grants nothing");
        conditions::set(&mut status.conditions, finding, generation, now);
    } else {
        conditions::clear(&mut status.conditions, ConditionType::Suspended);
    }
    status
}

fn standing(policy: &AccessPolicy, before: &[Condition], seen: &Seen) -> Standing {
    let violations = check::typed(Kind::AccessPolicy, policy);
    if let Some(violation) = violations.first() {
        return Standing::Stuck(Reason::InvalidSpec, violation.to_string());
    }
    let name = &policy.spec.registry_ref.name;
    let Some(registry) =
        seen.registry.as_ref().filter(|registry| registry.metadata.deletion_timestamp.is_none())
    else {
        return Standing::Waiting(Reason::RegistryNotFound, format!("there is no Registry {name} here"));
    };
    let waiting = |text: &str| Standing::Waiting(Reason::WaitingForReplicas, text.to_owned());
    let entry = seen.document.as_ref().and_then(|(document, hash)| {
        let entries = &document.access_policies;
        let entry = entries.iter().find(|entry| entry.name == policy.name_any())?;
        (Some(entry.generation) == policy.metadata.generation).then_some(hash)
    });
    let Some(hash) = entry else {
        return match conditions::find(conditions_of(registry), ConditionType::Stalled) {
            Some(stalled) => {
                Standing::Waiting(Reason::RegistryNotReady, format!("Registry {name}: {}", stalled.message))
            }
            None => waiting("it is not in the document of the replicas yet"),
        };
    };
    let running = registry.status.as_ref().and_then(|status| status.config_hash.as_ref());
    if running == Some(hash) || was_in_force(policy, before) {
        Standing::InForce
    } else {
        waiting("not every replica has it yet")
    }
}

fn conditions_of(registry: &Registry) -> &[Condition] {
    registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

/// Was this generation in force already? Then it still is, as it is in the newest document.
fn was_in_force(policy: &AccessPolicy, before: &[Condition]) -> bool {
    conditions::find(before, ConditionType::Ready).is_some_and(|ready| {
        ready.status == "True" && ready.observed_generation == policy.metadata.generation
    })
}

fn summarise(conditions: &mut Vec<Condition>, standing: &Standing, generation: Option<i64>, now: &Time) {
    use ConditionType::{Ready, Reconciling, Stalled};
    let mut set = |condition, verdict: bool, reason, message: &str| {
        conditions::set(conditions, Finding::new(condition, verdict, reason, message), generation, now);
    };
    let gone: &[ConditionType] = match standing {
        Standing::InForce => {
            set(Ready, true, Reason::Reconciled, "every ready replica has it");
            &[Reconciling, Stalled]
        }
        Standing::Waiting(reason, message) => {
            set(Ready, false, *reason, message);
            set(Reconciling, true, *reason, message);
            &[Stalled]
        }
        Standing::Stuck(reason, message) => {
            set(Ready, false, *reason, message);
            set(Stalled, true, *reason, message);
            &[Reconciling]
        }
    };
    for condition in gone {
        conditions::clear(conditions, *condition);
    }
}
