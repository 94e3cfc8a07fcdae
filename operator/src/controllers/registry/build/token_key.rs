// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The Secret with the key that signs tokens.
//!
//! It is made once and never read or changed, so the operator needs no right to read Secrets. Making a key is chance,
//! which is why it comes from outside: what is built has none.

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::metadata;
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

/// The Secret, if the operator is to make it. Without a key it shows what it would be.
#[must_use]
pub fn build(valid: &Valid, pem: Option<String>) -> Option<Object> {
    if !valid.spec().has_own_token_key() {
        return None;
    }
    let key = valid.spec().token_key(&valid.name);
    let secret = Secret {
        metadata: metadata(valid, key.name, Component::Registry),
        type_: Some("Opaque".into()),
        data: pem.map(|pem| [(key.key, ByteString(pem.into_bytes()))].into()),
        ..Secret::default()
    };
    Some(Object::typed(Kind::Secret, &secret))
}
