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

fn alerts(valid: &Valid) -> Value {
    let (namespace, name) = (&valid.namespace, &valid.name);
    let condition = |kind: &str, status: &str| {
        format!(
            "max by (namespace, name) (stowage_resource_condition{{kind=\"Registry\",namespace=\"{namespace}\",\
             name=\"{name}\",type=\"{kind}\",status=\"{status}\"}}) == 1"
        )
    };
    let errors = "sum by (reason) (increase(stowage_operator_reconcile_errors_total{controller=\"registry\"}[15m])) > 5";
    let own = format!("{namespace}/{name}");
    // Two runs in a row failed if the next one after a failure did not end it.
    let gap = valid.collections.longest_gap();
    let two_runs = format!("{}s", (gap + COLLECTION).as_secs());
    let behind = format!(
        "max(stowage_gc_oldest_due_seconds{{namespace=\"{namespace}\",service=\"{}\"}}) > {}",
        valid.names().ops(),
        (2 * gap + COLLECTION).as_secs()
    );
    let rules = [
        alert(
            "RegistryNotReady",
            &condition("Ready", "False"),
            "10m",
            "critical",
            &format!("{own} is not ready"),
            REASONS,
        ),
        alert(
            "RegistryStalled",
            &condition("Stalled", "True"),
            "5m",
            "warning",
            &format!("{own} waits for a human"),
            REASONS,
        ),
        alert(
            "GCFailing",
            &condition("GarbageCollectionHealthy", "False"),
            &two_runs,
            "warning",
            &format!("{own} failed to collect garbage twice"),
            "docs/errors/LastRunFailed.md",
        ),
        alert(
            "GCBehind",
            &behind,
            "15m",
            "warning",
            &format!("{own} does not get rid of its garbage"),
            "docs/explanation/garbage-collection.md#running-it",
        ),
        alert(
            "OperatorReconcileErrors",
            errors,
            "15m",
            "warning",
            "reconciliation fails again and again",
            REASONS,
        ),
    ];
    json!({ "spec": { "groups": [{ "name": format!("stowage-{namespace}-{name}"), "rules": rules }] } })
}

/// Where each reason of a condition has its page.
const REASONS: &str = "docs/errors/README.md#reasons-of-conditions";

/// `runbook`: the page of the documentation that says what to do. It has no address that holds everywhere.
fn alert(name: &str, expression: &str, wait: &str, severity: &str, what: &str, runbook: &str) -> Value {
    json!({
        "alert": name,
        "expr": expression,
        "for": wait,
        "labels": { "severity": severity },
        "annotations": {
            "summary": format!("Registry {what}"),
            "runbook": runbook,
        },
    })
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
