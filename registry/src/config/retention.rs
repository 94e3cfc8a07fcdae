// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The retention policies of the document → values that hold.

use std::collections::HashSet;
use std::time::Duration;

use stowage_crds::document::{Document, Entry, Schedules};
use stowage_crds::paths::below;
use stowage_crds::{
    KeepRule, MirrorMode, MirrorUpstream, MountPath, RecentBy, RetentionMode, RetentionPolicySpec,
    RetentionReferrers, Schedule,
};
use stowage_oci::{Algorithm, Digest, Name};

use super::build::{field, globs, immutability, listed, tags};
use super::error::ConfigError;
use super::virtuals::{Source, Virtual};
use crate::operation::Mode;
use crate::retention::{
    By, Immutable, Limits, MostRecent, Policies, Policy, PolicyMode, Promoted, Referrers, Rule,
};
use crate::upstream::Settings;

/// What runs of retention go by.
#[derive(Clone, Debug)]
pub struct Retention {
    /// All policies.
    pub policies: Policies,
    /// What virtual repositories pin, by the names of the repositories that have it.
    pub pinned: HashSet<(Name, Digest)>,
    /// Which tags keep their digest and may not be deleted.
    pub immutable: Vec<Immutable>,
    /// Paths of mirrors that pull through: what goes below them comes again, and needs no trash.
    pub fetched: Vec<Name>,
    /// Paths of mirrors that copy: policies say nothing of what is below them.
    pub copied: Vec<Name>,
    /// How long deleted tags and manifests can be restored.
    pub retain_for: Duration,
    /// Which changes the registry takes.
    pub mode: Mode,
    /// The policies of which this process starts runs, and when; `None`, of one that is suspended: only when somebody
    /// asks. None where Kubernetes starts them.
    pub due: Vec<(String, Option<Schedule>)>,
}

impl Retention {
    /// Why the registry lets no run delete anything.
    #[must_use]
    pub const fn forbidden(&self) -> Option<&'static str> {
        match self.mode {
            Mode::ReadWrite => None,
            Mode::NoDelete => Some(
                "the registry is NoDelete, so no policy deletes anything: set its mode to ReadWrite, or the policy's to \
                 DryRun",
            ),
            Mode::ReadOnly => Some(
                "the registry is ReadOnly, so no policy deletes anything: set its mode to ReadWrite, or the policy's to \
                 DryRun",
            ),
        }
    }

    /// How long what is deleted of a repository can be restored.
    #[must_use]
    pub fn retained(&self, repository: &Name) -> Duration {
        if is_below_one(&self.fetched, repository) { Duration::ZERO } else { self.retain_for }
    }

    /// Whether policies say anything of a repository.
    #[must_use]
    pub fn rules(&self, repository: &Name) -> bool {
        !is_below_one(&self.copied, repository)
    }
}

fn is_below_one(paths: &[Name], repository: &Name) -> bool {
    paths.iter().any(|path| below(repository, path).is_some())
}

pub(super) fn retention(
    document: &Document,
    virtuals: &[Virtual],
    mode: Mode,
) -> Result<Retention, ConfigError> {
    let policies = document.retention_policies.iter().map(policy).collect::<Result<_, _>>()?;
    Ok(Retention {
        policies: Policies::new(policies),
        pinned: pinned(document, virtuals),
        immutable: immutable(document)?,
        fetched: paths(document, MirrorMode::PullThrough)?,
        copied: paths(document, MirrorMode::Replicate)?,
        retain_for: document.registry.spec.trash().retain_for.to_std(),
        mode,
        due: due(document)?,
    })
}

/// Rules that not even retention passes over.
fn immutable(document: &Document) -> Result<Vec<Immutable>, ConfigError> {
    let rules = immutability(&document.registry.spec)?;
    let strict = rules.into_iter().filter(|rule| !rule.retention_deletes);
    let rules = strict.map(|rule| Immutable {
        repositories: rule.repositories,
        tags: rule.tags,
        signature_tags: rule.signature_tags,
    });
    Ok(rules.collect())
}

fn paths(document: &Document, mode: MirrorMode) -> Result<Vec<Name>, ConfigError> {
    let of_mode = document.mirrors.iter().filter(|entry| entry.spec.mode == mode);
    let paths = of_mode.filter_map(|entry| Some((&entry.name, entry.spec.path.as_ref()?)));
    let parsed = paths
        .map(|(name, path)| path.parse().map_err(|error| field(format!("Mirror {name}: spec.path"), error)));
    parsed.collect()
}

/// What is pinned, below each member that may have it, by each name that the member may have it by.
fn pinned(document: &Document, virtuals: &[Virtual]) -> HashSet<(Name, Digest)> {
    let mut pinned = HashSet::new();
    for of in virtuals {
        for member in &of.members {
            let mirror = match &member.source {
                Source::Local(_) | Source::Copied(_) => None,
                Source::Mirror(name) => document.mirrors.iter().find(|entry| entry.name == *name),
            };
            let prefix = match &member.source {
                Source::Local(prefix) | Source::Copied(prefix) => Some(prefix.as_str()),
                Source::Mirror(_) => mirror.and_then(|of| of.spec.path.as_ref()).map(MountPath::as_str),
            };
            let Some(prefix) = prefix else { continue };
            for pin in &of.pins {
                let meant = mirror.and_then(|of| meant(&of.spec.upstream, &pin.repository));
                for repository in [&pin.repository].into_iter().chain(&meant) {
                    // A name that is too long nobody has.
                    let name = format!("{prefix}/{repository}").parse().ok();
                    pinned.extend(name.map(|name| (name, pin.digest)));
                }
            }
        }
    }
    pinned
}

