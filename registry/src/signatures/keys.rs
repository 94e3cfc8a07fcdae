// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The keys whose signatures count.

use std::sync::Arc;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    VerificationAlgorithm,
};

use super::Flaw;

/// In which ways cosign signs with each kind of key. Of the larger curves older releases hashed with SHA-256.
static WAYS: [&[&dyn VerificationAlgorithm]; 5] = [
    &[&ECDSA_P256_SHA256_ASN1],
    &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
    &[&ECDSA_P521_SHA512_ASN1, &ECDSA_P521_SHA256_ASN1],
    &[&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256],
    &[&ED25519],
];

/// A public key.
#[derive(Clone, Debug)]
pub struct Key {
    name: String,
    der: Vec<u8>,
    /// Once for each way to verify with it.
    parsed: Vec<ParsedPublicKey>,
}

impl Key {
    /// A key by its `SubjectPublicKeyInfo` in DER (RFC 5280); `None`: of a kind that is not known here.
    #[must_use]
    pub fn new(name: &str, der: Vec<u8>) -> Option<Self> {
        let parsed = |way: &&'static dyn VerificationAlgorithm| ParsedPublicKey::new(*way, &der).ok();
        let mut ways = WAYS.iter().map(|ways| ways.iter().filter_map(parsed).collect::<Vec<_>>());
        let parsed = ways.find(|parsed| !parsed.is_empty())?;
        Some(Self { name: name.to_owned(), der, parsed })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.iter().any(|key| key.verify_sig(message, signature).is_ok())
    }

    fn verifies_digest(&self, digest: &Digest, signature: &[u8]) -> bool {
        self.parsed.iter().any(|key| key.verify_digest_sig(digest, signature).is_ok())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.der) == (&other.name, &other.der)
    }
}

impl Eq for Key {}

/// Keys, any of which suffices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Arc<[Key]>);

impl Keys {
    /// These.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys.into())
    }

    /// Each by itself, with its name.
    pub fn each(&self) -> impl Iterator<Item = (&str, Self)> {
        self.0.iter().map(|key| (key.name.as_str(), Self::new(vec![key.clone()])))
    }

    /// Which of them signed `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<&str, Flaw> {
        self.one(|key| key.verifies(message, signature))
    }

    /// Which of them signed what has this SHA-256.
    pub(super) fn verify_sha256(&self, hash: &[u8], signature: &[u8]) -> Result<&str, Flaw> {
        let digest = Digest::import_less_safe(hash, &SHA256);
        let digest = digest.map_err(|_length| Flaw::Unreadable("its digest is no SHA-256"))?;
        self.one(|key| key.verifies_digest(&digest, signature))
    }

    fn one(&self, verifies: impl Fn(&Key) -> bool) -> Result<&str, Flaw> {
        if let Some(key) = self.0.iter().find(|key| verifies(key)) {
            return Ok(&key.name);
        }
        let names: Vec<&str> = self.0.iter().map(|key| key.name.as_str()).collect();
        Err(Flaw::Key(names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa;
    use aws_lc_rs::signature::{
        ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PSS_SHA256,
    };

    use super::*;

    fn verified(key: &impl AsDer<PublicKeyX509Der<'static>>, signature: &[u8]) -> [bool; 2] {
        let der = key.as_der().unwrap().as_ref().to_vec();
        let keys = Keys::new(vec![Key::new("a", der).unwrap()]);
        [b"message", b"massage"].map(|message| keys.verify(message, signature).is_ok())
    }

    #[test]
    fn keys_of_each_kind_verify_what_they_signed_and_nothing_else() {
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let signature = ed25519.sign(b"message");
        assert_eq!(verified(ed25519.public_key(), signature.as_ref()), [true, false]);
        for algorithm in [&ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING] {
            let key = EcdsaKeyPair::generate(algorithm).unwrap();
            let signature = key.sign(&SystemRandom::new(), b"message").unwrap();
            assert_eq!(verified(key.public_key(), signature.as_ref()), [true, false]);
        }
        let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
        assert_eq!(verified(key.public_key(), &signature), [true, false]);
    }

    #[test]
    fn who_did_not_sign_is_named() {
        let keys = ["a", "b"].map(|name| {
            let key = Ed25519KeyPair::generate().unwrap();
            Key::new(name, key.public_key().as_der().unwrap().as_ref().to_vec()).unwrap()
        });
        let keys = Keys::new(keys.to_vec());
        assert_eq!(keys.verify(b"message", &[0; 64]), Err(Flaw::Key("a, b".to_owned())));
        assert!(Key::new("c", b"no key".to_vec()).is_none());
    }
}
