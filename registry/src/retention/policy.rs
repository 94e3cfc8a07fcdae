// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Policies as they hold: parsed, so that judging by them cannot fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use stowage_oci::{Algorithm, Digest, Glob, Name, TagGroups, TagSelection};

use super::Limits;

/// What a policy does with tags that nothing keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyMode {
    /// It tells them.
    DryRun,
    /// It deletes them.
    Enforce,
}

/// What becomes of a manifest whose subject is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referrers {
    /// It goes, too.
    FollowSubject,
    /// It stays.
    Keep,
}

/// Which tags of some repositories stay.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The repositories it is for.
    pub include: Vec<Glob>,
    /// Which of these it is not for.
    pub exclude: Vec<Glob>,
    /// Whether it deletes.
    pub mode: PolicyMode,
    /// Whether it is suspended: it deletes nothing, and its rules keep.
    pub suspended: bool,
    /// A tag stays if one of these keeps it.
    pub keep: Vec<Rule>,
    /// Nothing younger is deleted.
    pub min_age: Duration,
    /// How long after its last reference a manifest without tags is deleted; `None`: it stays.
    pub untagged: Option<Duration>,
    /// What becomes of referrers whose subject is gone.
    pub referrers: Referrers,
    /// How much a run may delete.
    pub limits: Limits,
    /// SHA-256 of what the user wrote of all this but mode, limits and suspension.
    pub hash: Digest,
}

impl Policy {
    /// Whether it is for this repository.
    #[must_use]
    pub fn matches(&self, repository: &Name) -> bool {
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(repository.as_str()));
        fits(&self.include) && !fits(&self.exclude)
    }
}

/// Conditions that hold together for tags that stay.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Which tags it is about.
    pub tags: TagSelection,
    /// What the image's labels or the manifest's annotations must say.
    pub labels: BTreeMap<String, String>,
    /// It was pushed less than so long ago.
    pub pushed_within: Option<Duration>,
    /// It was pulled less than so long ago.
    pub pulled_within: Option<Duration>,
    /// It was promoted.
    pub promoted: Option<Promoted>,
    /// It is among so many of those that all this holds for.
    pub most_recent: Option<MostRecent>,
}

/// Where to, and when, a tag must have been promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// Repositories.
    pub to: Vec<Glob>,
    /// Less than so long ago; `None`: ever.
    pub within: Option<Duration>,
}

/// The first tags in an order.
#[derive(Clone, Debug)]
pub struct MostRecent {
    /// How many of each group.
    pub count: usize,
    /// In which order.
    pub by: By,
    /// What tags are in one group; `None`: all.
    pub groups: Option<TagGroups>,
}

/// What is recent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// What was pushed last.
    Pushed,
    /// What was pulled last.
    Pulled,
    /// What has the highest version.
    Version,
}

/// Tags that keep their digest.
#[derive(Clone, Debug)]
pub struct Immutable {
    /// In which repositories.
    pub repositories: Vec<Glob>,
    /// Which tags.
    pub tags: TagSelection,
    /// Whether those of signatures are among them.
    pub signature_tags: bool,
}

/// All policies of a registry, by name.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Policy>);

impl Policies {
    /// In the order of their names, whatever order they come in.
    #[must_use]
    pub fn new(mut policies: Vec<Policy>) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Self(policies)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter()
    }

    /// That of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Policy> {
        self.0.iter().find(|policy| policy.name == name)
    }

    /// Those that match a repository.
    #[must_use]
    pub fn of(&self, repository: &Name) -> Vec<&Policy> {
        self.0.iter().filter(|policy| policy.matches(repository)).collect()
    }
}

/// One hash over the rules of several policies, which are in the order of their names.
pub(super) fn hash_of<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Digest {
    let lines = policies.into_iter().fold(String::new(), |mut lines, policy| {
        writeln!(lines, "{} {}", policy.name, policy.hash).expect("text takes text");
        lines
    });
    Digest::of(Algorithm::Sha256, lines.as_bytes())
}
