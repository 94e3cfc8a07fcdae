// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The command line. Every flag can be given as `STOWAGE_<FLAG>`; a flag beats the environment.

mod failure;
mod images;
mod ledger;
mod load;
mod mirrors;
mod open;
mod progress;
mod promotions;
mod replications;
mod retention;
mod serve;
mod termination;
mod trash;
mod usage;
mod virtuals;

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use stowage_registry::config::{self, SecretsDir, Sources};
use stowage_registry::domain::{Verified, VerifyOptions};
use stowage_registry::jobs::{self, RebuildOptions};
use stowage_registry::meta::Finding;
use stowage_registry::ops::telemetry;
use stowage_registry::usage::PATIENCE;
use uuid::Uuid;

pub(crate) use failure::Failure;
use termination::Counts;

/// An OCI registry.
#[derive(Debug, Parser)]
#[command(name = "stowage-registry", version)]
pub(crate) struct Cli {
    /// Form of the log on standard error [default: text on a terminal, json elsewhere]
    #[arg(long, global = true, env = "STOWAGE_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: a level, or levels by module as in `info,stowage_registry::http=debug`
    #[arg(long, global = true, env = "STOWAGE_LOG", default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve OCI traffic
    Serve(serve::Serve),
    /// Bring the database schema up to this version
    Migrate(Common),
    /// Collect what nothing refers to any more, once
    Gc(Gc),
    /// Make the database from the bucket, or compare it with the bucket
    Rebuild(Rebuild),
    /// Copy what a mirror of mode Replicate says, once
    Sync(replications::Sync),
    /// Promote an artifact by a promotion policy, if its gates let it
    Promote(promotions::Promote),
    /// Judge tags by a retention policy, once; in mode Enforce delete what nothing keeps
    Retention(retention::Retain),
    /// Compare database and bucket, and tell where they disagree
    Verify(Verify),
    /// See how promotions have ended
    #[command(subcommand)]
    Promotions(ledger::Promotions),
    /// Write images into a file, for machines that no network joins
    Export(images::Export),
    /// Bring the images of a file into the registry
    Import(images::Import),
    /// Fetch images through a mirror ahead of need
    Load(load::Load),
    /// See what was deleted, and bring it back
    #[command(subcommand)]
    Trash(trash::Trash),
    /// What other clusters run
    #[command(subcommand)]
    Usage(usage::Usage),
    /// Delete every object below the registry's prefix, and every table
    Purge(Purge),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
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

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Validate the configuration files
    Check(Shown),
    /// Print what would be in force, and its hash: as text the resources, as JSON the compiled document
    Show(Shown),
}

