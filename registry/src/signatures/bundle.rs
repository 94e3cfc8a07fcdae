// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Signatures in a bundle of Sigstore, version 0.3: a DSSE envelope around a statement of in-toto, or a signature over
//! the manifest itself. What else a bundle holds is for who asks transparency logs, and not read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use stowage_oci::{Algorithm, Digest};

use super::{Flaw, Keys};

/// The type of a layer that is a bundle, and of the manifest with it.
pub(super) const MEDIA_TYPES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];
/// What a statement that signs an image says it is. Others are attestations.
pub(super) const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    type_: String,
    predicate_type: String,
    subject: Vec<Subject>,
    #[serde(default)]
    predicate: serde_json::Value,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

fn read(bundle: &[u8]) -> Result<Bundle, Flaw> {
    let bundle: Bundle =
        serde_json::from_slice(bundle).map_err(|_error| Flaw::Unreadable("it is no bundle"))?;
    if !MEDIA_TYPES.contains(&bundle.media_type.as_str()) {
        return Err(Flaw::Unreadable("it is a bundle of another version than 0.3"));
    }
    Ok(bundle)
}

/// What one of the keys signed about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// Which key.
    pub(super) key: &'a str,
    /// What it says of the image.
    pub(super) predicate: serde_json::Value,
}

/// What one of the keys says about `image` in this bundle, if it is of that type.
pub(super) fn attested<'a>(
    bundle: &[u8],
    image: &Digest,
    predicate_type: &str,
    keys: &'a Keys,
) -> Result<Option<Said<'a>>, Flaw> {
    match read(bundle)?.dsse_envelope {
        Some(envelope) => said(&envelope, image, predicate_type, keys),
        None => Ok(None),
    }
}

/// The same in an envelope that stands alone.
pub(super) fn attested_alone<'a>(
    envelope: &[u8],
    image: &Digest,
    predicate_type: &str,
    keys: &'a Keys,
) -> Result<Option<Said<'a>>, Flaw> {
    let envelope =
        serde_json::from_slice(envelope).map_err(|_error| Flaw::Unreadable("it is no envelope"))?;
    said(&envelope, image, predicate_type, keys)
}

/// Whether one of the keys signed what is in this bundle, and it is about `image`. `Ok(false)`: it is no signature, but
/// says something else about an image.
pub(super) fn verify(bundle: &[u8], image: &Digest, keys: &Keys) -> Result<bool, Flaw> {
    let bundle = read(bundle)?;
    match (&bundle.dsse_envelope, &bundle.message_signature) {
        (Some(envelope), None) => in_envelope(envelope, image, keys),
        (None, Some(message)) => over_manifest(message, image, keys),
        _ => Err(Flaw::Unreadable("the bundle has no signature, or two")),
    }
}

fn in_envelope(envelope: &Envelope, image: &Digest, keys: &Keys) -> Result<bool, Flaw> {
    Ok(said(envelope, image, PREDICATE, keys)?.is_some())
}

/// What an envelope says of the image. `None`: something of another type.
fn said<'a>(
    envelope: &Envelope,
    image: &Digest,
    predicate_type: &str,
    keys: &'a Keys,
) -> Result<Option<Said<'a>>, Flaw> {
    let [signature] = &envelope.signatures[..] else {
        return Err(Flaw::Unreadable("the envelope has not exactly one signature"));
    };
    let payload = decoded(&envelope.payload)?;
    let statement = statement(&envelope.payload_type, &payload)?;
    // Only leaves out what is of another type: by nobody's word does anything become of this one.
    if statement.predicate_type != predicate_type {
        return Ok(None);
    }
    let key =
        keys.verify(&pre_authentication(&envelope.payload_type, &payload), &decoded(&signature.sig)?)?;
    let (algorithm, hex) = (image.algorithm().as_str(), image.hex());
    let is_about = |subject: &Subject| subject.digest.get(algorithm).is_some_and(|found| *found == hex);
    if statement.subject.iter().any(is_about) {
        Ok(Some(Said { key, predicate: statement.predicate }))
    } else {
        Err(Flaw::Image)
    }
}

fn statement(payload_type: &str, payload: &[u8]) -> Result<Statement, Flaw> {
    if payload_type != PAYLOAD {
        return Err(Flaw::Unreadable("the envelope holds no statement of in-toto"));
    }
    let statement: Option<Statement> = serde_json::from_slice(payload).ok();
    let statement = statement.filter(|statement| statement.type_.starts_with(STATEMENT));
    statement.ok_or(Flaw::Unreadable("the envelope holds no statement of in-toto"))
}

/// What is signed of an envelope (DSSE, "Signature Definition").
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The message is the manifest, whose digest is known. Ed25519 signs no digest.
fn over_manifest(message: &MessageSignature, image: &Digest, keys: &Keys) -> Result<bool, Flaw> {
    if image.algorithm() != Algorithm::Sha256 {
        return Err(Flaw::Image);
    }
    keys.verify_sha256(image.hash(), &decoded(&message.signature)?)?;
    Ok(true)
}

fn decoded(text: &str) -> Result<Vec<u8>, Flaw> {
    BASE64_STANDARD.decode(text).map_err(|_error| Flaw::Unreadable("part of the bundle is no base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_of_an_envelope_is_as_its_specification_shows() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pre_authentication("http://example.com/HelloWorld", b"hello world"), expected);
    }
}
