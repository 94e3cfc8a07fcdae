// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is pushed: images, indexes and artifacts made from numbers, each unlike any other.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};

use super::Odds;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What clients that pull say they understand.
pub(super) const ACCEPT: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";

/// Layers that many images share.
const BASES: u64 = 8;
const LARGE: usize = 17 << 20;

/// A blob, and whether other repositories may have it too.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) content: Bytes,
    pub(super) is_shared: bool,
}

impl Blob {
    fn new(content: impl Into<Bytes>, is_shared: bool) -> Self {
        let content = content.into();
        Self { digest: Digest::of(Algorithm::Sha256, &content), content, is_shared }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest.to_string(), "size": self.content.len() })
    }
}

/// A manifest, as it is sent and as others refer to it.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) digest: Digest,
    pub(super) media_type: &'static str,
    pub(super) body: Bytes,
    pub(super) blobs: Vec<Digest>,
    pub(super) children: Vec<Digest>,
}

impl Manifest {
    fn new(media_type: &'static str, body: &Value, blobs: &[Blob], children: &[&Self]) -> Self {
        let body = Bytes::from(body.to_string());
        Self {
            digest: Digest::of(Algorithm::Sha256, &body),
            media_type,
            body,
            blobs: blobs.iter().map(|blob| blob.digest).collect(),
            children: children.iter().map(|child| child.digest).collect(),
        }
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.body.len() })
    }
}

/// Makes what one client pushes as its `number`-th, given what it pushed to the same repository before. The name of
/// the load's seed and the client is in the content, so it is unique.
pub(super) fn make(
    name: &str,
    number: u64,
    before: &[Manifest],
    rng: &mut StdRng,
    odds: Odds,
) -> (Manifest, Vec<Blob>) {
    let mark = format!("{name}/{number}");
    match (rng.random_range(0..10), before) {
        (0, [.., first, second]) => (index(&mark, &[first, second]), Vec::new()),
        (1, [.., subject]) => image(&mark, Some(subject), rng, odds),
        _ => image(&mark, None, rng, odds),
    }
}

fn image(mark: &str, subject: Option<&Manifest>, rng: &mut StdRng, odds: Odds) -> (Manifest, Vec<Blob>) {
    let config = json!({ "architecture": "amd64", "os": "linux", "author": mark });
    let mut blobs = vec![Blob::new(config.to_string(), false)];
    if rng.random_bool(0.5) {
        let base = rng.random_range(0..BASES);
        blobs.push(Blob::new(noise(&mut StdRng::seed_from_u64(base), 40_000), true));
    }
    for _ in 0..rng.random_range(1..3) {
        let length = if rng.random_bool(odds.large_layer) { LARGE } else { rng.random_range(1..50_000) };
        blobs.push(Blob::new(noise(rng, length), false));
    }
    let layers: Vec<Value> = blobs.iter().skip(1).map(|blob| blob.descriptor(LAYER)).collect();
    let mut body = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": blobs[0].descriptor(CONFIG), "layers": layers,
    });
    if let Some(subject) = subject {
        body["artifactType"] = json!("application/vnd.example.note");
        body["subject"] = subject.descriptor();
    }
    (Manifest::new(IMAGE, &body, &blobs, &[]), blobs)
}

fn index(mark: &str, children: &[&Manifest]) -> Manifest {
    let entries: Vec<Value> = children.iter().map(|child| child.descriptor()).collect();
    let body = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": { "mark": mark },
    });
    Manifest::new(INDEX, &body, &[], children)
}

/// Bytes that do not compress and are nobody else's.
fn noise(rng: &mut StdRng, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    rng.fill_bytes(&mut content);
    content
}

/// What a manifest that was pulled refers to: blobs and manifests.
pub(super) fn references(body: &[u8]) -> (Vec<Digest>, Vec<Digest>) {
    let manifest: Value = serde_json::from_slice(body).unwrap_or_default();
    let digest = |descriptor: &Value| descriptor["digest"].as_str()?.parse().ok();
    let all =
        |list: &Value| -> Vec<Digest> { list.as_array().into_iter().flatten().filter_map(digest).collect() };
    let blobs = digest(&manifest["config"]).into_iter().chain(all(&manifest["layers"])).collect();
    (blobs, all(&manifest["manifests"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODDS: Odds = Odds { large_layer: 0.0, crash: 0.0 };

    #[test]
    fn content_is_the_same_for_the_same_numbers_and_never_for_others() {
        let make = |name, number| make(name, number, &[], &mut StdRng::seed_from_u64(5), ODDS).0.digest;
        assert_eq!(make("1/2", 3), make("1/2", 3));
        assert_ne!(make("1/2", 3), make("1/2", 4));
        assert_ne!(make("1/2", 3), make("1/1", 3));
    }

    #[test]
    fn a_manifest_is_read_as_it_was_made() {
        let mut rng = StdRng::seed_from_u64(5);
        let (first, blobs) = image("a", None, &mut rng, ODDS);
        assert_eq!(references(&first.body).0, blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>());
        let list = index("b", &[&first]);
        assert_eq!(references(&list.body), (vec![], vec![first.digest]));
        assert_eq!(list.children, [first.digest]);
    }
}
