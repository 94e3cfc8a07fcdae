// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every reconciliation shares.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client,
    core::DeserializeGuard,
    runtime::{events::Recorder, reflector::Store},
};
use stowage_crds::Registry;
use tokio::{sync::watch, time::Instant};

use crate::{
    apis::Apis,
    controllers::registry::validate::Settings,
    ops::metrics::Metrics,
    policy::Failures,
    reports::{Key, Reports},
};

/// What every reconciliation shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the operator was started with.
    pub settings: Settings,
    /// Whether it looks at all namespaces.
    pub watches_all: bool,
    /// The optional APIs of the cluster.
    pub apis: watch::Receiver<Apis>,
    /// What the replicas say.
    pub reports: Reports,
    /// Where events go.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Failures in a row.
    pub failures: Failures<(&'static str, Key)>,
    /// Jobs that failed, and since when this process knows.
    pub failed_jobs: FirstSeen<String>,
    /// Registries, by uid, whose token key this process has made or found.
    pub token_keys: Once<String>,
    /// The present, for people.
    pub now: fn() -> Timestamp,
    /// Every Registry in sight.
    pub registries: Store<DeserializeGuard<Registry>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Context {
    /// Every Registry in sight that can be read.
    #[must_use]
    pub fn registries(&self) -> Vec<Arc<Registry>> {
        let readable = |guard: &Arc<DeserializeGuard<Registry>>| guard.0.as_ref().ok().cloned().map(Arc::new);
        self.registries.state().iter().filter_map(readable).collect()
    }

    /// The objects of a kind in a namespace.
    #[must_use]
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Remembers when something was first seen, on the monotonic clock.
#[derive(Debug)]
pub struct FirstSeen<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for FirstSeen<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> FirstSeen<K> {
    /// How much of `delay` is left since `key` was first seen; nothing when it is over, and then it is forgotten.
    pub fn left(&self, key: K, delay: Duration) -> Option<Duration> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = seen.get(&key).map_or(Duration::ZERO, Instant::elapsed);
        if age >= delay {
            seen.remove(&key);
            return None;
        }
        seen.entry(key).or_insert_with(Instant::now);
        Some(delay.saturating_sub(age))
    }
}

/// Remembers what was done already.
#[derive(Debug)]
pub struct Once<K>(Mutex<HashSet<K>>);

impl<K> Default for Once<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Once<K> {
    /// Was it done?
    pub fn is_done(&self, key: &K) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// It is done now.
    pub fn done(&self, key: K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// It is to be done again.
    pub fn undo(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delay_runs_from_the_first_sight() {
        let seen = FirstSeen::default();
        let minute = Duration::from_mins(1);
        assert_eq!(seen.left("job", minute), Some(minute));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(seen.left("job", minute), Some(Duration::from_secs(40)));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(seen.left("job", minute), None);
    }
}
