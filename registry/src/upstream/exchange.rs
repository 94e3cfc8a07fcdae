// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One request, to its answer: in its place, with the authorization that the registry asks for, over redirects.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE, USER_AGENT, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::access::Access;
use super::budget::Budget;
use super::connect;
use super::error::{Error, Kind, Refusal, chain};
use super::{Inner, Upstream};
use crate::ops::clock;

/// Who asks.
pub(super) const AGENT: &str = concat!("stowage/", env!("CARGO_PKG_VERSION"));
/// Redirects that are followed (W-728).
const MAX_REDIRECTS: usize = 5;
/// For the rest of an answer that nobody needs.
const SHORT: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    pub(super) range: Option<String>,
    /// A document of JSON to send along.
    pub(super) document: Option<Bytes>,
    /// What a token must allow, as registries spell it.
    pub(super) scope: String,
    /// What it is, in messages.
    pub(super) what: String,
}

impl Ask {
    pub(super) fn get(url: Url, scope: String) -> Self {
        let what = url.path().to_owned();
        Self { method: Method::GET, url, accept: None, range: None, document: None, scope, what }
    }
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    pub(super) body: Incoming,
    pub(super) budget: Budget,
    /// Whether the registry itself answers, rather than what it redirected to.
    is_own: bool,
    /// One of the places; free again when this is dropped.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl Answer {
    pub(super) const fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// A page for people: what answers is no registry, or something in front of one.
    pub(super) fn is_page(&self) -> bool {
        let media_type = self.header(&CONTENT_TYPE).unwrap_or_default().trim_start().to_ascii_lowercase();
        media_type.starts_with("text/html")
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("no answer within {} seconds", .0.as_secs_f32())]
    Late(Duration),
    #[error("no bytes for {} seconds", .0.as_secs_f32())]
    Stalled(Duration),
    #[error(transparent)]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error(transparent)]
    Body(#[from] hyper::Error),
}

/// The time of the machine, for dates in headers.
pub(super) fn now() -> Timestamp {
    i64::try_from(clock::milliseconds())
        .ok()
        .and_then(|now| Timestamp::from_millisecond(now).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The outcome of `task`, if it comes in time.
pub(super) async fn within<T, E: Into<Broken>>(
    patience: Duration,
    task: impl Future<Output = Result<T, E>>,
) -> Result<T, Broken> {
    let outcome = tokio::time::timeout(patience, task).await;
    outcome.map_err(|_elapsed| Broken::Late(patience))?.map_err(Into::into)
}

impl Inner {
    pub(super) fn error(&self, kind: Kind, cause: impl Into<String>) -> Error {
        Error::new(&self.name, kind, cause)
    }

    /// The answer to `ask`, if it is a success.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let place = self.place().await?;
        let mut answer = self.ask_in_place(ask).await?;
        answer.place = Some(place);
        Ok(answer)
    }

    /// The same with this authorization, and with no other: for what is no registry API.
    pub(super) async fn ask_as(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let place = self.place().await?;
        let access = self.access()?;
        let mut answer = self.follow(&access, ask, authorization).await?;
        match self.judged(&answer, &ask.what) {
            Ok(()) => {
                answer.place = Some(place);
                Ok(answer)
            }
            Err(error) => {
                finish(answer.body).await;
                Err(error)
            }
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        let waiting = Arc::clone(&self.places).acquire_owned();
        // The semaphore is never closed: if there is none, it is the time.
        if let Ok(Ok(place)) = tokio::time::timeout(self.settings.patience.answer, waiting).await {
            return Ok(place);
        }
        let cause = format!("all {} requests to it are under way", self.settings.max_concurrent);
        Err(self.error(Kind::UNAVAILABLE, cause))
    }

    /// The same for whoever has a place already.
    pub(super) async fn ask_in_place(&self, ask: &Ask) -> Result<Answer, Error> {
        let access = self.access()?;
        let first = access.tokens.first(self, &access, &ask.scope).await?;
        let mut answer = self.follow(&access, ask, first.as_ref()).await?;
        if answer.is_own && answer.status() == StatusCode::UNAUTHORIZED {
            let headers = &answer.head.headers;
            let next = access.tokens.next(self, &access, &ask.scope, headers, first.as_ref()).await;
            let next = next.map_err(|error| merge(error, &answer.budget))?;
            finish(answer.body).await;
            answer = self.follow(&access, ask, Some(&next)).await?;
            let is_password = next.as_bytes().starts_with(b"Basic ");
            if answer.is_own && answer.status() == StatusCode::UNAUTHORIZED && is_password {
                let cause = "does not accept the user name and the password";
                return Err(self.error(Kind::Refused(Refusal::Credential), cause).with(&answer.budget));
            }
        }
        match self.judged(&answer, &ask.what) {
            Ok(()) => Ok(answer),
            Err(error) => {
                finish(answer.body).await;
                Err(error)
            }
        }
    }

    fn judged(&self, answer: &Answer, what: &str) -> Result<(), Error> {
        let (status, budget) = (answer.status(), &answer.budget);
        if status.is_success() {
            return Ok(());
        }
        if !answer.is_own {
            // Its address may have expired, its clock may be wrong: not what the registry says of the content.
            let kind = Kind::Unavailable { retry_after: budget.retry_after };
            let cause = format!("the storage that it redirects to answered {status} to {what}");
            return Err(self.error(kind, cause).with(budget));
        }
        let kind = match Kind::of(status, budget) {
            // Something in front of the registry must not end our tags.
            Kind::NotFound if answer.is_page() => Kind::NotARegistry,
            kind => kind,
        };
        Err(self.error(kind, format!("answered {status} to {what}")).with(budget))
    }

    /// Asks, and goes where the answers lead. The authorization goes no further than the registry itself.
    async fn follow(
        &self,
        access: &Access,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let (mut url, mut is_own, mut budget) = (ask.url.clone(), true, Budget::default());
        for _ in 0..=MAX_REDIRECTS {
            connect::literal(&url, self.settings.network)
                .map_err(|error| self.error(Kind::UNAVAILABLE, error.to_string()).with(&budget))?;
            let request = self.request(ask, &url, authorization.filter(|_| is_own), is_own);
            let request = request.map_err(|error| {
                self.error(Kind::WrongContent, format!("redirects to what is no address: {error}"))
            })?;
            if is_own {
                self.turn().await.map_err(|error| error.with(&budget))?;
            }
            let http = access.http(&url, &self.settings);
            let response = within(self.settings.patience.answer, http.request(request)).await;
            let (head, body) = response.map_err(|error| self.broken(&error, &ask.what))?.into_parts();
            if is_own {
                budget = Budget::read(&head.headers, now());
            } else {
                budget.retry_after = Budget::read(&head.headers, now()).retry_after;
            }
            if !matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { head, body, budget, is_own, place: None });
            }
            finish(body).await;
            url = self.target(&url, &head.headers).map_err(|error| error.with(&budget))?;
            is_own = is_own && self.settings.origin.is_of(&url);
        }
        let cause = format!("redirects more than {MAX_REDIRECTS} times");
        Err(self.error(Kind::WrongContent, cause).with(&budget))
    }

    fn request(
        &self,
        ask: &Ask,
        url: &Url,
        authorization: Option<&HeaderValue>,
        is_own: bool,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(url.as_str())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, ask.accept.unwrap_or("*/*"))
            // The bytes as they are: digests and ranges are of them.
            .header(ACCEPT_ENCODING, "identity");
        if let Some(range) = &ask.range {
            request = request.header(RANGE, range);
        }
        if is_own {
            request = request.header(VIA, format!("1.1 {}", self.settings.registry_id));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if ask.document.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(ask.document.clone().map(Full::new).unwrap_or_default())
    }

    fn target(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
        let wrong = |cause: &str| self.error(Kind::WrongContent, cause);
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| wrong("redirects without saying where to"))?;
        let mut target = from.join(location).map_err(|_any| wrong("redirects to what is no address"))?;
        target.set_fragment(None);
        match target.scheme() {
            "https" => {}
            "http" if self.settings.origin.is_plain() => {}
            _ => return Err(wrong("redirects to an address that is not https")),
        }
        if !target.username().is_empty() || target.password().is_some() {
            return Err(wrong("redirects to an address with a password in it"));
        }
        Ok(target)
    }

