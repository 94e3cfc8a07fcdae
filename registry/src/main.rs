// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `stowage-registry`: arguments → configuration → the registry → an exit code.
//!
//! 0 done; 1 failed while working; 2 bad usage or bad configuration; 3 refused for safety. What is wrong stands
//! in the last line on standard error, and where Kubernetes looks for it.

mod cli;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use stowage_registry::config::explained;

use cli::Cli;
use mimalloc::MiMalloc;

/// Uploads hold megabytes in pieces that come and go: the system's allocator gives each back to the kernel and gets it
/// anew, page by page, and keeps what other threads have freed.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told that nobody could be told.
            let _told = writeln!(std::io::stderr().lock(), "stowage-registry: {}", explained(&failure));
            ExitCode::from(failure.code())
        }
    }
}
