// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The network namespaces that a cluster lives in: one a node, joined by a bridge that stands for the nodes' network.
//!
//! Nothing in them can be reached from outside, and nothing outside from within. A thread that has entered one makes
//! its sockets there, and so do the processes it starts. The servers and the tests are where the first node is.

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

/// The first node's address: the API server, the S3 server and the database listen here, pods reach it.
pub const NODE_ADDRESS: &str = "10.200.0.1";

/// A node, by what tells it from the others.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) address: &'static str,
    /// The addresses of its pods.
    pub(crate) pods: &'static str,
}

/// The nodes of every cluster.
pub(crate) const NODES: [Place; 2] = [
    Place { name: "node-1", address: NODE_ADDRESS, pods: "10.244.0.0/24" },
    Place { name: "node-2", address: "10.200.0.2", pods: "10.244.1.0/24" },
];

/// Where pods find the cluster's name server.
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";

/// Makes the namespaces of a cluster, its bridge, and the ways to pods on other nodes.
pub(crate) fn create(state: &State) -> Result<()> {
    for node in &NODES {
        let name = namespace(state, node);
        ip(&["netns", "add", &name])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["netns", "exec", &name, "sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    }
    let [first, others @ ..] = &NODES;
    let inside = |arguments: &[&str]| ip(&[&["-n", &namespace(state, first)], arguments].concat());
    inside(&["link", "add", "br0", "type", "bridge"])?;
    inside(&["address", "add", &format!("{}/24", first.address), "dev", "br0"])?;
    inside(&["link", "set", "br0", "up"])?;
    inside(&["route", "add", "default", "dev", "br0"])?;
    for node in others {
        join(state, node)?;
    }
    for node in &NODES {
        for other in NODES.iter().filter(|other| other.name != node.name) {
            let way = ["-n", &namespace(state, node), "route", "add", other.pods, "via", other.address];
            ip(&way)?;
        }
    }
    Ok(())
}

/// Plugs a further node into the bridge.
fn join(state: &State, node: &Place) -> Result<()> {
    let (first, own) = (namespace(state, &NODES[0]), namespace(state, node));
    let bridge = |arguments: &[&str]| ip(&[&["-n", first.as_str()], arguments].concat());
    bridge(&["link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
    bridge(&["link", "set", node.name, "master", "br0", "up"])?;
    let inside = |arguments: &[&str]| ip(&[&["-n", own.as_str()], arguments].concat());
    inside(&["address", "add", &format!("{}/24", node.address), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    // What goes to a Service needs a way before kube-proxy sends it elsewhere.
    inside(&["route", "add", "default", "via", NODE_ADDRESS])
}

/// Removes the namespaces, and with them what is in them; nothing to do if they do not exist.
pub(crate) fn delete(state: &State) -> Result<()> {
    for node in &NODES {
        if path(state, node).exists() {
            ip(&["netns", "delete", &namespace(state, node)])?;
        }
    }
    Ok(())
}

fn namespace(state: &State, node: &Place) -> String {
    format!("{}-{}", state.name(), node.name)
}

/// The file that names the namespace of a node.
pub(crate) fn path(state: &State, node: &Place) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace(state, node))
}

/// Runs `work` to its end on threads that are in the cluster's network, where the first node is.
pub fn within<T, F>(state: &State, work: impl FnOnce() -> F + Send) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>>,
{
    let namespace = path(state, &NODES[0]);
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