    /// What it means that there was no answer, or no end of it.
    pub(super) fn broken(&self, broken: &Broken, what: &str) -> Error {
        let cause = tls_error(broken).and_then(out_of_date).unwrap_or_else(|| chain(broken));
        self.error(kind_of(broken), format!("{what}: {cause}"))
    }

    /// The whole of a short body.
    pub(super) async fn collect(
        &self,
        mut body: Incoming,
        headers: &HeaderMap,
        limit: usize,
        what: &str,
    ) -> Result<Bytes, Error> {
        let too_large = || self.error(Kind::TooLarge, format!("{what} is longer than {limit} bytes"));
        let patience = self.settings.patience;
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > limit)) {
            return Err(too_large());
        }
        let reading = async {
            let mut all = BytesMut::new();
            while let Some(bytes) = data(&mut body, patience.idle).await.map_err(|e| self.broken(&e, what))? {
                if all.len() + bytes.len() > limit {
                    return Err(too_large());
                }
                all.extend_from_slice(&bytes);
            }
            Ok(all.freeze())
        };
        let late = |_elapsed| self.broken(&Broken::Late(patience.answer), what);
        tokio::time::timeout(patience.answer, reading).await.map_err(late)?
    }
}

impl Upstream {
    /// The whole of a short body.
    pub(super) async fn body(&self, answer: Answer, limit: usize, what: &str) -> Result<Bytes, Error> {
        let Answer { head, body, budget, place, .. } = answer;
        let all = self.0.collect(body, &head.headers, limit, what).await;
        drop(place);
        all.map_err(|error| error.with(&budget))
    }
}

