// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A program that runs on the machine's loopback, and ends with its guard or with the thread that started it.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use stowage_e2e::command;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Who the program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Who runs the test.
    Own,
    /// `postgres`, if root runs the test: the server refuses root.
    Postgres,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts it; what it prints is appended to `log`.
    pub(crate) fn start(name: &str, program: &Command, user: User, log: &Path) -> Result<Self> {
        let log = log_file(log)?;
        let mut guarded = wrap(program, user, &["--pdeathsig=KILL"]);
        guarded.stdout(log.try_clone().context("share the log")?).stderr(log).kill_on_drop(true);
        let child = guarded.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its number, if it still runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal, if it still runs.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.child.id() else { return Ok(()) };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Result<ExitStatus> {
        let ended = timeout(patience, self.child.wait()).await;
        ended
            .with_context(|| format!("{} did not end in {patience:?}", self.name))?
            .context("wait for its end")
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("look whether it ended")
    }
}

/// The program, run by `setpriv` as somebody.
pub(crate) fn wrap(program: &Command, user: User, options: &[&str]) -> Command {
    let mut wrapped = command("setpriv");
    wrapped.args(options);
    if user == User::Postgres && rustix::process::geteuid().is_root() {
        wrapped.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).current_dir("/");
    }
    wrapped.arg("--").arg(program.as_std().get_program()).args(program.as_std().get_args());
    for (name, value) in program.as_std().get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

fn log_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}
