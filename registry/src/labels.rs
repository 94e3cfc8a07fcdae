// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What an image says of itself, for rules and gates that ask for labels.
//!
//! The labels of its configuration, and the annotations of its manifest. An index says what its own annotations say, and
//! what every image that it lists says; the attestations that BuildKit puts beside those are about images and are none.
//! Guarantees: what cannot be read, or is not here, makes all of it unknown; nothing is guessed.
//! Never: knows where manifests and configurations are; asking is by [`Source`].

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;
use stowage_oci::{Digest, Manifest};

use crate::archive::is_manifest;

/// The longest configuration that is read, in bytes.
pub const LONGEST_CONFIG: u64 = 4 << 20;
/// How deep indexes are followed.
const DEPTH: u32 = 4;
/// How many manifests are read for one image.
const MANIFESTS: u32 = 256;
/// Where an attestation of BuildKit says, in the index, which image it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// All of it, as names with values. A name has two where configuration and manifest differ.
    Known(BTreeSet<(String, String)>),
    /// It cannot be read, or is not all here.
    Unknown,
}

impl Labels {
    /// The first of `wanted` that it does not say, as `name=value`. Of what is unknown nothing is said to be missing.
    #[must_use]
    pub fn lacks(&self, wanted: &BTreeMap<String, String>) -> Option<String> {
        let Self::Known(said) = self else { return None };
        let is_said = |name: &str, value: &str| {
            said.iter().any(|one| (one.0.as_str(), one.1.as_str()) == (name, value))
        };
        let missing = wanted.iter().find(|(name, value)| !is_said(name, value));
        missing.map(|(name, value)| format!("{name}={value}"))
    }
}

/// Where manifests and configurations are.
#[async_trait]
pub trait Source: Send + Sync {
    /// Why it did not answer.
    type Error: Send;

    /// The type and the bytes of a manifest; `None`: it is not here.
    async fn manifest(&self, digest: Digest) -> Result<Option<(String, Bytes)>, Self::Error>;

    /// The bytes of a configuration; `None`: it is not here, or longer than [`LONGEST_CONFIG`].
    async fn config(&self, digest: Digest) -> Result<Option<Bytes>, Self::Error>;
}

type Said = BTreeSet<(String, String)>;

/// A manifest, as far as labels are looked for.
#[derive(Deserialize)]
struct Document {
    config: Option<Listed>,
    manifests: Option<Vec<Listed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    media_type: Option<String>,
    digest: Digest,
    annotations: Option<BTreeMap<String, String>>,
}

impl Listed {
    /// Whether the index does not say that it is something else.
    fn is_image(&self) -> bool {
        let is_about_one = self.annotations.as_ref().is_some_and(|said| said.contains_key(ABOUT));
        !is_about_one && self.media_type.as_deref().is_none_or(is_manifest)
    }
}

/// The part of the configuration of an image that has its labels.
#[derive(Deserialize)]
struct Config {
    config: Option<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    labels: Option<BTreeMap<String, String>>,
}

/// What the manifest of this digest says of itself.
pub async fn labels<S: Source>(source: &S, digest: Digest) -> Result<Labels, S::Error> {
    let said = Reading { source, left: MANIFESTS }.said(digest, DEPTH).await?;
    Ok(said.map_or(Labels::Unknown, Labels::Known))
}

struct Reading<'a, S> {
    source: &'a S,
    /// How many more manifests are read.
    left: u32,
}

impl<S: Source> Reading<'_, S> {
    /// `None`: something of it is unknown.
    fn said(&mut self, digest: Digest, depth: u32) -> BoxFuture<'_, Result<Option<Said>, S::Error>> {
        Box::pin(async move {
            if depth == 0 || self.left == 0 {
                return Ok(None);
            }
            self.left -= 1;
            let Some((media_type, bytes)) = self.source.manifest(digest).await? else { return Ok(None) };
            let Some((manifest, document)) = parsed(&media_type, &bytes) else { return Ok(None) };
            let listed = match document.config {
                Some(config) => self.source.config(config.digest).await?.map(|bytes| labelled(&bytes)),
                None => self.common(document.manifests.unwrap_or_default(), depth - 1).await?,
            };
            Ok(listed.map(|mut said| {
                said.extend(manifest.annotations.into_iter().flatten());
                said
            }))
        })
    }

    /// What all of these images say.
    async fn common(&mut self, listed: Vec<Listed>, depth: u32) -> Result<Option<Said>, S::Error> {
        let mut common: Option<Said> = None;
        for image in listed.into_iter().filter(Listed::is_image) {
            let Some(said) = self.said(image.digest, depth).await? else { return Ok(None) };
            common = Some(match common {
                Some(common) => &common & &said,
                None => said,
            });
        }
        Ok(Some(common.unwrap_or_default()))
    }
}

fn parsed(media_type: &str, bytes: &[u8]) -> Option<(Manifest, Document)> {
    Some((Manifest::parse(bytes, Some(media_type)).ok()?, serde_json::from_slice(bytes).ok()?))
}

