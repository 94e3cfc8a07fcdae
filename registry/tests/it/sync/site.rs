// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry that copies from a real one, which asks for a password; what it asks for is counted.

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use http::Request;
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest, TagSelection, TagsWanted};
use stowage_registry::Registry;
use stowage_registry::blobs::{Faults, Faulty, Store};
use stowage_registry::domain::{
    Artifacts, Replication, Repositories, Selection, SyncItem, SyncMode, SyncProgress, Synced,
};
use stowage_registry::meta::MetaStore;
use stowage_registry::upstream::Settings;
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::mirror::line::Line;
use crate::mirror::site::Answer;
use crate::support::program::ask;
use crate::support::stores::{self, Stores};
use crate::upstream::login::{basic, of_alice};
use crate::upstream::servers::{Image, Process, push, push_manifest, secret, settings};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry, and what it copies.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) upstream: Process,
    pub(crate) line: Line,
    pub(crate) asked: Replication,
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    _secret: TempDir,
    _folder: TempDir,
}

/// What a run told, an item a line, in byte order.
pub(crate) struct Told {
    pub(crate) synced: Synced,
    pub(crate) items: Vec<String>,
}

impl Told {
    /// Whether it names this failure.
    pub(crate) fn failed(&self, reference: &str, reason: &str) -> bool {
        self.synced.failures.iter().any(|(failed, why)| failed == reference && *why == reason)
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
        let upstream = of_alice().await;
        let line = Line::to(upstream.address()).await;
        let registry = Registry::builder().over(Arc::clone(&meta), Arc::clone(&store)).await.unwrap();
        let secret = secret(&[("username", "alice"), ("password", "p:w")]);
        let mut settings = settings(&format!("http://{}", line.address));
        settings.credentials = Some(secret.path().to_owned());
        let asked = replication(settings, Repositories::One("team/app".parse().unwrap()));
        Self { registry, upstream, line, asked, meta, store, _secret: secret, _folder: folder }
    }

    /// A second replica, over a bucket that can fail it.
    pub(super) async fn over_a_faulty_bucket(&self) -> (Registry, Faults) {
        let (faulty, faults) = Faulty::over(Arc::clone(&self.store));
        let replica = Registry::builder().over(Arc::clone(&self.meta), Arc::new(faulty)).await.unwrap();
        (replica, faults)
    }

    /// The keys in the bucket of a content or a manifest.
    pub(super) async fn keys_of(&self, digest: &Digest) -> Vec<String> {
        let objects = self.store.list("v1/", None, 10_000).await.unwrap();
        objects.into_iter().map(|object| object.key).filter(|key| key.contains(&digest.hex())).collect()
    }

    pub(crate) async fn run(&self, mode: SyncMode) -> Told {
        run(&self.registry, &self.asked, mode).await
    }

    /// A run that acts.
    pub(crate) async fn copy(&self) -> Told {
        self.run(SyncMode::Copy).await
    }

    /// Pushes an image to the upstream.
    pub(crate) fn push(&self, repository: &str, tag: &str, layer: &[u8]) -> Image {
        push(self.upstream.address(), &login(), repository, tag, layer)
    }

    /// Pushes an image with a subject to the upstream.
    pub(crate) fn refer(&self, repository: &str, tag: &str, layer: &[u8], to: &Image) -> Image {
        let subject = json!({"mediaType": IMAGE, "digest": to.digest, "size": to.manifest.len()});
        push_manifest(self.upstream.address(), &login(), repository, tag, layer, &subject)
    }

    /// Pushes an index to the upstream.
    pub(crate) fn push_index(&self, repository: &str, tag: &str, manifests: &Value) -> (Digest, Vec<u8>) {
        let body = index(manifests);
        let fields = format!("{}Content-Type: {INDEX}\r\n", login());
        let target = format!("/v2/{repository}/manifests/{tag}");
        let (status, head, _) = ask(self.upstream.address(), "PUT", &target, &fields, &body);
        assert_eq!(status, 201, "{head}");
        (Digest::of(Algorithm::Sha256, &body), body)
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        request(&self.registry, "GET", target, "", Vec::new()).await
    }

    /// The content of a manifest here, if it is.
    pub(crate) async fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let answer = self.get(&format!("/v2/{repository}/manifests/{reference}")).await;
        (answer.status == 200).then(|| answer.body.to_vec())
    }

    /// The requests for the bytes of blobs since the last time.
    pub(crate) fn blobs_asked(&self) -> Vec<String> {
        let asked = self.line.asked();
        asked.into_iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).collect()
    }
}

/// An index of these descriptors.
pub(crate) fn index(manifests: &Value) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    format!("{index:#}\n").into_bytes()
}

/// What is copied of one list of repositories: everything.
pub(crate) fn replication(upstream: Settings, repositories: Repositories) -> Replication {
    Replication {
        name: "base".to_owned(),
        path: Some("base".parse().unwrap()),
        upstream,
        artifacts: vec![Artifacts { repositories, selection: Selection::default() }],
        prunes: false,
        with_referrers: true,
        parallelism: 4,
        bytes_per_second: None,
        taken: Vec::new(),
        keys: None,
    }
}

/// The versions in a range.
pub(crate) fn versions(range: &str) -> TagSelection {
    TagSelection { wanted: TagsWanted::Versions(range.parse().unwrap()), exclude: Vec::new() }
}

pub(crate) async fn run(registry: &Registry, asked: &Replication, mode: SyncMode) -> Told {
    let items = Mutex::new(Vec::new());
    let tell = |item: &SyncItem, _: SyncProgress| {
        items.lock().unwrap().push(format!("{} {}", item.fate.name(), item.reference));
    };
    let synced = registry.replicate(asked, mode, &tell).await;
    let mut items = items.into_inner().unwrap();
    items.sort();
    Told { synced, items }
}

pub(crate) async fn request(
    registry: &Registry,
    method: &str,
    target: &str,
    media_type: &str,
    body: Vec<u8>,
) -> Answer {
    let request = Request::builder().method(method).uri(target).header("content-type", media_type);
    let answer = registry.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the answer is complete");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) fn login() -> String {
    basic("alice", "p:w")
}
