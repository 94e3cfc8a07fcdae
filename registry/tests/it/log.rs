// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the log says and does not say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use stowage_oci::{Algorithm, Digest};

use crate::purge::Place;
use crate::support::program::{Program, serve};

const PASSWORD: &str = "Pa55word-of-alice";
const GUESS: &str = "Gue55-of-somebody";
const DATABASE_PASSWORD: &str = "Pa55word-of-the-database";

/// A registry on S3 and PostgreSQL with one user, which sends clients to the bucket. It logs all there is.
async fn talkative() -> (Place, Program, Vec<String>) {
    let place = Place::clustered().await;
    let (bucket, url) = place.shared.clone().unwrap();
    place.write("secrets/database/url", &url.replace("postgres@", &format!("postgres:{DATABASE_PASSWORD}@")));
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    place.write("secrets/users/htpasswd", &format!("alice:{hash}\n"));
    place.specify("  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n");
    place.specify(
        "---\napiVersion: stowage.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: team}\n\
         spec: {registryRef: {name: main}, repositories: [\"**\"], subjects: [{user: alice}], \
         actions: [Pull, Push, Delete]}\n",
    );
    let file = place.path().join("config/registry.yaml");
    let redirecting = std::fs::read_to_string(&file)
        .unwrap()
        .replace("forcePathStyle: true", "forcePathStyle: true, redirect: {mode: Always, minSize: \"1\"}");
    assert!(redirecting.contains("mode: Always"));
    std::fs::write(&file, redirecting).unwrap();
    let process = Program::start(serve(place.path()).env("STOWAGE_LOG", "trace")).await;
    let pem = std::fs::read_to_string(place.path().join("data/token-keys.pem")).unwrap();
    let stowage_registry::blobs::s3::Credentials::Static { secret_access_key, .. } = bucket.credentials
    else {
        panic!("static credentials are what the tests have")
    };
    let lines = pem.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned);
    let secrets = lines.chain([secret_access_key, hash, PASSWORD.into(), DATABASE_PASSWORD.into()]).collect();
    (place, process, secrets)
}

fn basic(password: &str) -> String {
    STANDARD.encode(format!("alice:{password}"))
}

/// Logs in; the token.
fn log_in(process: &Program, scope: &str) -> String {
    let target = format!("/token?service=registry.example.com&account=alice&scope={scope}");
    let fields = format!("Authorization: Basic {}\r\n", basic(PASSWORD));
    let (status, _, body) = process.ask("GET", &target, &fields, b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_no_secret_is_in_the_log_however_much_is_logged() {
    let (_place, process, mut secrets) = talkative().await;
    let token = log_in(&process, "repository:app:pull,push,delete");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let form = format!("grant_type=password&service=x&client_id=y&username=alice&password={PASSWORD}");
    let fields = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(process.ask("POST", "/token", fields, form.as_bytes()).0, 200);
    let wrong = format!("Authorization: Basic {}\r\n", basic(GUESS));
    assert_eq!(process.ask("GET", "/token", &wrong, b"").0, 401);
    let basic_fields = format!("Authorization: Basic {}\r\n", basic(PASSWORD));
    assert_eq!(process.ask("GET", "/v2/", &basic_fields, b"").0, 200);

    let content = b"content that nobody else should read";
    let digest = Digest::of(Algorithm::Sha256, content);
    let target = format!("/v2/app/blobs/uploads/?digest={digest}");
    assert_eq!(process.ask("POST", &target, &bearer, content).0, 201);
    let blob = format!("/v2/app/blobs/{digest}");
    let (status, head, _) = process.ask("GET", &blob, &bearer, b"");
    assert_eq!(status, 307, "{head}");
    let signature = head.split("X-Amz-Signature=").nth(1).unwrap();
    let signature: String = signature.chars().take_while(char::is_ascii_hexdigit).collect();
    assert_eq!(process.ask("DELETE", &blob, &bearer, b"").0, 202);
    let damaged = format!("Authorization: Bearer {token}x\r\n");
    assert_eq!(process.ask("GET", "/v2/", &damaged, b"").0, 401);

    secrets.extend([token, signature, GUESS.into(), basic(PASSWORD), basic(GUESS)]);
    secrets.push(String::from_utf8_lossy(content).into_owned());
    let log = process.log();
    for part in ["\"TRACE\"", "request answered", "\"target\":\"aws_", "\"target\":\"hyper"] {
        assert!(log.contains(part), "{part} is not in the log");
    }
    let found: Vec<(&String, &str)> = secrets
        .iter()
        .filter_map(|secret| Some((secret, log.lines().find(|line| line.contains(secret.as_str()))?)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}
