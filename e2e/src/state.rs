// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The folder that holds everything of one cluster, and the names derived from it.
//!
//! Whoever knows the folder can find the cluster, and take it down, without having started it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The state folder of one cluster.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// The state folder at `root`, which is made if it does not exist.
    pub fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
        let root = fs::canonicalize(root).with_context(|| format!("resolve {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The name of the cluster's network namespace and cgroup: no two folders share one.
    #[must_use]
    pub fn name(&self) -> String {
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("stowage-{}", hex::encode(&digest[..4]))
    }

    /// The kubeconfig of the cluster's administrator, for use inside the cluster's network.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("pki/admin.kubeconfig")
    }

    /// Where a process called `name` writes what it has to say.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(format!("{name}.log"))
    }

    /// The record of the processes that were started, one a line.
    pub(crate) fn processes(&self) -> PathBuf {
        self.path("processes")
    }
}
