// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `VirtualRepository`: one path over several sources, by precedence.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat the names of their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DigestText, Glob, ItemName, MountPath, Ref, Repository, TagName};

/// One path over several sources, by precedence.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "stowage.dev",
    version = "v1alpha1",
    kind = "VirtualRepository",
    plural = "virtualrepositories",
    shortname = "vrepo",
    category = "oci",
    namespaced,
    status = "VirtualRepositoryStatus",
    derive = "PartialEq",
    doc = "One path over several sources of a Registry: its own repositories and mirrors, by precedence.",
    selectable = ".spec.registryRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Registry", type_ = "string", json_path = ".spec.registryRef.name"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Push-To", type_ = "string", json_path = ".spec.pushTo"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRepositorySpec {
    /// The Registry it is for, in the same namespace. Cannot change.
    pub registry_ref: Ref,
    /// What its names begin with: `<path>/x` is `x` in a member. Cannot change.
    pub path: MountPath,
    /// Where names are looked for; the first that has one wins.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub members: Vec<Member>,
    /// The member that takes pushes; one with `repository`. Absent: nobody can push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_to: Option<ItemName>,
    /// Which tags are listed.
    #[serde(default)]
    pub tag_resolution: TagResolution,
    /// Whether mirrors are asked for tags of a name that a member with `repository` has.
    #[serde(default)]
    pub remote_shadowing: RemoteShadowing,
    /// Tags that name what is said here, whatever members have by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["repository", "tag"])
    )]
    pub pins: Vec<Pin>,
    /// While true its paths answer 503.
    #[serde(default)]
    pub suspend: bool,
}

/// One source of a virtual repository; exactly one of `repository` and `mirrorRef` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name, once in the list.
    pub name: ItemName,
    /// A prefix of the Registry's own repositories: `x` is `<repository>/x` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// A Mirror of the same Registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_ref: Option<Ref>,
    /// Which `x` it is asked for. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub include: Vec<Glob>,
    /// Which of these it is not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<Glob>,
}

/// A tag that names one manifest, for as long as this stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Pin {
    /// The name below the path: `x`.
    pub repository: Repository,
    /// The tag.
    pub tag: TagName,
    /// What it names.
    pub digest: DigestText,
}

/// Which tags of a name are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TagResolution {
    /// Those of the first member that has the name.
    #[default]
    FirstMember,
    /// Those of all members.
    MergeTags,
}

/// Whether a mirror may answer for a name that exists here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RemoteShadowing {
    /// It may not, whatever the precedence and whether or not the client may read what is here.
    #[default]
    Forbid,
    /// It may, by precedence.
    Allow,
}

impl VirtualRepositorySpec {
    /// Mirrors that take any name and come before a member with `repository`, if that is allowed at all: each could
    /// answer for a name of ours.
    #[must_use]
    pub fn shadowing_members(&self) -> Vec<&str> {
        let last_local = self.members.iter().rposition(|member| member.repository.is_some()).unwrap_or(0);
        let allowed = self.remote_shadowing == RemoteShadowing::Allow;
        let before = self.members.iter().take(if allowed { last_local } else { 0 });
        let shadowing = before.filter(|member| member.mirror_ref.is_some() && member.include.is_empty());
        shadowing.map(|member| member.name.as_str()).collect()
    }
}

/// What the operator saw of a `VirtualRepository`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRepositoryStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Echo of the annotation `stowage.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Host and path under which clients pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Members that do not work as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
}

/// A member that does not work as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// `False`.
    pub ready: String,
    /// Why, in one CamelCase word.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(members: &serde_json::Value, shadowing: &str) -> VirtualRepositorySpec {
        serde_json::from_value(json!({
            "registryRef": { "name": "main" }, "path": "all", "members": members, "remoteShadowing": shadowing,
        }))
        .unwrap()
    }

    #[test]
    fn a_mirror_of_any_name_before_a_local_member_is_reported_where_it_is_allowed() {
        let members = json!([
            { "name": "hub", "mirrorRef": { "name": "hub" } },
            { "name": "some", "mirrorRef": { "name": "quay" }, "include": ["acme/*"] },
            { "name": "team", "repository": "team" },
            { "name": "rest", "mirrorRef": { "name": "rest" } },
        ]);
        assert_eq!(spec(&members, "Allow").shadowing_members(), ["hub"]);
        assert!(spec(&members, "Forbid").shadowing_members().is_empty());
        let mirrors = json!([{ "name": "hub", "mirrorRef": { "name": "hub" } }]);
        assert!(spec(&mirrors, "Allow").shadowing_members().is_empty());
    }
}
