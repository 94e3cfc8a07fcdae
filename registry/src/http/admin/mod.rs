// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The admin port: administrative verbs below `/admin/v1`, JSON in and out.
//!
//! The same credentials, tokens and rules as on the data port, but nobody is anonymous: a handler takes a [`Caller`]
//! before it reads anything. What is no verb needs a name as well, so that nothing can be told from outside.

mod promotions;
mod retention;
mod runs;
mod trash;
mod usage;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stowage_oci::Name;

use super::error::Failure;
use super::middleware::Facts;
use super::query::Query;
use super::{DataPort, middleware, parse, presented, respond};
use crate::auth::{self, Caller};
use crate::operation::Action;

/// The longest body of a verb, in bytes.
const MAX_BODY: usize = 64 << 10;

/// The routes of the admin port.
pub(super) fn router(port: DataPort) -> Router {
    let layer = axum::middleware::from_fn_with_state(port.clone(), middleware::around);
    Router::new()
        .merge(trash::routes())
        .merge(promotions::routes())
        .merge(retention::routes())
        .merge(runs::routes())
        .merge(usage::routes())
        .fallback(nothing_else)
        .method_not_allowed_fallback(nothing_else)
        .with_state(port)
        .layer(layer)
}

async fn nothing_else(_somebody: Caller) -> Response {
    Failure::from(parse::Refusal::NoEndpoint).into_response(None)
}

impl FromRequestParts<DataPort> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, port: &DataPort) -> Result<Self, Response> {
        let recognized = port.access.recognize(presented(parts)).await;
        recognized.map_err(|refusal| Failure::from(refusal).into_response(None))
    }
}

/// A verb, as logs and metrics name it, and the repository that it is about.
struct Verb {
    name: &'static str,
    repository: Option<Name>,
}

impl Verb {
    /// The answer, and what the access line says of the request.
    fn answered(self, caller: &Caller, outcome: Result<impl Serialize, Failure>) -> Response {
        let response = match outcome {
            Ok(document) => respond::json(respond::JSON, &document),
            Err(failure) => failure.into_response(None),
        };
        self.told(caller, response)
    }

    /// The same of an answer that is made already.
    fn told(self, caller: &Caller, mut response: Response) -> Response {
        response.extensions_mut().insert(Facts {
            operation: self.name,
            repository: self.repository,
            subject: Some(caller.name().to_owned()),
            granted_by: Vec::new(),
            mirror: None,
        });
        response
    }
}

/// What is about many repositories is for those who administer all.
fn ensure_administers_all(caller: &Caller) -> Result<(), Failure> {
    if caller.may_everywhere(Action::Administer) { Ok(()) } else { Err(auth::Refusal::Denied.into()) }
}

/// A body of JSON.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    read_within(MAX_BODY, body).await
}

/// The same, of at most so many bytes.
async fn read_within<T: DeserializeOwned>(most: usize, body: Body) -> Result<T, Failure> {
    let bytes = to_bytes(body, most).await;
    let bytes =
        bytes.map_err(|_too_long| Failure::Unreadable(format!("body is longer than {most} bytes")))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Unreadable(format!("body: {error}")))
}

/// A parameter of the query, if it is there.
fn parameter<T>(query: &Query, name: &'static str) -> Result<Option<T>, Failure>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = query.one(name).map_err(|_two_values| parse::Refusal::TwoValues(name))?;
    let read = |text: &str| text.parse().map_err(|error| Failure::Unreadable(format!("{name}: {error}")));
    text.map(read).transpose()
}
