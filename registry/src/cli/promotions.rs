// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotion by hand, of a request that somebody handed over, and by itself.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::{ArgGroup, Args};
use serde_json::Value;
use stowage_registry::Registry;
use stowage_registry::config::{self, Facts, PromotionCondition, PromotionPolicy, PromotionTrigger};
use stowage_registry::domain::{
    Ending, Gate, GateResult, Promotion, PromotionMode, PromotionRequest, PromotionRule, Since, Trigger,
    Wanted,
};
use stowage_registry::jobs::{Run, last_promotion, promote_termination};
use stowage_registry::meta::{LedgerApproval, PromotionCandidate};
use stowage_registry::operation::Mode;
use stowage_registry::ops::metrics::PromotionMetrics;
use stowage_registry::ops::tasks::Tasks;

use super::{Common, Failure, Output, open, print, runtime, termination};

/// Flags of `promote`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("asked").required(true).args(["request", "policy"]))]
pub(super) struct Promote {
    #[command(flatten)]
    common: Common,
    /// File with a Promotion: what is promoted by which policy, who asks, and who approves
    #[arg(long, value_name = "FILE", env = "STOWAGE_REQUEST")]
    request: Option<PathBuf>,
    /// The promotion policy, where the artifact is named here
    #[arg(long, value_name = "NAME", env = "STOWAGE_POLICY", requires = "artifact")]
    policy: Option<String>,
    /// What is promoted: REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY:TAG@DIGEST. With a digest the tag is only a name
    #[arg(value_name = "REF", conflicts_with = "request")]
    artifact: Option<String>,
    /// Ask the gates, and change nothing
    #[arg(long, env = "STOWAGE_DRY_RUN")]
    dry_run: bool,
    /// Form of what is told
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

impl Promote {
    /// Does it, and writes down for Kubernetes what it came to.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let run = Run::begin("promote");
        match self.promoted() {
            Ok(promotion) => {
                termination::write(&promote_termination(&run, &promotion).to_termination_message());
                print(self.shown(&promotion).as_bytes())?;
                match promotion.ending {
                    Ending::Promoted | Ending::AlreadyPromoted | Ending::AllPassed => Ok(()),
                    _ if self.dry_run => Ok(()),
                    ending => Err(Failure::NotPromoted { reason: ending.name(), message: promotion.message }),
                }
            }
            Err(failure) => {
                termination::failed(&run, &failure);
                Err(failure)
            }
        }
    }

    fn asked(&self) -> Result<config::PromotionRequest, Failure> {
        if let Some(file) = &self.request {
            return Ok(config::PromotionRequest::read(file)?);
        }
        let (policy, artifact) = (self.policy.as_deref(), self.artifact.as_deref());
        let asked =
            config::PromotionRequest::by_hand(policy.unwrap_or_default(), artifact.unwrap_or_default());
        asked.map_err(Failure::Artifact)
    }

    fn promoted(&self) -> Result<Promotion, Failure> {
        let asked = self.asked()?;
        let promoting = config::load_promotion(&self.common.sources(None), &asked.policy)?;
        let mode = if self.dry_run { PromotionMode::DryRun } else { PromotionMode::Promote };
        if mode == PromotionMode::Promote {
            may_promote(&promoting)?;
        }
        let (rule, request) = (rule(&promoting.policy, promoting.pushing.mode), request(asked));
        runtime()?.block_on(open::promote(&promoting, &self.common.data_dir, &rule, &request, mode))
    }

    fn shown(&self, promotion: &Promotion) -> String {
        match self.output {
            Output::Text => text(promotion),
            Output::Json => format!("{}\n", json(promotion, self.dry_run)),
        }
    }
}

fn may_promote(promoting: &config::Promoting) -> Result<(), Failure> {
    if promoting.policy.is_suspended {
        let message = format!("PromotionPolicy {} is suspended: set suspend to false", promoting.policy.name);
        return Err(Failure::NotPromoted { reason: "PolicySuspended", message });
    }
    if promoting.pushing.mode == Mode::ReadOnly {
        let message = "the registry is ReadOnly: set its mode to ReadWrite".to_owned();
        return Err(Failure::NotPromoted { reason: "ReadOnly", message });
    }
    Ok(())
}

