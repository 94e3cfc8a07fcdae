// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Replicas that mirror a real registry, over either pair of stores.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Request};
use stowage_oci::Digest;
use stowage_registry::Registry;
use stowage_registry::blobs::{self, Store};
use stowage_registry::domain::{
    Listing, Member, MemberSource, MirrorCache, MirrorSettings, Shadowing, VirtualSettings,
};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::faulty::{Faults, Faulty};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::line::Line;
use crate::support::stores::{self, Stores};
use crate::upstream::servers::{Process, distribution, settings};

pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// Two replicas, and what they mirror.
pub(crate) struct Site {
    pub(crate) one: Registry,
    pub(crate) other: Registry,
    pub(crate) upstream: Process,
    pub(crate) line: Line,
    pub(crate) mirror: MirrorSettings,
    virtuals: Vec<VirtualSettings>,
    pub(crate) meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    _folder: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Site {
    pub(crate) async fn embedded() -> Self {
        Self::over(stores::embedded().await).await
    }

    pub(crate) async fn clustered() -> Self {
        Self::over(stores::clustered().await).await
    }

    async fn over(Stores { meta, store, folder }: Stores) -> Self {
        let upstream = distribution(&serde_json::Value::Null, &[]).await;
        let line = Line::to(upstream.address()).await;
        let mut settings = settings(&format!("http://{}", line.address));
        settings.hosts = vec!["hub.example.com".to_owned()];
        let cache = MirrorCache { tag_ttl: HOUR, negative_ttl: HOUR, stale_for: HOUR, quarantine: None };
        let mirror = MirrorSettings {
            name: "hub".to_owned(),
            path: "hub".parse().unwrap(),
            upstream: settings,
            asks_upstream: true,
            is_default: false,
            with_referrers: true,
            cache,
            keys: None,
        };
        let [one, other] = [replica(&meta, &store).await, replica(&meta, &store).await];
        let site =
            Self { one, other, upstream, line, mirror, virtuals: Vec::new(), meta, store, _folder: folder };
        site.apply(&site.mirror);
        site
    }

    fn apply(&self, mirror: &MirrorSettings) {
        for replica in [&self.one, &self.other] {
            replica.set_mirrors(vec![mirror.clone()]);
            replica.set_virtuals(self.virtuals.clone());
        }
    }

    /// The names of the mirror are those of a virtual repository now, of which it is the one member.
    pub(crate) fn behind_a_virtual_repository(mut self) -> Self {
        let source = MemberSource::Mirror(self.mirror.name.clone());
        let member = Member { source, include: Vec::new(), exclude: Vec::new(), takes_pushes: false };
        self.virtuals = vec![VirtualSettings {
            name: "all".to_owned(),
            path: self.mirror.path.clone(),
            members: vec![member],
            listing: Listing::FirstMember,
            shadowing: Shadowing::Forbidden,
            pins: Vec::new(),
            is_suspended: false,
        }];
        self.set(|mirror| mirror.path = "mirrors/hub".parse().unwrap());
        self
    }

    /// Whether its repositories are named by the path of the mirror.
    pub(super) fn is_the_mirrors_own_name(&self) -> bool {
        self.virtuals.is_empty()
    }

    /// Other settings from now on.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut MirrorSettings)) {
        change(&mut self.mirror);
        self.apply(&self.mirror);
    }

    /// A third replica, that was not there before.
    pub(crate) async fn newcomer(&self) -> Registry {
        self.newcomer_over(&self.meta, &self.store).await
    }

    /// The same over a database that can be cut off from it.
    pub(crate) async fn newcomer_over_faults(&self) -> (Registry, Faults) {
        let (faulty, faults) = Faulty::over(Arc::clone(&self.meta));
        let meta: Arc<dyn MetaStore> = Arc::new(faulty);
        (self.newcomer_over(&meta, &self.store).await, faults)
    }

    /// The same over a bucket that can fail it.
    pub(crate) async fn newcomer_over_a_faulty_bucket(&self) -> (Registry, blobs::Faults) {
        let (faulty, faults) = blobs::Faulty::over(Arc::clone(&self.store));
        let store: Arc<dyn Store> = Arc::new(faulty);
        (self.newcomer_over(&self.meta, &store).await, faults)
    }

    /// The keys in the bucket of a content or a manifest.
    pub(super) async fn keys_of(&self, digest: &Digest) -> Vec<String> {
        let objects = self.store.list("v1/", None, 10_000).await.unwrap();
        objects.into_iter().map(|object| object.key).filter(|key| key.contains(&digest.hex())).collect()
    }

    async fn newcomer_over(&self, meta: &Arc<dyn MetaStore>, store: &Arc<dyn Store>) -> Registry {
        let replica = replica(meta, store).await;
        replica.set_mirrors(vec![self.mirror.clone()]);
        replica.set_virtuals(self.virtuals.clone());
        replica
    }
}

async fn replica(meta: &Arc<dyn MetaStore>, store: &Arc<dyn Store>) -> Registry {
    Registry::builder().over(Arc::clone(meta), Arc::clone(store)).await.unwrap()
}

/// Begins to ask; the body is to be read.
pub(crate) async fn start(
    registry: &Registry,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> http::Response<Body> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    registry.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

pub(crate) async fn ask(registry: &Registry, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let (parts, body) = start(registry, method, target, fields).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the answer is complete");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) async fn get(registry: &Registry, target: &str) -> Answer {
    ask(registry, "GET", target, &[]).await
}
