// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry to ask, and what must hold for every answer of it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use serde_json::Value;
use stowage_oci::{Algorithm, Digest, ErrorCode};
use stowage_registry::Builder;
use stowage_registry::blobs::{Counts, Faults, Faulty, Filesystem, Memory, Observed, Observer, Store};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::faulty::{Faults as DatabaseFaults, Faulty as FaultyDatabase};
use stowage_registry::meta::postgres::{self, PostgresStore};
use stowage_registry::meta::sqlite::{Options, SqliteStore};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::support::postgres::{database, proxied};
use crate::support::proxy::Proxy;
use crate::support::s3;

pub(super) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The codes that a 4xx may carry (distribution-spec, "Error Codes").
const CLIENT_CODES: [ErrorCode; 14] = [
    ErrorCode::BlobUnknown,
    ErrorCode::BlobUploadInvalid,
    ErrorCode::BlobUploadUnknown,
    ErrorCode::DigestInvalid,
    ErrorCode::ManifestBlobUnknown,
    ErrorCode::ManifestInvalid,
    ErrorCode::ManifestUnknown,
    ErrorCode::NameInvalid,
    ErrorCode::NameUnknown,
    ErrorCode::SizeInvalid,
    ErrorCode::Unauthorized,
    ErrorCode::Denied,
    ErrorCode::Unsupported,
    ErrorCode::TooManyRequests,
];

/// A registry over stores of its own.
pub(super) struct Registry {
    router: Router,
    /// Its admin port.
    admin: Router,
    /// The registry itself.
    pub(super) opened: stowage_registry::Registry,
    /// Its bucket, to look behind the answers.
    pub(super) store: Arc<dyn Store>,
    pub(super) meta: Arc<dyn MetaStore>,
    /// What goes wrong with the bucket.
    pub(super) faults: Faults,
    /// Whether its bucket is S3.
    pub(super) is_s3: bool,
    _folder: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A request that is put together.
pub(super) struct Ask<'a> {
    router: &'a Router,
    request: http::request::Builder,
    method: Method,
    body: Body,
}

