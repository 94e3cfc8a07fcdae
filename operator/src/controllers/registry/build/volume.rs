// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The volume of a registry that keeps blobs or database on disk.
//!
//! Under `Retain` it has no owner, so it outlives its Registry; a new one of the same name finds it by its label.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use stowage_crds::DeletionPolicy;

use super::metadata;
use crate::{
    controllers::registry::validate::{Backing, Valid},
    names::Component,
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Option<Object> {
    let Backing::Volume { claim_name: None } = &valid.backing else { return None };
    let volume = valid.spec().volume.clone().unwrap_or_default();
    let mut metadata = metadata(valid, valid.names().data(), Component::Registry);
    if valid.spec().deletion_policy == DeletionPolicy::Retain {
        metadata.owner_references = None;
    }
    let size = Quantity(volume.size.as_str().to_owned());
    let claim = PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: volume.storage_class_name,
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    Some(Object::typed(Kind::PersistentVolumeClaim, &claim))
}
