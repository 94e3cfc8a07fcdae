// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The identity of the replicas: the place where a cloud's identity is bound. It has no rights in the cluster.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

pub(super) fn build(valid: &Valid) -> Object {
    let mut metadata = metadata(valid, valid.names().main(), Component::Registry);
    let annotations = valid.spec().service_account.as_ref().map(|account| account.annotations.0.clone());
    metadata.annotations = annotations.filter(|annotations| !annotations.is_empty());
    let account = ServiceAccount {
        metadata,
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    Object::typed(Kind::ServiceAccount, &account)
}
