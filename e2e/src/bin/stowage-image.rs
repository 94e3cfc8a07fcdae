// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Packs a binary and what it needs into a container image, as an OCI layout: no container engine takes part.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use stowage_e2e::Image;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// The binary that the image runs.
    binary: PathBuf,
    /// Write the layout to this tarball.
    #[arg(long, required_unless_present = "layout")]
    tarball: Option<PathBuf>,
    /// Write the layout to this folder.
    #[arg(long)]
    layout: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let image = Image::of_product(&arguments.binary)?;
    if let Some(tarball) = &arguments.tarball {
        image.write_tarball(tarball)?;
    }
    if let Some(layout) = &arguments.layout {
        image.write_layout(layout)?;
    }
    Ok(())
}
