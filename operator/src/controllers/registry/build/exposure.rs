// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The way in from outside the cluster: an Ingress or an `HTTPRoute` for the host of `externalURL`.
//!
//! Limits of body size and time are an Ingress class's own annotations, so the user writes them. An `HTTPRoute` says it
//! itself: an upload takes as long as it takes.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
use serde_json::json;
use stowage_crds::{HttpRoute, Ingress as AskedIngress, ParentRef};

use super::{metadata, pod};
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Option<Object> {
    let expose = valid.spec().expose.as_ref()?;
    let ingress = expose.ingress.as_ref().map(|asked| ingress(valid, asked));
    ingress.or_else(|| expose.http_route.as_ref().map(|asked| http_route(valid, asked)))
}

fn ingress(valid: &Valid, asked: &AskedIngress) -> Object {
    let mut metadata = metadata(valid, valid.names().main(), Component::Registry);
    metadata.annotations = Some(asked.annotations.0.clone()).filter(|annotations| !annotations.is_empty());
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: valid.names().main(),
            port: Some(ServiceBackendPort { number: Some(pod::DATA_PORT), name: None }),
        }),
        resource: None,
    };
    let path = HTTPIngressPath { path: Some("/".into()), path_type: "Prefix".into(), backend };
    let tls = asked.tls_secret_ref.as_ref().map(|secret| {
        vec![IngressTLS { hosts: Some(vec![valid.host.clone()]), secret_name: Some(secret.name.clone()) }]
    });
    let spec = IngressSpec {
        ingress_class_name: asked.class_name.clone(),
        rules: Some(vec![IngressRule {
            host: Some(valid.host.clone()),
            http: Some(HTTPIngressRuleValue { paths: vec![path] }),
        }]),
        tls,
        default_backend: None,
    };
    Object::typed(Kind::Ingress, &Ingress { metadata, spec: Some(spec), status: None })
}

fn http_route(valid: &Valid, asked: &HttpRoute) -> Object {
    let parents: Vec<_> = asked.parent_refs.iter().map(parent).collect();
    let body = json!({
        "spec": {
            "parentRefs": parents,
            "hostnames": [valid.host],
            "rules": [{
                "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
                "backendRefs": [{ "name": valid.names().main(), "port": pod::DATA_PORT }],
                "timeouts": { "request": "0s" },
            }],
        },
    });
    Object::untyped(Kind::HttpRoute, &metadata(valid, valid.names().main(), Component::Registry), body)
}

fn parent(reference: &ParentRef) -> serde_json::Value {
    let mut parent = json!({ "name": reference.name });
    if let Some(namespace) = &reference.namespace {
        parent["namespace"] = json!(namespace);
    }
    if let Some(section) = &reference.section_name {
        parent["sectionName"] = json!(section);
    }
    parent
}
