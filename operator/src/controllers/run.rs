// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Starts the controllers and what wakes them.
//!
//! Guarantees: ends when the shutdown begins, after the attempts under way. A resource that cannot be read is a
//! metric, not the end of a watch.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt as _, channel::mpsc, future, stream};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::DynamicObject,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Config as ControllerConfig, Controller, WatchStreamExt as _,
        controller::{Action, Error as ControllerError},
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use stowage_crds::{
    AccessPolicy, Mirror, Promotion, PromotionPolicy, Registry, RetentionPolicy, VirtualRepository,
};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use tracing::{debug, warn};

use super::{
    Retry,
    dependents::{self, Meets, Reconciled},
    promotions, registry,
};
use crate::{
    apis::{self, Apis},
    context::{Context, FirstSeen, Once},
    names::{PROMOTION_LABEL, REGISTRY_LABEL},
    objects::{Kind, OptionalApi},
    ops::{metrics::Metrics, server::Readiness, tasks::Shutdown},
    policy::Failures,
    reports::{Key, Reports},
};

/// How many resources of a kind are brought forward at once.
const CONCURRENCY: u16 = 8;
/// Events that come together are answered together.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How long caches may take to fill before it is said.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

type Guarded<K> = DeserializeGuard<K>;

/// What the controllers are started with.
#[derive(Clone)]
pub struct Start {
    /// The API server.
    pub client: Client,
    /// What the operator was started with.
    pub settings: registry::validate::Settings,
    /// The namespaces to look at; none means all.
    pub namespaces: Vec<String>,
    /// Who writes events.
    pub instance: String,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Checks.
    pub readiness: Arc<Readiness>,
    /// The present, for people.
    pub now: fn() -> Timestamp,
}

impl Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("namespaces", &self.namespaces).finish_non_exhaustive()
    }
}

/// Why the controllers could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A definition is missing, or cannot be read.
    #[error(
        "{kind} cannot be listed: install the definitions with `kubectl apply --server-side -f config/crd`"
    )]
    NotEstablished {
        /// The kind.
        kind: &'static str,
        /// What came back.
        #[source]
        source: kube::Error,
    },
}

/// Looks whether our kinds are there to be listed.
pub async fn check_established(client: &Client, namespaces: &[String]) -> Result<(), StartError> {
    let first = namespaces.first();
    let one = kube::api::ListParams::default().limit(1);
    let not = |kind| move |source| StartError::NotEstablished { kind, source };
    scoped::<Guarded<Registry>>(client, first).list(&one).await.map_err(not("Registry"))?;
    scoped::<Guarded<AccessPolicy>>(client, first).list(&one).await.map_err(not("AccessPolicy"))?;
    scoped::<Guarded<Mirror>>(client, first).list(&one).await.map_err(not("Mirror"))?;
    let virtuals = scoped::<Guarded<VirtualRepository>>(client, first).list(&one).await;
    virtuals.map_err(not("VirtualRepository"))?;
    let promotions = scoped::<Guarded<PromotionPolicy>>(client, first).list(&one).await;
    promotions.map_err(not("PromotionPolicy"))?;
    let requests = scoped::<Guarded<Promotion>>(client, first).list(&one).await;
    requests.map_err(not("Promotion"))?;
    let retention = scoped::<Guarded<RetentionPolicy>>(client, first).list(&one).await;
    retention.map_err(not("RetentionPolicy"))?;
    Ok(())
}

