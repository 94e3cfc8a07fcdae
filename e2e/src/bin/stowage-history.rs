// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Judges a history that a test left behind.
//!
//! Exit codes: 0 the history is legal, 1 it is not or cannot be read, 2 bad usage.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use stowage_e2e::history::{History, check};

#[derive(Debug, Parser)]
#[command(version, about = "Judges a history that a test left behind")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what contradicts what in a history
    Check {
        /// Of JSON lines
        file: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    let Command::Check { file } = Cli::parse().command;
    let lines = File::open(&file).with_context(|| format!("open {}", file.display()))?;
    let verdict = check(&History::read(BufReader::new(lines))?);
    writeln!(std::io::stdout(), "{verdict}").context("print the verdict")?;
    Ok(if verdict.is_legal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
