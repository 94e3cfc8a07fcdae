// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a Registry looks like in a cluster: a file an object kind.
//!
//! Guarantees: cannot fail, because [`Valid`] holds nothing that could be wrong; the same input gives the same bytes,
//! so nothing is written when nothing changed. Every object is labelled, and all but a retained volume are owned.
//! Never: asks a server, the time or chance.

mod autoscaler;
mod deployment;
mod disruption;
pub mod document;
mod exposure;
pub mod job;
mod monitoring;
mod network_policy;
pub mod pod;
pub mod promote;
mod retention;
mod service;
mod service_account;
mod sync;
pub mod token_key;
mod usage;
mod volume;

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::Valid;
use crate::{
    names::Component,
    objects::{Kind, Object},
};

/// What is wanted, in the order in which it is applied.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What pods need before they start. The token key is not among it: see [`token_key`].
    pub foundation: Vec<Object>,
    /// The policy document.
    pub document: Object,
    /// The gate: what follows waits until it has succeeded.
    pub migration: Option<Object>,
    /// The replicas and their number.
    pub workload: Vec<Object>,
    /// What makes a lost database again, beside the replicas.
    pub rebuild: Option<Object>,
    /// Ways in, schedules, monitoring.
    pub surroundings: Vec<Object>,
}

impl Plan {
    /// Every object, in order.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.foundation
            .iter()
            .chain([&self.document])
            .chain(&self.migration)
            .chain(&self.workload)
            .chain(&self.rebuild)
            .chain(&self.surroundings)
    }

    /// What must not be pruned.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<(Kind, String)> {
        self.objects().map(|object| (object.kind(), object.name().to_owned())).collect()
    }
}

/// All objects of a valid Registry.
#[must_use]
pub fn build(valid: &Valid) -> Plan {
    let mut foundation = vec![service_account::build(valid)];
    foundation.extend(volume::build(valid));
    foundation.extend(service::build(valid));
    foundation.extend(network_policy::build(valid));
    foundation.extend(disruption::build(valid));

    let mut workload = vec![deployment::build(valid)];
    workload.extend(autoscaler::build(valid));

    let mut surroundings: Vec<_> = exposure::build(valid).into_iter().collect();
    surroundings.extend(job::garbage_collection(valid));
    surroundings.extend(job::requested_collection(valid));
    surroundings.extend(sync::build(valid));
    surroundings.extend(retention::build(valid));
    surroundings.extend(monitoring::build(valid));
    surroundings.retain(|object| object.kind().needs().is_none_or(|api| valid.apis.contains(&api)));

    Plan {
        foundation,
        document: document::build(valid),
        migration: job::migration(valid),
        rebuild: job::rebuild(valid),
        workload,
        surroundings,
    }
}

pub(super) fn metadata(valid: &Valid, name: String, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(valid.namespace.clone()),
        labels: Some(valid.names().labels(component, &valid.image.version)),
        owner_references: Some(vec![valid.owner.clone()]),
        ..ObjectMeta::default()
    }
}
