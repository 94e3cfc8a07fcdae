// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Registries and proxies to be a client of.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::upstream::{Network, Patience, Settings};

use crate::purge::Place;
use crate::support::program::{Program, ask, free_port, program, until};

/// The settings of a client on this machine.
pub(crate) fn settings(origin: &str) -> Settings {
    let mut settings = Settings::new(origin.parse().unwrap(), "our-registry");
    settings.network = Network::Any;
    settings
}

/// One that gives up soon.
pub(crate) fn impatient(origin: &str) -> Settings {
    let short = std::time::Duration::from_millis(700);
    Settings { patience: Patience { connect: short, answer: short, idle: short }, ..settings(origin) }
}

/// A folder of a Secret with these files.
pub(crate) fn secret(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// An image that a registry has.
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) layer: Vec<u8>,
    pub(crate) layer_digest: Digest,
}

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image under `tag` to the registry at `address`, with these header fields.
pub(crate) fn push(address: &str, fields: &str, repository: &str, tag: &str, layer: &[u8]) -> Image {
    push_manifest(address, fields, repository, tag, layer, &Value::Null)
}

/// The same with a subject.
pub(crate) fn push_manifest(
    address: &str,
    fields: &str,
    repository: &str,
    tag: &str,
    layer: &[u8],
    subject: &Value,
) -> Image {
    let config = push_blob(address, fields, repository, b"{}");
    let layer_digest = push_blob(address, fields, repository, layer);
    let descriptor = |media_type: &str, digest: &Digest, size: usize| json!({"mediaType": media_type, "digest": digest, "size": size});
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config, 2),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer.len())],
    });
    if !subject.is_null() {
        manifest["subject"] = subject.clone();
        manifest["artifactType"] = "application/vnd.example.signature".into();
    }
    // Spaces that a reader who makes it anew would not keep.
    let manifest = format!("{manifest:#}\n").into_bytes();
    let target = format!("/v2/{repository}/manifests/{tag}");
    let fields = format!("{fields}Content-Type: {IMAGE}\r\n");
    let (status, head, body) = ask(address, "PUT", &target, &fields, &manifest);
    assert_eq!(status, 201, "{head} {}", String::from_utf8_lossy(&body));
    let digest = Digest::of(Algorithm::Sha256, &manifest);
    Image { manifest, digest, layer: layer.to_vec(), layer_digest }
}

pub(crate) fn push_blob(address: &str, fields: &str, repository: &str, content: &[u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, content);
    let (status, head, _) = ask(address, "POST", &format!("/v2/{repository}/blobs/uploads/"), fields, b"");
    assert_eq!(status, 202, "{head}");
    let location = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then_some(value)
    });
    let location = location.unwrap();
    let path = location.find("/v2/").and_then(|at| location.get(at..)).unwrap();
    let separator = if path.contains('?') { '&' } else { '?' };
    let fields = format!("{fields}Content-Type: application/octet-stream\r\n");
    let target = format!("{path}{separator}digest={digest}");
    let (status, head, _) = ask(address, "PUT", &target, &fields, content);
    assert_eq!(status, 201, "{head}");
    digest
}

/// A process that ends with its guard.
pub(crate) struct Process {
    child: Child,
    folder: tempfile::TempDir,
    address: String,
}

