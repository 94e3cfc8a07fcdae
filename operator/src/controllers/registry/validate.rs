// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Turns a Registry and what was seen around it into [`Valid`], from which everything else follows.
//!
//! Guarantees: pure, and the only step that may refuse. What it lets through can be built without failing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{PodTemplateSpec, ResourceRequirements},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource as _, ResourceExt as _};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use stowage_crds::{
    Dependent, Freeform, MigrationPolicy, MirrorMode, Registry, RegistrySpec, S3, Schedule,
    conditions::Reason,
    document::{self, Document, Encoded, InvalidRegistry, Schedules, Sources},
};
use thiserror::Error;

use super::{
    build::pod,
    freeform,
    jobs::{self, JobState},
    observe::Observed,
    replicas,
    replication::{Replication, replications},
    retention::{Retention, retentions},
};
use crate::{
    image::ImageRef,
    names::{
        APPROVE_MIGRATION, Component, Names, REBUILD, RECONCILE_REQUESTED_AT, RUN_REQUESTED_AT, short_hash,
    },
    objects::{Kind, OptionalApi},
};

/// What the operator was started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The image of replicas that name none.
    pub registry_image: ImageRef,
    /// Where the operator runs: from there it reads the replicas' reports.
    pub operator_namespace: String,
}

/// Why a Registry cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    /// For the condition.
    pub reason: Reason,
    /// For a human.
    pub message: String,
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// The refusal of a Registry that no API server has seen.
#[must_use]
pub fn unsaved() -> Refusal {
    refuse(Reason::InvalidSpec, "the Registry has no uid, so it is not from an API server")
}

/// Where the data lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// Bucket and Postgres: any number of replicas.
    Shared,
    /// On a volume that one replica holds; of the user, or ours.
    Volume {
        /// A claim of the user.
        claim_name: Option<String>,
    },
}

/// How many replicas there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// So many.
    Fixed(i32),
    /// The autoscaler decides.
    Autoscaled {
        /// The fewest.
        min: i32,
        /// The most.
        max: i32,
        /// CPU use to aim at.
        cpu: i32,
    },
}

/// Whether the newest document may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It does.
    Open,
    /// It is larger than a `ConfigMap` may be; the previous one stays.
    TooLarge,
    /// A ready replica is too old for it; the previous one stays.
    ReplicasTooOld,
}

/// The image as the objects need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// For the kubelet.
    pub reference: String,
    /// For labels and people.
    pub version: String,
}

/// A Registry that can be rendered.
#[derive(Debug, Clone)]
pub struct Valid {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The reference that makes an object ours.
    pub owner: OwnerReference,
    /// The image to run.
    pub image: Image,
    /// The host of `externalURL`.
    pub host: String,
    /// Where the data lie.
    pub backing: Backing,
    /// How many replicas.
    pub replicas: Replicas,
    /// When collections run.
    pub collections: Schedule,
    /// What a replica asks for.
    pub resources: ResourceRequirements,
    /// What a Job asks for.
    pub job_resources: ResourceRequirements,
    /// The user's part of the pod template.
    pub template: Option<PodTemplateSpec>,
    /// The document for the replicas.
    pub document: Encoded,
    /// How many resources it holds.
    pub resource_count: usize,
    /// Whether there are access policies among them.
    pub has_policies: bool,
    /// The Secrets that its mirrors name, but those that only runs in pods of their own read.
    pub mirror_secrets: BTreeSet<String>,
    /// Its mirrors whose runs copy.
    pub replications: Vec<Replication>,
    /// Whether collections evict from caches of mirrors.
    pub evicts: bool,
    /// Its retention policies.
    pub retentions: Vec<Retention>,
    /// Whether it is the newest one.
    pub gate: Gate,
    /// Of which registry the bucket must be from which a lost database is being made again.
    pub rebuild: Option<String>,
    /// The optional APIs of this cluster.
    pub apis: BTreeSet<OptionalApi>,
    /// What the operator was started with.
    pub settings: Settings,
    registry: Arc<Registry>,
}

