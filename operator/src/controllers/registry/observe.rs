// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Looks at everything a decision about a Registry needs. Only reads.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::{try_join, try_join_all, try_join5};
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
    core::DeserializeGuard,
};
use stowage_crds::{Dependent, Dependents, Registry, document::Document};
use thiserror::Error;

use super::{
    build::document,
    build::pod,
    usage::Watch,
    validate::{Found, with_unreadable},
};
use crate::{
    apis::Apis,
    apply::{self, Applier, Live, is_run},
    context::Context,
    names::{COMPONENT_LABEL, Component, Names, REGISTRY_LABEL, selector_text},
    objects::{Kind, parse},
    reports::{Key, Snapshot, Target},
};

/// Why something could not be looked at.
#[derive(Debug, Error)]
pub enum Error {
    /// Objects of ours.
    #[error(transparent)]
    Owned(#[from] apply::Error),
    /// Resources beside the Registry.
    #[error("list {what}")]
    Beside {
        /// What was listed.
        what: &'static str,
        /// What came back.
        #[source]
        source: kube::Error,
    },
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Objects of ours.
    pub live: Live,
    /// Runs of the collector and of Mirrors: those of schedules and those beside.
    pub runs: Vec<Job>,
    /// The resources of the namespace that name a Registry; one that cannot be read is there as it last was.
    pub dependents: Dependents,
    /// Pods of replicas and Jobs.
    pub pods: Vec<Pod>,
    /// What the replicas say.
    pub reports: Snapshot,
    /// The optional APIs of the cluster.
    pub apis: Apis,
    /// The document in force.
    pub previous: Option<Document>,
    /// Whether runs that delete are answered what runs; `None` before it is known.
    pub usage: Option<Watch>,
    /// All registries in sight.
    pub others: Vec<Arc<Registry>>,
    /// When it was looked.
    pub now: Timestamp,
}

impl Observed {
    /// The runs of one component.
    pub fn runs_of(&self, component: Component) -> impl Iterator<Item = &Job> {
        self.runs.iter().filter(move |job| {
            job.labels().get(COMPONENT_LABEL).map(String::as_str) == Some(component.as_str())
        })
    }

    /// The pods of one component.
    pub fn pods_of(&self, component: Component) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| {
            pod.labels().get(COMPONENT_LABEL).map(String::as_str) == Some(component.as_str())
        })
    }
}

/// Looks at everything around a Registry.
pub async fn observe(cx: &Context, registry: &Registry, applier: &Applier) -> Result<Observed, Error> {
    let key = key(registry);
    let apis = cx.apis.borrow().clone();
    let namespace = &key.namespace;
    let (((live, runs), pods), (policies, retention), mirrors, virtuals, promotions) = try_join5(
        try_join(owned(applier, &apis), pods(cx, &key)),
        try_join(dependents(cx, namespace), dependents(cx, namespace)),
        dependents(cx, namespace),
        dependents(cx, namespace),
        dependents(cx, namespace),
    )
    .await?;
    let previous = previous(&live, &key.name);
    let selector = Names::of(&key.name).selector(Component::Registry);
    let targets = pods.iter().filter(|pod| matches(pod.labels(), &selector));
    let port = u16::try_from(pod::OPS_PORT).unwrap_or_default();
    let targets = targets.filter_map(|pod| Target::of(pod, port)).collect();
    Ok(Observed {
        dependents: Dependents {
            access_policies: with_unreadable(policies, previous.as_ref(), namespace),
            mirrors: with_unreadable(mirrors, previous.as_ref(), namespace),
            virtual_repositories: with_unreadable(virtuals, previous.as_ref(), namespace),
            promotion_policies: with_unreadable(promotions, previous.as_ref(), namespace),
            retention_policies: with_unreadable(retention, previous.as_ref(), namespace),
        },
        reports: cx.reports.observe(&key, targets).await,
        live,
        runs,
        pods,
        apis,
        previous,
        usage: None,
        others: cx.registries(),
        now: (cx.now)(),
    })
}

/// How a Registry is called in memory.
#[must_use]
pub fn key(registry: &Registry) -> Key {
    Key { namespace: registry.namespace().unwrap_or_default(), name: registry.name_any() }
}

/// What is ours, and the runs.
async fn owned(applier: &Applier, apis: &Apis) -> Result<(Live, Vec<Job>), Error> {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_readable() && kind.needs().is_none_or(|api| apis.contains(&api)));
    let lists = try_join_all(kinds.map(|kind| async move {
        let objects = applier.labelled(kind).await?;
        Ok::<_, apply::Error>((kind, objects))
    }))
    .await?;
    let mut live = Live::default();
    let mut scheduled = Vec::new();
    for (kind, objects) in lists {
        for object in objects {
            if applier.is_ours(kind, &object) {
                live.insert(kind, object);
            } else if is_run(kind, &object) {
                scheduled.push(object);
            }
        }
    }
    // The Jobs of a schedule belong to it, and it to us.
    scheduled.retain(|job| live.iter().any(|((_, _), owner)| controls(owner, job)));
    let beside = live.iter().filter(|((kind, _), object)| is_run(*kind, object));
    let runs = beside.map(|(_, object)| object).chain(&scheduled).filter_map(parse).collect();
    Ok((live, runs))
}

fn controls(owner: &DynamicObject, object: &DynamicObject) -> bool {
    let references = object.owner_references().iter();
    references
        .filter(|reference| reference.controller == Some(true))
        .any(|reference| owner.uid().as_ref() == Some(&reference.uid))
}

/// The resources of a kind, and of those that cannot be read the names.
async fn dependents<K: Dependent>(cx: &Context, namespace: &str) -> Result<Found<K>, Error> {
    let api: Api<DeserializeGuard<K>> = Api::namespaced(cx.client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|source| Error::Beside { what: K::KIND.as_str(), source })?;
    let mut found = Found { readable: Vec::new(), unreadable: Vec::new() };
    for guard in list.items {
        match guard.0 {
            Ok(resource) => found.readable.push(resource),
            Err(invalid) => found.unreadable.extend(invalid.metadata.name),
        }
    }
    Ok(found)
}

async fn pods(cx: &Context, key: &Key) -> Result<Vec<Pod>, Error> {
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), &key.namespace);
    let labels = [(REGISTRY_LABEL.to_owned(), key.name.clone())].into();
    let list = api.list(&ListParams::default().labels(&selector_text(&labels))).await;
    list.map(|pods| pods.items).map_err(|source| Error::Beside { what: "pods", source })
}

fn matches(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The document in force, if it is as we left it.
fn previous(live: &Live, name: &str) -> Option<Document> {
    let config: ConfigMap = live.typed(Kind::ConfigMap, &Names::of(name).config())?;
    let data = config.data?;
    let json = data.get(document::DOCUMENT)?;
    Document::parse_checked(json.as_bytes(), data.get(document::HASH)?).ok()
}
