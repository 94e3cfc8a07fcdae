// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Events: what happened to a resource, once, when it happened.
//!
//! Guarantees: an event is the difference of two statuses, so a reconciliation that changes nothing says nothing.
//! Never: a value of a Secret or a line of a log.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::events::{Event, EventType, Recorder};
use stowage_crds::{
    RegistryStatus,
    conditions::{ConditionType, Reason, find, is_true},
};
use tracing::warn;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Is it bad news?
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// For a human.
    pub message: String,
}

impl Notice {
    /// Good news.
    #[must_use]
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    /// Bad news.
    #[must_use]
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// What the change from one status of a Registry to the next has to tell.
#[must_use]
pub fn of_registry(before: Option<&RegistryStatus>, after: &RegistryStatus) -> Vec<Notice> {
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut notices = Vec::new();
    for (condition, reason, name) in [
        (ConditionType::DatabaseMigrated, Reason::MigrationFailed, "MigrationFailed"),
        (ConditionType::DatabaseMigrated, Reason::MigrationRequired, "MigrationRequired"),
        (ConditionType::ConfigurationApplied, Reason::ConfigurationRejected, "DocumentRejected"),
        (ConditionType::GarbageCollectionHealthy, Reason::LastRunFailed, "CollectionFailed"),
        (ConditionType::GarbageCollectionHealthy, Reason::Refused, "CollectionRefused"),
    ] {
        notices.extend(
            entered(before, &after.conditions, condition, reason)
                .map(|found| Notice::warning(name, found.message.clone())),
        );
    }
    if let Some(stalled) = find(&after.conditions, ConditionType::Stalled)
        && find(before, ConditionType::Stalled).is_none_or(|old| old.reason != stalled.reason)
    {
        notices.push(Notice::warning("Stalled", stalled.message.clone()));
    }
    let was_rolling = has(before, ConditionType::Ready, Reason::RollingOut);
    if was_rolling && is_true(&after.conditions, ConditionType::Ready) {
        notices.push(Notice::normal("RolloutFinished", "every replica runs the wanted version"));
    }
    notices
}

/// What the change of a dependent's conditions has to tell.
#[must_use]
pub fn of_dependent(before: &[Condition], after: &[Condition]) -> Vec<Notice> {
    let exceeded = entered(before, after, ConditionType::LimitExceeded, Reason::LimitExceeded);
    exceeded.map(|found| Notice::warning("LimitExceeded", found.message.clone())).into_iter().collect()
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
            reason: notice.reason.to_owned(),
            note: Some(notice.message.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, about).await {
            warn!(%error, event.reason = notice.reason, "event could not be published");
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
        assert_eq!(told, [Notice::warning("MigrationFailed", "text")]);
        assert_eq!(of_registry(Some(&failed), &failed), []);
    }

    #[test]
    fn a_run_beyond_its_limits_is_told_once() {
        let exceeded = status(ConditionType::LimitExceeded, true, Reason::LimitExceeded).conditions;
        assert_eq!(of_dependent(&[], &exceeded), [Notice::warning("LimitExceeded", "text")]);
        assert_eq!(of_dependent(&exceeded, &exceeded), []);
        assert_eq!(of_dependent(&exceeded, &[]), []);
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
