// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What each kind that names a Registry has for itself. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};
use kube::ResourceExt as _;
use stowage_crds::{
    AccessPolicy, AccessPolicyStatus, LastPromotion, MemberStatus, Mirror, MirrorMode, MirrorStatus,
    PromotionPolicy, PromotionPolicyStatus, RetentionPolicy, RetentionPolicyStatus, Summary,
    VirtualRepository, VirtualRepositoryStatus,
    conditions::{self, ConditionType, Reason},
    report::ResourceReport,
};

use super::{Common, Meets, Reconciled, Seen, Set, Standing, copies, retains};
use crate::names::{MIRROR_LABEL, RETENTION_LABEL};

macro_rules! common {
    ($status:expr) => {
        Common {
            observed_generation: &mut $status.observed_generation,
            conditions: &mut $status.conditions,
            last_handled_reconcile_at: &mut $status.last_handled_reconcile_at,
        }
    };
}

impl Reconciled for AccessPolicy {
    const CONTROLLER: &'static str = "accesspolicy";
    const MEETS: Meets = Meets::Nothing;
    type Status = AccessPolicyStatus;

    fn status(&self) -> Option<&AccessPolicyStatus> {
        self.status.as_ref()
    }

    fn common(status: &mut AccessPolicyStatus) -> Common<'_> {
        common!(status)
    }

    fn suspended(&self) -> Option<&'static str> {
        self.spec.suspend.then_some("it grants nothing")
    }

    fn judge(&self, _: &Seen, standing: Standing, _: &mut AccessPolicyStatus, _: &Set<'_>) -> Standing {
        standing
    }
}

impl Reconciled for PromotionPolicy {
    const CONTROLLER: &'static str = "promotionpolicy";
    const MEETS: Meets = Meets::PromotionPolicies;
    type Status = PromotionPolicyStatus;

    fn status(&self) -> Option<&PromotionPolicyStatus> {
        self.status.as_ref()
    }

    fn common(status: &mut PromotionPolicyStatus) -> Common<'_> {
        common!(status)
    }

    fn suspended(&self) -> Option<&'static str> {
        self.spec.suspend.then_some("nothing is promoted by it")
    }

    fn judge(
        &self,
        seen: &Seen,
        standing: Standing,
        status: &mut PromotionPolicyStatus,
        set: &Set<'_>,
    ) -> Standing {
        note_promotion(&mut status.last_promotion, seen.promoted_by(self), set.now);
        let (Standing::InForce, Some((document, _))) = (&standing, &seen.document) else { return standing };
        let is_there = |name: &str| document.promotion_policies.iter().any(|entry| entry.name == name);
        match self.spec.named_policies().find(|(_, name)| !is_there(name)) {
            Some((path, name)) => {
                let text = format!("{path}: there is no PromotionPolicy {name} of this Registry in force");
                Standing::Stuck(Reason::PolicyNotFound, text)
            }
            None => standing,
        }
    }
}

/// Writes the newest promotion down, unless the one that is written is too young to be written over.
fn note_promotion(written: &mut Option<LastPromotion>, newest: Option<LastPromotion>, now: &Time) {
    let Some(newest) = newest else { return };
    let is_due = |before: &LastPromotion| {
        before.time < newest.time && now.0.duration_since(before.time.0) >= PROMOTION_PAUSE
    };
    if written.as_ref().is_none_or(is_due) {
        *written = Some(newest);
    }
}

impl Reconciled for Mirror {
    const CONTROLLER: &'static str = "mirror";
    const MEETS: Meets = Meets::Paths;
    const RUNS: Option<&'static str> = Some(MIRROR_LABEL);
    type Status = MirrorStatus;

    fn has_runs(&self) -> bool {
        self.spec.mode == MirrorMode::Replicate
    }

    fn status(&self) -> Option<&MirrorStatus> {
        self.status.as_ref()
    }

    fn common(status: &mut MirrorStatus) -> Common<'_> {
        common!(status)
    }

    fn last_run(status: &MirrorStatus) -> Option<&Summary> {
        status.last_result.as_ref()
    }

    fn suspended(&self) -> Option<&'static str> {
        self.spec.suspend.then_some(match self.spec.mode {
            MirrorMode::PullThrough => "it asks nothing of its upstream",
            MirrorMode::Replicate => "no run begins",
        })
    }

    fn judge(&self, seen: &Seen, standing: Standing, status: &mut MirrorStatus, set: &Set<'_>) -> Standing {
        status.url = self.spec.path.as_ref().and_then(|path| seen.url(path.as_str()));
        match self.spec.mode {
            MirrorMode::PullThrough => pulls(self, seen, standing, &mut status.conditions, set),
            MirrorMode::Replicate => copies::judge(self, seen, standing, status, set),
        }
    }
}

