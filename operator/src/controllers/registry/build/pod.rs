// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The pods of replicas and Jobs.
//!
//! Guarantees: pod security standard `restricted`; no token of the cluster's API; every Secret is an optional volume,
//! so that one that is missing is reported by the process and hangs no rollout.

use std::collections::BTreeMap;

use k8s_openapi::{
    DeepMerge as _,
    api::core::v1::{
        Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
        EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference,
        PersistentVolumeClaimVolumeSource, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec,
        PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
        SleepAction, TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::usage;
use crate::{
    controllers::registry::validate::{Backing, Valid},
    names::{Component, RESTART_HASH, dns_label},
};

/// OCI traffic.
pub const DATA_PORT: i32 = 5000;
/// Probes, metrics, report.
pub const OPS_PORT: i32 = 5001;
/// Administration.
pub const ADMIN_PORT: i32 = 5002;
/// The container that a user's `template` can name.
pub const CONTAINER: &str = "registry";

const CONFIG_DIR: &str = "/etc/stowage/config";
const SECRETS_DIR: &str = "/etc/stowage/secrets";
const DATA_DIR: &str = "/var/lib/stowage";
const USER: i64 = 65532;
/// Endpoints of Services lose a pod before it stops accepting.
const ENDPOINTS_GO_FIRST_SECONDS: i64 = 5;
/// The drain, and what goes before it.
const GRACE_SECONDS: i64 = 130;

/// The template of the replicas, with the user's part merged over it.
pub(super) fn replica(valid: &Valid) -> PodTemplateSpec {
    let mut container = container(valid, CONTAINER, serve_args(), &valid.replica_secrets());
    container.resources = Some(valid.resources.clone());
    container.ports = Some(ports());
    container.startup_probe = Some(probe("/livez", 2, 60));
    container.liveness_probe = Some(probe("/livez", 10, 6));
    container.readiness_probe = Some(probe("/readyz", 2, 2));
    container.lifecycle = Some(Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction { seconds: ENDPOINTS_GO_FIRST_SECONDS }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    });
    let mut spec = pod(valid, container, &valid.replica_secrets());
    spec.init_containers = init_containers(valid);
    if matches!(valid.backing, Backing::Volume { .. }) && usage::is_asked(valid) {
        usage::mount(valid, &mut spec);
    }
    spec.termination_grace_period_seconds = Some(GRACE_SECONDS);
    spec.topology_spread_constraints = Some(vec![over_nodes(valid)]);
    spec.affinity = Some(over_zones(valid));
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(valid.names().labels(Component::Registry, &valid.image.version)),
            annotations: Some([(RESTART_HASH.to_owned(), valid.restart_hash())].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    if let Some(overlay) = valid.template.clone() {
        template.merge_from(overlay);
    }
    template
}

/// The template of a Job that runs one command and ends.
pub(super) fn job(
    valid: &Valid,
    component: Component,
    args: Vec<String>,
    secrets: &[String],
) -> PodTemplateSpec {
    let mut container = container(valid, CONTAINER, args, secrets);
    container.resources = Some(valid.job_resources.clone());
    let mut spec = pod(valid, container, secrets);
    spec.restart_policy = Some("Never".into());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(valid.names().labels(component, &valid.image.version)),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

/// The flags every command takes.
pub(super) fn command(name: &str) -> Vec<String> {
    [name, "--config", CONFIG_DIR, "--secrets-dir", SECRETS_DIR].map(str::to_owned).into()
}

fn serve_args() -> Vec<String> {
    let mut args = command("serve");
    for (flag, port) in [("--listen", DATA_PORT), ("--ops-listen", OPS_PORT), ("--admin-listen", ADMIN_PORT)]
    {
        args.extend([flag.to_owned(), format!("[::]:{port}")]);
    }
    args
}

/// A database on the volume has no Job beside it: only the replica's own pod can mount it.
fn init_containers(valid: &Valid) -> Option<Vec<Container>> {
    match valid.backing {
        Backing::Shared => None,
        Backing::Volume { .. } => {
            let mut migrate = container(valid, "migrate", command("migrate"), &valid.replica_secrets());
            migrate.resources = Some(valid.resources.clone());
            Some(vec![migrate])
        }
    }
}

fn container(valid: &Valid, name: &str, args: Vec<String>, secrets: &[String]) -> Container {
    let volume = matches!(valid.backing, Backing::Volume { .. });
    Container {
        name: name.into(),
        image: Some(valid.image.reference.clone()),
        args: Some(args),
        env: volume.then(|| vec![env("STOWAGE_DATA_DIR", DATA_DIR)]),
        volume_mounts: Some(mounts(secrets, volume)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

fn pod(valid: &Valid, container: Container, secrets: &[String]) -> PodSpec {
    let pull_secrets: Vec<_> =
        valid.pull_secrets().into_iter().map(|name| LocalObjectReference { name }).collect();
    PodSpec {
        service_account_name: Some(valid.names().main()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: Some(pull_secrets).filter(|secrets| !secrets.is_empty()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container],
        volumes: Some(volumes(valid, secrets)),
        ..PodSpec::default()
    }
}

fn volumes(valid: &Valid, secrets: &[String]) -> Vec<Volume> {
    let config = Volume {
        name: "config".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: valid.names().config(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let scratch = Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(Quantity("64Mi".into())), medium: None }),
        ..Volume::default()
    };
    let data = valid.claim_name().map(|claim_name| Volume {
        name: "data".into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..Volume::default()
    });
    let secrets = secrets.iter().map(|name| Volume {
        name: secret_volume(name),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.clone()),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    [config, scratch].into_iter().chain(data).chain(secrets).collect()
}

fn mounts(secrets: &[String], volume: bool) -> Vec<VolumeMount> {
    let mount = |name: String, path: String, read_only: Option<bool>| VolumeMount {
        name,
        mount_path: path,
        read_only,
        ..VolumeMount::default()
    };
    let mut mounts =
        vec![mount("config".into(), CONFIG_DIR.into(), Some(true)), mount("tmp".into(), "/tmp".into(), None)];
    if volume {
        mounts.push(mount("data".into(), DATA_DIR.into(), None));
    }
    mounts.extend(
        secrets.iter().map(|name| mount(secret_volume(name), format!("{SECRETS_DIR}/{name}"), Some(true))),
    );
    mounts
}

fn secret_volume(name: &str) -> String {
    dns_label(&format!("secret-{name}"))
}

fn ports() -> Vec<ContainerPort> {
    [("registry", DATA_PORT), ("ops", OPS_PORT), ("admin", ADMIN_PORT)]
        .map(|(name, port)| ContainerPort {
            name: Some(name.into()),
            container_port: port,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        })
        .into()
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("ops".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// Over nodes as far as there are any; a cluster with one node runs all replicas there.
fn over_nodes(valid: &Valid) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(replicas(valid)),
        match_label_keys: Some(of_the_same_rollout()),
        ..TopologySpreadConstraint::default()
    }
}

/// Over zones, if nodes have any. Not by a constraint like the one over nodes: where nodes lack the label of one
/// constraint, the scheduler heeds none of them.
fn over_zones(valid: &Valid) -> Affinity {
    let elsewhere = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            topology_key: "topology.kubernetes.io/zone".into(),
            label_selector: Some(replicas(valid)),
            match_label_keys: Some(of_the_same_rollout()),
            ..PodAffinityTerm::default()
        },
    };
    let apart = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![elsewhere]),
        ..PodAntiAffinity::default()
    };
    Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() }
}

fn replicas(valid: &Valid) -> LabelSelector {
    let labels = valid.names().selector(Component::Registry);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Replicas that are about to go would push the ones that stay together.
fn of_the_same_rollout() -> Vec<String> {
    vec!["pod-template-hash".into()]
}

/// What a replica gets when the spec does not say.
#[must_use]
pub fn default_resources() -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", "100m"), ("memory", "256Mi")])),
        limits: Some(quantities(&[("memory", "1Gi")])),
        claims: None,
    }
}
