// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Events: what happened to a resource, once, when it happened.
//!
//! Guarantees: an event is the difference of two statuses, so a reconciliation that changes nothing says nothing.
//! Never: a value of a Secret or a line of a log.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::events::{Event, EventType, Recorder};
use stowage_crds::{
    Outcome, RegistryStatus, Summary,
    conditions::{ConditionType, Reason, Verdict, find, is_true},
};
use tracing::warn;

/// What happened, in one CamelCase word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The migration of the database failed.
    MigrationFailed,
    /// A migration waits for approval.
    MigrationRequired,
    /// A replica refuses the document.
    DocumentRejected,
    /// A change is rolled out.
    RolloutFinished,
    /// A collection failed.
    CollectionFailed,
    /// A collection refused to act.
    CollectionRefused,
    /// A collection succeeded after one that did not.
    CollectionRecovered,
    /// Users can log in, and nothing grants them anything.
    NoAccessPolicy,
    /// The data of a Registry were deleted with it.
    DataPurged,
    /// The data of a Registry were left, although they were to go with it.
    DataRetained,
    /// A run would have deleted more than it may.
    LimitExceeded,
    /// A run failed.
    RunFailed,
    /// A run refused to act.
    RunRefused,
    /// A run succeeded after one that did not.
    RunRecovered,
    /// A run that was asked for or is due cannot begin.
    RunBlocked,
    /// An artifact was promoted.
    Promoted,
    /// A promotion ended without one.
    PromotionFailed,
    /// A human must change something.
    Stalled,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::MigrationFailed,
        Self::MigrationRequired,
        Self::DocumentRejected,
        Self::RolloutFinished,
        Self::CollectionFailed,
        Self::CollectionRefused,
        Self::CollectionRecovered,
        Self::NoAccessPolicy,
        Self::DataPurged,
        Self::DataRetained,
        Self::LimitExceeded,
        Self::RunFailed,
        Self::RunRefused,
        Self::RunRecovered,
        Self::RunBlocked,
        Self::Promoted,
        Self::PromotionFailed,
        Self::Stalled,
    ];

    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MigrationFailed => "MigrationFailed",
            Self::MigrationRequired => "MigrationRequired",
            Self::DocumentRejected => "DocumentRejected",
            Self::RolloutFinished => "RolloutFinished",
            Self::CollectionFailed => "CollectionFailed",
            Self::CollectionRefused => "CollectionRefused",
            Self::CollectionRecovered => "CollectionRecovered",
            Self::NoAccessPolicy => "NoAccessPolicy",
            Self::DataPurged => "DataPurged",
            Self::DataRetained => "DataRetained",
            Self::LimitExceeded => "LimitExceeded",
            Self::RunFailed => "RunFailed",
            Self::RunRefused => "RunRefused",
            Self::RunRecovered => "RunRecovered",
            Self::RunBlocked => "RunBlocked",
            Self::Promoted => "Promoted",
            Self::PromotionFailed => "PromotionFailed",
            Self::Stalled => "Stalled",
        }
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Is it bad news?
    pub warning: bool,
    /// What happened.
    pub reason: Happening,
    /// For a human.
    pub message: String,
}

