// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The autoscaler. Beside it nobody says how many replicas there are: the Deployment leaves the field out.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};

use super::metadata;
use crate::{
    controllers::registry::validate::{Replicas, Valid},
    names::Component,
    objects::{Kind, Object},
};

/// Transfers are long: a replica that goes takes minutes to drain, so the number falls slowly.
const SCALE_DOWN_WINDOW_SECONDS: i32 = 300;

pub(super) fn build(valid: &Valid) -> Option<Object> {
    let Replicas::Autoscaled { min, max, cpu } = valid.replicas else { return None };
    let autoscaler = HorizontalPodAutoscaler {
        metadata: metadata(valid, valid.names().main(), Component::Registry),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: valid.names().main(),
            },
            min_replicas: Some(min),
            max_replicas: max,
            metrics: Some(vec![cpu_metric(cpu)]),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_down: Some(HPAScalingRules {
                    stabilization_window_seconds: Some(SCALE_DOWN_WINDOW_SECONDS),
                    ..HPAScalingRules::default()
                }),
                scale_up: None,
            }),
        }),
        status: None,
    };
    Some(Object::typed(Kind::HorizontalPodAutoscaler, &autoscaler))
}

fn cpu_metric(percentage: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".into(),
        resource: Some(ResourceMetricSource {
            name: "cpu".into(),
            target: MetricTarget {
                type_: "Utilization".into(),
                average_utilization: Some(percentage),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}
