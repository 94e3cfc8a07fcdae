// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One evaluation of a Promotion: the Job, and the request that it reads.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{ConfigMap, ConfigMapVolumeSource, PodTemplateSpec, Volume, VolumeMount},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};
use stowage_crds::{API_VERSION, PromotionSpec, PromotionStatus};

use super::{job, pod};
use crate::{
    controllers::registry::validate::Valid,
    names::{Component, MADE_FOR, PROMOTION_LABEL, PromotionNames},
    objects::{Kind, Object},
};

/// The command of an evaluation.
pub const COMMAND: &str = "promote";
const REQUEST_DIR: &str = "/etc/stowage/request";
const REQUEST: &str = "request.json";
/// How long one evaluation may take, in seconds.
const DEADLINE: i64 = 1800;

/// What one evaluation is of.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The name of the Promotion.
    pub name: &'a str,
    /// The reference that makes its objects its own.
    pub owner: &'a OwnerReference,
    /// Its generation.
    pub generation: i64,
    /// What is asked for.
    pub spec: &'a PromotionSpec,
    /// What is known of it.
    pub status: &'a PromotionStatus,
}

/// The request, then the Job, in the order in which they are applied.
#[must_use]
pub fn evaluation(valid: &Valid, asked: &Asked<'_>) -> [Object; 2] {
    [request(valid, asked), run(valid, asked)]
}

fn request(valid: &Valid, asked: &Asked<'_>) -> Object {
    let data = [(REQUEST.to_owned(), document(valid, asked).to_string())];
    let metadata = metadata(valid, asked, PromotionNames::of(asked.name).request());
    let config = ConfigMap { metadata, data: Some(data.into()), ..ConfigMap::default() };
    Object::typed(Kind::ConfigMap, &config)
}

/// As the command reads it.
fn document(valid: &Valid, asked: &Asked<'_>) -> Value {
    let PromotionSpec { policy_ref, artifact, requested_by, reason, approvals, .. } = asked.spec;
    let mut spec = json!({
        "policyRef": policy_ref, "artifact": artifact, "requestedBy": requested_by, "approvals": approvals,
    });
    if let Some(reason) = reason {
        spec["reason"] = json!(reason);
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "Promotion",
        "metadata": { "name": asked.name, "namespace": valid.namespace, "uid": asked.owner.uid },
        "spec": spec,
        "status": { "artifact": asked.status.artifact },
    })
}

fn run(valid: &Valid, asked: &Asked<'_>) -> Object {
    let mut args = pod::command(COMMAND);
    args.extend(["--request".to_owned(), format!("{REQUEST_DIR}/{REQUEST}")]);
    let mut template = pod::job(valid, Component::Promote, args, &valid.fetching_job_secrets());
    mount(&mut template, &PromotionNames::of(asked.name).request());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.extend([label(asked.name)]);
    let number = asked.status.evaluations.unwrap_or_default();
    let mut metadata = metadata(valid, asked, PromotionNames::of(asked.name).run(number));
    metadata.annotations = Some([(MADE_FOR.to_owned(), asked.generation.to_string())].into());
    let spec = JobSpec { ttl_seconds_after_finished: Some(job::DAY), ..job::spec(template, DEADLINE) };
    Object::typed(Kind::Job, &Job { metadata, spec: Some(spec), status: None })
}

/// The request beside the configuration.
fn mount(template: &mut PodTemplateSpec, request: &str) {
    let spec = template.spec.get_or_insert_default();
    spec.volumes.get_or_insert_default().push(Volume {
        name: "request".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: request.to_owned(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    for container in &mut spec.containers {
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: "request".into(),
            mount_path: REQUEST_DIR.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

fn label(name: &str) -> (String, String) {
    (PROMOTION_LABEL.to_owned(), PromotionNames::of(name).label())
}

fn metadata(valid: &Valid, asked: &Asked<'_>, name: String) -> ObjectMeta {
    let mut labels = valid.names().labels(Component::Promote, &valid.image.version);
    labels.extend([label(asked.name)]);
    ObjectMeta {
        name: Some(name),
        namespace: Some(valid.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![asked.owner.clone()]),
        ..ObjectMeta::default()
    }
}
