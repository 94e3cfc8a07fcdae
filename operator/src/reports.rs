// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the replicas say about themselves, read from their operations ports and kept in memory.
//!
//! Guarantees: a reconciliation never waits for a replica it has heard of before; only an answer that changed wakes
//! it. A replica counts as unreachable when it failed to answer twice, so that one lost packet is no news.
//! Never: follows a redirect, reads more than a mebibyte, or waits longer than two seconds.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt as _, Stream, channel::mpsc, future::join_all, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use stowage_crds::report::Report;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::broadcast,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

/// Pause between two questions to a replica of a Registry that is as it should be.
const SETTLED: Duration = Duration::from_secs(30);
/// The same while something is to change.
const UNSETTLED: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: usize = 1 << 20;
/// So many registries with news are remembered for whoever is slow to hear.
const NEWS: usize = 1024;
/// So many failures in a row are an outage.
const OUTAGE: u32 = 2;

/// A Registry by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A replica to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the pod.
    pub pod: String,
    /// Address of its operations port.
    pub address: SocketAddr,
    /// Whether the pod is ready.
    pub ready: bool,
}

impl Target {
    /// The replica in a pod, if the pod has an address and is not on its way out.
    #[must_use]
    pub fn of(pod: &Pod, port: u16) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let running = pod.metadata.deletion_timestamp.is_none() && status.phase.as_deref() == Some("Running");
        let ip: IpAddr = status.pod_ip.as_deref().filter(|_| running)?.parse().ok()?;
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        Some(Self { pod: pod.name_any(), address: SocketAddr::new(ip, port), ready })
    }
}

/// What is known of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It said this.
    Report(Box<Report>),
    /// It does not answer.
    Unreachable,
    /// It did not answer the first time it was asked.
    Unknown,
}

/// A replica and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Name of the pod.
    pub pod: String,
    /// Whether the pod is ready.
    pub ready: bool,
    /// What it said.
    pub answer: Answer,
}

/// The replicas of a Registry at one moment, by pod name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(pub Vec<Replica>);

impl Snapshot {
    /// Reports of the ready replicas.
    pub fn ready(&self) -> impl Iterator<Item = &Report> {
        self.0.iter().filter(|replica| replica.ready).filter_map(Replica::report)
    }

    /// Reports of all replicas.
    pub fn all(&self) -> impl Iterator<Item = &Report> {
        self.0.iter().filter_map(Replica::report)
    }
}

impl Replica {
    /// What it said, if it said something.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match &self.answer {
            Answer::Report(report) => Some(report),
            Answer::Unreachable | Answer::Unknown => None,
        }
    }
}

#[derive(Debug)]
struct Known {
    target: Target,
    answer: Answer,
    misses: u32,
}

impl Known {
    /// Takes in one more answer, or none. True if what is known changed.
    fn hear(&mut self, heard: Option<Report>) -> bool {
        self.misses = if heard.is_some() { 0 } else { self.misses.saturating_add(1) };
        if (1..OUTAGE).contains(&self.misses) {
            return false;
        }
        let answer = heard.map_or(Answer::Unreachable, |report| Answer::Report(Box::new(report)));
        let changed = self.answer != answer;
        self.answer = answer;
        changed
    }
}

#[derive(Debug)]
struct Watched {
    replicas: BTreeMap<String, Known>,
    due: Instant,
    pause: Duration,
}

/// The reports of all registries.
#[derive(Debug, Clone)]
pub struct Reports {
    all: Arc<Mutex<HashMap<Key, Watched>>>,
    news: broadcast::Sender<Key>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { all: Arc::default(), news: broadcast::Sender::new(NEWS) }
    }
}

impl Reports {
    /// Says which replicas there are and returns what is known of them; those never asked are asked now.
    pub async fn observe(&self, key: &Key, targets: Vec<Target>) -> Snapshot {
        let new = self.retarget(key, targets);
        self.ask(key, new).await;
        self.snapshot(key)
    }

    /// What is known of the replicas of a Registry.
    #[must_use]
    pub fn known(&self, key: &Key) -> Snapshot {
        self.snapshot(key)
    }

