// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A decorator of the way to the API server: counts calls, and breaks one of them.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use tokio::sync::Notify;
use tower::{BoxError, Service};

/// How a call breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The server answers with this, and does nothing.
    Answer(StatusCode),
    /// The server does it, and the answer is lost.
    LoseAnswer,
    /// The server does it, and whoever asked is never heard of again.
    Die,
}

/// The calls of one operator.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    all: AtomicUsize,
    writes: AtomicUsize,
    plan: Option<(usize, Break)>,
    /// Told when the planned call broke.
    pub(crate) broke: Notify,
}

impl Calls {
    /// Breaks the call with this number; writes only are numbered for [`Break::Die`].
    pub(crate) fn breaking(at: usize, how: Break) -> Arc<Self> {
        Arc::new(Self { plan: Some((at, how)), ..Self::default() })
    }

    /// How many calls there were, watches left out.
    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }

    /// How many of them were writes.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    fn next(&self, request: &Request<Body>) -> Option<Break> {
        if request.uri().query().is_some_and(|query| query.contains("watch=")) {
            return None;
        }
        let number = self.all.fetch_add(1, Ordering::SeqCst);
        let is_write = request.method() != Method::GET;
        let write = if is_write { self.writes.fetch_add(1, Ordering::SeqCst) } else { usize::MAX };
        let (at, how) = self.plan?;
        let hit = if how == Break::Die { write == at } else { number == at };
        hit.then_some(how)
    }
}

/// A client whose calls go through the decorator.
pub(crate) fn faulty(client: Client, calls: &Arc<Calls>) -> Client {
    Client::new(Faulty { inner: client, calls: Arc::clone(calls) }, "default")
}

struct Faulty {
    inner: Client,
    calls: Arc<Calls>,
}

impl Service<Request<Body>> for Faulty {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let planned = self.calls.next(&request);
        let calls = Arc::clone(&self.calls);
        let inner = self.inner.clone();
        Box::pin(async move {
            let Some(planned) = planned else { return Ok(inner.send(request).await?) };
            if let Break::Answer(code) = planned {
                calls.broke.notify_one();
                // To a request that creates, a conflict means that the object is there: no server lies about that.
                let lies = code == StatusCode::CONFLICT && request.method() == Method::POST;
                return Ok(refusal(if lies { StatusCode::INTERNAL_SERVER_ERROR } else { code }));
            }
            drop(inner.send(request).await?);
            calls.broke.notify_one();
            if planned == Break::Die {
                std::future::pending::<()>().await;
            }
            Err("connection reset".into())
        })
    }
}

fn refusal(code: StatusCode) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": "Injected", "message": "injected",
    });
    let body = Body::from(status.to_string().into_bytes());
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
