// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Answers runs that delete what the cluster runs.
//!
//! A run asks by being there: a Job with the label [`USAGE_LABEL`] that has not ended, or a replica that says which run
//! of its own waits. Then all that counts is listed, consistently, and written into a `ConfigMap` that names the runs
//! it answers.
//! Guarantees: an answer was looked at after the runs that it names had begun. Nothing is written when no run asks.
//! What could not be listed as a whole is no answer: the runs refuse.

mod running;

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use stowage_crds::conditions::{ConditionType, Finding, Reason};
use stowage_crds::usage::{MOST_USAGE_BYTES, USAGE_FILE, UsageAnswer};
use stowage_crds::{UsageProtection, UsageScope};

pub use running::{Running, Workloads};

use super::{
    build,
    failure::Failure,
    jobs::{self, JobState},
    observe::Observed,
    validate::Valid,
};
use crate::{
    apply::Applier,
    context::Context,
    names::{Component, USAGE_LABEL},
    objects::{Kind, Object},
};

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// Whether runs are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// They are.
    Watching,
    /// A kind may not be listed.
    PermissionDenied(String),
    /// All of the cluster is to be looked at, and the operator looks at a part.
    NotCovered,
    /// The answer would not fit.
    TooLarge,
}

/// What is asked for: a Registry that protects, and where the operator has to look.
struct Scope<'a> {
    protection: &'a UsageProtection,
    /// None: all namespaces.
    namespaces: Vec<Option<&'a str>>,
}

/// Answers the runs that ask; what is to be said of it. `None`: nothing is asked for.
pub(super) async fn answer(
    valid: &Valid,
    seen: &mut Observed,
    applier: &Applier,
    cx: &Context,
) -> Result<Option<Watch>, Failure> {
    let Some(protection) = valid.spec().usage_protection.as_ref() else { return Ok(None) };
    if !protection.asks_operator() {
        return Ok(Some(Watch::Watching));
    }
    if protection.scope == UsageScope::Cluster && !cx.watches_all {
        return Ok(Some(Watch::NotCovered));
    }
    let namespaces = match protection.scope {
        UsageScope::Cluster | UsageScope::RemotesOnly => vec![None],
        UsageScope::Namespaces => protection.namespaces.iter().map(|name| Some(name.as_str())).collect(),
    };
    let scope = Scope { protection, namespaces };
    let asking = asking(seen);
    if asking.is_empty() || asking.is_subset(&answered(valid, seen)) {
        return watch(look(&cx.client, &scope).await);
    }
    let at = Time((cx.now)());
    let running = match gather(&cx.client, &scope).await {
        Ok(workloads) => workloads.running(usize::try_from(scope.protection.revisions).unwrap_or_default()),
        Err(error) => return watch(Err(error)),
    };
    let answer = UsageAnswer {
        answers: asking.into_iter().collect(),
        observed_at: at,
        digests: running.digests.into_iter().collect(),
        references: running.references.into_iter().collect(),
    };
    let json = answer.to_json();
    if json.len() > MOST_USAGE_BYTES {
        return Ok(Some(Watch::TooLarge));
    }
    applier.apply(&object(valid, json), &mut seen.live).await?;
    Ok(Some(Watch::Watching))
}

/// What could be looked at, as the status says it.
fn watch(looked: Result<(), Unlisted>) -> Result<Option<Watch>, Failure> {
    match looked {
        Ok(()) => Ok(Some(Watch::Watching)),
        Err(Unlisted { what, source: kube::Error::Api(status) }) if status.code == 403 => {
            Ok(Some(Watch::PermissionDenied(what)))
        }
        Err(Unlisted { source, .. }) => Err(Failure::Own { verb: "look at what runs around", source }),
    }
}

/// The runs that have not ended.
fn asking(seen: &Observed) -> BTreeSet<String> {
    let asks = |job: &&Job| {
        job.labels().contains_key(USAGE_LABEL) && jobs::state(job, &seen.pods) == JobState::Running
    };
    let jobs = seen.runs.iter().filter(asks).filter_map(kube::ResourceExt::uid);
    let own = seen.reports.ready().filter_map(|report| report.usage_wanted.clone());
    jobs.chain(own).collect()
}

/// The runs that were answered.
fn answered(valid: &Valid, seen: &Observed) -> BTreeSet<String> {
    let config: Option<ConfigMap> = seen.live.typed(Kind::ConfigMap, &valid.names().usage());
    let text = config.and_then(|config| config.data?.remove(USAGE_FILE));
    let answer = text.and_then(|text| serde_json::from_str::<UsageAnswer>(&text).ok());
    answer.map(|answer| answer.answers.into_iter().collect()).unwrap_or_default()
}

