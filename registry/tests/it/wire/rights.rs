// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Rights, through the door: refusals come before everything that exists.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stowage_registry::auth::{
    Access, Actions, Htpasswd, Policy, Realms, Rules, SigningKey, Snapshot, Subject,
};
use stowage_registry::operation::Action;

use super::registry::{Answer, Ask, Registry, image, sha256};

super::both_stores!(
    w105_w121_w531_w543_w600_w601_w859_w867_the_challenge_fits_the_request,
    w018_w732_w806_a_refusal_never_depends_on_what_exists,
    w106_w609_basic_is_taken_everywhere_and_ends_in_403,
    w605_the_anonymous_read_what_is_public,
    w371_w375_w527_w779_a_source_that_may_not_be_read_looks_like_one_without_the_blob,
    w372_without_a_source_only_readable_repositories_serve,
    w421_w733_w790_w792_the_catalog_shows_what_may_be_read,
    w223_w786_an_upload_belongs_to_its_principal,
    w606_w607_w781_w797_a_token_reaches_as_far_as_it_says,
    w497_w860_an_empty_credential_is_none,
    w536_w554_a_token_lasts_and_its_scope_has_no_order,
    w776_a_token_is_verified_as_ours_whatever_it_says_of_itself,
    w783_a_right_that_is_taken_away_is_gone,
    w862_a_password_may_have_a_colon,
);

/// Everybody reads `pub/**`; alice reads and pushes `team/**`; bob does everything everywhere.
pub(super) fn access() -> Arc<Access> {
    Arc::new(Access::new(snapshot(SigningKey::ephemeral().unwrap())))
}

fn snapshot(keys: Vec<SigningKey>) -> Snapshot {
    let policy = |name: &str, repositories: &str, subject, actions| Policy {
        name: name.into(),
        repositories: vec![repositories.parse().unwrap()],
        subjects: vec![subject],
        actions,
    };
    let user = |name: &str| Subject::User(name.to_owned());
    let pull = Actions::NONE.with(Action::Pull);
    let rules = Rules::new(
        Actions::NONE,
        vec![
            policy("public", "pub/**", Subject::Anonymous, pull),
            policy("team", "team/**", user("alice"), pull.with(Action::Push)),
            policy("all", "**", user("bob"), Actions::ALL),
        ],
    );
    let users = [("alice", "alice"), ("bob", "bob"), ("carol", "p:w:")];
    let users = users.map(|(name, password)| format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap()));
    Snapshot {
        rules: Arc::new(rules),
        users: Htpasswd::parse("users", &users.concat()).unwrap(),
        realms: Realms::new("https://registry.example.com", []),
        keys,
    }
}

/// The registry with these rights; `pub/a`, `team/a` and `other/a` have an image.
async fn guarded(registry: Registry) -> Registry {
    for repository in ["pub/a", "team/a", "other/a"] {
        registry.push_image(repository, "v1").await;
    }
    registry.reopened(stowage_registry::Registry::builder().access(access())).await
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{user}")))
}

pub(super) async fn token(registry: &Registry, user: &str, scopes: &str) -> String {
    let answer =
        registry.get(&format!("/token?scope={scopes}")).header("authorization", basic(user)).send().await;
    format!("Bearer {}", answer.json()["token"].as_str().unwrap())
}

pub(super) trait As {
    /// As this user, by Basic.
    fn user(self, user: &str) -> Self;
}

impl As for Ask<'_> {
    fn user(self, user: &str) -> Self {
        self.header("authorization", basic(user))
    }
}

fn scope_of(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.refusal(), (401, "UNAUTHORIZED".into()));
    let challenge = answer.header("www-authenticate");
    let rest = challenge
        .strip_prefix(r#"Bearer realm="https://registry.example.com/token",service="registry.example.com""#)
        .unwrap();
    rest.strip_prefix(",scope=\"").and_then(|rest| rest.split('"').next())
}

