// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Conditions of a status: their types, the reasons they give, and how they are set.
//!
//! Clients read a status by the kstatus order: deletion, then `generation` against `observedGeneration`, then
//! `Reconciling`, `Stalled`, `Ready`. So `Ready` is always written, and `Reconciling` and `Stalled` exist only
//! while they are true.
//! Guarantees: `lastTransitionTime` moves only when the condition's status does; the list is sorted by type, so
//! that an equal status is equal bytes.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// An enum whose members are written in a status by their own names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$member_doc])* $member,)+
        }

        impl $name {
            /// Every member, in the order of this page.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The word itself.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$member => stringify!($member),)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What a condition is about.
    ConditionType {
        /// The summary: all that the resource asks for is in force.
        Ready,
        /// Work towards the spec goes on. Absent when it does not.
        Reconciling,
        /// A human must change something. Absent otherwise.
        Stalled,
        /// The resource is suspended.
        Suspended,
        /// Registry: a replica is ready.
        Available,
        /// Registry: the schema of the database fits the image.
        DatabaseMigrated,
        /// Registry: the replicas reach the bucket or volume.
        StorageReachable,
        /// Registry: the replicas reach the database.
        DatabaseReachable,
        /// Registry: every ready replica runs the wanted document.
        ConfigurationApplied,
        /// Registry: an address is assigned, a route accepted, or neither was asked for.
        Exposed,
        /// Registry: the last garbage collection succeeded, or none has run yet.
        GarbageCollectionHealthy,
        /// Registry: runs that delete are answered what the cluster runs. Absent where they do not ask.
        UsageProtected,
        /// Registry, Mirror, RetentionPolicy: a run that was asked for, or is due, cannot begin. Absent otherwise.
        RunBlocked,
        /// Mirror: the upstream answers, and takes our credential.
        UpstreamReachable,
        /// Mirror: the last run copied all that it was to.
        Synced,
        /// Promotion: its policy is in force and takes it.
        Accepted,
        /// Promotion: every gate let it pass.
        GatesPassed,
        /// Promotion: it is promoted; unknown while it goes on.
        Succeeded,
        /// VirtualRepository: every member is something that can be one.
        MembersResolved,
        /// VirtualRepository: a member does not work, and the others do. Absent otherwise.
        MembersDegraded,
        /// RetentionPolicy: the last run would have deleted more than its limits allow, and deleted nothing. Absent
        /// otherwise.
        LimitExceeded,
        /// RetentionPolicy: what clusters run was not known to the last run, which deleted nothing. Absent otherwise.
        Protected,
        /// RetentionPolicy: other policies match a repository that it matches. Absent otherwise.
        Overlapping,
    }
}

