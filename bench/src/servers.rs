// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The processes of a benchmark: registries, the S3 server, Postgres.
//!
//! Guarantees: everything listens on 127.0.0.1 only, and ends with the value that stands for it; when the
//! benchmark itself is killed, the kernel ends what it started.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_sdk_s3 as s3;
use aws_sdk_s3::presigning::PresigningConfig;
use hyper::{Method, StatusCode};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::net::TcpStream;

use crate::load::Connection;
use crate::scene::Ground;
use crate::stowage::Stowage;
use crate::tls::Tls;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOPBACK: &str = "127.0.0.1";
/// The database of a registry.
pub(crate) const DATABASE: &str = "postgres";
pub(crate) const ACCESS_KEY: &str = "stowage-bench";
pub(crate) const SECRET_KEY: &str = "stowage-bench-secret";

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stop: Signal,
    log: PathBuf,
}

impl Process {
    fn start(mut command: Command, stop: Signal, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in the terminal is for the benchmark, which then ends the servers.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, stop, log })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Asks until there is an answer; fails when the process has ended or time is up.
    async fn until<T>(&mut self, ask: impl AsyncFn() -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{status} at the start: {}", self.last_words());
            }
            if Instant::now() > end {
                bail!("no answer within {PATIENCE:?}: {}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once it is waited for, its id may be another's.
        let runs = matches!(self.child.try_wait(), Ok(None));
        if runs && kill_process(self.pid(), self.stop).is_ok() {
            drop(self.child.wait());
        }
    }
}

