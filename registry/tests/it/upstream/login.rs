// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who we are to a registry: passwords, tokens, and who gets to see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use stowage_oci::Reference;
use stowage_registry::upstream::{Error, Kind, Refusal, Settings, Upstream};

use super::servers::{
    Image, Process, Scripted, Stowage, answer, challenge, distribution, push, secret, settings,
};
use crate::support::program::ask;

const CREDENTIAL: Kind = Kind::Refused(Refusal::Credential);
const CONTENT: Kind = Kind::Refused(Refusal::Content);

async fn pull(upstream: &Upstream, repository: &str) -> Result<Vec<u8>, Error> {
    let reference = Reference::Tag("1".parse().unwrap());
    let found = upstream.manifest(&repository.parse().unwrap(), &reference).await?;
    Ok(found.value.bytes.to_vec())
}

/// distribution with the user alice.
pub(crate) async fn of_alice() -> Process {
    let users = format!("alice:{}\n", bcrypt::hash("p:w", 5).unwrap());
    let auth = json!({"htpasswd": {"realm": "here", "path": "FOLDER/htpasswd"}});
    distribution(&auth, &[("htpasswd", &users)]).await
}

/// The same with an image.
pub(crate) async fn with_password() -> (Process, Image) {
    let server = of_alice().await;
    let image = push(server.address(), &basic("alice", "p:w"), "app", "1", b"layer");
    (server, image)
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn with(origin: &str, credentials: &tempfile::TempDir) -> Settings {
    Settings { credentials: Some(credentials.path().to_owned()), ..settings(origin) }
}

#[tokio::test]
async fn o3_a_registry_that_asks_for_a_password_gets_it() {
    let (server, image) = with_password().await;
    let config =
        json!({"auths": {server.address(): {"auth": BASE64_STANDARD.encode("alice:p:w")}}}).to_string();
    for files in [vec![("username", "alice"), ("password", "p:w")], vec![(".dockerconfigjson", &config)]] {
        let credentials = secret(&files);
        let upstream = Upstream::new(with(&server.origin(), &credentials));
        upstream.ping().await.unwrap();
        assert_eq!(pull(&upstream, "app").await.unwrap(), image.manifest);
    }
    let nobody = pull(&Upstream::new(settings(&server.origin())), "app").await.unwrap_err();
    assert_eq!(nobody.kind, CREDENTIAL, "{nobody}");
    let token = secret(&[("token", "t")]);
    assert_eq!(
        pull(&Upstream::new(with(&server.origin(), &token)), "app").await.unwrap_err().kind,
        CREDENTIAL
    );
}

#[tokio::test]
async fn o5_a_changed_secret_is_used_for_the_next_request() {
    let (server, image) = with_password().await;
    let credentials = secret(&[("username", "alice"), ("password", "old")]);
    let upstream = Upstream::new(with(&server.origin(), &credentials));
    for _ in 0..2 {
        let error = pull(&upstream, "app").await.unwrap_err();
        assert_eq!(error.kind, CREDENTIAL);
        assert!(
            !error.to_string().contains("old") && error.to_string().contains(server.address()),
            "{error}"
        );
    }
    std::fs::write(credentials.path().join("password"), "p:w").unwrap();
    assert_eq!(pull(&upstream, "app").await.unwrap(), image.manifest);
    std::fs::write(credentials.path().join("password"), "newer").unwrap();
    assert_eq!(pull(&upstream, "app").await.unwrap_err().kind, CREDENTIAL);
    std::fs::remove_file(credentials.path().join("password")).unwrap();
    let missing = pull(&upstream, "app").await.unwrap_err();
    assert!(missing.kind == CREDENTIAL && missing.to_string().contains("neither"), "{missing}");
}

#[tokio::test]
async fn o5_a_secret_is_followed_as_kubernetes_changes_it() {
    let (server, image) = with_password().await;
    let mount = tempfile::tempdir().unwrap();
    let version = |name: &str, password: &str| {
        let folder = mount.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("username"), "alice").unwrap();
        std::fs::write(folder.join("password"), password).unwrap();
        let link = mount.path().join("..data.new");
        std::os::unix::fs::symlink(name, &link).unwrap();
        std::fs::rename(link, mount.path().join("..data")).unwrap();
    };
    version("..one", "old");
    let upstream = Upstream::new(with(&server.origin(), &mount));
    assert_eq!(pull(&upstream, "app").await.unwrap_err().kind, CREDENTIAL);
    version("..two", "p:w");
    assert_eq!(pull(&upstream, "app").await.unwrap(), image.manifest);
}

