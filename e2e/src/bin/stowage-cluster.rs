// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A real Kubernetes cluster for tests and for trying things out: `up`, `down`, and what is done with it.

use std::io::{Read, stdin};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use stowage_e2e::{
    Cluster, Sample, State, command, down, forward, install, open_door, repository, tools_folder, up, within,
};
use tokio::net::TcpListener;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The folder that holds everything of the cluster [default: .state/cluster in the repository].
    #[arg(long, global = true)]
    state: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Bring the cluster up and leave it running.
    Up,
    /// Install the operator and the sample registry on a cluster that is up.
    Install,
    /// Take the cluster down.
    Down,
    /// Bring the cluster up, say "ready", and take it down when standard input closes or a signal asks for the end.
    Hold,
    /// Run a command in the cluster's network, as its administrator.
    Exec {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Pass connections to a loopback address on to an address in the cluster's network.
    Forward {
        /// Where to listen.
        listen: SocketAddr,
        /// Where to pass connections on to.
        target: SocketAddr,
    },
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the command-line door")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let folder = arguments.state.unwrap_or_else(|| repository().join(".state/cluster"));
    let state = State::at(&folder)?;
    match arguments.action {
        Action::Up => {
            up(&state).await?;
            open(&state)?;
        }
        Action::Install => install_product(&state)?,
        Action::Down => down(&state).await?,
        Action::Hold => hold(&state).await?,
        Action::Exec { command } => return tokio::task::block_in_place(|| exec(&state, &command)),
        Action::Forward { listen, target } => {
            let listener = TcpListener::bind(listen).await.context("listen")?;
            forward(&state, listener, target).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the command-line door")]
fn open(state: &State) -> Result<()> {
    let program = std::env::current_exe().context("find the running program")?;
    let kubeconfig = open_door(state, &program)?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command-line door")]
fn install_product(state: &State) -> Result<()> {
    let cluster = Cluster::attach(state.root())?;
    tokio::task::block_in_place(|| {
        within(state, || async {
            install(&cluster).await?;
            Sample::apply(&cluster, "default").await.map(drop)
        })
    })?;
    println!("{}", to_try(&tools_folder()));
    Ok(())
}

fn to_try(tools: &Path) -> String {
    let tools = tools.display();
    format!(
        "
The registry `main` is ready. Try:

  export PATH={tools}:$PATH
  kubectl get registries,pods
  kubectl port-forward service/main 5000 &
  curl -i http://127.0.0.1:5000/v2/
  kubectl patch registry main --type=merge --patch '{{\"spec\":{{\"replicas\":3}}}}'
"
    )
}

#[expect(clippy::print_stdout, reason = "the command-line door")]
async fn hold(state: &State) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let closed = end_of_input();
    let dismissed = async {
        select! {
            _ = closed => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let held = async {
        up(state).await?;
        println!("ready");
        std::future::pending::<Result<()>>().await
    };
    select! {
        () = dismissed => {}
        failed = held => return failed,
    }
    down(state).await
}

/// Resolves when standard input closes. The read is on a thread of its own: the process can end without it.
fn end_of_input() -> oneshot::Receiver<()> {
    let (closed, waits) = oneshot::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        drop(closed);
    });
    waits
}

fn exec(state: &State, line: &[String]) -> Result<ExitCode> {
    let (program, arguments) = line.split_first().context("no command")?;
    let status = within(state, || async {
        let mut command = command(program);
        command.args(arguments).env("KUBECONFIG", state.kubeconfig());
        let status = command.stdin(std::process::Stdio::inherit()).status().await;
        status.with_context(|| format!("run {program}"))
    })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
