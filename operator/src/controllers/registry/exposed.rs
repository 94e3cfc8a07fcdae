// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether the way in from outside is open. Pure.

use k8s_openapi::api::{core::v1::Service, networking::v1::Ingress};
use serde_json::Value;
use stowage_crds::{
    ServiceType,
    conditions::{ConditionType, Finding, Reason},
};

use super::validate::Valid;
use crate::{
    apply::Live,
    objects::{Kind, OptionalApi},
};

/// Does it have the address it asks for?
#[must_use]
pub(super) fn exposed(valid: &Valid, live: &Live) -> Finding {
    let Some(expose) = &valid.spec().expose else {
        return open(Reason::ClusterIPOnly, "no address outside the cluster is asked for");
    };
    if let Some(service) = &expose.service {
        return match service.type_ {
            ServiceType::NodePort => open(Reason::AddressAssigned, "every node has the port"),
            ServiceType::LoadBalancer => addressed(has_service_address(live, &valid.names().public())),
        };
    }
    if expose.ingress.is_some() {
        return addressed(has_ingress_address(live, &valid.names().main()));
    }
    if !valid.apis.contains(&OptionalApi::Gateway) {
        return closed(Reason::GatewayAPIMissing, "the cluster has no gateway.networking.k8s.io/v1");
    }
    if is_route_accepted(live, &valid.names().main()) {
        open(Reason::AddressAssigned, "a Gateway accepts the route")
    } else {
        closed(Reason::WaitingForAddress, "no Gateway has accepted the route yet")
    }
}

fn addressed(has_address: bool) -> Finding {
    if has_address {
        open(Reason::AddressAssigned, "it has an address")
    } else {
        closed(Reason::WaitingForAddress, "no address is assigned yet")
    }
}

fn open(reason: Reason, message: &str) -> Finding {
    Finding::new(ConditionType::Exposed, true, reason, message)
}

fn closed(reason: Reason, message: &str) -> Finding {
    Finding::new(ConditionType::Exposed, false, reason, message)
}

fn has_service_address(live: &Live, name: &str) -> bool {
    let service: Option<Service> = live.typed(Kind::Service, name);
    let balancer = service.and_then(|service| service.status).and_then(|status| status.load_balancer);
    balancer.and_then(|balancer| balancer.ingress).is_some_and(|addresses| !addresses.is_empty())
}

fn has_ingress_address(live: &Live, name: &str) -> bool {
    let ingress: Option<Ingress> = live.typed(Kind::Ingress, name);
    let balancer = ingress.and_then(|ingress| ingress.status).and_then(|status| status.load_balancer);
    balancer.and_then(|balancer| balancer.ingress).is_some_and(|addresses| !addresses.is_empty())
}

fn is_route_accepted(live: &Live, name: &str) -> bool {
    let parents = live.get(Kind::HttpRoute, name).and_then(|route| route.data.pointer("/status/parents"));
    let conditions = parents
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|parent| parent.get("conditions").and_then(Value::as_array));
    conditions.flatten().any(|condition| condition["type"] == "Accepted" && condition["status"] == "True")
}
