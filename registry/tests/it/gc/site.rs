// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry whose graces pass at once, and how to fill and empty it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::Registry;
use stowage_registry::blobs::{Filesystem, S3, Store};
use stowage_registry::domain::Limits;
use stowage_registry::jobs::{Collected, Collector, GcError};
use stowage_registry::meta::postgres::{self, PostgresStore};
use stowage_registry::meta::sqlite::{self, SqliteStore};
use stowage_registry::meta::{MetaStore, Timings};
use stowage_registry::ops::metrics::CollectionMetrics;
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::support::postgres::database;
use crate::support::s3;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Everything passes at once, but what a push under way needs.
pub(crate) fn brief() -> Timings {
    const MOMENT: Duration = Duration::from_millis(3);
    Timings {
        lease: MOMENT,
        blob_grace: MOMENT,
        tombstone_delay: MOMENT,
        intent: Duration::from_millis(300),
        marker: MOMENT,
        take_over: MOMENT,
        removal_lease: Duration::from_millis(300),
        again: MOMENT,
        ..Timings::default()
    }
}

pub(crate) struct Site {
    pub(crate) router: Router,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) meta: Arc<dyn MetaStore>,
    /// Of the database; empty where it is somebody else's.
    pub(crate) address: String,
    _folder: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    pub(crate) body: Bytes,
}

impl Site {
    pub(crate) async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = sqlite::Options { timings: brief(), ..sqlite::Options::default() };
        let meta = SqliteStore::open(folder.path(), options).await.unwrap();
        let store = Filesystem::open(folder.path()).await.unwrap();
        let address = format!("sqlite://{}", folder.path().join("meta.sqlite").display());
        let site = Self::over(Arc::new(meta), Arc::new(store), folder).await;
        Self { address, ..site }
    }

    pub(crate) async fn clustered() -> Self {
        Self::clustered_at().await.0
    }

    /// With the address of its database.
    pub(crate) async fn clustered_at() -> (Self, String) {
        let url = database().await;
        let options = postgres::Options { timings: brief(), ..postgres::Options::new(&url) };
        let meta = PostgresStore::connect(&options).await.unwrap();
        let store = S3::new(s3::bucket(s3::Kind::Versitygw).await).await.unwrap();
        let site = Self::over(Arc::new(meta), Arc::new(store), tempfile::tempdir().unwrap()).await;
        (Self { address: url.clone(), ..site }, url)
    }

    /// A registry that is open.
    pub(crate) fn around(registry: &Registry, meta: Arc<dyn MetaStore>, store: Arc<dyn Store>) -> Self {
        let (router, address) = (registry.router(), String::new());
        Self { router, store, meta, address, _folder: tempfile::tempdir().unwrap() }
    }

    async fn over(meta: Arc<dyn MetaStore>, store: Arc<dyn Store>, folder: TempDir) -> Self {
        let limits = Limits {
            trash_retention: Duration::ZERO,
            upload_expiry: Duration::from_millis(300),
            ..Limits::default()
        };
        let opened = Registry::builder().limits(limits).over(Arc::clone(&meta), Arc::clone(&store)).await;
        // A first request takes the database over.
        let site = Self { _folder: folder, ..Self::around(&opened.unwrap(), meta, store) };
        site.push_blob("first/of-all", b"first").await;
        site
    }

    pub(crate) fn collector(&self) -> Collector {
        let (meta, store) = (Arc::clone(&self.meta), Arc::clone(&self.store));
        Collector::new(meta, store, CollectionMetrics::default())
    }

    pub(crate) async fn collect(&self) -> Result<Collected, GcError> {
        self.collector().collect().await
    }

    /// Passes until the graces of everything are over and nothing is due any more.
    pub(crate) async fn collect_all(&self) {
        let mut quiet = 0;
        while quiet < 3 {
            let collected = self.collect().await.unwrap();
            let worked = collected.counts().values().any(|count| *count > 0);
            quiet = if worked { 0 } else { quiet + 1 };
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A few passes, each after all graces.
    pub(crate) async fn collect_some(&self) {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.collect().await.unwrap();
        }
    }

    pub(crate) async fn send(&self, method: Method, target: &str, kind: &str, body: &[u8]) -> Answer {
        let request = Request::builder().method(method).uri(target).header("content-type", kind);
        let request = request.header("content-length", body.len()).body(Body::from(body.to_vec())).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let location = headers.get("location").map(|location| location.to_str().unwrap().to_owned());
        Answer { status, location, body: to_bytes(answer.into_body(), usize::MAX).await.unwrap() }
    }

    async fn expect(&self, status: StatusCode, method: Method, target: &str, body: &[u8]) -> Answer {
        let answer = self.send(method, target, "application/octet-stream", body).await;
        assert_eq!(answer.status, status, "{target}: {:?}", answer.body);
        answer
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, "application/octet-stream", b"").await
    }

    pub(crate) async fn delete(&self, target: &str) {
        self.expect(StatusCode::ACCEPTED, Method::DELETE, target, b"").await;
    }

    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.expect(StatusCode::CREATED, Method::POST, &target, content).await;
        digest
    }

    /// A blob in two pieces: large ones by parts.
    pub(crate) async fn push_blob_in_pieces(&self, repository: &str, first: &[u8], rest: &[u8]) -> Digest {
        let upload = self.open_upload(repository).await;
        self.expect(StatusCode::ACCEPTED, Method::PATCH, &upload, first).await;
        let digest = sha256(&[first, rest].concat());
        self.expect(StatusCode::CREATED, Method::PUT, &format!("{upload}?digest={digest}"), rest).await;
        digest
    }

    pub(crate) async fn open_upload(&self, repository: &str) -> String {
        let target = format!("/v2/{repository}/blobs/uploads/");
        self.expect(StatusCode::ACCEPTED, Method::POST, &target, b"").await.location.unwrap()
    }

    pub(crate) async fn patch(&self, upload: &str, content: &[u8]) {
        self.expect(StatusCode::ACCEPTED, Method::PATCH, upload, content).await;
    }

    pub(crate) async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Digest {
        let (kind, text) = (manifest["mediaType"].as_str().unwrap(), manifest.to_string());
        let target = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.send(Method::PUT, &target, kind, text.as_bytes()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        sha256(text.as_bytes())
    }

    /// An image with these layers, under a tag.
    pub(crate) async fn push_image(&self, repository: &str, reference: &str, layers: &[&[u8]]) -> Digest {
        self.push_blob(repository, b"{}").await;
        for layer in layers {
            self.push_blob(repository, layer).await;
        }
        self.put_manifest(repository, reference, &image(layers)).await
    }

    /// Every object but those that are always there.
    pub(crate) async fn left(&self) -> Vec<String> {
        let all = self.store.list("v1/", None, 100_000).await.unwrap();
        let keys = all.into_iter().map(|object| object.key);
        keys.filter(|key| {
            key != "v1/FORMAT" && !["v1/epoch/", "v1/pulls/"].iter().any(|kind| key.starts_with(kind))
        })
        .collect()
    }
}

pub(crate) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(crate) fn described(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": sha256(content), "size": content.len() })
}

pub(crate) fn image(layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| described("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let config = described("application/vnd.oci.empty.v1+json", b"{}");
    json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers })
}
