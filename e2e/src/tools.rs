// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where the pinned binaries are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The folders a cluster's processes look for programs in, after the pinned tools.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The root of the repository this was built from.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// The folder of the pinned tools: `$STOWAGE_TOOLS`, or `target/tools/bin`.
#[must_use]
pub fn tools_folder() -> PathBuf {
    env::var_os("STOWAGE_TOOLS").map_or_else(|| repository().join("target/tools/bin"), PathBuf::from)
}

/// `PATH` for everything that is started: the pinned tools before the system's.
pub(crate) fn search_path() -> String {
    format!("{}:{SYSTEM_PATH}", tools_folder().display())
}

/// A program of the product, from `$STOWAGE_BINARIES` or the release folder of the target.
pub fn binary(name: &str) -> Result<PathBuf> {
    let target =
        || env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let folder = env::var_os("STOWAGE_BINARIES").map_or_else(|| target().join("release"), PathBuf::from);
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is missing: `make build` builds it", path.display());
    }
    Ok(path)
}

/// The path of a pinned tool; an error says how to build it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = tools_folder().join(name);
    if !path.is_file() {
        bail!("{} is missing: `make tools` builds it", path.display());
    }
    Ok(path)
}
