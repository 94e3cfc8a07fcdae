// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is sent as `Authorization`: the password, or a token that a token endpoint gave.
//!
//! Guarantees: a token is used for the realm, service and scope that it was given for, and until half a minute before
//! its end. Requests that need the same token at once ask for it once, and share what comes of it, an error too.
//! Tokens belong to the credential they were given for: another one begins with none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::access::Access;
use super::budget::Budget;
use super::challenge::{self, Challenge};
use super::credentials::Credential;
use super::error::{Error, Kind, Refusal};
use super::exchange::{self, AGENT};
use super::{Inner, connect, realm};
use crate::config::Secret;

/// A token is not used for the last part of its life: it may be checked by a clock that is ahead.
const MARGIN: Duration = Duration::from_secs(30);
/// What lives as long as nobody said (distribution's token specification).
const UNSAID: Duration = Duration::from_mins(1);
/// No token is believed to live longer.
const LONGEST: Duration = Duration::from_hours(24);
/// The longest answer of a token endpoint (W-913).
const MAX_ANSWER: usize = 64 << 10;
/// Repositories whose tokens are kept.
const MOST: usize = 4096;

/// What is known of how to be let in.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    known: Mutex<Known>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Known {
    /// What was asked for, by the scope as we spell it.
    challenges: HashMap<String, Challenge>,
    /// Realm and service, if the registry spells scopes as we do: then those of other repositories can be guessed.
    habit: Option<Habit>,
}

#[derive(Clone, Debug)]
enum Habit {
    Basic,
    Bearer { realm: String, service: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    realm: String,
    service: String,
    scope: String,
}

type Slot = tokio::sync::Mutex<Kept>;

#[derive(Debug, Default)]
enum Kept {
    #[default]
    Nothing,
    Token {
        value: HeaderValue,
        until: Instant,
    },
    /// For those who waited while it was asked for.
    Failed {
        at: Instant,
        error: Error,
    },
}

impl Tokens {
    /// What is to be sent without being asked, by what was asked before.
    pub(super) async fn first(
        &self,
        inner: &Inner,
        access: &Access,
        scope: &str,
    ) -> Result<Option<HeaderValue>, Error> {
        if let Some(Credential::Registry(token)) = access.credential() {
            return Ok(Some(bearer(inner, token.expose())?));
        }
        let expected = self.known().expected(scope);
        match expected {
            None => Ok(None),
            Some(challenge) => self.answer(inner, access, &challenge, None).await.map(Some),
        }
    }

