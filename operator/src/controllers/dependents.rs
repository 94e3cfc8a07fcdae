// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Says of a resource that names a Registry whether it is in force. The Registry's controller brings it there, with
//! the document.
//!
//! Guarantees: ready means that every ready replica runs this generation of it, and that what the kind asks for beside
//! holds. Once it is in force, another resource's change does not touch it: replicas only ever move to later documents,
//! which hold it too. While no replica is heard of, nothing is said that needs one.

mod copies;
mod kinds;
mod retains;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};
use serde::Serialize;
use serde_json::json;
use stowage_crds::{
    Dependent, Dependents, Mirror, PromotionPolicy, Registry, Summary, VirtualRepository, check,
    conditions::{self, ConditionType, Finding, Reason, Verdict},
    document::{Document, Schedules, Sources, compile},
    paths::{self, Conflict},
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    Retry, condition_states,
    registry::{blocked::blocked, build::document},
};
use crate::{
    context::Context,
    events,
    names::{MANAGER, Names, RECONCILE_REQUESTED_AT, RUN_REQUESTED_AT, label_value},
    policy::{RESYNC, jittered},
    reports::{Key, Snapshot},
};

/// A kind that is brought into force by the document of its Registry.
pub trait Reconciled: Dependent + Send + Sync + 'static {
    /// The label of its controller in metrics.
    const CONTROLLER: &'static str;
    /// What can be in its way.
    const MEETS: Meets;
    /// The label by which its runs and their pods name it, if it can have any.
    const RUNS: Option<&'static str> = None;
    /// What is written about it.
    type Status: Clone + Default + PartialEq + Serialize + Send + Sync;

    /// Whether it has runs, so that there is something to look for under the label.
    fn has_runs(&self) -> bool {
        false
    }
    /// What was written about it.
    fn status(&self) -> Option<&Self::Status>;
    /// The fields that every status has.
    fn common(status: &mut Self::Status) -> Common<'_>;
    /// What its last run did, if it has runs.
    fn last_run(_status: &Self::Status) -> Option<&Summary> {
        None
    }
    /// What it means that it is suspended, if it is.
    fn suspended(&self) -> Option<&'static str>;
    /// Writes what only this kind has. Where it stands can be worse for it.
    fn judge(&self, seen: &Seen, standing: Standing, status: &mut Self::Status, set: &Set<'_>) -> Standing;
}

/// What beside a resource can be in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meets {
    /// Nothing.
    Nothing,
    /// Whatever has a path.
    Paths,
    /// Other promotion policies.
    PromotionPolicies,
}

/// The fields that every status has.
#[derive(Debug)]
pub struct Common<'a> {
    observed_generation: &'a mut Option<i64>,
    conditions: &'a mut Vec<Condition>,
    last_handled_reconcile_at: &'a mut Option<String>,
}

/// Sets conditions about one generation.
#[derive(Debug)]
pub struct Set<'a> {
    generation: Option<i64>,
    now: &'a Time,
}

impl Set<'_> {
    fn put(
        &self,
        conditions: &mut Vec<Condition>,
        condition: ConditionType,
        verdict: impl Into<Verdict>,
        (reason, message): (Reason, &str),
    ) {
        let finding = Finding::new(condition, verdict, reason, message);
        conditions::set(conditions, finding, self.generation, self.now);
    }
}

/// What there is to know about the Registry of a resource, and about what is beside it there.
#[derive(Debug, Default)]
pub struct Seen {
    registry: Option<Registry>,
    document: Option<(Document, String)>,
    mirrors: Vec<Mirror>,
    conflicts: Vec<Conflict>,
    reports: Snapshot,
    /// Runs of the resource, and their pods.
    runs: Vec<Job>,
    pods: Vec<Pod>,
    /// When its schedule last began a run.
    last_scheduled: Option<Time>,
}

/// Where a resource stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Every ready replica runs it.
    InForce,
    /// It is where it was when replicas were last heard of.
    Unchanged,
    /// It is on its way.
    Waiting(Reason, String),
    /// A human must change something.
    Stuck(Reason, String),
}

/// Brings the status of one resource up to date.
pub async fn reconcile<K: Reconciled>(
    object: Arc<DeserializeGuard<K>>,
    cx: Arc<Context>,
) -> Result<Action, Retry> {
    let started = Instant::now();
    let action = match &object.0 {
        Ok(resource) => update(resource, &cx).await,
        Err(invalid) => {
            warn!(k8s.kind = %K::KIND, k8s.name = ?invalid.metadata.name, error = %invalid, "resource unreadable");
            cx.metrics.invalid(K::CONTROLLER);
            Ok(Action::await_change())
        }
    };
    cx.metrics.reconciled(K::CONTROLLER, started.elapsed());
    action
}

