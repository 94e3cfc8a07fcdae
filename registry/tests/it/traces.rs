// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Traces, as the receiver of a real OpenTelemetry Collector takes them from the program itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};

use crate::purge::Place;
use crate::support::program::free_port;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CLIENTS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENTS_SPAN: &str = "b7ad6b7169203331";

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("STOWAGE_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `tools/build {name}`", path.display());
    path
}

/// A collector. It ends with its standard input, and so with this process.
struct Collector {
    process: Child,
    exports: JoinHandle<Vec<Value>>,
}

impl Collector {
    async fn at(address: &str) -> Self {
        let mut process = Command::new(tool("otelcol"))
            .arg(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let line = |line: std::io::Result<String>| serde_json::from_str(&line.unwrap()).unwrap();
        let exports = std::thread::spawn(move || output.lines().map(line).collect());
        until("the collector listens", || TcpStream::connect(address).is_ok()).await;
        Self { process, exports }
    }

    /// Ends it: every span that it was sent.
    fn spans(mut self) -> Vec<Span> {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
        let exports = self.exports.join().unwrap();
        let resources = exports.iter().flat_map(|export| items(export, "resourceSpans"));
        resources.flat_map(spans_of).collect()
    }
}

fn spans_of(resource: &Value) -> Vec<Span> {
    let scopes = items(resource, "scopeSpans");
    let spans = scopes.flat_map(|scope| items(scope, "spans"));
    spans.map(|span| Span { span: span.clone(), resource: resource["resource"].clone() }).collect()
}

fn items<'a>(node: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    node[field].as_array().into_iter().flatten()
}

/// A span as it came over the wire, and who sent it.
#[derive(Debug)]
struct Span {
    span: Value,
    resource: Value,
}

impl Span {
    const SERVER: u64 = 2;

    fn field(&self, name: &str) -> &str {
        self.span[name].as_str().unwrap_or_default()
    }

    fn attribute(&self, name: &str) -> String {
        attribute(&self.span, name)
    }

    fn is_of_a_request(&self) -> bool {
        self.span["kind"] == Self::SERVER
    }

    fn is_child_of(&self, parent: &Self) -> bool {
        self.field("traceId") == parent.field("traceId")
            && self.field("parentSpanId") == parent.field("spanId")
    }
}

/// The value of an attribute as text; empty if there is none.
fn attribute(node: &Value, name: &str) -> String {
    let value =
        items(node, "attributes").find(|attribute| attribute["key"] == name).map(|found| &found["value"]);
    let value = value.map(|value| value["stringValue"].as_str().or_else(|| value["intValue"].as_str()));
    value.flatten().unwrap_or_default().to_owned()
}

/// A process that serves a place, ended with its guard.
struct Server {
    process: Child,
    /// What it said when it began to serve.
    first: Value,
    log: Arc<Mutex<Vec<Value>>>,
    reading: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `place`; sends traces to a collector at this address, of so many in a hundred requests.
    fn start(place: &Place, collector: &str, percentage: u32) -> Self {
        let file = place.path().join("config/registry.yaml");
        let registry = std::fs::read_to_string(file).unwrap();
        let telemetry = format!("{{otlpEndpoint: \"http://{collector}\", samplingPercentage: {percentage}}}");
        place.write("config/registry.yaml", &format!("{registry}  telemetry: {telemetry}\n"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_stowage-registry"));
        command.args(["--log-format", "json", "serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"]);
        command.args(["--admin-listen=127.0.0.1:0", "--drain-delay=0"]);
        for (flag, name) in [("--config", "config"), ("--secrets-dir", "secrets"), ("--data-dir", "data")] {
            command.arg(flag).arg(place.path().join(name));
        }
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let first = lines.find(|line| line["message"] == "serving").unwrap();
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = Arc::clone(&log);
        let reading = std::thread::spawn(move || lines.for_each(|line| heard.lock().unwrap().push(line)));
        Self { process, first, log, reading: Some(reading) }
    }

    /// Status and body of the answer on the port that the first line names.
    fn ask_at(&self, port: &str, request: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.first[port].as_str().unwrap()).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: registry.example.com:8443\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer.split_off(end + 4))
    }

