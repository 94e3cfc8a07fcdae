// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who the program is for its bucket, when its configuration does not say: the identity that a cloud gives it.
//! A stand-in for each service that gives one. The keys are real: the bucket's server makes them, and knows no
//! others.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use stowage_oci::{Algorithm, Digest};
use stowage_registry::blobs::s3::Credentials;

use crate::purge::Place;
use crate::support::program::{Program, serve, until};
use crate::support::s3::Kind;

/// How long a key is good. The client library renews one that has ten seconds left.
const LIFE: Duration = Duration::from_secs(12);

/// What a service that gives identities knows.
#[derive(Clone)]
struct Issuer {
    /// The bucket's server, which makes keys that expire for whom it knows.
    endpoint: String,
    user: String,
    /// Whether the next keys are good.
    is_right: Arc<AtomicBool>,
    issued: Arc<AtomicUsize>,
}

/// Keys as they are given.
struct Keys {
    id: String,
    secret: String,
    token: String,
    expiration: String,
}

impl Issuer {
    /// New keys of the bucket's server, with an end that comes sooner than theirs.
    fn keys(&self) -> Keys {
        let mut curl = Command::new("curl");
        curl.args(["--fail", "--silent", "--show-error", "--aws-sigv4", "aws:amz:us-east-1:sts"]);
        curl.args(["--data", "Action=AssumeRole&Version=2011-06-15&DurationSeconds=900"]);
        let output = curl.args(["--user", &self.user, &self.endpoint]).output().expect("run curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8(output.stdout).unwrap();
        let field = |name: &str| {
            let value = answer.split(&format!("<{name}>")).nth(1).unwrap();
            value.split('<').next().unwrap().to_owned()
        };
        self.issued.fetch_add(1, Ordering::SeqCst);
        let is_right = self.is_right.load(Ordering::SeqCst);
        #[expect(clippy::disallowed_methods, reason = "the stand-in has the time of the machine")]
        let now = jiff::Timestamp::now();
        Keys {
            id: field("AccessKeyId"),
            secret: if is_right { field("SecretAccessKey") } else { "of nobody".to_owned() },
            token: field("SessionToken"),
            expiration: (now + LIFE).to_string(),
        }
    }

    /// As containers and instances get them.
    fn json(&self) -> String {
        let Keys { id, secret, token, expiration } = self.keys();
        json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "Expiration": expiration,
        })
        .to_string()
    }

    /// As they are given for a token of another issuer.
    fn xml(&self) -> String {
        let Keys { id, secret, token, expiration } = self.keys();
        format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><AssumedRoleUser><AssumedRoleId>x:y</AssumedRoleId>\
             <Arn>arn:aws:sts::123456789012:assumed-role/stowage/y</Arn></AssumedRoleUser><Credentials>\
             <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
    }

    /// Serves on a port of its own for as long as the process lives: status and text for head and body.
    fn serve(&self, answer: impl Fn(&Self, &str, &str) -> (u16, String) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let issuer = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // A client that waited too long has hung up, and asks again.
                let Ok((head, body)) = request(&stream) else { continue };
                let (status, text) = answer(&issuer, &head, &body);
                let head = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nx-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
                     Content-Length: {}\r\n\r\n",
                    text.len()
                );
                // Whoever asked may be gone.
                drop(stream.write_all(format!("{head}{text}").as_bytes()));
            }
        });
        address
    }
}

fn request(stream: &TcpStream) -> io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body).unwrap()))
}

/// A registry whose configuration names a bucket and no credentials, and who gives it some.
async fn nameless() -> (Place, Issuer) {
    let place = Place::on(Kind::Minio).await;
    let file = place.path().join("config/registry.yaml");
    let named = std::fs::read_to_string(&file).unwrap();
    let nameless = named.replace(", credentialsSecretRef: {name: bucket}", "");
    assert_ne!(named, nameless);
    std::fs::write(&file, nameless).unwrap();
    std::fs::remove_dir_all(place.path().join("secrets/bucket")).unwrap();
    let (bucket, _) = place.shared.as_ref().unwrap();
    let Credentials::Static { access_key_id, secret_access_key, .. } = &bucket.credentials else {
        panic!("static credentials are what the tests have")
    };
    let issuer = Issuer {
        endpoint: bucket.endpoint.clone().unwrap(),
        user: format!("{access_key_id}:{secret_access_key}"),
        is_right: Arc::new(AtomicBool::new(true)),
        issued: Arc::default(),
    };
    (place, issuer)
}

fn pushes(process: &Program, content: &str) -> bool {
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    let target = format!("/v2/app/blobs/uploads/?digest={digest}");
    process.ask("POST", &target, "", content.as_bytes()).0 == 201
}

/// That the registry stores with what `issuer` gives it, and with the newest of it.
async fn stores_with(issuer: &Issuer, place: &Place, environment: &[(&str, &str)]) {
    let mut command = serve(place.path());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    let process = Program::start(command.envs(environment.iter().copied()).env("HOME", place.path())).await;
    assert!(pushes(&process, "with the first key"), "{}", process.log());
    let first = issuer.issued.load(Ordering::SeqCst);
    assert!(first > 0, "nobody asked");
    let mut contents = (0..).map(|number| format!("content {number}"));
    issuer.is_right.store(false, Ordering::SeqCst);
    until("a newer key is used", || (!pushes(&process, &contents.next()?)).then_some(())).await;
    issuer.is_right.store(true, Ordering::SeqCst);
    until("the newest key is used", || pushes(&process, &contents.next()?).then_some(())).await;
    assert!(issuer.issued.load(Ordering::SeqCst) >= first + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn p32_a_container_is_who_its_platform_says() {
    let (place, issuer) = nameless().await;
    let address = issuer.serve(|issuer, head, _| {
        let is_authorized = head.to_lowercase().contains("authorization: of the container\r\n");
        if head.starts_with("GET /credentials ") && is_authorized {
            (200, issuer.json())
        } else {
            (404, String::new())
        }
    });
    let url = format!("http://{address}/credentials");
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the container"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    stores_with(&issuer, &place, &environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p32_a_pod_shows_its_token_and_becomes_its_role() {
    let (place, issuer) = nameless().await;
    place.write("token", "of-the-pod");
    let address = issuer.serve(|issuer, _, body| {
        let asked = ["Action=AssumeRoleWithWebIdentity", "WebIdentityToken=of-the-pod", "role%2Fstowage"];
        if asked.iter().all(|part| body.contains(part)) { (200, issuer.xml()) } else { (400, String::new()) }
    });
    let (url, file) = (format!("http://{address}"), place.path().join("token").display().to_string());
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/stowage"),
        ("AWS_ENDPOINT_URL_STS", url.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    stores_with(&issuer, &place, &environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p32_a_machine_is_who_its_metadata_say() {
    let (place, issuer) = nameless().await;
    let address = issuer.serve(|issuer, head, _| {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials";
        let (method, rest) = head.split_once(' ').unwrap();
        let path = rest.split(' ').next().unwrap();
        let is_known = head.to_lowercase().contains("x-aws-ec2-metadata-token: session-of-the-machine\r\n");
        match (method, path.trim_end_matches('/')) {
            ("PUT", "/latest/api/token") => (200, "session-of-the-machine".to_owned()),
            ("GET", ROLES) if is_known => (200, "stowage".to_owned()),
            ("GET", path) if is_known && path.strip_prefix(ROLES) == Some("/stowage") => (200, issuer.json()),
            _ => (404, String::new()),
        }
    });
    let url = format!("http://{address}");
    stores_with(&issuer, &place, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())]).await;
}
