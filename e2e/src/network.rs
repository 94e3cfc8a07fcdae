// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The network namespace that a cluster lives in, with a bridge that stands for the node's network.
//!
//! Nothing in it can be reached from outside, and nothing outside from within. A thread that has entered it makes
//! its sockets there, and so do the processes it starts.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::state::State;

/// The node's address: the API server, the S3 server and the database listen here, pods reach it.
pub const NODE_ADDRESS: &str = "10.200.0.1";
/// Where pods find the cluster's name server.
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";

/// Makes the namespace of a cluster and its bridge.
pub(crate) fn create(state: &State) -> Result<()> {
    let name = state.name();
    ip(&["netns", "add", &name])?;
    let inside = |arguments: &[&str]| ip(&[&["-n", name.as_str()], arguments].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["link", "add", "br0", "type", "bridge"])?;
    inside(&["address", "add", &format!("{NODE_ADDRESS}/24"), "dev", "br0"])?;
    inside(&["link", "set", "br0", "up"])?;
    inside(&["route", "add", "default", "dev", "br0"])?;
    ip(&["netns", "exec", &name, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
}

/// Removes the namespace; nothing to do if it does not exist.
pub(crate) fn delete(state: &State) -> Result<()> {
    if path(state).exists() {
        ip(&["netns", "delete", &state.name()])?;
    }
    Ok(())
}

/// The file that names the namespace.
pub(crate) fn path(state: &State) -> PathBuf {
    PathBuf::from("/run/netns").join(state.name())
}

/// Runs `work` to its end on threads that are in the cluster's network.
pub fn within<T, F>(state: &State, work: impl FnOnce() -> F + Send) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>>,
{
    let namespace = path(state);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(&namespace)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .on_thread_start({
                    let namespace = namespace.clone();
                    move || enter(&namespace).expect("the thread that starts this one has entered it")
                })
                .build()
                .context("start the runtime")?;
            runtime.block_on(work())
        });
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: &PathBuf) -> Result<()> {
    let file = File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {}", namespace.display()))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
