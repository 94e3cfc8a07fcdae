// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags that never name a second digest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Glob, TagSelector,
    check::{FieldPath, Violation},
};

/// Tags that can be pushed once: another digest is refused, the same one is not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImmutabilityRule {
    /// By what refusals name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// In which repositories.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub repositories: Vec<Glob>,
    /// Which tags. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagSelector>,
    /// Whether tags that stand for referrers, such as `sha256-….sig`, are among them: more of them come.
    #[serde(default)]
    pub signature_tags: SignatureTags,
    /// Who may delete them.
    #[serde(default)]
    pub deletion: ImmutableDeletion,
}

/// Whether a rule covers tags that stand for referrers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SignatureTags {
    /// It does not.
    #[default]
    Exempt,
    /// It does, like any other tag.
    Included,
}

/// Who may delete an immutable tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ImmutableDeletion {
    /// Nobody.
    #[default]
    Deny,
    /// A `RetentionPolicy`, and no client.
    RetentionOnly,
}

impl ImmutabilityRule {
    /// What is wrong with the tags of the rule at this place of the list.
    pub(crate) fn problem(&self, at: &FieldPath) -> Option<Violation> {
        self.tags.as_ref()?.parse(&at.field("tags")).err()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Kind, check};

    fn problems(tags: &Value) -> Vec<String> {
        let registry = json!({
            "apiVersion": crate::API_VERSION,
            "kind": "Registry",
            "metadata": { "name": "main" },
            "spec": {
                "externalURL": "https://registry.example.com",
                "storage": { "filesystem": {} },
                "database": { "sqlite": {} },
                "immutability": [
                    { "name": "all", "repositories": ["prod/**"] },
                    { "name": "some", "repositories": ["**"], "tags": tags },
                ],
            },
        });
        let violations = check::resource(Kind::Registry, None, &registry).err().unwrap_or_default();
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn p9_what_is_wrong_with_the_tags_of_a_rule_is_named() {
        for (tags, expected) in [
            (
                json!({ "semver": { "range": "newest" } }),
                "spec.immutability[1].tags.semver.range: not a range",
            ),
            (json!({ "regex": ["v1", "("] }), "spec.immutability[1].tags.regex[1]: not a regular expression"),
            (json!({ "exact": ["a"], "glob": ["b"] }), "spec.immutability[1].tags: exactly one of"),
            (json!({ "exclude": ["b"] }), "spec.immutability[1].tags: exactly one of"),
        ] {
            let found = problems(&tags);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        }
        assert_eq!(problems(&json!({ "semver": { "range": ">=1.0.0" } })), [""; 0]);
    }
}
