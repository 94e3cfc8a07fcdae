// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `load`: fetches images through a mirror ahead of need.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use stowage_oci::Platform;
use stowage_registry::config::{self, Config};
use stowage_registry::jobs::{self, LoadOptions, Loaded, Wanted};

use super::images::list;
use super::termination::Counts;
use super::{Common, Failure, Output, open, print, runtime, summary};

/// Flags of `load`.
#[derive(Debug, Args)]
pub(super) struct Load {
    #[command(flatten)]
    common: Common,
    /// Images as the upstream names them, as `library/alpine:3`, `library/alpine:3.*` or `library/alpine@sha256:…`
    #[arg(value_name = "REF", required_unless_present = "images")]
    references: Vec<Wanted>,
    /// The Mirror
    #[arg(long, value_name = "NAME", env = "STOWAGE_MIRROR")]
    mirror: String,
    /// File with more of them, one a line; `#` begins a comment
    #[arg(long, value_name = "FILE", env = "STOWAGE_IMAGES")]
    images: Option<PathBuf>,
    /// Of images for several platforms only this one, as `linux/arm64`; can be repeated
    #[arg(long, value_name = "OS/ARCH", env = "STOWAGE_PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Form of the result
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

impl Load {
    pub(super) fn run(&self) -> Result<Counts, Failure> {
        let mut wanted = self.references.clone();
        if let Some(images) = &self.images {
            wanted.extend(list::<Wanted>(images)?);
        }
        let options = LoadOptions { mirror: self.mirror.clone(), wanted, platforms: self.platform.clone() };
        let config = config::load(&self.common.sources(None))?;
        let counts = runtime()?.block_on(self.loaded(&config, &options))?;
        print(summary(&counts, self.output).as_bytes())?;
        Ok(counts)
    }

    async fn loaded(&self, config: &Config, options: &LoadOptions) -> Result<Counts, Failure> {
        let beside = open::beside(config, &self.common.data_dir).await?;
        // Whoever reads them has read enough, or it fails again at the end.
        let tell = |loaded: &Loaded| drop(print(self.line(loaded).as_bytes()));
        let counts = Box::pin(jobs::load(beside.registry.domain(), options, tell)).await;
        beside.close().await;
        Ok(counts?.counts())
    }

    fn line(&self, loaded: &Loaded) -> String {
        let Loaded { name, outcome } = loaded;
        let result = match outcome {
            Ok((_, 0)) => "present",
            Ok(_) => "loaded",
            Err(_) => "failed",
        };
        match (self.output, outcome) {
            (Output::Text, Ok((digest, _))) => format!("{result} {name} {digest}\n"),
            (Output::Text, Err(trouble)) => format!("{result} {name}: {trouble}\n"),
            (Output::Json, Ok((digest, bytes))) => {
                format!("{}\n", json!({"result": result, "name": name, "digest": digest, "bytes": bytes}))
            }
            (Output::Json, Err(trouble)) => {
                format!("{}\n", json!({"result": result, "name": name, "error": trouble}))
            }
        }
    }
}
