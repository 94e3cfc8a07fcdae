// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The machine of a run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::table::dash;

/// The facts of a machine that figures depend on; nothing that tells whose it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: u64,
    pub(crate) system: String,
    pub(crate) kernel: String,
    /// The file system that all storage lies on.
    pub(crate) file_system: String,
}

impl Machine {
    /// The facts of this machine, with storage at `scratch`.
    pub(crate) fn read(scratch: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let value = |text: &str, name: &str, mark: char| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(mark)?.1.trim().trim_matches('"').to_owned())
        };
        let memory = value(&read("/proc/meminfo")?, "MemTotal", ':').context("no MemTotal")?;
        let kib: u64 = memory.trim_end_matches(" kB").parse().context("read MemTotal")?;
        let scratch = scratch.canonicalize().context("find the scratch folder")?;
        Ok(Self {
            processor: value(&read("/proc/cpuinfo")?, "model name", ':').unwrap_or_else(dash),
            cores: std::thread::available_parallelism().context("count the cores")?.get(),
            memory: kib * 1024,
            system: value(&read("/etc/os-release")?, "PRETTY_NAME", '=').unwrap_or_else(dash),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts")?, &scratch).unwrap_or_else(dash),
        })
    }
}

/// The load average of the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    text.split(' ').next().and_then(|load| load.parse().ok()).context("read the load average")
}

/// The type of the file system that `path` lies on, from the kernel's list of mounts.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(at, _)| path.starts_with(at));
    above.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmp/deep/x")).as_deref(), Some("xfs"));
        assert_eq!(file_system(mounts, Path::new("/var")).as_deref(), Some("ext4"));
    }
}