/// Runs the controllers until the shutdown.
pub async fn run(start: Start, shutdown: Shutdown) {
    let found = apis::discover(&start.client, &Apis::new()).await;
    let (apis_sender, apis) = watch::channel(found);
    let scopes: Vec<Option<String>> = match start.namespaces.as_slice() {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    let looking = apis::keep_looking(start.client.clone(), apis_sender);
    let reports = Reports::default();
    let running = scopes.into_iter().map(|scope| run_scope(&start, scope, &apis, &reports, shutdown.clone()));
    let running = future::join_all(running);
    tokio::select! {
        _ = running => {}
        () = looking => {}
    }
}

/// Runs the controllers over one namespace or all of them.
async fn run_scope(
    start: &Start,
    scope: Option<String>,
    apis: &watch::Receiver<Apis>,
    reports: &Reports,
    shutdown: Shutdown,
) {
    let (changed, heard) = mpsc::channel(64);
    let client = &start.client;
    let main =
        Controller::new(scoped::<Guarded<Registry>>(client, scope.as_ref()), watcher::Config::default());
    let cx = Arc::new(Context {
        client: client.clone(),
        settings: start.settings.clone(),
        watches_all: scope.is_none(),
        apis: apis.clone(),
        reports: reports.clone(),
        recorder: recorder(start),
        metrics: Arc::clone(&start.metrics),
        failures: Failures::default(),
        failed_jobs: FirstSeen::default(),
        token_keys: Once::default(),
        now: start.now,
        registries: main.store(),
    });
    let synced = announce_sync(Arc::clone(&cx), Arc::clone(&start.readiness));
    let registries = registries(main, client, scope.as_ref(), apis, heard)
        .graceful_shutdown_on(shutdown.clone().begun())
        .run(registry::reconcile, later, Arc::clone(&cx))
        .for_each(|ended| {
            forget_if_gone(&ended, &cx);
            future::ready(())
        });
    let controllers = future::join5(
        registries,
        run_dependents::<AccessPolicy>(&cx, scope.as_ref(), shutdown.clone()),
        run_dependents::<Mirror>(&cx, scope.as_ref(), shutdown.clone()),
        run_dependents::<VirtualRepository>(&cx, scope.as_ref(), shutdown.clone()),
        future::join3(
            run_dependents::<RetentionPolicy>(&cx, scope.as_ref(), shutdown.clone()),
            run_dependents::<PromotionPolicy>(&cx, scope.as_ref(), shutdown.clone()),
            run_promotions(&cx, scope.as_ref(), shutdown),
        ),
    );
    tokio::select! {
        _ = controllers => {}
        () = cx.reports.clone().keep_asking(changed) => {}
        () = synced => {}
    }
}

fn registries(
    main: Controller<Guarded<Registry>>,
    client: &Client,
    scope: Option<&String>,
    apis: &watch::Receiver<Apis>,
    heard: mpsc::Receiver<Key>,
) -> Controller<Guarded<Registry>> {
    let ours = || watcher::Config::default().labels(REGISTRY_LABEL);
    let appeared = stream::unfold(apis.clone(), |mut apis| async move {
        apis.changed().await.ok()?;
        Some(((), apis))
    });
    let mut main = main
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .owns(scoped::<ServiceAccount>(client, scope), ours())
        .owns(scoped::<ConfigMap>(client, scope), ours())
        .owns(scoped::<PersistentVolumeClaim>(client, scope), ours())
        .owns(scoped::<Service>(client, scope), ours())
        .owns(scoped::<NetworkPolicy>(client, scope), ours())
        .owns(scoped::<PodDisruptionBudget>(client, scope), ours())
        .owns(scoped::<CronJob>(client, scope), ours())
        .owns(scoped::<Deployment>(client, scope), ours())
        .owns(scoped::<HorizontalPodAutoscaler>(client, scope), ours())
        .owns(scoped::<Ingress>(client, scope), ours())
        // Those of a schedule are owned by it.
        .watches(scoped::<Job>(client, scope), ours(), |job| by_label(&job))
        .watches(scoped::<PartialObjectMeta<Pod>>(client, scope), ours(), |pod| by_label(&pod))
        .watches(scoped::<Guarded<AccessPolicy>>(client, scope), watcher::Config::default(), |resource| {
            named_registry(&resource)
        })
        .watches(scoped::<Guarded<Mirror>>(client, scope), watcher::Config::default(), |resource| {
            named_registry(&resource)
        })
        .watches(
            scoped::<Guarded<VirtualRepository>>(client, scope),
            watcher::Config::default(),
            |resource| named_registry(&resource),
        )
        .watches(scoped::<Guarded<PromotionPolicy>>(client, scope), watcher::Config::default(), |resource| {
            named_registry(&resource)
        })
        .watches(scoped::<Guarded<RetentionPolicy>>(client, scope), watcher::Config::default(), |resource| {
            named_registry(&resource)
        })
        .reconcile_on(heard.map(|key: Key| ObjectRef::new(&key.name).within(&key.namespace)))
        .reconcile_all_on(appeared);
    for kind in Kind::ALL {
        if let Some(api) = kind.needs() {
            main = main.owns_stream_with(optional(kind, api, client, scope, apis), kind.resource());
        }
    }
    main
}

/// Keeps the status of a kind that names a Registry, until the shutdown.
async fn run_dependents<K: Reconciled>(cx: &Arc<Context>, scope: Option<&String>, shutdown: Shutdown) {
    let controller = dependents::<K>(cx, scope).graceful_shutdown_on(shutdown.begun());
    let ended = controller.run(dependents::reconcile::<K>, later, Arc::clone(cx));
    ended
        .for_each(|ended| {
            if let Some(gone) = gone(&ended) {
                dependents::forget::<K>(&gone, cx);
            }
            log(&ended);
            future::ready(())
        })
        .await;
}

/// Carries Promotions out, until the shutdown. Woken by its policy, and by its Jobs.
async fn run_promotions(cx: &Arc<Context>, scope: Option<&String>, shutdown: Shutdown) {
    let client = &cx.client;
    let main = Controller::new(scoped::<Guarded<Promotion>>(client, scope), watcher::Config::default())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE));
    let store = main.store();
    let labelled = || watcher::Config::default().labels(PROMOTION_LABEL);
    let controller = main
        .watches(
            scoped::<Guarded<PromotionPolicy>>(client, scope),
            watcher::Config::default(),
            move |policy: Guarded<PromotionPolicy>| by_policy(&store, &policy),
        )
        .owns(scoped::<Job>(client, scope), labelled())
        .graceful_shutdown_on(shutdown.begun());
    let ended = controller.run(promotions::reconcile, later, Arc::clone(cx));
    ended
        .for_each(|ended| {
            if let Some(gone) = gone(&ended) {
                promotions::forget(&gone, cx);
            }
            log(&ended);
            future::ready(())
        })
        .await;
}

