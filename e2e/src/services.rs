// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The servers a registry stands on, on the cluster's network: an image registry, Postgres, S3.
//!
//! They are ordinary processes of the cluster, so that a test can stop one and start it again.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Signal, geteuid};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::control_plane::kubectl;
use crate::files::{fill, write};
use crate::network::NODE_ADDRESS;
use crate::process::{Process, command, succeed};
use crate::state::State;
use crate::tools::{binary, tool};
use crate::wait::until;

/// Where the registry that nodes pull their first images from listens.
pub(crate) const REGISTRY: &str = "10.200.0.1:5000";

const PATIENCE: Duration = Duration::from_mins(1);

/// Starts the registry that nodes pull their first images from: ours, from a folder.
pub(crate) async fn start_registry(state: &State) -> Result<()> {
    fill(
        state,
        "images/config/registry.yaml",
        include_str!("../cluster/images.yaml"),
        &[("@REGISTRY@", REGISTRY)],
    )?;
    let mut serve = command(binary("stowage-registry")?);
    serve.args(["serve", "--listen", REGISTRY, "--config"]).arg(state.path("images/config"));
    serve.arg("--data-dir").arg(state.path("images/data"));
    start(state, "registry", &serve, REGISTRY).await
}

/// Starts the name server, and makes it and the other servers known to the cluster.
pub(crate) async fn start_dns(state: &State) -> Result<()> {
    fill(state, "Corefile", include_str!("../cluster/Corefile"), &[])?;
    fill(state, "services/dns.yaml", include_str!("../cluster/dns.yaml"), &[])?;
    fill(state, "services/servers.yaml", include_str!("../cluster/servers.yaml"), &[])?;
    let mut coredns = command(tool("coredns")?);
    coredns.arg("-conf").arg(state.path("Corefile"));
    start(state, "dns", &coredns, &format!("{NODE_ADDRESS}:53")).await?;
    let mut apply = kubectl(state)?;
    apply.args(["apply", "--filename"]).arg(state.path("services"));
    until("the namespace kube-system", PATIENCE, async || succeed(&mut apply).await.map(Some)).await.map(drop)
}

/// A Postgres server of a cluster.
#[derive(Clone, Debug)]
pub struct Postgres<'a> {
    state: &'a State,
    owner: &'static str,
    port: u16,
}

impl<'a> Postgres<'a> {
    const PASSWORD: &'static str = "stowage";

    /// The one that all share.
    pub(crate) fn of(state: &'a State) -> Self {
        Self { state, owner: "all", port: 5432 }
    }

    /// One that a test has for itself, and whose end is nobody else's affair. It is not started.
    pub(crate) fn of_a_test(state: &'a State, owner: &'static str, port: u16) -> Self {
        Self { state, owner, port }
    }

    /// The address of a database, as clients want it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let (password, port) = (Self::PASSWORD, self.port);
        format!("postgres://postgres:{password}@{NODE_ADDRESS}:{port}/{database}")
    }

    /// Makes an empty database.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        self.ask("postgres", &format!("CREATE DATABASE \"{name}\"")).await.map(drop)
    }

    /// What the server prints for a statement in a database.
    pub async fn ask(&self, database: &str, statement: &str) -> Result<String> {
        let mut psql = command("psql");
        psql.arg(self.url(database)).args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        succeed(psql.args(["--command", statement])).await
    }

    /// Starts the server; its data is made when there is none. Returns when it answers.
    pub async fn start(&self) -> Result<()> {
        let data = self.data();
        if !data.exists() {
            self.initialize().await?;
        }
        let mut postgres = as_postgres(program("postgres")?);
        postgres
            .arg("-D")
            .arg(&data)
            .args(["-c", &format!("listen_addresses={NODE_ADDRESS}")])
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .args(["-c", "max_connections=300"]);
        start(self.state, &self.name(), &postgres, &format!("{NODE_ADDRESS}:{}", self.port)).await?;
        until("Postgres to answer", PATIENCE, async || self.ask("postgres", "SELECT 1").await.map(Some))
            .await
            .map(drop)
    }

    /// Ends the server at once, as a crash would: what was not committed is lost, nothing else.
    pub async fn crash(&self) -> Result<()> {
        stop(self.state, &self.name(), Signal::QUIT).await
    }

    async fn initialize(&self) -> Result<()> {
        let folder = self.folder();
        fs::create_dir_all(&folder).context("make the folder of Postgres")?;
        let password = folder.join("password");
        fs::write(&password, Self::PASSWORD).context("write the password of Postgres")?;
        own(&folder).await?;
        let mut initdb = as_postgres(program("initdb")?);
        initdb
            .current_dir(&folder)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--pwfile"])
            .arg(&password)
            .arg("-D")
            .arg(self.data());
        succeed(&mut initdb).await?;
        let rules = "host all all all scram-sha-256\n";
        fs::write(self.data().join("pg_hba.conf"), rules).context("let clients in")
    }

    fn name(&self) -> String {
        format!("{}/postgres", self.owner)
    }

    fn folder(&self) -> PathBuf {
        scratch(self.state).join(self.owner)
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }
}

