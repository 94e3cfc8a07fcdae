// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A replica that serves, and verifications beside it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt as _;
use stowage_registry::domain::{Verified, VerifyOptions};
use stowage_registry::jobs::{Collector, VerifyError, verify};
use stowage_registry::key::{Generation, Key};
use stowage_registry::meta::Finding;
use stowage_registry::ops::clock;
use stowage_registry::ops::metrics::CollectionMetrics;

use crate::rebuild::stand::{Replica, Stand};

pub(super) const SHALLOW: VerifyOptions =
    VerifyOptions { deep: false, repair: false, bytes_per_second: None, requests_per_second: None };
pub(super) const DEEP: VerifyOptions = VerifyOptions { deep: true, ..SHALLOW };
pub(super) const REPAIR: VerifyOptions = VerifyOptions { repair: true, ..SHALLOW };
pub(super) const DEEP_REPAIR: VerifyOptions = VerifyOptions { repair: true, ..DEEP };

pub(super) struct Site {
    pub(super) stand: Stand,
    pub(super) replica: Replica,
}

pub(super) fn fresh() -> Generation {
    Generation::at(clock::milliseconds())
}

impl Site {
    pub(super) async fn on(stand: Stand) -> Self {
        let replica = Box::pin(stand.start()).await;
        replica.walked().await;
        Self { stand, replica }
    }

    /// What is wrong, as `problem key`, sorted; those that were repaired end in `!`.
    pub(super) async fn found(&self, options: VerifyOptions) -> Vec<String> {
        let (verified, findings) = self.verify(options).await;
        let verified = verified.unwrap();
        assert_eq!(verified.total, findings.len() as u64, "{verified:?} {findings:?}");
        assert_eq!(verified.findings.values().sum::<u64>(), verified.total);
        let show = |finding: &Finding| {
            let mark = if finding.repaired { "!" } else { "" };
            format!("{} {}{mark}", finding.problem.name(), finding.key)
        };
        let mut found: Vec<String> = findings.iter().map(show).collect();
        found.sort();
        found
    }

    pub(super) async fn verify(
        &self,
        options: VerifyOptions,
    ) -> (Result<Verified, VerifyError>, Vec<Finding>) {
        let findings: Arc<Mutex<Vec<Finding>>> = Arc::default();
        let told = Arc::clone(&findings);
        let tell = move |finding: &Finding| told.lock().unwrap().push(finding.clone());
        let (meta, store) = (Arc::clone(&self.replica.meta), Arc::clone(&self.replica.store));
        let verified = verify(meta, store, options, tell, |_, _| {}).await;
        let findings = findings.lock().unwrap().clone();
        (verified, findings)
    }

    pub(super) async fn assert_clean(&self) {
        assert_eq!(self.found(DEEP).await, Vec::<String>::new());
    }

    pub(super) async fn put(&self, key: &str, content: &[u8]) {
        self.replica.store.put(key, vec![Bytes::copy_from_slice(content)]).await.unwrap();
    }

    pub(super) async fn remove(&self, key: &str) {
        self.replica.store.delete(&[key.to_owned()]).await.unwrap();
    }

    pub(super) async fn read(&self, key: &str) -> Vec<u8> {
        let content = self.replica.store.get(key, None).await.unwrap().unwrap();
        content.stream.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    }

    pub(super) async fn exists(&self, key: &str) -> bool {
        self.replica.store.head(key).await.unwrap().is_some()
    }

    /// All keys below a prefix.
    pub(super) async fn keys(&self, prefix: &str) -> Vec<String> {
        let page = self.replica.store.list(prefix, None, 1000).await.unwrap();
        page.into_iter().map(|object| object.key).collect()
    }

    /// The only key below a prefix that matches.
    pub(super) async fn only(&self, prefix: &str, matches: impl Fn(&Key) -> bool) -> String {
        let keys = self.keys(prefix).await;
        let mut found = keys.iter().filter(|key| key.parse().is_ok_and(|key| matches(&key)));
        let (first, second) = (found.next(), found.next());
        assert!(first.is_some() && second.is_none(), "{keys:?}");
        first.unwrap().clone()
    }

    /// A week goes by for what has no row.
    pub(super) async fn wait_a_week(&self) {
        let postgres = "UPDATE orphans SET first_seen = first_seen - interval '169 hours'";
        let sqlite = "UPDATE orphans SET first_seen = first_seen - 608400000000";
        self.stand.execute(postgres, sqlite).await;
    }

    /// Everything that is queued becomes due, and goes.
    pub(super) async fn collect(&self) {
        let due = "UPDATE gc_queue SET due = due - interval '900 hours'";
        self.stand.execute(due, "UPDATE gc_queue SET due = due - 3240000000000").await;
        let due = "UPDATE outbox SET due = due - interval '900 hours'";
        self.stand.execute(due, "UPDATE outbox SET due = due - 3240000000000").await;
        let (meta, store) = (Arc::clone(&self.replica.meta), Arc::clone(&self.replica.store));
        let collected = Collector::new(meta, store, CollectionMetrics::default()).collect().await.unwrap();
        assert!(collected.drained.removed() > 0, "{collected:?}");
    }

    /// The steps that are queued.
    pub(super) async fn queued(&self) -> Vec<String> {
        let postgres = "SELECT unnest(steps) FROM outbox";
        self.stand.texts(postgres, "SELECT value FROM outbox, json_each(outbox.steps)").await
    }
}