words! {
    /// Why a condition is what it is.
    Reason {
        /// All that was asked for is in force.
        Reconciled,
        /// Work goes on.
        Progressing,
        /// The resource is suspended, or a part of it.
        Suspended,
        /// The spec says something that cannot be.
        InvalidSpec,
        /// The Registry that is named does not exist.
        RegistryNotFound,
        /// The Registry that is named is not ready.
        RegistryNotReady,
        /// A Secret that is named, or a key of it, does not exist.
        SecretNotFound,
        /// Not every replica has the change yet.
        WaitingForReplicas,
        /// Replicas run a version that this operator does not know.
        UnsupportedVersion,
        /// An object of a name that is needed belongs to somebody else.
        NameTaken,

        /// Enough replicas are ready.
        MinimumReplicasAvailable,
        /// No replica is ready, or none is asked for.
        NoReplicas,
        /// The image cannot be pulled.
        ImagePullFailed,
        /// Replicas end again and again.
        CrashLooping,
        /// Replicas refuse their configuration (exit 2).
        InvalidConfiguration,
        /// Replicas refuse to start for safety (exit 3).
        StartRefused,

        /// The schema is the image's.
        SchemaCurrent,
        /// A migration runs.
        MigratingDatabase,
        /// A migration failed.
        MigrationFailed,
        /// A migration waits for approval.
        MigrationRequired,
        /// The database does not know the bucket.
        RebuildRequired,
        /// A rebuild runs.
        Rebuilding,
        /// The step from the version that runs is too long.
        UnsupportedUpgrade,

        /// The replicas say so.
        ProbeSucceeded,
        /// The replicas do not reach the bucket or volume.
        StorageUnreachable,
        /// The replicas do not reach the database.
        DatabaseUnreachable,
        /// The database answers and is not trusted yet: collection waits.
        CollectorFrozen,

        /// Every ready replica runs the wanted document.
        Applied,
        /// A replica refuses the document.
        ConfigurationRejected,
        /// A replica does not answer.
        ReplicaUnreachable,
        /// The document would be larger than a ConfigMap may be.
        DocumentTooLarge,

        /// It has an address.
        AddressAssigned,
        /// No address was asked for.
        ClusterIPOnly,
        /// It has no address yet.
        WaitingForAddress,
        /// The cluster has no Gateway API.
        GatewayAPIMissing,

        /// The last run succeeded.
        LastRunSucceeded,
        /// Nothing has run yet.
        NeverRun,
        /// The last run failed.
        LastRunFailed,
        /// The last run did a part of what it was to, and failed with the rest.
        PartialFailure,
        /// The last run refused to act, for safety.
        Refused,
        /// A Job ended without a summary.
        SummaryMissing,
        /// No node takes the pod of a Job.
        Unschedulable,

        /// Runs that ask what the cluster runs are answered.
        Watching,
        /// The operator has not the rights to look at what runs.
        PermissionDenied,
        /// The operator is to look at fewer namespaces than the Registry wants protected.
        UsageScopeNotCovered,
        /// More runs than a ConfigMap can tell.
        UsageReportTooLarge,
        /// Another cluster has not reported what it runs for too long.
        RemoteStale,
        /// A run was not told what the cluster runs.
        UsageReportMissing,
        /// What a run was told of what runs is too old, or from the future.
        UsageReportStale,

        /// Another, older resource has the path, or the place of the default.
        PathConflict,
        /// The upstream answers.
        Reachable,
        /// The upstream does not answer.
        UpstreamUnreachable,
        /// The upstream wants fewer requests.
        RateLimited,
        /// The upstream refuses our credential.
        AuthenticationFailed,
        /// The certificate of the upstream is not to be believed.
        CertificateInvalid,
        /// What answers is no registry.
        NotARegistry,
        /// The upstream is this registry itself.
        MirrorLoop,
        /// Every member is something that can be one.
        AllResolved,
        /// A mirror that is named does not exist, or is not in force.
        MirrorNotFound,
        /// A member is a virtual repository.
        MemberIsVirtual,
        /// A member is below the path of a mirror.
        MemberIsMirror,
        /// A mirror could answer for a name of ours.
        RemoteShadowsLocal,
        /// Repositories that were pushed before cannot be reached below its path.
        PathHidesRepositories,

        /// A policy that is named does not exist, or is not in force.
        PolicyNotFound,
        /// It would promote what comes by itself, by way of others or at once.
        PromotionCycle,
        /// The policy is suspended.
        PolicySuspended,
        /// The policy is there.
        Accepted,
        /// The policy is not for this repository or tag.
        NotCovered,
        /// The Registry is on a volume, beside which no Job can run.
        NoJobs,
        /// Every gate let it pass.
        AllPassed,
        /// A gate does not let it pass yet.
        WaitingForGates,
        /// A gate never will.
        GateFailed,
        /// It was promoted.
        Promoted,
        /// It had been promoted by the same policy before.
        AlreadyPromoted,
        /// There is no such tag or digest yet.
        ArtifactNotFound,
        /// The tag names another digest than the one that was pinned.
        ArtifactChanged,
        /// The tag of the target names another digest.
        TagConflict,
        /// The tag of the target is immutable and names another digest.
        TagImmutable,
        /// The policy gives no legal target.
        InvalidTarget,
        /// It waited longer than its policy lets it.
        Expired,

        /// A run would have deleted more than the limits allow, and deleted nothing.
        LimitExceeded,
        /// The last run failed.
        RunFailed,
        /// Other policies match a repository that this one matches.
        PoliciesOverlap,

        /// A change is being rolled out.
        RollingOut,
        /// Another, older Registry uses the same bucket and prefix.
        StorageConflict,
        /// Something did not work and is tried again.
        Retrying,
    }
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be said.
    Unknown,
}