/// A command that is ended by the kernel when the benchmark dies without ending it, and that no setting of
/// the caller's environment reaches.
pub(crate) fn guarded(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

pub(crate) fn free_address() -> Result<String> {
    let listener = TcpListener::bind((LOOPBACK, 0)).context("find a free port")?;
    Ok(format!("{LOOPBACK}:{}", listener.local_addr()?.port()))
}

pub(crate) fn folder(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

pub(crate) fn write(path: PathBuf, text: &str) -> Result<PathBuf> {
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) stowage: PathBuf,
    pub(crate) distribution: PathBuf,
    pub(crate) docker_registry: PathBuf,
    pub(crate) versitygw: PathBuf,
}

/// The S3 server: a folder seen through versitygw.
#[derive(Debug)]
pub(crate) struct S3 {
    process: Process,
    folder: PathBuf,
    address: String,
}

impl S3 {
    pub(crate) async fn start(programs: &Programs, scratch: &Path) -> Result<Self> {
        let folder = folder(scratch.join("s3"))?;
        let address = free_address()?;
        let mut serve = guarded(&programs.versitygw, None);
        serve
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .args(["--keep-alive", "--quiet", "--port", &address, "posix"])
            .arg(&folder);
        let mut process = Process::start(serve, Signal::KILL, scratch.join("s3.log"))?;
        process.until(async || TcpStream::connect(&address).await.ok()).await.context("start versitygw")?;
        Ok(Self { process, folder, address })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// How anybody can get and put an object of this key.
    pub(crate) async fn presigned(&self, bucket: &str, key: &str) -> Result<Presigned> {
        let config = s3::config::Config::builder()
            .behavior_version(s3::config::BehaviorVersion::v2026_01_12())
            .region(s3::config::Region::from_static("us-east-1"))
            .credentials_provider(s3::config::Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "bench"))
            .endpoint_url(format!("http://{}", self.address))
            .request_checksum_calculation(s3::config::RequestChecksumCalculation::WhenRequired)
            .force_path_style(true);
        let client = s3::Client::from_conf(config.build());
        let signing = PresigningConfig::expires_in(Duration::from_mins(10))?;
        let get = client.get_object().bucket(bucket).key(key).presigned(signing.clone()).await?;
        let put = client.put_object().bucket(bucket).key(key).presigned(signing).await?;
        let target = |url: &str| {
            let target = url.strip_prefix("http://").and_then(|url| url.strip_prefix(&self.address));
            target.map(ToOwned::to_owned).with_context(|| format!("{url} is no URL of the S3 server"))
        };
        let (get, put) = (target(get.uri())?, target(put.uri())?);
        Ok(Presigned { address: self.address.clone(), get, put })
    }

    /// Makes an empty bucket, and says where it lies: in versitygw's posix backend a bucket is a folder.
    pub(crate) fn create_bucket(&self, name: &str) -> Result<PathBuf> {
        folder(self.folder.join(name))
    }
}

/// How an object is reached by those who have no credentials.
#[derive(Clone, Debug)]
pub(crate) struct Presigned {
    pub(crate) address: String,
    /// Path and query of a `GET`.
    pub(crate) get: String,
    /// Path and query of a `PUT`.
    pub(crate) put: String,
}

/// A private Postgres as it comes: no setting that trades safety for speed.
#[derive(Debug)]
pub(crate) struct Postgres {
    process: Process,
    address: String,
    url: String,
}

impl Postgres {
    const PASSWORD: &str = "stowage-bench";

    pub(crate) async fn start(scratch: &Path) -> Result<Self> {
        let home = folder(scratch.join("postgres"))?;
        let data = home.join("data");
        let password = write(home.join("password"), Self::PASSWORD)?;
        let user = geteuid().is_root().then_some("postgres");
        if let Some(user) = user {
            let (uid, gid) = (id("-u", user)?, id("-g", user)?);
            chown(&home, Some(uid), Some(gid)).context("give Postgres its folder")?;
        }
        let mut initdb = guarded(&program("initdb")?, user);
        initdb.current_dir(&home).arg("--pwfile").arg(password).arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]);
        run(&mut initdb)?;

        let address = free_address()?;
        let (host, port) = address.split_once(':').expect("an address has a port");
        let mut serve = guarded(&program("postgres")?, user);
        serve.current_dir(&home).arg("-D").arg(&data).args([
            "-c",
            &format!("listen_addresses={host}"),
            "-c",
            &format!("port={port}"),
            "-c",
            "unix_socket_directories=",
        ]);
        // An immediate shutdown: it leaves nothing behind but the folder, which goes too.
        let mut process = Process::start(serve, Signal::QUIT, scratch.join("postgres.log"))?;
        let is_ready = program("pg_isready")?;
        process
            .until(async || {
                let mut ask = Command::new(&is_ready);
                ask.args(["--quiet", "--host", host, "--port", port]);
                ask.status().ok()?.success().then_some(())
            })
            .await
            .context("start Postgres")?;
        let url = Self::url_at(&address, DATABASE);
        Ok(Self { process, address, url })
    }

    /// The URL of a database that is reached by an address.
    pub(crate) fn url_at(address: &str, database: &str) -> String {
        format!("postgres://postgres:{}@{address}/{database}?sslmode=disable", Self::PASSWORD)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

fn id(flag: &str, user: &str) -> Result<u32> {
    let output = Command::new("id").args([flag, user]).output().context("ask for the user postgres")?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("there is no user postgres")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A program of the newest Postgres that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("find Postgres: `tools/packages` installs it")?;
    let newest = versions
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .context("no version of Postgres is installed")?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin/{name}")))
}

/// What a registry keeps its content in.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// A folder.
    Filesystem(PathBuf),
    /// A bucket behind an endpoint (`host:port`).
    S3 { endpoint: String, bucket: String },
}

/// The registries that the benchmark starts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stowage,
    Distribution,
    /// distribution 2.8, as Debian 12 has it.
    DockerRegistry,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Stowage, Self::Distribution, Self::DockerRegistry];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stowage => "stowage",
            Self::Distribution => "distribution",
            Self::DockerRegistry => "docker-registry",
        }
    }

    pub(crate) fn program(self, programs: &Programs) -> &Path {
        match self {
            Self::Stowage => &programs.stowage,
            Self::Distribution => &programs.distribution,
            Self::DockerRegistry => &programs.docker_registry,
        }
    }

    /// Whether it is given blobs of a gibibyte and pushed large layers. Release 2.8 of distribution takes minutes to put a
    /// gibibyte together on S3, and ten seconds for 64 MiB.
    pub(crate) fn takes_large(self, ground: Ground) -> bool {
        self != Self::DockerRegistry || ground == Ground::Filesystem
    }
}