/// What the replicas say of the upstream. One that fails is nothing that a human must change, unless it refuses us or is
/// none.
fn pulls(
    mirror: &Mirror,
    seen: &Seen,
    standing: Standing,
    conditions: &mut Vec<Condition>,
    set: &Set<'_>,
) -> Standing {
    if standing != Standing::InForce || !mirror.spec.asks_upstream() {
        conditions::clear(conditions, ConditionType::UpstreamReachable);
        return standing;
    }
    let said = seen.said_of(mirror);
    if said.iter().all(Option::is_none) {
        let known = conditions::find(conditions, ConditionType::Ready);
        return match known.filter(|ready| ready.observed_generation == set.generation) {
            Some(_) => Standing::Unchanged,
            None => waiting(Reason::WaitingForReplicas, "no replica told of it yet"),
        };
    }
    let trouble = said.into_iter().flatten().find_map(|said| Some((said.reason.as_deref()?, said)));
    let Some((word, said)) = trouble else {
        let text = "no replica reports a failure";
        set.put(conditions, ConditionType::UpstreamReachable, true, (Reason::Reachable, text));
        return standing;
    };
    // A word of a newer version is some failure.
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == word).copied();
    let reason = reason.unwrap_or(Reason::UpstreamUnreachable);
    let message = said.message.clone().unwrap_or_default();
    if reason == Reason::SecretNotFound {
        conditions::clear(conditions, ConditionType::UpstreamReachable);
        return Standing::Waiting(reason, message);
    }
    set.put(conditions, ConditionType::UpstreamReachable, false, (reason, &message));
    match reason {
        Reason::AuthenticationFailed | Reason::CertificateInvalid | Reason::NotARegistry => {
            Standing::Stuck(reason, message)
        }
        _ => Standing::Waiting(reason, message),
    }
}

impl Reconciled for RetentionPolicy {
    const CONTROLLER: &'static str = "retentionpolicy";
    const MEETS: Meets = Meets::Nothing;
    const RUNS: Option<&'static str> = Some(RETENTION_LABEL);
    type Status = RetentionPolicyStatus;

    fn has_runs(&self) -> bool {
        true
    }

    fn status(&self) -> Option<&RetentionPolicyStatus> {
        self.status.as_ref()
    }

    fn common(status: &mut RetentionPolicyStatus) -> Common<'_> {
        common!(status)
    }

    fn last_run(status: &RetentionPolicyStatus) -> Option<&Summary> {
        status.last_result.as_ref()
    }

    fn suspended(&self) -> Option<&'static str> {
        self.spec.suspend.then_some("no run begins, and what its rules keep stays")
    }

    fn judge(
        &self,
        seen: &Seen,
        standing: Standing,
        status: &mut RetentionPolicyStatus,
        set: &Set<'_>,
    ) -> Standing {
        retains::judge(self, seen, standing, status, set)
    }
}

impl Reconciled for VirtualRepository {
    const CONTROLLER: &'static str = "virtualrepository";
    const MEETS: Meets = Meets::Paths;
    type Status = VirtualRepositoryStatus;

    fn status(&self) -> Option<&VirtualRepositoryStatus> {
        self.status.as_ref()
    }

    fn common(status: &mut VirtualRepositoryStatus) -> Common<'_> {
        common!(status)
    }

    fn suspended(&self) -> Option<&'static str> {
        self.spec.suspend.then_some("its paths answer 503")
    }

    /// A member that is not there holds up `Ready`; one that does not work degrades.
    fn judge(
        &self,
        seen: &Seen,
        standing: Standing,
        status: &mut VirtualRepositoryStatus,
        set: &Set<'_>,
    ) -> Standing {
        use ConditionType::{MembersDegraded, MembersResolved};
        status.url = seen.url(self.spec.path.as_str());
        status.members = failing_members(self, seen);
        let unresolved =
            status.members.iter().find(|member| member.reason == Reason::MirrorNotFound.as_str()).cloned();
        let conditions = &mut status.conditions;
        match status.members.iter().find(|member| member.reason != Reason::MirrorNotFound.as_str()) {
            None => conditions::clear(conditions, MembersDegraded),
            Some(member) => {
                let text = format!("member {} does not work; the others answer", member.name);
                let reason = Reason::ALL.iter().find(|reason| reason.as_str() == member.reason).copied();
                let reason = reason.unwrap_or(Reason::UpstreamUnreachable);
                set.put(conditions, MembersDegraded, true, (reason, &text));
            }
        }
        if let Standing::Stuck(reason @ (Reason::MemberIsVirtual | Reason::MemberIsMirror), way) = &standing {
            set.put(conditions, MembersResolved, false, (*reason, way));
        } else if seen.registry.is_none() {
            conditions::clear(conditions, MembersResolved);
        } else if let Some(member) = unresolved {
            let text = format!("the Mirror of member {} does not exist or is not in force", member.name);
            set.put(conditions, MembersResolved, false, (Reason::MirrorNotFound, &text));
            if standing == Standing::InForce {
                return Standing::Waiting(Reason::MirrorNotFound, text);
            }
        } else if let Some(member) = self.spec.shadowing_members().first() {
            let text = format!("member {member} could answer for a name that a later member has");
            set.put(conditions, MembersResolved, true, (Reason::RemoteShadowsLocal, &text));
        } else if let Some(text) = seen.hidden_by(self, conditions, set) {
            set.put(conditions, MembersResolved, true, (Reason::PathHidesRepositories, &text));
        } else {
            let text = "every member can be one";
            set.put(conditions, MembersResolved, true, (Reason::AllResolved, text));
        }
        standing
    }
}

