// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The mirrors of the document that replicate → values that hold.

use std::num::NonZeroU64;
use std::time::Duration;

use stowage_crds::conditions::Reason;
use stowage_crds::document::{Document, Entry, Schedules};
use stowage_crds::{
    Discover, Kind, MirrorArtifacts, MirrorMode, MirrorReferrers, MirrorSpec, MountPath, PlatformName, Prune,
    Schedule,
};
use stowage_oci::{Glob, Name, Platform, TagSelection};

use super::build::{field, globs, tags};
use super::error::ConfigError;
use super::live::Trouble;
use super::mirrors::{Upstream, keys, upstream};
use super::secrets::SecretsDir;
use crate::operation::Mode;
use crate::signatures::Keys;

/// A mirror that replicates.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Its name.
    pub name: String,
    /// What the names of its repositories begin with; `None`: they are those of the upstream.
    pub path: Option<Name>,
    /// The registry it copies.
    pub upstream: Upstream,
    /// What of it.
    pub artifacts: Vec<Artifacts>,
    /// Whether tags go that the upstream has no longer.
    pub prunes: bool,
    /// Whether what refers to an image is copied with it.
    pub with_referrers: bool,
    /// Images at the same time.
    pub parallelism: usize,
    /// Bytes of blobs a second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Paths of other mirrors and of virtual repositories.
    pub taken: Vec<Name>,
    /// Whose signatures an image must have; `None`: nobody's.
    pub keys: Option<Keys>,
    /// When this process starts a run; `None` while that is suspended, where Kubernetes starts the runs, and where they
    /// are only asked for.
    pub due: Option<Due>,
    /// Whether no run begins.
    pub is_suspended: bool,
}

impl Replication {
    /// Why the registry takes nothing of it in this mode: what is forbidden to clients is to mirrors, too.
    #[must_use]
    pub fn forbidden(&self, mode: Mode) -> Option<&'static str> {
        match mode {
            Mode::ReadOnly => Some(
                "the registry is ReadOnly, so nothing is copied: set its mode to ReadWrite, or suspend the mirror",
            ),
            Mode::NoDelete if self.prunes => Some(
                "the registry is NoDelete and the mirror prunes, so nothing is copied: set prune to Never, or the mode to \
                 ReadWrite",
            ),
            Mode::ReadWrite | Mode::NoDelete => None,
        }
    }
}

/// When runs begin.
#[derive(Clone, Debug)]
pub enum Due {
    /// At the times of a schedule.
    By(Schedule),
    /// So long after the last one ended.
    After(Duration),
}

/// Repositories, and what of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// Which repositories.
    pub repositories: Repositories,
    /// Which tags.
    pub tags: TagSelection,
    /// How many of the highest versions among them.
    pub newest: Option<usize>,
    /// For which platforms; none: for all.
    pub platforms: Vec<Platform>,
}

/// Which repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repositories {
    /// This one.
    One(Name),
    /// Those of the catalogue.
    Catalog {
        /// Which.
        include: Vec<Glob>,
        /// Which not.
        exclude: Vec<Glob>,
    },
    /// Those of an organization of Quay.
    Organization {
        /// Its name.
        name: String,
        /// Which not.
        exclude: Vec<Glob>,
    },
}

pub(super) fn replications(
    document: &Document,
    secrets: &SecretsDir,
) -> Result<Vec<Replication>, ConfigError> {
    let copies = |entry: &&Entry<MirrorSpec>| entry.spec.mode == MirrorMode::Replicate;
    document.mirrors.iter().filter(copies).map(|entry| replication(entry, document, secrets)).collect()
}

