// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What workloads run, or would run again. Pure.
//!
//! Guarantees: rather too much than too little. What is scaled to zero, suspended or may be rolled back to counts as
//! what runs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ContainerStatus, Pod, PodSpec, ReplicationController},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// In which order a Deployment made its `ReplicaSets`.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// What runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Digests of manifests, or of configurations where a runtime reports those.
    pub digests: BTreeSet<String>,
    /// References as they are written.
    pub references: BTreeSet<String>,
}

/// What was found in the namespaces that count.
#[derive(Debug, Clone, Default)]
pub struct Workloads {
    /// Pods.
    pub pods: Vec<Pod>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// `StatefulSets`.
    pub stateful_sets: Vec<StatefulSet>,
    /// `DaemonSets`.
    pub daemon_sets: Vec<DaemonSet>,
    /// `ReplicaSets`, of Deployments and others.
    pub replica_sets: Vec<ReplicaSet>,
    /// `ReplicationControllers`.
    pub replication_controllers: Vec<ReplicationController>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// `CronJobs`.
    pub cron_jobs: Vec<CronJob>,
    /// Revisions of `StatefulSets` and `DaemonSets`.
    pub controller_revisions: Vec<ControllerRevision>,
}

impl Workloads {
    /// What runs, with the newest `revisions` before the current one of each workload.
    #[must_use]
    pub fn running(&self, revisions: usize) -> Running {
        let mut running = Running::default();
        for pod in &self.pods {
            running.pod(pod);
        }
        let templates = self
            .deployments
            .iter()
            .filter_map(|found| found.spec.as_ref()?.template.spec.as_ref())
            .chain(self.stateful_sets.iter().filter_map(|found| found.spec.as_ref()?.template.spec.as_ref()))
            .chain(self.daemon_sets.iter().filter_map(|found| found.spec.as_ref()?.template.spec.as_ref()))
            .chain(
                self.replication_controllers
                    .iter()
                    .filter_map(|found| found.spec.as_ref()?.template.as_ref()?.spec.as_ref()),
            )
            .chain(self.jobs.iter().filter_map(|found| found.spec.as_ref()?.template.spec.as_ref()))
            .chain(
                self.cron_jobs.iter().filter_map(|found| {
                    found.spec.as_ref()?.job_template.spec.as_ref()?.template.spec.as_ref()
                }),
            );
        for template in templates {
            running.template(template);
        }
        for set in self.replica_sets_that_count(revisions) {
            if let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.spec.as_ref()) {
                running.template(template);
            }
        }
        for revision in
            newest(&self.controller_revisions, revisions, |revision| (&revision.metadata, revision.revision))
        {
            let spec = revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template/spec"));
            if let Some(template) = spec.and_then(|spec| serde_json::from_value(spec.clone()).ok()) {
                running.template(&template);
            }
        }
        running
    }

    /// Those of nobody, those that have or want replicas, and of each Deployment the newest.
    fn replica_sets_that_count(&self, revisions: usize) -> impl Iterator<Item = &ReplicaSet> {
        let in_use = self.replica_sets.iter().filter(|set| {
            let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let present = set.status.as_ref().map_or(0, |status| status.replicas);
            owner(&set.metadata).is_none() || wanted > 0 || present > 0
        });
        let kept = newest(&self.replica_sets, revisions, |set| (&set.metadata, revision(&set.metadata)));
        in_use.chain(kept)
    }
}

/// Of each owner the current revision and as many before it.
fn newest<T>(all: &[T], revisions: usize, read: impl Fn(&T) -> (&ObjectMeta, i64)) -> Vec<&T> {
    let mut owned: BTreeMap<&str, Vec<(i64, &T)>> = BTreeMap::new();
    for one in all {
        let (metadata, revision) = read(one);
        if let Some(owner) = owner(metadata) {
            owned.entry(owner).or_default().push((revision, one));
        }
    }
    let mut kept = Vec::new();
    for mut of_one in owned.into_values() {
        of_one.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
        kept.extend(of_one.into_iter().take(revisions + 1).map(|(_, one)| one));
    }
    kept
}

