// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What Prometheus and Grafana get, where the user asked for it and, for Prometheus, where its operator's API exists.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use stowage_crds::Managed;

use super::metadata;
use crate::{
    controllers::registry::validate::Valid,
    names::Component,
    objects::{Kind, Object},
};

/// The longest that a collection may take.
const COLLECTION: Duration = Duration::from_hours(6);

pub(super) fn build(valid: &Valid) -> Vec<Object> {
    let Some(asked) = &valid.spec().monitoring else { return Vec::new() };
    let mut objects = Vec::new();
    if let Some(monitor) = &asked.service_monitor {
        let mut metadata = metadata(valid, valid.names().main(), Component::Monitoring);
        let own = metadata.labels.get_or_insert_default();
        for (key, value) in &monitor.labels.0 {
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
        objects.push(Object::untyped(Kind::ServiceMonitor, &metadata, service_monitor(valid)));
    }
    if asked.alerts == Managed::Managed {
        let metadata = metadata(valid, valid.names().main(), Component::Monitoring);
        objects.push(Object::untyped(Kind::PrometheusRule, &metadata, alerts(valid)));
    }
    if asked.dashboard == Managed::Managed {
        objects.push(dashboard(valid));
    }
    objects
}

fn service_monitor(valid: &Valid) -> Value {
    json!({
        "spec": {
            "selector": { "matchLabels": valid.names().selector(Component::Registry) },
            "endpoints": [{ "port": "ops", "path": "/metrics", "interval": "30s" }],
        },
    })
}

/// An alert, before it is written as a rule.
struct Alert {
    name: &'static str,
    expression: String,
    wait: String,
    severity: &'static str,
    /// Whom it is about, and what is wrong.
    summary: String,
}

impl Alert {
    fn warning(name: &'static str, wait: &str, expression: String, summary: String) -> Self {
        Self { name, expression, wait: wait.to_owned(), severity: "warning", summary }
    }

    /// `runbook`: the section of the documentation that says what to do. It has no address that holds everywhere.
    fn rule(&self) -> Value {
        json!({
            "alert": self.name,
            "expr": self.expression,
            "for": self.wait,
            "labels": { "severity": self.severity },
            "annotations": {
                "summary": self.summary,
                "runbook": format!("docs/how-to/alerts.md#{}", self.name.to_lowercase()),
            },
        })
    }
}

fn alerts(valid: &Valid) -> Value {
    let (namespace, name) = (&valid.namespace, &valid.name);
    let alerts = of_registry(valid).into_iter().chain(of_collections(valid)).chain(of_others(namespace));
    let rules: Vec<Value> = alerts.map(|alert| alert.rule()).collect();
    json!({ "spec": { "groups": [{ "name": format!("stowage-{namespace}-{name}"), "rules": rules }] } })
}

/// Whether the Registry has a condition.
fn has(valid: &Valid, condition: &str, status: &str) -> String {
    let (namespace, name) = (&valid.namespace, &valid.name);
    format!(
        "max by (namespace, name) (stowage_resource_condition{{kind=\"Registry\",namespace=\"{namespace}\",\
         name=\"{name}\",type=\"{condition}\",status=\"{status}\"}}) == 1"
    )
}

fn of_registry(valid: &Valid) -> [Alert; 2] {
    let own = format!("Registry {}/{}", valid.namespace, valid.name);
    [
        Alert {
            severity: "critical",
            ..Alert::warning(
                "RegistryNotReady",
                "10m",
                has(valid, "Ready", "False"),
                format!("{own} is not ready"),
            )
        },
        Alert::warning(
            "RegistryStalled",
            "5m",
            has(valid, "Stalled", "True"),
            format!("{own} waits for a human"),
        ),
    ]
}

fn of_collections(valid: &Valid) -> [Alert; 2] {
    let own = format!("Registry {}/{}", valid.namespace, valid.name);
    // Two runs in a row failed if the next one after a failure did not end it.
    let gap = valid.collections.longest_gap();
    let two_runs = format!("{}s", (gap + COLLECTION).as_secs());
    let behind = format!(
        "max(stowage_gc_oldest_due_seconds{{namespace=\"{}\",service=\"{}\"}}) > {}",
        valid.namespace,
        valid.names().ops(),
        (2 * gap + COLLECTION).as_secs()
    );
    [
        Alert::warning(
            "GCFailing",
            &two_runs,
            has(valid, "GarbageCollectionHealthy", "False"),
            format!("{own} failed to collect garbage twice"),
        ),
        Alert::warning("GCBehind", "15m", behind, format!("{own} does not get rid of its garbage")),
    ]
}

/// What is beside the Registry in its namespace, and the operator. A condition does not say which Registry a resource
/// names; where two of a namespace ask for alerts, both give the same one, with the same labels.
fn of_others(namespace: &str) -> [Alert; 3] {
    let condition = |kind: &str, of: &str| {
        format!("stowage_resource_condition{{kind{kind},namespace=\"{namespace}\",{of}}}")
    };
    let failing = condition("=\"Mirror\"", "type=~\"Ready|Synced\",status=\"False\"");
    let stalled = condition("=~\"Promotion|PromotionPolicy\"", "type=\"Stalled\",status=\"True\"");
    let not_taken = condition("=\"Promotion\"", "type=\"Accepted\",status=\"False\"");
    let errors = "sum by (reason) (increase(stowage_operator_reconcile_errors_total{controller=\"registry\"}[15m])) > 5";
    [
        Alert::warning(
            "MirrorFailing",
            "15m",
            format!("max by (namespace, name) ({failing}) == 1"),
            "Mirror {{ $labels.namespace }}/{{ $labels.name }} does not work, or did not copy all".to_owned(),
        ),
        Alert::warning(
            "PromotionStuck",
            "15m",
            format!("max by (kind, namespace, name) ({stalled} or {not_taken}) == 1"),
            "{{ $labels.kind }} {{ $labels.namespace }}/{{ $labels.name }} promotes nothing".to_owned(),
        ),
        Alert::warning(
            "OperatorReconcileErrors",
            "15m",
            errors.to_owned(),
            "Registry reconciliation fails again and again".to_owned(),
        ),
    ]
}

fn dashboard(valid: &Valid) -> Object {
    let mut metadata = metadata(valid, valid.names().dashboard(), Component::Monitoring);
    metadata.labels.get_or_insert_default().insert("grafana_dashboard".into(), "1".into());
    let service = format!("namespace=\"{}\",service=\"{}\"", valid.namespace, valid.names().ops());
    let panels: Vec<Value> = [
        (
            "Requests per second",
            format!("sum by (operation) (rate(stowage_http_requests_total{{{service}}}[5m]))"),
        ),
        (
            "Errors per second",
            format!(
                "sum by (operation, code) (rate(stowage_http_requests_total{{{service},code=~\"5..\"}}[5m]))"
            ),
        ),
        (
            "Latency, 99th percentile",
            format!(
                "histogram_quantile(0.99, sum by (le, operation) \
                 (rate(stowage_http_request_duration_seconds_bucket{{{service}}}[5m])))"
            ),
        ),
        ("Bytes per second", format!("sum by (direction) (rate(stowage_blob_bytes_total{{{service}}}[5m]))")),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, (title, expression))| panel(index, title, &expression))
    .collect();
    let dashboard = json!({
        "title": format!("Stowage {}/{}", valid.namespace, valid.name),
        "uid": crate::names::short_hash(&format!("{}/{}", valid.namespace, valid.name)),
        "schemaVersion": 39,
        "time": { "from": "now-6h", "to": "now" },
        "panels": panels,
    });
    let file = format!("stowage-{}-{}.json", valid.namespace, valid.name);
    let config =
        ConfigMap { metadata, data: Some([(file, dashboard.to_string())].into()), ..ConfigMap::default() };
    Object::typed(Kind::ConfigMap, &config)
}

fn panel(index: usize, title: &str, expression: &str) -> Value {
    json!({
        "id": index + 1,
        "type": "timeseries",
        "title": title,
        "gridPos": { "h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index / 2) },
        "targets": [{ "expr": expression, "refId": "A" }],
    })
}
