// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Brings a cluster up, and takes it down.
//!
//! Everything that `up` does, `down` undoes from the state folder alone, at whatever point `up` was interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, geteuid};
use tokio::try_join;

use crate::cgroup::Cgroup;
use crate::control_plane;
use crate::image::Image;
use crate::network;
use crate::node;
use crate::pki;
use crate::port::free_port;
use crate::process::{Process, command, succeed};
use crate::services::{Postgres, REGISTRY, S3, scratch, start_dns, start_registry};
use crate::state::State;
use crate::tools::tool;

/// Who is ended in what order. The API server goes before etcd: the other way round its shutdown hangs. What is not
/// named here, pods above all, goes with the cgroup.
const ORDER: [&str; 7] = [
    "kube-proxy",
    "kubelet",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-apiserver",
    "etcd",
    "containerd",
];

/// Brings a cluster up. A cluster that did not come up is taken down again; its logs stay.
pub async fn up(state: &State) -> Result<()> {
    if !geteuid().is_root() {
        bail!("a cluster needs root: it makes namespaces, cgroups and mounts");
    }
    if !Process::recorded(state)?.is_empty() {
        bail!("{} holds a cluster already", state.root().display());
    }
    let outcome = tokio::task::block_in_place(|| bring_up(state));
    if outcome.is_err() {
        down(state).await?;
    }
    outcome
}

fn bring_up(state: &State) -> Result<()> {
    pki::create(state)?;
    Cgroup::of(state)?.create()?;
    network::create(state)?;
    network::within(state, || start(state))
}

async fn start(state: &State) -> Result<()> {
    let nodes = async {
        start_registry(state).await?;
        push_pause(state).await?;
        node::start_runtimes(state).await
    };
    let servers = async {
        S3::of(state).start().await?;
        Postgres::of(state).start().await
    };
    let (nodes, (), ()) = try_join!(nodes, control_plane::start(state), servers)?;
    try_join!(node::join(state, &nodes), start_dns(state)).map(drop)
}

/// Lets the machine in: the API server answers at a loopback address, and the kubeconfig that is returned says which.
/// `program` is `stowage-cluster`, which holds the door open.
pub fn open_door(state: &State, program: &Path) -> Result<PathBuf> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut door = command(program);
    door.arg("--state").arg(state.root()).arg("forward").arg(&address);
    Process::start(state, "door", door.arg(control_plane::ADDRESS))?;
    let kubeconfig = state.path("kubeconfig");
    let text = pki::kubeconfig(&state.path("pki"), "admin", &format!("https://{address}"));
    fs::write(&kubeconfig, text).context("write the kubeconfig")?;
    Ok(kubeconfig)
}

/// The image of every pod's first process.
async fn push_pause(state: &State) -> Result<()> {
    let layout = state.path("pause");
    Image::new(tool("pause")?, "/pause").write_layout(&layout)?;
    push(&layout, &format!("{REGISTRY}/pause:latest")).await
}

/// Pushes the image in a layout folder.
pub(crate) async fn push(layout: &Path, reference: &str) -> Result<()> {
    let mut push = command(tool("crane")?);
    push.args(["push", "--insecure"]).arg(layout).arg(reference);
    succeed(&mut push).await.map(drop)
}

/// Takes a cluster down: processes, mounts, cgroup, network, files. What is not there is not missed. Logs stay.
pub async fn down(state: &State) -> Result<()> {
    let recorded = Process::recorded(state)?;
    for process in in_order(&recorded) {
        process.end(signal(process), Duration::from_secs(5)).await?;
    }
    Cgroup::of(state)?.destroy().await?;
    network::delete(state)?;
    remove(&scratch(state))?;
    forget(state)
}

fn in_order(recorded: &[Process]) -> impl Iterator<Item = &Process> {
    let named = |program: &'static str| recorded.iter().filter(move |process| process.program() == program);
    ORDER.into_iter().chain(["postgres"]).flat_map(named)
}

/// Nothing of a cluster is kept, so nothing is asked to tidy up; only Postgres has shared memory to give back.
fn signal(process: &Process) -> Signal {
    if process.program() == "postgres" { Signal::QUIT } else { Signal::KILL }
}

/// Empties the state folder, but for the logs. The record of processes goes last: until then `down` can be repeated.
fn forget(state: &State) -> Result<()> {
    let kept = [state.path("logs"), state.processes()];
    for entry in fs::read_dir(state.root()).context("list the state folder")? {
        let path = entry.context("list the state folder")?.path();
        if !kept.contains(&path) {
            remove(&path)?;
        }
    }
    remove(&state.processes())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
