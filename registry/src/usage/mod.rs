// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What clusters run, and what must therefore stay.
//!
//! A run that deletes asks ([`for_run`]): the operator answers it with a file that names the run, other clusters have
//! reported beforehand. Guarantees: an answer is of after the run began, or there is none and the run refuses; one
//! cluster that did not report makes it refuse. What cannot be read is no answer.

mod file;
mod names;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};

use crate::auth::Subject;
use crate::meta::{self, RemoteUsage, Usages};

/// How long a run waits for its answer.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// What runs, or is about to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Manifests or configurations. Each protects the manifests that have it as their own digest or as their
    /// config's, indexes above, children below, and what refers to them, in every repository.
    pub digests: HashSet<Digest>,
    /// Tags. Each protects itself and what it names.
    pub names: HashSet<(Name, Tag)>,
}

impl Usage {
    fn add(&mut self, reference: &str, paths: &[Name]) {
        self.names.extend(names::names(reference, paths));
        let digest = reference.rsplit_once('@').and_then(|(_, digest)| digest.parse::<Digest>().ok());
        self.digests.extend(digest);
    }
}

/// Whose workloads keep what they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Whether the operator of this cluster answers.
    pub asks_operator: bool,
    /// Other clusters.
    pub remotes: Vec<Remote>,
    /// The paths of mirrors, of virtual repositories and of their members.
    pub paths: Vec<Name>,
}

/// Another cluster that reports what it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// Who may report for it.
    pub reporter: Subject,
    /// How old its report may be.
    pub max_age: Duration,
}

/// A run, and where its answer is looked for.
#[derive(Clone, Debug)]
pub struct Asker {
    /// By what the answer names it; `None`: nobody knows of it.
    pub uid: Option<String>,
    /// The folder of the answer.
    pub folder: PathBuf,
    /// How long it waits.
    pub patience: Duration,
}

/// Why a run does not know what runs. It must not delete.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It was not told.
    #[error("what runs is not known, so nothing is deleted: {0}")]
    Missing(String),
    /// What it was told does not hold any more, or not yet.
    #[error("what is known of what runs does not hold, so nothing is deleted: {0}")]
    Stale(String),
    /// The database did not say what other clusters reported.
    #[error(transparent)]
    Database(#[from] meta::Error),
}

impl Unanswered {
    /// The same, for another who is told.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Missing(why) => Self::Missing(why.clone()),
            Self::Stale(why) => Self::Stale(why.clone()),
            Self::Database(error) => Self::Database(error.again()),
        }
    }

    /// The word of a summary, if it is a refusal.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Missing(_) => Some("UsageReportMissing"),
            Self::Stale(_) => Some("UsageReportStale"),
            Self::Database(_) => None,
        }
    }
}

/// What runs, for a run that deletes. `None`: what runs is not protected. Waits for the operator.
pub async fn for_run(
    protection: Option<&Protection>,
    meta: &(impl Usages + ?Sized),
    asker: &Asker,
) -> Result<Option<Usage>, Unanswered> {
    let Some(protection) = protection else { return Ok(None) };
    let mut usage = Usage::default();
    if protection.asks_operator {
        let answer = file::awaited(asker).await?;
        usage.digests.extend(answer.digests.iter().filter_map(|digest| digest.parse::<Digest>().ok()));
        for reference in &answer.references {
            usage.add(reference, &protection.paths);
        }
    }
    if !protection.remotes.is_empty() {
        let reports = meta.usage_reports().await?;
        for remote in &protection.remotes {
            let report = current(remote, &reports)?;
            usage.digests.extend(&report.digests);
            for reference in &report.references {
                usage.add(reference, &protection.paths);
            }
        }
    }
    Ok(Some(usage))
}

/// Which of the other clusters has not reported for too long.
#[must_use]
pub fn stale<'a>(protection: &'a Protection, reports: &[RemoteUsage]) -> Option<&'a Remote> {
    protection.remotes.iter().find(|remote| current(remote, reports).is_err())
}

fn current<'a>(remote: &Remote, reports: &'a [RemoteUsage]) -> Result<&'a RemoteUsage, Unanswered> {
    let report = reports.iter().find(|report| report.remote == remote.name);
    let report = report.ok_or_else(|| {
        Unanswered::Missing(format!("cluster {:?} has never reported what it runs", remote.name))
    })?;
    if report.age > remote.max_age {
        return Err(Unanswered::Stale(format!(
            "cluster {:?} has not reported what it runs for longer than its maxAge of {:?}",
            remote.name, remote.max_age
        )));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_that_did_not_report_in_time_makes_a_run_refuse() {
        let remote = |name: &str| Remote {
            name: name.to_owned(),
            reporter: Subject::User(name.to_owned()),
            max_age: Duration::from_hours(1),
        };
        let report = |name: &str, minutes| RemoteUsage {
            remote: name.to_owned(),
            age: Duration::from_mins(minutes),
            digests: Vec::new(),
            references: Vec::new(),
        };
        let protection = Protection {
            asks_operator: false,
            remotes: vec![remote("one"), remote("two")],
            paths: Vec::new(),
        };
        let named = |reports: &[RemoteUsage]| stale(&protection, reports).map(|remote| remote.name.as_str());
        assert_eq!(named(&[report("one", 60), report("two", 0), report("other", 999)]), None);
        assert_eq!(named(&[report("one", 60)]), Some("two"));
        assert_eq!(named(&[report("one", 61), report("two", 0)]), Some("one"));
        let refused = current(&protection.remotes[0], &[report("one", 61)]).unwrap_err();
        assert_eq!(refused.reason(), Some("UsageReportStale"));
        assert_eq!(current(&protection.remotes[0], &[]).unwrap_err().reason(), Some("UsageReportMissing"));
    }
}
