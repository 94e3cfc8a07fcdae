// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How many replicas a drain may take. A drain is never blocked: not by one replica, and not by pods that fail anyway.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::metadata;
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Option<Object> {
    if !valid.may_have_several_replicas() {
        return None;
    }
    let disruption = valid.spec().disruption.clone().unwrap_or_default();
    let budget = PodDisruptionBudget {
        metadata: metadata(valid, valid.names().main(), Component::Registry),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(disruption.max_unavailable)),
            selector: Some(LabelSelector {
                match_labels: Some(valid.names().selector(Component::Registry)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    Some(Object::typed(Kind::PodDisruptionBudget, &budget))
}
