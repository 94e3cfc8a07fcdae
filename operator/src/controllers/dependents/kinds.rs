// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What each kind that names a Registry has for itself. Pure.

use stowage_crds::{
    AccessPolicy, AccessPolicyStatus, Mirror, MirrorStatus,
    conditions::{self, ConditionType, Reason},
};

use super::{Common, Reconciled, Seen, Set, Standing};

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
    const HAS_PATH: bool = false;
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

impl Reconciled for Mirror {
    const CONTROLLER: &'static str = "mirror";
    const HAS_PATH: bool = true;
    type Status = MirrorStatus;

    fn status(&self) -> Option<&MirrorStatus> {
        self.status.as_ref()
    }

    fn common(status: &mut MirrorStatus) -> Common<'_> {
        common!(status)
    }

    fn suspended(&self) -> Option<&'static str> {
        self.spec.suspend.then_some("it asks nothing of its upstream")
    }

    /// A failing upstream is nothing that a human must change, unless it refuses us or is none.
    fn judge(&self, seen: &Seen, standing: Standing, status: &mut MirrorStatus, set: &Set<'_>) -> Standing {
        status.url = seen.url(self.spec.path.as_str());
        let conditions = &mut status.conditions;
        if standing != Standing::InForce || !self.spec.asks_upstream() {
            conditions::clear(conditions, ConditionType::UpstreamReachable);
            return standing;
        }
        let said = seen.said_of(self);
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
}

fn waiting(reason: Reason, text: &str) -> Standing {
    Standing::Waiting(reason, text.to_owned())
}
