// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who may reach the pods. Ways in only: where the bucket, the database and upstreams are, nobody told us.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use stowage_crds::Managed;

use super::{metadata, pod};
use crate::{
    controllers::registry::validate::Valid,
    names::{COMPONENT_LABEL, Component, MONITORING_LABEL},
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Vec<Object> {
    match valid.spec().network_policy {
        Managed::None => Vec::new(),
        Managed::Managed => vec![replicas(valid), jobs(valid)],
    }
}

fn replicas(valid: &Valid) -> Object {
    let open = NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![port(pod::DATA_PORT), port(pod::ADMIN_PORT)]),
    };
    let watched = NetworkPolicyIngressRule {
        from: Some(vec![
            namespaces("kubernetes.io/metadata.name", &valid.settings.operator_namespace),
            namespaces(MONITORING_LABEL, "true"),
        ]),
        ports: Some(vec![port(pod::OPS_PORT)]),
    };
    let selector = LabelSelector {
        match_labels: Some(valid.names().selector(Component::Registry)),
        ..LabelSelector::default()
    };
    policy(valid, valid.names().main(), selector, vec![open, watched])
}

/// Pods of Jobs listen on nothing; nobody has any business there.
fn jobs(valid: &Valid) -> Object {
    let mut labels = valid.names().selector(Component::Registry);
    labels.remove(COMPONENT_LABEL);
    let others = LabelSelectorRequirement {
        key: COMPONENT_LABEL.into(),
        operator: "NotIn".into(),
        values: Some(vec![Component::Registry.as_str().into()]),
    };
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: Some(vec![others]) };
    policy(valid, valid.names().jobs(), selector, Vec::new())
}

fn policy(
    valid: &Valid,
    name: String,
    pod_selector: LabelSelector,
    ingress: Vec<NetworkPolicyIngressRule>,
) -> Object {
    let policy = NetworkPolicy {
        metadata: metadata(valid, name, Component::Registry),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(ingress).filter(|rules| !rules.is_empty()),
            egress: None,
        }),
    };
    Object::typed(Kind::NetworkPolicy, &policy)
}

fn namespaces(label: &str, value: &str) -> NetworkPolicyPeer {
    let labels = [(label.to_owned(), value.to_owned())].into();
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    }
}
