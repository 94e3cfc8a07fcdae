// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Processes of a cluster: started into its cgroup, recorded, and ended by what was recorded.
//!
//! A record holds the process id *and* the time the process started, so that a recycled id is never taken for ours.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::cgroup::Cgroup;
use crate::state::State;
use crate::tools;
use crate::wait::until;

/// A command that finds the pinned tools first, and whose error output is worth reading.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", tools::search_path()).stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns what it printed; its error output is the error when it fails.
pub async fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().await.with_context(|| format!("run {:?}", command.as_std()))?;
    if !output.status.success() {
        bail!("{:?}: {}\n{}", command.as_std(), output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("read its output")
}

/// A process that was started for a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: i32,
    started: u64,
}

impl Process {
    /// Starts `program` in the cluster's cgroup, with its output in the cluster's logs, and records it.
    pub(crate) fn start(state: &State, name: &str, command: &Command) -> Result<Self> {
        let log = log_file(state, name)?;
        let mut wrapped = crate::process::command("sh");
        wrapped
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(Cgroup::of(state)?.processes_file())
            .arg(command.as_std().get_program())
            .args(command.as_std().get_args());
        for (key, value) in command.as_std().get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(folder) = command.as_std().get_current_dir() {
            wrapped.current_dir(folder);
        }
        let child = wrapped
            .process_group(0)
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = child.id().context("the process ended at once")?;
        let pid = i32::try_from(pid).context("read its process id")?;
        let process = Self {
            name: name.to_owned(),
            pid,
            started: started(pid).with_context(|| format!("{name} ended at once"))?,
        };
        process.record(state)?;
        Ok(process)
    }

    /// What it is: where there are several, it stands behind that which tells them apart.
    pub(crate) fn program(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// The processes that were recorded for a cluster, in the order of their start.
    pub(crate) fn recorded(state: &State) -> Result<Vec<Self>> {
        match fs::read_to_string(state.processes()) {
            Ok(text) => text.lines().map(Self::parse).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context("read the record of processes"),
        }
    }

    fn record(&self, state: &State) -> Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(state.processes())
            .context("open the record of processes")?;
        writeln!(file, "{} {} {}", self.name, self.pid, self.started).context("record a process")
    }

    fn parse(line: &str) -> Result<Self> {
        let mut fields = line.split(' ');
        let mut next = || fields.next().with_context(|| format!("incomplete record {line:?}"));
        Ok(Self {
            name: next()?.to_owned(),
            pid: next()?.parse().context("read a recorded process id")?,
            started: next()?.parse().context("read a recorded start time")?,
        })
    }

    /// Whether it still runs. One that has ended but was not yet waited for does not.
    pub(crate) fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Signals it and waits for its end; kills it when patience runs out.
    pub(crate) async fn end(&self, signal: Signal, patience: Duration) -> Result<()> {
        self.signal(signal)?;
        let ended = async || Ok((!self.is_alive()).then_some(()));
        if until(&self.name, patience, ended).await.is_ok() {
            return Ok(());
        }
        self.signal(Signal::KILL)?;
        until(&format!("the end of {}", self.name), Duration::from_secs(30), ended).await
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill_process(Pid::from_raw(self.pid).context("not a process id")?, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signal {}", self.name)),
        }
    }
}

fn log_file(state: &State, name: &str) -> Result<File> {
    let log = state.log(name);
    let folder = log.parent().context("a log lies in a folder")?;
    fs::create_dir_all(folder).context("make the folder of logs")?;
    OpenOptions::new().create(true).append(true).open(&log).with_context(|| format!("open the log of {name}"))
}

/// When a process started, in the kernel's ticks; `None` when there is no such process, or only its corpse.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?; // the name may hold spaces and parentheses
    let fields: Vec<&str> = after_name.split(' ').collect();
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_a_start_time_and_one_that_does_not_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started(own).is_some());
        assert_eq!(started(i32::MAX), None);
    }

    #[test]
    fn a_recycled_process_id_is_not_taken_for_ours() {
        let own = i32::try_from(std::process::id()).unwrap();
        let other = Process { name: "other".to_owned(), pid: own, started: started(own).unwrap() - 1 };
        assert!(!other.is_alive());
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path()).unwrap();
        let process = Process { name: "etcd".to_owned(), pid: 7, started: 99 };
        process.record(&state).unwrap();
        assert_eq!(Process::recorded(&state).unwrap(), vec![process]);
    }
}
