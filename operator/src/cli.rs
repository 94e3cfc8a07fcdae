// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The command line. Every flag can be given as `STOWAGE_<FLAG>`; a flag beats the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use crate::image::ImageRef;

/// Reconciles the custom resources of stowage.dev.
#[derive(Debug, Parser)]
#[command(name = "stowage-operator", version, about, max_term_width = 100)]
pub struct Cli {
    /// Form of the log; text on a terminal and json elsewhere if it is not given
    #[arg(long, env = "STOWAGE_LOG_FORMAT", global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or levels by module as in `info,stowage_operator::controllers=debug`
    #[arg(long, env = "STOWAGE_LOG", global = true, default_value = "info", value_parser = log_filter)]
    pub log: String,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile the resources of a cluster
    Run(RunArgs),
    /// Print the definitions of the custom resources
    Crds,
    /// Print what would be applied for resources in a file, without a cluster
    Render(RenderArgs),
    /// Print a script that completes this command line
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write a page for each subcommand
    Man {
        /// Folder for the pages, made if there is none; without it that of the program is printed
        folder: Option<PathBuf>,
    },
}

/// How to run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Image of the replicas of a Registry that names none
    #[arg(long, env = "STOWAGE_REGISTRY_IMAGE", value_name = "REF")]
    pub registry_image: ImageRef,
    /// Namespaces to look at; all if none is given
    #[arg(long, env = "STOWAGE_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMES")]
    pub watch_namespaces: Vec<String>,
    /// Act only while holding the lease, so that several operators can stand by
    #[arg(long, env = "STOWAGE_LEADER_ELECT")]
    pub leader_elect: bool,
    /// Address of the operations port: /livez, /readyz, /metrics
    #[arg(long, env = "STOWAGE_OPS_LISTEN", default_value = "127.0.0.1:5001", value_name = "ADDR")]
    pub ops_listen: SocketAddr,
}

/// What to render.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// File of YAML documents; `-` reads standard input
    #[arg(long, short, env = "STOWAGE_FILE", value_name = "FILE")]
    pub file: PathBuf,
    /// Image of the replicas of a Registry that names none
    #[arg(long, env = "STOWAGE_REGISTRY_IMAGE", value_name = "REF", default_value = DEFAULT_IMAGE)]
    pub registry_image: ImageRef,
    /// Optional APIs that the cluster is to have
    #[arg(long, env = "STOWAGE_APIS", value_delimiter = ',', value_enum)]
    pub apis: Vec<ApiName>,
}

const DEFAULT_IMAGE: &str = concat!("stowage/registry:", env!("CARGO_PKG_VERSION"));

/// An optional API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApiName {
    /// gateway.networking.k8s.io/v1
    Gateway,
    /// monitoring.coreos.com/v1
    Monitoring,
}

/// A filter that says something. A word alone would be taken for a module, of which all is logged, and of all else
/// nothing: it must be a level.
fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    let mut words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let is_level = |word: &str| word.contains(['=', '[']) || word.parse::<LevelFilter>().is_ok();
    match words.find(|word| !is_level(word)) {
        None => Ok(text.to_owned()),
        Some(word) => Err(format!(
            "{word:?} is no level: off, error, warn, info, debug or trace; one of a module is {word}=debug"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_needs_an_image() {
        let cli = Cli::try_parse_from(["stowage-operator", "run", "--registry-image", "a/b"]);
        assert_eq!(cli.unwrap_err().exit_code(), 2);
        let cli = Cli::try_parse_from(["stowage-operator", "run", "--registry-image", "a/b:1"]);
        assert!(matches!(cli.unwrap().command, Command::Run(_)));
    }

    #[test]
    fn every_flag_has_its_variable() {
        fn looked_at(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(name) = argument.get_long().filter(|name| !["help", "version"].contains(name))
                else {
                    continue;
                };
                let expected = format!("STOWAGE_{}", name.to_uppercase().replace('-', "_"));
                let found = argument.get_env().and_then(std::ffi::OsStr::to_str);
                assert_eq!(found, Some(expected.as_str()), "--{name}");
            }
            command.get_subcommands().for_each(looked_at);
        }
        looked_at(&Cli::command());
    }

    #[test]
    fn a_filter_is_levels_and_levels_of_modules() {
        for good in ["", "info", "WARN", "info,stowage_operator::controllers=debug", "warn,[reconcile]"] {
            assert_eq!(log_filter(good).as_deref(), Ok(good));
        }
        for (bad, named) in [("warning", "warning"), ("info, kube", "kube"), ("info,kube=loud", "level")] {
            let said = log_filter(bad).unwrap_err();
            assert!(said.contains(named), "{bad}: {said}");
        }
    }
}