impl Valid {
    /// The spec it was made of.
    #[must_use]
    pub fn spec(&self) -> &RegistrySpec {
        &self.registry.spec
    }

    /// The names of its objects.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names::of(&self.name)
    }

    /// The protocol of the data port.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.spec().tls.is_some() { "https" } else { "http" }
    }

    /// Could there be more than one replica now or by the autoscaler?
    #[must_use]
    pub fn may_have_several_replicas(&self) -> bool {
        match self.replicas {
            Replicas::Fixed(replicas) => replicas > 1,
            Replicas::Autoscaled { max, .. } => max > 1,
        }
    }

    /// The claim that replicas mount.
    #[must_use]
    pub fn claim_name(&self) -> Option<String> {
        match &self.backing {
            Backing::Shared => None,
            Backing::Volume { claim_name } => Some(claim_name.clone().unwrap_or_else(|| self.names().data())),
        }
    }

    /// Secrets with credentials for the image.
    #[must_use]
    pub fn pull_secrets(&self) -> Vec<String> {
        let refs = self.spec().image.as_ref().map(|image| image.pull_secret_refs.as_slice());
        refs.unwrap_or_default().iter().map(|secret| secret.name.clone()).collect()
    }

    /// Secrets that lead to the database.
    #[must_use]
    pub fn database_secrets(&self) -> Vec<String> {
        let uses = self.spec().secrets().into_iter();
        let database = uses.filter(|secret| secret.path.starts_with("spec.database."));
        database.map(|secret| secret.name).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What a command needs that touches bucket and database: the whole configuration but the keys of tokens.
    #[must_use]
    pub fn job_secrets(&self) -> Vec<String> {
        self.spec()
            .secrets()
            .into_iter()
            .map(|secret| secret.name)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The same for one that fetches through mirrors, too.
    #[must_use]
    pub fn fetching_job_secrets(&self) -> Vec<String> {
        let own: BTreeSet<String> = self.job_secrets().into_iter().collect();
        own.union(&self.mirror_secrets).cloned().collect()
    }

    /// Every Secret that a replica reads: those of the Registry and of its mirrors.
    #[must_use]
    pub fn replica_secrets(&self) -> Vec<String> {
        self.spec().secret_names(&self.name).union(&self.mirror_secrets).cloned().collect()
    }

    /// Hash of what a running process cannot swap: a change of it rolls the replicas.
    #[must_use]
    pub fn restart_hash(&self) -> String {
        let spec = self.spec();
        let (storage, database) = (&spec.storage, &spec.database);
        // Who is redirected to the bucket can change at any time.
        let s3 = storage.s3.clone().map(|s3| S3 { redirect: None, ..s3 });
        // Not as JSON values: the order of their keys depends on features that any crate may switch on.
        let parts = serde_json::to_string(&(
            (&s3, &storage.filesystem),
            (&database.postgres, &database.sqlite, &database.write_hold),
            spec.tls.is_some(),
            &spec.telemetry,
        ));
        short_hash(&parts.expect("a spec is JSON"))
    }

    /// The name of the migration Job for this image and database.
    #[must_use]
    pub fn migration_name(&self) -> String {
        let database = json!(self.spec().database.postgres.as_ref().map(|postgres| {
            let ca = postgres.ca_secret_ref.as_ref().map(|key| (&key.name, &key.key));
            (&postgres.url_secret_ref.name, &postgres.url_secret_ref.key, ca)
        }));
        self.names().migration(&format!("{}|{database}", self.image.reference))
    }

    /// Is a migration to this version released?
    #[must_use]
    pub fn migration_approved(&self) -> bool {
        match self.spec().database.migration_policy() {
            MigrationPolicy::Automatic => true,
            MigrationPolicy::Manual => {
                self.registry.annotations().get(APPROVE_MIGRATION) == Some(&self.image.version)
            }
        }
    }

    /// The state of the Registry that a Job is made for: an edit or a request makes a failed one worth repeating.
    #[must_use]
    pub fn made_for(&self) -> String {
        let requested = self.registry.annotations().get(RECONCILE_REQUESTED_AT);
        let generation = self.registry.metadata.generation.unwrap_or_default();
        format!("{generation}/{}", requested.map(String::as_str).unwrap_or_default())
    }

    /// What a collection was asked for with, if it is not known to have been started.
    #[must_use]
    pub fn run_request(&self) -> Option<&str> {
        let asked = self.registry.annotations().get(RUN_REQUESTED_AT)?;
        let handled = self.registry.status.as_ref().and_then(|status| status.last_handled_run_at.as_ref());
        (self.backing == Backing::Shared && handled != Some(asked)).then_some(asked)
    }

    /// The name of the Job for such a request. What was handled before it is a part of it, so that a request can be
    /// made again with the words of an earlier one.
    #[must_use]
    pub fn requested_collection(&self) -> Option<String> {
        let asked = self.run_request()?;
        let handled = self.registry.status.as_ref().and_then(|status| status.last_handled_run_at.as_deref());
        Some(self.names().collection_run(&format!("{}|{asked}", handled.unwrap_or_default())))
    }

    /// The annotation that asks for a Job in vain: none runs beside a replica that holds a volume.
    #[must_use]
    pub fn vain_request(&self) -> Option<&'static str> {
        let asks = |name: &&str| self.registry.annotations().contains_key(*name);
        [RUN_REQUESTED_AT, REBUILD].into_iter().filter(|_| self.backing != Backing::Shared).find(asks)
    }

    /// How long it is until a run becomes due that no schedule starts.
    #[must_use]
    pub fn next_run(&self) -> Option<Duration> {
        let shared = self.backing == Backing::Shared;
        self.replications.iter().filter_map(|replication| replication.next).filter(|_| shared).min()
    }

    /// The labels of the replicas' pods.
    #[must_use]
    pub fn pod_selector(&self) -> BTreeMap<String, String> {
        self.names().selector(Component::Registry)
    }

    /// The same with no replicas: what a deletion brings about before it purges.
    #[must_use]
    pub fn stopped(mut self) -> Self {
        self.replicas = Replicas::Fixed(0);
        self
    }
}