fn text(promotion: &Promotion) -> String {
    let gate = |gate: &GateResult| {
        format!("gate {} {} {}: {}\n", gate.name, gate.verdict.status(), gate.reason, gate.message)
    };
    let gates: String = promotion.gates.iter().map(gate).collect();
    format!("{gates}{} {}\n", promotion.ending.name(), promotion.message)
}

fn json(promotion: &Promotion, dry_run: bool) -> Value {
    let mut told = promotion.to_json();
    told["dryRun"] = dry_run.into();
    told
}

/// Promotes by itself in this process what the configuration in force says.
pub(super) fn keep(
    registry: &Registry,
    facts: Arc<ArcSwap<Facts>>,
    metrics: PromotionMetrics,
    tasks: &Tasks,
) {
    let (domain, stopping) = (registry.domain().clone(), tasks.stopping());
    let told = move |candidate: &PromotionCandidate, promotion: &Promotion| {
        let PromotionCandidate { policy, repository, tag, digest, .. } = candidate;
        let (result, message) = (promotion.ending.name(), &promotion.message);
        tracing::info!(policy.name = policy, %repository, %tag, %digest, result, message, "promotion by itself");
        metrics.ended(policy, result);
        if let Some(last) = last_promotion(candidate, promotion) {
            drop(facts.rcu(|facts| facts.with_promotion(policy, &last)));
        }
    };
    tasks.spawn(async move { domain.keep_promoting(told, &stopping).await });
}

/// As the registry takes them, where it takes these changes.
pub(super) fn rules(policies: &[PromotionPolicy], mode: Mode) -> Vec<PromotionRule> {
    policies.iter().map(|policy| rule(policy, mode)).collect()
}

fn rule(policy: &PromotionPolicy, mode: Mode) -> PromotionRule {
    let gate = |(name, condition): &(String, PromotionCondition)| Gate {
        name: name.clone(),
        wants: wanted(condition.clone()),
    };
    PromotionRule {
        name: policy.name.clone(),
        generation: policy.generation,
        hash: policy.hash.clone(),
        spec: policy.spec.clone(),
        from: policy.from.clone(),
        tags: policy.tags.clone(),
        to: policy.to.clone(),
        to_tag: policy.to_tag.clone(),
        gates: policy.gates.iter().map(gate).collect(),
        overwrites: policy.overwrites,
        with_referrers: policy.with_referrers,
        deadline: policy.deadline,
        trigger: match (policy.trigger, mode) {
            _ if policy.is_suspended => Trigger::Nobody,
            (_, Mode::ReadOnly) => Trigger::Nobody,
            (PromotionTrigger::Manual, _) => Trigger::Request,
            (PromotionTrigger::Automatic, _) => Trigger::Automatic,
        },
    }
}

fn wanted(condition: PromotionCondition) -> Wanted {
    match condition {
        PromotionCondition::Signature { keys, required } => Wanted::Signature { keys, required },
        PromotionCondition::Attestation { predicate_type, keys, max_age } => {
            Wanted::Attestation { predicate_type, keys, max_age }
        }
        PromotionCondition::MinimumAge { age, since_promotion } => {
            let since = if since_promotion { Since::PromotedToSource } else { Since::Pushed };
            Wanted::MinimumAge { age, since }
        }
        PromotionCondition::Approval { required } => Wanted::Approval { required },
        PromotionCondition::Labels(labels) => Wanted::Labels(labels),
        PromotionCondition::PromotedBy(policy) => Wanted::PromotedBy(policy),
    }
}

fn request(asked: config::PromotionRequest) -> PromotionRequest {
    let approval = |(user, digest)| LedgerApproval { user, digest };
    PromotionRequest {
        id: asked.id,
        repository: asked.repository,
        tag: asked.tag,
        digest: asked.digest,
        pinned: asked.pinned,
        requested_by: asked.requested_by,
        actor: "stowage-registry promote".to_owned(),
        approvals: asked.approvals.into_iter().map(approval).collect(),
        reason: asked.reason,
    }
}
