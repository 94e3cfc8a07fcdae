// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program keeps what its reference pages say: its command line, its metrics, its first and its last words.
//!
//! `UPDATE=1 cargo test -p stowage-registry --test it reference` writes the generated parts anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use stowage_oci::{Algorithm, Digest};

const WITH_A_MIRROR: &str = "\
apiVersion: stowage.dev/v1alpha1
kind: Registry
metadata: {name: main}
spec:
  externalURL: https://registry.example.com
  storage: {filesystem: {}}
  database: {sqlite: {}}
  auth: {anonymous: PullPush}
---
apiVersion: stowage.dev/v1alpha1
kind: Mirror
metadata: {name: hub}
spec:
  registryRef: {name: main}
  path: hub
  mode: PullThrough
  upstream: {url: https://hub.example.com}
---
apiVersion: stowage.dev/v1alpha1
kind: RetentionPolicy
metadata: {name: old-tags}
spec:
  registryRef: {name: main}
  repositories: {include: [\"**\"]}
";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stowage-registry"));
    command.env_clear();
    command
}

fn printed(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares the part of a page between its markers with what it should be, or writes it.
fn compare(page: &str, part: &str, expected: &str) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(page);
    let text = fs::read_to_string(&page).unwrap();
    let (begin, end) = (format!("<!-- {part} begins -->\n"), format!("<!-- {part} ends -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap();
    let (found, after) = rest.split_once(&end).unwrap();
    let expected = format!("\n{}\n\n", expected.trim());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&page, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(found, expected, "{} is out of date: run this test with UPDATE=1", page.display());
}

#[test]
fn the_command_line_page_is_what_the_programs_print() {
    let mut text = String::new();
    for command in [
        vec![],
        vec!["serve"],
        vec!["migrate"],
        vec!["gc"],
        vec!["retention"],
        vec!["rebuild"],
        vec!["verify"],
        vec!["export"],
        vec!["import"],
        vec!["load"],
        vec!["promote"],
        vec!["purge"],
        vec!["config", "check"],
        vec!["config", "show"],
    ] {
        let name =
            ["stowage-registry"].into_iter().chain(command.iter().copied()).collect::<Vec<_>>().join(" ");
        let help = printed(&command.into_iter().chain(["--help"]).collect::<Vec<_>>());
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(text, "### `{name}`\n\n```text\n{}\n```\n\n", help.join("\n")).unwrap();
    }
    compare("command-line.md", "stowage-registry", &text);
}

#[test]
fn completions_and_manual_come_from_the_command_line() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completions", shell]).contains("data-dir"), "{shell}");
    }
    let manual = printed(&["man"]);
    assert!(manual.contains(".TH") && manual.contains("stowage\\-registry"), "{manual}");
}

#[test]
fn every_subcommand_has_its_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    assert_eq!(printed(&["man", pages.to_str().unwrap()]), "");
    for (page, says) in [
        ("stowage-registry.1", "stowage\\-registry\\-serve(1)"),
        ("stowage-registry-serve.1", "ops\\-listen"),
        ("stowage-registry-trash-restore.1", ".TH"),
        ("stowage-registry-config-show.1", ".TH"),
    ] {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(says), "{page} does not speak of {says}: {text}");
    }
}

#[test]
fn o27_a_filter_of_the_log_that_says_nothing_is_refused() {
    for (filter, named) in
        [("warning", "\"warning\""), ("info,stowage_registry=loud", "stowage_registry=loud")]
    {
        let output = program().env("STOWAGE_LOG", filter).args(["config", "show"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{filter}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().last().unwrap().contains(named), "{filter}: {said}");
        assert!(output.stdout.is_empty());
    }
}

/// A process that serves on free ports, ended with its guard.
struct Server {
    process: Child,
    log: BufReader<ChildStderr>,
    folder: tempfile::TempDir,
    /// What it said when it began to serve.
    first: Value,
}

impl Server {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program();
        command.args(["serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--drain-delay=0"]);
        command
            .arg("--admin-listen=127.0.0.1:0")
            .arg("--data-dir")
            .arg(folder.path().join("made/by/it"))
            .args(flags);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let first = line_with(&mut log, "serving");
        Self { process, log, folder, first }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("made/by/it")
    }

    /// Head and body of the answer on the port that the first line names.
    fn ask(&self, port: &str, head: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.first[port].as_str().unwrap()).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn push_blob(&self, content: &str) {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        let head = format!("POST /v2/some/repository/blobs/uploads/?digest={digest}");
        let (answer, _) = self.ask("listen", &head, content);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The next line of the log with this message.
fn line_with(log: &mut impl std::io::BufRead, message: &str) -> Value {
    for line in log.lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["message"] == message {
            return line;
        }
    }
    panic!("the log ended without {message:?}");
}

/// A metric as the exposition describes it.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: String,
}