/// Checks a Registry against itself and against what was seen.
pub fn validate(registry: &Arc<Registry>, seen: &Observed, settings: &Settings) -> Result<Valid, Refusal> {
    let spec = &registry.spec;
    let owner = registry.controller_owner_ref(&()).ok_or_else(unsaved)?;
    no_storage_conflict(registry, &seen.others)?;
    let (document, gate) = documents(registry, seen)?;
    let image = settings.registry_image.with(spec.image.as_ref());
    let resources = match &spec.resources {
        Some(asked) => kubernetes("spec.resources", asked)?,
        None => pod::default_resources(),
    };
    let job_resources = match &spec.job_resources {
        Some(asked) => kubernetes("spec.jobResources", asked)?,
        None => resources.clone(),
    };
    Ok(Valid {
        name: registry.name_any(),
        namespace: registry.namespace().unwrap_or_default(),
        owner: OwnerReference { block_owner_deletion: Some(true), ..owner },
        image: Image { reference: image.reference(), version: image.version() },
        host: host(spec)?,
        backing: backing(spec),
        replicas: replicas(spec),
        collections: collections(spec)?,
        resources,
        job_resources,
        template: spec.template.as_ref().map(template).transpose()?,
        mirror_secrets: mirror_secrets(&document, &backing(spec)),
        replications: replications(&document, seen),
        evicts: document.mirrors.iter().any(|mirror| mirror.spec.cache().eviction.is_some()),
        retentions: retentions(&document, seen),
        resource_count: document.resource_count(),
        has_policies: !document.access_policies.is_empty(),
        document: document.encode(),
        gate,
        rebuild: rebuild(registry, seen),
        apis: seen.apis.clone(),
        settings: settings.clone(),
        registry: Arc::clone(registry),
    })
}