impl Notice {
    /// Good news.
    #[must_use]
    pub fn normal(reason: Happening, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    /// Bad news.
    #[must_use]
    pub fn warning(reason: Happening, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// What the change from one status of a Registry to the next has to tell.
#[must_use]
pub fn of_registry(before: Option<&RegistryStatus>, after: &RegistryStatus) -> Vec<Notice> {
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let after = after.conditions.as_slice();
    let mut notices = Vec::new();
    for (condition, reason, happening) in [
        (ConditionType::DatabaseMigrated, Reason::MigrationFailed, Happening::MigrationFailed),
        (ConditionType::DatabaseMigrated, Reason::MigrationRequired, Happening::MigrationRequired),
        (ConditionType::ConfigurationApplied, Reason::ConfigurationRejected, Happening::DocumentRejected),
        (ConditionType::GarbageCollectionHealthy, Reason::LastRunFailed, Happening::CollectionFailed),
        (ConditionType::GarbageCollectionHealthy, Reason::Refused, Happening::CollectionRefused),
    ] {
        let found = entered(before, after, condition, reason);
        notices.extend(found.map(|found| Notice::warning(happening, found.message.clone())));
    }
    notices.extend(blocked(before, after));
    notices.extend(stalled(before, after));
    if has(before, ConditionType::Ready, Reason::RollingOut) && is_true(after, ConditionType::Ready) {
        notices.push(Notice::normal(Happening::RolloutFinished, "every replica runs the wanted version"));
    }
    let collections = ConditionType::GarbageCollectionHealthy;
    let was_broken = find(before, collections).is_some_and(|old| old.status == Verdict::False.as_str());
    if was_broken && has(after, collections, Reason::LastRunSucceeded) {
        notices.push(Notice::normal(Happening::CollectionRecovered, "the last collection succeeded again"));
    }
    notices
}

/// What the change of a dependent's conditions has to tell, and `run`, what its last run has. The same text is told once.
#[must_use]
pub fn of_dependent(before: &[Condition], after: &[Condition], run: Option<Notice>) -> Vec<Notice> {
    let exceeded = entered(before, after, ConditionType::LimitExceeded, Reason::LimitExceeded);
    let exceeded = exceeded.map(|found| Notice::warning(Happening::LimitExceeded, found.message.clone()));
    once([exceeded, run, blocked(before, after), stalled(before, after)])
}

/// What the next known run has to tell after the one that was known before: that it ended another way.
#[must_use]
pub fn of_run(before: Option<&Summary>, after: Option<&Summary>) -> Option<Notice> {
    let (before, after) = (before.map(|run| run.result), after?);
    if before == Some(after.result) {
        return None;
    }
    let said = after.message.as_deref().unwrap_or("the log of its pod says why");
    match (after.result, before) {
        (Outcome::Failed, _) => Some(Notice::warning(Happening::RunFailed, said)),
        (Outcome::Refused, _) => Some(Notice::warning(Happening::RunRefused, said)),
        (Outcome::Succeeded, Some(_)) => {
            Some(Notice::normal(Happening::RunRecovered, "the last run succeeded again"))
        }
        (Outcome::Succeeded, None) => None,
    }
}

/// What the change of a Promotion's conditions has to tell: its end.
#[must_use]
pub fn of_promotion(before: &[Condition], after: &[Condition]) -> Vec<Notice> {
    let verdict = |conditions| find(conditions, ConditionType::Succeeded).map(|found| found.status.as_str());
    let changed = verdict(before) != verdict(after);
    let end = find(after, ConditionType::Succeeded).filter(|_| changed).and_then(|found| {
        let said = if found.message.is_empty() { &found.reason } else { &found.message };
        match found.status.as_str() {
            "True" => Some(Notice::normal(Happening::Promoted, said)),
            "False" => Some(Notice::warning(Happening::PromotionFailed, said)),
            _ => None,
        }
    });
    once([end, stalled(before, after)])
}

/// It waits for a human, and did not before, or for another reason.
fn stalled(before: &[Condition], after: &[Condition]) -> Option<Notice> {
    appeared(before, after, ConditionType::Stalled)
        .map(|found| Notice::warning(Happening::Stalled, found.message.clone()))
}

/// A run of it cannot begin, and could before, or for another reason.
fn blocked(before: &[Condition], after: &[Condition]) -> Option<Notice> {
    appeared(before, after, ConditionType::RunBlocked)
        .map(|found| Notice::warning(Happening::RunBlocked, found.message.clone()))
}

/// A condition that is absent when all is well, if it was absent before, or there for another reason.
fn appeared<'a>(
    before: &[Condition],
    after: &'a [Condition],
    condition: ConditionType,
) -> Option<&'a Condition> {
    let found = find(after, condition)?;
    find(before, condition).is_none_or(|old| old.reason != found.reason).then_some(found)
}

/// What there is to tell, without what says again what was said.
fn once<const N: usize>(found: [Option<Notice>; N]) -> Vec<Notice> {
    let mut told: Vec<Notice> = Vec::new();
    for notice in found.into_iter().flatten() {
        if told.iter().all(|earlier| earlier.message != notice.message) {
            told.push(notice);
        }
    }
    told
}

fn entered<'a>(
    before: &[Condition],
    after: &'a [Condition],
    condition: ConditionType,
    reason: Reason,
) -> Option<&'a Condition> {
    let found = find(after, condition).filter(|found| found.reason == reason.as_str())?;
    (!has(before, condition, reason)).then_some(found)
}

