// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The cgroup that everything of one cluster runs in, pods included.
//!
//! It is what makes "no process stays behind" certain: shims and containers that lost their parent are still in it.
//! Works with version 2, with version 1, and with the mixture of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::network::{NODES, Place};
use crate::state::State;
use crate::wait::until;

/// Where the cluster's own processes are; beside it is a cgroup a node, with the pods in its `kubepods`.
const OWN: &str = "system";

/// A cgroup, as a folder in every hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroup {
    /// The cgroup of a cluster.
    pub(crate) fn of(state: &State) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("read the mounts")?;
        Ok(Self { name: state.name(), hierarchies: hierarchies(&mounts) })
    }

    /// How the kubelet of a node names the part that its pods are in.
    pub(crate) fn path(&self, node: &Place) -> String {
        format!("/{}/{}", self.name, node.name)
    }

    /// Makes it, and a part for each node, in every hierarchy.
    pub(crate) fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.join(&self.name);
            make(hierarchy, &folder)?;
            for node in &NODES {
                make(&folder, &folder.join(node.name))?;
            }
        }
        let own = self.tracked().join(OWN);
        fs::create_dir_all(&own).with_context(|| format!("make {}", own.display()))
    }

    /// Writing a process id here puts the process into the cgroup.
    pub(crate) fn processes_file(&self) -> PathBuf {
        self.tracked().join(OWN).join("cgroup.procs")
    }

    /// Kills every process in it and removes it; nothing to do if it does not exist.
    pub(crate) async fn destroy(&self) -> Result<()> {
        let tracked = self.tracked();
        until("the end of the cluster's processes", Duration::from_secs(30), async || {
            let left = processes(&tracked)?;
            for &pid in &left {
                kill(pid)?;
            }
            Ok(left.is_empty().then_some(()))
        })
        .await?;
        for hierarchy in &self.hierarchies {
            remove(&hierarchy.join(&self.name))?;
        }
        Ok(())
    }

    /// The hierarchy whose membership counts: under version 1 a process is in one cgroup of *each*.
    fn tracked(&self) -> PathBuf {
        let preferred = self.hierarchies.iter().find(|path| path.ends_with("pids"));
        preferred
            .or(self.hierarchies.first())
            .map_or_else(|| PathBuf::from("/sys/fs/cgroup"), PathBuf::clone)
            .join(&self.name)
    }
}

/// The mount points of the hierarchies that pods are put in.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let of_type = |wanted: &str| -> Vec<PathBuf> {
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields
            .filter(|fields| fields.get(2) == Some(&wanted))
            .filter_map(|fields| fields.get(1).map(PathBuf::from))
            .collect()
    };
    let version_1 = of_type("cgroup");
    if version_1.is_empty() { of_type("cgroup2") } else { version_1 }
}

/// Makes a cgroup. Under version 1 a new cpuset is empty, and nothing can run in it.
fn make(parent: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for setting in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(setting), folder.join(setting));
        if from.exists() {
            let value = fs::read_to_string(&from).with_context(|| format!("read {}", from.display()))?;
            fs::write(&to, value).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}

/// The processes in a cgroup and those below it.
fn processes(folder: &Path) -> Result<Vec<i32>> {
    let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) else {
        return Ok(Vec::new()); // it is gone, or was never made
    };
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(folder)? {
        found.extend(processes(&child)?);
    }
    Ok(found)
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    Ok(paths.filter(|path| path.is_dir()).collect())
}

fn kill(pid: i32) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(());
    };
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("kill a process of the cluster"),
    }
}

fn remove(folder: &Path) -> Result<()> {
    for child in children(folder)? {
        remove(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_hierarchies_count_before_version_2() {
        let mixed = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                     cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(mixed), vec![PathBuf::from("/sys/fs/cgroup/cpu")]);
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(unified), vec![PathBuf::from("/sys/fs/cgroup")]);
    }
}