/// What was confirmed, while the database is empty, and until a rebuild that has begun is done.
fn rebuild(registry: &Registry, seen: &Observed) -> Option<String> {
    let confirmed =
        registry.annotations().get(REBUILD).filter(|_| backing(&registry.spec) == Backing::Shared)?;
    let is_under_way =
        rebuilding(&registry.name_any(), seen).is_some_and(|state| state != JobState::Complete);
    (is_under_way || replicas::needs_rebuild(&seen.reports)).then(|| confirmed.clone())
}

/// How the rebuild stands, if there is one.
#[must_use]
pub fn rebuilding(registry: &str, seen: &Observed) -> Option<JobState> {
    let job: Job = seen.live.typed(Kind::Job, &Names::of(registry).rebuild())?;
    Some(jobs::state(&job, &seen.pods))
}

/// Two registries in one place of one bucket would destroy each other's content; the elder stays.
fn no_storage_conflict(registry: &Registry, others: &[Arc<Registry>]) -> Result<(), Refusal> {
    let Some(s3) = &registry.spec.storage.s3 else { return Ok(()) };
    let place = (&s3.endpoint, &s3.bucket, &s3.prefix);
    let age =
        |registry: &Registry| (registry.creation_timestamp(), registry.namespace(), registry.name_any());
    let elder = others.iter().find(|other| {
        let theirs = other.spec.storage.s3.as_ref();
        theirs.is_some_and(|theirs| (&theirs.endpoint, &theirs.bucket, &theirs.prefix) == place)
            && other.metadata.uid != registry.metadata.uid
            && age(other) < age(registry)
    });
    match elder {
        None => Ok(()),
        Some(elder) => Err(refuse(
            Reason::StorageConflict,
            format!(
                "bucket {} with prefix {:?} belongs to the older Registry {}/{}",
                s3.bucket,
                s3.prefix,
                elder.namespace().unwrap_or_default(),
                elder.name_any()
            ),
        )),
    }
}

fn documents(registry: &Registry, seen: &Observed) -> Result<(Document, Gate), Refusal> {
    let schedules = match backing(&registry.spec) {
        Backing::Shared => Schedules::Jobs,
        Backing::Volume { .. } => Schedules::InProcess,
    };
    let sources =
        Sources { registry, dependents: &seen.dependents, schedules, previous: seen.previous.as_ref() };
    let compiled = document::compile(&sources).map_err(|invalid| invalid_spec(&invalid))?;
    let encoded = compiled.document.encode();
    let too_old = seen.reports.ready().any(|report| report.max_version < compiled.document.version);
    let gate = match (encoded.is_too_large(), too_old) {
        (true, _) => Gate::TooLarge,
        (false, true) => Gate::ReplicasTooOld,
        (false, false) => Gate::Open,
    };
    match (gate, &seen.previous) {
        (Gate::TooLarge, None) => Err(refuse(Reason::DocumentTooLarge, too_large())),
        (Gate::TooLarge | Gate::ReplicasTooOld, Some(previous)) => Ok((previous.clone(), gate)),
        (Gate::Open | Gate::ReplicasTooOld, _) => Ok((compiled.document, gate)),
    }
}

/// Why a document stays behind.
#[must_use]
pub fn too_large() -> String {
    format!("the document would be larger than {} KiB; the previous one stays", document::MAX_BYTES / 1024)
}

