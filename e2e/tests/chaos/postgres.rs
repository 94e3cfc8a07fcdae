// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! PostgreSQL servers: restarted, crashing, and followed by standbys that take over.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use stowage_e2e::{command, free_port, succeed, until};
use tokio::process::Command;

use crate::program::{Program, User, wrap};

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

    /// A copy of the server that listens on `port`, which follows that one through the same port and answers.
    pub(crate) async fn start_following(folder: &Path, port: u16) -> Result<Self> {
        let mut server = Self::in_folder(folder)?;
        let mut copy = Command::new(program("pg_basebackup")?);
        copy.args(["--host=127.0.0.1", "--username=postgres", "--checkpoint=fast", "--wal-method=stream"])
            .args(["--write-recovery-conf", "--no-sync", "--port", &port.to_string(), "--pgdata"])
            .arg(server.data());
        succeed(&mut wrap(&copy, User::Postgres, &[])).await?;
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
            "wal_keep_size=256MB",
            "wal_retrieve_retry_interval=100ms",
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

    /// How far its log has come, or what it has received of another's: bytes.
    pub(crate) async fn position(&self) -> Result<u64> {
        let position =
            "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END";
        let bytes = self.ask(&format!("SELECT coalesce({position} - '0/0', 0)")).await?;
        bytes.trim().parse().context("read the position in the log")
    }

    /// Follows nobody any more, and takes writes.
    pub(crate) async fn promote(&self) -> Result<()> {
        let promoted = self.ask("SELECT pg_promote()").await?;
        anyhow::ensure!(promoted.trim() == "t", "the standby was not promoted");
        Ok(())
    }

    /// What the server prints for a statement.
    pub(crate) async fn ask(&self, statement: &str) -> Result<String> {
        ask(self.port, statement).await
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

/// What the server that is reached by `port` prints for a statement.
pub(crate) async fn ask(port: u16, statement: &str) -> Result<String> {
    let mut psql = command("psql");
    psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--host=127.0.0.1"])
        .args(["--username=postgres", "--port", &port.to_string(), "--dbname=postgres"])
        .args(["--command", statement])
        .kill_on_drop(true);
    succeed(&mut psql).await
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("find PostgreSQL: `tools/packages` installs it")?;
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.context("no version of PostgreSQL is installed")?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin/{name}")))
}
