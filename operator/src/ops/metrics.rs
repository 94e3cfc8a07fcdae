// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the operator counts about itself and about the resources it looks after.
//!
//! Never: a label whose values a user can multiply without owning a resource.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Which controller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

/// Which controller, and why it failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    controller: &'static str,
    reason: String,
}

/// One condition of one resource, in one of its three states.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    kind: &'static str,
    namespace: String,
    name: String,
    r#type: String,
    status: String,
}

/// A condition as metrics need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionState {
    /// For example `Ready`.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

type ResourceKey = (&'static str, String, String);

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ControllerLabel, Counter>,
    errors: Family<ErrorLabels, Counter>,
    durations: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    leader: Gauge,
    invalid: Family<ControllerLabel, Counter>,
    conditions: Family<ConditionLabels, Gauge>,
    known: Mutex<HashMap<ResourceKey, Vec<ConditionLabels>>>,
}

fn reconcile_buckets() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("stowage"),
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(reconcile_buckets),
            leader: Gauge::default(),
            invalid: Family::default(),
            conditions: Family::default(),
            known: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("operator_reconcile", "Reconciliations begun", self.reconciles.clone());
        registry.register(
            "operator_reconcile_errors",
            "Reconciliations that failed, by reason",
            self.errors.clone(),
        );
        registry.register_with_unit(
            "operator_reconcile_duration",
            "How long a reconciliation took",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("operator_leader", "Whether this process holds the lease", self.leader.clone());
        registry.register(
            "operator_invalid_objects",
            "Resources that could not be read by this version",
            self.invalid.clone(),
        );
        registry.register("resource_condition", "Conditions of resources", self.conditions.clone());
    }

    /// Counts a reconciliation and how long it took.
    pub fn reconciled(&self, controller: &'static str, took: Duration) {
        let label = ControllerLabel { controller };
        self.reconciles.get_or_create(&label).inc();
        self.durations.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Counts a failure.
    pub fn failed(&self, controller: &'static str, reason: &str) {
        self.errors.get_or_create(&ErrorLabels { controller, reason: reason.to_owned() }).inc();
    }

    /// Counts a resource that does not deserialize.
    pub fn invalid(&self, controller: &'static str) {
        self.invalid.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// Says whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Shows the conditions of a resource; those it had before and lacks now go.
    pub fn conditions(&self, kind: &'static str, namespace: &str, name: &str, states: &[ConditionState]) {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let labels: Vec<_> = states
            .iter()
            .map(|state| ConditionLabels {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                r#type: state.r#type.clone(),
                status: state.status.clone(),
            })
            .collect();
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for gone in known.remove(&key).unwrap_or_default().iter().filter(|old| !labels.contains(old)) {
            self.conditions.remove(gone);
        }
        for label in &labels {
            self.conditions.get_or_create(label).set(1);
        }
        if !labels.is_empty() {
            known.insert(key, labels);
        }
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_interface() {
        let metrics = Metrics::default();
        metrics.reconciled("registry", Duration::from_millis(20));
        metrics.failed("registry", "NameTaken");
        metrics.leads(true);
        metrics.conditions(
            "Registry",
            "ns",
            "main",
            &[ConditionState { r#type: "Ready".into(), status: "True".into() }],
        );
        let text = metrics.text().unwrap();
        for name in [
            "stowage_operator_reconcile_total{controller=\"registry\"} 1",
            "stowage_operator_reconcile_errors_total{controller=\"registry\",reason=\"NameTaken\"} 1",
            "stowage_operator_reconcile_duration_seconds_count{controller=\"registry\"} 1",
            "stowage_operator_leader 1",
            "stowage_resource_condition{kind=\"Registry\",namespace=\"ns\",name=\"main\",type=\"Ready\",status=\"True\"} 1",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }

    #[test]
    fn a_condition_that_changes_leaves_no_second_line() {
        let metrics = Metrics::default();
        let state = |status: &str| [ConditionState { r#type: "Ready".into(), status: status.into() }];
        metrics.conditions("Registry", "ns", "main", &state("False"));
        metrics.conditions("Registry", "ns", "main", &state("True"));
        let lines = metrics.text().unwrap();
        assert_eq!(lines.matches("stowage_resource_condition{").count(), 1);
        metrics.conditions("Registry", "ns", "main", &[]);
        assert_eq!(metrics.text().unwrap().matches("stowage_resource_condition{").count(), 0);
    }
}