impl Verdict {
    /// The word in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as one look at the world finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub condition: ConditionType,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// For a human; without digits that move by themselves.
    pub message: String,
}

impl Finding {
    /// `condition` is `verdict`, for `reason`.
    pub fn new(
        condition: ConditionType,
        verdict: impl Into<Verdict>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { condition, verdict: verdict.into(), reason, message: message.into() }
    }
}

/// Writes `finding` into `conditions`; `generation` is the one it is about, `now` the time if its status changes.
pub fn set(conditions: &mut Vec<Condition>, finding: Finding, generation: Option<i64>, now: &Time) {
    let type_ = finding.condition.as_str();
    let before =
        conditions.iter().position(|condition| condition.type_ == type_).map(|at| conditions.remove(at));
    let unmoved = before.filter(|before| before.status == finding.verdict.as_str());
    let last_transition_time = unmoved.map_or_else(|| now.clone(), |before| before.last_transition_time);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: finding.verdict.as_str().to_owned(),
        reason: finding.reason.to_string(),
        message: finding.message,
        observed_generation: generation,
        last_transition_time,
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// Removes a condition: what an abnormal-true one does when it ends.
pub fn clear(conditions: &mut Vec<Condition>, condition: ConditionType) {
    conditions.retain(|found| found.type_ != condition.as_str());
}

/// The condition of this type, if there is one.
#[must_use]
pub fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|found| found.type_ == condition.as_str())
}

/// Whether the condition exists and is true.
#[must_use]
pub fn is_true(conditions: &[Condition], condition: ConditionType) -> bool {
    find(conditions, condition).is_some_and(|found| found.status == Verdict::True.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn ready(verdict: bool, reason: Reason) -> Finding {
        Finding::new(ConditionType::Ready, verdict, reason, "text")
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(false, Reason::Progressing), Some(1), &at(1));
        set(&mut conditions, ready(false, Reason::RollingOut), Some(2), &at(2));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert_eq!(
            (conditions[0].reason.as_str(), conditions[0].observed_generation),
            ("RollingOut", Some(2))
        );
        set(&mut conditions, ready(true, Reason::Reconciled), Some(2), &at(3));
        assert_eq!(conditions[0].last_transition_time, at(3));
    }

    #[test]
    fn the_order_of_writing_leaves_no_trace() {
        let stalled = || Finding::new(ConditionType::Stalled, true, Reason::InvalidSpec, "text");
        let (mut one, mut other) = (Vec::new(), Vec::new());
        set(&mut one, ready(false, Reason::InvalidSpec), None, &at(1));
        set(&mut one, stalled(), None, &at(1));
        set(&mut other, stalled(), None, &at(1));
        set(&mut other, ready(false, Reason::InvalidSpec), None, &at(1));
        assert_eq!(one, other);
    }

    #[test]
    fn an_abnormal_condition_goes_when_it_ends() {
        let mut conditions = Vec::new();
        set(&mut conditions, Finding::new(ConditionType::Stalled, true, Reason::NameTaken, ""), None, &at(1));
        assert!(is_true(&conditions, ConditionType::Stalled));
        clear(&mut conditions, ConditionType::Stalled);
        assert_eq!(find(&conditions, ConditionType::Stalled), None);
    }

    #[test]
    fn every_reason_is_one_word_in_camel_case() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }
}