impl Seen {
    /// The newest of the promotions that replicas began by a policy.
    fn promoted_by(&self, policy: &PromotionPolicy) -> Option<LastPromotion> {
        let said = self.said_of(policy).into_iter().flatten();
        said.filter_map(|said| said.promoted.clone()).max_by(|a, b| a.time.cmp(&b.time))
    }

    /// What a replica says of repositories that the path hides; while none was heard of, what is known of it.
    fn hidden_by(&self, of: &VirtualRepository, known: &[Condition], set: &Set<'_>) -> Option<String> {
        let reason = Reason::PathHidesRepositories.as_str();
        let said = self.said_of(of);
        if said.iter().all(Option::is_none) {
            let known = conditions::find(known, ConditionType::MembersResolved)?;
            let holds = known.reason == reason && known.observed_generation == set.generation;
            return holds.then(|| known.message.clone());
        }
        let hides = |said: &&ResourceReport| said.reason.as_deref() == Some(reason);
        said.into_iter().flatten().find(hides)?.message.clone()
    }
}

fn waiting(reason: Reason, text: &str) -> Standing {
    Standing::Waiting(reason, text.to_owned())
}

/// How long a promotion that is written stays.
const PROMOTION_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// Which words of a Mirror's own condition mean that it does not work, rather than that it is new.
const FAILURES: [Reason; 6] = [
    Reason::SecretNotFound,
    Reason::UpstreamUnreachable,
    Reason::RateLimited,
    Reason::AuthenticationFailed,
    Reason::CertificateInvalid,
    Reason::NotARegistry,
];

fn failing_members(of: &VirtualRepository, seen: &Seen) -> Vec<MemberStatus> {
    let failing = |member: &stowage_crds::Member| {
        let reason = failure(of, &member.mirror_ref.as_ref()?.name, seen)?;
        Some(MemberStatus { name: member.name.to_string(), ready: "False".to_owned(), reason })
    };
    of.spec.members.iter().filter_map(failing).collect()
}

/// Why a member's Mirror is of no use, if it is not.
fn failure(of: &VirtualRepository, mirror: &str, seen: &Seen) -> Option<String> {
    let found = seen.mirrors.iter().find(|found| {
        found.name_any() == mirror
            && found.spec.registry_ref == of.spec.registry_ref
            && found.spec.path.is_some()
            && found.metadata.deletion_timestamp.is_none()
    });
    let Some(found) = found.filter(|found| seen.conflict(*found).is_none()) else {
        return Some(Reason::MirrorNotFound.to_string());
    };
    let conditions = found.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = conditions::find(conditions, ConditionType::Ready)?;
    let fails = ready.status == "False" && FAILURES.iter().any(|reason| reason.as_str() == ready.reason);
    fails.then(|| ready.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_is_written_over_when_it_has_stood_for_five_minutes() {
        let minute = |minute: i64| Time(k8s_openapi::jiff::Timestamp::from_second(minute * 60).unwrap());
        let promotion = |at| LastPromotion {
            source: format!("dev/app:{at}"),
            target: format!("prod/app:{at}"),
            digest: "sha256:x".to_owned(),
            time: minute(at),
        };
        let mut written = None;
        for (newest, now, expected) in [
            (None, 0, None),
            (Some(1), 1, Some(1)),
            (Some(3), 4, Some(1)),
            (Some(3), 6, Some(3)),
            (Some(2), 60, Some(3)),
        ] {
            note_promotion(&mut written, newest.map(promotion), &minute(now));
            assert_eq!(written, expected.map(promotion), "at {now}");
        }
    }
}