/// A Stowage whose tokens distribution believes; alice may read what is below `team`.
pub(crate) async fn with_tokens() -> (Stowage, Process, Image) {
    let mut issuer = Stowage::open().await;
    let users = format!("alice:{}\n", bcrypt::hash("secret", 5).unwrap());
    issuer.place.write("secrets/users/htpasswd", &users);
    let rules = "  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n---\n\
                 apiVersion: stowage.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: team}\n\
                 spec: {registryRef: {name: main}, repositories: [\"team/**\"], subjects: [{user: alice}], \
                 actions: [Pull, Push]}\n";
    issuer.restart("http", rules).await;
    let token = |scope: &str| {
        let target = format!("/token?service=x&scope={scope}");
        let (status, _, body) = ask(&issuer.address(), "GET", &target, &basic("alice", "secret"), b"");
        assert_eq!(status, 200);
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["token"].as_str().unwrap().to_owned()
    };
    let part = |token: &str, part: usize| -> Value {
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(part).unwrap()).unwrap();
        serde_json::from_slice(&decoded).unwrap()
    };
    let pushing = token("repository:team/app:pull,push");
    let (head, claims) = (part(&pushing, 0), part(&pushing, 1));
    let pem = std::fs::read_to_string(issuer.place.path().join("data/token-keys.pem")).unwrap();
    let point = KeyPair::from_pem(&pem).unwrap();
    let half = |at: usize| BASE64_URL_SAFE_NO_PAD.encode(&point.der_bytes()[at..at + 32]);
    let keys = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": head["kid"],
        "x": half(1), "y": half(33),
    }]});
    let auth = json!({"token": {
        "realm": format!("http://{}/token", issuer.address()), "service": claims["aud"],
        "issuer": claims["iss"], "jwks": "FOLDER/keys.json",
    }});
    let server = distribution(&auth, &[("keys.json", &keys.to_string())]).await;
    let image =
        push(server.address(), &format!("Authorization: Bearer {pushing}\r\n"), "team/app", "1", b"layer");
    let other = format!("Authorization: Bearer {}\r\n", token("repository:team/other:pull,push"));
    push(server.address(), &other, "team/other", "1", b"layer");
    (issuer, server, image)
}

#[tokio::test]
async fn w879_f18_a_token_endpoint_elsewhere_gives_a_token_for_each_repository() {
    let (_issuer, server, image) = with_tokens().await;
    let credentials = secret(&[("username", "alice"), ("password", "secret")]);
    let upstream = Upstream::new(with(&server.origin(), &credentials));
    upstream.ping().await.unwrap();
    for _ in 0..2 {
        assert_eq!(pull(&upstream, "team/app").await.unwrap(), image.manifest);
        assert_eq!(pull(&upstream, "team/other").await.unwrap(), image.manifest);
    }
    // Logged in, and without a right.
    assert_eq!(pull(&upstream, "foreign/app").await.unwrap_err().kind, CONTENT);

    let wrong = secret(&[("username", "alice"), ("password", "guess")]);
    let error = pull(&Upstream::new(with(&server.origin(), &wrong)), "team/app").await.unwrap_err();
    assert_eq!(error.kind, CREDENTIAL, "{error}");
    let nobody = pull(&Upstream::new(settings(&server.origin())), "team/app").await.unwrap_err();
    assert_eq!(nobody.kind, CONTENT, "{nobody}");
}

