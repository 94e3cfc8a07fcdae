// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The operations port: `/livez`, `/readyz`, `/metrics`, `/config`. For the inside of a cluster, without
//! authentication; nothing on it changes anything or tells a secret.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::registry::Registry;

use crate::config::{Facts, Live};
use crate::ops::health::{self, Dependency, Health, Phase};
use crate::ops::metrics::{Metrics, exposition};

/// What prometheus-client writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the operations port tells of. Clones share it.
#[derive(Clone)]
pub struct OpsPort {
    /// Whether requests should come here.
    pub health: Arc<Health>,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// What is known of bucket and schema.
    pub facts: Arc<ArcSwap<Facts>>,
    /// What is counted beside requests.
    pub metrics: Metrics,
    /// Everything that is counted.
    pub registry: Arc<Registry>,
}

/// The routes of the operations port.
pub fn router(port: OpsPort) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .with_state(port)
}

async fn readyz(State(port): State<OpsPort>, RawQuery(query): RawQuery) -> Response {
    let ready = port.health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|p| p == "verbose" || p.starts_with("verbose=")));
    let word = if ready { "ok\n" } else { "not ready\n" };
    let body = if verbose { format!("{}{word}", checks(&port)) } else { word.to_owned() };
    (status, body).into_response()
}

/// One line a check.
fn checks(port: &OpsPort) -> String {
    let phase = match port.health.phase() {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
    };
    let storage = state(port.health.storage());
    let database = state(port.health.database());
    let configuration = match port.live.rejected() {
        None => "ok".to_owned(),
        // One line each: the report has the whole text.
        Some(why) => format!("degraded: {}", why.message.lines().next().unwrap_or_default()),
    };
    format!("process: {phase}\nstorage: {storage}\ndatabase: {database}\nconfiguration: {configuration}\n")
}

const fn state(state: health::State) -> &'static str {
    match state {
        health::State::Unknown => "unknown",
        health::State::Up => "ok",
        health::State::Down => "degraded: unreachable",
        health::State::Empty => "degraded: empty, restore or rebuild it",
    }
}

async fn metrics(State(port): State<OpsPort>) -> Response {
    port.metrics.config(&port.live.current().hash, port.live.rejected().is_some());
    for dependency in [Dependency::Storage, Dependency::Database] {
        match port.health.state(dependency) {
            health::State::Unknown => {}
            found => port.metrics.dependency(dependency.name(), found != health::State::Down),
        }
    }
    ([(CONTENT_TYPE, OPENMETRICS)], exposition(&port.registry)).into_response()
}

async fn config(State(port): State<OpsPort>) -> Response {
    let report = port.live.report(&port.health, &port.facts.load());
    ([(CONTENT_TYPE, "application/json")], report.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::{SecretsDir, Sources, load};

    fn port() -> OpsPort {
        let sources = Sources {
            paths: Vec::new(),
            registry: None,
            secrets: SecretsDir::new("/nowhere"),
            data_dir: "/nowhere".into(),
            listen: Some(([127, 0, 0, 1], 5000).into()),
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        OpsPort {
            health: Arc::new(Health::new()),
            live: Arc::new(Live::new(load(&sources).unwrap())),
            facts: Arc::default(),
            metrics,
            registry: Arc::new(registry),
        }
    }

    async fn get(port: &OpsPort, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(port.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn w885_ready_means_serving_and_one_lost_dependency_shows_only_when_asked() {
        let port = port();
        assert_eq!(get(&port, "/livez").await.0, StatusCode::OK);
        assert_eq!(get(&port, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        port.health.serve();
        port.health.note(Dependency::Database, &Err("gone"));
        assert_eq!(get(&port, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
        let (status, body) = get(&port, "/readyz?verbose").await;
        assert_eq!(status, StatusCode::OK);
        let expected =
            "process: serving\nstorage: unknown\ndatabase: degraded: unreachable\nconfiguration: ok\nok\n";
        assert_eq!(body, expected);
        port.health.drain();
        assert_eq!(get(&port, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_report_says_which_document_holds() {
        let port = port();
        let report: serde_json::Value = serde_json::from_str(&get(&port, "/config").await.1).unwrap();
        assert_eq!(report["hash"], port.live.current().hash.as_str());
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(report["maxVersion"], "1.2");
        assert_eq!(report["checks"]["storage"], "Unknown");
    }

    #[tokio::test]
    async fn the_metrics_name_the_document_that_holds() {
        let port = port();
        let (_, body) = get(&port, "/metrics").await;
        let line = format!("stowage_config_info{{hash=\"{}\"}} 1", port.live.current().hash);
        assert!(body.contains(&line) && body.ends_with("# EOF\n"), "{body}");
    }
}
