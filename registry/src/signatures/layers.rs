// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which layers of a manifest are signatures, and which manifests are about others. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use stowage_oci::{Algorithm, Digest, Reference, Tag};

use super::{bundle, simple};

/// Layers of one manifest that are looked at.
const MOST: usize = 64;
/// An envelope that stands alone: an attestation in the form before bundles.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// What is said about an image in the form before bundles: attestations, and SBOMs.
const ATTACHED: [&str; 5] = [
    ENVELOPE,
    "application/vnd.cyclonedx+json",
    "application/vnd.cyclonedx+xml",
    "application/vnd.syft+json",
    "text/spdx",
];

/// A layer that may be a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A payload, and its signature.
    Simple(String),
    Bundle,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    layers: Vec<Descriptor>,
    subject: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The layers of a manifest that may be signatures.
pub(super) fn signatures(manifest: &[u8]) -> Vec<Layer> {
    let document: Document = serde_json::from_slice(manifest).unwrap_or_default();
    let signature = |layer: Descriptor| {
        let form = match layer.media_type.as_str() {
            simple::MEDIA_TYPE => Form::Simple(layer.annotations?.remove(simple::SIGNATURE)?),
            media_type if bundle::MEDIA_TYPES.contains(&media_type) => Form::Bundle,
            _ => return None,
        };
        Some(Layer { digest: layer.digest, form })
    };
    document.layers.into_iter().filter_map(signature).take(MOST).collect()
}

/// A layer that may be an attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) digest: Digest,
    /// Whether it is a bundle, rather than an envelope alone.
    pub(super) is_bundle: bool,
}

/// The layers of a manifest that may be attestations.
pub(super) fn attestations(manifest: &[u8]) -> Vec<Attached> {
    let document: Document = serde_json::from_slice(manifest).unwrap_or_default();
    let attached = |layer: Descriptor| {
        let is_bundle = bundle::MEDIA_TYPES.contains(&layer.media_type.as_str());
        (is_bundle || layer.media_type == ENVELOPE).then_some(Attached { digest: layer.digest, is_bundle })
    };
    document.layers.into_iter().filter_map(attached).take(MOST).collect()
}

/// What a tag such as `sha256-….sig` is about; `None` for any other tag.
#[must_use]
pub fn subject_of(tag: &Tag) -> Option<Digest> {
    let (name, _kind) = tag.as_str().split_once('.').unwrap_or((tag.as_str(), ""));
    let (algorithm, hex) = name.split_once('-')?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    // Tags are too short for the whole of any other.
    (digest.algorithm() == Algorithm::Sha256).then_some(digest)
}

/// Whether a manifest, asked for by `reference`, only says something about another: signatures, attestations, SBOMs. An
/// image never does, whatever it says of itself: what has layers of a file system can be run.
#[must_use]
pub fn is_about_another(manifest: &[u8], reference: &Reference) -> bool {
    let document: Document = serde_json::from_slice(manifest).unwrap_or_default();
    if document.layers.iter().any(|layer| is_of_file_system(&layer.media_type)) {
        return false;
    }
    let is_index = document.manifests.is_some();
    match reference {
        Reference::Tag(tag) => subject_of(tag).is_some() && (!is_index || !tag.as_str().contains('.')),
        Reference::Digest(_) if is_index => false,
        Reference::Digest(_) => document.subject.is_some() || are_attached(&document.layers),
    }
}

fn is_of_file_system(media_type: &str) -> bool {
    media_type.contains("image.layer") || media_type.contains("image.rootfs")
}

fn are_attached(layers: &[Descriptor]) -> bool {
    let is_attached = |layer: &Descriptor| {
        let media_type = layer.media_type.as_str();
        media_type == simple::MEDIA_TYPE || ATTACHED.iter().any(|known| media_type.starts_with(known))
    };
    !layers.is_empty() && layers.iter().all(is_attached)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn manifest(media_type: &str, with_subject: bool) -> Vec<u8> {
        let layer = json!({"mediaType": media_type, "digest": digest("layer"), "size": 5});
        let mut manifest = json!({"schemaVersion": 2, "layers": [layer]});
        if with_subject {
            manifest["subject"] = json!({"digest": digest("subject"), "size": 7, "mediaType": "x/y"});
        }
        manifest.to_string().into_bytes()
    }

    #[test]
    fn signatures_are_told_from_images_by_what_they_hold() {
        let by_digest = Reference::Digest(digest("any"));
        let tag = |tag: &str| Reference::Tag(tag.parse().unwrap());
        let own = tag(&format!("sha256-{}.sig", digest("image").hex()));
        for (manifest, reference, is_about) in [
            (manifest(simple::MEDIA_TYPE, false), &by_digest, true),
            (manifest(simple::MEDIA_TYPE, false), &own, true),
            (manifest(simple::MEDIA_TYPE, false), &tag("latest"), false),
            (manifest(bundle::MEDIA_TYPES[0], true), &by_digest, true),
            (manifest(bundle::MEDIA_TYPES[0], true), &tag("latest"), false),
            (manifest("application/vnd.wasm.content.layer.v1+wasm", false), &by_digest, false),
            (manifest(LAYER, true), &by_digest, false),
            (manifest(LAYER, true), &own, false),
            (br#"{"manifests":[]}"#.to_vec(), &by_digest, false),
            (br#"{"manifests":[]}"#.to_vec(), &own, false),
            (br#"{"manifests":[]}"#.to_vec(), &tag(&format!("sha256-{}", digest("image").hex())), true),
            (b"no manifest".to_vec(), &by_digest, false),
        ] {
            let shown = format!("{} {reference}", String::from_utf8_lossy(&manifest));
            assert_eq!(is_about_another(&manifest, reference), is_about, "{shown}");
        }
    }

    #[test]
    fn layers_that_may_be_signatures_are_found_among_others() {
        let layer = |media_type: &str, annotations: serde_json::Value| json!({"mediaType": media_type, "digest": digest(media_type), "size": 1, "annotations": annotations});
        let manifest = json!({"layers": [
            layer(LAYER, json!({})),
            layer(simple::MEDIA_TYPE, json!({simple::SIGNATURE: "c2ln"})),
            layer(simple::MEDIA_TYPE, json!({"other": "c2ln"})),
            layer(bundle::MEDIA_TYPES[0], json!(null)),
        ]});
        let found = signatures(manifest.to_string().as_bytes());
        let forms: Vec<Form> = found.into_iter().map(|layer| layer.form).collect();
        assert_eq!(forms, [Form::Simple("c2ln".to_owned()), Form::Bundle]);
    }
}
