// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The `ConfigMap` that carries the policy document to the replicas.

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

/// The key that holds the document.
pub const DOCUMENT: &str = "document.json";
/// The key that holds its hash.
pub const HASH: &str = "hash";

pub(super) fn build(valid: &Valid) -> Object {
    let data =
        [(DOCUMENT.to_owned(), valid.document.json.clone()), (HASH.to_owned(), valid.document.hash.clone())];
    let config = ConfigMap {
        metadata: metadata(valid, valid.names().config(), Component::Registry),
        data: Some(data.into()),
        ..ConfigMap::default()
    };
    Object::typed(Kind::ConfigMap, &config)
}
