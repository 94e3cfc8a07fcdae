// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `AccessPolicy`: who may do what on which repositories of a Registry.
//!
//! Nothing is allowed unless a policy or `auth.anonymous` of the Registry says so; there is no deny rule, and
//! actions do not imply each other.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Empty, Glob, Ref};

/// Who may do what on which repositories.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "AccessPolicy",
    plural = "accesspolicies",
    shortname = "ocipol",
    category = "oci",
    namespaced,
    status = "AccessPolicyStatus",
    derive = "PartialEq",
    doc = "Grants subjects actions on repositories of a Registry. What no policy grants is denied.",
    selectable = ".spec.registryRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Registry", type_ = "string", json_path = ".spec.registryRef.name"),
    printcolumn(name = "Actions", type_ = "string", json_path = ".spec.actions"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicySpec {
    /// The Registry it is for, in the same namespace. Cannot change.
    pub registry_ref: Ref,
    /// The repositories it covers: `*` and `?` within a component, `**` for one or more whole components.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub repositories: Vec<Glob>,
    /// Who is granted the actions; any of them.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub subjects: Vec<Subject>,
    /// What they may do. No action implies another.
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<Action>,
    /// While true the policy grants nothing.
    #[serde(default)]
    pub suspend: bool,
}

/// What a subject may do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Action {
    /// Read blobs, manifests, tags and referrers.
    Pull,
    /// Upload blobs and manifests, set tags.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
    /// Ask for promotions into the repository, on the admin port; the source needs `Pull`.
    Promote,
    /// See plans and what was deleted, and restore it, on the admin port.
    Administer,
}

/// One subject; exactly one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Subject {
    /// A user by name, as authentication gives it: `alice` of htpasswd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub user: Option<String>,
    /// A group by name, as authentication gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub group: Option<String>,
    /// Whoever presents no credential, and so everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Empty>,
    /// Whoever presents a valid credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<Empty>,
}

/// A [`Subject`] of which exactly one field was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind<'a> {
    /// The user of this name.
    User(&'a str),
    /// Every member of the group of this name.
    Group(&'a str),
    /// Everybody, without a credential too.
    Anonymous,
    /// Everybody with a valid credential.
    Authenticated,
}

impl Subject {
    /// Which kind of subject this is; `None` unless exactly one known field is set, and such a subject matches
    /// nobody.
    #[must_use]
    pub fn kind(&self) -> Option<SubjectKind<'_>> {
        match (&self.user, &self.group, self.anonymous, self.authenticated) {
            (Some(user), None, None, None) => Some(SubjectKind::User(user)),
            (None, Some(group), None, None) => Some(SubjectKind::Group(group)),
            (None, None, Some(_), None) => Some(SubjectKind::Anonymous),
            (None, None, None, Some(_)) => Some(SubjectKind::Authenticated),
            _ => None,
        }
    }
}

/// What the operator saw of an `AccessPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicyStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Echo of the annotation `stowage.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_with_two_fields_or_none_matches_nobody() {
        let user = Subject { user: Some("alice".to_owned()), ..Subject::default() };
        assert_eq!(user.kind(), Some(SubjectKind::User("alice")));
        let both = Subject { anonymous: Some(Empty {}), ..user };
        assert_eq!(both.kind(), None);
        assert_eq!(Subject::default().kind(), None);
    }
}
