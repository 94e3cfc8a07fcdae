// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `GET /admin/v1/retention/<policy>/report`: what the newest run of a policy decided, tag by tag.
//!
//! Lines of JSON, first the summary. Needs `Administer` on all repositories: a policy is about many.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures::stream;

use super::{Verb, ensure_administers_all};
use crate::auth::Caller;
use crate::http::error::Failure;
use crate::http::{DataPort, respond};
use crate::key::{RunKind, RunName};
use crate::reports::Told;

pub(super) fn routes() -> Router<DataPort> {
    Router::new().route("/admin/v1/retention/{policy}/report", get(report))
}

async fn report(State(port): State<DataPort>, caller: Caller, Path(policy): Path<String>) -> Response {
    let verb = Verb { name: "retention_report", repository: None };
    match newest(&port, &caller, &policy).await {
        Ok(told) => verb.told(&caller, respond::lines(lines(told))),
        Err(failure) => verb.answered(&caller, Err::<(), _>(failure)),
    }
}

async fn newest(port: &DataPort, caller: &Caller, policy: &str) -> Result<Told, Failure> {
    ensure_administers_all(caller)?;
    let name: RunName = policy.parse().map_err(|error| Failure::Unreadable(format!("policy: {error}")))?;
    port.domain.told(RunKind::Retention, &name).await?.ok_or(Failure::NothingTold)
}

fn lines(told: Told) -> Body {
    // It is JSON already.
    let summary = Bytes::from(format!("{{\"summary\":{}}}\n", told.summary));
    Body::from_stream(stream::iter(std::iter::once(Ok(summary)).chain(told.pieces())))
}