async fn w105_w121_w531_w543_w600_w601_w859_w867_the_challenge_fits_the_request(registry: Registry) {
    let registry = guarded(registry).await;
    let digest = sha256(b"{}");
    for (method, target, scope) in [
        ("GET", "/v2/".to_owned(), None),
        ("GET", "/v2/_catalog".to_owned(), Some("registry:catalog:*")),
        ("GET", "/v2/team/a/manifests/v1".to_owned(), Some("repository:team/a:pull")),
        ("GET", format!("/v2/team/a/blobs/{digest}"), Some("repository:team/a:pull")),
        ("GET", "/v2/team/a/tags/list".to_owned(), Some("repository:team/a:pull")),
        ("GET", format!("/v2/team/a/referrers/{digest}"), Some("repository:team/a:pull")),
        ("POST", "/v2/team/a/blobs/uploads/".to_owned(), Some("repository:team/a:pull,push")),
        ("PUT", "/v2/pub/a/manifests/v1".to_owned(), Some("repository:pub/a:pull,push")),
        ("DELETE", "/v2/pub/a/manifests/v1".to_owned(), Some("repository:pub/a:delete")),
        ("DELETE", format!("/v2/pub/a/blobs/{digest}"), Some("repository:pub/a:delete")),
        (
            "POST",
            format!("/v2/pub/a/blobs/uploads/?mount={digest}&from=team/a"),
            Some("repository:pub/a:pull,push repository:team/a:pull"),
        ),
    ] {
        let answer = registry.ask(method.parse().unwrap(), &target).send().await;
        assert_eq!(scope_of(&answer), scope, "{method} {target}");
        assert!(!answer.header("www-authenticate").contains("error"));
    }
    let wrong = registry.get("/v2/").header("authorization", "Basic YWxpY2U6d3Jvbmc=").send().await;
    assert_eq!(wrong.status, 401);
    assert_eq!(registry.get("/v2/").user("alice").send().await.status, 200);
}

/// Every request that is about a repository, with a reference that exists in `team/a`.
fn requests(repository: &str) -> Vec<(&'static str, String)> {
    let (digest, upload) = (sha256(b"{}"), "7d444840-9dc0-41d1-b245-5ffdce74fad2");
    let path = |rest: String| format!("/v2/{repository}/{rest}");
    vec![
        ("GET", path("manifests/v1".into())),
        ("HEAD", path("manifests/v1".into())),
        ("PUT", path("manifests/v1".into())),
        ("DELETE", path("manifests/v1".into())),
        ("GET", path(format!("blobs/{digest}"))),
        ("HEAD", path(format!("blobs/{digest}"))),
        ("DELETE", path(format!("blobs/{digest}"))),
        ("GET", path("tags/list".into())),
        ("GET", path(format!("referrers/{digest}"))),
        ("POST", path("blobs/uploads/".into())),
        ("GET", path(format!("blobs/uploads/{upload}"))),
        ("PATCH", path(format!("blobs/uploads/{upload}"))),
        ("PUT", path(format!("blobs/uploads/{upload}?digest={digest}"))),
        ("DELETE", path(format!("blobs/uploads/{upload}"))),
    ]
}

async fn w018_w732_w806_a_refusal_never_depends_on_what_exists(registry: Registry) {
    let registry = guarded(registry).await;
    let bearer = token(&registry, "alice", "repository:other/a:pull,push").await;
    let credentials = [None, Some(basic("alice")), Some(bearer)];
    for credential in &credentials {
        for ((method, existing), (_, missing)) in requests("other/a").into_iter().zip(requests("other/b")) {
            let mut answers = Vec::new();
            for target in [existing, missing] {
                let ask = registry.ask(method.parse().unwrap(), &target);
                let ask = match credential {
                    Some(credential) => ask.header("authorization", credential),
                    None => ask,
                };
                let answer = ask.send().await;
                let mut text =
                    format!("{:?} {:?}", answer.headers, answer.body).replace("other/b", "other/a");
                text = text.replace(answer.header("x-request-id"), "");
                answers.push((answer.status, text));
            }
            assert!(matches!(answers[0].0, 401 | 403), "{method} {answers:?}");
            assert_eq!(answers[0], answers[1], "{method}");
        }
    }
}

async fn w106_w609_basic_is_taken_everywhere_and_ends_in_403(registry: Registry) {
    let registry = guarded(registry).await;
    assert_eq!(registry.get("/v2/team/a/manifests/v1").user("alice").send().await.status, 200);
    for target in ["/v2/other/a/manifests/v1", "/v2/never/manifests/v1"] {
        let answer = registry.get(target).user("alice").send().await;
        assert_eq!(answer.refusal(), (403, "DENIED".into()));
        assert!(!answer.has("www-authenticate"));
    }
    let answer = registry.delete("/v2/team/a/manifests/v1").user("alice").send().await;
    assert_eq!(answer.refusal(), (403, "DENIED".into()));
    assert_eq!(registry.delete("/v2/team/a/manifests/v1").user("bob").send().await.status, 202);
}

