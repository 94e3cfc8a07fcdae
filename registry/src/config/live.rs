// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The configuration in force, and what a replica tells about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use stowage_crds::conditions::Reason;
use stowage_crds::document::{Document, DocumentVersion, Entry};
use stowage_crds::report::{Check, Checks, Rejection, Report, ResourceReport, SchemaReport};
use stowage_crds::{Kind, LastPromotion, Outcome, RegistrySpec, Storage, Summary, Termination};
use stowage_oci::Name;
use uuid::Uuid;

use super::Config;
use crate::ops::health::{Health, State};

/// The configuration in force. Shared by the whole process.
#[derive(Debug)]
pub struct Live {
    started: Arc<Config>,
    current: ArcSwap<Config>,
    rejected: ArcSwapOption<Rejected>,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The hash of the compiled document, if it is one.
    pub hash: Option<String>,
    /// Why, for a human.
    pub message: String,
}

/// What a report says beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Owner of the bucket's prefix.
    pub registry_id: Option<String>,
    /// The schema found, and the lowest and the highest that this program can work with.
    pub schema: Option<(i32, [i32; 2])>,
    /// Whether collection must wait until the database is trusted; `None` when it is not known.
    pub collector_frozen: Option<bool>,
    /// The newest run of each command that this process starts by itself.
    pub runs: Vec<Summary>,
    /// The newest run of each mirror that this process started by itself, by name.
    pub syncs: BTreeMap<String, Termination>,
    /// The newest run of each retention policy that this process started by itself, by name.
    pub retentions: BTreeMap<String, Termination>,
    /// What this process has promoted last without being asked, by policy.
    pub promotions: BTreeMap<String, LastPromotion>,
    /// Resources that were found not to work while serving.
    pub troubles: Vec<Trouble>,
    /// The run of this process that waits to be told what the cluster runs.
    pub usage_wanted: Option<String>,
}

/// A resource that does not work as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Reason,
    /// Why, for a human; without digits that move by themselves.
    pub message: String,
}

/// What can be wrong with the upstream of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorFault {
    /// It does not answer.
    UpstreamUnreachable,
    /// It was asked too often.
    RateLimited,
    /// It does not take our credential.
    AuthenticationFailed,
    /// Its certificate is not to be trusted.
    CertificateInvalid,
    /// It is no registry.
    NotARegistry,
}

impl Trouble {
    /// The upstream of the mirror `name` is not in order.
    #[must_use]
    pub fn of_mirror(name: &str, fault: MirrorFault, message: String) -> Self {
        let reason = match fault {
            MirrorFault::UpstreamUnreachable => Reason::UpstreamUnreachable,
            MirrorFault::RateLimited => Reason::RateLimited,
            MirrorFault::AuthenticationFailed => Reason::AuthenticationFailed,
            MirrorFault::CertificateInvalid => Reason::CertificateInvalid,
            MirrorFault::NotARegistry => Reason::NotARegistry,
        };
        Self { kind: Kind::Mirror, name: name.to_owned(), reason, message }
    }
}

impl Trouble {
    /// The path of the virtual repository `name` hides repositories, `hidden` among them.
    #[must_use]
    pub fn of_hidden(name: &str, hidden: &Name) -> Self {
        let message =
            format!("its path hides repositories that were pushed before it was made, {hidden} among them");
        let reason = Reason::PathHidesRepositories;
        Self { kind: Kind::VirtualRepository, name: name.to_owned(), reason, message }
    }
}

impl Trouble {
    /// The cluster `remote` does not report to the registry `name` what it runs.
    #[must_use]
    pub fn of_remote(name: &str, remote: &str) -> Self {
        let message = format!("cluster {remote:?} has not reported what it runs within its maxAge");
        Self { kind: Kind::Registry, name: name.to_owned(), reason: Reason::RemoteStale, message }
    }
}

impl Facts {
    /// The same while this run waits to be told what the cluster runs; `None`: none does.
    #[must_use]
    pub fn wanting_usage(&self, run: Option<&str>) -> Self {
        Self { usage_wanted: run.map(str::to_owned), ..self.clone() }
    }

    /// The same, where the prefix is this registry's.
    #[must_use]
    pub fn of(&self, registry: Uuid) -> Self {
        Self { registry_id: Some(registry.to_string()), ..self.clone() }
    }

    /// The same after a collection that this process started. One that failed, or refused for another reason, says
    /// nothing of the database.
    #[must_use]
    pub fn with_collection(&self, run: &Summary) -> Self {
        let collector_frozen = match run.result {
            Outcome::Succeeded => Some(false),
            Outcome::Refused if run.reason.as_deref() == Some(Reason::CollectorFrozen.as_str()) => Some(true),
            Outcome::Refused | Outcome::Failed => self.collector_frozen,
        };
        Self { runs: vec![run.clone()], collector_frozen, ..self.clone() }
    }
}

impl Facts {
    /// The same after a run of the mirror that this process started.
    #[must_use]
    pub fn with_sync(&self, mirror: &str, run: &Termination) -> Self {
        let mut facts = self.clone();
        facts.syncs.insert(mirror.to_owned(), run.clone());
        facts
    }

    /// The same after a promotion by the policy that this process began.
    #[must_use]
    pub fn with_promotion(&self, policy: &str, promotion: &LastPromotion) -> Self {
        let mut facts = self.clone();
        facts.promotions.insert(policy.to_owned(), promotion.clone());
        facts
    }

    /// The same after a run of the retention policy that this process started.
    #[must_use]
    pub fn with_retention(&self, policy: &str, run: &Termination) -> Self {
        let mut facts = self.clone();
        facts.retentions.insert(policy.to_owned(), run.clone());
        facts
    }
}

