// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The token endpoint: a credential and scopes in, one of our bearer tokens out.
//!
//! `GET` is what every client does; `POST` is the form of OAuth 2.0, which some try first. Bad credentials are
//! 401 (`GET`) or 400 `invalid_grant` (`POST`), never a token without rights: a login must not seem to succeed.
//! Guarantees: no answer is kept by a cache, none carries a refresh token.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use stowage_oci::Name;

use crate::auth::{Access, Credential, MintError, Minted, TokenRefusal, Wanted};

/// Most scopes in one request (W-618).
const MAX_SCOPES: usize = 20;
/// Longest form that is read.
const MAX_FORM: usize = 64 * 1024;

/// What the members of a virtual repository call a name; nothing where it is none of a virtual repository.
pub(super) type Members = Arc<dyn Fn(&Name) -> Vec<Name> + Send + Sync>;

/// What tokens are made by.
#[derive(Clone)]
struct Maker {
    access: Arc<Access>,
    members: Members,
}

/// `GET` and `POST /token`.
pub(super) fn router(access: Arc<Access>, members: Members) -> Router {
    Router::new().route("/token", get(by_query).post(by_form)).with_state(Maker { access, members })
}

async fn by_query(State(Maker { access, members }): State<Maker>, request: Request) -> Response {
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default().as_bytes());
    let Some(wanted) = parameters.wanted(&members) else { return too_many_scopes().into_response() };
    let header = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let credential = Credential::Header(header);
    match access.token(credential, source(&request), &wanted).await {
        Ok(minted) => answer(StatusCode::OK, &token(&minted)),
        Err(refusal) => refuse(&access, &request, &refusal),
    }
}

async fn by_form(State(Maker { access, members }): State<Maker>, request: Request) -> Response {
    let source = source(&request);
    let Some(form) = form(request).await else {
        return oauth_error("invalid_request", "expected a form of at most 64 KiB");
    };
    let parameters = Parameters::parse(&form);
    if parameters.first("grant_type") != Some("password") {
        return oauth_error("unsupported_grant_type", "the only grant type is password");
    }
    let Some(wanted) = parameters.wanted(&members) else { return too_many_scopes_by_form() };
    let (Some(user), Some(password)) = (parameters.first("username"), parameters.first("password")) else {
        return oauth_error("invalid_request", "username and password are needed");
    };
    match access.token(Credential::Password { user, password }, source, &wanted).await {
        Ok(minted) => {
            let mut body = token(&minted);
            body["scope"] = Value::from(minted.scope);
            answer(StatusCode::OK, &body)
        }
        Err(refusal) => refuse_form(&refusal),
    }
}

/// Where the request came from. An application that does not tell shares one budget of wrong passwords.
fn source(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())
}

async fn form(request: Request) -> Option<Vec<u8>> {
    let kind = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return None;
    }
    Some(to_bytes(request.into_body(), MAX_FORM).await.ok()?.to_vec())
}

/// The parameters of a query or form, in their order.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The scopes of all `scope` parameters, each of which may hold several; `None` if there are too many.
    fn wanted(&self, members: &Members) -> Option<Wanted> {
        let scopes = self.0.iter().filter(|(key, _)| key == "scope");
        let scopes: Vec<&str> = scopes.flat_map(|(_, value)| value.split_whitespace()).collect();
        (scopes.len() <= MAX_SCOPES).then(|| Wanted::parse(scopes).with_members(&**members))
    }
}

fn token(minted: &Minted) -> Value {
    json!({
        "token": minted.token,
        "access_token": minted.token,
        "expires_in": minted.expires_in,
        "issued_at": rfc3339(minted.issued_at),
    })
}

fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

/// An error in the form of the distribution API.
fn error(status: StatusCode, code: &str, message: &str) -> Response {
    answer(status, &json!({ "errors": [{ "code": code, "message": message }] }))
}

/// An error in the form of OAuth 2.0.
fn oauth_error(code: &str, description: &str) -> Response {
    answer(StatusCode::BAD_REQUEST, &json!({ "error": code, "error_description": description }))
}

fn too_many_scopes() -> Response {
    error(StatusCode::BAD_REQUEST, "UNSUPPORTED", "at most 20 scopes can be asked for at once")
}

fn too_many_scopes_by_form() -> Response {
    oauth_error("invalid_scope", "at most 20 scopes can be asked for at once")
}

fn refuse(access: &Access, request: &Request<Body>, refusal: &TokenRefusal) -> Response {
    match refusal {
        TokenRefusal::BadCredentials => {
            let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", &refusal.to_string());
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
            let host = host.or(request.uri().authority().map(http::uri::Authority::as_str));
            if let Ok(challenge) = HeaderValue::from_str(&access.challenge(host)) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
        TokenRefusal::TooManyFailures { retry_after } => {
            let response = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", &refusal.to_string());
            later(response, retry_after.as_secs())
        }
        TokenRefusal::Mint(MintError::TooLong) => {
            error(StatusCode::BAD_REQUEST, "UNSUPPORTED", &refusal.to_string())
        }
        TokenRefusal::Mint(cause @ (MintError::NoKey | MintError::Sign(_))) => {
            tracing::error!(error = cause as &dyn std::error::Error, "no token could be made");
            error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "no token could be made")
        }
    }
}

