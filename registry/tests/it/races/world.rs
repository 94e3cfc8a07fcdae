// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry in small: one database, one bucket, many replicas, and everybody who works with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stowage_registry::blobs::Store;
use stowage_registry::domain::{Domain, Limits, ensure_owner};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::faulty::Faulty;
use stowage_registry::ops::tasks::Tasks;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bucket::{Bucket, Manners};
use super::database::{Database, Disaster, Kind};
use super::history::History;
use super::promotions::Promised;
use super::releases::{self, Releases};
use super::times::Times;
use super::tripwire::Tripwire;

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) kind: Kind,
    pub(super) times: Times,
    pub(super) manners: Manners,
    pub(super) part_size: u64,
    /// Of each request, that whoever makes it dies of it.
    pub(super) crashes: f64,
    pub(super) seed: u64,
    /// Statements that break the database on purpose.
    pub(super) sabotage: &'static [&'static str],
    /// Disasters strike.
    pub(super) loses_rows: bool,
    /// What a line changes in the statements of replicas.
    pub(super) rewrite: Option<fn(&str) -> String>,
    /// For how long clients believe they may rely on what they were told exists.
    pub(super) promised: Duration,
}

/// An incarnation: from one disaster that ends all processes to the next.
#[derive(Clone)]
struct Life {
    stores: Vec<Arc<dyn MetaStore>>,
    over: CancellationToken,
}

const REPLICAS: usize = 3;
/// How long an upload lives without progress.
const UPLOAD_EXPIRY: Duration = Duration::from_secs(2);

/// Everything that all share.
pub(super) struct World {
    pub(super) setting: Setting,
    pub(super) database: Arc<Database>,
    pub(super) bucket: Arc<Bucket>,
    pub(super) history: History,
    pub(super) releases: Releases,
    pub(super) promised: Promised,
    pub(super) registry: Uuid,
    pub(super) stop: CancellationToken,
    life: watch::Sender<Option<Life>>,
    /// Whoever works holds it for reading.
    at_work: RwLock<()>,
    counts: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
    began: Instant,
}

impl World {
    pub(super) async fn new(setting: &Setting) -> Arc<Self> {
        let setting = *setting;
        let database = Database::new(setting.kind, setting.sabotage, setting.rewrite).await;
        let bucket = Bucket::new(setting.part_size, setting.manners, setting.seed ^ 0xb0c4);
        let stores = database.stores(REPLICAS, &setting.times).await;
        let store = bucket.calm();
        let registry = ensure_owner(&*store, &*stores[0]).await.unwrap();
        let life = Life { stores, over: CancellationToken::new() };
        Arc::new(Self {
            setting,
            database,
            bucket,
            history: History::new(),
            releases: Releases::default(),
            promised: Promised::default(),
            registry,
            stop: CancellationToken::new(),
            life: watch::Sender::new(Some(life)),
            at_work: RwLock::default(),
            counts: Mutex::default(),
            violations: Mutex::default(),
            began: Instant::now(),
        })
    }