/// The Promotions that name a policy.
fn by_policy(
    store: &Store<Guarded<Promotion>>,
    policy: &Guarded<PromotionPolicy>,
) -> Vec<ObjectRef<Guarded<Promotion>>> {
    let (name, namespace) = (policy.name_any(), policy.namespace());
    let names = |found: &Arc<Guarded<Promotion>>| {
        let promotion = found.0.as_ref().ok()?;
        let is_of = promotion.spec.policy_ref.name == name && promotion.namespace() == namespace;
        let namespace = namespace.as_deref().filter(|_| is_of)?;
        Some(ObjectRef::new(&found.name_any()).within(namespace))
    };
    store.state().iter().filter_map(names).collect()
}

/// Woken by its Registry, by what the replicas say, and, with a path, by what may be in its way or a member of it.
fn dependents<K: Reconciled>(cx: &Arc<Context>, scope: Option<&String>) -> Controller<Guarded<K>> {
    let client = &cx.client;
    let main = Controller::new(scoped::<Guarded<K>>(client, scope), watcher::Config::default())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE));
    let store = main.store();
    let of = move |registry: &Key| of_registry(&store, registry);
    let (of_changed, of_heard) = (of.clone(), of.clone());
    let mut main = main
        .watches(
            scoped::<Guarded<Registry>>(client, scope),
            watcher::Config::default(),
            move |registry: Guarded<Registry>| {
                of_changed(&Key {
                    namespace: registry.namespace().unwrap_or_default(),
                    name: registry.name_any(),
                })
            },
        )
        .reconcile_on(cx.reports.news().flat_map(move |registry| stream::iter(of_heard(&registry))));
    if let Some(label) = K::RUNS {
        main = main.watches(
            scoped::<Job>(client, scope),
            watcher::Config::default().labels(label),
            move |run: Job| named_by(label, &run),
        );
    }
    if K::MEETS == Meets::PromotionPolicies {
        main = main.watches(
            scoped::<Guarded<PromotionPolicy>>(client, scope),
            watcher::Config::default(),
            move |found: Guarded<PromotionPolicy>| beside(&found, &of),
        );
    } else if K::MEETS == Meets::Paths {
        let (of_mirror, of_virtual) = (of.clone(), of);
        main = main
            .watches(
                scoped::<Guarded<Mirror>>(client, scope),
                watcher::Config::default(),
                move |found: Guarded<Mirror>| beside(&found, &of_mirror),
            )
            .watches(
                scoped::<Guarded<VirtualRepository>>(client, scope),
                watcher::Config::default(),
                move |found: Guarded<VirtualRepository>| beside(&found, &of_virtual),
            );
    }
    main
}

/// What is beside a resource, given what names its Registry.
fn beside<K: Reconciled, T>(found: &Guarded<K>, of: &impl Fn(&Key) -> Vec<T>) -> Vec<T> {
    registry_of(found).map(|registry| of(&registry)).unwrap_or_default()
}

