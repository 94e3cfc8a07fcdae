// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `serve`: opens what is configured, serves until it is told to stop, and ends in order.
//!
//! Ending: not ready → a moment for the network to notice → no new connections, uploads stop at what is durable,
//! downloads finish → what takes longer is cut. A second signal cuts at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use futures::future::BoxFuture;
use prometheus_client::registry::Registry as Counted;
use stowage_registry::Registry;
use stowage_registry::auth::Access;
use stowage_registry::config::{self, Config, Facts, Immutable, Live};
use stowage_registry::domain::{Immutability, ImmutabilityRule};
use stowage_registry::http::ops::OpsPort;
use stowage_registry::http::{Metrics as HttpMetrics, Settings, Site, connection, ops};
use stowage_registry::jobs::{self, Collector, Retainer, collect_by_schedule};
use stowage_registry::meta::Problem;
use stowage_registry::ops::health::{Dependency, Health};
use stowage_registry::ops::metrics::{
    CollectionMetrics, Metrics, MirrorMetrics, PromotionMetrics, RetentionMetrics, VerificationMetrics,
};
use stowage_registry::ops::run_requests::RunRequests;
use stowage_registry::ops::shutdown::{Notice, Signals, notify};
use stowage_registry::ops::tasks::Tasks;
use stowage_registry::ops::traces::Traces;
use stowage_registry::server::{Certificate, End, Listener};
use uuid::Uuid;

use super::open::{self, Stores};
use super::{Common, Failure, mirrors, promotions, replications, retention, usage, virtuals};

/// How often a database or bucket that does not answer is asked whether it does.
const PROBE: Duration = Duration::from_secs(5);
/// For what was told to end and is no transfer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    common: Common,
    /// Data port: `/v2/` and `/token`
    #[arg(long, value_name = "ADDR", env = "STOWAGE_LISTEN", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Operations port: health, metrics, configuration; without authentication
    #[arg(long, value_name = "ADDR", env = "STOWAGE_OPS_LISTEN", default_value = "127.0.0.1:5001")]
    ops_listen: SocketAddr,
    /// Admin port: `/admin/v1/`, for those with a name
    #[arg(long, value_name = "ADDR", env = "STOWAGE_ADMIN_LISTEN", default_value = "127.0.0.1:5002")]
    admin_listen: SocketAddr,
    /// Folder in which the operator says what runs
    #[arg(long, value_name = "DIR", env = "STOWAGE_USAGE_DIR", default_value = "/etc/stowage/usage")]
    usage_dir: PathBuf,
    /// Seconds between not being ready and taking no new connections
    #[arg(long, value_name = "SECONDS", env = "STOWAGE_DRAIN_DELAY", default_value_t = 5)]
    drain_delay: u64,
    /// Seconds that running transfers may take to finish
    #[arg(long, value_name = "SECONDS", env = "STOWAGE_DRAIN_TIMEOUT", default_value_t = 110)]
    drain_timeout: u64,
}

/// The parts of a process that serves.
struct Process {
    registry: Registry,
    access: Arc<Access>,
    certificate: Certificate,
    live: Arc<Live>,
    health: Arc<Health>,
    tasks: Tasks,
}

