// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whose signatures count, where something must be signed.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    check::{FieldPath, Violation},
    text::{ItemName, PublicKeyPem},
};

/// Which images are accepted: those that one of the keys signed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Whose signatures these are.
    #[serde(default)]
    pub provider: SignatureProvider,
    /// The keys. A signature by any of them suffices.
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub keys: Vec<PublicKey>,
}

/// Whose signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SignatureProvider {
    /// Those of cosign, made with a key: as bundles that refer to the image, and under tags such as `sha256-….sig`.
    #[default]
    Cosign,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublicKey {
    /// What it is called in messages.
    pub name: ItemName,
    /// The key in PEM, as `cosign public-key` prints it: ECDSA on P-256, P-384 or P-521, RSA of 2048 bits or more, or
    /// Ed25519.
    pub public_key: PublicKeyPem,
}

/// The text is not a public key that signatures can be verified with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPublicKey {
    /// Not one block of PEM, or not that of a public key.
    #[error(
        "must be one public key in PEM, from BEGIN PUBLIC KEY to END PUBLIC KEY, as cosign public-key prints it"
    )]
    Pem,
    /// Of another kind.
    #[error(
        "is no key that is known here: use ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519"
    )]
    Kind,
}

/// Of each kind of key that is known, a way to verify with it.
static KINDS: [&dyn VerificationAlgorithm; 5] = [
    &ECDSA_P256_SHA256_ASN1,
    &ECDSA_P384_SHA384_ASN1,
    &ECDSA_P521_SHA512_ASN1,
    &RSA_PKCS1_2048_8192_SHA256,
    &ED25519,
];

impl PublicKeyPem {
    /// The key as a SubjectPublicKeyInfo in DER (RFC 5280).
    pub fn der(&self) -> Result<Vec<u8>, NotAPublicKey> {
        let mut keys = SubjectPublicKeyInfoDer::pem_slice_iter(self.as_str().as_bytes());
        let (Some(Ok(key)), None) = (keys.next(), keys.next()) else { return Err(NotAPublicKey::Pem) };
        let is_known = KINDS.iter().any(|kind| ParsedPublicKey::new(*kind, &key).is_ok());
        if is_known { Ok(key.to_vec()) } else { Err(NotAPublicKey::Kind) }
    }
}

/// Keys that are none.
pub(crate) fn problems(at: &FieldPath, wanted: &Verification) -> Vec<Violation> {
    keyless(at, &wanted.keys)
}

/// The same in a list `keys` of `at`.
pub(crate) fn keyless(at: &FieldPath, keys: &[PublicKey]) -> Vec<Violation> {
    let list = at.field("keys");
    let problem = |(place, key): (usize, &PublicKey)| {
        let message = key.public_key.der().err()?.to_string();
        Some(Violation { path: list.item(place).field("publicKey"), message })
    };
    keys.iter().enumerate().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of keys that were made for this test, by OpenSSL.
    const P256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOwZyhh+ivCw5y35hvhtdJoaIeTGP\nVhQzqEFQYt4YQL8mabq/EmpXWmrMvjqqgjuaQzQfFGjveqpYLpFG9atbkQ==\n-----END PUBLIC KEY-----\n";
    const ED25519_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA8a4+Re1P+oH+YJgPUfFObfH87ekJqpGlM6cVsj0aHKw=\n-----END PUBLIC KEY-----\n";
    /// X25519: it agrees on keys, and signs nothing.
    const X25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAtsr6cdhAkPi7KWfTNe734s6zR4z2/mDb8egl/Lgu/gg=\n-----END PUBLIC KEY-----\n";

    fn der(text: &str) -> Result<usize, NotAPublicKey> {
        PublicKeyPem::from(text).der().map(|der| der.len())
    }

    #[test]
    fn keys_that_signatures_can_be_verified_with_are_taken() {
        assert_eq!((der(P256), der(ED25519_KEY)), (Ok(91), Ok(44)));
    }

    #[test]
    fn what_is_no_such_key_is_refused_with_its_place() {
        let [head, middle, tail] =
            ["-----BEGIN PUBLIC KEY-----\n", "bm8gZGVy\n", "-----END PUBLIC KEY-----\n"];
        assert_eq!(der(&[head, middle].concat()), Err(NotAPublicKey::Pem));
        assert_eq!(der(&[P256, P256].concat()), Err(NotAPublicKey::Pem), "two");
        assert_eq!(der(&[head, middle, tail].concat()), Err(NotAPublicKey::Kind));
        assert_eq!(der(X25519), Err(NotAPublicKey::Kind));
        let key = |name: &str, text: &str| PublicKey { name: name.into(), public_key: text.into() };
        let wanted = Verification {
            provider: SignatureProvider::Cosign,
            keys: vec![key("a", P256), key("b", X25519)],
        };
        let found = problems(&FieldPath::from("spec.verify"), &wanted);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path.as_str(), "spec.verify.keys[1].publicKey");
    }
}