fn replication(
    entry: &Entry<MirrorSpec>,
    document: &Document,
    secrets: &SecretsDir,
) -> Result<Replication, ConfigError> {
    let spec = &entry.spec;
    let at = |path: &str| format!("Mirror {}: spec.{path}", entry.name);
    let limits = spec.limits();
    let artifacts = spec.artifacts.iter().enumerate();
    let artifacts =
        artifacts.map(|(place, asked)| self::artifacts(&at(&format!("artifacts[{place}]")), asked));
    let path = spec.path.as_ref().map(MountPath::parse).transpose();
    Ok(Replication {
        name: entry.name.clone(),
        path: path.map_err(|error| field(at("path"), error))?,
        upstream: upstream(entry, secrets)?,
        artifacts: artifacts.collect::<Result<_, _>>()?,
        prunes: spec.prune == Prune::RemovedUpstream,
        with_referrers: spec.referrers == MirrorReferrers::Include,
        parallelism: usize::try_from(limits.parallelism).unwrap_or(1).max(1),
        bytes_per_second: limits.bytes_per_second.and_then(|rate| NonZeroU64::new(rate.bytes())),
        taken: taken(&entry.name, document)?,
        keys: keys(entry)?,
        due: due(spec, document).map_err(|problem| field(at("schedule"), problem))?,
        is_suspended: spec.suspend,
    })
}

fn artifacts(at: &str, asked: &MirrorArtifacts) -> Result<Artifacts, ConfigError> {
    let tags = tags(&format!("{at}.tags"), asked.tags.as_ref())?;
    let platform = |(place, name): (usize, &PlatformName)| {
        name.as_str().parse().map_err(|error| field(format!("{at}.platforms[{place}]"), error))
    };
    Ok(Artifacts {
        repositories: repositories(at, asked)?,
        tags,
        newest: asked.newest.map(|newest| usize::try_from(newest).unwrap_or(1)),
        platforms: asked.platforms.iter().enumerate().map(platform).collect::<Result<_, _>>()?,
    })
}

fn repositories(at: &str, asked: &MirrorArtifacts) -> Result<Repositories, ConfigError> {
    let missing = || field(at.to_owned(), "exactly one of repository and discover must be set");
    if let Some(repository) = &asked.repository {
        let name = repository.parse().map_err(|error| field(format!("{at}.repository"), error))?;
        return Ok(Repositories::One(name));
    }
    let Discover { catalog, quay_organization, exclude } = asked.discover.as_ref().ok_or_else(missing)?;
    let exclude = globs(&format!("{at}.discover.exclude"), exclude)?;
    Ok(match quay_organization {
        Some(name) => Repositories::Organization { name: name.to_string(), exclude },
        None => {
            Repositories::Catalog { include: globs(&format!("{at}.discover.catalog"), catalog)?, exclude }
        }
    })
}

/// Paths of others.
fn taken(own: &str, document: &Document) -> Result<Vec<Name>, ConfigError> {
    let mirrors = document.mirrors.iter().filter(|entry| entry.name != own);
    let mirrors = mirrors.filter_map(|entry| Some((&entry.name, entry.spec.path.as_ref()?)));
    let virtuals = document.virtual_repositories.iter().map(|entry| (&entry.name, &entry.spec.path));
    let parsed = mirrors
        .chain(virtuals)
        .map(|(name, path)| path.parse().map_err(|error| field(format!("{name}: spec.path"), error)));
    parsed.collect()
}

fn due(spec: &MirrorSpec, document: &Document) -> Result<Option<Due>, stowage_crds::NotASchedule> {
    if document.runtime.schedules == Schedules::Jobs || spec.suspend {
        return Ok(None);
    }
    if let Some(cron) = &spec.schedule {
        return Schedule::new(cron, spec.time_zone.as_ref()).map(|schedule| Some(Due::By(schedule)));
    }
    Ok(spec.interval.as_ref().map(|pause| Due::After(pause.to_std())))
}

/// Mirrors whose runs this process would start, if the registry took anything.
pub(super) fn troubles(replications: &[Replication], mode: Mode) -> Vec<Trouble> {
    let forbidden = |replication: &Replication| {
        let message = replication.due.as_ref().and_then(|_| replication.forbidden(mode))?;
        let (kind, name) = (Kind::Mirror, replication.name.clone());
        Some(Trouble { kind, name, reason: Reason::Refused, message: message.to_owned() })
    };
    replications.iter().filter_map(forbidden).collect()
}

/// What the names of repositories begin with to which clients cannot push, because a mirror copies them.
pub(super) fn copied(replications: &[Replication]) -> Vec<Name> {
    replications.iter().filter_map(|replication| replication.path.clone()).collect()
}