    fn ask(&self, request: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.ask_at("listen", request, headers, body)
    }

    fn push_blob(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let request = format!("POST /v2/team/app/blobs/uploads/?digest={digest}");
        assert_eq!(self.ask(&request, "", content).0, 201);
        digest
    }

    fn push_manifest(&self, config: &Digest, size: usize) {
        let config =
            json!({ "mediaType": "application/octet-stream", "digest": config.to_string(), "size": size });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] });
        let headers = format!("Content-Type: {MANIFEST}\r\n");
        let answer = self.ask("PUT /v2/team/app/manifests/1.0", &headers, manifest.to_string().as_bytes());
        assert_eq!(answer.0, 201, "{}", String::from_utf8_lossy(&answer.1));
    }

    /// How many spans ended so.
    fn spans(&self, result: &str) -> u64 {
        let (_, metrics) = self.ask_at("ops_listen", "GET /metrics", "", b"");
        let metrics = String::from_utf8(metrics).unwrap();
        let name = format!("stowage_trace_spans_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }

    /// The lines of the log so far with this message.
    fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line["message"] == message).cloned().collect()
    }

    /// Ends it in order, and reads its log to the end.
    fn stop(&mut self) {
        assert!(Command::new("kill").arg(self.process.id().to_string()).status().unwrap().success());
        assert!(self.process.wait().as_ref().is_ok_and(ExitStatus::success));
        self.reading.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within half a minute: {what}");
}

