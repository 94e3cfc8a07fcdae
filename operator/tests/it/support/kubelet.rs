// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Plays the nodes of a namespace: pods of replicas run and report, pods of Jobs end.
//!
//! A replica is an HTTP server on a loopback address of its own that answers `GET /config` from the `ConfigMap` the pod
//! mounts, as a replica does that has just read it.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use stowage_crds::document::DocumentVersion;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

static NEXT_ADDRESS: AtomicU32 = AtomicU32::new(0);

/// What the simulated pods do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// What a Job's container exits with.
    pub(crate) job_exit: i32,
    /// What it says when it ends.
    pub(crate) job_message: Option<String>,
    /// The runs that replicas report.
    pub(crate) runs: Vec<Value>,
    /// The run that replicas report to wait for what runs.
    pub(crate) usage_wanted: Option<String>,
    /// The checks that replicas report.
    pub(crate) database: Option<String>,
    /// Jobs do not end.
    pub(crate) jobs_hang: bool,
    /// What replicas report of a mirror: its name, a reason and a message.
    pub(crate) trouble: Option<(String, String, String)>,
    /// The highest version of a document that replicas report; the newest if it is not said.
    pub(crate) max_version: Option<String>,
    /// No pod starts.
    pub(crate) nothing_starts: bool,
    /// Replicas end with this instead of serving.
    pub(crate) replica_exit: Option<i32>,
}

/// The nodes of one namespace. They end with it.
pub(crate) struct Kubelet {
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
    _tasks: JoinSet<()>,
}

impl Kubelet {
    pub(crate) fn start(client: &Client, namespace: &str) -> Self {
        let behaviour = Arc::new(Mutex::new(Behaviour::default()));
        let node = Node {
            pods: Api::namespaced(client.clone(), namespace),
            configs: Api::namespaced(client.clone(), namespace),
            behaviour: Arc::clone(&behaviour),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(node.run());
        Self { behaviour, _tasks: tasks }
    }
}

struct Node {
    pods: Api<Pod>,
    configs: Api<ConfigMap>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Node {
    async fn run(self) {
        let mut servers: HashMap<String, (Ipv4Addr, JoinSet<()>)> = HashMap::new();
        loop {
            sleep(Duration::from_millis(150)).await;
            let Ok(pods) = self.pods.list(&ListParams::default()).await else { continue };
            servers.retain(|uid, _| pods.items.iter().any(|pod| pod.uid().as_ref() == Some(uid)));
            for pod in pods.items {
                let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
                if phase.as_deref() != Some("Pending") {
                    continue;
                }
                let behaviour = self.behaviour.lock().unwrap().clone();
                if behaviour.nothing_starts {
                    continue;
                }
                let status = if pod.labels().contains_key("batch.kubernetes.io/job-name") {
                    if behaviour.jobs_hang {
                        continue;
                    }
                    ended(behaviour.job_exit, behaviour.job_message.as_deref())
                } else if let Some(exit) = behaviour.replica_exit {
                    crashing(exit)
                } else {
                    let server = self.serve(&pod).await;
                    let status = running(server.0);
                    servers.insert(pod.uid().unwrap_or_default(), server);
                    status
                };
                let patch = Patch::Merge(json!({ "status": status }));
                drop(self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await);
            }
        }
    }

    async fn serve(&self, pod: &Pod) -> (Ipv4Addr, JoinSet<()>) {
        let number = NEXT_ADDRESS.fetch_add(1, Ordering::SeqCst) + 1;
        let [_, _, high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, 77, high, low);
        let listener = TcpListener::bind(SocketAddr::from((address, 5001))).await.unwrap();
        let config = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .find_map(|volume| volume.config_map.as_ref())
            .map(|source| source.name.clone())
            .unwrap_or_default();
        let (configs, behaviour) = (self.configs.clone(), Arc::clone(&self.behaviour));
        let app = Router::new().route(
            "/config",
            get(move || {
                let (configs, config, behaviour) = (configs.clone(), config.clone(), Arc::clone(&behaviour));
                async move { report(&configs, &config, &behaviour).await.to_string() }
            }),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (address, tasks)
    }
}

async fn report(configs: &Api<ConfigMap>, name: &str, behaviour: &Mutex<Behaviour>) -> Value {
    let config = configs.get_opt(name).await.ok().flatten();
    let data = config.and_then(|config| config.data).unwrap_or_default();
    let document: Value =
        data.get("document.json").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let Behaviour { database, runs, trouble, max_version, usage_wanted, .. } =
        behaviour.lock().unwrap().clone();
    let max_version = max_version.unwrap_or_else(|| DocumentVersion::SUPPORTED.to_string());
    let database = database.unwrap_or_else(|| "Ok".to_owned());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "registryID": "6f1c0000-0000-4000-8000-000000000000",
        "hash": data.get("hash"),
        "maxVersion": max_version,
        "schema": { "applied": 1, "supported": [1, 1] },
        "checks": { "storage": "Ok", "database": database, "collector": "Ok" },
        "runs": runs,
        "usageWanted": usage_wanted,
        "resources": resources(&document, trouble.as_ref()),
    })
}

/// Every resource of a document, as a replica that runs it reports them.
fn resources(document: &Value, trouble: Option<&(String, String, String)>) -> Vec<Value> {
    let lists = [
        ("accessPolicies", "AccessPolicy"),
        ("mirrors", "Mirror"),
        ("virtualRepositories", "VirtualRepository"),
        ("promotionPolicies", "PromotionPolicy"),
        ("retentionPolicies", "RetentionPolicy"),
    ];
    let entries = lists.into_iter().flat_map(|(list, kind)| {
        document[list].as_array().into_iter().flatten().map(move |entry| (kind, entry))
    });
    let report = |(kind, entry): (&str, &Value)| {
        let mut report = json!({ "kind": kind, "name": entry["name"], "generation": entry["generation"] });
        let ours = trouble.filter(|(name, ..)| {
            !["AccessPolicy", "PromotionPolicy"].contains(&kind) && entry["name"] == **name
        });
        if let Some((_, reason, message)) = ours {
            report["reason"] = json!(reason);
            report["message"] = json!(message);
        }
        report
    };
    entries.map(report).collect()
}

fn running(address: Ipv4Addr) -> Value {
    let now = stowage_operator::ops::clock::now();
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "startTime": now,
        "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": now },
            { "type": "ContainersReady", "status": "True", "lastTransitionTime": now },
        ],
        "containerStatuses": [{
            "name": "registry", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "state": { "running": { "startedAt": now } },
        }],
    })
}

fn ended(exit: i32, message: Option<&str>) -> Value {
    let now = stowage_operator::ops::clock::now();
    json!({
        "phase": if exit == 0 { "Succeeded" } else { "Failed" },
        "startTime": now,
        "containerStatuses": [{
            "name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": {
                "exitCode": exit, "message": message, "startedAt": now, "finishedAt": now,
            } },
        }],
    })
}

fn crashing(exit: i32) -> Value {
    json!({
        "containerStatuses": [{
            "name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "exitCode": exit, "message": "spec.auth.htpasswd: no such file" } },
        }],
    })
}
