// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Real S3 servers: one of a kind in a test process, a bucket of its own for each test.
//!
//! A server ends, and its folder goes, with the process that asked for it, however that ends: the shell around
//! it waits for the end of a pipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};
use aws_sdk_s3::{Client, config};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use stowage_registry::blobs::Store;
use stowage_registry::blobs::s3::{Credentials, S3, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::program::free_port;

const USER: &str = "stowage-test";
const PASSWORD: &str = "stowage-test-secret";

/// The program whose end ends the server: `$1` is the folder, the rest the server's command line.
const GUARD: &str = r#"
trap "" INT TERM
folder=$1; shift
"$@" > "$folder/log" 2>&1 < /dev/null & server=$!
read -r _
kill "$server"; wait "$server"
rm -rf "$folder"
"#;

/// The servers that tests know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Versitygw,
    Minio,
}

/// A server that runs.
struct Server {
    endpoint: String,
    /// Its standard input keeps the server running.
    _guard: Child,
}

static VERSITYGW: OnceCell<Server> = OnceCell::const_new();
static MINIO: OnceCell<Server> = OnceCell::const_new();

/// An empty bucket on a real server.
pub(crate) async fn bucket(kind: Kind) -> Settings {
    let running = match kind {
        Kind::Versitygw => &VERSITYGW,
        Kind::Minio => &MINIO,
    };
    let server = running.get_or_init(|| start(kind)).await;
    let settings = settings(&server.endpoint);
    create_bucket(&settings).await.unwrap();
    settings
}

/// A store on a bucket of its own, below a prefix.
pub(crate) async fn store(kind: Kind) -> (Arc<dyn Store>, ()) {
    let settings = Settings { prefix: "some/prefix".to_owned(), ..bucket(kind).await };
    (Arc::new(S3::new(settings).await.unwrap()), ())
}

fn settings(endpoint: &str) -> Settings {
    Settings {
        bucket: format!("test-{}", Uuid::new_v4().simple()),
        prefix: String::new(),
        region: "us-east-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        force_path_style: true,
        credentials: Credentials::Static {
            access_key_id: USER.to_owned(),
            secret_access_key: PASSWORD.to_owned(),
            session_token: None,
        },
        ca: None,
    }
}

async fn create_bucket(settings: &Settings) -> Result<(), aws_sdk_s3::Error> {
    client(settings).create_bucket().bucket(&settings.bucket).send().await?;
    Ok(())
}

/// The whole answer to a request without a body, as it comes over the wire.
pub(crate) async fn ask(url: &str, method: &str, headers: &str) -> Vec<u8> {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = TcpStream::connect(host).await.unwrap();
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    answer
}

/// Gives the bucket a rule of the name `old`.
pub(crate) async fn expire_after_a_day(settings: &Settings) {
    let rule = LifecycleRule::builder()
        .id("old")
        .status(ExpirationStatus::Enabled)
        .expiration(LifecycleExpiration::builder().days(1).build())
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .build();
    let rules = BucketLifecycleConfiguration::builder().rules(rule.unwrap()).build().unwrap();
    let request = client(settings).put_bucket_lifecycle_configuration().bucket(&settings.bucket);
    request.lifecycle_configuration(rules).send().await.unwrap();
}

fn client(settings: &Settings) -> Client {
    let credentials = config::Credentials::new(USER, PASSWORD, None, None, "test");
    let tls = TlsContext::builder().with_trust_store(TrustStore::empty()).build().unwrap();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    let config = config::Config::builder()
        .behavior_version(config::BehaviorVersion::v2026_01_12())
        .region(config::Region::new(settings.region.clone()))
        .endpoint_url(settings.endpoint.as_deref().unwrap())
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(http)
        .build();
    Client::from_conf(config)
}

async fn start(kind: Kind) -> Server {
    let tool = match kind {
        Kind::Versitygw => tool("versitygw"),
        Kind::Minio => tool("minio"),
    };
    let folder = tempfile::Builder::new().prefix("stowage-s3-").tempdir().unwrap().keep();
    let address = format!("127.0.0.1:{}", free_port());
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    let guard = command(kind, &tool, &folder, &data, &address).spawn().unwrap();
    let server = Server { endpoint: format!("http://{address}"), _guard: guard };
    let probe = settings(&server.endpoint);
    for _ in 0..200 {
        if create_bucket(&probe).await.is_ok() {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    panic!("{kind:?} did not start:\n{log}");
}

fn command(kind: Kind, tool: &Path, folder: &Path, data: &Path, address: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "sh"]).arg(folder).arg(tool).stdin(Stdio::piped()).env("HOME", folder);
    match kind {
        Kind::Versitygw => {
            command.args(["--port", address, "--keep-alive", "--quiet", "posix"]);
            command.arg(data).env("ROOT_ACCESS_KEY_ID", USER).env("ROOT_SECRET_ACCESS_KEY", PASSWORD);
        }
        Kind::Minio => {
            command.args(["server", "--quiet", "--address", address]).arg(data);
            command.env("MINIO_ROOT_USER", USER).env("MINIO_ROOT_PASSWORD", PASSWORD);
            // Nothing leaves this machine.
            command.env("MINIO_UPDATE", "off").env("MINIO_BROWSER", "off");
        }
    }
    command
}

/// A pinned tool.
pub(crate) fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("STOWAGE_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "tests need {}: run `make tools`, or set STOWAGE_TOOLS", path.display());
    path
}