    /// What is to be sent after the registry refused `rejected` with these headers.
    pub(super) async fn next(
        &self,
        inner: &Inner,
        access: &Access,
        scope: &str,
        headers: &HeaderMap,
        rejected: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        let refused = |cause: &str| Err(inner.error(Kind::Refused(Refusal::Credential), cause));
        let offered = challenge::read(headers);
        if let Some(Credential::Registry(_)) = access.credential() {
            return refused("does not accept the registry token of the Secret");
        }
        let can_answer = |challenge: &&Challenge| match challenge {
            Challenge::Bearer { .. } => true,
            Challenge::Basic => matches!(access.credential(), Some(Credential::Password { .. })),
        };
        // Where both will do, the password goes to the token endpoint and not along with each request.
        let bearer_first = |challenge: &&Challenge| matches!(challenge, Challenge::Basic);
        let Some(challenge) = offered.iter().filter(can_answer).min_by_key(bearer_first) else {
            return match (offered.first(), access.credential()) {
                (Some(_), None) => refused("asks for a user name and a password, and has none of us"),
                (Some(_), Some(_)) => {
                    refused("asks for a user name and a password, and the Secret has a token")
                }
                (None, _) => refused("does not say how to authenticate"),
            };
        };
        if *challenge == Challenge::Basic
            && rejected.is_some_and(|value| Some(value) == basic(access).as_ref())
        {
            return refused("does not accept the user name and the password");
        }
        self.known().remember(scope, challenge);
        self.answer(inner, access, challenge, rejected).await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        &self,
        inner: &Inner,
        access: &Access,
        challenge: &Challenge,
        rejected: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            let none = || inner.error(Kind::Refused(Refusal::Credential), "asks for a password");
            return basic(access).ok_or_else(none);
        };
        let endpoint = realm::check(realm, &inner.settings, access.credential().is_some());
        let endpoint = endpoint.map_err(|error| {
            let cause = format!("its token endpoint {} {error}", named(realm));
            inner.error(Kind::WrongContent, cause)
        })?;
        let key = Key { realm: realm.clone(), service: service.clone(), scope: scope.clone() };
        let (slot, came) = (self.slot(&key), Instant::now());
        // Held while the token is asked for: whoever comes meanwhile waits here, and finds it. If the one who asks
        // goes away, the next asks.
        let mut kept = slot.lock().await;
        match &*kept {
            Kept::Token { value, until } if *until > Instant::now() && Some(value) != rejected => {
                return Ok(value.clone());
            }
            Kept::Failed { at, error } if *at >= came => return Err(error.clone()),
            Kept::Token { .. } | Kept::Failed { .. } | Kept::Nothing => {}
        }
        match fetch(inner, access, &endpoint, &key).await {
            Ok((value, life)) => {
                *kept =
                    Kept::Token { value: value.clone(), until: Instant::now() + life.saturating_sub(MARGIN) };
                Ok(value)
            }
            Err(error) => {
                *kept = Kept::Failed { at: Instant::now(), error: error.clone() };
                Err(error)
            }
        }
    }

    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST && !slots.contains_key(key) {
            // Those that are in use right now stay.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

impl Known {
    fn expected(&self, scope: &str) -> Option<Challenge> {
        if let Some(challenge) = self.challenges.get(scope) {
            return Some(challenge.clone());
        }
        Some(match self.habit.clone()? {
            Habit::Basic => Challenge::Basic,
            Habit::Bearer { realm, service } => Challenge::Bearer { realm, service, scope: scope.to_owned() },
        })
    }

    fn remember(&mut self, own_scope: &str, challenge: &Challenge) {
        self.habit = match challenge {
            Challenge::Basic => Some(Habit::Basic),
            Challenge::Bearer { realm, service, scope } if scope == own_scope => {
                Some(Habit::Bearer { realm: realm.clone(), service: service.clone() })
            }
            Challenge::Bearer { .. } => None,
        };
        if self.challenges.len() >= MOST {
            self.challenges.clear();
        }
        self.challenges.insert(own_scope.to_owned(), challenge.clone());
    }
}

/// User name and password, if that is what the Secret has.
pub(super) fn basic(access: &Access) -> Option<HeaderValue> {
    let Some(Credential::Password { user, password }) = access.credential() else { return None };
    let encoded = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn bearer(inner: &Inner, token: &str) -> Result<HeaderValue, Error> {
    let unusable = |_shown| inner.error(Kind::WrongContent, "a token has characters that cannot be sent");
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A realm without what might stand in its query.
fn named(realm: &str) -> &str {
    realm.split(['?', '#']).next().unwrap_or_default()
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// A new token, and how long it lives.
async fn fetch(
    inner: &Inner,
    access: &Access,
    endpoint: &Url,
    key: &Key,
) -> Result<(HeaderValue, Duration), Error> {
    let host = named(&key.realm);
    let request = request(access, endpoint, key)
        .map_err(|error| inner.error(Kind::WrongContent, format!("its token endpoint {host}: {error}")))?;
    let patience = inner.settings.patience;
    connect::literal(endpoint, inner.settings.network)
        .map_err(|error| inner.error(Kind::UNAVAILABLE, format!("its token endpoint: {error}")))?;
    inner.turn().await?;
    let http = access.http(endpoint, &inner.settings);
    let response = exchange::within(patience.answer, http.request(request)).await;
    let response = response.map_err(|error| inner.broken(&error, &format!("token endpoint {host}")))?;
    let (head, body) = response.into_parts();
    let budget = Budget::read(&head.headers, exchange::now());
    if head.status != StatusCode::OK {
        return Err(refused(inner, access, head.status, host, &budget));
    }
    let body = inner
        .collect(body, &head.headers, MAX_ANSWER, "a token")
        .await
        .map_err(|error| error.with(&budget))?;
    let wrong = |cause: &str| {
        inner.error(Kind::WrongContent, format!("its token endpoint {host} {cause}")).with(&budget)
    };
    // What the parser says could quote the token.
    let granted: Granted =
        serde_json::from_slice(&body).map_err(|_quotes| wrong("did not answer with a token"))?;
    let given = [granted.token, granted.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let token = Secret::new(given.ok_or_else(|| wrong("answered without a token"))?);
    let life = granted.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let life = life.or_else(|| lifetime(token.expose())).unwrap_or(UNSAID).min(LONGEST);
    Ok((bearer(inner, token.expose())?, life))
}

fn request(access: &Access, endpoint: &Url, key: &Key) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut url = endpoint.clone();
    url.set_fragment(None);
    let scopes = || key.scope.split_ascii_whitespace().map(|scope| ("scope", scope));
    let service = || Some(("service", key.service.as_str())).filter(|(_, service)| !service.is_empty());
    let builder = Request::builder().header(ACCEPT, "application/json").header(USER_AGENT, AGENT);
    if let Some(Credential::Identity(token)) = access.credential() {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([("grant_type", "refresh_token"), ("client_id", "stowage")]);
        form.append_pair("refresh_token", token.expose());
        form.extend_pairs(service());
        // One field here, in contrast to the query.
        form.append_pair("scope", &key.scope);
        let builder = builder.method(Method::POST).uri(url.as_str());
        let builder = builder.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        return builder.body(Full::from(form.finish()));
    }
    url.query_pairs_mut().extend_pairs(service()).extend_pairs(scopes());
    if url.query() == Some("") {
        url.set_query(None);
    }
    let mut builder = builder.method(Method::GET).uri(url.as_str());
    if let Some(value) = basic(access) {
        builder = builder.header(AUTHORIZATION, value);
    }
    builder.body(Full::default())
}

fn refused(inner: &Inner, access: &Access, status: StatusCode, host: &str, budget: &Budget) -> Error {
    let kind = match (status.as_u16(), access.credential()) {
        // An expired identity token is a bad request by RFC 6749.
        (400 | 401 | 403, Some(_)) => Kind::Refused(Refusal::Credential),
        (400 | 401 | 403, None) => Kind::Refused(Refusal::Content),
        // Not content of the registry's that is missing.
        (404 | 410, _) => Kind::NotARegistry,
        _ => Kind::of(status, budget),
    };
    inner.error(kind, format!("its token endpoint {host} answered {status}")).with(budget)
}

/// How long a JWT lives by its own clock. It is not ours to check.
fn lifetime(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
        nbf: Option<f64>,
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let begin = claims.iat.or(claims.nbf)?;
    Duration::try_from_secs_f64(claims.exp - begin).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(scope: &str) -> Challenge {
        Challenge::Bearer { realm: "https://a/t".into(), service: "s".into(), scope: scope.into() }
    }

    #[test]
    fn w879_another_repository_needs_another_scope_and_no_first_refusal() {
        let mut known = Known::default();
        assert_eq!(known.expected("repository:a:pull"), None);
        known.remember("repository:a:pull", &bearer("repository:a:pull"));
        assert_eq!(known.expected("repository:a:pull"), Some(bearer("repository:a:pull")));
        assert_eq!(known.expected("repository:b:pull"), Some(bearer("repository:b:pull")));
    }

    #[test]
    fn w879_a_registry_with_scopes_of_its_own_is_asked_for_each() {
        let mut known = Known::default();
        known.remember("repository:a:pull", &bearer("repository(plugin):a:pull"));
        assert_eq!(known.expected("repository:a:pull"), Some(bearer("repository(plugin):a:pull")));
        assert_eq!(known.expected("repository:b:pull"), None);
    }

    #[test]
    fn what_is_known_has_a_bound() {
        let mut known = Known::default();
        for number in 0..=MOST {
            known.remember(&format!("repository:r{number}:pull"), &Challenge::Basic);
        }
        assert!(known.challenges.len() <= MOST);
    }

    #[test]
    fn a_jwt_says_how_long_it_lives() {
        let jwt = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(lifetime(&jwt(r#"{"iat":1000,"exp":1300}"#)), Some(Duration::from_mins(5)));
        assert_eq!(lifetime(&jwt(r#"{"nbf":1000,"exp":1060.5}"#)), Some(Duration::from_millis(60_500)));
        for unsaid in [jwt(r#"{"exp":1300}"#), jwt(r#"{"iat":2,"exp":1}"#), jwt("[]"), "opaque".to_owned()] {
            assert_eq!(lifetime(&unsaid), None, "{unsaid}");
        }
    }
}
