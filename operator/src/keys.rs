// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! New keys that sign tokens. A key made here leaves the process towards the API server once, and is forgotten.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

/// A new P-256 private key as PEM.
#[must_use]
pub fn new_signing_key() -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .expect("the system's randomness does not fail, and the algorithm is built in");
    key.serialize_pem()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_differ_and_are_pem() {
        let (one, other) = (new_signing_key(), new_signing_key());
        assert!(one.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_ne!(one, other);
    }
}