impl Serve {
    pub(super) async fn run(self, traces: Traces) -> Result<(), Failure> {
        let mut signals =
            Signals::listen().map_err(|source| Failure::System { what: "listen for signals", source })?;
        let sources = self.common.sources(Some(self.listen));
        let config = config::load(&sources)?;
        let (data, ops, admin) =
            tokio::try_join!(bind(self.listen), bind(self.ops_listen), bind(self.admin_listen))?;
        let addresses = (address(&data)?, address(&ops)?);

        let live = Arc::new(Live::new(config));
        let health = Arc::new(Health::new());
        let facts: Arc<ArcSwap<Facts>> = Arc::default();
        let mut counted = Counted::default();
        let http_metrics = HttpMetrics::register(&mut counted);
        let metrics = Metrics::register(&mut counted);
        let collection = CollectionMetrics::register(&mut counted);
        let kinds = Problem::ALL.map(Problem::name);
        let verification = VerificationMetrics::register(&mut counted, kinds);
        let mirroring = MirrorMetrics::register(&mut counted);
        let retaining = RetentionMetrics::register(&mut counted);
        let promoting = PromotionMetrics::register(&mut counted);
        let tasks = Tasks::new();
        let port = OpsPort {
            health: Arc::clone(&health),
            live: Arc::clone(&live),
            facts: Arc::clone(&facts),
            metrics: metrics.clone(),
            registry: Arc::new(counted),
        };
        // From here on the process can be asked how it is, while it opens the rest.
        let ops_end = End::default();
        let ops_router = ops::router(port);
        let ops_serving = tasks
            .spawn(ops.serve(move |peer| connection::service(ops_router.clone(), peer), ops_end.clone()));

        let current = live.current();
        let exporting =
            current.traces.as_ref().map(|settings| traces.start(settings, &metrics)).transpose()?;
        let stores = tokio::select! {
            stores = open::stores(&current, &self.common.data_dir, &metrics, &health) => stores?,
            signal = signals.next() => {
                tracing::info!(signal, "stopped before it served");
                return Ok(());
            }
        };
        facts.store(Arc::new(facts_of(&stores).await));
        let counting = (http_metrics, collection.clone(), mirroring);
        let process = Process::open(live, health, tasks, counting, &stores).await?;
        facts.store(Arc::new(facts_of(&stores).await));
        process.collect(&stores, collection, Arc::clone(&facts), &self.usage_dir);
        let (registry, live) = (process.registry.clone(), Arc::clone(&process.live));
        replications::keep(registry, live, Arc::clone(&facts), &process.tasks);
        let retainer = Retainer::new(Arc::clone(&stores.meta), Arc::clone(&stores.blobs), retaining);
        let (live, meta) = (Arc::clone(&process.live), Arc::clone(&stores.meta));
        let (folder, asked) = (self.usage_dir.clone(), process.registry.run_requests().policies.clone());
        retention::keep(retainer, live, meta, folder, Arc::clone(&facts), asked, &process.tasks);
        promotions::keep(&process.registry, Arc::clone(&facts), promoting, &process.tasks);
        process.report(&stores, Arc::clone(&facts));
        process.watch(sources, &stores, facts, config::LOOK);
        process.scrub(&stores, verification);

        let end = End::default();
        let serving = process.serve(data, admin, &end);
        process.health.serve();
        notify(Notice::Ready);
        announce(&current, addresses);
        self.until_stopped(&mut signals, &process, &end, serving).await;
        process.tasks.stop();
        process.registry.close().await;
        ops_end.drain.cancel();
        ops_end.cut.cancel();
        ops_serving.abort();
        // All requests have ended, and with them their spans.
        let sent = async {
            if let Some(exporting) = exporting {
                exporting.finish(PATIENCE).await;
            }
        };
        tokio::join!(process.tasks.wait(PATIENCE), sent);
        open::hand_over(stores.folder.as_deref()).await;
        tracing::info!("stopped");
        Ok(())
    }

    async fn until_stopped(
        &self,
        signals: &mut Signals,
        process: &Process,
        end: &End,
        serving: impl Future<Output = ()>,
    ) {
        let signal = signals.next().await;
        tracing::info!(signal, "stopping");
        process.health.drain();
        end.leave.cancel();
        notify(Notice::Stopping);
        let noticed = tokio::time::sleep(Duration::from_secs(self.drain_delay));
        let mut hurry = tokio::select! { () = noticed => false, _ = signals.next() => true };
        end.drain.cancel();
        process.registry.stop();
        tokio::pin!(serving);
        if !hurry {
            let time_is_up = tokio::time::sleep(Duration::from_secs(self.drain_timeout));
            hurry = tokio::select! {
                () = serving.as_mut() => return,
                () = time_is_up => true,
                _ = signals.next() => true,
            };
        }
        if hurry {
            tracing::warn!("transfers that still run are cut");
        }
        end.cut.cancel();
        serving.await;
    }
}

