// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a promotion came to, as Kubernetes keeps it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stowage_crds::{Evaluation, GateStatus, LastPromotion, Outcome, PromotionResult, Summary, Termination};

use super::Run;
use crate::domain::{Ending, GateResult, Promotion};
use crate::meta::PromotionCandidate;

/// What a promotion came to. One that waits has not acted: it is to be tried again.
#[must_use]
pub fn promote_termination(run: &Run, promotion: &Promotion) -> Termination {
    let result = match promotion.ending {
        Ending::Promoted | Ending::AlreadyPromoted | Ending::AllPassed => Outcome::Succeeded,
        _ => Outcome::Refused,
    };
    let summary = Summary {
        reason: Some(promotion.ending.name().to_owned()),
        message: Some(promotion.message.clone()),
        ..run.ended(result, [("referrers", promotion.referrers as u64)].into())
    };
    Termination { summary, failures: Vec::new(), evaluation: Some(evaluation(promotion)) }
}

/// A promotion that nobody asked for, if it was one and has just ended.
#[must_use]
pub fn last_promotion(candidate: &PromotionCandidate, promotion: &Promotion) -> Option<LastPromotion> {
    let PromotionCandidate { repository, tag, digest, .. } = candidate;
    let (target, its_tag) = promotion.target.as_ref().filter(|_| promotion.ending == Ending::Promoted)?;
    Some(LastPromotion {
        source: format!("{repository}:{tag}"),
        target: format!("{target}:{its_tag}"),
        digest: digest.to_string(),
        time: super::now()?,
    })
}

/// What of it the status of a resource says.
fn evaluation(promotion: &Promotion) -> Evaluation {
    let is_there = matches!(promotion.ending, Ending::Promoted | Ending::AlreadyPromoted);
    let target = promotion.target.as_ref().zip(promotion.digest).filter(|_| is_there);
    Evaluation {
        digest: promotion.digest.map(|digest| digest.to_string()),
        gates: promotion.gates.iter().map(gate).collect(),
        promoted: target.map(|((repository, tag), digest)| PromotionResult {
            repository: repository.to_string(),
            tag: tag.to_string(),
            digest: digest.to_string(),
            referrers: i32::try_from(promotion.referrers).unwrap_or(i32::MAX),
            previous_digest: promotion.previous.map(|digest| digest.to_string()),
        }),
    }
}

fn gate(gate: &GateResult) -> GateStatus {
    GateStatus {
        name: gate.name.clone(),
        status: gate.verdict.status().to_owned(),
        reason: gate.reason.to_owned(),
        message: gate.message.clone(),
        not_before: gate.not_before.and_then(timestamp).map(Time),
    }
}

fn timestamp(milliseconds: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
}
