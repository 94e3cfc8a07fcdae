// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Looks for a signature of an image until one counts: among its referrers, then under its tag.

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Algorithm, Digest, Reference, Tag};

use super::layers::{Form, Layer, signatures};
use super::{Flaw, Keys, Unsigned, bundle, simple};

/// Bytes of a payload or a bundle, at most: what is longer is not looked at.
pub const MOST_BYTES: u64 = 1 << 20;
/// Manifests with signatures that are looked at for one image. Anybody with push can attach more.
pub(super) const MOST: usize = 256;
/// Annotation of a manifest with a bundle: what its statement says it is.
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
/// The type of a manifest that has payloads and refers to its image, as some releases of cosign could be told to make.
const REFERRING: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Where signatures are looked for.
#[async_trait]
pub trait Source: Sync {
    /// Why it cannot be said what is there.
    type Error: Send;

    /// What refers to `image`.
    async fn referrers(&self, image: &Digest) -> Result<Vec<Referrer>, Self::Error>;

    /// The bytes of a manifest; `None`: it is not there.
    async fn manifest(&self, reference: &Reference) -> Result<Option<Bytes>, Self::Error>;

    /// The bytes of a blob; `None`: it is not there, or has more than [`MOST_BYTES`].
    async fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, Self::Error>;
}

/// A manifest that refers to an image, and what is said of it without having been signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The manifest.
    pub digest: Digest,
    /// What it is.
    pub artifact_type: Option<String>,
    /// Its annotation [`PREDICATE`].
    pub predicate: Option<String>,
}

impl Referrer {
    /// A referrer with what its descriptor says.
    #[must_use]
    pub fn new(
        digest: Digest,
        artifact_type: Option<String>,
        annotations: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        Self { digest, artifact_type, predicate: annotations.get(PREDICATE).cloned() }
    }

    /// Whether it can be an attestation of that type.
    pub(super) fn may_attest(&self, predicate_type: &str) -> bool {
        let is_bundle = |known: &String| bundle::MEDIA_TYPES.contains(&known.as_str());
        self.artifact_type.as_ref().is_none_or(is_bundle)
            && self.predicate.as_ref().is_none_or(|predicate| predicate == predicate_type)
    }

    /// Whether it can be a signature.
    fn may_sign(&self) -> bool {
        let of_type = |known: &String| known == REFERRING || bundle::MEDIA_TYPES.contains(&known.as_str());
        self.artifact_type.as_ref().is_none_or(of_type)
            && self.predicate.as_ref().is_none_or(|predicate| predicate == bundle::PREDICATE)
    }
}

/// What looking came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The image is signed.
    Signed(Box<Proof>),
    /// It is not.
    Unsigned(Unsigned),
}

/// A signature that counts: whoever keeps it can verify it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How its manifest was asked for: by digest, or by a tag that belongs to the image.
    pub reference: Reference,
    /// The bytes of the manifest that holds it.
    pub manifest: Bytes,
    /// The blob that it is, or that it signs.
    pub blob: Digest,
    /// Its bytes.
    pub content: Bytes,
}

/// Looks for a signature of `image` by one of `keys`.
pub async fn seek<S: Source>(source: &S, image: &Digest, keys: &Keys) -> Result<Verdict, S::Error> {
    let mut flaw = None;
    let referrers = source.referrers(image).await?;
    let places = referrers.into_iter().filter(Referrer::may_sign).take(MOST);
    let places = places
        .map(|referrer| Reference::Digest(referrer.digest))
        .chain(tag_of(image, ".sig").map(Reference::Tag));
    for reference in places {
        let Some(manifest) = source.manifest(&reference).await? else { continue };
        for layer in signatures(&manifest) {
            let content = source.blob(&layer.digest).await?;
            match content.map(|content| (judged(&layer, &content, image, keys), content)) {
                Some((Ok(true), content)) => {
                    let proof = Proof { reference, manifest, blob: layer.digest, content };
                    return Ok(Verdict::Signed(Box::new(proof)));
                }
                Some((Ok(false), _)) => {}
                Some((Err(found), _)) => flaw = Some(found),
                None => flaw = Some(Flaw::Unreadable("it is not there, or too long")),
            }
        }
    }
    let image = *image;
    Ok(Verdict::Unsigned(match flaw {
        Some(flaw) => Unsigned::Invalid { image, flaw },
        None => Unsigned::Missing(image),
    }))
}

/// Whether a layer is a signature of the image that counts. `Ok(false)`: it is no signature.
fn judged(layer: &Layer, content: &Bytes, image: &Digest, keys: &Keys) -> Result<bool, Flaw> {
    if Digest::of(layer.digest.algorithm(), content) != layer.digest {
        return Err(Flaw::Unreadable("its content is not that of its digest"));
    }
    match &layer.form {
        Form::Simple(signature) => simple::verify(content, signature, image, keys).map(|()| true),
        Form::Bundle => bundle::verify(content, image, keys),
    }
}

/// The tag with what is said of an image in the form before bundles: `.sig` for signatures, `.att` for attestations.
pub(crate) fn tag_of(image: &Digest, kind: &str) -> Option<Tag> {
    // Of another digest a tag could not hold the whole.
    let is_short = image.algorithm() == Algorithm::Sha256;
    let tag = || format!("sha256-{}{kind}", image.hex()).parse().ok();
    is_short.then(tag).flatten()
}