impl Process {
    /// Over these stores, as the configuration in force says.
    async fn open(
        live: Arc<Live>,
        health: Arc<Health>,
        tasks: Tasks,
        (metrics, collection, mirroring): (HttpMetrics, CollectionMetrics, MirrorMetrics),
        stores: &Stores,
    ) -> Result<Self, Failure> {
        let current = live.current();
        let access = Arc::new(Access::new(current.access.clone()));
        let registry = Registry::builder()
            .limits(open::limits(&current))
            .access(Arc::clone(&access))
            .settings(settings(&current))
            .metrics(metrics)
            .collection_metrics(collection)
            .mirror_metrics(mirroring)
            .max_requests(current.limits.max_concurrent_requests)
            .over(Arc::clone(&stores.meta), Arc::clone(&stores.blobs))
            .await?;
        apply_to(&registry, &current);
        let certificate = Certificate::default();
        certificate.store(current.tls.clone());
        Ok(Self { registry, access, certificate, live, health, tasks })
    }

    /// Serves both ports in the background; the future ends when the last connection has.
    fn serve(&self, data: Listener, admin: Listener, end: &End) -> impl Future<Output = ()> + use<> {
        let (router, admin_router) = (self.registry.router(), self.registry.admin_router());
        let data = data.with_certificate(Arc::clone(&self.certificate));
        let admin = admin.with_certificate(Arc::clone(&self.certificate));
        let data = data.serve(move |peer| connection::service(router.clone(), peer), end.clone());
        let admin = admin.serve(move |peer| connection::service(admin_router.clone(), peer), end.clone());
        let (data, admin) = (self.tasks.spawn(data), self.tasks.spawn(admin));
        async move {
            for ended in [data.await, admin.await] {
                if let Err(error) = ended {
                    tracing::error!(%error, "a listener broke off");
                }
            }
        }
    }

    /// Collects in this process when the configuration says so, and reports it.
    fn collect(
        &self,
        stores: &Stores,
        metrics: CollectionMetrics,
        facts: Arc<ArcSwap<Facts>>,
        usage_dir: &Path,
    ) {
        let (live, stopping) = (Arc::clone(&self.live), self.tasks.stopping());
        let (meta, folder) = (Arc::clone(&stores.meta), usage_dir.to_owned());
        let collector = Collector::new(Arc::clone(&meta), Arc::clone(&stores.blobs), metrics);
        let asked = self.registry.run_requests().collections.clone();
        asked.offer([RunRequests::COLLECTION.to_owned()]);
        self.tasks.spawn(async move {
            let told = |run: &_| drop(facts.rcu(|facts| facts.with_collection(run)));
            let schedule = || live.current().collection.schedule.clone();
            let evicting =
                || -> BoxFuture<'_, _> { Box::pin(usage::evicting(&live, &*meta, &folder, &facts)) };
            collect_by_schedule(collector, schedule, asked, evicting, told, stopping).await;
        });
    }

    /// Tells how the upstreams of mirrors are, whether other clusters report what they run, and which virtual
    /// repositories hide what was here before.
    fn report(&self, stores: &Stores, facts: Arc<ArcSwap<Facts>>) {
        let (registry, stopping) = (self.registry.clone(), self.tasks.stopping());
        let (live, meta) = (Arc::clone(&self.live), Arc::clone(&stores.meta));
        self.tasks.spawn(async move {
            let mut hiding = virtuals::Hiding::default();
            let mut remotes = usage::Remotes::default();
            while stopping.run_until_cancelled(tokio::time::sleep(PROBE)).await.is_some() {
                let mut troubles = mirrors::troubles(&registry.mirrors());
                troubles.extend(hiding.troubles(&registry).await);
                troubles.extend(remotes.trouble(&live, &*meta).await);
                if facts.load().troubles != troubles {
                    facts.rcu(|facts| Facts { troubles: troubles.clone(), ..Facts::clone(facts) });
                }
            }
        });
    }

    /// Looks for damage in the background, as the configuration in force says.
    fn scrub(&self, stores: &Stores, metrics: VerificationMetrics) {
        let (live, stopping) = (Arc::clone(&self.live), self.tasks.stopping());
        let (meta, blobs) = (Arc::clone(&stores.meta), Arc::clone(&stores.blobs));
        let settings = move || live.current().scrub;
        self.tasks.spawn(async move {
            jobs::keep_scrubbed(meta, blobs, settings, metrics, stopping).await;
        });
    }