fn has(conditions: &[Condition], condition: ConditionType, reason: Reason) -> bool {
    find(conditions, condition).is_some_and(|found| found.reason == reason.as_str())
}

/// Publishes notices. One that cannot be published is logged and lost: a status says the same.
pub async fn publish(recorder: &Recorder, about: &ObjectReference, notices: Vec<Notice>) {
    for notice in notices {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.as_str().to_owned(),
            note: Some(notice.message.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, about).await {
            warn!(%error, event.reason = notice.reason.as_str(), "event could not be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use stowage_crds::conditions::{Finding, set};

    use super::*;

    fn status(condition: ConditionType, verdict: bool, reason: Reason) -> RegistryStatus {
        let mut status = RegistryStatus::default();
        let finding = Finding::new(condition, verdict, reason, "text");
        set(&mut status.conditions, finding, Some(1), &Time(Timestamp::UNIX_EPOCH));
        status
    }

    #[test]
    fn a_failed_migration_is_told_once() {
        let failed = status(ConditionType::DatabaseMigrated, false, Reason::MigrationFailed);
        let told = of_registry(None, &failed);
        assert_eq!(told, [Notice::warning(Happening::MigrationFailed, "text")]);
        assert_eq!(of_registry(Some(&failed), &failed), []);
    }

    #[test]
    fn a_collection_that_works_again_is_good_news() {
        let of = |verdict, reason| status(ConditionType::GarbageCollectionHealthy, verdict, reason);
        let (failed, well) = (of(false, Reason::LastRunFailed), of(true, Reason::LastRunSucceeded));
        let told = |before: &RegistryStatus, after: &RegistryStatus| -> Vec<Happening> {
            of_registry(Some(before), after).into_iter().map(|notice| notice.reason).collect()
        };
        assert_eq!(told(&failed, &well), [Happening::CollectionRecovered]);
        assert_eq!(told(&well, &failed), [Happening::CollectionFailed]);
        assert_eq!(told(&well, &well), []);
        assert_eq!(told(&of(true, Reason::NeverRun), &well), []);
        assert_eq!(told(&failed, &of(true, Reason::Suspended)), []);
    }

    #[test]
    fn a_run_beyond_its_limits_is_told_once_however_much_says_so() {
        let mut exceeded = status(ConditionType::LimitExceeded, true, Reason::LimitExceeded).conditions;
        let stalled = Finding::new(ConditionType::Stalled, true, Reason::LimitExceeded, "text");
        set(&mut exceeded, stalled, Some(1), &Time(Timestamp::UNIX_EPOCH));
        let run = || Some(Notice::warning(Happening::RunRefused, "text"));
        let told = of_dependent(&[], &exceeded, run());
        assert_eq!(told, [Notice::warning(Happening::LimitExceeded, "text")]);
        assert_eq!(of_dependent(&exceeded, &exceeded, None), []);
        assert_eq!(of_dependent(&exceeded, &[], None), []);
    }

    #[test]
    fn a_resource_that_comes_to_wait_for_a_human_says_so_once_a_reason() {
        let stalled = |reason| status(ConditionType::Stalled, true, reason).conditions;
        let (invalid, conflict) = (stalled(Reason::InvalidSpec), stalled(Reason::PathConflict));
        let told = [Notice::warning(Happening::Stalled, "text")];
        assert_eq!(of_dependent(&[], &invalid, None), told);
        assert_eq!(of_dependent(&invalid, &invalid, None), []);
        assert_eq!(of_dependent(&invalid, &conflict, None), told);
        assert_eq!(of_dependent(&conflict, &[], None), []);
    }

    #[test]
    fn a_run_that_cannot_begin_is_told_once() {
        let blocked = status(ConditionType::RunBlocked, true, Reason::NoJobs);
        let told = [Notice::warning(Happening::RunBlocked, "text")];
        assert_eq!(of_registry(None, &blocked), told);
        assert_eq!(of_registry(Some(&blocked), &blocked), []);
        assert_eq!(of_dependent(&[], &blocked.conditions, None), told);
        assert_eq!(of_dependent(&blocked.conditions, &[], None), []);
    }

    #[test]
    fn a_run_is_told_when_it_ends_another_way_than_the_one_before() {
        use Outcome::{Failed, Refused, Succeeded};
        let run = |result| Summary { message: Some("so".to_owned()), ..Summary::new("sync", result) };
        let told = |before: Option<Outcome>, after| {
            let (before, after) = (before.map(run), run(after));
            of_run(before.as_ref(), Some(&after)).map(|notice| (notice.warning, notice.reason))
        };
        for (before, after, expected) in [
            (None, Succeeded, None),
            (None, Failed, Some((true, Happening::RunFailed))),
            (Some(Succeeded), Failed, Some((true, Happening::RunFailed))),
            (Some(Failed), Failed, None),
            (Some(Failed), Refused, Some((true, Happening::RunRefused))),
            (Some(Refused), Succeeded, Some((false, Happening::RunRecovered))),
            (Some(Succeeded), Succeeded, None),
        ] {
            assert_eq!(told(before, after), expected, "{before:?} {after:?}");
        }
        assert_eq!(of_run(Some(&run(Failed)), None), None);
    }

    #[test]
    fn the_end_of_a_promotion_is_told_once() {
        let of = |verdict: Verdict, reason| {
            let mut conditions = Vec::new();
            let finding = Finding::new(ConditionType::Succeeded, verdict, reason, "text");
            set(&mut conditions, finding, Some(1), &Time(Timestamp::UNIX_EPOCH));
            conditions
        };
        let waits = of(Verdict::Unknown, Reason::WaitingForGates);
        let (promoted, conflict) =
            (of(Verdict::True, Reason::Promoted), of(Verdict::False, Reason::TagConflict));
        assert_eq!(of_promotion(&[], &waits), []);
        assert_eq!(of_promotion(&waits, &promoted), [Notice::normal(Happening::Promoted, "text")]);
        assert_eq!(of_promotion(&promoted, &promoted), []);
        let mut failed = conflict;
        let stalled = Finding::new(ConditionType::Stalled, true, Reason::TagConflict, "text");
        set(&mut failed, stalled, Some(1), &Time(Timestamp::UNIX_EPOCH));
        assert_eq!(of_promotion(&waits, &failed), [Notice::warning(Happening::PromotionFailed, "text")]);
        assert_eq!(of_promotion(&failed, &failed), []);
    }

    #[test]
    fn the_end_of_a_rollout_is_good_news() {
        let rolling = status(ConditionType::Ready, false, Reason::RollingOut);
        let ready = status(ConditionType::Ready, true, Reason::Reconciled);
        assert_eq!(of_registry(Some(&rolling), &ready).len(), 1);
        assert_eq!(of_registry(None, &ready), []);
        assert_eq!(of_registry(Some(&ready), &rolling), []);
    }
}
