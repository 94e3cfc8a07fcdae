// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The controllers: one a kind, each woken by what it looks at.

pub mod dependents;
pub mod promotions;
pub mod registry;
pub mod run;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use thiserror::Error;

use crate::ops::metrics::ConditionState;

/// An attempt did not come to its end; when to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("look again in {} s", after.as_secs())]
pub struct Retry {
    /// The pause.
    pub after: Duration,
    /// How many attempts failed in a row.
    pub failures: u32,
}

/// Conditions as metrics show them.
fn condition_states(conditions: &[Condition]) -> Vec<ConditionState> {
    conditions
        .iter()
        .map(|condition| ConditionState { r#type: condition.type_.clone(), status: condition.status.clone() })
        .collect()
}