fn object(valid: &Valid, json: String) -> Object {
    let config = ConfigMap {
        metadata: build::metadata(valid, valid.names().usage(), Component::Registry),
        data: Some([(USAGE_FILE.to_owned(), json)].into()),
        ..ConfigMap::default()
    };
    Object::typed(Kind::ConfigMap, &config)
}

/// What an answer is in, if there may be one: it is not pruned.
pub(super) fn wanted(valid: &Valid) -> Option<(Kind, String)> {
    let asks = valid.spec().usage_protection.as_ref().is_some_and(UsageProtection::asks_operator);
    asks.then(|| (Kind::ConfigMap, valid.names().usage()))
}

/// The condition.
pub(super) fn protected(watch: &Watch, seen: &Observed) -> Finding {
    let found = |holds: bool, reason, message: &str| {
        Finding::new(ConditionType::UsageProtected, holds, reason, message)
    };
    match watch {
        Watch::PermissionDenied(what) => found(
            false,
            Reason::PermissionDenied,
            &format!("the operator may not list {what}: bind it to the role stowage-operator-usage"),
        ),
        Watch::NotCovered => found(
            false,
            Reason::UsageScopeNotCovered,
            "scope Cluster needs an operator that looks at all namespaces; this one was told to look at some",
        ),
        Watch::TooLarge => found(
            false,
            Reason::UsageReportTooLarge,
            "more runs than a ConfigMap can tell: protect fewer namespaces",
        ),
        Watch::Watching => match stale_remote(seen) {
            Some(message) => found(false, Reason::RemoteStale, &message),
            None => found(true, Reason::Watching, "runs that delete are answered what runs"),
        },
    }
}

/// What a replica says of another cluster that does not report.
fn stale_remote(seen: &Observed) -> Option<String> {
    let mut told = seen.reports.ready().flat_map(|report| &report.resources);
    let stale = told.find(|resource| {
        resource.kind == "Registry" && resource.reason.as_deref() == Some(Reason::RemoteStale.as_str())
    })?;
    Some(stale.message.clone().unwrap_or_else(|| "another cluster does not report what it runs".to_owned()))
}

/// Something was not listed.
#[derive(Debug)]
struct Unlisted {
    what: String,
    source: kube::Error,
}

/// Whether all that counts may be listed.
async fn look(client: &Client, scope: &Scope<'_>) -> Result<(), Unlisted> {
    let first = ListParams::default().limit(1);
    for namespace in &scope.namespaces {
        let all = [
            probe::<Pod>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::apps::v1::Deployment>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::apps::v1::StatefulSet>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::apps::v1::DaemonSet>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::apps::v1::ReplicaSet>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::core::v1::ReplicationController>(client, *namespace, &first).await,
            probe::<Job>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::batch::v1::CronJob>(client, *namespace, &first).await,
            probe::<k8s_openapi::api::apps::v1::ControllerRevision>(client, *namespace, &first).await,
        ];
        all.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

async fn gather(client: &Client, scope: &Scope<'_>) -> Result<Workloads, Unlisted> {
    let mut found = Workloads::default();
    for namespace in &scope.namespaces {
        list(client, *namespace, &mut found.pods).await?;
        list(client, *namespace, &mut found.deployments).await?;
        list(client, *namespace, &mut found.stateful_sets).await?;
        list(client, *namespace, &mut found.daemon_sets).await?;
        list(client, *namespace, &mut found.replica_sets).await?;
        list(client, *namespace, &mut found.replication_controllers).await?;
        list(client, *namespace, &mut found.jobs).await?;
        list(client, *namespace, &mut found.cron_jobs).await?;
        list(client, *namespace, &mut found.controller_revisions).await?;
    }
    Ok(found)
}

/// A kind of a workload.
trait Workload:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

impl<K> Workload for K where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
{
}

fn api<K: Workload>(client: &Client, namespace: Option<&str>) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn unlisted<K: Workload>(namespace: Option<&str>) -> impl FnOnce(kube::Error) -> Unlisted {
    let kind = K::plural(&()).into_owned();
    let what = match namespace {
        Some(namespace) => format!("{kind} in namespace {namespace}"),
        None => format!("{kind} in all namespaces"),
    };
    move |source| Unlisted { what, source }
}

async fn probe<K: Workload>(
    client: &Client,
    namespace: Option<&str>,
    first: &ListParams,
) -> Result<(), Unlisted> {
    api::<K>(client, namespace).list_metadata(first).await.map(drop).map_err(unlisted::<K>(namespace))
}

/// All of a kind, as of one moment that is not before now: no version is named, so no cache answers.
async fn list<K: Workload>(
    client: &Client,
    namespace: Option<&str>,
    into: &mut Vec<K>,
) -> Result<(), Unlisted> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api::<K>(client, namespace).list(&params).await.map_err(unlisted::<K>(namespace))?;
        into.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}