#[tokio::test]
async fn f18_a_stowage_with_tokens_is_an_upstream() {
    let mut server = Stowage::open().await;
    let image = push(&server.address(), "", "team/app", "1", b"layer");
    let users = format!("alice:{}\n", bcrypt::hash("secret", 5).unwrap());
    server.place.write("secrets/users/htpasswd", &users);
    let rules = "  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n---\n\
                 apiVersion: stowage.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: all}\n\
                 spec: {registryRef: {name: main}, repositories: [\"**\"], subjects: [{user: alice}], \
                 actions: [Pull]}\n";
    server.restart("http", rules).await;
    let credentials = secret(&[("username", "alice"), ("password", "secret")]);
    let upstream = Upstream::new(with(&format!("http://{}", server.address()), &credentials));
    upstream.ping().await.unwrap();
    assert_eq!(pull(&upstream, "team/app").await.unwrap(), image.manifest);
}

/// A registry like Docker Hub, whose tokens are `for-SCOPE` and live for so long.
fn hub(expires_in: u64) -> (Scripted, Arc<AtomicUsize>) {
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&issued);
    let server = Scripted::answering(move |asked| {
        let host = asked.field("host").unwrap();
        if let Some(query) = asked.line().strip_prefix("GET /token?") {
            counter.fetch_add(1, Ordering::SeqCst);
            let scope = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "scope").unwrap().1;
            let body = json!({"token": format!("for-{scope}"), "expires_in": expires_in});
            // Time for others to ask meanwhile.
            #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
            std::thread::sleep(std::time::Duration::from_millis(200));
            return answer(200, "", body.to_string());
        }
        if asked.line().starts_with("POST /token") {
            counter.fetch_add(1, Ordering::SeqCst);
            let fields: Vec<_> = form_urlencoded::parse(asked.body.as_bytes()).collect();
            let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
            assert_eq!((field("grant_type").as_ref(), field("service").as_ref()), ("refresh_token", "hub"));
            if field("refresh_token") != "identity" {
                return answer(400, "", r#"{"error":"invalid_grant"}"#);
            }
            return answer(200, "", json!({"access_token": format!("for-{}", field("scope"))}).to_string());
        }
        let repository = asked.line().split('/').nth(2).unwrap_or_default().to_owned();
        let scope = format!("repository:{repository}:pull");
        if asked.field("authorization") != Some(&format!("Bearer for-{scope}")) {
            return challenge(&format!("http://{host}/token"), &scope);
        }
        manifest()
    });
    (server, issued)
}