/// The resources of a kind that name a Registry.
fn of_registry<K: Reconciled>(store: &Store<Guarded<K>>, registry: &Key) -> Vec<ObjectRef<Guarded<K>>> {
    let names = |resource: &Arc<Guarded<K>>| {
        (registry_of(resource).as_ref() == Some(registry))
            .then(|| ObjectRef::new(&resource.name_any()).within(&registry.namespace))
    };
    store.state().iter().filter_map(names).collect()
}

fn registry_of<K: Reconciled>(resource: &Guarded<K>) -> Option<Key> {
    let resource = resource.0.as_ref().ok()?;
    Some(Key { namespace: resource.namespace()?, name: resource.registry_ref().name.clone() })
}

/// Watches objects of an API from the moment it exists.
fn optional(
    kind: Kind,
    api: OptionalApi,
    client: &Client,
    scope: Option<&String>,
    apis: &watch::Receiver<Apis>,
) -> impl Stream<Item = Result<PartialObjectMeta<DynamicObject>, watcher::Error>> + Send + 'static + use<> {
    let resource = kind.resource();
    let objects: Api<PartialObjectMeta<DynamicObject>> = match scope {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut apis = apis.clone();
    let exists = async move { apis.wait_for(|apis| apis.contains(&api)).await.is_ok() };
    stream::once(exists).filter(|exists| future::ready(*exists)).flat_map(move |_| {
        watcher(objects.clone(), watcher::Config::default().labels(REGISTRY_LABEL)).touched_objects().boxed()
    })
}

fn scoped<K>(client: &Client, namespace: Option<&String>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn by_label(object: &impl Resource) -> Option<ObjectRef<Guarded<Registry>>> {
    let name = object.labels().get(REGISTRY_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

/// The resource that a run is for.
fn named_by<K: Reconciled>(label: &str, run: &Job) -> Option<ObjectRef<Guarded<K>>> {
    Some(ObjectRef::new(run.labels().get(label)?).within(&run.namespace()?))
}

fn named_registry<K: Reconciled>(resource: &Guarded<K>) -> Option<ObjectRef<Guarded<Registry>>> {
    let key = registry_of(resource)?;
    Some(ObjectRef::new(&key.name).within(&key.namespace))
}

fn recorder(start: &Start) -> Recorder {
    let reporter =
        Reporter { controller: "stowage.dev/operator".into(), instance: Some(start.instance.clone()) };
    Recorder::new(start.client.clone(), reporter)
}

fn later<K>(_object: Arc<K>, retry: &Retry, _cx: Arc<Context>) -> Action {
    Action::requeue(retry.after)
}

/// Says when the cache is filled, and then nothing more: it never ends, so that nothing ends with it.
async fn announce_sync(cx: Arc<Context>, readiness: Arc<Readiness>) {
    loop {
        match timeout(SYNC_PATIENCE, cx.registries.wait_until_ready()).await {
            Ok(_) => break,
            Err(_elapsed) => warn!("registries are not listed yet"),
        }
    }
    readiness.set("caches", true);
    future::pending::<()>().await;
}

type Ended<K> = Result<(ObjectRef<K>, Action), ControllerError<Retry, watcher::Error>>;

fn forget_if_gone(ended: &Ended<Guarded<Registry>>, cx: &Context) {
    if let Some(key) = gone(ended) {
        cx.metrics.conditions("Registry", &key.namespace, &key.name, &[]);
        cx.reports.forget(&key);
        cx.failures.reset(&(registry::CONTROLLER, key));
    }
    log(ended);
}

/// The resource that is not there any more, if that is why.
fn gone<K: Resource>(ended: &Ended<K>) -> Option<Key>
where
    K::DynamicType: Debug + Eq + std::hash::Hash + Clone,
{
    let Err(ControllerError::ObjectNotFound(gone)) = ended else { return None };
    Some(Key { namespace: gone.namespace.clone().unwrap_or_default(), name: gone.name.clone() })
}

fn log<K: Resource>(ended: &Ended<K>)
where
    K::DynamicType: Debug + Eq + std::hash::Hash + Clone,
{
    match ended {
        Ok(_) | Err(ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..)) => {}
        Err(ControllerError::QueueError(error)) => warn!(%error, "watch failed and is resumed"),
        Err(error) => debug!(%error, "controller error"),
    }
}