fn traceparent(sampled: bool) -> String {
    format!("traceparent: 00-{CLIENTS_TRACE}-{CLIENTS_SPAN}-{:02x}\r\n", u8::from(sampled))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_and_a_pull_are_spans_from_request_to_database_and_bucket_and_the_log_has_their_trace_id() {
    let (place, address) = (Place::clustered().await, free_address());
    let collector = Collector::at(&address).await;
    let mut server = Server::start(&place, &address, 100);
    let content = vec![7; 100_000];
    let digest = server.push_blob(&content);
    server.push_manifest(&digest, content.len());
    assert_eq!(server.ask("GET /v2/team/app/manifests/1.0", "", b"").0, 200);
    assert_eq!(server.ask(&format!("GET /v2/team/app/blobs/{digest}"), "", b""), (200, content));
    server.stop();
    let (spans, answered) = (collector.spans(), server.lines("request answered"));
    for (operation, method, status, step, request) in [
        ("open_upload", "POST", "201", "commit_blob", Some("put")),
        ("put_manifest", "PUT", "201", "publish_manifest", Some("put")),
        ("get_manifest", "GET", "200", "tagged", None),
        ("get_blob", "GET", "200", "blobs", Some("get")),
    ] {
        let mut requests = spans.iter().filter(|span| span.is_of_a_request());
        let asked = requests.find(|span| span.field("name") == operation).unwrap();
        assert_eq!(asked.field("parentSpanId"), "", "{asked:?}");
        for (name, expected) in [
            ("http.request.method", method),
            ("http.response.status_code", status),
            ("http.operation", operation),
            ("repo.name", "team/app"),
            ("server.address", "registry.example.com"),
            ("server.port", "8443"),
            ("client.address", "127.0.0.1"),
        ] {
            assert_eq!(asked.attribute(name), expected, "{name} of {asked:?}");
        }
        let children: Vec<&Span> = spans.iter().filter(|span| span.is_child_of(asked)).collect();
        let database = children.iter().find(|span| span.attribute("db.operation") == step);
        assert_eq!(database.unwrap().attribute("db.system.name"), "postgresql", "{children:?}");
        if let Some(request) = request {
            let bucket = children.iter().find(|span| span.attribute("store.operation") == request).unwrap();
            assert!(bucket.attribute("object.key").starts_with("v1/"), "{bucket:?}");
        }
        let line = answered.iter().find(|line| line["http.operation"] == operation).unwrap();
        assert_eq!(line["trace_id"], asked.field("traceId"));
        assert_eq!(line["request.id"], asked.attribute("request.id"));
        assert_eq!(attribute(&asked.resource, "service.name"), "stowage-registry");
        assert_eq!(attribute(&asked.resource, "stowage.registry"), "main");
    }
    // What runs in the background is in no trace.
    for span in &spans {
        let has_parent = || spans.iter().any(|parent| span.is_child_of(parent));
        assert!(span.is_of_a_request() || has_parent(), "{span:?}");
        assert!(!span.span.to_string().contains("digest="), "a query: {span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_sampled_the_traces_of_clients_go_on_and_no_other() {
    let (place, address) = (Place::embedded(), free_address());
    let collector = Collector::at(&address).await;
    let mut server = Server::start(&place, &address, 0);
    let digest = server.push_blob(b"content");
    let asked = server.ask(&format!("GET /v2/team/app/blobs/{digest}"), &traceparent(true), b"");
    assert_eq!(asked.0, 200);
    server.stop();
    let spans = collector.spans();
    let request = spans.iter().find(|span| span.is_of_a_request()).unwrap();
    assert_eq!((request.field("name"), request.field("parentSpanId")), ("get_blob", CLIENTS_SPAN));
    assert!(spans.iter().all(|span| span.field("traceId") == CLIENTS_TRACE), "{spans:?}");
    let children = spans.iter().filter(|span| span.is_child_of(request)).count();
    assert!(children > 0 && children == spans.len() - 1, "{spans:?}");
    let line = server.lines("request answered").into_iter().find(|line| line["http.operation"] == "get_blob");
    assert_eq!(line.unwrap()["trace_id"], CLIENTS_TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_its_client_does_not_keep_is_not_sent_and_a_broken_one_is_not_followed() {
    let (place, address) = (Place::embedded(), free_address());
    let collector = Collector::at(&address).await;
    let mut server = Server::start(&place, &address, 100);
    assert_eq!(server.ask("GET /v2/", &traceparent(false), b"").0, 200);
    assert_eq!(server.ask("GET /v2/a/tags/list", "traceparent: 00-0af7-b7ad-01\r\n", b"").0, 404);
    server.stop();
    let spans = collector.spans();
    let request = spans.iter().find(|span| span.is_of_a_request()).unwrap();
    assert_eq!((request.field("name"), request.field("parentSpanId")), ("list_tags", ""));
    assert!(spans.iter().all(|span| span.field("traceId") == request.field("traceId")), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_go_on_while_the_collector_is_away_and_the_loss_is_counted_and_logged_once() {
    let (place, address) = (Place::embedded(), free_address());
    let mut server = Server::start(&place, &address, 100);
    for round in 1..=3_u8 {
        let before = server.spans("failed");
        server.push_blob(&[round; 10]);
        until("spans fail", || server.spans("failed") > before).await;
    }
    assert_eq!((server.lines("traces are lost").len(), server.spans("sent")), (1, 0));
    let collector = Collector::at(&address).await;
    server.push_blob(b"content");
    until("spans are sent", || server.spans("sent") > 0).await;
    server.stop();
    assert!(collector.spans().iter().any(Span::is_of_a_request));
    let (lost, again) = (server.lines("traces are lost"), server.lines("traces are sent again"));
    assert_eq!((lost.len(), again.len()), (1, 1), "{lost:?} {again:?}");
    assert_eq!(lost[0]["level"], "WARN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_spans_and_no_request() {
    let (place, silent) = (Place::embedded(), TcpListener::bind("127.0.0.1:0").unwrap());
    let server = Server::start(&place, &silent.local_addr().unwrap().to_string(), 100);
    let digest = server.push_blob(b"content");
    let request = format!("GET /v2/team/app/blobs/{digest}");
    let pull = || {
        for _ in 0..1000 {
            assert_eq!(server.ask(&request, "", b"").0, 200);
        }
    };
    std::thread::scope(|scope| [pull; 2].map(|pull| scope.spawn(pull)).map(|pulls| pulls.join().unwrap()));
    assert!(server.spans("dropped") > 0);
    assert_eq!(server.spans("sent"), 0);
    until("every request is in the log", || server.lines("request answered").len() == 2001).await;
}