fn owner(metadata: &ObjectMeta) -> Option<&str> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// One that cannot be read counts as the newest.
fn revision(metadata: &ObjectMeta) -> i64 {
    let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(i64::MAX)
}

impl Running {
    /// What its containers were resolved to, and what those that were not are to run.
    fn pod(&mut self, pod: &Pod) {
        let status = pod.status.as_ref();
        let statuses: Vec<&ContainerStatus> = status
            .into_iter()
            .flat_map(|status| {
                [
                    &status.container_statuses,
                    &status.init_container_statuses,
                    &status.ephemeral_container_statuses,
                ]
            })
            .flatten()
            .flatten()
            .collect();
        let resolved: BTreeMap<&str, &str> = statuses
            .iter()
            .filter_map(|status| Some((status.name.as_str(), digest(&status.image_id)?)))
            .collect();
        self.digests.extend(resolved.values().map(|digest| (*digest).to_owned()));
        let Some(spec) = &pod.spec else { return };
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        let containers = of_template(spec)
            .chain(ephemeral.filter_map(|found| Some((found.name.as_str(), found.image.as_deref()?))));
        let unresolved: Vec<&str> = containers
            .filter(|(name, _)| !resolved.contains_key(name))
            .map(|(_, image)| image)
            .chain(volumes(spec))
            .collect();
        for image in unresolved {
            self.reference(image);
        }
    }

    fn template(&mut self, spec: &PodSpec) {
        for image in of_template(spec).map(|(_, image)| image).chain(volumes(spec)) {
            self.reference(image);
        }
    }

    fn reference(&mut self, image: &str) {
        if image.is_empty() {
            return;
        }
        self.references.insert(image.to_owned());
        if let Some((_, digest)) = image.rsplit_once('@') {
            self.digests.insert(digest.to_owned());
        }
    }
}

/// The containers of a template that have an image.
fn of_template(spec: &PodSpec) -> impl Iterator<Item = (&str, &str)> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.filter_map(|container| Some((container.name.as_str(), container.image.as_deref()?)))
}

/// Images that are mounted.
fn volumes(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().flatten();
    volumes.filter_map(|volume| volume.image.as_ref()?.reference.as_deref())
}