fn manifest() -> Vec<u8> {
    let kind = "application/vnd.oci.image.index.v1+json";
    answer(200, &format!("Content-Type: {kind}\r\n"), r#"{"schemaVersion":2,"manifests":[]}"#)
}

#[tokio::test]
async fn w879_many_requests_at_once_ask_for_a_token_once() {
    let (server, issued) = hub(300);
    let upstream = Upstream::new(settings(&server.origin()));
    let pulls = (0..10).map(|_| pull(&upstream, "app"));
    futures::future::try_join_all(pulls).await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    // What is known is used without being refused first.
    let before = server.asked().len();
    pull(&upstream, "app").await.unwrap();
    assert_eq!((server.asked().len(), issued.load(Ordering::SeqCst)), (before + 1, 1));
    // Another repository needs another token, and no refusal either.
    pull(&upstream, "other").await.unwrap();
    assert_eq!((server.asked().len(), issued.load(Ordering::SeqCst)), (before + 3, 2));
}

#[tokio::test]
async fn w879_a_token_that_is_about_to_end_is_not_used_again() {
    let (server, issued) = hub(30);
    let upstream = Upstream::new(settings(&server.origin()));
    for count in 1..3 {
        pull(&upstream, "app").await.unwrap();
        assert_eq!(issued.load(Ordering::SeqCst), count);
    }
}

#[tokio::test]
async fn o5_a_token_in_the_secret_is_changed_for_tokens_of_the_registry() {
    let (server, issued) = hub(300);
    let credentials = secret(&[("token", "identity\n")]);
    let upstream = Upstream::new(with(&server.origin(), &credentials));
    pull(&upstream, "app").await.unwrap();
    pull(&upstream, "app").await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    std::fs::write(credentials.path().join("token"), "expired").unwrap();
    let error = pull(&upstream, "app").await.unwrap_err();
    assert_eq!(error.kind, CREDENTIAL, "{error}");
    // That nothing of the old credential is left.
    std::fs::write(credentials.path().join("token"), "identity").unwrap();
    pull(&upstream, "app").await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn o5_a_static_registry_token_is_sent_as_it_is() {
    let (server, issued) = hub(300);
    let entry = |token: &str| json!({"auths": {&server.address: {"registrytoken": token}}}).to_string();
    let credentials = secret(&[(".dockerconfigjson", &entry("for-repository:app:pull"))]);
    let upstream = Upstream::new(with(&server.origin(), &credentials));
    pull(&upstream, "app").await.unwrap();
    std::fs::write(credentials.path().join(".dockerconfigjson"), entry("other")).unwrap();
    assert_eq!(pull(&upstream, "app").await.unwrap_err().kind, CREDENTIAL);
    assert_eq!(issued.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn w729_w773_w799_a_token_endpoint_on_another_host_does_not_see_the_credential() {
    let elsewhere = Scripted::answering(|_| answer(200, "", r#"{"token":"t"}"#));
    let realm = format!("http://localhost:{}/token", elsewhere.port());
    let said = realm.clone();
    let server = Scripted::answering(move |asked| match asked.field("authorization") {
        Some("Bearer t") => manifest(),
        _ => challenge(&said, "repository:app:pull"),
    });
    let credentials = secret(&[("username", "alice"), ("password", "hunter2")]);
    let error = pull(&Upstream::new(with(&server.origin(), &credentials)), "app").await.unwrap_err();
    assert_eq!(error.kind, Kind::WrongContent);
    assert!(error.to_string().contains(&realm) && !error.to_string().contains("hunter2"), "{error}");
    assert!(elsewhere.asked().is_empty());
    // With nothing to lose it is asked.
    pull(&Upstream::new(settings(&server.origin())), "app").await.unwrap();
    assert_eq!(elsewhere.asked()[0].field("authorization"), None);
    // And so it is by explicit choice.
    let mut chosen = with(&server.origin(), &credentials);
    chosen.realms = vec!["localhost".to_owned()];
    pull(&Upstream::new(chosen), "app").await.unwrap();
    assert!(elsewhere.asked()[1].field("authorization").is_some_and(|value| value.starts_with("Basic ")));
}

#[tokio::test]
async fn w729_w799_after_a_redirect_to_another_port_nobody_knows_who_asks() {
    let storage = Scripted::answering(|_| manifest());
    let target = format!("{}/object?signature=hidden", storage.origin());
    let server = Scripted::answering(move |asked| match asked.field("authorization") {
        None => answer(401, "WWW-Authenticate: Basic realm=\"here\"\r\n", ""),
        Some(_) => answer(307, &format!("Location: {target}\r\n"), ""),
    });
    let credentials = secret(&[("username", "alice"), ("password", "hunter2")]);
    let upstream = Upstream::new(with(&server.origin(), &credentials));
    pull(&upstream, "app").await.unwrap();
    let asked = storage.asked();
    assert_eq!(asked[0].line(), "GET /object?signature=hidden");
    assert_eq!((asked[0].field("authorization"), asked[0].field("via")), (None, None));
    assert!(server.asked().iter().all(|asked| asked.field("via") == Some("1.1 our-registry")));
}

#[tokio::test]
async fn a_storage_that_refuses_is_no_refusal_by_the_registry() {
    for status in [401, 403, 404] {
        let storage = Scripted::answering(move |_| answer(status, "WWW-Authenticate: Basic\r\n", ""));
        let target = format!("{}/object?signature=hidden", storage.origin());
        let server = Scripted::answering(move |_| answer(307, &format!("Location: {target}\r\n"), ""));
        let credentials = secret(&[("username", "alice"), ("password", "hunter2")]);
        let error = pull(&Upstream::new(with(&server.origin(), &credentials)), "app").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable { retry_after: None }, "{error}");
        assert!(!error.to_string().contains("hidden"), "{error}");
        assert!(storage.asked().iter().all(|asked| asked.field("authorization").is_none()));
    }
}