/// What an upstream calls a repository: a mirror stores it by that name.
fn meant(upstream: &MirrorUpstream, name: &Name) -> Option<Name> {
    let origin = upstream.url.as_str().parse().ok()?;
    let hosts = upstream.hosts.iter().map(ToString::to_string).collect();
    Some(Settings { hosts, ..Settings::new(origin, "") }.meant(name))
}

fn due(document: &Document) -> Result<Vec<(String, Option<Schedule>)>, ConfigError> {
    if document.runtime.schedules == Schedules::Jobs {
        return Ok(Vec::new());
    }
    let schedules = document.retention_policies.iter().map(|entry| {
        if entry.spec.suspend {
            return Ok((entry.name.clone(), None));
        }
        let schedule = Schedule::new(&entry.spec.schedule, entry.spec.time_zone.as_ref());
        let at = format!("RetentionPolicy {}: spec.schedule", entry.name);
        Ok((entry.name.clone(), Some(schedule.map_err(|problem| field(at, problem))?)))
    });
    schedules.collect()
}

fn policy(entry: &Entry<RetentionPolicySpec>) -> Result<Policy, ConfigError> {
    let spec = &entry.spec;
    let at = |path: &str| format!("RetentionPolicy {}: spec.{path}", entry.name);
    let limits = spec.limits();
    let rules = spec.keep.iter().enumerate();
    let rules = rules.map(|(place, asked)| rule(&at(&format!("keep[{place}]")), asked));
    Ok(Policy {
        name: entry.name.clone(),
        include: globs(&at("repositories.include"), &spec.repositories.include)?,
        exclude: globs(&at("repositories.exclude"), &spec.repositories.exclude)?,
        mode: match spec.mode {
            RetentionMode::DryRun => PolicyMode::DryRun,
            RetentionMode::Enforce => PolicyMode::Enforce,
        },
        suspended: spec.suspend,
        keep: rules.collect::<Result<_, _>>()?,
        min_age: spec.min_age.to_std(),
        untagged: spec.untagged.as_ref().map(|untagged| untagged.delete_after.to_std()),
        referrers: match spec.referrers {
            RetentionReferrers::FollowSubject => Referrers::FollowSubject,
            RetentionReferrers::Keep => Referrers::Keep,
        },
        limits: Limits {
            deletions: u64::try_from(limits.max_deletions_per_run).unwrap_or_default(),
            percent: u64::try_from(limits.max_delete_percent).unwrap_or_default(),
        },
        hash: hash(spec),
    })
}

/// Of what decides which tags go. Mode, limits, schedule and suspension do not.
fn hash(spec: &RetentionPolicySpec) -> Digest {
    let RetentionPolicySpec { repositories, keep, min_age, untagged, referrers, .. } = spec;
    // Fields are written in the order of their types, so that equal rules are equal bytes.
    let rules = serde_json::to_vec(&(repositories, keep, min_age, untagged, referrers));
    Digest::of(Algorithm::Sha256, &rules.expect("a spec is JSON"))
}

fn rule(at: &str, asked: &KeepRule) -> Result<Rule, ConfigError> {
    let path = |name: &str| format!("{at}.{name}");
    let tags = tags(&path("tags"), asked.tags.as_ref())?;
    let promoted = asked.promoted.as_ref().map(|promoted| {
        Ok(Promoted {
            to: globs(&path("promoted.to"), &promoted.to)?,
            within: promoted.within.as_ref().map(stowage_crds::Duration::to_std),
        })
    });
    let most_recent = asked.most_recent.as_ref().map(|recent| {
        let groups = recent.group_by.as_ref().map(|groups| groups.as_str().parse());
        Ok(MostRecent {
            count: usize::try_from(recent.count).unwrap_or_default(),
            by: match recent.by {
                RecentBy::Pushed => By::Pushed,
                RecentBy::Pulled => By::Pulled,
                RecentBy::Version => By::Version,
            },
            groups: groups.transpose().map_err(|error| field(path("mostRecent.groupBy"), error))?,
        })
    });
    Ok(Rule {
        name: asked.name.to_string(),
        tags,
        labels: asked.labels.as_ref().map(|labels| labels.match_labels.0.clone()).unwrap_or_default(),
        pushed_within: asked.pushed_within.as_ref().map(stowage_crds::Duration::to_std),
        pulled_within: asked.pulled_within.as_ref().map(stowage_crds::Duration::to_std),
        promoted: promoted.transpose()?,
        most_recent: most_recent.transpose()?,
    })
}

/// That of a name; which there are, if there is none.
pub(super) fn ensure_known(retention: &Retention, name: &str) -> Result<(), ConfigError> {
    if retention.policies.named(name).is_some() {
        return Ok(());
    }
    let names = retention.policies.iter().map(|policy| policy.name.as_str());
    Err(field(
        "--policy",
        format!("there is no RetentionPolicy {name:?}; of this Registry: {}", listed(names)),
    ))
}
