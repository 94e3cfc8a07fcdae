// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The data port. The only room that knows axum, status codes and headers.
//!
//! A request: raw path → [`parse`] → `Operation` → `auth` → `Authorized` → [`dispatch`] → one call of the
//! domain → [`respond`] or [`error`]. Served: `/v2`, `/token`, nothing else.

mod admin;
mod body;
mod conditions;
pub mod connection;
mod dispatch;
mod error;
mod metrics;
mod middleware;
mod mirror;
pub mod ops;
mod parse;
mod place;
mod query;
mod respond;
mod span;
mod token;
mod virtuals;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use stowage_oci::Name;
use tokio::task::JoinError;
use tracing::Instrument as _;

pub use metrics::Metrics;
pub use parse::Site;

use crate::auth::{Access, Authorized, Presented};
use crate::domain::{Domain, Error, ManifestAnswer};
use crate::operation::{Action, Mode, Operation};
use crate::ops::permits::Permits;
use crate::ops::run_requests::RunRequests;
use crate::ops::tasks::Tasks;
use crate::usage::Remote;
use body::RequestBody;
use dispatch::Incoming;
use error::Failure;
use middleware::{Facts, MirrorFacts};
use place::{Asked, Where};
use query::Query;

/// What of the data port may change while it serves.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What the registry is called.
    pub site: Site,
    /// What it takes at present.
    pub mode: Mode,
    /// When a client is sent to the store for a blob's bytes; `None` is never.
    pub redirect: Option<Redirect>,
    /// Who may report what other clusters run.
    pub reporters: Vec<Remote>,
}

/// Which pulls of blobs are answered with the address of the bytes in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// Smaller blobs are answered here.
    pub min_size: u64,
    /// Clients whose `User-Agent` begins with one of these are answered here: they would take their credential
    /// for the registry along, which stores refuse.
    pub exclude_user_agents: Vec<String>,
}

impl Redirect {
    /// Whether a `GET` of a blob of `size` bytes with these headers may be redirected.
    fn fits(&self, headers: &HeaderMap, size: u64) -> bool {
        let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_excluded = |prefix: &String| agent.starts_with(prefix.as_bytes());
        size >= self.min_size && !self.exclude_user_agents.iter().any(is_excluded)
    }
}

/// Everything the data port works with. Clones share it, and cost nothing: each request has some.
#[derive(Clone)]
pub struct DataPort(Arc<Shared>);

/// What a data port is made of.
pub struct Shared {
    domain: Domain,
    access: Arc<Access>,
    settings: Arc<ArcSwap<Settings>>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    slots: Permits,
    runs: RunRequests,
}

impl DataPort {
    /// Over these; answers at most as many requests at the same time as `slots` has. What is asked for on the admin
    /// port goes to `runs`.
    #[must_use]
    pub fn new(
        domain: Domain,
        access: Arc<Access>,
        settings: Arc<ArcSwap<Settings>>,
        metrics: Metrics,
        tasks: Tasks,
        slots: Permits,
        runs: RunRequests,
    ) -> Self {
        let metrics = Arc::new(metrics);
        Self(Arc::new(Shared { domain, access, settings, metrics, tasks, slots, runs }))
    }

    /// A manifest is answered: that somebody pulled it, unless only its head was asked for.
    fn note_pulled(&self, authorized: &Authorized, answer: &ManifestAnswer, head: bool) {
        if !head && authorized.counts() {
            self.domain.note_pulled(&answer.repository, &answer.digest);
        }
    }
}

impl Deref for DataPort {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The routes of the data port, to be mounted in another application.
pub fn router(port: DataPort) -> Router {
    let layer = axum::middleware::from_fn_with_state(port.clone(), middleware::around);
    routes(port).layer(layer)
}

/// The data port alone: whatever is no route of it is refused in the same form.
pub fn standalone(port: DataPort) -> Router {
    let layer = axum::middleware::from_fn_with_state(port.clone(), middleware::around);
    routes(port).fallback(nothing_else).layer(layer)
}

/// The routes of the admin port.
pub fn admin_router(port: DataPort) -> Router {
    admin::router(port)
}

/// The path of a repository is read by us: a pattern cannot have a name of any length in its middle, and its
/// decoding would make an escaped slash a separator.
fn routes(port: DataPort) -> Router {
    let domain = port.domain.clone();
    let members = move |name: &Name| domain.virtuals().members_of(name, &domain.mirrors());
    let token = token::router(Arc::clone(&port.access), Arc::new(members));
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*rest}", any(serve))
        .with_state(port)
        .merge(token)
}