async fn update<K: Reconciled>(resource: &K, cx: &Context) -> Result<Action, Retry> {
    let key = Key { namespace: resource.namespace().unwrap_or_default(), name: resource.name_any() };
    if resource.meta().deletion_timestamp.is_some() {
        forget::<K>(&key, cx);
        return Ok(Action::await_change());
    }
    match look_and_write(resource, cx).await {
        Ok(()) => {
            cx.failures.reset(&(K::CONTROLLER, key));
            Ok(Action::requeue(jittered(RESYNC, 0.1)))
        }
        Err(error) => {
            debug!(k8s.name = %key.name, %error, "attempt failed");
            cx.metrics.failed(K::CONTROLLER, Reason::Retrying.as_str());
            let (failures, after) = cx.failures.count((K::CONTROLLER, key));
            Err(Retry { after, failures })
        }
    }
}

/// Forgets a resource that is gone.
pub fn forget<K: Reconciled>(key: &Key, cx: &Context) {
    cx.metrics.conditions(K::KIND.as_str(), &key.namespace, &key.name, &[]);
    cx.failures.reset(&(K::CONTROLLER, key.clone()));
}

async fn look_and_write<K: Reconciled>(resource: &K, cx: &Context) -> Result<(), kube::Error> {
    let seen = look(resource, cx).await?;
    let mut status = status(resource, &seen, &Time((cx.now)()));
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let states = condition_states(K::common(&mut status).conditions);
    cx.metrics.conditions(K::KIND.as_str(), &namespace, &name, &states);
    if resource.status() == Some(&status) {
        return Ok(());
    }
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": resource.uid() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    cx.api::<K>(&namespace).patch_status(&name, &params, &Patch::Apply(body)).await?;
    let mut before = resource.status().cloned().unwrap_or_default();
    let run = events::of_run(K::last_run(&before), K::last_run(&status));
    let (before, after) = (K::common(&mut before).conditions, K::common(&mut status).conditions);
    let notices = events::of_dependent(before, after, run);
    events::publish(&cx.recorder, &resource.object_ref(&()), notices).await;
    Ok(())
}

async fn look<K: Reconciled>(resource: &K, cx: &Context) -> Result<Seen, kube::Error> {
    let namespace = resource.namespace().unwrap_or_default();
    let name = &resource.registry_ref().name;
    let registries = cx.api::<DeserializeGuard<Registry>>(&namespace);
    let registry = registries.get_opt(name).await?.and_then(|guard| guard.0.ok());
    let config = cx.api::<ConfigMap>(&namespace).get_opt(&Names::of(name).config()).await?;
    let reports = cx.reports.known(&Key { namespace: namespace.clone(), name: name.clone() });
    let mut seen = Seen { document: config.and_then(parse), registry, reports, ..Seen::default() };
    let dependents = match K::MEETS {
        Meets::Nothing => None,
        Meets::Paths => Some(Dependents {
            mirrors: readable(cx, &namespace).await?,
            virtual_repositories: readable::<VirtualRepository>(cx, &namespace).await?,
            ..Dependents::default()
        }),
        Meets::PromotionPolicies => Some(Dependents {
            promotion_policies: readable::<PromotionPolicy>(cx, &namespace).await?,
            ..Dependents::default()
        }),
    };
    if let (Some(dependents), Some(registry)) = (dependents, &seen.registry) {
        let previous = seen.document.as_ref().map(|(document, _)| document);
        let sources = Sources { registry, dependents: &dependents, schedules: Schedules::Jobs, previous };
        seen.conflicts = compile(&sources).map(|compiled| compiled.conflicts).unwrap_or_default();
        seen.mirrors = dependents.mirrors;
    }
    if let (true, Some(label)) = (resource.has_runs(), K::RUNS) {
        look_at_runs(cx, &namespace, &format!("{label}={}", label_value(&resource.name_any())), &mut seen)
            .await?;
    }
    Ok(seen)
}

async fn look_at_runs(
    cx: &Context,
    namespace: &str,
    labels: &str,
    seen: &mut Seen,
) -> Result<(), kube::Error> {
    let params = ListParams::default().labels(labels);
    seen.runs = cx.api::<Job>(namespace).list(&params).await?.items;
    if !seen.runs.is_empty() {
        seen.pods = cx.api::<Pod>(namespace).list(&params).await?.items;
    }
    let schedules = cx.api::<CronJob>(namespace).list(&params).await?.items;
    seen.last_scheduled = schedules.into_iter().filter_map(|found| found.status?.last_schedule_time).max();
    Ok(())
}

async fn readable<K: Dependent>(cx: &Context, namespace: &str) -> Result<Vec<K>, kube::Error> {
    let list = cx.api::<DeserializeGuard<K>>(namespace).list(&ListParams::default()).await?;
    Ok(list.items.into_iter().filter_map(|guard| guard.0.ok()).collect())
}

fn parse(config: ConfigMap) -> Option<(Document, String)> {
    let data = config.data?;
    let hash = data.get(document::HASH)?;
    let document = Document::parse_checked(data.get(document::DOCUMENT)?.as_bytes(), hash).ok()?;
    Some((document, hash.clone()))
}