/// A folder that the user `postgres` can reach, wherever the state folder may be.
pub(crate) fn scratch(state: &State) -> PathBuf {
    std::env::temp_dir().join(format!("{}-postgres", state.name()))
}

/// Postgres refuses to run as root.
fn as_postgres(program: PathBuf) -> Command {
    if !geteuid().is_root() {
        return command(program);
    }
    let mut setpriv = command("setpriv");
    setpriv.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    setpriv
}

async fn own(folder: &PathBuf) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let id = async |flag: &str| -> Result<u32> {
        let printed = succeed(command("id").args([flag, "postgres"])).await?;
        printed.trim().parse().context("read an id of the user postgres")
    };
    chown(folder, Some(id("-u").await?), Some(id("-g").await?)).context("give Postgres its folder")
}

/// A server program of the newest Postgres that is installed.
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

/// An S3 server of a cluster.
#[derive(Clone, Debug)]
pub struct S3<'a> {
    state: &'a State,
    name: String,
    port: u16,
}

impl<'a> S3<'a> {
    /// The access key of its only user.
    pub const ACCESS_KEY: &'static str = "stowage";
    /// The secret key of its only user.
    pub const SECRET_KEY: &'static str = "stowage-secret";

    /// The one that all share.
    pub(crate) fn of(state: &'a State) -> Self {
        Self { state, name: "s3".to_owned(), port: 9000 }
    }

    /// One that a test has for itself, and whose end is nobody else's affair. It is not started.
    pub(crate) fn of_a_test(state: &'a State, owner: &str, port: u16) -> Self {
        Self { state, name: format!("s3-{owner}"), port }
    }

    /// The address of the server, as clients want it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Makes an empty bucket.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        fs::create_dir_all(self.bucket(name)).with_context(|| format!("make the bucket {name}"))
    }

    /// The folder that holds the objects of a bucket as files.
    #[must_use]
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Starts the server; returns when it answers.
    pub async fn start(&self) -> Result<()> {
        let folder = self.folder();
        fs::create_dir_all(&folder).context("make the folder of buckets")?;
        let mut serve = command(tool("versitygw")?);
        serve
            .env("ROOT_ACCESS_KEY", Self::ACCESS_KEY)
            .env("ROOT_SECRET_KEY", Self::SECRET_KEY)
            .args(["--keep-alive", "--quiet", "--port", &self.address(), "posix"])
            .arg(folder);
        start(self.state, &self.name, &serve, &self.address()).await
    }

    /// Ends the server at once, as a crash would.
    pub async fn crash(&self) -> Result<()> {
        stop(self.state, &self.name, Signal::KILL).await
    }

    fn folder(&self) -> PathBuf {
        self.state.path(&self.name)
    }

    fn address(&self) -> String {
        format!("{NODE_ADDRESS}:{}", self.port)
    }
}

/// Another registry in a cluster's network, that knows nothing of Stowage: the reference implementation, on files.
#[derive(Clone, Debug)]
pub struct Distribution<'a> {
    state: &'a State,
    name: String,
    port: u16,
}

impl<'a> Distribution<'a> {
    /// One that a test has for itself, and whose end is nobody else's affair. It is not started.
    pub(crate) fn of_a_test(state: &'a State, owner: &str, port: u16) -> Self {
        Self { state, name: format!("distribution-{owner}"), port }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{NODE_ADDRESS}:{}", self.port)
    }

    /// Starts it; returns when it answers.
    pub async fn start(&self) -> Result<()> {
        let settings = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": self.state.path(&self.name) } },
            "http": { "addr": self.address(), "secret": "of the test" },
        });
        let file = self.state.path(&format!("{}.yaml", self.name));
        // Every JSON document is a YAML document.
        write(&file, &settings.to_string())?;
        let mut serve = command(tool("registry")?);
        serve.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(file);
        start(self.state, &self.name, &serve, &self.address()).await
    }

    /// Ends it at once, as a crash would.
    pub async fn crash(&self) -> Result<()> {
        stop(self.state, &self.name, Signal::KILL).await
    }
}

/// Starts a server and waits until something listens at its address.
async fn start(state: &State, name: &str, command: &Command, address: &str) -> Result<()> {
    let process = Process::start(state, name, command)?;
    until(name, PATIENCE, async || {
        if !process.is_alive() {
            anyhow::bail!("{name} ended: see {}", state.log(name).display());
        }
        Ok(TcpStream::connect(address).await.ok())
    })
    .await
    .map(drop)
}

async fn stop(state: &State, name: &str, signal: Signal) -> Result<()> {
    for process in Process::recorded(state)? {
        if process.name == name {
            process.end(signal, Duration::from_secs(10)).await?;
        }
    }
    Ok(())
}