    /// The registries of which an answer changed, from now on. One that is told of many at once may miss some.
    pub fn news(&self) -> impl Stream<Item = Key> + Send + 'static + use<> {
        stream::unfold(self.news.subscribe(), |mut news| async move {
            loop {
                match news.recv().await {
                    Ok(key) => return Some((key, news)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Says how often the replicas of a Registry are to be asked.
    pub fn pace(&self, key: &Key, settled: bool) {
        if let Some(watched) = self.lock().get_mut(key) {
            watched.pause = if settled { SETTLED } else { UNSETTLED };
            watched.due = watched.due.min(Instant::now() + watched.pause);
        }
    }

    /// Forgets a Registry.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Asks for ever, and names the registries of which an answer changed.
    pub async fn keep_asking(self, mut changed: mpsc::Sender<Key>) {
        loop {
            sleep(TICK).await;
            let rounds = self.due().into_iter().map(|(key, targets)| {
                let reports = self.clone();
                async move { reports.ask(&key, targets).await.then_some(key) }
            });
            for key in join_all(rounds).await.into_iter().flatten() {
                if changed.send(key).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Brings the list of replicas up to date; returns those of which nothing is known.
    fn retarget(&self, key: &Key, targets: Vec<Target>) -> Vec<Target> {
        let mut all = self.lock();
        let watched = all.entry(key.clone()).or_insert_with(|| Watched {
            replicas: BTreeMap::new(),
            due: Instant::now() + UNSETTLED,
            pause: UNSETTLED,
        });
        watched.replicas.retain(|pod, known| {
            targets.iter().any(|target| target.pod == *pod && target.address == known.target.address)
        });
        let mut new = Vec::new();
        for target in targets {
            if let Some(known) = watched.replicas.get_mut(&target.pod) {
                known.target = target;
            } else {
                new.push(target.clone());
                let known = Known { target: target.clone(), answer: Answer::Unknown, misses: 0 };
                watched.replicas.insert(target.pod, known);
            }
        }
        new
    }

    /// Asks some replicas of a Registry. True if something is known that was not before.
    async fn ask(&self, key: &Key, targets: Vec<Target>) -> bool {
        let answers = join_all(targets.into_iter().map(|target| async move {
            let heard = fetch(target.address).await;
            if let Err(error) = &heard {
                debug!(pod = %target.pod, error = %error, "replica gave no report");
            }
            (target.pod, heard.ok())
        }))
        .await;
        let mut all = self.lock();
        let Some(watched) = all.get_mut(key) else { return false };
        let mut changed = false;
        for (pod, heard) in answers {
            if let Some(known) = watched.replicas.get_mut(&pod) {
                changed |= known.hear(heard);
            }
        }
        drop(all);
        if changed {
            // Nobody need listen.
            drop(self.news.send(key.clone()));
        }
        changed
    }

    fn due(&self) -> Vec<(Key, Vec<Target>)> {
        let now = Instant::now();
        let mut all = self.lock();
        let due = all.iter_mut().filter(|(_, watched)| watched.due <= now);
        due.map(|(key, watched)| {
            watched.due = now + watched.pause;
            (key.clone(), watched.replicas.values().map(|known| known.target.clone()).collect())
        })
        .collect()
    }

    fn snapshot(&self, key: &Key) -> Snapshot {
        let all = self.lock();
        let replicas = all.get(key).into_iter().flat_map(|watched| watched.replicas.values());
        Snapshot(
            replicas
                .map(|known| Replica {
                    pod: known.target.pod.clone(),
                    ready: known.target.ready,
                    answer: known.answer.clone(),
                })
                .collect(),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Watched>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Error)]
enum FetchError {
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("cannot be reached")]
    Connect(#[from] std::io::Error),
    #[error("is no HTTP")]
    Http(#[from] hyper::Error),
    #[error("cannot be asked")]
    Request(#[from] http::Error),
    #[error("answers {0}")]
    Status(http::StatusCode),
    #[error("breaks off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("is no report")]
    Malformed(#[from] serde_json::Error),
}

async fn fetch(address: SocketAddr) -> Result<Report, FetchError> {
    timeout(PATIENCE, fetch_patiently(address)).await?
}

async fn fetch_patiently(address: SocketAddr) -> Result<Report, FetchError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get("/config")
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(FetchError::Body)?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    // The connection is driven beside the exchange and dropped with it.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use serde_json::json;

    use super::*;

    fn known() -> Known {
        let target = Target { pod: "a".into(), address: ([127, 0, 0, 1], 1).into(), ready: true };
        Known { target, answer: Answer::Unknown, misses: 0 }
    }

    fn report(version: &str) -> Report {
        serde_json::from_value(json!({ "version": version, "maxVersion": "1.0" })).unwrap()
    }

    #[test]
    fn one_lost_answer_is_no_news_and_two_are_an_outage() {
        let mut known = known();
        assert!(known.hear(Some(report("1"))));
        assert!(!known.hear(Some(report("1"))));
        assert!(!known.hear(None));
        assert!(known.hear(None));
        assert_eq!(known.answer, Answer::Unreachable);
        assert!(!known.hear(None));
        assert!(known.hear(Some(report("1"))));
    }

    #[tokio::test]
    async fn a_replica_is_asked_when_it_is_first_seen_and_forgotten_when_it_goes() {
        let app = Router::new()
            .route("/config", get(|| async { serde_json::to_string(&report("0.1.0")).unwrap() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = crate::ops::tasks::Tasks::default();
        tasks.spawn("replica", async move { axum::serve(listener, app).await.unwrap() });

        let key = Key { namespace: "ns".into(), name: "main".into() };
        let reports = Reports::default();
        let target = Target { pod: "a".into(), address, ready: true };
        let seen = reports.observe(&key, vec![target]).await;
        assert_eq!(seen.ready().map(|report| report.version.as_str()).collect::<Vec<_>>(), ["0.1.0"]);
        assert_eq!(reports.observe(&key, vec![]).await, Snapshot::default());
    }
}