fn refuse_form(refusal: &TokenRefusal) -> Response {
    match refusal {
        TokenRefusal::BadCredentials => oauth_error("invalid_grant", &refusal.to_string()),
        TokenRefusal::TooManyFailures { retry_after } => {
            let response = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", &refusal.to_string());
            later(response, retry_after.as_secs())
        }
        TokenRefusal::Mint(MintError::TooLong) => oauth_error("invalid_scope", &refusal.to_string()),
        TokenRefusal::Mint(cause @ (MintError::NoKey | MintError::Sign(_))) => {
            tracing::error!(error = cause as &dyn std::error::Error, "no token could be made");
            error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "no token could be made")
        }
    }
}

fn later(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use tower::ServiceExt as _;

    use super::*;
    use crate::auth::{Actions, Htpasswd, Policy, Realms, Rules, SigningKey, Snapshot, Subject};

    fn router() -> Router {
        let policy = Policy {
            name: "team".into(),
            repositories: vec!["team/**".parse().unwrap()],
            subjects: vec![Subject::User("alice".into())],
            actions: Actions::ALL,
        };
        let users = format!("alice:{}", bcrypt::hash("p:w", 4).unwrap());
        let snapshot = Snapshot {
            rules: Arc::new(Rules::new(Actions::NONE, vec![policy])),
            users: Htpasswd::parse("users", &users).unwrap(),
            realms: Realms::new("https://r.example", []),
            keys: SigningKey::ephemeral().unwrap(),
        };
        super::router(Arc::new(Access::new(snapshot)), Arc::new(|_| Vec::new()))
    }

    async fn ask(router: &Router, request: Request) -> (StatusCode, http::HeaderMap, Value) {
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, MAX_FORM).await.unwrap();
        assert_eq!(parts.headers[CACHE_CONTROL], "no-store");
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap())
    }

    async fn get(query: &str, password: Option<&str>) -> (StatusCode, http::HeaderMap, Value) {
        let mut request = Request::get(format!("/token?{query}"));
        if let Some(password) = password {
            let basic = format!("Basic {}", STANDARD.encode(format!("alice:{password}")));
            request = request.header(AUTHORIZATION, basic);
        }
        ask(&router(), request.body(Body::empty()).unwrap()).await
    }

    async fn post(form: &'static str) -> (StatusCode, http::HeaderMap, Value) {
        let request = Request::post("/token").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        ask(&router(), request.body(Body::from(form)).unwrap()).await
    }

    #[tokio::test]
    async fn w535_w547_w616_a_login_as_docker_does_it_gets_a_token_and_no_refresh_token() {
        let query = "account=alice&client_id=docker&offline_token=true&service=r.example";
        let (status, _, body) = get(query, Some("p:w")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body["token"].is_string() && body["token"] == body["access_token"]);
        assert_eq!((&body["expires_in"], body.get("refresh_token")), (&json!(300), None));
        body["issued_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }

    #[tokio::test]
    async fn w616_a_token_for_writing_lives_longer() {
        let query = "scope=repository:team/a:pull,push+repository:x:pull&scope=repository:team/b:delete";
        let (_, _, body) = get(query, Some("p:w")).await;
        assert_eq!(body["expires_in"], 900);
    }

    #[tokio::test]
    async fn w612_without_credentials_the_token_is_anonymous() {
        let (status, _, body) = get("scope=repository:team/a:pull", None).await;
        assert_eq!((status, &body["expires_in"]), (StatusCode::OK, &json!(300)));
    }

    #[tokio::test]
    async fn w600_w613_bad_credentials_are_401_with_a_challenge() {
        let (status, headers, body) = get("", Some("wrong")).await;
        assert_eq!((status, &body["errors"][0]["code"]), (StatusCode::UNAUTHORIZED, &json!("UNAUTHORIZED")));
        let challenge = r#"Bearer realm="https://r.example/token",service="r.example""#;
        assert_eq!(headers[WWW_AUTHENTICATE], challenge);
    }

    #[tokio::test]
    async fn w618_more_than_twenty_scopes_are_too_many() {
        let scopes = |n| vec!["repository:team/a:pull"; n].join("+");
        assert_eq!(get(&format!("scope={}", scopes(20)), Some("p:w")).await.0, StatusCode::OK);
        assert_eq!(get(&format!("scope={}", scopes(21)), Some("p:w")).await.0, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn w528_w617_the_form_gets_the_same_and_its_scope() {
        let (status, _, body) = post(
            "grant_type=password&username=alice&password=p%3Aw&service=x&client_id=c&scope=repository:team/a:pull",
        )
        .await;
        assert_eq!((status, &body["scope"]), (StatusCode::OK, &json!("repository:team/a:pull")));
        assert_eq!(body["token"], body["access_token"]);
    }

    #[tokio::test]
    async fn w617_what_a_form_cannot_have_is_400_with_the_word_of_oauth() {
        for (form, word) in [
            ("grant_type=password&username=alice&password=x", "invalid_grant"),
            ("grant_type=password&username=&password=", "invalid_grant"),
            ("grant_type=password&username=alice", "invalid_request"),
            ("grant_type=refresh_token&refresh_token=x", "unsupported_grant_type"),
            ("", "unsupported_grant_type"),
        ] {
            let (status, _, body) = post(form).await;
            assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!(word)), "{form}");
        }
    }

    #[tokio::test]
    async fn w611_the_eleventh_failure_is_429_with_retry_after() {
        let router = router();
        let request = || {
            let basic = format!("Basic {}", STANDARD.encode("alice:wrong"));
            Request::get("/token").header(AUTHORIZATION, basic).body(Body::empty()).unwrap()
        };
        for _ in 0..10 {
            assert_eq!(ask(&router, request()).await.0, StatusCode::UNAUTHORIZED);
        }
        let (status, headers, _) = ask(&router, request()).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(headers[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    }
}
