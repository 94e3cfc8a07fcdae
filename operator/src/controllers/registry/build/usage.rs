// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a run needs that asks what the cluster runs: a label by which it is seen, its own uid, and a place for the
//! answer.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stowage_crds::UsageProtection;

use super::pod;
use crate::{controllers::registry::validate::Valid, names::USAGE_LABEL};

/// Where the answer is looked for.
const FOLDER: &str = "/etc/stowage/usage";
const VOLUME: &str = "usage";
/// The label by which Kubernetes names the Job of a pod, by its uid.
const JOB_UID: &str = "metadata.labels['batch.kubernetes.io/controller-uid']";

/// Whether runs that delete ask.
pub(super) fn is_asked(valid: &Valid) -> bool {
    valid.spec().usage_protection.as_ref().is_some_and(UsageProtection::asks_operator)
}

/// The Job is one that asks, if any does.
pub(super) fn label(valid: &Valid, metadata: &mut ObjectMeta) {
    if is_asked(valid) {
        metadata.labels.get_or_insert_default().insert(USAGE_LABEL.to_owned(), "true".to_owned());
    }
}

/// Its pod knows which run it is, and reads the answer; there is none yet when it starts.
pub(super) fn read(valid: &Valid, spec: &mut PodSpec) {
    if !is_asked(valid) {
        return;
    }
    mount(valid, spec);
    let uid = EnvVar {
        name: "STOWAGE_RUN_UID".into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: JOB_UID.into(), api_version: None }),
            ..EnvVarSource::default()
        }),
    };
    for container in spec.containers.iter_mut().filter(|container| container.name == pod::CONTAINER) {
        container.env.get_or_insert_default().push(uid.clone());
    }
}

/// The answer is there to be read.
pub(super) fn mount(valid: &Valid, spec: &mut PodSpec) {
    spec.volumes.get_or_insert_default().push(Volume {
        name: VOLUME.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: valid.names().usage(),
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    for container in spec.containers.iter_mut().filter(|container| container.name == pod::CONTAINER) {
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: VOLUME.into(),
            mount_path: FOLDER.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}
