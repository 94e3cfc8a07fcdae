// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! An image as it is promoted: an index of two platforms, twenty layers each, with what refers to it.

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};

use crate::load::{Client, NOTHING, Pieces};
use crate::work::{CONFIG, LAYER, MANIFEST};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const PLATFORMS: [&str; 2] = ["amd64", "arm64"];
const LAYERS: usize = 20;
/// How many manifests refer to the index.
pub(crate) const REFERRERS: usize = 4;
pub(crate) const TAG: &str = "v1";

/// Some content, with its digest.
struct Content {
    bytes: Bytes,
    kind: &'static str,
    digest: Digest,
}

impl Content {
    fn new(kind: &'static str, text: String) -> Self {
        let bytes = Bytes::from(text);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        Self { bytes, kind, digest }
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest.to_string(), "size": self.bytes.len() })
    }

    async fn put(&self, client: &mut Client, repository: &str, reference: &str) -> Result<()> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let body = Pieces::from([self.bytes.clone()]);
        let answer = client.send_with(Method::PUT, &path, Some((CONTENT_TYPE, self.kind)), body).await?;
        answer.expect(StatusCode::CREATED).map(drop).with_context(|| format!("PUT {path}"))
    }

    async fn push(&self, client: &mut Client, repository: &str) -> Result<()> {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", self.digest);
        let body = Pieces::from([self.bytes.clone()]);
        let answer = client.send_with(Method::POST, &path, NOTHING, body).await?;
        answer.expect(StatusCode::CREATED).map(drop).with_context(|| format!("POST {path}"))
    }
}

/// The index, and all that belongs to it.
pub(crate) struct Artifact {
    blobs: Vec<Content>,
    images: Vec<Content>,
    index: Content,
    referrers: Vec<Content>,
}

impl Artifact {
    pub(crate) fn new() -> Self {
        let mut blobs = vec![Content::new(CONFIG, "{}".to_owned())];
        let config = blobs[0].descriptor();
        let manifest = |layers: &[Content], more: Value| {
            let layers: Vec<Value> = layers.iter().map(Content::descriptor).collect();
            let mut manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
            });
            manifest.as_object_mut().into_iter().for_each(|all| all.extend(fields(&more)));
            Content::new(MANIFEST, manifest.to_string())
        };
        let mut images = Vec::new();
        for platform in PLATFORMS {
            let layer = |number| Content::new(LAYER, format!("layer {number} of {platform}"));
            let layers: Vec<Content> = (0..LAYERS).map(layer).collect();
            images.push(manifest(&layers, json!({})));
            blobs.extend(layers);
        }
        let listed: Vec<Value> = images.iter().map(Content::descriptor).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed });
        let index = Content::new(INDEX, index.to_string());
        let referrer = |number| {
            let more = json!({
                "subject": index.descriptor(), "artifactType": "application/vnd.example.note",
                "annotations": { "number": format!("{number}") },
            });
            manifest(&[], more)
        };
        let referrers = (0..REFERRERS).map(referrer).collect();
        Self { blobs, images, index, referrers }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.index.digest
    }

    /// Pushes all of it to a repository, the index without a tag.
    pub(crate) async fn give(&self, client: &mut Client, repository: &str) -> Result<()> {
        for blob in &self.blobs {
            blob.push(client, repository).await?;
        }
        for manifest in self.images.iter().chain([&self.index]).chain(&self.referrers) {
            manifest.put(client, repository, &manifest.digest.to_string()).await?;
        }
        Ok(())
    }

    /// Tags the index.
    pub(crate) async fn tag(&self, client: &mut Client, repository: &str) -> Result<()> {
        self.index.put(client, repository, TAG).await
    }
}

fn fields(value: &Value) -> serde_json::Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_has_all_that_its_target_speaks_of() {
        let artifact = Artifact::new();
        assert_eq!((artifact.blobs.len(), artifact.images.len()), (41, 2));
        let mut digests: Vec<String> =
            artifact.referrers.iter().map(|note| note.digest.to_string()).collect();
        digests.dedup();
        assert_eq!(digests.len(), REFERRERS, "each is one of its own");
        for note in &artifact.referrers {
            let note: Value = serde_json::from_slice(&note.bytes).unwrap();
            assert_eq!(note["subject"]["digest"], artifact.digest().to_string());
        }
    }
}
