// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Resources that name a Registry: each kind is a list of entries in its document.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    AccessPolicy, AccessPolicySpec, Document, Kind, Mirror, MirrorSpec, PromotionPolicy, PromotionPolicySpec,
    Ref, RetentionPolicy, RetentionPolicySpec, VirtualRepository, VirtualRepositorySpec, document::Entry,
};

/// A resource that names a Registry.
pub trait Dependent:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug
{
    /// Its kind.
    const KIND: Kind;
    /// What people write.
    type Spec: Clone;

    /// A resource of this name and spec.
    fn of(name: &str, spec: Self::Spec) -> Self;
    /// What people wrote.
    fn spec(&self) -> &Self::Spec;
    /// The Registry it is for.
    fn registry_ref(&self) -> &Ref;
    /// The entries of this kind.
    fn entries(document: &Document) -> &[Entry<Self::Spec>];
}

macro_rules! dependent {
    ($kind:ident, $spec:ident, $entries:ident) => {
        impl Dependent for $kind {
            const KIND: Kind = Kind::$kind;
            type Spec = $spec;

            fn of(name: &str, spec: $spec) -> Self {
                Self::new(name, spec)
            }

            fn spec(&self) -> &$spec {
                &self.spec
            }

            fn registry_ref(&self) -> &Ref {
                &self.spec.registry_ref
            }

            fn entries(document: &Document) -> &[Entry<$spec>] {
                &document.$entries
            }
        }
    };
}

dependent!(AccessPolicy, AccessPolicySpec, access_policies);
dependent!(Mirror, MirrorSpec, mirrors);
dependent!(VirtualRepository, VirtualRepositorySpec, virtual_repositories);
dependent!(PromotionPolicy, PromotionPolicySpec, promotion_policies);
dependent!(RetentionPolicy, RetentionPolicySpec, retention_policies);

/// Resources that name a Registry, of every kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependents {
    /// Access policies.
    pub access_policies: Vec<AccessPolicy>,
    /// Mirrors.
    pub mirrors: Vec<Mirror>,
    /// Virtual repositories.
    pub virtual_repositories: Vec<VirtualRepository>,
    /// Promotion policies.
    pub promotion_policies: Vec<PromotionPolicy>,
    /// Retention policies.
    pub retention_policies: Vec<RetentionPolicy>,
}