/// The next bytes of a body, if they come in time; none at its end.
pub(super) async fn data(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, Broken> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_late| Broken::Stalled(idle))?;
        match frame.transpose()?.map(hyper::body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => return Ok(Some(bytes)),
            // Trailers say nothing that we ask for.
            Some(Err(_trailers)) => {}
        }
    }
}

/// Reads a body that nobody needs, if it is short, so that its connection serves the next request.
pub(super) async fn finish(mut body: Incoming) {
    let reading = async {
        let mut left = 64_usize << 10;
        while let Ok(Some(bytes)) = data(&mut body, SHORT).await
            && bytes.len() <= left
        {
            left -= bytes.len();
        }
    };
    // One that takes longer costs more than a new connection.
    drop(tokio::time::timeout(SHORT, reading).await);
}

/// An error of the token endpoint may know its own limits; else those of the registry hold.
fn merge(error: Error, budget: &Budget) -> Error {
    if *error.budget == Budget::default() { error.with(budget) } else { error }
}

fn kind_of(broken: &Broken) -> Kind {
    if let Some(error) = tls_error(broken) {
        return kind_of_tls(error);
    }
    let is_no_answer = |cause: &(dyn StdError + 'static)| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
    };
    if causes(broken).any(is_no_answer) { Kind::NotARegistry } else { Kind::UNAVAILABLE }
}

fn tls_error(broken: &Broken) -> Option<&rustls::Error> {
    causes(broken).find_map(|cause| cause.downcast_ref())
}

fn kind_of_tls(error: &rustls::Error) -> Kind {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Kind::CertificateInvalid
        }
        // What a server says of the certificate of a client, or of its absence.
        rustls::Error::AlertReceived(
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        ) => Kind::Refused(Refusal::Credential),
        // Not TLS, or none that we know.
        rustls::Error::InvalidMessage(_)
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::PeerMisbehaved(_)
        | rustls::Error::AlertReceived(_) => Kind::NotARegistry,
        _ => Kind::UNAVAILABLE,
    }
}

/// That a certificate is not valid now, in the same words as long as it is not: what is wrong with an upstream stands in a
/// condition, and rustls tells the time.
fn out_of_date(error: &rustls::Error) -> Option<String> {
    let date = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).ok()?;
        Timestamp::from_second(seconds).ok()
    };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(format!("its certificate expired at {}", date(not_after)?))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some(format!("its certificate is not valid before {}", date(not_before)?))
        }
        _ => None,
    }
}

/// An error and what caused it. That of an `io::Error` is not its source.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let cause = |error: &&'a (dyn StdError + 'static)| {
        let error = *error;
        match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as &'a (dyn StdError + 'static)),
            None => error.source(),
        }
    };
    std::iter::successors(Some(error), cause)
}
