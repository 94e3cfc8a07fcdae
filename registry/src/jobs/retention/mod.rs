// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs of retention policies: a plan of all repositories that the policy matches, then, where nothing forbids it, the
//! deletion of what nothing keeps.
//!
//! Flow: trusted? → facts of a repository → verdicts → lines, one repository after the other → breaker, rules that were
//! told before → tags in batches, each looked at again → manifests without a tag → report.
//! Guarantees: nothing is deleted in a database that is not trusted, by rules that no earlier run told, beyond the limits
//! of the policy, or on account of what is missing: a policy or repository that is not there deletes nothing.
//! Memory: the tags of one repository, and as many of all as the limits let a run delete.
//! Never: deletes bytes. What it deletes rests in the trash, and `gc` takes it from there.

mod enforce;
mod gather;
mod labels;
mod schedule;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use stowage_crds::{Outcome, Summary};
use stowage_oci::{Digest, Name, Tag};

use super::gc::ensure_one_registry;
use super::{GcError, Run};
use crate::blobs::Store;
use crate::config::Retention;
use crate::config::explained;
use crate::key::{RunKind, RunName, RunOutcome};
use crate::meta::{self, Epoch, MetaStore, OutgoingTag, RetentionClock};
use crate::ops::metrics::RetentionMetrics;
use crate::reports::{self, Finished, Lines};
use crate::retention::{Involved, Policy, PolicyMode, Tally, TooMany};
use crate::usage::{Unanswered, Usage};

pub use schedule::{Retaining, retain_by_schedule};

/// How many repositories are listed at a time.
const PAGE: u32 = 500;
/// How far the clocks of the database and of processes may be apart, in milliseconds: less than the shortest time between
/// two runs.
const CLOCKS: u64 = 30_000;

/// Why a run has no plan, or did not carry it out to its end.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// Not now, not here: see its own words.
    #[error("nothing is deleted")]
    Frozen(#[source] meta::Error),
    /// Bucket and database are not one registry.
    #[error("nothing is deleted: {0}")]
    Foreign(String),
    /// The database did not answer.
    #[error(transparent)]
    Database(meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] crate::blobs::Error),
    /// A tombstone could not be written.
    #[error(transparent)]
    Removal(#[from] crate::outbox::Error),
    /// Nobody said what clusters run.
    #[error(transparent)]
    Unanswered(Unanswered),
    /// There is no such policy.
    #[error("there is no RetentionPolicy {0:?}")]
    Unknown(String),
    /// The report could not be made.
    #[error("the report cannot be written")]
    Report(#[from] io::Error),
}

impl RetentionError {
    /// Whether it did not act, for safety.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Frozen(_) | Self::Foreign(_) | Self::Unanswered(_))
    }

    /// The word for a refusal, if there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unanswered(why) => why.reason(),
            _ => None,
        }
    }
}

impl From<meta::Error> for RetentionError {
    fn from(error: meta::Error) -> Self {
        match error {
            meta::Error::Untrusted | meta::Error::Superseded | meta::Error::Live { .. } => {
                Self::Frozen(error)
            }
            other => Self::Database(other),
        }
    }
}

impl From<Unanswered> for RetentionError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Database(error) => error.into(),
            Unanswered::Missing(_) | Unanswered::Stale(_) => Self::Unanswered(why),
        }
    }
}

impl From<GcError> for RetentionError {
    fn from(error: GcError) -> Self {
        match error {
            GcError::Frozen(error) => Self::Frozen(error),
            GcError::Foreign(text) => Self::Foreign(text),
            GcError::Database(error) => Self::Database(error),
            GcError::Store(error) => Self::Store(error),
            GcError::Unanswered(why) => why.into(),
            GcError::Incomplete { first, .. } => Self::Foreign(first),
        }
    }
}

/// What a run may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionRun {
    /// Nothing at all: it tells its plan.
    Tell,
    /// What the policy says; and the report is kept.
    Act,
}

/// Why a run deleted nothing although it found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It was asked to tell its plan.
    Asked,
    /// The policy's mode.
    DryRun,
    /// The policy is suspended.
    Suspended,
    /// No earlier run told what these rules delete.
    FirstRunOfRules,
    /// More would be deleted than the limits allow.
    LimitExceeded(TooMany),
    /// The registry takes no deletions.
    Forbidden(&'static str),
}

impl Held {
    /// One word, for summaries and plans.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Asked | Self::DryRun => "DryRun",
            Self::Suspended => "Suspended",
            Self::FirstRunOfRules => "FirstRunOfRules",
            Self::LimitExceeded(_) => "LimitExceeded",
            Self::Forbidden(_) => "Refused",
        }
    }

    /// Whether a human must change something before a run deletes.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::LimitExceeded(_) | Self::Forbidden(_))
    }

    /// For a human; nothing where the word says it all.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Asked | Self::DryRun | Self::Suspended => None,
            Self::FirstRunOfRules => Some(
                "no earlier run told what these rules delete: nothing was deleted, and the next run with the same rules \
                 deletes"
                    .to_owned(),
            ),
            Self::LimitExceeded(error) => Some(error.to_string()),
            Self::Forbidden(text) => Some((*text).to_owned()),
        }
    }
}

