// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Manifests: what some bytes are, and what they refer to.
//!
//! Guarantees: a [`Manifest`] comes from a document that no two readers can understand differently: its type
//! is said once or twice alike, its shape is the type's, no key occurs twice. Its references are digests we
//! can look up. What the specification leaves open (unknown fields and media types, `data`, `urls`) is
//! neither read nor checked. Never: changes or keeps the bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::Digest;
use crate::json::{self, Keys, Object};

/// What sort of manifest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// `application/vnd.oci.image.manifest.v1+json`.
    OciImage,
    /// `application/vnd.oci.image.index.v1+json`.
    OciIndex,
    /// `application/vnd.docker.distribution.manifest.v2+json`.
    DockerImage,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`.
    DockerList,
}

impl ManifestKind {
    /// Every kind we store.
    pub const ALL: [Self; 4] = [Self::OciImage, Self::OciIndex, Self::DockerImage, Self::DockerList];

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::OciImage => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
            Self::DockerImage => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// Whether it lists manifests, rather than layers.
    #[must_use]
    pub const fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }

    const fn is_docker(self) -> bool {
        matches!(self, Self::DockerImage | Self::DockerList)
    }

    fn from_media_type(text: &str) -> Result<Self, ManifestError> {
        if SCHEMA_1.contains(&text) {
            return Err(ManifestError::Schema1);
        }
        Self::ALL
            .into_iter()
            .find(|kind| kind.media_type() == text)
            .ok_or_else(|| ManifestError::UnsupportedType(text.to_owned()))
    }
}

const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Layers that a registry need not have (image-spec, "Non-Distributable Layers").
const NON_DISTRIBUTABLE: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Why bytes are not a manifest we store.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not UTF-8.
    #[error("manifest is not valid UTF-8: byte {} cannot be read", .0.valid_up_to())]
    NotUtf8(#[source] std::str::Utf8Error),
    /// Begins with U+FEFF.
    #[error("manifest begins with a byte order mark, which JSON does not allow")]
    ByteOrderMark,
    /// Not JSON, or a value of a form that its place does not allow.
    #[error("manifest cannot be read: {0}")]
    Json(#[source] serde_json::Error),
    /// Of the format before 2016.
    #[error("manifest is of schema 1, which is not supported; push schema 2 or an OCI manifest")]
    Schema1,
    /// `schemaVersion` is absent or not 2.
    #[error("schemaVersion must be 2")]
    SchemaVersion,
    /// Neither the request nor the document says what it is.
    #[error("manifest has no media type: give a Content-Type, or mediaType in the document")]
    NoType,
    /// A Docker document without `mediaType`.
    #[error("a manifest of type {0} must say so in mediaType")]
    NoMediaType(&'static str),
    /// Request and document say different things.
    #[error("Content-Type is {content_type:?}, but mediaType in the document is {media_type:?}")]
    TypesDiffer {
        /// What the request says.
        content_type: String,
        /// What the document says.
        media_type: String,
    },
    /// A type that is no manifest to us.
    #[error("manifests of type {0:?} are not supported")]
    UnsupportedType(String),
    /// The document has a field of the other shape.
    #[error("a manifest of type {media_type} must not have {field:?}")]
    WrongShape {
        /// Its type.
        media_type: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The document lacks what its type needs.
    #[error("a manifest of type {media_type} must have {field:?}")]
    Incomplete {
        /// Its type.
        media_type: &'static str,
        /// The field.
        field: &'static str,
    },
    /// More descriptors than [`Manifest::MAX_DESCRIPTORS`].
    #[error("manifest has {0} descriptors; at most {max} are allowed", max = Manifest::MAX_DESCRIPTORS)]
    TooManyDescriptors(usize),
    /// A type or an annotation with U+0000 in it, which no list could show.
    #[error("{0} must not have the character U+0000 in it")]
    NulCharacter(&'static str),
    /// Annotations beside a subject that are longer than [`Manifest::MAX_REFERRER_ANNOTATIONS`].
    #[error(
        "annotations of a manifest with a subject take {0} bytes; at most {max} are allowed",
        max = Manifest::MAX_REFERRER_ANNOTATIONS
    )]
    AnnotationsTooLong(usize),
}

/// What a manifest is and refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What sort it is.
    pub kind: ManifestKind,
    /// The media type it is stored and answered with.
    pub media_type: String,
    /// What the referrers list shows as its artifact type: its own, else the type of an image's config.
    pub artifact_type: Option<String>,
    /// What it refers to as its subject. Docker types have none, whatever they say.
    pub subject: Option<Digest>,
    /// Its annotations. Docker types have none.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Config and layers that the repository must have, each once, in order.
    pub blobs: Vec<Digest>,
    /// What an index lists, each once, in order.
    pub children: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Object<Descriptor>>,
    layers: Option<Vec<Object<Descriptor>>>,
    manifests: Option<Vec<Object<Descriptor>>>,
    subject: Option<Object<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Media type and size are asked for by the specification but left out by some clients, so they may be absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: Digest,
    #[serde(default, rename = "size", deserialize_with = "size")]
    _size: (),
}

/// Checks a size and forgets it.
fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    let size = u64::deserialize(deserializer)?;
    if i64::try_from(size).is_err() {
        return Err(serde::de::Error::custom(format_args!("size {size} is more than 2^63 - 1")));
    }
    Ok(())
}

impl Manifest {
    /// The longest manifest, in bytes.
    pub const MAX_SIZE: usize = 4 * 1024 * 1024;
    /// The most descriptors in one manifest.
    pub const MAX_DESCRIPTORS: usize = 10_000;
    /// The most bytes of annotations, as JSON, that a manifest with a subject may have: every page of a
    /// referrers list has room for one.
    pub const MAX_REFERRER_ANNOTATIONS: usize = 1024 * 1024;

    /// Reads a manifest that was sent with `content_type`, whose parameters do not matter.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(ManifestError::NotUtf8)?;
        if text.starts_with('\u{feff}') {
            return Err(ManifestError::ByteOrderMark);
        }
        let keys = json::check(text).map_err(ManifestError::Json)?;
        let Object(document) = serde_json::from_str::<Object<Document>>(text).map_err(ManifestError::Json)?;
        match document.schema_version {
            Some(1) => return Err(ManifestError::Schema1),
            Some(2) => {}
            Some(_) | None => return Err(ManifestError::SchemaVersion),
        }
        let kind = agreed_kind(content_type, document.media_type.as_deref())?;
        check_shape(kind, &keys, &document)?;
        document.check_limits(kind)?;
        Ok(document.into_manifest(kind))
    }
}

/// What request and document together say it is.
fn agreed_kind(content_type: Option<&str>, in_document: Option<&str>) -> Result<ManifestKind, ManifestError> {
    let content_type = content_type
        .and_then(|header| header.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase())
        .filter(|essence| !essence.is_empty());
    match (content_type, in_document) {
        (None, None) => Err(ManifestError::NoType),
        (Some(content_type), Some(media_type)) if content_type != media_type => {
            Err(ManifestError::TypesDiffer { content_type, media_type: media_type.to_owned() })
        }
        (_, Some(media_type)) => ManifestKind::from_media_type(media_type),
        (Some(content_type), None) => {
            let kind = ManifestKind::from_media_type(&content_type)?;
            if kind.is_docker() { Err(ManifestError::NoMediaType(kind.media_type())) } else { Ok(kind) }
        }
    }
}

/// A reader that goes by the fields must come to the same kind as one that goes by the type.
fn check_shape(kind: ManifestKind, keys: &Keys<'_>, document: &Document) -> Result<(), ManifestError> {
    let media_type = kind.media_type();
    let foreign: &[&'static str] = if kind.is_index() { &["config", "layers"] } else { &["manifests"] };
    if let Some(field) = foreign.iter().find(|field| keys.contains(**field)) {
        return Err(ManifestError::WrongShape { media_type, field });
    }
    if kind.is_index() && !keys.contains("manifests") {
        return Err(ManifestError::Incomplete { media_type, field: "manifests" });
    }
    if !kind.is_index() && document.config.is_none() {
        return Err(ManifestError::Incomplete { media_type, field: "config" });
    }
    Ok(())
}

impl Document {
    fn check_limits(&self, kind: ManifestKind) -> Result<(), ManifestError> {
        let listed = [&self.layers, &self.manifests].into_iter().flatten().map(Vec::len).sum::<usize>();
        let descriptors = listed + [&self.config, &self.subject].into_iter().flatten().count();
        if descriptors > Manifest::MAX_DESCRIPTORS {
            return Err(ManifestError::TooManyDescriptors(descriptors));
        }
        let has_nul = |text: &String| text.contains('\0');
        if self.annotations.iter().flatten().any(|(key, value)| has_nul(key) || has_nul(value)) {
            return Err(ManifestError::NulCharacter("annotations"));
        }
        let config_type = self.config.as_ref().and_then(|Object(config)| config.media_type.as_ref());
        if self.artifact_type.iter().chain(config_type).any(has_nul) {
            return Err(ManifestError::NulCharacter("artifactType and config.mediaType"));
        }
        if let (Some(annotations), Some(_), false) = (&self.annotations, &self.subject, kind.is_docker()) {
            let length = serde_json::to_vec(annotations).map_err(ManifestError::Json)?.len();
            if length > Manifest::MAX_REFERRER_ANNOTATIONS {
                return Err(ManifestError::AnnotationsTooLong(length));
            }
        }
        Ok(())
    }

    fn into_manifest(self, kind: ManifestKind) -> Manifest {
        let required = self.layers.iter().flatten().map(|Object(layer)| layer).filter(|l| l.must_exist());
        let blobs = distinct(self.config.iter().map(|Object(config)| config).chain(required));
        let children = distinct(self.manifests.iter().flatten().map(|Object(child)| child));
        let media_type = kind.media_type().to_owned();
        if kind.is_docker() {
            return Manifest {
                kind,
                media_type,
                artifact_type: None,
                subject: None,
                annotations: None,
                blobs,
                children,
            };
        }
        let config_type = self.config.and_then(|Object(config)| config.media_type);
        Manifest {
            kind,
            media_type,
            artifact_type: self.artifact_type.filter(|own| !own.is_empty()).or(config_type),
            subject: self.subject.map(|Object(subject)| subject.digest),
            annotations: self.annotations,
            blobs,
            children,
        }
    }
}

impl Descriptor {
    fn must_exist(&self) -> bool {
        !self.media_type.as_deref().is_some_and(|media_type| NON_DISTRIBUTABLE.contains(&media_type))
    }
}

/// The digests, each once, in order of first appearance.
fn distinct<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Vec<Digest> {
    let mut seen = BTreeSet::new();
    descriptors.map(|descriptor| descriptor.digest).filter(|digest| seen.insert(*digest)).collect()
}

#[cfg(test)]
mod tests;