async fn w605_the_anonymous_read_what_is_public(registry: Registry) {
    let registry = guarded(registry).await;
    assert_eq!(registry.status("/v2/pub/a/manifests/v1").await, 200);
    assert_eq!(registry.status("/v2/pub/a/tags/list").await, 200);
    assert_eq!(registry.status("/v2/team/a/manifests/v1").await, 401);
    assert_eq!(registry.post("/v2/pub/a/blobs/uploads/").send().await.status, 401);
}

async fn w371_w375_w527_w779_a_source_that_may_not_be_read_looks_like_one_without_the_blob(
    registry: Registry,
) {
    let registry = guarded(registry).await;
    let digest = sha256(b"layer of other/a:v1");
    let bearer = token(&registry, "alice", "repository:team/a:pull,push").await;
    for credential in [basic("alice"), bearer] {
        for from in ["other/a", "other/never", "team/a"] {
            let target = format!("/v2/team/a/blobs/uploads/?mount={digest}&from={from}");
            let answer = registry.post(&target).header("authorization", &credential).send().await;
            assert_eq!((answer.status, answer.header("range")), (202, "0-0"), "{from}");
        }
        let own = sha256(b"layer of team/a:v1");
        let target = format!("/v2/team/b/blobs/uploads/?mount={own}&from=team/a");
        let answer = registry.post(&target).header("authorization", basic("alice")).send().await;
        assert_eq!(answer.status, 201);
    }
    let target = format!("/v2/team/a/manifests/{}", sha256(b"x"));
    assert_eq!(registry.head(&target).user("alice").send().await.status, 404);
    let other = registry.head(&target.replace("team", "other")).user("alice").send().await;
    assert_eq!(other.status, 403);
}

async fn w372_without_a_source_only_readable_repositories_serve(registry: Registry) {
    let registry = guarded(registry).await;
    let mount = |digest| format!("/v2/team/b/blobs/uploads/?mount={digest}");
    let answer = registry.post(&mount(sha256(b"layer of other/a:v1"))).user("alice").send().await;
    assert_eq!(answer.status, 202);
    let answer = registry.post(&mount(sha256(b"layer of pub/a:v1"))).user("alice").send().await;
    assert_eq!(answer.status, 201);
}

async fn w421_w733_w790_w792_the_catalog_shows_what_may_be_read(registry: Registry) {
    let registry = guarded(registry).await;
    assert_eq!(scope_of(&registry.get("/v2/_catalog").send().await), Some("registry:catalog:*"));
    let list = async |credential: &str| {
        registry.get("/v2/_catalog").header("authorization", credential).send().await.json()
    };
    let own = json!({ "repositories": ["pub/a", "team/a"] });
    assert_eq!(list(&basic("alice")).await, own);
    assert_eq!(list(&token(&registry, "alice", "registry:catalog:*").await).await, own);
    assert_eq!(list(&basic("bob")).await, json!({ "repositories": ["other/a", "pub/a", "team/a"] }));
    let first = registry.get("/v2/_catalog?n=1").user("alice").send().await;
    assert_eq!(first.header("link"), "</v2/_catalog?n=1&last=pub%2Fa>; rel=\"next\"");
}

async fn w223_w786_an_upload_belongs_to_its_principal(registry: Registry) {
    let registry = guarded(registry).await;
    let answer = registry.post("/v2/team/a/blobs/uploads/").user("alice").send().await;
    let upload = answer.header("location").to_owned();
    let close = format!("{upload}?digest={}", sha256(b"x"));
    let unknown = (404, "BLOB_UPLOAD_UNKNOWN".to_owned());
    for ask in [
        registry.get(&upload),
        registry.patch(&upload).body("x"),
        registry.delete(&upload),
        registry.put(&close).body("x"),
    ] {
        assert_eq!(ask.user("bob").send().await.refusal(), unknown);
    }
    // By token it is the same principal.
    let bearer = token(&registry, "alice", "repository:team/a:push").await;
    let answer = registry.put(&close).header("authorization", bearer).body("x").send().await;
    assert_eq!(answer.status, 201);
}

