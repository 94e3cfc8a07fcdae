// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `PUT /admin/v1/usage/{remote}`: what another cluster runs, in place of what it said before.
//!
//! For whom `usageProtection.remotes` names as its reporter. Who is not is not told which clusters there are.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::put;
use serde::{Deserialize, Serialize};
use stowage_oci::Digest;

use super::{Verb, read_within};
use crate::auth::{self, Caller};
use crate::http::DataPort;
use crate::http::error::Failure;

/// As much as the operator tells of its own cluster.
const MAX_BODY: usize = 900 << 10;
/// The longest reference.
const MAX_REFERENCE: usize = 1024;

pub(super) fn routes() -> Router<DataPort> {
    Router::new().route("/admin/v1/usage/{remote}", put(report))
}

/// What it runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Running {
    /// Manifests, or configurations.
    #[serde(default)]
    digests: Vec<Digest>,
    /// As they are written in workloads.
    #[serde(default)]
    references: Vec<String>,
}

/// How much was taken.
#[derive(Serialize)]
struct Taken {
    digests: usize,
    references: usize,
}

async fn report(
    State(port): State<DataPort>,
    caller: Caller,
    Path(remote): Path<String>,
    body: Body,
) -> Response {
    let taken = take(&port, &caller, &remote, body).await;
    Verb { name: "report_usage", repository: None }.answered(&caller, taken)
}

async fn take(port: &DataPort, caller: &Caller, remote: &str, body: Body) -> Result<Taken, Failure> {
    let settings = port.settings.load_full();
    let known = settings.reporters.iter().find(|known| known.name == remote);
    if !known.is_some_and(|known| caller.is(&known.reporter)) {
        return Err(auth::Refusal::Denied.into());
    }
    let Running { digests, references } = read_within(MAX_BODY, body).await?;
    let is_one = |reference: &String| !reference.is_empty() && reference.len() <= MAX_REFERENCE;
    if let Some(place) = references.iter().position(|reference| !is_one(reference)) {
        let problem = format!("references[{place}]: a reference has 1 to {MAX_REFERENCE} bytes");
        return Err(Failure::Unreadable(problem));
    }
    port.domain.report_usage(remote, &digests, &references).await?;
    Ok(Taken { digests: digests.len(), references: references.len() })
}