/// The labels in a configuration; that of what is no image has none.
fn labelled(config: &[u8]) -> Said {
    let config = serde_json::from_slice::<Config>(config).ok().and_then(|read| read.config);
    config.and_then(|run| run.labels).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use serde_json::{Value, json};
    use stowage_oci::{Algorithm, ManifestKind};

    use super::*;

    const IMAGE: &str = ManifestKind::OciImage.media_type();
    const INDEX: &str = ManifestKind::OciIndex.media_type();

    /// Contents by digest.
    #[derive(Default)]
    struct Shelf(HashMap<Digest, (String, Bytes)>);

    #[async_trait]
    impl Source for Shelf {
        type Error = Infallible;

        async fn manifest(&self, digest: Digest) -> Result<Option<(String, Bytes)>, Infallible> {
            Ok(self.0.get(&digest).cloned())
        }

        async fn config(&self, digest: Digest) -> Result<Option<Bytes>, Infallible> {
            Ok(self.0.get(&digest).map(|(_, bytes)| bytes.clone()))
        }
    }

    impl Shelf {
        fn put(&mut self, media_type: &str, content: &Value) -> Digest {
            let bytes = Bytes::from(content.to_string());
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            self.0.insert(digest, (media_type.to_owned(), bytes));
            digest
        }

        fn image(&mut self, labels: &Value, annotations: &Value) -> Digest {
            let config = self.put("", &json!({ "config": { "Labels": labels } }));
            let config = json!({ "digest": config });
            let image = json!({ "schemaVersion": 2, "config": config, "annotations": annotations });
            self.put(IMAGE, &image)
        }

        fn index(&mut self, listed: &[Value], annotations: &Value) -> Digest {
            let index = json!({ "schemaVersion": 2, "manifests": listed, "annotations": annotations });
            self.put(INDEX, &index)
        }

        /// As `name=value`, or nothing where it is unknown.
        async fn read(&self, digest: Digest) -> Option<Vec<String>> {
            let Ok(labels) = labels(self, digest).await;
            match labels {
                Labels::Known(said) => {
                    Some(said.iter().map(|(name, value)| format!("{name}={value}")).collect())
                }
                Labels::Unknown => None,
            }
        }
    }

    fn listed(digest: Digest) -> Value {
        json!({ "digest": digest })
    }

    #[tokio::test]
    async fn an_image_says_what_its_configuration_and_its_manifest_say() {
        let mut shelf = Shelf::default();
        let image = shelf.image(&json!({ "a": "1", "b": "2" }), &json!({ "b": "3", "c": "4" }));
        assert_eq!(shelf.read(image).await.unwrap(), ["a=1", "b=2", "b=3", "c=4"]);
        let silent = shelf.image(&Value::Null, &Value::Null);
        assert!(shelf.read(silent).await.unwrap().is_empty());
        let chart = shelf.put("", &json!({ "name": "chart" }));
        let chart = shelf.put(IMAGE, &json!({ "schemaVersion": 2, "config": { "digest": chart } }));
        assert!(shelf.read(chart).await.unwrap().is_empty(), "it is no image");
    }

    #[tokio::test]
    async fn an_index_says_what_it_and_what_every_image_in_it_says() {
        let mut shelf = Shelf::default();
        let one = shelf.image(&json!({ "vendor": "acme", "arch": "amd64" }), &Value::Null);
        let two = shelf.image(&json!({ "arch": "arm64" }), &json!({ "vendor": "acme" }));
        let about =
            json!({ "digest": shelf.image(&Value::Null, &Value::Null), "annotations": { ABOUT: one } });
        let inner = shelf.index(&[listed(two)], &Value::Null);
        let index = shelf.index(&[listed(one), listed(inner), about], &json!({ "tier": "1" }));
        assert_eq!(shelf.read(index).await.unwrap(), ["tier=1", "vendor=acme"]);
        let empty = shelf.index(&[], &json!({ "tier": "1" }));
        assert_eq!(shelf.read(empty).await.unwrap(), ["tier=1"]);
    }

    #[tokio::test]
    async fn what_is_not_all_here_is_unknown() {
        let mut shelf = Shelf::default();
        let absent = Digest::of(Algorithm::Sha256, b"absent");
        assert_eq!(shelf.read(absent).await, None);
        let image =
            json!({ "schemaVersion": 2, "config": { "digest": absent }, "annotations": { "a": "1" } });
        let image = shelf.put(IMAGE, &image);
        assert_eq!(shelf.read(image).await, None, "its configuration");
        let sparse = shelf.index(&[listed(absent)], &json!({ "a": "1" }));
        assert_eq!(shelf.read(sparse).await, None, "an image that it lists");
        let broken = shelf.put(IMAGE, &json!({ "schemaVersion": 1 }));
        assert_eq!(shelf.read(broken).await, None);
        let mut deep = shelf.image(&Value::Null, &Value::Null);
        for _ in 0..DEPTH {
            deep = shelf.index(&[listed(deep)], &Value::Null);
        }
        assert_eq!(shelf.read(deep).await, None, "it is too deep");
    }
}