impl Registry {
    /// On a file system and SQLite.
    pub(super) async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Filesystem::open(folder.path()).await.unwrap());
        let meta = Arc::new(SqliteStore::open(folder.path(), Options::default()).await.unwrap());
        Self::over(meta, store, folder, false).await
    }

    /// On S3 and Postgres.
    pub(super) async fn clustered() -> Self {
        let (store, ()) = s3::store(s3::Kind::Versitygw).await;
        let meta = PostgresStore::connect(&postgres::Options::new(database().await)).await.unwrap();
        Self::over(Arc::new(meta), store, tempfile::tempdir().unwrap(), true).await
    }

    /// On a file system and SQLite, the database failing on demand.
    pub(super) async fn with_faulty_database() -> (Self, DatabaseFaults) {
        let registry = Self::embedded().await;
        let (meta, faults) = FaultyDatabase::over(Arc::clone(&registry.meta));
        let meta: Arc<dyn MetaStore> = Arc::new(meta);
        let opened = open(stowage_registry::Registry::builder(), &meta, &registry.store).await;
        (Self { router: opened.router(), admin: opened.admin_router(), opened, meta, ..registry }, faults)
    }

    /// On memory and Postgres over one connection, so that every statement is prepared once: how often the
    /// database and the bucket are asked.
    pub(super) async fn measured() -> (Self, Proxy, Arc<Counts>) {
        let (proxy, url) = proxied(&database().await).await;
        let options = postgres::Options { max_connections: 1, ..postgres::Options::new(url) };
        let meta = PostgresStore::connect(&options).await.unwrap();
        let counts = Arc::new(Counts::default());
        let store = Observed::over(Arc::new(Memory::new()), Arc::clone(&counts) as Arc<dyn Observer>);
        let registry = Self::over(Arc::new(meta), Arc::new(store), tempfile::tempdir().unwrap(), false).await;
        (registry, proxy, counts)
    }

    async fn over(meta: Arc<dyn MetaStore>, store: Arc<dyn Store>, folder: TempDir, is_s3: bool) -> Self {
        let (store, faults) = Faulty::over(store);
        let store: Arc<dyn Store> = Arc::new(store);
        let builder = stowage_registry::Registry::builder();
        let opened = open(builder, &meta, &store).await;
        Self {
            router: opened.router(),
            admin: opened.admin_router(),
            opened,
            store,
            meta,
            faults,
            is_s3,
            _folder: folder,
        }
    }

    /// A second process's worth of registry over the same data.
    pub(super) async fn replica(&self) -> Self {
        let opened = open(stowage_registry::Registry::builder(), &self.meta, &self.store).await;
        Self {
            router: opened.router(),
            admin: opened.admin_router(),
            opened,
            store: Arc::clone(&self.store),
            meta: Arc::clone(&self.meta),
            faults: self.faults.clone(),
            is_s3: self.is_s3,
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Serves the same data as `builder` says from now on.
    pub(super) async fn reopened(self, builder: Builder) -> Self {
        let opened = open(builder, &self.meta, &self.store).await;
        Self { router: opened.router(), admin: opened.admin_router(), opened, ..self }
    }

    pub(super) fn ask(&self, method: Method, target: &str) -> Ask<'_> {
        Ask::of(&self.router, method, target)
    }

    /// A request to the admin port.
    pub(super) fn administer(&self, method: Method, target: &str) -> Ask<'_> {
        Ask::of(&self.admin, method, target)
    }

    pub(super) fn get(&self, target: &str) -> Ask<'_> {
        self.ask(Method::GET, target)
    }

    pub(super) fn head(&self, target: &str) -> Ask<'_> {
        self.ask(Method::HEAD, target)
    }

    pub(super) fn post(&self, target: &str) -> Ask<'_> {
        self.ask(Method::POST, target)
    }

    pub(super) fn patch(&self, target: &str) -> Ask<'_> {
        self.ask(Method::PATCH, target)
    }

    pub(super) fn put(&self, target: &str) -> Ask<'_> {
        self.ask(Method::PUT, target)
    }

    pub(super) fn delete(&self, target: &str) -> Ask<'_> {
        self.ask(Method::DELETE, target)
    }

    /// Begins an upload; gives its path.
    pub(super) async fn open_upload(&self, repository: &str) -> String {
        let answer = self.post(&format!("/v2/{repository}/blobs/uploads/")).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").to_owned()
    }

    /// Pushes a blob in one request; gives its digest.
    pub(super) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.post(&target).body(content).send().await;
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Pushes a manifest; gives the answer.
    pub(super) async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Answer {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.put(&target).header("content-type", media_type).body(manifest.to_string()).send().await
    }

    /// Pushes an image with a layer of its own under a tag; gives its digest.
    pub(super) async fn push_image(&self, repository: &str, tag: &str) -> Digest {
        let content = format!("layer of {repository}:{tag}");
        self.push_blob(repository, content.as_bytes()).await;
        self.push_blob(repository, b"{}").await;
        let manifest = image(&[content.as_bytes()]);
        let answer = self.put_manifest(repository, tag, &manifest).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        sha256(manifest.to_string().as_bytes())
    }

    /// The status of `GET`.
    pub(super) async fn status(&self, target: &str) -> u16 {
        self.get(target).send().await.status
    }
}

async fn open(
    builder: Builder,
    meta: &Arc<dyn MetaStore>,
    store: &Arc<dyn Store>,
) -> stowage_registry::Registry {
    builder.over(Arc::clone(meta), Arc::clone(store)).await.unwrap()
}

impl<'a> Ask<'a> {
    fn of(router: &'a Router, method: Method, target: &str) -> Self {
        let request = Request::builder().method(method.clone()).uri(target);
        Self { router, request, method, body: Body::empty() }
    }

