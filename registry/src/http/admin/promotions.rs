// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `POST /admin/v1/promotions`: promotes an artifact by a policy, in the name of who asks. `GET`: the ledger, which says
//! how promotions have ended.
//!
//! To promote needs `Pull` on where it is and `Promote` on where it goes. Nobody can approve what is asked for here, so
//! `approval` gates keep it: that takes a `Promotion` in a cluster. The answer says what it came to, also when nothing was
//! promoted. Of the ledger everybody sees what went from and to repositories that they may `Pull` from.

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use stowage_oci::{Digest, Name, Tag};

use super::{Verb, parameter, read};
use crate::auth::Caller;
use crate::domain::{Error, Promotion, PromotionMode, PromotionRequest, Trigger};
use crate::http::DataPort;
use crate::http::error::Failure;
use crate::http::query::Query;
use crate::meta::{LedgerEntry, LedgerFilter, LedgerPlace};
use crate::operation::Action;

/// Entries of a page, if the client does not say, and at most: each may have 64 KiB.
const PAGE: u32 = 100;

pub(super) fn routes() -> Router<DataPort> {
    Router::new().route("/admin/v1/promotions", get(list).post(promote))
}

/// One page.
#[derive(Serialize)]
struct List {
    items: Vec<LedgerEntry>,
    /// `last` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn list(State(port): State<DataPort>, caller: Caller, RawQuery(query): RawQuery) -> Response {
    let page = page(&port, &caller, &Query::parse(query.as_deref())).await;
    Verb { name: "list_promotions", repository: None }.answered(&caller, page)
}

async fn page(port: &DataPort, caller: &Caller, query: &Query) -> Result<List, Failure> {
    let filter = LedgerFilter {
        repository: parameter(query, "repository")?,
        policy: parameter(query, "policy")?,
        digest: parameter(query, "digest")?,
    };
    let after = parameter(query, "last")?.unwrap_or(LedgerPlace::START);
    let limit = parameter::<u32>(query, "n")?.unwrap_or(PAGE).clamp(1, PAGE);
    let may_see = |repository: &Name| caller.may(Action::Pull, repository);
    if let Some(repository) = &filter.repository {
        caller.check(Action::Pull, repository)?;
    }
    let page = port.domain.ledger(&filter, after, limit, may_see).await?;
    Ok(List { items: page.entries, next: page.next.map(|next| next.to_string()) })
}

/// What is to be promoted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    policy: String,
    repository: Name,
    /// With a digest it is only a name.
    #[serde(default)]
    tag: Option<Tag>,
    #[serde(default)]
    digest: Option<Digest>,
    #[serde(default)]
    reason: Option<String>,
    /// The gates are asked, and nothing is changed.
    #[serde(default)]
    dry_run: bool,
}

async fn promote(State(port): State<DataPort>, caller: Caller, body: Body) -> Response {
    let request = read::<Request>(body).await;
    let repository = request.as_ref().ok().map(|request| request.repository.clone());
    let promoted = match request {
        Ok(request) => carry_out(&port, &caller, request).await,
        Err(failure) => Err(failure),
    };
    Verb { name: "promote", repository }.answered(&caller, promoted.map(|promotion| promotion.to_json()))
}

async fn carry_out(port: &DataPort, caller: &Caller, request: Request) -> Result<Promotion, Failure> {
    let Request { policy, repository, tag, digest, reason, dry_run } = request;
    caller.check(Action::Pull, &repository)?;
    if tag.is_none() && digest.is_none() {
        return Err(Failure::Unreadable("one of tag and digest must be set".to_owned()));
    }
    let unknown = || Failure::Unreadable(format!("policy: there is no PromotionPolicy {policy:?} in force"));
    let rule = port.domain.promotion_rule(&policy).ok_or_else(unknown)?;
    let request = PromotionRequest {
        id: None,
        repository,
        tag,
        digest,
        pinned: None,
        requested_by: Some(caller.name().to_owned()),
        actor: "stowage-registry serve".to_owned(),
        approvals: Vec::new(),
        reason,
    };
    if let Some(target) = rule.destination(&request) {
        caller.check(Action::Promote, &target)?;
    }
    let mode = if dry_run { PromotionMode::DryRun } else { PromotionMode::Promote };
    if mode == PromotionMode::Promote && rule.trigger == Trigger::Nobody {
        return Err(Error::ModeForbids("the policy is suspended, or the registry is read-only").into());
    }
    Ok(Box::pin(port.domain.promote(&rule, &request, mode)).await?)
}
