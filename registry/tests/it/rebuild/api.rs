// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A client of a registry in this process.

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use tower::ServiceExt as _;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.headers.contains_key("warning")
    }
}

/// Asks one registry.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Router);

impl Api {
    pub(crate) async fn send(&self, method: Method, target: &str, kind: &str, body: &[u8]) -> Answer {
        let mut request = Request::builder().method(method).uri(target).header("content-length", body.len());
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let (head, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 64 << 20).await.unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, "", b"").await
    }

    pub(crate) async fn head(&self, target: &str) -> Answer {
        self.send(Method::HEAD, target, "", b"").await
    }

    pub(crate) async fn delete(&self, target: &str) -> Answer {
        self.send(Method::DELETE, target, "", b"").await
    }

    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.send(Method::POST, &target, "", content).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        digest
    }

    /// Pushes a manifest under a tag, or by its digest.
    pub(crate) async fn put(&self, repository: &str, tag: Option<&str>, manifest: &Value) -> Answer {
        let body = manifest.to_string();
        let reference = tag.map_or_else(|| sha256(body.as_bytes()).to_string(), str::to_owned);
        let kind = manifest["mediaType"].as_str().unwrap();
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.send(Method::PUT, &target, kind, body.as_bytes()).await
    }

    /// Pushes an image of one layer under a tag.
    pub(crate) async fn push_image(&self, repository: &str, tag: Option<&str>, layer: &str) -> Digest {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, layer.as_bytes()).await;
        let manifest = image(layer);
        let answer = self.put(repository, tag, &manifest).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        digest_of(&manifest)
    }

    /// The digest that a tag or digest names.
    pub(crate) async fn resolve(&self, repository: &str, reference: &str) -> Option<Digest> {
        let answer = self.get(&format!("/v2/{repository}/manifests/{reference}")).await;
        match answer.status {
            StatusCode::OK => Some(sha256(&answer.body)),
            StatusCode::NOT_FOUND => None,
            _ => panic!("{answer:?}"),
        }
    }

    /// Everything that an image needs is there.
    pub(crate) async fn assert_pullable(&self, repository: &str, reference: &str) {
        let answer = self.get(&format!("/v2/{repository}/manifests/{reference}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{repository} {reference}: {answer:?}");
        let manifest = answer.json();
        let config = std::iter::once(&manifest["config"]);
        for blob in config.chain(manifest["layers"].as_array().unwrap()) {
            let target = format!("/v2/{repository}/blobs/{}", blob["digest"].as_str().unwrap());
            let answer = self.get(&target).await;
            assert_eq!(answer.status, StatusCode::OK, "{repository} {reference}: {answer:?}");
            assert_eq!(sha256(&answer.body).to_string(), blob["digest"].as_str().unwrap());
        }
    }

    pub(crate) async fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.get(&format!("/v2/{repository}/tags/list")).await;
        if answer.status == StatusCode::NOT_FOUND {
            return Vec::new();
        }
        let tags = answer.json()["tags"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
        tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }

    /// In the order of the list.
    pub(crate) async fn referrers(&self, repository: &str, subject: Digest) -> Vec<String> {
        let answer = self.get(&format!("/v2/{repository}/referrers/{subject}")).await;
        let json = answer.json();
        let manifests = json["manifests"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
        manifests.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(crate) fn digest_of(manifest: &Value) -> Digest {
    sha256(manifest.to_string().as_bytes())
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": sha256(content).to_string(), "size": content.len() })
}

/// An image with the empty configuration and one layer.
pub(crate) fn image(layer: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer.as_bytes())],
        "annotations": { "layer": layer },
    })
}

/// An index of manifests, wherever they are.
pub(crate) fn index(children: &[Digest]) -> Value {
    let child = |digest: &Digest| json!({ "mediaType": IMAGE, "digest": digest.to_string(), "size": 1 });
    json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": children.iter().map(child).collect::<Vec<_>>(),
    })
}

/// Something about `subject`.
pub(crate) fn attachment(subject: Digest, text: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.example.note",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.empty.v1+json", b"{}")],
        "subject": { "mediaType": IMAGE, "digest": subject.to_string(), "size": 1 },
        "annotations": { "text": text },
    })
}
