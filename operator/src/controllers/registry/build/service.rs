// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The ways to the replicas: for the cluster, for what watches them, and the one the user asked for.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use stowage_crds::{ServiceExposure, ServiceType};

use super::{metadata, pod};
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Vec<Object> {
    let mut services = vec![cluster(valid), operations(valid)];
    let asked = valid.spec().expose.as_ref().and_then(|expose| expose.service.as_ref());
    services.extend(asked.map(|exposure| public(valid, exposure)));
    services
}

fn cluster(valid: &Valid) -> Object {
    let ports = vec![data_port(valid), port("admin", pod::ADMIN_PORT, Some(valid.protocol()))];
    service(valid, valid.names().main(), ServiceSpec { ports: Some(ports), ..ServiceSpec::default() })
}

/// Headless, and with the replicas that are not ready: those most of all want watching.
fn operations(valid: &Valid) -> Object {
    let spec = ServiceSpec {
        cluster_ip: Some("None".into()),
        publish_not_ready_addresses: Some(true),
        ports: Some(vec![port("ops", pod::OPS_PORT, Some("http"))]),
        ..ServiceSpec::default()
    };
    service(valid, valid.names().ops(), spec)
}

fn public(valid: &Valid, exposure: &ServiceExposure) -> Object {
    let type_ = match exposure.type_ {
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::NodePort => "NodePort",
    };
    let port = ServicePort { node_port: exposure.node_port, ..data_port(valid) };
    let mut metadata = metadata(valid, valid.names().public(), Component::Registry);
    metadata.annotations = Some(exposure.annotations.0.clone()).filter(|annotations| !annotations.is_empty());
    let spec = ServiceSpec {
        type_: Some(type_.into()),
        selector: Some(valid.names().selector(Component::Registry)),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    Object::typed(Kind::Service, &Service { metadata, spec: Some(spec), status: None })
}

fn service(valid: &Valid, name: String, spec: ServiceSpec) -> Object {
    let metadata = metadata(valid, name, Component::Registry);
    let spec = ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(valid.names().selector(Component::Registry)),
        ..spec
    };
    Object::typed(Kind::Service, &Service { metadata, spec: Some(spec), status: None })
}

fn data_port(valid: &Valid) -> ServicePort {
    port("registry", pod::DATA_PORT, Some(valid.protocol()))
}

fn port(name: &str, number: i32, protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: number,
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        app_protocol: protocol.map(str::to_owned),
        ..ServicePort::default()
    }
}