/// A line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanLine<'a> {
    /// The repository.
    pub repository: &'a Name,
    /// The tag.
    #[serde(serialize_with = "as_text")]
    pub tag: &'a Tag,
    /// What it names.
    pub digest: Digest,
    /// Whether it stays.
    pub keeps: bool,
    /// Why.
    pub reason: String,
}

fn as_text<S: serde::Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tag.as_str())
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Retained {
    /// What its plan says.
    pub tally: Tally,
    /// Tags that were deleted.
    pub deleted: u64,
    /// Tags that were to be, and are others by now, or were pulled or promoted meanwhile.
    pub skipped: u64,
    /// Manifests without a tag that were deleted.
    pub manifests: u64,
    /// About how many bytes only the tags need that nothing keeps.
    pub reclaimable: u64,
    /// Other policies that match a repository that the policy matches.
    pub overlaps: Vec<String>,
    /// Why nothing was deleted, if so.
    pub held: Option<Held>,
    /// How long what was deleted can be restored.
    pub trash: Duration,
    /// Why it did not come to its end, in words for a human.
    pub failure: Option<String>,
}

impl Retained {
    /// As a summary counts.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let would = if self.held.is_some() { self.tally.unkept } else { 0 };
        BTreeMap::from([
            ("evaluatedTags", self.tally.evaluated),
            ("keptTags", self.tally.kept),
            ("guardedTags", self.tally.guarded),
            ("deletedTags", self.deleted),
            ("wouldDeleteTags", would),
            ("skippedTags", self.skipped),
            ("deletedManifests", self.manifests),
            ("reclaimableBytes", self.reclaimable),
            ("overlappingPolicies", self.overlaps.len() as u64),
        ])
    }

    /// The run as Kubernetes keeps it.
    #[must_use]
    pub fn summary(&self, run: &Run, mode: PolicyMode) -> Summary {
        let result = match (&self.failure, &self.held) {
            (Some(_), _) => Outcome::Failed,
            (None, Some(held)) if held.is_refusal() => Outcome::Refused,
            _ => Outcome::Succeeded,
        };
        // A dry run is what was asked for; its mode says so.
        let told = self.held.filter(|held| !matches!(held, Held::Asked | Held::DryRun));
        let overlaps =
            (!self.overlaps.is_empty()).then(|| format!("overlaps with {}", self.overlaps.join(", ")));
        Summary {
            reason: told.map(|held| held.reason().to_owned()),
            message: self.failure.clone().or_else(|| told.and_then(|held| held.message())).or(overlaps),
            mode: Some(match mode {
                PolicyMode::DryRun => "DryRun".to_owned(),
                PolicyMode::Enforce => "Enforce".to_owned(),
            }),
            ..run.ended(result, self.counts())
        }
    }
}

/// Runs policies in one registry.
#[derive(Clone)]
pub struct Retainer {
    meta: Arc<dyn MetaStore>,
    store: Arc<dyn Store>,
    metrics: RetentionMetrics,
}

/// Tags of a repository that nothing keeps.
struct Outgoing {
    repository: Name,
    tags: Vec<OutgoingTag>,
}

/// A run under way.
struct Pass<'a> {
    retainer: &'a Retainer,
    settings: &'a Retention,
    policy: &'a Policy,
    epoch: Epoch,
    clock: RetentionClock,
    /// What clusters run, with what the names of it name; `None`: nothing is protected by that.
    usage: Option<(Usage, HashSet<Digest>)>,
    involved: Involved<'a>,
    /// Repositories that the policy matches.
    repositories: Vec<Name>,
    outgoing: Vec<Outgoing>,
    retained: Retained,
    lines: Lines,
}

impl Retainer {
    /// Over a database and a bucket.
    #[must_use]
    pub fn new(meta: Arc<dyn MetaStore>, store: Arc<dyn Store>, metrics: RetentionMetrics) -> Self {
        Self { meta, store, metrics }
    }

    /// There are these policies: their metrics are served from now on.
    pub fn expect(&self, settings: &Retention) {
        for policy in settings.policies.iter() {
            self.metrics.exists(&policy.name);
        }
    }

    /// Whether a run of the policy that was due at `due` has begun and ended, in whatever process.
    pub async fn has_run(&self, name: &str, due: Timestamp) -> Result<bool, meta::Error> {
        let Ok(name) = name.parse::<RunName>() else { return Ok(false) };
        let last = self.meta.runs(RunKind::Retention, &name, 1).await?.pop();
        let since = u64::try_from(due.as_millisecond()).unwrap_or_default();
        Ok(last.is_some_and(|run| run.started + CLOCKS >= since))
    }