/// The Secrets that mirrors name which replicas ask, once each. On a volume they copy, too.
fn mirror_secrets(document: &Document, backing: &Backing) -> BTreeSet<String> {
    let copies = matches!(backing, Backing::Volume { .. });
    let asked = document.mirrors.iter().filter(|entry| copies || entry.spec.mode == MirrorMode::PullThrough);
    asked.flat_map(|entry| entry.spec.secrets()).map(|secret| secret.name).collect()
}

fn invalid_spec(invalid: &InvalidRegistry) -> Refusal {
    refuse(Reason::InvalidSpec, invalid.to_string())
}

/// The resources of a kind as they were listed.
#[derive(Debug)]
pub struct Found<K> {
    /// Those that can be read.
    pub readable: Vec<K>,
    /// The names of the others.
    pub unreadable: Vec<String>,
}

/// Resources as the document needs them: one that cannot be read keeps the entry it had.
#[must_use]
pub fn with_unreadable<K: Dependent>(
    found: Found<K>,
    previous: Option<&Document>,
    namespace: &str,
) -> Vec<K> {
    let Found { mut readable, unreadable } = found;
    let entries = previous.map(K::entries).unwrap_or_default();
    for entry in entries.iter().filter(|entry| unreadable.contains(&entry.name)) {
        let mut resource = K::of(&entry.name, entry.spec.clone());
        resource.meta_mut().namespace = Some(namespace.to_owned());
        resource.meta_mut().generation = Some(entry.generation);
        readable.push(resource);
    }
    readable
}

fn backing(spec: &RegistrySpec) -> Backing {
    if spec.is_single_replica() {
        let claim_name = spec.volume.as_ref().and_then(|volume| volume.claim_name.clone());
        Backing::Volume { claim_name }
    } else {
        Backing::Shared
    }
}

fn replicas(spec: &RegistrySpec) -> Replicas {
    match &spec.autoscaling {
        Some(asked) => Replicas::Autoscaled {
            min: asked.min_replicas,
            max: asked.max_replicas,
            cpu: asked.target_cpu_utilization_percentage,
        },
        None => Replicas::Fixed(spec.replicas.unwrap_or(if spec.is_single_replica() { 1 } else { 2 })),
    }
}

fn collections(spec: &RegistrySpec) -> Result<Schedule, Refusal> {
    let schedule = Schedule::of(&spec.garbage_collection());
    schedule.map_err(|error| refuse(Reason::InvalidSpec, format!("spec.garbageCollection.{error}")))
}

/// The host of `externalURL`; a route needs a name there.
fn host(spec: &RegistrySpec) -> Result<String, Refusal> {
    let url = spec.external_url.as_str();
    let authority = url.split_once("://").map_or(url, |(_, authority)| authority);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    let routed = spec.expose.as_ref().is_some_and(|expose| expose.service.is_none());
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if routed && is_address {
        return Err(refuse(
            Reason::InvalidSpec,
            format!("spec.externalURL: {host} is an address; an Ingress or HTTPRoute needs a name there"),
        ));
    }
    Ok(host.to_ascii_lowercase())
}

/// Reads a part that is Kubernetes' own type.
fn kubernetes<T: DeserializeOwned + Serialize>(path: &str, asked: &Freeform) -> Result<T, Refusal> {
    freeform::read(asked).map_err(|error| refuse(Reason::InvalidSpec, format!("{path}: {error}")))
}

/// The user's part of the pod template. The labels that select our pods are not theirs to change.
fn template(asked: &Freeform) -> Result<PodTemplateSpec, Refusal> {
    let template: PodTemplateSpec = kubernetes("spec.template", asked)?;
    let labels = template.metadata.iter().flat_map(|metadata| metadata.labels.iter().flatten());
    let reserved = Names::of("").selector(Component::Registry);
    match labels.map(|(key, _)| key).find(|key| reserved.contains_key(*key)) {
        Some(key) => Err(refuse(
            Reason::InvalidSpec,
            format!("spec.template.metadata.labels: {key} selects the replicas and cannot be set"),
        )),
        None => Ok(template),
    }
}
