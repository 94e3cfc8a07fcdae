// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `POST /admin/v1/gc`, `POST /admin/v1/mirrors/<mirror>/sync`, `POST /admin/v1/retention/<policy>/run`: a run of those
//! that this process starts by a schedule begins now, or after the one that is under way.
//!
//! Answers 202 before it has begun. Needs `Administer` on all repositories.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Verb, ensure_administers_all};
use crate::auth::Caller;
use crate::http::DataPort;
use crate::http::error::Failure;
use crate::ops::run_requests::{Requested, RunRequests};

pub(super) fn routes() -> Router<DataPort> {
    Router::new()
        .route("/admin/v1/gc", post(collect))
        .route("/admin/v1/mirrors/{mirror}/sync", post(sync))
        .route("/admin/v1/retention/{policy}/run", post(retain))
}

async fn collect(State(port): State<DataPort>, caller: Caller) -> Response {
    let outcome = asked(&caller, &port.runs.collections, RunRequests::COLLECTION, json!({ "run": "gc" }));
    answered("gc_run", &caller, outcome)
}

async fn sync(State(port): State<DataPort>, caller: Caller, Path(mirror): Path<String>) -> Response {
    let outcome = asked(&caller, &port.runs.mirrors, &mirror, json!({ "run": "sync", "mirror": mirror }));
    answered("mirror_sync", &caller, outcome)
}

async fn retain(State(port): State<DataPort>, caller: Caller, Path(policy): Path<String>) -> Response {
    let run = json!({ "run": "retention", "policy": policy });
    answered("retention_run", &caller, asked(&caller, &port.runs.policies, &policy, run))
}

/// Leaves the request; what the run is called.
fn asked(caller: &Caller, requested: &Requested, name: &str, run: Value) -> Result<Value, Failure> {
    ensure_administers_all(caller)?;
    if requested.ask(name) { Ok(run) } else { Err(Failure::NoRun(run)) }
}

fn answered(name: &'static str, caller: &Caller, outcome: Result<Value, Failure>) -> Response {
    let is_asked = outcome.is_ok();
    let mut response = Verb { name, repository: None }.answered(caller, outcome);
    if is_asked {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}
