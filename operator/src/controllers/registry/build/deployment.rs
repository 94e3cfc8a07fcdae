// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The replicas. Those that share bucket and database roll one by one without a gap; one that owns a volume must let
//! go of it before the next can take it.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{metadata, pod};
use crate::{
    controllers::registry::validate::{Backing, Replicas, Valid},
    names::Component,
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Object {
    let deployment = Deployment {
        metadata: metadata(valid, valid.names().main(), Component::Registry),
        spec: Some(DeploymentSpec {
            replicas: replicas(valid),
            selector: LabelSelector {
                match_labels: Some(valid.names().selector(Component::Registry)),
                ..LabelSelector::default()
            },
            strategy: Some(strategy(&valid.backing)),
            min_ready_seconds: Some(5),
            progress_deadline_seconds: Some(600),
            template: pod::replica(valid),
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    Object::typed(Kind::Deployment, &deployment)
}

/// The field belongs to the autoscaler where there is one.
fn replicas(valid: &Valid) -> Option<i32> {
    match valid.replicas {
        Replicas::Fixed(replicas) => Some(replicas),
        Replicas::Autoscaled { .. } => None,
    }
}

fn strategy(backing: &Backing) -> DeploymentStrategy {
    match backing {
        Backing::Volume { .. } => DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None },
        Backing::Shared => DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_unavailable: Some(IntOrString::Int(0)),
                max_surge: Some(IntOrString::String("25%".into())),
            }),
        },
    }
}