/// The digest in what a runtime calls an image, whatever stands before it.
fn digest(image_id: &str) -> Option<&str> {
    let bare = image_id.rsplit_once("://").map_or(image_id, |(_, rest)| rest);
    let digest = bare.rsplit_once('@').map_or(bare, |(_, digest)| digest);
    ["sha256:", "sha512:"].iter().any(|algorithm| digest.starts_with(algorithm)).then_some(digest)
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, from_value, json};

    use super::*;

    fn read<T: DeserializeOwned>(values: &[Value]) -> Vec<T> {
        values.iter().map(|value| from_value(value.clone()).unwrap()).collect()
    }

    fn texts(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    fn template(image: &str) -> Value {
        json!({ "spec": { "containers": [{ "name": "c", "image": image }] } })
    }

    #[test]
    fn a_pod_counts_by_what_it_was_resolved_to_and_else_by_what_it_is_to_run() {
        let status = |name: &str, id: &str| json!({ "name": name, "image": "i", "imageID": id, "ready": true, "restartCount": 0 });
        let pods = read(&[
            json!({
                "metadata": { "name": "runs" },
                "spec": {
                    "initContainers": [{ "name": "init", "image": "reg/init:1" }],
                    "containers": [{ "name": "a", "image": "reg/a:1" }, { "name": "b", "image": "reg/b:1" }],
                    "ephemeralContainers": [{ "name": "debug", "image": "reg/debug:1" }],
                    "volumes": [{ "name": "v", "image": { "reference": "reg/model@sha256:mm" } }, { "name": "e", "emptyDir": {} }],
                },
                "status": {
                    "initContainerStatuses": [status("init", "reg/init@sha256:ii")],
                    "containerStatuses": [status("a", "docker-pullable://reg/a@sha256:aa"), status("b", "sha256:bb")],
                    "ephemeralContainerStatuses": [status("debug", "")],
                },
            }),
            json!({ "metadata": { "name": "waits" }, "spec": { "containers": [{ "name": "a", "image": "reg/w:2@sha512:ww" }] } }),
        ]);
        let running = Workloads { pods, ..Workloads::default() }.running(0);
        assert_eq!(
            texts(&running.digests),
            ["sha256:aa", "sha256:bb", "sha256:ii", "sha256:mm", "sha512:ww"]
        );
        assert_eq!(texts(&running.references), ["reg/debug:1", "reg/model@sha256:mm", "reg/w:2@sha512:ww"]);
    }

    #[test]
    fn templates_count_also_of_what_is_scaled_to_zero_or_suspended() {
        let workload = |image: &str| json!({ "metadata": { "name": "w" }, "spec": { "replicas": 0, "selector": {}, "serviceName": "s", "template": template(image) } });
        let cron = json!({
            "metadata": { "name": "w" },
            "spec": { "schedule": "@daily", "suspend": true, "jobTemplate": { "spec": { "template": template("cron:1") } } },
        });
        let running = Workloads {
            deployments: read(&[workload("deployment:1")]),
            stateful_sets: read(&[workload("stateful:1")]),
            daemon_sets: read(&[workload("daemon:1")]),
            replica_sets: read(&[workload("alone:1")]),
            replication_controllers: read(&[workload("controller:1")]),
            jobs: read(&[json!({ "metadata": { "name": "w" }, "spec": { "suspend": true, "template": template("job:1") } })]),
            cron_jobs: read(&[cron]),
            ..Workloads::default()
        }
        .running(0);
        let expected =
            ["alone:1", "controller:1", "cron:1", "daemon:1", "deployment:1", "job:1", "stateful:1"];
        assert_eq!(texts(&running.references), expected);
        assert!(running.digests.is_empty());
    }

    #[test]
    fn of_each_workload_the_newest_revisions_before_the_current_one_count() {
        let owned = |owner: &str| json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": owner, "controller": true }]);
        let set = |owner: &str, revision: i64, replicas: i64| {
            json!({
                "metadata": {
                    "name": format!("{owner}-{revision}"), "ownerReferences": owned(owner),
                    "annotations": { "deployment.kubernetes.io/revision": revision.to_string() },
                },
                "spec": { "replicas": replicas, "selector": {}, "template": template(&format!("{owner}:{revision}")) },
            })
        };
        let revision = |owner: &str, revision: i64| {
            json!({
                "metadata": { "name": format!("{owner}-{revision}"), "ownerReferences": owned(owner) },
                "revision": revision,
                "data": { "spec": { "template": template(&format!("{owner}:{revision}")) } },
            })
        };
        let workloads = Workloads {
            replica_sets: read(&[
                set("d", 9, 0),
                set("d", 12, 3),
                set("d", 11, 0),
                set("d", 10, 0),
                set("d", 2, 1),
            ]),
            controller_revisions: read(&[
                revision("s", 1),
                revision("s", 3),
                revision("s", 2),
                revision("t", 7),
            ]),
            ..Workloads::default()
        };
        let expected = |images: &[&str], revisions| {
            assert_eq!(texts(&workloads.running(revisions).references), images, "{revisions}");
        };
        expected(&["d:12", "d:2", "s:3", "t:7"], 0);
        expected(&["d:11", "d:12", "d:2", "s:2", "s:3", "t:7"], 1);
        expected(&["d:10", "d:11", "d:12", "d:2", "d:9", "s:1", "s:2", "s:3", "t:7"], 20);
    }
}