    /// One run of the policy `name`. `usage` is what clusters run, `None` where that protects nothing. Each line of the
    /// plan is told.
    pub async fn run(
        &self,
        settings: &Retention,
        name: &str,
        usage: Option<Usage>,
        run: RetentionRun,
        tell: &mut (dyn FnMut(&PlanLine<'_>) + Send),
    ) -> Result<Retained, RetentionError> {
        let unknown = || RetentionError::Unknown(name.to_owned());
        let policy = settings.policies.named(name).ok_or_else(unknown)?;
        let begun = Run::begin("retention");
        let mut pass = self.pass(settings, policy, usage).await?;
        pass.plan(tell).await?;
        let rules = pass.involved.rules();
        pass.retained.held = pass.held(run, rules).await?;
        if pass.retained.held.is_none()
            && let Err(error) = pass.enforce().await
        {
            if error.is_refusal() {
                return Err(error);
            }
            pass.retained.failure = Some(explained(&error));
        }
        self.metrics.ran(name, pass.retained.tally.kept, pass.retained.deleted);
        let Pass { retained, lines, epoch, clock, .. } = pass;
        if run == RetentionRun::Act {
            let summary = retained.summary(&begun, policy.mode);
            let finished = Finished {
                kind: RunKind::Retention,
                name: name.parse::<RunName>().map_err(|_long| unknown())?,
                started: clock.now,
                ended: self.meta.retention_clock().await?.now,
                outcome: outcome(summary.result),
                summary: summary.to_termination_message(),
                rules: Some(rules),
                lines: lines.end()?,
            };
            if let Err(error) = reports::keep(&*self.meta, &*self.store, epoch, finished).await {
                tracing::warn!(policy.name = name, error = explained(&error), "the report is not kept");
            }
        }
        Ok(retained)
    }

    async fn pass<'a>(
        &'a self,
        settings: &'a Retention,
        policy: &'a Policy,
        usage: Option<Usage>,
    ) -> Result<Pass<'a>, RetentionError> {
        ensure_one_registry(&*self.store, &*self.meta).await?;
        let epoch = self.meta.incarnation().await?.epoch;
        let usage = match usage {
            None => None,
            Some(usage) => {
                let running = gather::running(&*self.meta, epoch, &usage).await?;
                Some((usage, running))
            }
        };
        Ok(Pass {
            retainer: self,
            settings,
            policy,
            epoch,
            clock: self.meta.retention_clock().await?,
            usage,
            involved: Involved::by(policy),
            repositories: Vec::new(),
            outgoing: Vec::new(),
            retained: Retained { trash: settings.retain_for, ..Retained::default() },
            lines: Lines::begin(),
        })
    }
}

const fn outcome(outcome: Outcome) -> RunOutcome {
    match outcome {
        Outcome::Succeeded => RunOutcome::Succeeded,
        Outcome::Failed => RunOutcome::Failed,
        Outcome::Refused => RunOutcome::Refused,
    }
}

impl Pass<'_> {
    /// Judges all repositories that the policy matches.
    async fn plan(&mut self, tell: &mut (dyn FnMut(&PlanLine<'_>) + Send)) -> Result<(), RetentionError> {
        let mut after: Option<Name> = None;
        loop {
            let after_is = after.as_ref().map(Name::as_str);
            let page = self.retainer.meta.repositories(self.epoch, after_is, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for repository in page {
                if self.policy.matches(&repository) && self.settings.rules(&repository) {
                    self.judge(&repository, tell).await?;
                    self.repositories.push(repository);
                }
            }
        }
        self.retained.overlaps = self.involved.others().into_iter().map(str::to_owned).collect();
        Ok(())
    }

    /// Why nothing may be deleted; `None`: it may.
    async fn held(&self, run: RetentionRun, rules: Digest) -> Result<Option<Held>, RetentionError> {
        let Tally { evaluated, unkept, .. } = self.retained.tally;
        Ok(if run == RetentionRun::Tell {
            Some(Held::Asked)
        } else if self.policy.suspended {
            Some(Held::Suspended)
        } else if self.policy.mode == PolicyMode::DryRun {
            Some(Held::DryRun)
        } else if let Some(text) = self.settings.forbidden() {
            Some(Held::Forbidden(text))
        } else if let Err(error) = self.policy.limits.allow(evaluated, unkept) {
            Some(Held::LimitExceeded(error))
        } else if !self.was_told(rules).await? {
            Some(Held::FirstRunOfRules)
        } else {
            None
        })
    }

    /// Whether the last plan that was made was made by these rules, and was there to be read before this run began.
    async fn was_told(&self, rules: Digest) -> Result<bool, RetentionError> {
        let Ok(name) = self.policy.name.parse::<RunName>() else { return Ok(false) };
        let runs = self.retainer.meta.runs(RunKind::Retention, &name, reports::KEPT).await?;
        let last = runs.into_iter().find(|run| run.rules.is_some());
        Ok(last.is_some_and(|run| run.rules == Some(rules) && run.ended <= self.clock.now))
    }
}