async fn w606_w607_w781_w797_a_token_reaches_as_far_as_it_says(registry: Registry) {
    let registry = guarded(registry).await;
    let error = |answer: &Answer| {
        assert_eq!(answer.refusal(), (401, "UNAUTHORIZED".into()));
        answer.header("www-authenticate").split("error=").nth(1).unwrap().to_owned()
    };
    let pull = token(&registry, "bob", "repository:team/a:pull").await;
    let read = registry.get("/v2/team/a/manifests/v1").header("authorization", &pull).send().await;
    assert_eq!(read.status, 200);
    for target in ["/v2/team/a/blobs/uploads/", "/v2/never/blobs/uploads/"] {
        let answer = registry.post(target).header("authorization", &pull).send().await;
        assert_eq!(error(&answer), "\"insufficient_scope\"");
    }
    let push = token(&registry, "bob", "repository:team/a:pull,push").await;
    let manifest = image(&[]).to_string();
    let put = registry.put("/v2/team/a/manifests/v2").header("authorization", &push);
    let put = put.header("content-type", super::registry::OCI_IMAGE).body(manifest);
    assert_eq!(put.send().await.status, 201);
    for target in ["/v2/team/a/manifests/v2", &format!("/v2/team/a/blobs/{}", sha256(b"{}"))] {
        let answer = registry.delete(target).header("authorization", &push).send().await;
        assert_eq!(error(&answer), "\"insufficient_scope\"");
    }
    let answer = registry.post("/v2/team/a/blobs/uploads/").header("authorization", &push).send().await;
    let upload = answer.header("location").to_owned();
    assert_eq!(registry.delete(&upload).header("authorization", &push).send().await.status, 204);
    // A broken token is told, also where nobody needs one.
    for target in ["/v2/pub/a/manifests/v1", "/v2/"] {
        let answer = registry.get(target).header("authorization", "Bearer x.y.z").send().await;
        assert_eq!(error(&answer), "\"invalid_token\"");
    }
}

async fn w497_w860_an_empty_credential_is_none(registry: Registry) {
    let registry = guarded(registry).await;
    let answer = registry.get("/v2/pub/a/manifests/v1").header("authorization", "Basic Og==").send().await;
    assert_eq!(answer.status, 200);
    let answer =
        registry.get("/token?scope=repository:pub/a:pull").header("authorization", "Basic Og==").send().await;
    assert_eq!(answer.status, 200);
}

async fn w536_w554_a_token_lasts_and_its_scope_has_no_order(registry: Registry) {
    let registry = guarded(registry).await;
    for scope in
        ["repository:team/a:push,pull", "repository(plugin):team/a:delete,push,pull", "repository:team/a:*"]
    {
        let answer = registry.get(&format!("/token?scope={scope}")).user("alice").send().await;
        assert!(answer.json()["expires_in"].as_u64().unwrap() >= 60);
        let bearer = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
        let post = registry.post("/v2/team/a/blobs/uploads/").header("authorization", bearer);
        assert_eq!(post.send().await.status, 202, "{scope}");
    }
}

async fn w776_a_token_is_verified_as_ours_whatever_it_says_of_itself(registry: Registry) {
    let registry = guarded(registry).await;
    let good = token(&registry, "bob", "repository:team/a:pull").await;
    let (_, payload) = good.split_once('.').unwrap();
    let (payload, signature) = payload.split_once('.').unwrap();
    for header in [
        json!({ "alg": "none", "typ": "JWT" }),
        json!({ "alg": "HS256", "typ": "JWT" }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "unknown" }),
        json!({ "alg": "ES256", "typ": "JWT", "jwk": { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" } }),
        json!({ "alg": "ES256", "typ": "JWT", "x5c": ["AA"] }),
    ] {
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header.to_string());
        for signature in ["", signature] {
            let forged = format!("Bearer {header}.{payload}.{signature}");
            let answer = registry.get("/v2/team/a/manifests/v1").header("authorization", forged).send().await;
            assert_eq!(answer.refusal(), (401, "UNAUTHORIZED".into()));
            assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""));
        }
    }
}

async fn w783_a_right_that_is_taken_away_is_gone(registry: Registry) {
    registry.push_image("team/a", "v1").await;
    let access = access();
    let builder = stowage_registry::Registry::builder().access(Arc::clone(&access));
    let registry = registry.reopened(builder).await;
    let read = || registry.get("/v2/team/a/manifests/v1").user("alice").send();
    assert_eq!(read().await.status, 200);
    let nothing = Arc::new(Rules::new(Actions::NONE, Vec::new()));
    access.swap(Snapshot { rules: nothing, ..snapshot(SigningKey::ephemeral().unwrap()) });
    assert_eq!(read().await.refusal(), (403, "DENIED".into()));
}

async fn w862_a_password_may_have_a_colon(registry: Registry) {
    let registry = guarded(registry).await;
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("carol:{password}")));
    for (password, status) in [("p:w:", 200), ("p", 401), ("p:w", 401)] {
        let answer = registry.get("/v2/").header("authorization", basic(password)).send().await;
        assert_eq!(answer.status, status, "{password}");
    }
}