/// The metrics of an exposition by the names that queries use.
fn metrics(exposition: &str) -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for line in exposition.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                (*help).clone_into(&mut found.entry((*name).to_owned()).or_default().help);
            }
            ["#", "TYPE", name, kind] => {
                (*kind).clone_into(&mut found.entry((*name).to_owned()).or_default().kind);
            }
            _ => {
                let (name, labels) = line.split_once('{').unwrap_or((line, ""));
                let family =
                    ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let names = labels.split("=\"").filter_map(|part| part.rsplit(['"', ',', '{']).next());
                let names: Vec<&str> =
                    names.filter(|name| !name.is_empty() && !name.contains('}') && *name != "le").collect();
                if let Some(metric) = found.get_mut(family.unwrap_or(name))
                    && metric.labels.is_empty()
                {
                    metric.labels = names.join(", ");
                }
            }
        }
    }
    found
}

#[test]
fn the_page_of_metrics_lists_what_is_registered() {
    let config = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    fs::write(config.path(), WITH_A_MIRROR).unwrap();
    let server = Server::start_with(&["--config", config.path().to_str().unwrap()]);
    server.push_blob("counted");
    // A request is counted when its answer has gone, and what it depends on is looked at in the background.
    let expected = ["stowage_dependency_up{", "stowage_http_requests_total{"];
    let mut expositions = (0..1000).map(|_| server.ask("ops_listen", "GET /metrics", "").1);
    let exposition = expositions.find(|text| expected.iter().all(|name| text.contains(name))).unwrap();
    let mut table = "| metric | type | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, Metric { kind, help, labels }) in metrics(&exposition) {
        let end = if kind == "counter" { "_total" } else { "" };
        let help = help.trim_end_matches('.');
        writeln!(table, "| `{name}{end}` | {kind} | {labels} | {help} |").unwrap();
    }
    compare("metrics.md", "stowage-registry", &table);
}

#[test]
fn the_first_line_says_who_serves_what() {
    let server = Server::start();
    for field in
        ["version", "registry", "listen", "ops_listen", "tls", "pid", "uid", "command", "config.hash"]
    {
        assert!(!server.first[field].is_null(), "{field} is missing in {}", server.first);
    }
    assert_eq!(server.first["pid"], server.process.id());
    assert_eq!(server.first["tls"], false);
}

#[test]
fn every_request_has_a_line() {
    let mut server = Server::start();
    server.push_blob("logged");
    let line = line_with(&mut server.log, "request answered");
    assert_eq!(line["http.status"], 201, "{line}");
    assert_eq!(line["repo.name"], "some/repository", "{line}");
    for field in ["request.id", "http.operation", "bytes", "duration_ms"] {
        assert!(!line[field].is_null(), "{field} is missing in {line}");
    }
    assert_eq!(line["client.address"], "127.0.0.1", "{line}");
}

#[test]
fn who_a_client_says_it_comes_for_is_not_believed() {
    let mut server = Server::start();
    for header in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1"] {
        // The end of the request line is that of a header here.
        server.ask("listen", &format!("GET /v2/ HTTP/1.1\r\n{header}\r\nX-Rest:"), "");
        let line = line_with(&mut server.log, "request answered");
        assert_eq!(line["client.address"], "127.0.0.1", "{line}");
        assert!(!line.to_string().contains("192.0.2.1"), "{line}");
    }
}

#[test]
fn what_config_show_prints_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    let shown = printed(&["config", "show"]);
    fs::write(&file, &shown).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start_with(&["--config", file]);
    let hash = server.first["config.hash"].as_str().unwrap();
    assert_eq!(shown.lines().next(), Some(format!("# {hash}").as_str()));
    server.push_blob("taken");
    assert_eq!(printed(&["config", "show", "--config", file]), shown);
    let whole: Value = serde_json::from_str(&printed(&["config", "show", "--output", "json"])).unwrap();
    assert_eq!((&whole["hash"], &whole["document"]["kind"]), (&hash.into(), &"Document".into()));
}

#[test]
fn the_data_folder_is_made_and_all_state_is_in_it() {
    let server = Server::start();
    server.push_blob("plain content");
    let mut found = Vec::new();
    files(&server.data_dir(), &mut found);
    assert!(found.iter().any(|file| fs::read(file).unwrap() == b"plain content"), "{found:?}");
    let beside = fs::read_dir(server.folder.path()).unwrap().count();
    assert_eq!(beside, 1, "something lies beside the folder");
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn w885_no_port_answers_for_another() {
    let server = Server::start();
    for path in ["/livez", "/readyz", "/metrics", "/config"] {
        let (head, _) = server.ask("listen", &format!("GET {path}"), "");
        assert!(head.starts_with("HTTP/1.1 404"), "{path} on the data port: {head}");
    }
    for path in ["/v2/", "/token", "/admin/v1/gc"] {
        let (head, _) = server.ask("ops_listen", &format!("GET {path}"), "");
        assert!(head.starts_with("HTTP/1.1 404"), "{path} on the operations port: {head}");
    }
}
