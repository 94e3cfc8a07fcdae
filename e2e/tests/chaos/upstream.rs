// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Another registry, which the replicas mirror: the reference implementation, on files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use stowage_e2e::history::Mirror;
use stowage_e2e::{command, free_port, load, tool, until};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::line::Line;
use crate::program::{Program, User};

const PATIENCE: Duration = Duration::from_mins(1);
/// What the replicas put before the names of its repositories.
const PATH: &str = "mirror/";
/// The virtual repository that has them too.
const ALIAS: &str = "all/";

/// The resources by which it is mirrored.
const RESOURCES: &str = "\
---
apiVersion: stowage.dev/v1alpha1
kind: Mirror
metadata: {name: mirror}
spec:
  registryRef: {name: main}
  path: mirror
  mode: PullThrough
  upstream: {url: 'http://127.0.0.1:@UPSTREAM@', network: Any}
  cache: {tagTTL: 1s, negativeTTL: 1s}
---
apiVersion: stowage.dev/v1alpha1
kind: VirtualRepository
metadata: {name: all}
spec:
  registryRef: {name: main}
  path: all
  members:
  - {name: team, repository: team}
  - {name: mirror, mirrorRef: {name: mirror}}
";

/// What is promised of its copies. A tag is compared when a second has passed; whoever asks for it waits five seconds
/// at most for a replica that has died while it asked, and after ten another one asks.
pub(crate) fn promise() -> Mirror {
    Mirror {
        path: PATH.to_owned(),
        staleness: Duration::from_secs(17),
        settling: SETTLING,
        // Over a line that is dead without a word an answer is awaited for half a minute.
        recovery: Duration::from_secs(32),
    }
}

/// A client may have the last bytes a moment before they are stored.
pub(crate) const SETTLING: Duration = Duration::from_secs(2);

/// The server, the line to it, and whoever waits that nobody pushes to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) line: Line,
    pub(crate) server: Mutex<Server>,
    address: String,
    quiet: Arc<Mutex<()>>,
}

impl Upstream {
    /// A new one without content, that answers.
    pub(crate) async fn start_new(folder: &Path) -> Result<Self> {
        let mut server = Server { folder: folder.join("upstream"), port: free_port()?, running: None };
        fs::create_dir_all(&server.folder).context("make the folder of the upstream")?;
        server.start().await?;
        let (line, address) = (Line::to(server.port).await?, server.address());
        Ok(Self { line, server: Mutex::new(server), address, quiet: Arc::default() })
    }

    /// The resources by which it is mirrored.
    pub(crate) fn resources(&self) -> String {
        RESOURCES.replace("@UPSTREAM@", &self.line.port().to_string())
    }

    /// What clients do with it.
    pub(crate) fn load(&self) -> load::Upstream {
        load::Upstream {
            address: self.address.clone(),
            path: PATH.to_owned(),
            alias: ALIAS.to_owned(),
            repositories: ["app", "lib/web"].map(|name| format!("{PATH}{name}")).to_vec(),
            quiet: Arc::clone(&self.quiet),
        }
    }

    /// Lets the server crash, and starts it again after a while. What is pushed meanwhile waits.
    pub(crate) async fn crash(&self, time: Duration) -> Result<()> {
        let (_quiet, mut server) = (self.quiet.lock().await, self.server.lock().await);
        server.crash().await?;
        tokio::time::sleep(time).await;
        server.start().await
    }
}

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
    running: Option<Program>,
}

impl Server {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it; returns when it answers.
    async fn start(&mut self) -> Result<()> {
        let settings = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": self.folder.join("data") } },
            "http": { "addr": self.address(), "secret": "of the test" },
        });
        let file = self.folder.join("settings.yaml");
        // Every JSON document is a YAML document.
        fs::write(&file, settings.to_string()).context("write the settings of the upstream")?;
        let mut serve = command(tool("registry")?);
        serve.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(file);
        let log = self.folder.with_extension("log");
        self.running = Some(Program::start("upstream", &serve, User::Own, &log)?);
        let address = self.address();
        until("the upstream", PATIENCE, async || Ok(TcpStream::connect(&address).await.ok())).await.map(drop)
    }

    /// Ends it where it stands.
    async fn crash(&mut self) -> Result<()> {
        if let Some(mut program) = self.running.take() {
            program.signal(Signal::KILL)?;
            program.ended(PATIENCE).await?;
        }
        Ok(())
    }
}