impl Process {
    async fn start(mut command: Command, folder: tempfile::TempDir, port: u16) -> Self {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let address = format!("127.0.0.1:{port}");
        let mut process = Self { child: child.unwrap(), folder, address: address.clone() };
        until("it listens", || {
            let log = || fs::read_to_string(process.folder.path().join("log")).unwrap_or_default();
            assert!(process.child.try_wait().unwrap().is_none(), "{}", log());
            TcpStream::connect(&address).ok()
        })
        .await;
        process
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets distribution have further tags of an image, as it keeps them: each a folder with the digest in it.
    pub(crate) fn add_tags(&self, repository: &str, image: &Image, tags: impl Iterator<Item = String>) {
        let of_repository = format!("data/docker/registry/v2/repositories/{repository}/_manifests/tags");
        let folder = self.folder.path().join(of_repository);
        for tag in tags {
            let current = folder.join(tag).join("current");
            fs::create_dir_all(&current).unwrap();
            fs::write(current.join("link"), image.digest.to_string()).unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("STOWAGE_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "tests need {}: run `make tools`, or set STOWAGE_TOOLS", path.display());
    path
}

/// distribution, with this `auth`. `files` are written into its folder, which is `FOLDER` in `auth`.
pub(crate) async fn distribution(auth: &Value, files: &[(&str, &str)]) -> Process {
    let folder = secret(files);
    let port = free_port();
    let auth = auth.to_string().replace("FOLDER", folder.path().to_str().unwrap());
    let auth: Value = serde_json::from_str(&auth).unwrap();
    let mut settings = json!({
        "version": 0.1,
        "log": { "level": "error" },
        "storage": { "filesystem": { "rootdirectory": folder.path().join("data") } },
        "http": { "addr": format!("127.0.0.1:{port}"), "secret": "of the test" },
    });
    if !auth.is_null() {
        settings["auth"] = auth;
    }
    let file = folder.path().join("config.yaml");
    // Every JSON document is a YAML document.
    fs::write(&file, settings.to_string()).unwrap();
    let mut serve = Command::new(tool("registry"));
    serve.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(&file);
    Process::start(serve, folder, port).await
}

/// A proxy that asks for this name and password, if they are given.
pub(crate) async fn tinyproxy(login: Option<(&str, &str)>) -> Process {
    let folder = secret(&[]);
    let port = free_port();
    let login = login.map(|(user, password)| format!("BasicAuth {user} {password}\n")).unwrap_or_default();
    let config =
        format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nAllow 127.0.0.1\n{login}");
    let file = folder.path().join("tinyproxy.conf");
    fs::write(&file, config).unwrap();
    let mut serve = Command::new("tinyproxy");
    serve.arg("-d").arg("-c").arg(&file);
    Process::start(serve, folder, port).await
}

/// A second Stowage.
pub(crate) struct Stowage {
    pub(crate) place: Place,
    pub(crate) port: u16,
    program: Option<Program>,
}

impl Stowage {
    /// One that lets everybody do everything.
    pub(crate) async fn open() -> Self {
        let mut stowage = Self { place: Place::embedded(), port: free_port(), program: None };
        stowage.restart("http", "").await;
        stowage
    }

    /// The same content with these lines in its spec, and more documents after them.
    pub(crate) async fn restart(&mut self, scheme: &str, lines: &str) {
        drop(self.program.take());
        self.place.configure("filesystem: {}", "sqlite: {}");
        let file = self.place.path().join("config/registry.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let own = format!("{scheme}://127.0.0.1:{}", self.port);
        fs::write(&file, text.replace("https://registry.example.com", &own) + lines).unwrap();
        let mut serve = program(&["serve"], self.place.path());
        serve.args(["--ops-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--drain-delay=0"]);
        serve.arg(format!("--listen={}", self.address()));
        self.program = Some(Program::start(&mut serve).await);
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// What a scripted server was asked: the head, and the body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// Method and path.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// What a server does with what it is asked.
type Script = dyn Fn(&Asked, &mut TcpStream) + Send + Sync;

/// A server for what no real registry does. It serves for as long as the process lives.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// A server that answers with these bytes, and closes.
    pub(crate) fn answering(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::doing(move |asked, stream| {
            // Whoever asked may be gone.
            drop(stream.write_all(&answer(asked)));
        })
    }

    pub(crate) fn doing(script: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (script, record): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, script, record) =
                    (stream.unwrap(), Arc::clone(&script), Arc::clone(&record));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    record.lock().unwrap().push(request.clone());
                    script(&request, &mut stream);
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> &str {
        self.address.split(':').nth(1).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut asked = Asked { head, body: String::new() };
    let length = asked.field("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).unwrap();
    Some(asked)
}

/// An answer with these header fields, each ending in a line end.
pub(crate) fn answer(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// Hands a request on; what is answered.
pub(crate) fn handed_on(asked: &Asked, to: &str) -> Vec<u8> {
    let is_kept = |line: &&str| !line.to_ascii_lowercase().starts_with("connection:");
    let head: Vec<&str> = asked.head.trim_end().lines().filter(is_kept).collect();
    let mut upstream = TcpStream::connect(to).unwrap();
    upstream.write_all(format!("{}\r\nConnection: close\r\n\r\n", head.join("\r\n")).as_bytes()).unwrap();
    let mut all = Vec::new();
    upstream.read_to_end(&mut all).unwrap();
    all
}

/// A server that hands everything on to `to`, and does `deed` before the first request that begins with `line`.
pub(crate) fn interrupted(to: &str, line: String, deed: impl FnOnce() + Send + 'static) -> Scripted {
    let (to, deed) = (to.to_owned(), Mutex::new(Some(deed)));
    Scripted::answering(move |asked| {
        if asked.line().starts_with(&line) {
            let deed = deed.lock().unwrap().take();
            if let Some(deed) = deed {
                deed();
            }
        }
        handed_on(asked, &to)
    })
}

/// A challenge for a token of this realm.
pub(crate) fn challenge(realm: &str, scope: &str) -> Vec<u8> {
    let fields = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"hub\",scope=\"{scope}\"\r\n");
    answer(401, &fields, "{}")
}
