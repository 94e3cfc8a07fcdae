// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! An API server that holds one Lease, on a network that loses and delays.
//!
//! It is honest in what a lease stands on: a write with an old `resourceVersion` is refused, a create of what exists
//! too. A request may arrive after whoever sent it has given up, and an answer may never come.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinSet, time::sleep};
use tower::{BoxError, service_fn};

/// The server and its network.
#[derive(Clone)]
pub(crate) struct Leases(Arc<Inner>);

struct Inner {
    record: Mutex<Option<Value>>,
    version: Mutex<u64>,
    chance: Mutex<StdRng>,
    trouble: Mutex<f64>,
    under_way: Mutex<JoinSet<()>>,
}

impl Leases {
    /// A server in which a share of all messages is in trouble, the same for the same seed.
    pub(crate) fn new(seed: u64, trouble: f64) -> Self {
        Self(Arc::new(Inner {
            record: Mutex::default(),
            version: Mutex::default(),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            trouble: Mutex::new(trouble),
            under_way: Mutex::default(),
        }))
    }

    /// A way to it.
    pub(crate) fn client(&self) -> Client {
        let leases = self.clone();
        Client::new(
            service_fn(move |request: Request<Body>| {
                let leases = leases.clone();
                async move { leases.carry(request).await }
            }),
            "default",
        )
    }

    /// From now on nothing comes through.
    pub(crate) fn cut(&self) {
        *self.0.trouble.lock().unwrap() = 1.0;
    }

    /// Who holds it, as the record says.
    pub(crate) fn holder(&self) -> Option<String> {
        let record = self.0.record.lock().unwrap();
        record.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    async fn carry(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (there, back) = (self.delay(), self.delay());
        let (method, body) = (request.method().clone(), request.into_body().collect().await?.to_bytes());
        let (sender, answer) = oneshot::channel();
        let leases = self.clone();
        // On its own: it arrives even if the sender has given up.
        self.0.under_way.lock().unwrap().spawn(async move {
            let Some(there) = there else { return };
            sleep(there).await;
            drop(sender.send(leases.serve(&method, &body)));
        });
        let (code, body) = answer.await.map_err(|_lost| "lost on the way")?;
        let Some(back) = back else { return Err("the answer was lost".into()) };
        sleep(back).await;
        let body = Body::from(body.to_string().into_bytes());
        Ok(Response::builder().status(code).header("content-type", "application/json").body(body)?)
    }

    /// How long a message takes, or nothing if it is lost.
    fn delay(&self) -> Option<Duration> {
        let mut chance = self.0.chance.lock().unwrap();
        let trouble = *self.0.trouble.lock().unwrap();
        if trouble >= 1.0 {
            return None;
        }
        if !chance.random_bool(trouble) {
            return Some(Duration::from_millis(chance.random_range(1..50)));
        }
        chance.random_bool(0.5).then(|| Duration::from_millis(chance.random_range(500..20_000)))
    }

    fn serve(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let mut record = self.0.record.lock().unwrap();
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method, record.as_ref()) {
            (&Method::GET, Some(found)) => (StatusCode::OK, found.clone()),
            (&Method::GET | &Method::PUT, None) => refusal(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::POST, Some(_)) => refusal(StatusCode::CONFLICT, "AlreadyExists"),
            (&Method::PUT, Some(found))
                if found["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] =>
            {
                refusal(StatusCode::CONFLICT, "Conflict")
            }
            _ => {
                let mut version = self.0.version.lock().unwrap();
                *version += 1;
                let mut saved = sent;
                saved["apiVersion"] = json!("coordination.k8s.io/v1");
                saved["kind"] = json!("Lease");
                saved["metadata"]["resourceVersion"] = json!(version.to_string());
                *record = Some(saved.clone());
                (StatusCode::OK, saved)
            }
        }
    }
}

fn refusal(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": reason,
    });
    (code, body)
}
