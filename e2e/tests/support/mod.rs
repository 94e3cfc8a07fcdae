// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Servers that a test starts for itself on the machine's loopback. They end with their guard.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stowage_e2e::{binary, command, free_port, succeed, tool, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_mins(1);

/// The only user of a private registry, and the password.
pub(crate) const USER: [&str; 2] = ["alice", "secret"];

/// The embedded registry: files and SQLite in a temporary folder.
pub(crate) struct Registry {
    host: String,
    _process: Child,
    data: TempDir,
}

impl Registry {
    /// Starts a registry that everybody may pull from and push to; returns when it answers.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_at(free_address()?, &[]).await
    }

    /// Starts a registry that serves nobody but [`USER`].
    pub(crate) async fn start_private(folder: &Path) -> Result<Self> {
        let host = free_address()?;
        let (config, secrets) = (folder.join("private.yaml"), folder.join("secrets"));
        fs::write(&config, private(&host)).context("write the configuration")?;
        fs::create_dir_all(secrets.join("users")).context("make the folder of the Secret")?;
        fs::write(secrets.join("users/htpasswd"), HTPASSWD).context("write the Secret")?;
        let flags = [Path::new("--config"), &config, Path::new("--secrets-dir"), &secrets];
        Self::start_at(host, &flags).await
    }

    async fn start_at(host: String, flags: &[&Path]) -> Result<Self> {
        let data = tempfile::tempdir().context("make the data folder")?;
        let mut serve = command(binary("stowage-registry")?);
        serve
            .env("STOWAGE_LOG", "warn")
            .arg("serve")
            .args(["--listen", &host, "--data-dir"])
            .arg(data.path())
            .args(flags);
        for flag in ["--ops-listen", "--admin-listen"] {
            serve.args([flag, &free_address()?]);
        }
        let process = serve.kill_on_drop(true).spawn().context("start the registry")?;
        until("the registry", PATIENCE, async || Ok(TcpStream::connect(&host).await.ok())).await?;
        Ok(Self { host, _process: process, data })
    }

    /// Where it listens.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A command of the program beside it, as `export`.
    pub(crate) fn beside(&self, name: &str) -> Result<Command> {
        let mut beside = command(binary("stowage-registry")?);
        beside.env("STOWAGE_LOG", "warn").arg(name).arg("--data-dir").arg(self.data.path());
        Ok(beside)
    }
}

/// What `htpasswd -B` makes of [`USER`], with little work.
const HTPASSWD: &str = "alice:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn private(host: &str) -> String {
    format!(
        r#"
apiVersion: stowage.dev/v1alpha1
kind: Registry
metadata: {{name: main}}
spec:
  externalURL: http://{host}
  storage: {{filesystem: {{}}}}
  database: {{sqlite: {{}}}}
  auth:
    htpasswd: {{secretRef: {{name: users, key: htpasswd}}}}
---
apiVersion: stowage.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: users}}
spec:
  registryRef: {{name: main}}
  repositories: ["**"]
  subjects: [{{user: {user}}}]
  actions: [Pull, Push]
"#,
        user = USER[0],
    )
}

/// A Docker engine of its own: no network, its data in a temporary folder.
pub(crate) struct Docker {
    folder: TempDir,
    engine: Child,
}

impl Docker {
    /// Starts the engine that `tools/packages` unpacked; returns when it answers.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("make the engine's folder")?;
        let at = |name: &str| folder.path().join(name);
        let mut dockerd = command(unpacked("sbin/dockerd")?);
        dockerd
            .env("PATH", search_path()?)
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"])
            .args(["--insecure-registry=127.0.0.0/8", "--log-level=warn"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(format!("unix://{}", at("socket").display()))
            .stdout(Stdio::null());
        let engine = dockerd.spawn().context("start dockerd")?;
        let docker = Self { folder, engine };
        until("the Docker engine", PATIENCE, async || {
            succeed(docker.client().arg("version")).await.map(Some)
        })
        .await?;
        Ok(docker)
    }

    /// The classic client, talking to this engine.
    pub(crate) fn client(&self) -> Command {
        let mut docker = command(unpacked("bin/docker").unwrap_or_else(|_| PathBuf::from("docker")));
        let socket = format!("unix://{}", self.folder.path().join("socket").display());
        docker.env("DOCKER_HOST", socket).env("DOCKER_CONFIG", self.folder.path());
        docker
    }
}

impl Drop for Docker {
    /// The engine ends its own containerd when it is asked to end, not when it is killed.
    fn drop(&mut self) {
        if let Some(pid) = self.engine.id() {
            let ended = std::process::Command::new("sh")
                .args(["-c", "kill \"$1\" && for i in $(seq 100); do kill -0 \"$1\" 2>/dev/null || exit 0; sleep 0.1; done", "sh"])
                .arg(pid.to_string())
                .status();
            assert!(ended.is_ok(), "the Docker engine was not ended");
        }
    }
}

fn unpacked(program: &str) -> Result<PathBuf> {
    let crane = tool("crane")?;
    let tools = crane.ancestors().nth(2).context("the tools lie in a folder")?;
    let path = tools.join("docker/usr").join(program);
    ensure!(path.is_file(), "{} is missing: `make tools` unpacks it", path.display());
    Ok(path)
}

/// The engine starts the containerd that was unpacked with it, and the system's runc.
fn search_path() -> Result<String> {
    let docker = unpacked("bin/docker")?;
    let bin = docker.parent().unwrap_or(Path::new("/"));
    Ok(format!("{}:{}", bin.display(), env::var("PATH").unwrap_or_default()))
}

fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}
