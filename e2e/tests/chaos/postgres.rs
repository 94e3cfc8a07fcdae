// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A PostgreSQL server that is restarted and crashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use stowage_e2e::{command, succeed, until};
use tokio::process::Command;

use crate::program::{Program, User, free_port, wrap};

const PATIENCE: Duration = Duration::from_mins(1);
const OWNER: &str = "postgres";

/// A server and its data.
#[derive(Debug)]
pub(crate) struct Postgres {
    folder: PathBuf,
    port: u16,
    running: Option<Program>,
}

impl Postgres {
    /// A new server without data but its own, that answers.
    pub(crate) async fn start_new(folder: &Path) -> Result<Self> {
        let mut server = Self::in_folder(folder)?;
        let mut initdb = Command::new(program("initdb")?);
        initdb
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--pgdata",
            ])
            .arg(server.data());
        succeed(&mut wrap(&initdb, User::Postgres, &[])).await?;
        server.start().await?;
        Ok(server)
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context("make the folder of Postgres")?;
        if rustix::process::geteuid().is_root() {
            let owned = std::process::Command::new("chown").arg(OWNER).arg(folder).status();
            anyhow::ensure!(owned.context("run chown")?.success(), "give Postgres its folder");
        }
        Ok(Self { folder: folder.to_owned(), port: free_port()?, running: None })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it; returns when it answers.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let mut server = Command::new(program("postgres")?);
        server.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=200",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=64MB",
        ] {
            server.args(["-c", setting]);
        }
        self.running = Some(Program::start("postgres", &server, User::Postgres, &self.log())?);
        until("Postgres to answer", PATIENCE, async || self.ask("SELECT 1").await.map(Some)).await.map(drop)
    }

    /// Ends it as an administrator would who does not wait for clients.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.end(Signal::INT).await
    }

    /// Ends it at once, as a crash would: what was committed is in its log.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        self.end(Signal::QUIT).await
    }

    async fn end(&mut self, signal: Signal) -> Result<()> {
        if let Some(mut program) = self.running.take() {
            program.signal(signal)?;
            program.ended(PATIENCE).await?;
        }
        Ok(())
    }

    /// What the server prints for a statement.
    pub(crate) async fn ask(&self, statement: &str) -> Result<String> {
        let mut psql = command("psql");
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1", "--username=postgres"])
            .arg(format!("--port={}", self.port))
            .args(["--dbname=postgres", "--command", statement]);
        succeed(&mut psql).await
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("find PostgreSQL: `tools/packages` installs it")?;
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.context("no version of PostgreSQL is installed")?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin/{name}")))
}