    pub(super) fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&self, what: &str, number: u64) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += number;
    }

    pub(super) fn counted(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    pub(super) fn violation(&self, what: impl Into<String>) {
        let (what, at) = (what.into(), self.began.elapsed());
        self.violations.lock().unwrap().push(format!("{at:?}: {what}"));
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// All counts in a line.
    pub(super) fn summary(&self) -> String {
        let mut line =
            format!("{:?}, seed {}, {:?}", self.setting.kind, self.setting.seed, self.began.elapsed());
        for (what, number) in &*self.counts.lock().unwrap() {
            write!(line, ", {what} {number}").unwrap();
        }
        line
    }

    /// Does `step` again and again as one process, until the end of the run. Where it dies in the middle, or
    /// with the database, it is begun anew.
    pub(super) async fn take_part(
        self: Arc<Self>,
        number: usize,
        crashes: f64,
        mut step: impl for<'a> FnMut(&'a mut Actor) -> BoxFuture<'a, ()> + Send,
    ) {
        let mut lives = self.life.subscribe();
        let mut random = StdRng::seed_from_u64(self.setting.seed.wrapping_mul(1000) + number as u64);
        loop {
            let life = tokio::select! {
                () = self.stop.cancelled() => return,
                life = lives.wait_for(Option::is_some) => match life {
                    Ok(life) => life.clone().expect("it was waited for"),
                    Err(_) => return,
                },
            };
            let mut actor = self.actor(&life, number, crashes, &mut random);
            drop(life.stores);
            loop {
                let present = tokio::select! {
                    biased;
                    () = life.over.cancelled() => break,
                    () = self.stop.cancelled() => return,
                    present = self.at_work.read() => present,
                };
                tokio::select! {
                    biased;
                    () = life.over.cancelled() => break,
                    () = step(&mut actor) => {}
                }
                drop(present);
                if actor.reborn {
                    actor = self.reborn(actor, number, crashes, &mut random);
                }
                // Whoever waits to see all at rest must have its turn.
                tokio::task::yield_now().await;
            }
            drop(actor);
            lives.mark_unchanged();
            if lives.borrow().as_ref().is_some_and(|life| life.over.is_cancelled())
                && lives.changed().await.is_err()
            {
                return;
            }
        }
    }

    fn reborn(&self, old: Actor, number: usize, crashes: f64, random: &mut StdRng) -> Actor {
        let life = self.life.borrow().clone();
        match life {
            Some(life) => {
                drop(old);
                self.actor(&life, number, crashes, random)
            }
            None => old,
        }
    }

    /// Somebody for a single work, who does not die.
    pub(super) async fn somebody(&self) -> Actor {
        let life = self.life.subscribe().wait_for(Option::is_some).await.unwrap().clone();
        self.actor_before(&life.unwrap(), 0, self.bucket.calm(), &Tripwire::new(0.0, 0), self.setting.seed)
    }

    /// Somebody who does not die, and can be held at a request.
    pub(super) async fn somebody_held(&self) -> Actor {
        let life = self.life.subscribe().wait_for(Option::is_some).await.unwrap().clone();
        self.actor(&life.unwrap(), 0, 0.0, &mut StdRng::seed_from_u64(self.setting.seed))
    }

    fn actor(&self, life: &Life, number: usize, crashes: f64, random: &mut StdRng) -> Actor {
        let wire = Tripwire::new(crashes, random.random());
        self.actor_before(life, number, self.bucket.view(&wire), &wire, random.random())
    }

    fn actor_before(
        &self,
        life: &Life,
        number: usize,
        store: Arc<dyn Store>,
        wire: &Tripwire,
        seed: u64,
    ) -> Actor {
        let (meta, faults) = Faulty::over(Arc::clone(&life.stores[number % life.stores.len()]));
        wire.watch(&faults);
        let meta: Arc<dyn MetaStore> = Arc::new(meta);
        let limits = Limits {
            trash_retention: self.setting.times.trash,
            upload_expiry: UPLOAD_EXPIRY,
            ..Limits::default()
        };
        let domain = Domain::new(Arc::clone(&meta), Arc::clone(&store), limits, Tasks::new());
        domain.set_strict_indexes(STRICTS.map(|name| name.parse().unwrap()).to_vec());
        domain.set_immutability(releases::rules());
        let random = StdRng::seed_from_u64(seed);
        Actor { number, domain, meta, store, wire: wire.clone(), random, reborn: false }
    }

    /// Waits until nobody is at work, and keeps it so for as long as the answer lives.
    pub(super) async fn at_rest(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.at_work.write().await
    }

    /// Strikes, with everybody at work.
    pub(super) async fn strike(&self, disaster: Disaster) {
        self.count(match disaster {
            Disaster::Failover => "failovers",
            Disaster::Deep => "deep failovers",
            Disaster::Rebuild => "losses of all",
        });
        let epochs_return = self.setting.manners.hides_epochs;
        match self.database.kind() {
            Kind::Postgres => {
                self.database.strike(disaster, self.registry, epochs_return).await;
            }
            Kind::Sqlite => {
                let life = self.life.send_replace(None).expect("disasters come one after the other");
                life.over.cancel();
                drop(life);
                self.database.strike(disaster, self.registry, epochs_return).await;
                let stores = self.database.stores(REPLICAS, &self.setting.times).await;
                self.life.send_replace(Some(Life { stores, over: CancellationToken::new() }));
            }
        }
    }
}

/// One where indexes must have their children.
pub(super) const STRICT: &str = "strict";
/// Where they need not.
pub(super) const LOOSE: &str = "loose/one";
/// Where promotions go to. There they must have them, too.
pub(super) const PROD: &str = "prod";
/// Where indexes must have their children.
pub(super) const STRICTS: [&str; 2] = [STRICT, PROD];

/// One process: a client with its replica, a collector, a walker.
pub(super) struct Actor {
    pub(super) number: usize,
    pub(super) domain: Domain,
    pub(super) meta: Arc<dyn MetaStore>,
    pub(super) store: Arc<dyn Store>,
    pub(super) wire: Tripwire,
    pub(super) random: StdRng,
    /// The process ends with this step, and the next has no memory of it.
    pub(super) reborn: bool,
}

impl Actor {
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    pub(super) async fn think(&mut self, longest: Duration) {
        let time = longest.mul_f64(self.random.random());
        tokio::time::sleep(time).await;
    }
}
