// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags that never name a second digest. Pure; where two pushes meet, the database decides.

use stowage_oci::{Glob, Name, Tag, TagSelection};

use super::Error;
use crate::signatures::subject_of;

/// Tags that can be pushed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImmutabilityRule {
    /// By what refusals name it.
    pub name: String,
    /// In which repositories.
    pub repositories: Vec<Glob>,
    /// Which tags.
    pub tags: TagSelection,
    /// Whether tags that stand for referrers are among them (W-286).
    pub signature_tags: bool,
}

impl ImmutabilityRule {
    fn covers(&self, repository: &Name, tag: &Tag) -> bool {
        self.repositories.iter().any(|glob| glob.matches(repository.as_str()))
            && self.tags.takes(tag)
            && (self.signature_tags || subject_of(tag).is_none())
    }
}

/// All rules of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Immutability(pub Vec<ImmutabilityRule>);

impl Immutability {
    /// The first rule that covers the tag.
    #[must_use]
    pub fn covering(&self, repository: &Name, tag: &Tag) -> Option<&ImmutabilityRule> {
        self.0.iter().find(|rule| rule.covers(repository, tag))
    }

    /// The refusal of what would change the tag.
    pub(super) fn refusal(&self, repository: &Name, tag: Tag) -> Error {
        let rule = self.covering(repository, &tag).map(|rule| rule.name.clone()).unwrap_or_default();
        Error::TagImmutable { tag, rule }
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::TagsWanted;

    use super::*;

    fn rule(name: &str, range: &str) -> ImmutabilityRule {
        ImmutabilityRule {
            name: name.to_owned(),
            repositories: vec!["prod/**".parse().unwrap()],
            tags: TagSelection {
                wanted: TagsWanted::Versions(range.parse().unwrap()),
                ..TagSelection::default()
            },
            signature_tags: false,
        }
    }

    #[test]
    fn w286_a_rule_covers_its_repositories_and_tags_and_no_signatures_unless_it_says_so() {
        let signature = format!("sha256-{}.sig", "0".repeat(64));
        let covered = |rules: &Immutability, repository: &str, tag: &str| {
            rules.covering(&repository.parse().unwrap(), &tag.parse().unwrap()).map(|rule| rule.name.clone())
        };
        let rules = Immutability(vec![rule("releases", ">=1.0.0")]);
        assert_eq!(covered(&rules, "prod/app", "v1.2"), Some("releases".to_owned()));
        for (repository, tag) in
            [("prod", "v1.2"), ("dev/app", "v1.2"), ("prod/app", "0.9"), ("prod/app", "latest")]
        {
            assert_eq!(covered(&rules, repository, tag), None, "{repository}:{tag}");
        }
        let all = |signature_tags| {
            Immutability(vec![ImmutabilityRule {
                tags: TagSelection::default(),
                signature_tags,
                ..rule("all", "*")
            }])
        };
        assert_eq!(covered(&all(false), "prod/app", &signature), None);
        assert_eq!(covered(&all(true), "prod/app", &signature), Some("all".to_owned()));
        assert_eq!(covered(&all(false), "prod/app", "latest"), Some("all".to_owned()), "no tag is special");
    }
}
