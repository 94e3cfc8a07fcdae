// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who may use a registry, and over which certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{KeyRef, SecretRef};

/// Who may use a registry. Without any field: nobody but what access policies grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Auth {
    /// What everybody may do on every repository, without a credential.
    #[serde(default)]
    pub anonymous: Anonymous,
    /// Users with passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<Htpasswd>,
    /// The bearer tokens that the registry itself issues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// What everybody may do without a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Anonymous {
    /// Nothing.
    #[default]
    None,
    /// Pull from every repository.
    Pull,
    /// Pull from and push to every repository.
    PullPush,
}

/// Users with passwords, as Apache's htpasswd writes them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Htpasswd {
    /// Lines `user:hash` with bcrypt or argon2id.
    pub secret_ref: KeyRef,
    /// Lines `group: user user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_secret_ref: Option<KeyRef>,
}

/// The bearer tokens that the registry itself issues.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// One or two EC P-256 keys in PEM; the first signs, all verify. Absent `tokens`: made by the operator.
    pub signing_key_secret_ref: KeyRef,
}

/// TLS on the data and admin ports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Secret with `tls.crt` and `tls.key`.
    pub secret_ref: SecretRef,
    /// Certificate authorities of clients. When set, a client certificate is required.
    #[serde(rename = "clientCASecretRef", default, skip_serializing_if = "Option::is_none")]
    pub client_ca_secret_ref: Option<KeyRef>,
}