    /// Follows the files of the configuration, and whether database and bucket answer.
    fn watch(&self, sources: config::Sources, stores: &Stores, facts: Arc<ArcSwap<Facts>>, look: Duration) {
        let stopping = self.tasks.stopping();
        let (registry, access) = (self.registry.clone(), Arc::clone(&self.access));
        let (certificate, live) = (Arc::clone(&self.certificate), Arc::clone(&self.live));
        let apply = move |config: &Config| {
            access.swap(config.access.clone());
            apply_to(&registry, config);
            // Whether there is TLS at all is decided at the start.
            if certificate.load().is_some() && config.tls.is_some() {
                certificate.store(config.tls.clone());
            }
        };
        self.tasks.spawn(async move { config::watch(&live, &sources, &apply, &stopping, look).await });

        let (health, stopping) = (Arc::clone(&self.health), self.tasks.stopping());
        let meta = Arc::clone(&stores.meta);
        self.tasks.spawn(async move {
            let whose = |registry: Uuid| drop(facts.rcu(|facts| facts.of(registry)));
            let ask = || open::ask_database(&*meta, &whose);
            health.watch(Dependency::Database, PROBE, ask, stopping).await;
        });
        let (health, stopping) = (Arc::clone(&self.health), self.tasks.stopping());
        let blobs = Arc::clone(&stores.blobs);
        self.tasks.spawn(async move {
            health.watch(Dependency::Storage, PROBE, || open::ask(&*blobs), stopping).await;
        });
    }
}

/// What of a configuration a registry that serves takes over at once.
pub(super) fn apply_to(registry: &Registry, config: &Config) {
    registry.apply(settings(config), config.strict_indexes.clone());
    registry.set_mirrors(mirrors::settings(&config.mirrors));
    registry.set_virtuals(virtuals::settings(config));
    registry.domain().set_immutability(immutability(&config.immutability));
    registry.domain().set_promotions(promotions::rules(&config.promotions, config.mode));
    registry.set_copied(config.copied.clone());
    let mirrors = replications::startable(config).map(|mirror| mirror.name.clone());
    registry.run_requests().mirrors.offer(mirrors);
    registry.run_requests().policies.offer(config.retention.due.iter().map(|(policy, _)| policy.clone()));
    registry.set_limits(open::limits(config), config.limits.max_concurrent_requests);
}

/// Rules of a configuration, as the domain has them.
pub(super) fn immutability(rules: &[Immutable]) -> Immutability {
    let rule = |rule: &Immutable| ImmutabilityRule {
        name: rule.name.clone(),
        repositories: rule.repositories.clone(),
        tags: rule.tags.clone(),
        signature_tags: rule.signature_tags,
    };
    Immutability(rules.iter().map(rule).collect())
}

async fn bind(address: SocketAddr) -> Result<Listener, Failure> {
    Listener::bind(address).await.map_err(|source| Failure::Listen { address, source })
}

fn address(listener: &Listener) -> Result<SocketAddr, Failure> {
    listener.address().map_err(|source| Failure::System { what: "tell a port's address", source })
}

fn settings(config: &Config) -> Settings {
    Settings {
        site: Site { hosts: config.hosts.clone() },
        mode: config.mode,
        redirect: config.redirect.clone(),
        reporters: config.usage.iter().flat_map(|usage| usage.remotes.clone()).collect(),
    }
}

async fn facts_of(stores: &Stores) -> Facts {
    let envelope = stores.meta.envelope().await.ok().flatten();
    let schema = Some((stores.schema, [stores.schema; 2]));
    Facts { registry_id: envelope.map(|envelope| envelope.registry.to_string()), schema, ..Facts::default() }
}

/// One line that says who started what.
fn announce(config: &Config, (data, ops): (SocketAddr, SocketAddr)) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        registry = config.registry,
        listen = %data,
        ops_listen = %ops,
        tls = config.tls.is_some(),
        pid = std::process::id(),
        uid = rustix::process::getuid().as_raw(),
        command = "serve",
        config.hash = config.hash,
        "serving"
    );
}

#[cfg(test)]
mod tests;
