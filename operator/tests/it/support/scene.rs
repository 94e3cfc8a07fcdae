// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One namespace with its nodes and its operator, and the words that scenarios are written in.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use stowage_crds::{AccessPolicy, Mirror, Registry, RetentionPolicy, VirtualRepository, conditions};
use stowage_operator::{
    controllers::{
        dependents::Reconciled,
        registry::validate::Settings,
        run::{Start, run},
    },
    objects::Kind,
    ops::{clock, metrics::Metrics, server::Readiness, tasks::Tasks},
};
use tokio::time::{Instant, sleep};

use super::{
    cluster::{self, Cluster},
    faults::{Calls, faulty},
    kubelet::Kubelet,
};

const PATIENCE: Duration = Duration::from_mins(1);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// One namespace.
pub(crate) struct Scene {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) kubelet: Kubelet,
    pub(crate) cluster: Arc<Cluster>,
}

/// An operator that looks at one namespace. It is killed when dropped.
pub(crate) struct Operator {
    pub(crate) calls: Arc<Calls>,
    _tasks: Tasks,
}

impl Scene {
    /// A namespace of its own, or nothing when the cluster is switched off.
    pub(crate) async fn set() -> Option<Self> {
        let cluster = cluster::shared().await?;
        let client = cluster.admin();
        let namespace = format!("scene-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let body = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &body).await.unwrap();
        let kubelet = Kubelet::start(&client, &namespace);
        Some(Self { client, namespace, kubelet, cluster })
    }

    /// Starts an operator with the rights that ship.
    pub(crate) fn operator(&self) -> Operator {
        self.operator_with(Arc::default())
    }

    /// Starts an operator whose calls are counted and perhaps broken.
    pub(crate) fn operator_with(&self, calls: Arc<Calls>) -> Operator {
        let client = faulty(Client::try_from(self.cluster.operator()).unwrap(), &calls);
        Self::start(client, vec![self.namespace.clone()], calls)
    }

    /// Starts an operator of some namespaces, as somebody who may have fewer rights.
    pub(crate) fn operator_of(namespaces: &[&Self], client: Client) -> Operator {
        let names = namespaces.iter().map(|scene| scene.namespace.clone()).collect();
        let calls = Arc::default();
        Self::start(faulty(client, &calls), names, calls)
    }

    fn start(client: Client, namespaces: Vec<String>, calls: Arc<Calls>) -> Operator {
        let start = Start {
            client,
            settings: Settings {
                registry_image: "registry.test/stowage/registry:0.1.0".parse().unwrap(),
                operator_namespace: "stowage-system".into(),
            },
            namespaces,
            instance: "test".into(),
            metrics: Arc::new(Metrics::default()),
            readiness: Arc::new(Readiness::default()),
            now: clock::now,
        };
        let mut tasks = Tasks::default();
        tasks.spawn("controllers", run(start, tasks.shutdown()));
        Operator { calls, _tasks: tasks }
    }

    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    pub(crate) fn registries(&self) -> Api<Registry> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn typed<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a resource of ours as a user does.
    pub(crate) async fn apply(&self, body: Value) {
        let kind = body["kind"].as_str().unwrap();
        let plural = match kind {
            "Registry" => "registries",
            "AccessPolicy" => "accesspolicies",
            "Mirror" => "mirrors",
            "PromotionPolicy" => "promotionpolicies",
            "Promotion" => "promotions",
            "RetentionPolicy" => "retentionpolicies",
            _ => "virtualrepositories",
        };
        let resource = kube::api::ApiResource::from_gvk_with_plural(
            &kube::api::GroupVersionKind::gvk("stowage.dev", "v1alpha1", kind),
            plural,
        );
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let name = body["metadata"]["name"].as_str().unwrap();
        api.patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&body)).await.unwrap();
    }

    /// Merges a patch into the Registry `main`.
    pub(crate) async fn patch(&self, patch: Value) {
        self.registries().patch("main", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Merges a patch into an object, as somebody does who should not.
    pub(crate) async fn merge(&self, kind: Kind, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The reasons of all events of the operator.
    pub(crate) async fn events(&self) -> Vec<String> {
        let events: Api<k8s_openapi::api::core::v1::Event> = self.typed();
        let events = events.list(&ListParams::default()).await.unwrap();
        events.items.into_iter().filter_map(|event| event.reason).collect()
    }

    /// Waits for an event.
    pub(crate) async fn told(&self, what: &str) {
        let mut last = Vec::new();
        let found = wait(async || {
            last = self.events().await;
            last.iter().any(|event| event == what)
        })
        .await;
        assert!(found, "{what} is told: {last:?}");
    }

    /// How many pods of replicas there are.
    pub(crate) async fn replicas(&self) -> usize {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = self.typed();
        let labels = ListParams::default().labels("app.kubernetes.io/component=registry");
        pods.list(&labels).await.unwrap().items.len()
    }

    /// Waits until a condition of a resource that names a Registry has a reason.
    pub(crate) async fn until_dependent<K: Reconciled>(
        &self,
        name: &str,
        condition: conditions::ConditionType,
        reason: conditions::Reason,
    ) {
        let api: Api<K> = self.typed();
        let mut last = Value::Null;
        let found = wait(async || {
            let object = api.get(name).await.unwrap();
            let is = conditions_of(&object)
                .iter()
                .any(|found| found.type_ == condition.as_str() && found.reason == reason.as_str());
            last = serde_json::to_value(object).unwrap()["status"].take();
            is
        })
        .await;
        assert!(found, "{condition} of {name} is {reason}: {last:#}");
    }

    pub(crate) async fn version<K: Reconciled>(&self, name: &str) -> Option<String> {
        self.typed::<K>().get(name).await.unwrap().resource_version()
    }

    /// Waits until the Registry `main` is ready at its newest generation.
    pub(crate) async fn ready(&self) -> Registry {
        self.until("Registry main is ready", |registry| {
            let ready = conditions::find(of(registry), conditions::ConditionType::Ready);
            ready.is_some_and(|ready| {
                ready.status == "True" && ready.observed_generation == registry.metadata.generation
            })
        })
        .await
    }

    /// Waits until a condition has a reason.
    pub(crate) async fn until_reason(
        &self,
        condition: conditions::ConditionType,
        reason: conditions::Reason,
    ) -> Registry {
        self.until(&format!("{condition} is {reason}"), |registry| {
            conditions::find(of(registry), condition).is_some_and(|found| found.reason == reason.as_str())
        })
        .await
    }

    /// Waits until the Registry `main` is as it should be.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Registry) -> bool) -> Registry {
        let mut last = None;
        let found = wait(async || {
            let registry = self.registries().get_opt("main").await.unwrap();
            let good = registry.as_ref().is_some_and(&is);
            last.clone_from(&registry);
            good
        })
        .await;
        let last = last.unwrap_or_else(|| panic!("{what}: there is no Registry"));
        assert!(found, "{what}: {:#?}", last.status);
        last
    }

    /// Waits until an object is as it should be.
    pub(crate) async fn until_object(
        &self,
        kind: Kind,
        name: &str,
        is: impl Fn(Option<&DynamicObject>) -> bool,
    ) {
        let api = self.api(kind);
        let mut last = None;
        let found = wait(async || {
            last = api.get_opt(name).await.unwrap();
            is(last.as_ref())
        })
        .await;
        assert!(found, "{kind:?} {name}: {last:#?}");
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) {
        self.api(kind).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// The version of every object in the namespace that an operator could write.
    pub(crate) async fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.needs().is_none()) {
            for object in self.api(kind).list(&ListParams::default()).await.unwrap() {
                let version = object.resource_version().unwrap();
                versions.insert(format!("{kind:?} {}", object.name_any()), version);
            }
        }
        for registry in self.registries().list(&ListParams::default()).await.unwrap() {
            versions
                .insert(format!("Registry {}", registry.name_any()), registry.resource_version().unwrap());
        }
        self.versions_of::<AccessPolicy>(&mut versions).await;
        self.versions_of::<Mirror>(&mut versions).await;
        self.versions_of::<VirtualRepository>(&mut versions).await;
        self.versions_of::<RetentionPolicy>(&mut versions).await;
        let events: Api<k8s_openapi::api::core::v1::Event> = self.typed();
        for event in events.list(&ListParams::default()).await.unwrap() {
            let ours = event.reporting_component.as_deref() == Some("stowage.dev/operator");
            if ours {
                versions.insert(format!("Event {}", event.name_any()), event.resource_version().unwrap());
            }
        }
        versions
    }

    async fn versions_of<K: Reconciled>(&self, versions: &mut BTreeMap<String, String>) {
        for object in self.typed::<K>().list(&ListParams::default()).await.unwrap() {
            let version = object.resource_version().unwrap();
            versions.insert(format!("{} {}", K::KIND, object.name_any()), version);
        }
    }

    /// Looks for a while whether anything is written.
    pub(crate) async fn assert_quiet(&self, operator: &Operator, long: Duration) {
        let before = self.versions().await;
        let (calls, writes) = (operator.calls.count(), operator.calls.writes());
        sleep(long).await;
        let after = self.versions().await;
        let moved: Vec<_> =
            after.iter().filter(|(name, version)| before.get(*name) != Some(version)).collect();
        assert!(moved.is_empty(), "moved: {moved:?}");
        println!(
            "quiet for {long:?}: {} calls, {} of them applies without effect",
            operator.calls.count() - calls,
            operator.calls.writes() - writes
        );
    }
}