    pub(super) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.request = self.request.header(name, value.as_ref());
        self
    }

    /// A body whose length is announced.
    pub(super) fn body(mut self, content: impl AsRef<[u8]>) -> Self {
        self.body = Body::from(content.as_ref().to_vec());
        self
    }

    /// A body that comes in pieces, without a length.
    pub(super) fn chunked(mut self, content: impl AsRef<[u8]>) -> Self {
        let pieces: Vec<_> = content
            .as_ref()
            .chunks(1000)
            .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
            .collect();
        self.body = Body::from_stream(stream::iter(pieces));
        self
    }

    /// A body that breaks off after `content`.
    pub(super) fn broken(mut self, content: impl AsRef<[u8]>) -> Self {
        let first = Ok(Bytes::copy_from_slice(content.as_ref()));
        self.body = Body::from_stream(stream::iter([first, Err(std::io::Error::other("connection reset"))]));
        self
    }

    /// Sends it and checks what holds for every answer.
    pub(super) async fn send(self) -> Answer {
        let request = self.request.body(self.body).unwrap();
        let target = request.uri().clone();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("the answer is complete");
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        answer.check(&self.method, target.path());
        answer
    }

    /// Sends it and gives the answer without reading its body.
    pub(super) async fn start(self) -> axum::response::Response {
        self.router.clone().oneshot(self.request.body(self.body).unwrap()).await.unwrap()
    }
}

impl Answer {
    /// A header that must be there once.
    pub(super) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().unwrap_or_else(|| panic!("no {name}: {self:?}"));
        assert!(values.next().is_none(), "two {name}: {self:?}");
        value.to_str().unwrap()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.contains_key(HeaderName::try_from(name).unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the first error.
    pub(super) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    /// The status and the code of an error.
    pub(super) fn refusal(&self) -> (u16, String) {
        (self.status, self.code())
    }

    fn check(&self, method: &Method, path: &str) {
        let is_api = path == "/v2" || path.starts_with("/v2/");
        assert!(!is_api || self.header("docker-distribution-api-version") == "registry/2.0");
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        assert!(!self.header("x-request-id").is_empty());
        assert!(!self.has("content-encoding"), "{self:?}");
        let cors = self.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors, None);
        self.check_addresses();
        self.check_length(method);
        if self.status >= 400 {
            self.check_error(method);
        } else {
            assert!(self.has("cache-control"), "{self:?}");
        }
        if matches!(self.status, 429 | 503) {
            assert!(self.header("retry-after").parse::<u64>().unwrap() > 0);
        }
    }

    fn check_addresses(&self) {
        if self.has("location") {
            let location = self.header("location");
            assert!(location.starts_with("/v2/"), "{location}");
            for parameter in ["digest=", "mount=", "from="] {
                assert!(!location.contains(parameter), "{location}");
            }
        }
        if self.has("link") {
            assert!(self.header("link").starts_with("</v2/"), "{self:?}");
        }
    }

    fn check_length(&self, method: &Method) {
        if method == Method::HEAD {
            assert!(self.body.is_empty());
        } else if self.status != 304 && self.status != 204 {
            assert_eq!(self.header("content-length"), self.body.len().to_string(), "{self:?}");
        } else {
            assert!(self.body.is_empty());
        }
    }

    fn check_error(&self, method: &Method) {
        assert_eq!(self.header("cache-control"), "no-store", "{self:?}");
        let is_range = self.status == 416 && self.has("content-range");
        if method == Method::HEAD || is_range {
            return;
        }
        assert_eq!(self.header("content-type"), "application/json");
        for error in self.json()["errors"].as_array().unwrap() {
            let code = error["code"].as_str().unwrap();
            let of_client = CLIENT_CODES.iter().any(|known| known.as_str() == code);
            assert_eq!(of_client, self.status < 500, "{self:?}");
            assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
            assert!(!error["detail"].is_null() || error.get("detail").is_none(), "{self:?}");
        }
        let status = StatusCode::from_u16(self.status).unwrap();
        assert!(status != StatusCode::UNAUTHORIZED || self.has("www-authenticate"));
    }
}

pub(super) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(super) fn sha512(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, content)
}

pub(super) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    serde_json::json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

/// An image with the empty config and these layers.
pub(super) fn image(layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": layers,
    })
}

/// An index of these manifests.
pub(super) fn index(manifests: &[&Value]) -> Value {
    let manifests: Vec<Value> = manifests
        .iter()
        .map(|manifest| descriptor(manifest["mediaType"].as_str().unwrap(), manifest.to_string().as_bytes()))
        .collect();
    serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
}