async fn nothing_else() -> Response {
    Failure::from(parse::Refusal::NoEndpoint).into_response(None)
}

/// A write goes on when its client goes away: otherwise an upload would stay held by nobody, and the client's
/// next attempt be refused until its lease runs out.
async fn serve(State(port): State<DataPort>, request: Request) -> Response {
    if request.method().is_safe() {
        return operate(port, request).await;
    }
    let tasks = port.tasks.clone();
    match tasks.spawn(operate(port, request).in_current_span()).await.map_err(JoinError::try_into_panic) {
        Ok(response) => response,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_aborted)) => Failure::from(Error::Stopping).into_response(None),
    }
}

async fn operate(port: DataPort, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = RequestBody::new(body, &parts.headers, port.tasks.clone());
    let query = Query::parse(parts.uri.query());
    let settings = port.settings.load_full();
    let asked = match place::asked(&port.domain, &settings.site, &parts, &query).await {
        Ok(asked) => asked,
        Err(failure) => return failure.into_response(None),
    };
    let operation = asked.operation.clone();
    let mut facts = Facts {
        operation: operation.name(),
        repository: operation.repository().cloned(),
        subject: None,
        granted_by: Vec::new(),
        mirror: None,
    };
    let answer = answer(&port, settings.mode, parts, query, body, asked, &mut facts).await;
    let mut response = answer.unwrap_or_else(|failure| failure.into_response(Some(&operation)));
    facts.mirror = response.extensions_mut().remove::<MirrorFacts>();
    response.extensions_mut().insert(facts);
    response
}

async fn answer(
    port: &DataPort,
    mode: Mode,
    parts: Parts,
    query: Query,
    body: RequestBody,
    asked: Asked,
    facts: &mut Facts,
) -> Result<Response, Failure> {
    let Asked { operation, named, place } = asked;
    let member = match &place {
        Where::Members(at) => virtuals::written_to(at, &operation).cloned(),
        Where::Here | Where::There(_) | Where::Nowhere(_) | Where::Suspended => None,
    };
    let authorized = port.access.admit(presented(&parts), operation, member.as_ref()).await?;
    facts.subject = authorized.subject().map(str::to_owned);
    facts.granted_by = authorized.granted_by().to_vec();
    if let Some(reason) = mode.forbids(authorized.operation()) {
        return Err(Error::ModeForbids(reason).into());
    }
    let incoming = Incoming { headers: parts.headers, query, body, named, beside: Vec::new() };
    match place {
        Where::Here => dispatch::dispatch(port, &authorized, incoming).await,
        Where::There(at) => mirror::dispatch(port, &authorized, &at, incoming).await,
        Where::Members(at) => virtuals::dispatch(port, &authorized, at, incoming).await,
        Where::Nowhere(why) => Err(nowhere(authorized.operation(), why).into()),
        Where::Suspended => Err(Error::Suspended.into()),
    }
}

/// The answer for a name that is nobody's repository; `why`: what takes no writes there.
fn nowhere(operation: &Operation, why: &'static str) -> Error {
    match operation.action() {
        Some(Action::Push | Action::Delete) => Error::ModeForbids(why),
        Some(Action::Pull | Action::Promote | Action::Administer) | None => Error::NameUnknown,
    }
}

/// Who the request says it is from.
fn presented(parts: &Parts) -> Presented<'_> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    Presented {
        authorization: parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes),
        host: host(parts),
        source: peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip()),
    }
}

fn host(parts: &Parts) -> Option<&str> {
    let header = || parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(http::uri::Authority::as_str).or_else(header)
}