/// A registry that runs.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) process: Process,
    pub(crate) address: String,
    /// From the start of the process to its first answer.
    pub(crate) started_in: Duration,
}

impl Registry {
    /// Starts a registry; returns when it answers. Its files and its log go to `home`.
    pub(crate) async fn start(
        kind: Kind,
        programs: &Programs,
        storage: &Storage,
        database: Option<&str>,
        home: &Path,
    ) -> Result<Self> {
        Self::start_over(None, kind, programs, storage, database, home).await
    }

    /// The same, over TLS if there is one.
    pub(crate) async fn start_over(
        tls: Option<&Tls>,
        kind: Kind,
        programs: &Programs,
        storage: &Storage,
        database: Option<&str>,
        home: &Path,
    ) -> Result<Self> {
        let home = folder(home.to_owned())?;
        let address = free_address()?;
        let command = match kind {
            Kind::Stowage => {
                let stowage = Stowage::prepare(tls, programs, storage, database, &home, &address, None)?;
                if matches!(storage, Storage::S3 { .. }) {
                    // On a thread of its own: the way to the database may lead through this one.
                    let migrating = stowage.clone();
                    tokio::task::spawn_blocking(move || migrating.run(&["migrate"])).await??;
                }
                stowage.serve()?
            }
            Kind::Distribution | Kind::DockerRegistry => {
                distribution(tls, kind.program(programs), storage, &home, &address)?
            }
        };
        Self::from_command(tls, command, &home, address).await.with_context(|| format!("start {kind:?}"))
    }

    /// Starts a command that serves at the address, over TLS if there is one; returns when it answers.
    pub(crate) async fn from_command(
        tls: Option<&Tls>,
        command: Command,
        home: &Path,
        address: String,
    ) -> Result<Self> {
        let begun = Instant::now();
        let mut process = Process::start(command, Signal::KILL, home.join("log"))?;
        process.until(async || answers(tls, &address).await).await?;
        Ok(Self { process, address, started_in: begun.elapsed() })
    }
}

/// Some registries invite to log in at `/v2/` even where nobody has to.
async fn answers(tls: Option<&Tls>, address: &str) -> Option<()> {
    let mut connection = Connection::open_over(tls, address).await.ok()?;
    let answer = connection.with(async |client| client.send(Method::GET, "/v2/").await).await.ok()?;
    [StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&answer.status()).then_some(())
}

/// distribution, of either release, with the settings of its own example, less what costs it time: access log and tracing are
/// off, and content goes through the registry, as it does with Stowage.
fn distribution(
    tls: Option<&Tls>,
    program: &Path,
    storage: &Storage,
    home: &Path,
    address: &str,
) -> Result<Command> {
    let driver = match storage {
        Storage::Filesystem(folder) => serde_json::json!({ "filesystem": { "rootdirectory": folder } }),
        Storage::S3 { endpoint, bucket } => serde_json::json!({
            "s3": {
                "accesskey": ACCESS_KEY, "secretkey": SECRET_KEY, "region": "us-east-1",
                "regionendpoint": format!("http://{endpoint}"), "forcepathstyle": true, "secure": false,
                "bucket": bucket,
            },
            "redirect": { "disable": true },
        }),
    };
    let mut settings = serde_json::json!({
        "version": 0.1,
        "log": { "level": "error", "accesslog": { "disabled": true } },
        "storage": { "delete": { "enabled": true }, "cache": { "blobdescriptor": "inmemory" } },
        "http": { "addr": address, "secret": "of the benchmark" },
    });
    for (name, value) in driver.as_object().into_iter().flatten() {
        settings["storage"][name] = value.clone();
    }
    if let Some(tls) = tls {
        let certificate = write(home.join("tls.crt"), &tls.certificate)?;
        let key = write(home.join("tls.key"), &tls.key)?;
        settings["http"]["tls"] = serde_json::json!({ "certificate": certificate, "key": key });
    }
    // Every JSON document is a YAML document.
    let path = write(home.join("config.yaml"), &settings.to_string())?;
    let mut serve = guarded(program, None);
    serve.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(path);
    Ok(serve)
}
