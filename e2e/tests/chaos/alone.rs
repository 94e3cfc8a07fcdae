// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry without database server or S3 server, on a disk of its own that can be filled.
//!
//! The disk is a file system in memory that only a process which does nothing has mounted: it is reached through that
//! one, goes with it, and needs no rights of root.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use stowage_e2e::history::{Part, Policy, Recorder};
use stowage_e2e::load::{Load, Odds};
use stowage_e2e::{binary, command, succeed, until};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::program::{Program, User};
use crate::site::Replica;

const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: usize = 4 << 10;

/// The registry, and the book of what happens to it.
#[derive(Debug)]
pub(crate) struct Alone {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) replica: Replica,
    disk: Disk,
    folder: TempDir,
}

impl Alone {
    /// Starts it on a disk of so many MiB; returns when it is ready.
    pub(crate) async fn start(mebibytes: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stowage-alone-").tempdir().context("make a folder")?;
        let disk = Disk::mount(folder.path(), mebibytes).await?;
        let replica = Replica::new(0, folder.path(), disk.data())?.started_by(&disk.entrance());
        replica.start().await?;
        let policy = Policy { recovery: Duration::from_secs(5), blob_grace: None, mirror: None };
        Ok(Self { recorder: Arc::new(Recorder::start(policy)), replica, disk, folder })
    }

    /// What clients do here.
    pub(crate) fn load(&self, seed: u64) -> Load {
        Load {
            seed,
            clients: 6,
            repositories: ["app", "team/web"].map(str::to_owned).to_vec(),
            tags: 8,
            replicas: vec![self.replica.address().to_owned()],
            login: None,
            patience: Duration::from_mins(1),
            timeout: Duration::from_secs(30),
            odds: Odds { large_layer: 0.01, crash: 0.02 },
            out_of_service: Arc::default(),
            upstream: None,
        }
    }

    /// Does something while there is no room for a byte.
    pub(crate) async fn while_full(&self, deed: impl Future<Output = Result<()>>) -> Result<()> {
        let outage = self.recorder.outage(Part::Room, "the disk is full");
        let filling = async {
            loop {
                self.disk.fill()?;
                // What was under way is given up, and leaves room again.
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            done = deed => done?,
            failed = filling => return failed,
        }
        self.disk.free()?;
        self.recorder.over(outage);
        Ok(())
    }

    /// That database and bucket agree, object by object.
    pub(crate) async fn verify(&self) -> Result<()> {
        let entrance = self.disk.entrance();
        let mut verify = command(&entrance[0]);
        verify.args(&entrance[1..]).arg(binary("stowage-registry")?);
        verify.args(["--log-format", "text", "verify"]).args(self.disk.data());
        // It is refused until all is compared that was written before the last start.
        until("a verification that finds nothing", PATIENCE, async || succeed(&mut verify).await.map(Some))
            .await
            .map(drop)
    }

    /// Keeps what is needed to see what went wrong, and says where.
    pub(crate) fn keep(self) -> Result<PathBuf> {
        self.recorder.history().keep(&self.folder.path().join("history.jsonl"))?;
        Ok(self.folder.keep())
    }
}

/// A disk.
#[derive(Debug)]
struct Disk {
    /// Where its holder has it.
    mounted: PathBuf,
    /// Where everybody finds it.
    path: PathBuf,
    holder: u32,
    _holds: Program,
}

impl Disk {
    async fn mount(folder: &Path, mebibytes: u32) -> Result<Self> {
        let at = folder.join("disk");
        fs::create_dir(&at).context("make the place of the disk")?;
        let mut holder = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            holder.args(["--user", "--map-root-user"]);
        }
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m disk \"$0\" && touch \"$0/mounted\" && exec sleep infinity"
        );
        holder.args(["--mount", "sh", "-c", &script]).arg(&at);
        let holder = Program::start("disk", &holder, User::Own, &folder.join("disk.log"))?;
        let pid = holder.pid().context("nobody holds the disk")?;
        let path = PathBuf::from(format!("/proc/{pid}/root"))
            .join(at.strip_prefix("/").context("a path from the root")?);
        until("the disk", PATIENCE, async || Ok(path.join("mounted").is_file().then_some(()))).await?;
        Ok(Self { mounted: at, path, holder: pid, _holds: holder })
    }

    /// Where the registry's data is, to whoever has entered.
    fn data(&self) -> Vec<OsString> {
        vec!["--data-dir".into(), self.mounted.join("data").into()]
    }

    /// What starts a program where the disk is mounted.
    fn entrance(&self) -> Vec<OsString> {
        let mut entrance: Vec<OsString> =
            ["nsenter", "--target", &self.holder.to_string(), "--mount"].map(OsString::from).to_vec();
        if !rustix::process::geteuid().is_root() {
            entrance.extend(["--user", "--preserve-credentials"].map(OsString::from));
        }
        entrance
    }

    /// Takes all the room that is left.
    fn fill(&self) -> Result<()> {
        let ballast = OpenOptions::new().create(true).append(true).open(self.path.join("ballast"));
        match ballast.and_then(write_for_ever) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            other => other.map(|never| match never {}).context("fill the disk"),
        }
    }

    fn free(&self) -> Result<()> {
        fs::remove_file(self.path.join("ballast")).context("make room")
    }
}

fn write_for_ever(mut to: File) -> std::io::Result<Infallible> {
    let piece = vec![0; PIECE];
    loop {
        to.write_all(&piece)?;
    }
}

/// Fills the disk again and again until `end`; each second time the registry is killed meanwhile.
pub(crate) async fn fill_again_and_again(alone: &Alone, end: Instant) -> Result<usize> {
    let mut episodes = 0;
    while Instant::now() < end {
        sleep(Duration::from_secs(2)).await;
        if episodes % 2 == 0 {
            let waits = async {
                sleep(Duration::from_secs(2)).await;
                Ok(())
            };
            alone.while_full(waits).await?;
        } else {
            let outage = alone.recorder.outage(Part::Replica(0), "it is killed");
            alone.while_full(alone.replica.kill()).await?;
            alone.replica.start().await?;
            alone.recorder.over(outage);
        }
        episodes += 1;
    }
    Ok(episodes)
}
