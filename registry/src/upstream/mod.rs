// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Other registries, as their client: manifests, blobs, lists and referrers of any OCI or Docker registry.
//!
//! Guarantees: a manifest is given out whole, as its bytes are, and only with the digest that they have. A blob is a
//! stream of exactly the length that the upstream declared, in order, whatever broke on the way; its digest is the
//! reader's to check, for whom the stream passes by. Nothing that was declared wrongly ends cleanly.
//! A credential is sent to the registry and to its token endpoints ([`realm`] says which), never after a redirect to
//! another scheme, host or port, and is in no message. Every address is looked at when it is connected to.
//! Files of Secrets are read for every request, so that another credential or certificate needs no restart.
//! Assumes: `Settings` were checked. Whoever reads a body keeps on reading or drops it: it holds one of
//! `max_concurrent` places and a connection.
//! Never: knows how often a registry may be asked. Whoever knows of the other replicas says when each request may be
//! sent ([`Turns`]), and learns from each answer and each error what the registry says about that ([`Budget`]). Nor
//! follows `urls` of descriptors.
//!
//! It speaks HTTP/1.1 only: a body whose reader pauses holds up its own connection, where the shared window of an
//! HTTP/2 connection would hold up all others.

mod access;
mod address;
mod blobs;
mod budget;
mod challenge;
mod connect;
mod credentials;
mod error;
mod exchange;
mod link;
mod lists;
mod manifests;
mod names;
mod quay;
mod realm;
mod referrers;
mod settings;
mod tls;
mod tokens;
mod turns;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, StatusCode};
use stowage_oci::Name;
use tokio::sync::Semaphore;

pub use blobs::{Blob, Body, Span};
pub use budget::Budget;
pub use error::{Error, Kind, Refusal};
pub use lists::{Begin, Cursor, Page};
pub use manifests::{Head, Manifest};
pub use quay::Listed;
pub use referrers::{Referrer, Referrers};
pub use settings::{Network, Origin, OriginError, Patience, Settings, Verification};
pub use turns::{NotNow, Turns};

use access::Access;
use exchange::{Ask, finish};

/// A registry that this one is a client of. Clones share connections, tokens and the limit of requests.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// How it is called in messages.
    name: Arc<str>,
    places: Arc<Semaphore>,
    /// Without, it is asked at any time.
    turns: Option<Arc<dyn Turns>>,
    /// What follows from the files of its Secrets as they were at the last request.
    access: Mutex<Option<Arc<Access>>>,
}

/// A value, and what the upstream said about its limits beside it.
#[derive(Clone, Debug)]
pub struct Answered<T> {
    /// What was asked for.
    pub value: T,
    /// What the upstream said about its limits.
    pub budget: Budget,
}

impl Upstream {
    /// A client that asks whenever it is asked; nothing is read or asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::begin(settings, None)
    }

    /// A client that waits for a turn before each request to the registry and to its token endpoint.
    #[must_use]
    pub fn in_turn(settings: Settings, turns: Arc<dyn Turns>) -> Self {
        Self::begin(settings, Some(turns))
    }

    fn begin(settings: Settings, turns: Option<Arc<dyn Turns>>) -> Self {
        let places = Arc::new(Semaphore::new(settings.max_concurrent.clamp(1, Semaphore::MAX_PERMITS)));
        let name = settings.origin.host_and_port().into();
        Self(Arc::new(Inner { settings, name, places, turns, access: Mutex::new(None) }))
    }

    /// How it is called: host, and port where that is not the scheme's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether a client that says this host name means this registry. Docker Hub's three names are one.
    #[must_use]
    pub fn is_named(&self, host: &str) -> bool {
        self.0.settings.is_named(host)
    }

    /// The name of a repository as the upstream knows it: Docker Hub's `alpine` is `library/alpine`.
    #[must_use]
    pub fn repository(&self, name: &Name) -> Name {
        names::repository(&self.0.settings.origin, name)
    }

    /// That it does not answer as soon as its answer is needed.
    #[must_use]
    pub fn late(&self) -> Error {
        self.0.error(Kind::UNAVAILABLE, "does not answer in time")
    }

    /// That what came from it is not what it should be.
    #[must_use]
    pub fn wrong(&self, cause: String) -> Error {
        self.0.error(Kind::WrongContent, cause)
    }

    /// Puts a document of JSON at this path of the admin port of another Stowage, with user name and password: tokens
    /// are for repositories.
    pub async fn put_document(&self, path: &str, document: Bytes) -> Result<(), Error> {
        let url = self.0.settings.origin.at(path);
        let ask = Ask { method: Method::PUT, document: Some(document), ..Ask::get(url, String::new()) };
        let authorization = tokens::basic(&*self.0.access()?);
        let answer = self.0.ask_as(&ask, authorization.as_ref()).await?;
        finish(answer.body).await;
        Ok(())
    }

    /// Whether it is there, is a registry, and takes our credential.
    pub async fn ping(&self) -> Result<Answered<()>, Error> {
        let ask = Ask::get(self.0.settings.origin.at("/v2/"), String::new());
        let answer = self.0.ask(&ask).await?;
        if answer.is_page() || answer.status() != StatusCode::OK {
            return Err(self
                .0
                .error(Kind::NotARegistry, "/v2/ is not that of a registry")
                .with(&answer.budget));
        }
        Ok(Answered { value: (), budget: answer.budget })
    }
}
