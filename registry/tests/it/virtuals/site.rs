// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Replicas with a virtual repository `all`: members `team-a`, where pushes go, a mirror of distribution, and one of a
//! second Stowage.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::Request;
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::Registry;
use stowage_registry::auth::Access;
use stowage_registry::blobs::Store;
use stowage_registry::domain::{
    Listing, Member, MemberSource, MirrorCache, MirrorSettings, Shadowing, VirtualSettings,
};
use stowage_registry::meta::MetaStore;
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::mirror::line::Line;
pub(super) use crate::mirror::site::Answer;
use crate::support::stores::{self, Stores};
use crate::upstream::servers::{Process, Stowage, distribution, settings};

pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Two replicas, and what their mirrors are of.
pub(super) struct Site {
    pub(super) one: Registry,
    pub(super) other: Registry,
    pub(super) hub: Process,
    pub(super) hub_line: Line,
    pub(super) quay: Stowage,
    pub(super) quay_line: Line,
    pub(super) mirrors: Vec<MirrorSettings>,
    pub(super) all: VirtualSettings,
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    _folder: TempDir,
}

impl Site {
    pub(super) async fn embedded() -> Self {
        Self::over(stores::embedded().await).await
    }

    pub(super) async fn clustered() -> Self {
        Self::over(stores::clustered().await).await
    }

    async fn over(Stores { meta, store, folder }: Stores) -> Self {
        let hub = distribution(&Value::Null, &[]).await;
        let hub_line = Line::to(hub.address()).await;
        let quay = Stowage::open().await;
        let quay_line = Line::to(&quay.address()).await;
        let open = async || Registry::builder().over(Arc::clone(&meta), Arc::clone(&store)).await.unwrap();
        let site = Self {
            one: open().await,
            other: open().await,
            mirrors: vec![mirror("hub", &hub_line), mirror("quay", &quay_line)],
            all: VirtualSettings {
                name: "all".to_owned(),
                path: "all".parse().unwrap(),
                members: vec![local("team-a", true), mirrored("hub"), mirrored("quay")],
                listing: Listing::FirstMember,
                shadowing: Shadowing::Forbidden,
                pins: Vec::new(),
                is_suspended: false,
            },
            hub,
            hub_line,
            quay,
            quay_line,
            meta,
            store,
            _folder: folder,
        };
        site.apply();
        site
    }

    fn apply(&self) {
        for replica in [&self.one, &self.other] {
            replica.set_mirrors(self.mirrors.clone());
            replica.set_virtuals(vec![self.all.clone()]);
        }
    }

    /// Other settings of the virtual repository from now on.
    pub(super) fn set(&mut self, change: impl FnOnce(&mut VirtualSettings)) {
        change(&mut self.all);
        self.apply();
    }

    /// Other settings of the mirrors from now on.
    pub(super) fn set_mirrors(&mut self, change: impl FnMut(&mut MirrorSettings)) {
        self.mirrors.iter_mut().for_each(change);
        self.apply();
    }

    /// The replicas know who may do what from now on.
    pub(super) async fn guarded(mut self, access: Access) -> Self {
        let access = Arc::new(access);
        let open = async || {
            let builder = Registry::builder().access(Arc::clone(&access));
            builder.over(Arc::clone(&self.meta), Arc::clone(&self.store)).await.unwrap()
        };
        (self.one, self.other) = (open().await, open().await);
        self.apply();
        self
    }

    /// What both mirrors asked for since the last time.
    pub(super) fn asked(&self) -> (Vec<String>, Vec<String>) {
        (self.hub_line.asked(), self.quay_line.asked())
    }
}

fn mirror(name: &str, line: &Line) -> MirrorSettings {
    const HOUR: Duration = Duration::from_hours(1);
    MirrorSettings {
        name: name.to_owned(),
        path: format!("mirrors/{name}").parse().unwrap(),
        upstream: settings(&format!("http://{}", line.address)),
        asks_upstream: true,
        is_default: false,
        with_referrers: true,
        keys: None,
        cache: MirrorCache { tag_ttl: HOUR, negative_ttl: Duration::ZERO, stale_for: HOUR, quarantine: None },
    }
}

pub(super) fn local(prefix: &str, takes_pushes: bool) -> Member {
    let source = MemberSource::Local(prefix.parse().unwrap());
    Member { source, include: Vec::new(), exclude: Vec::new(), takes_pushes }
}

pub(super) fn mirrored(name: &str) -> Member {
    let source = MemberSource::Mirror(name.to_owned());
    Member { source, include: Vec::new(), exclude: Vec::new(), takes_pushes: false }
}

/// No member asks anybody.
pub(super) const NOBODY: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());

pub(super) async fn send(
    registry: &Registry,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.header("content-length", body.len()).body(Body::from(body.to_vec())).unwrap();
    let (parts, body) = registry.router().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the answer is complete");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(super) async fn get(registry: &Registry, target: &str) -> Answer {
    send(registry, "GET", target, &[], b"").await
}

pub(super) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(super) fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

pub(super) fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

/// An image with one layer.
pub(super) fn image(layer: &[u8]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    manifest.to_string().into_bytes()
}

/// An index of these images.
pub(super) fn index(images: &[&[u8]]) -> Vec<u8> {
    let images: Vec<Value> = images.iter().map(|image| descriptor(IMAGE, image)).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images }).to_string().into_bytes()
}

/// What refers to an image.
pub(super) fn referrer(subject: &[u8], said: &str) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "artifactType": "application/vnd.example.signature",
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"), "layers": [],
        "subject": descriptor(IMAGE, subject), "annotations": { "said": said },
    });
    manifest.to_string().into_bytes()
}

pub(super) async fn push_blob(registry: &Registry, repository: &str, content: &[u8]) {
    let target = format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(content));
    let answer = send(registry, "POST", &target, &[], content).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

pub(super) async fn put(registry: &Registry, repository: &str, reference: &str, manifest: &[u8]) -> Answer {
    let document: Value = serde_json::from_slice(manifest).unwrap();
    let target = format!("/v2/{repository}/manifests/{reference}");
    let media_type = document["mediaType"].as_str().unwrap();
    send(registry, "PUT", &target, &[("content-type", media_type)], manifest).await
}

/// Pushes an image with this layer; gives its manifest.
pub(super) async fn push(registry: &Registry, repository: &str, tag: &str, layer: &[u8]) -> Vec<u8> {
    push_blob(registry, repository, b"{}").await;
    push_blob(registry, repository, layer).await;
    let manifest = image(layer);
    let answer = put(registry, repository, tag, &manifest).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    manifest
}