fn status<K: Reconciled>(resource: &K, seen: &Seen, now: &Time) -> K::Status {
    let mut status = resource.status().cloned().unwrap_or_default();
    let set = Set { generation: resource.meta().generation, now };
    let standing = standing(resource, K::common(&mut status).conditions, seen);
    let standing = resource.judge(seen, standing, &mut status, &set);
    let common = K::common(&mut status);
    summarise(common.conditions, &standing, &set);
    match resource.suspended() {
        Some(means) => {
            set.put(common.conditions, ConditionType::Suspended, true, (Reason::Suspended, means));
        }
        None => conditions::clear(common.conditions, ConditionType::Suspended),
    }
    match blocked(vain_request(resource, seen), &seen.pods) {
        Some(finding) => conditions::set(common.conditions, finding, set.generation, now),
        None => conditions::clear(common.conditions, ConditionType::RunBlocked),
    }
    *common.observed_generation = set.generation;
    *common.last_handled_reconcile_at = resource.annotations().get(RECONCILE_REQUESTED_AT).cloned();
    status
}

/// The annotation that asks for a run, where its Registry is on a volume: the replica runs it, by the schedule.
fn vain_request<K: Reconciled>(resource: &K, seen: &Seen) -> Option<&'static str> {
    let on_a_volume = seen.registry.as_ref().is_some_and(|registry| registry.spec.is_single_replica());
    let asks = resource.has_runs() && resource.annotations().contains_key(RUN_REQUESTED_AT);
    (on_a_volume && asks).then_some(RUN_REQUESTED_AT)
}

fn standing<K: Reconciled>(resource: &K, before: &[Condition], seen: &Seen) -> Standing {
    if let Some(violation) = check::typed(K::KIND, resource).first() {
        return Standing::Stuck(Reason::InvalidSpec, violation.to_string());
    }
    let name = &resource.registry_ref().name;
    let present = |registry: &&Registry| registry.metadata.deletion_timestamp.is_none();
    let Some(registry) = seen.registry.as_ref().filter(present) else {
        return Standing::Waiting(Reason::RegistryNotFound, format!("there is no Registry {name} here"));
    };
    if let Some(conflict) = seen.conflict(resource) {
        return Standing::Stuck(conflict.reason, format!("{}: {}", conflict.path, conflict.message));
    }
    let waiting = |text: &str| Standing::Waiting(Reason::WaitingForReplicas, text.to_owned());
    let entry = seen.document.as_ref().and_then(|(document, hash)| {
        let entry = K::entries(document).iter().find(|entry| entry.name == resource.name_any())?;
        (Some(entry.generation) == resource.meta().generation).then_some(hash)
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
    if running == Some(hash) || was_in_force(resource, before) || seen.is_run_by_all(resource) {
        Standing::InForce
    } else {
        waiting("not every replica has it yet")
    }
}

impl Seen {
    fn conflict<K: Reconciled>(&self, resource: &K) -> Option<&Conflict> {
        let name = resource.name_any();
        self.conflicts.iter().find(|found| found.kind == K::KIND && found.name == name)
    }

    /// The host of the Registry and a path there.
    fn url(&self, path: &str) -> Option<String> {
        let hosts = self.registry.as_ref().map(paths::hosts)?;
        hosts.first().map(|host| format!("{host}/{path}"))
    }

    /// What each ready replica that was heard of says about a resource, if it has this generation of it.
    fn said_of<'a, K: Reconciled>(
        &'a self,
        resource: &K,
    ) -> Vec<Option<&'a stowage_crds::report::ResourceReport>> {
        let (kind, name) = (K::KIND.as_str(), resource.name_any());
        let generation = resource.meta().generation.unwrap_or_default();
        let ready = self.reports.ready().map(|report| {
            report
                .resources
                .iter()
                .find(|said| said.kind == kind && said.name == name && said.generation == generation)
        });
        ready.collect()
    }

    fn is_run_by_all<K: Reconciled>(&self, resource: &K) -> bool {
        let said = self.said_of(resource);
        let silent = self.reports.0.iter().any(|replica| replica.ready && replica.report().is_none());
        !said.is_empty() && !silent && said.iter().all(Option::is_some)
    }
}

fn conditions_of(registry: &Registry) -> &[Condition] {
    registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

/// Was this generation in force already? Then it still is, as it is in the newest document.
fn was_in_force<K: Reconciled>(resource: &K, before: &[Condition]) -> bool {
    conditions::find(before, ConditionType::Ready).is_some_and(|ready| {
        ready.status == "True" && ready.observed_generation == resource.meta().generation
    })
}

fn summarise(conditions: &mut Vec<Condition>, standing: &Standing, set: &Set<'_>) {
    use ConditionType::{Ready, Reconciling, Stalled};
    let gone: &[ConditionType] = match standing {
        Standing::InForce => {
            set.put(conditions, Ready, true, (Reason::Reconciled, "every ready replica has it"));
            &[Reconciling, Stalled]
        }
        Standing::Unchanged => &[],
        Standing::Waiting(reason, message) => {
            set.put(conditions, Ready, false, (*reason, message));
            set.put(conditions, Reconciling, true, (*reason, message));
            &[Stalled]
        }
        Standing::Stuck(reason, message) => {
            set.put(conditions, Ready, false, (*reason, message));
            set.put(conditions, Stalled, true, (*reason, message));
            &[Reconciling]
        }
    };
    for condition in gone {
        conditions::clear(conditions, *condition);
    }
}
