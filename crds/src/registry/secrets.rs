// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which Secrets a replica reads, and which of their keys.

use std::collections::BTreeSet;

use super::RegistrySpec;
use crate::KeyRef;

/// A Secret that a replica reads: the folder `<secrets-dir>/<name>/` with these files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The field of the spec that names it.
    pub path: &'static str,
    /// Its name.
    pub name: String,
    /// The keys that it must have.
    pub keys: Vec<String>,
}

impl SecretUse {
    fn new(path: &'static str, name: &str, keys: &[&str]) -> Self {
        Self { path, name: name.to_owned(), keys: keys.iter().map(|key| (*key).to_owned()).collect() }
    }

    fn of_key(path: &'static str, key: &KeyRef) -> Self {
        Self::new(path, &key.name, &[&key.key])
    }
}

impl RegistrySpec {
    /// The Secrets that the spec names for a replica, in the order of its fields. The key of the registry's own
    /// tokens is [`RegistrySpec::token_key`].
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretUse> {
        let s3 = self.storage.s3.as_ref();
        let credentials = s3.and_then(|s3| s3.credentials_secret_ref.as_ref());
        let postgres = self.database.postgres.as_ref();
        let htpasswd = self.auth.as_ref().and_then(|auth| auth.htpasswd.as_ref());
        let tls = self.tls.as_ref();
        let key = |path, key: Option<&KeyRef>| key.map(|key| SecretUse::of_key(path, key));
        [
            credentials.map(|secret| {
                let path = "spec.storage.s3.credentialsSecretRef";
                SecretUse::new(path, &secret.name, &["accessKeyId", "secretAccessKey"])
            }),
            key("spec.storage.s3.caSecretRef", s3.and_then(|s3| s3.ca_secret_ref.as_ref())),
            key("spec.database.postgres.urlSecretRef", postgres.map(|postgres| &postgres.url_secret_ref)),
            key(
                "spec.database.postgres.caSecretRef",
                postgres.and_then(|postgres| postgres.ca_secret_ref.as_ref()),
            ),
            key("spec.auth.htpasswd.secretRef", htpasswd.map(|htpasswd| &htpasswd.secret_ref)),
            key(
                "spec.auth.htpasswd.groupsSecretRef",
                htpasswd.and_then(|users| users.groups_secret_ref.as_ref()),
            ),
            tls.map(|tls| {
                SecretUse::new("spec.tls.secretRef", &tls.secret_ref.name, &["tls.crt", "tls.key"])
            }),
            key("spec.tls.clientCASecretRef", tls.and_then(|tls| tls.client_ca_secret_ref.as_ref())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Where the keys of the registry's own tokens are, for the Registry of this name. Unless the spec says
    /// otherwise it is a Secret that the operator makes.
    #[must_use]
    pub fn token_key(&self, registry: &str) -> KeyRef {
        let named = self.auth.as_ref().and_then(|auth| auth.tokens.as_ref());
        let own = || KeyRef { name: format!("{registry}-token-key"), key: "keys.pem".to_owned() };
        named.map_or_else(own, |tokens| tokens.signing_key_secret_ref.clone())
    }

    /// Whether the operator makes the Secret of [`RegistrySpec::token_key`].
    #[must_use]
    pub fn has_own_token_key(&self) -> bool {
        self.auth.as_ref().is_none_or(|auth| auth.tokens.is_none())
    }

    /// The names of all Secrets that a replica of this Registry reads, once each.
    #[must_use]
    pub fn secret_names(&self, registry: &str) -> BTreeSet<String> {
        let named = self.secrets().into_iter().map(|secret| secret.name);
        named.chain([self.token_key(registry).name]).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(fields: &serde_json::Value) -> RegistrySpec {
        let mut spec = json!({
            "externalURL": "https://registry.example.com",
            "storage": { "s3": { "bucket": "blobs", "credentialsSecretRef": { "name": "s3" } } },
            "database": { "postgres": { "urlSecretRef": { "name": "pg", "key": "uri" } } },
        });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn every_reference_to_a_secret_for_replicas_is_listed() {
        let spec = spec(&json!({
            "auth": { "htpasswd": { "secretRef": { "name": "users", "key": "passwords" },
                                    "groupsSecretRef": { "name": "users", "key": "groups" } } },
            "tls": { "secretRef": { "name": "tls" }, "clientCASecretRef": { "name": "ca", "key": "ca.crt" } },
            "image": { "pullSecretRefs": [{ "name": "pull" }] },
            "expose": { "ingress": { "tlsSecretRef": { "name": "web" } } },
        }));
        let found: Vec<_> =
            spec.secrets().into_iter().map(|secret| (secret.name, secret.keys.join(" "))).collect();
        let expected = [
            ("s3", "accessKeyId secretAccessKey"),
            ("pg", "uri"),
            ("users", "passwords"),
            ("users", "groups"),
            ("tls", "tls.crt tls.key"),
            ("ca", "ca.crt"),
        ];
        assert_eq!(found, expected.map(|(name, keys)| (name.to_owned(), keys.to_owned())));
        let names = spec.secret_names("main");
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["ca", "main-token-key", "pg", "s3", "tls", "users"]
        );
    }

    #[test]
    fn the_token_key_is_the_operators_unless_the_spec_names_one() {
        let own = spec(&json!({ "auth": {} }));
        assert!(own.has_own_token_key());
        assert_eq!(own.token_key("main").name, "main-token-key");
        let named =
            spec(&json!({ "auth": { "tokens": { "signingKeySecretRef": { "name": "k", "key": "p" } } } }));
        assert!(!named.has_own_token_key());
        assert_eq!(named.token_key("main"), KeyRef { name: "k".to_owned(), key: "p".to_owned() });
    }
}