impl Live {
    /// The configuration that the process started with.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let started = Arc::new(config);
        let current = ArcSwap::new(Arc::clone(&started));
        Self { started, current, rejected: ArcSwapOption::empty() }
    }

    /// What holds now.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Why the newest configuration was refused, if it was.
    #[must_use]
    pub fn rejected(&self) -> Option<Arc<Rejected>> {
        self.rejected.load_full()
    }

    pub(super) fn put(&self, config: Arc<Config>) {
        self.current.store(config);
        self.rejected.store(None);
    }

    /// Whether this is another refusal than the last one.
    pub(super) fn reject(&self, rejected: Rejected) -> bool {
        let now = Some(Arc::new(rejected));
        self.rejected.swap(now.clone()) != now
    }

    /// Fields whose change takes effect at the next start only.
    #[must_use]
    pub fn pending_restart(&self) -> Vec<String> {
        let current = self.current();
        pending(&self.started.document.registry.spec, &current.document.registry.spec)
    }

    /// The body of `GET /config`.
    #[must_use]
    pub fn report(&self, health: &Health, facts: &Facts) -> serde_json::Value {
        let current = self.current();
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            registry_id: facts.registry_id.clone(),
            hash: Some(current.hash.clone()),
            max_version: DocumentVersion::SUPPORTED,
            rejected: self.rejected().map(|rejected| {
                let Rejected { hash, message } = Rejected::clone(&rejected);
                Rejection { hash, message }
            }),
            pending_restart: self.pending_restart(),
            schema: facts.schema.map(|(applied, supported)| SchemaReport { applied, supported }),
            checks: Checks {
                storage: check(health.storage()),
                database: check(health.database()),
                collector: facts.collector_frozen.map_or(Check::Unknown, frozen),
            },
            runs: facts.runs.clone(),
            usage_wanted: facts.usage_wanted.clone(),
            resources: resources(&current, facts),
        };
        serde_json::to_value(report).expect("a report is JSON")
    }
}

const fn frozen(frozen: bool) -> Check {
    if frozen { Check::Frozen } else { Check::Ok }
}

const fn check(state: State) -> Check {
    match state {
        State::Unknown => Check::Unknown,
        State::Up => Check::Ok,
        State::Down => Check::Unreachable,
        State::Empty => Check::Empty,
    }
}

/// Every resource of the document, with the first trouble that is known of it: what the configuration lacks before
/// what serving found.
fn resources(config: &Config, facts: &Facts) -> Vec<ResourceReport> {
    let Document {
        access_policies,
        mirrors,
        virtual_repositories,
        promotion_policies,
        retention_policies,
        ..
    } = &config.document;
    let troubles: Vec<&Trouble> = config.troubles.iter().chain(&facts.troubles).collect();
    let policies = access_policies.iter().map(|entry| resource(Kind::AccessPolicy, entry, &troubles));
    let mirrors = mirrors.iter().map(|entry| ResourceReport {
        run: facts.syncs.get(&entry.name).cloned(),
        ..resource(Kind::Mirror, entry, &troubles)
    });
    let virtuals = virtual_repositories.iter();
    let virtuals = virtuals.map(|entry| resource(Kind::VirtualRepository, entry, &troubles));
    let promotions = promotion_policies.iter();
    let promotions = promotions.map(|entry| ResourceReport {
        promoted: facts.promotions.get(&entry.name).cloned(),
        ..resource(Kind::PromotionPolicy, entry, &troubles)
    });
    let own = troubles.iter().filter(|trouble| trouble.kind == Kind::Registry);
    let own = own.map(|trouble| ResourceReport {
        kind: trouble.kind.as_str().to_owned(),
        name: trouble.name.clone(),
        generation: 0,
        reason: Some(trouble.reason.to_string()),
        message: Some(trouble.message.clone()),
        run: None,
        promoted: None,
    });
    let retention = retention_policies.iter().map(|entry| ResourceReport {
        run: facts.retentions.get(&entry.name).cloned(),
        ..resource(Kind::RetentionPolicy, entry, &troubles)
    });
    policies.chain(mirrors).chain(virtuals).chain(promotions).chain(own).chain(retention).collect()
}

fn resource<S>(kind: Kind, entry: &Entry<S>, troubles: &[&Trouble]) -> ResourceReport {
    let trouble = troubles.iter().find(|trouble| trouble.kind == kind && trouble.name == entry.name);
    ResourceReport {
        kind: kind.as_str().to_owned(),
        name: entry.name.clone(),
        generation: entry.generation,
        reason: trouble.map(|trouble| trouble.reason.to_string()),
        message: trouble.map(|trouble| trouble.message.clone()),
        run: None,
        promoted: None,
    }
}

/// Who is redirected can change at any time.
fn without_redirect(storage: &Storage) -> Storage {
    let mut storage = storage.clone();
    if let Some(s3) = &mut storage.s3 {
        s3.redirect = None;
    }
    storage
}

/// What a process cannot swap while it runs.
fn pending(started: &RegistrySpec, now: &RegistrySpec) -> Vec<String> {
    let changed = [
        ("spec.storage", without_redirect(&started.storage) != without_redirect(&now.storage)),
        ("spec.database", started.database != now.database),
        ("spec.tls", started.tls.is_some() != now.tls.is_some()),
        ("spec.telemetry", started.telemetry != now.telemetry),
        (
            "spec.garbageCollection.gracePeriod",
            started.garbage_collection().grace_period != now.garbage_collection().grace_period,
        ),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(path, _)| path.to_owned()).collect()
}
