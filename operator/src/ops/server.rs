// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The operations port: `/livez`, `/readyz`, `/metrics`. No authentication; it serves the cluster's inside.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use super::{metrics::Metrics, tasks::Shutdown};

/// What the process waits for before it calls itself ready.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<BTreeMap<&'static str, bool>>);

impl Readiness {
    /// Sets one check.
    pub fn set(&self, check: &'static str, ready: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(check, ready);
    }

    fn report(&self) -> (bool, String) {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = !checks.is_empty() && checks.values().all(|ready| *ready);
        let lines =
            checks.iter().map(|(check, ready)| format!("[{}] {check}\n", if *ready { "+" } else { "-" }));
        (ready, lines.collect())
    }
}

/// What the handlers look at.
#[derive(Debug, Clone, Default)]
pub struct Ops {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The checks.
    pub readiness: Arc<Readiness>,
}

/// The routes of the operations port.
pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

/// Serves until the shutdown.
pub async fn serve(listener: TcpListener, ops: Ops, shutdown: Shutdown) {
    if let Err(error) = axum::serve(listener, router(ops)).with_graceful_shutdown(shutdown.begun()).await {
        tracing::error!(%error, "operations port failed");
    }
}

async fn readyz(State(ops): State<Ops>) -> impl IntoResponse {
    let (ready, text) = ops.readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

async fn metrics(State(ops): State<Ops>) -> impl IntoResponse {
    match ops.metrics.text() {
        Ok(text) => {
            let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_known_is_not_ready_and_one_failing_check_names_itself() {
        let readiness = Readiness::default();
        assert!(!readiness.report().0);
        readiness.set("crds", true);
        readiness.set("caches", false);
        let (ready, text) = readiness.report();
        assert!(!ready);
        assert!(text.contains("[-] caches"));
        readiness.set("caches", true);
        assert!(readiness.report().0);
    }
}