#[derive(Debug, Args)]
struct Shown {
    #[command(flatten)]
    common: Common,
    /// Form of the answer
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
struct Gc {
    #[command(flatten)]
    common: Common,
    /// Count what is due, and change nothing
    #[arg(long, env = "STOWAGE_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    asker: Asker,
}

/// How a run that deletes is told what the cluster runs.
#[derive(Clone, Debug, Args)]
struct Asker {
    /// By what the operator knows this run: the uid of its Job
    #[arg(long, value_name = "UID", env = "STOWAGE_RUN_UID")]
    run_uid: Option<String>,
    /// Folder in which the operator says what runs
    #[arg(long, value_name = "DIR", env = "STOWAGE_USAGE_DIR", default_value = "/etc/stowage/usage")]
    usage_dir: PathBuf,
}

impl Asker {
    fn asks(&self) -> stowage_registry::usage::Asker {
        let (uid, folder) = (self.run_uid.clone(), self.usage_dir.clone());
        stowage_registry::usage::Asker { uid, folder, patience: PATIENCE }
    }
}

#[derive(Debug, Args)]
struct Purge {
    #[command(flatten)]
    common: Common,
    /// The id of the registry whose data is deleted; refused if bucket or database name another
    #[arg(long, value_name = "UID", env = "STOWAGE_CONFIRM")]
    confirm: Uuid,
}

#[derive(Debug, Args)]
struct Rebuild {
    #[command(flatten)]
    common: Common,
    /// Change nothing, count what differs
    #[arg(long, env = "STOWAGE_DRY_RUN")]
    dry_run: bool,
    /// Make an empty database that of the bucket's registry
    #[arg(long, env = "STOWAGE_ADOPT")]
    adopt: bool,
    /// Do nothing unless the bucket is that of the registry with this id
    #[arg(long, value_name = "UID", env = "STOWAGE_CONFIRM")]
    confirm: Option<Uuid>,
    /// Go on when more than 1 % (and more than 100) of the rows of a kind have no object in the bucket
    #[arg(long, env = "STOWAGE_ACCEPT_LOSS")]
    accept_loss: bool,
    /// Requests to the bucket a second, at most
    #[arg(long, value_name = "N", env = "STOWAGE_REQUESTS_PER_SECOND")]
    requests_per_second: Option<NonZeroU32>,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    common: Common,
    /// Read all content, and compare it with its digests
    #[arg(long, env = "STOWAGE_DEEP")]
    deep: bool,
    /// Put right what can be without a doubt
    #[arg(long, env = "STOWAGE_REPAIR")]
    repair: bool,
    /// Bytes of content a second, at most, as in `100M` [default: all that the bucket gives]
    #[arg(long, value_name = "N", env = "STOWAGE_BYTES_PER_SECOND", value_parser = quantity, requires = "deep")]
    bytes_per_second: Option<NonZeroU64>,
    /// Requests to the bucket a second, at most
    #[arg(long, value_name = "N", env = "STOWAGE_REQUESTS_PER_SECOND")]
    requests_per_second: Option<NonZeroU32>,
    /// Form of the findings on standard output; they are in the log, too
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

/// A number of bytes, as a `Registry` has them.
fn quantity(text: &str) -> Result<NonZeroU64, String> {
    let quantity: config::Quantity = text.parse().map_err(|error| format!("{error}"))?;
    NonZeroU64::new(quantity.bytes()).ok_or_else(|| "at least one byte a second must be read".to_owned())
}

/// What every command that reads the configuration takes.
#[derive(Clone, Debug, Args)]
struct Common {
    /// File or folder of YAML documents; can be repeated. Without it an embedded registry is meant
    #[arg(long, value_name = "PATH", env = "STOWAGE_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Which Registry, when the files hold several
    #[arg(long, value_name = "NAME", env = "STOWAGE_REGISTRY")]
    registry: Option<String>,
    /// Folder with a folder for each Secret and a file for each of its keys
    #[arg(long, value_name = "DIR", env = "STOWAGE_SECRETS_DIR", default_value = "/etc/stowage/secrets")]
    secrets_dir: PathBuf,
    /// Folder of the data of `filesystem` and `sqlite`, and of the key of tokens; made if there is none
    #[arg(long, value_name = "DIR", env = "STOWAGE_DATA_DIR", default_value = "./stowage-data")]
    data_dir: PathBuf,
}

impl Common {
    fn sources(&self, listen: Option<SocketAddr>) -> Sources {
        Sources {
            paths: self.config.clone(),
            registry: self.registry.clone(),
            secrets: SecretsDir::new(&self.secrets_dir),
            data_dir: self.data_dir.clone(),
            listen,
        }
    }
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let format = match cli.log_format {
        Some(LogFormat::Text) => telemetry::Format::Text,
        Some(LogFormat::Json) => telemetry::Format::Json,
        None => telemetry::Format::fitting(),
    };
    let traces = match telemetry::init(format, &cli.log) {
        Ok(traces) => traces,
        Err(error) => return termination::told(Err(error.into())),
    };
    match cli.command {
        Command::Serve(serve) => termination::told(runtime()?.block_on(serve.run(traces))),
        Command::Migrate(common) => termination::summed_up("migrate", || migrate(&common)),
        Command::Gc(asked) => termination::summed_up("gc", || gc(&asked)),
        Command::Rebuild(asked) => termination::summed_up("rebuild", || rebuild(&asked)),
        Command::Sync(asked) => asked.run(),
        Command::Promote(asked) => asked.run(),
        Command::Retention(asked) => asked.run(),
        Command::Verify(asked) => termination::summed_up("verify", || verify(&asked)),
        Command::Promotions(asked) => asked.run(),
        Command::Export(asked) => termination::summed_up("export", || asked.run()),
        Command::Import(asked) => termination::summed_up("import", || asked.run()),
        Command::Load(asked) => termination::summed_up("load", || asked.run()),
        Command::Trash(asked) => asked.run(),
        Command::Usage(asked) => asked.run(),
        Command::Purge(asked) => termination::summed_up("purge", || purge(&asked)),
        Command::Config(ConfigCommand::Check(shown)) => check(&shown),
        Command::Config(ConfigCommand::Show(shown)) => show(&shown),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "stowage-registry", &mut script);
            print(&script)
        }
        Command::Man { folder: None } => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.map_err(|source| Failure::System { what: "render the manual page", source })?;
            print(&page)
        }
        Command::Man { folder: Some(folder) } => {
            let made = std::fs::create_dir_all(&folder);
            let written = made.and_then(|()| clap_mangen::generate_to(Cli::command(), &folder));
            written.map_err(|source| Failure::System { what: "write the manual pages", source })
        }
    }
}

fn migrate(common: &Common) -> Result<Counts, Failure> {
    let database = config::load_database(&common.sources(None))?;
    runtime()?.block_on(open::migrate(&database, &common.data_dir))?;
    Ok(Counts::new())
}

fn purge(asked: &Purge) -> Result<Counts, Failure> {
    let common = &asked.common;
    let backing = config::load_backing(&common.sources(None))?;
    let purged = runtime()?.block_on(open::purge(&backing, &common.data_dir, asked.confirm))?;
    Ok([("deletedObjects", purged.objects), ("foreignObjects", purged.foreign)].into())
}

