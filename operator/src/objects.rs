// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The objects the operator makes: which kinds there are, and one of them on its way to the API server.
//!
//! An [`Object`] comes from `build` and has never been seen by a server; what a server holds is a
//! [`Live`](crate::apply::Live) object, and a status is computed from those only.

use k8s_openapi::{
    Metadata,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Serialize;
use serde_json::Value;

/// The kinds of objects that a Registry owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Identity of the pods.
    ServiceAccount,
    /// The token keys: created, never read.
    Secret,
    /// The policy document, and dashboards.
    ConfigMap,
    /// The volume of a registry on disk.
    PersistentVolumeClaim,
    /// Ways in.
    Service,
    /// Who may come in.
    NetworkPolicy,
    /// How many replicas a drain may take.
    PodDisruptionBudget,
    /// Migration and purge.
    Job,
    /// Schedules.
    CronJob,
    /// The replicas.
    Deployment,
    /// Their number.
    HorizontalPodAutoscaler,
    /// The way in from outside.
    Ingress,
    /// The same with the Gateway API.
    HttpRoute,
    /// Scraping, with the Prometheus operator.
    ServiceMonitor,
    /// Alerts, with the Prometheus operator.
    PrometheusRule,
}

/// APIs that a cluster may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OptionalApi {
    /// `gateway.networking.k8s.io/v1`.
    Gateway,
    /// `monitoring.coreos.com/v1`.
    Monitoring,
}

impl OptionalApi {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::Monitoring];

    /// Group and version to look for.
    #[must_use]
    pub fn group_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Gateway => ("gateway.networking.k8s.io", "v1"),
            Self::Monitoring => ("monitoring.coreos.com", "v1"),
        }
    }

    /// The name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Monitoring => "monitoring",
        }
    }
}

impl Kind {
    /// Every kind, in the order in which objects are applied.
    pub const ALL: [Self; 15] = [
        Self::ServiceAccount,
        Self::Secret,
        Self::ConfigMap,
        Self::PersistentVolumeClaim,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::Job,
        Self::CronJob,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::Ingress,
        Self::HttpRoute,
        Self::ServiceMonitor,
        Self::PrometheusRule,
    ];

    /// Where the API server serves this kind.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
            Self::CronJob => ApiResource::erase::<CronJob>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::HorizontalPodAutoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
            Self::Ingress => ApiResource::erase::<Ingress>(&()),
            Self::HttpRoute => foreign("gateway.networking.k8s.io", "HTTPRoute", "httproutes"),
            Self::ServiceMonitor => foreign("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
            Self::PrometheusRule => foreign("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
        }
    }

    /// The API without which this kind does not exist.
    #[must_use]
    pub fn needs(self) -> Option<OptionalApi> {
        match self {
            Self::HttpRoute => Some(OptionalApi::Gateway),
            Self::ServiceMonitor | Self::PrometheusRule => Some(OptionalApi::Monitoring),
            Self::ServiceAccount
            | Self::Secret
            | Self::ConfigMap
            | Self::PersistentVolumeClaim
            | Self::Service
            | Self::NetworkPolicy
            | Self::PodDisruptionBudget
            | Self::Job
            | Self::CronJob
            | Self::Deployment
            | Self::HorizontalPodAutoscaler
            | Self::Ingress => None,
        }
    }

    /// May the operator read and change what it made? Not Secrets.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self != Self::Secret
    }

    /// Is it made once and left alone? A Job's template cannot change, and Secrets are not ours to change.
    #[must_use]
    pub fn is_made_once(self) -> bool {
        matches!(self, Self::Secret | Self::Job)
    }
}

fn foreign(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
}

/// One object the operator wants, unknown to any server.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    kind: Kind,
    name: String,
    body: Value,
}

impl Object {
    /// Takes a typed object of one of our kinds.
    #[must_use]
    pub fn typed<K>(kind: Kind, object: &K) -> Self
    where
        K: Metadata<Ty = ObjectMeta> + Serialize,
    {
        let body = serde_json::to_value(object).expect("API types have string keys only, so they serialize");
        Self::raw(kind, object.metadata(), body)
    }

    /// Takes the body of a kind this crate has no type for.
    #[must_use]
    pub fn untyped(kind: Kind, metadata: &ObjectMeta, mut body: Value) -> Self {
        let resource = kind.resource();
        body["apiVersion"] = Value::String(resource.api_version);
        body["kind"] = Value::String(resource.kind);
        body["metadata"] = serde_json::to_value(metadata).expect("metadata has string keys only");
        Self::raw(kind, metadata, body)
    }

    fn raw(kind: Kind, meta: &ObjectMeta, body: Value) -> Self {
        let name = meta.name.clone().expect("build names every object");
        Self { kind, name, body }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What we say about it, as JSON.
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The same for calls that take an object.
    #[must_use]
    pub fn dynamic(&self) -> DynamicObject {
        serde_json::from_value(self.body.clone()).expect("every body has type and metadata")
    }
}

/// An object of the API server as one of the types we know, or nothing if it does not look like one.
#[must_use]
pub fn parse<K: serde::de::DeserializeOwned>(live: &DynamicObject) -> Option<K> {
    serde_json::to_value(live).ok().and_then(|value| serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_address_of_its_own() {
        let mut seen: Vec<_> =
            Kind::ALL.iter().map(|kind| kind.resource()).map(|r| (r.group, r.version, r.plural)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), Kind::ALL.len());
    }

    #[test]
    fn plurals_are_those_of_the_api() {
        assert_eq!(Kind::NetworkPolicy.resource().plural, "networkpolicies");
        assert_eq!(Kind::Ingress.resource().plural, "ingresses");
        assert_eq!(Kind::HttpRoute.resource().api_version, "gateway.networking.k8s.io/v1");
    }
}
