// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Signatures over a payload of "simple signing": a layer is the payload, an annotation of it the signature.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use stowage_oci::Digest;

use super::{Flaw, Keys};

/// The media type of a layer that is a payload.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of that layer with the signature, in base64.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What the payload says it is.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    type_: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Whether one of the keys signed this payload, and it is about `image`.
pub(super) fn verify(payload: &[u8], signature: &str, image: &Digest, keys: &Keys) -> Result<(), Flaw> {
    let signature = BASE64_STANDARD.decode(signature.trim());
    let signature = signature.map_err(|_error| Flaw::Unreadable("its annotation is no base64"))?;
    keys.verify(payload, &signature)?;
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|_error| Flaw::Unreadable("its payload says no digest"))?;
    if payload.critical.type_ != TYPE {
        return Err(Flaw::Unreadable("its payload is no signature of an image"));
    }
    if payload.critical.image.digest == image.to_string() { Ok(()) } else { Err(Flaw::Image) }
}