fn gc(asked: &Gc) -> Result<Counts, Failure> {
    let common = &asked.common;
    let collecting = config::load_collecting(&common.sources(None))?;
    let counts = if asked.dry_run {
        runtime()?.block_on(open::look(&collecting.backing, &common.data_dir))?
    } else {
        runtime()?.block_on(open::gc(collecting, &common.data_dir, &asked.asker.asks()))?
    };
    // A terminal or a script sees what a Job's termination message says.
    let lines: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}\n")).collect();
    print(lines.concat().as_bytes())?;
    Ok(counts)
}

fn rebuild(asked: &Rebuild) -> Result<Counts, Failure> {
    let common = &asked.common;
    let backing = config::load_backing(&common.sources(None))?;
    let options = RebuildOptions {
        dry_run: asked.dry_run,
        adopt: asked.adopt,
        confirm: asked.confirm,
        accept_loss: asked.accept_loss,
        requests_per_second: asked.requests_per_second,
    };
    let walked = runtime()?.block_on(open::rebuild(&backing, &common.data_dir, options))?;
    if walked.foreign > 0 && !asked.dry_run {
        return Err(Failure::ForeignObjects(walked.foreign));
    }
    let mut counts: Counts = walked.changes;
    counts.extend([("listedObjects", walked.listed), ("foreignObjects", walked.foreign)]);
    let lines: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}\n")).collect();
    print(lines.concat().as_bytes())?;
    Ok(counts)
}

fn verify(asked: &Verify) -> Result<Counts, Failure> {
    let common = &asked.common;
    let backing = config::load_backing(&common.sources(None))?;
    let options = VerifyOptions {
        deep: asked.deep,
        repair: asked.repair,
        bytes_per_second: asked.bytes_per_second,
        requests_per_second: asked.requests_per_second,
    };
    let output = asked.output;
    let tell = move |finding: &Finding| {
        jobs::log(finding);
        // Whoever reads them has read enough, or it fails again at the end.
        drop(print(shown_finding(finding, output).as_bytes()));
    };
    let verified = runtime()?.block_on(open::verify(&backing, &common.data_dir, options, tell))?;
    let Verified { findings, repaired, total, objects, bytes } = verified;
    let mut counts: Counts = findings;
    counts.extend([
        ("findings", total),
        ("repaired", repaired),
        ("verifiedObjects", objects),
        ("verifiedBytes", bytes),
    ]);
    print(summary(&counts, output).as_bytes())?;
    if total > 0 { Err(Failure::Findings { total, repaired, counts }) } else { Ok(counts) }
}

/// What was counted, at the end of what is told.
fn summary(counts: &Counts, output: Output) -> String {
    match output {
        Output::Text => {
            let lines: Vec<String> =
                counts.iter().map(|(what, count)| format!("{what}: {count}\n")).collect();
            lines.concat()
        }
        Output::Json => format!("{}\n", serde_json::json!({ "summary": counts })),
    }
}

fn shown_finding(finding: &Finding, output: Output) -> String {
    let Finding { problem, key, repaired } = finding;
    let (problem, advice) = (problem.name(), jobs::advice(finding));
    match output {
        Output::Text => format!("{problem} {key}: {advice}\n"),
        Output::Json => {
            let line = serde_json::json!({
                "kind": problem, "key": key, "repaired": repaired, "advice": advice,
            });
            format!("{line}\n")
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|source| Failure::System { what: "start the threads", source })
}

fn check(shown: &Shown) -> Result<(), Failure> {
    let found = config::show(&shown.common.sources(None))?;
    match shown.output {
        Output::Text => print(format!("valid, {}\n", found.hash).as_bytes()),
        Output::Json => print(format!("{{\"valid\":true,\"hash\":\"{}\"}}\n", found.hash).as_bytes()),
    }
}

fn show(shown: &Shown) -> Result<(), Failure> {
    let found = config::show(&shown.common.sources(None))?;
    match shown.output {
        Output::Text => print(found.yaml().as_bytes()),
        Output::Json => {
            let whole = serde_json::json!({ "hash": found.hash, "document": found.document });
            print(format!("{whole}\n").as_bytes())
        }
    }
}

/// Writes to standard output. Whoever closes it early has read enough.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::System { what: "write the answer", source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        fn looked_at(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                let name = argument.get_long().unwrap();
                if ["help", "version"].contains(&name) {
                    continue;
                }
                let expected = format!("STOWAGE_{}", name.to_uppercase().replace('-', "_"));
                let found = argument.get_env().and_then(std::ffi::OsStr::to_str);
                assert_eq!(found, Some(expected.as_str()), "--{name}");
            }
            command.get_subcommands().for_each(looked_at);
        }
        looked_at(&Cli::command());
    }
}