/// The conditions of a resource that names a Registry.
pub(crate) fn conditions_of<K: Reconciled>(
    object: &K,
) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let mut object = serde_json::to_value(object).unwrap();
    serde_json::from_value(object["status"]["conditions"].take()).unwrap_or_default()
}

pub(crate) fn of(registry: &Registry) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
    registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

/// Asks again and again until it is so, at most a minute.
pub(crate) async fn wait(mut is: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is().await {
            return true;
        }
        if begun.elapsed() > PATIENCE {
            return false;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// A Registry on a bucket and Postgres.
pub(crate) fn shared_registry(spec: Value) -> Value {
    let mut body = json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "Registry",
        "metadata": { "name": "main" },
        "spec": {
            "externalURL": "https://registry.example.com",
            "storage": { "s3": {
                "bucket": "blobs", "endpoint": "http://127.0.0.1:1", "credentialsSecretRef": { "name": "s3" },
            } },
            "database": { "postgres": { "urlSecretRef": { "name": "pg", "key": "uri" } } },
        },
    });
    merge(&mut body["spec"], spec);
    body
}

/// A Registry on a volume.
pub(crate) fn filesystem_registry(spec: Value) -> Value {
    let mut body = shared_registry(json!({}));
    body["spec"]["storage"] = json!({ "filesystem": {} });
    body["spec"]["database"] = json!({ "sqlite": {} });
    merge(&mut body["spec"], spec);
    body
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A mirror below a path.
pub(crate) fn mirror(name: &str, path: &str, upstream: Value) -> Value {
    let mut body = json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "Mirror",
        "metadata": { "name": name },
        "spec": {
            "registryRef": { "name": "main" }, "path": path, "mode": "PullThrough",
            "upstream": { "url": "https://hub.example.com" },
        },
    });
    merge(&mut body["spec"]["upstream"], upstream);
    body
}

/// A virtual repository `all` over repositories of a team and a mirror.
pub(crate) fn virtual_repository(mirror: &str) -> Value {
    json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "VirtualRepository",
        "metadata": { "name": "all" },
        "spec": {
            "registryRef": { "name": "main" }, "path": "all", "pushTo": "team",
            "members": [
                { "name": "team", "repository": "team-a" },
                { "name": "hub", "mirrorRef": { "name": mirror } },
            ],
        },
    })
}
