// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `stowage-operator`: reconciles the custom resources of stowage.dev.
//!
//! Exit codes: 0 done, 1 failed while working, 2 bad usage or bad configuration.
#![expect(clippy::print_stderr, reason = "this is the door to the command line")]

use std::{
    io::{ErrorKind, IsTerminal as _, Read as _, Write as _, stderr, stdout},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use stowage_operator::{
    apis::Apis,
    cli::{ApiName, Cli, Command, LogFormat, RenderArgs, RunArgs},
    controllers::registry::validate::Settings,
    objects::OptionalApi,
    render::render,
    serve::operate,
};
use tracing_subscriber::EnvFilter;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.log_format, &cli.log);
    let (ended, code) = match cli.command {
        Command::Run(args) => (run(args), FAILED),
        Command::Crds => (print_definitions(), FAILED),
        Command::Render(args) => (print_rendered(&args), USAGE),
        Command::Completions { shell } => (print_completions(shell), FAILED),
        Command::Man { folder } => (manual(folder.as_deref()), FAILED),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stowage-operator: {error:#}");
            ExitCode::from(code)
        }
    }
}

/// The filter was read with the command line, which refuses one that says nothing.
fn log_to_stderr(format: Option<LogFormat>, filter: &str) {
    let filter = EnvFilter::new(filter);
    let text = format.map_or_else(|| stderr().is_terminal(), |format| format == LogFormat::Text);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if text { log.init() } else { log.json().flatten_event(true).init() }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_other| anyhow::anyhow!("another TLS provider is installed already"))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    Ok(runtime.block_on(operate(args))?)
}

fn print_definitions() -> anyhow::Result<()> {
    let definitions: Vec<String> =
        stowage_crds::manifests().into_iter().map(|(_, manifest)| manifest).collect();
    print(&definitions.join("---\n"))
}

fn print_rendered(args: &RenderArgs) -> anyhow::Result<()> {
    let text = read(&args.file)?;
    let settings = Settings {
        registry_image: args.registry_image.clone(),
        operator_namespace: std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "stowage-system".to_owned()),
    };
    let apis: Apis = args
        .apis
        .iter()
        .map(|api| match api {
            ApiName::Gateway => OptionalApi::Gateway,
            ApiName::Monitoring => OptionalApi::Monitoring,
        })
        .collect();
    let rendered = render(&text, &settings, &apis).with_context(|| args.file.display().to_string())?;
    print(&rendered)
}

fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stowage-operator", &mut script);
    print(&String::from_utf8(script).context("make the script")?)
}

fn manual(folder: Option<&Path>) -> anyhow::Result<()> {
    if let Some(folder) = folder {
        let made = std::fs::create_dir_all(folder);
        let written = made.and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
        return written.with_context(|| format!("write the manual pages to {}", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).context("make the manual page")?;
    print(&String::from_utf8(page).context("make the manual page")?)
}

/// Writes to standard output. Whoever closes it early has read enough.
fn print(text: &str) -> anyhow::Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}
