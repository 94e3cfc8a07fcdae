// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `GET /admin/v1/trash` and `POST /admin/v1/trash/restore`: what was deleted, and bringing it back.
//!
//! Needs `Administer` on the repository; to list all of them, on all.

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use stowage_oci::{Digest, Name, Reference, Tag};

use super::{Verb, parameter, read};
use crate::auth::{self, Caller};
use crate::domain::{Error, Restored};
use crate::http::DataPort;
use crate::http::error::Failure;
use crate::http::query::Query;
use crate::meta::{TrashItem, Trashed};
use crate::operation::Action;

/// Entries of a page, if the client does not say, and at most.
const PAGE: u32 = 1000;

pub(super) fn routes() -> Router<DataPort> {
    Router::new().route("/admin/v1/trash", get(list)).route("/admin/v1/trash/restore", post(restore))
}

/// One page.
#[derive(Serialize)]
struct List {
    items: Vec<Entry>,
    /// `last` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    repository: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<Tag>,
    digest: Digest,
    media_type: String,
    size: u32,
    restorable_until: String,
}

impl From<Trashed> for Entry {
    fn from(found: Trashed) -> Self {
        let restorable_until = found.kept_until().to_string();
        let Trashed { item: TrashItem { repository, reference }, digest, media_type, size, .. } = found;
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        Self { repository, tag, digest, media_type, size, restorable_until }
    }
}

async fn list(State(port): State<DataPort>, caller: Caller, RawQuery(query): RawQuery) -> Response {
    let page = page(&port, &caller, &Query::parse(query.as_deref())).await;
    Verb { name: "list_trash", repository: None }.answered(&caller, page)
}

async fn page(port: &DataPort, caller: &Caller, query: &Query) -> Result<List, Failure> {
    let repository = parameter::<Name>(query, "repository")?;
    let after = parameter::<TrashItem>(query, "last")?;
    let limit = parameter::<u32>(query, "n")?.unwrap_or(PAGE).clamp(1, PAGE);
    let allowed = match &repository {
        Some(repository) => caller.may(Action::Administer, repository),
        None => caller.may_everywhere(Action::Administer),
    };
    if !allowed {
        return Err(auth::Refusal::Denied.into());
    }
    let found = port.domain.trash(repository.as_ref(), after.as_ref(), limit).await?;
    let is_full = found.len() >= limit as usize;
    let next = found.last().filter(|_| is_full).map(|last| last.item.to_string());
    Ok(List { items: found.into_iter().map(Entry::from).collect(), next })
}

/// What is to be restored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// `repository:tag` or `repository@digest`.
    reference: TrashItem,
    /// Deleted signatures, SBOMs and whatever else refers to it come back, too.
    #[serde(default)]
    referrers: bool,
}

async fn restore(State(port): State<DataPort>, caller: Caller, body: Body) -> Response {
    let request = read::<Request>(body).await;
    let repository = request.as_ref().ok().map(|request| request.reference.repository.clone());
    let restored = match request {
        Ok(request) => bring_back(&port, &caller, &request).await,
        Err(failure) => Err(failure),
    };
    Verb { name: "restore", repository }.answered(&caller, restored)
}

async fn bring_back(port: &DataPort, caller: &Caller, request: &Request) -> Result<Restored, Failure> {
    caller.check(Action::Administer, &request.reference.repository)?;
    if let Some(why) = port.settings.load().mode.refuses(Action::Push) {
        return Err(Error::ModeForbids(why).into());
    }
    Ok(port.domain.restore(&request.reference, request.referrers).await?)
}
