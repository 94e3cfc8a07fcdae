// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The nodes: each a containerd, a kubelet and a kube-proxy, in a network and a mount namespace of their own.
//!
//! The mount namespace is held open by one sleeping process. `/run` and the folders under `/var` that they write to are
//! in memory there, so the machine's own container runtime, if it has one, is never met.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::cgroup::Cgroup;
use crate::control_plane::kubectl;
use crate::files::{fill, write};
use crate::network::{self, DNS_ADDRESS, NODE_ADDRESS, NODES, Place};
use crate::process::{Process, command, succeed};
use crate::services::REGISTRY;
use crate::state::State;
use crate::tools::tool;
use crate::wait::until;

/// The process that holds a node's mount namespace open.
const HOLDER: &str = "mounts";

const PATIENCE: Duration = Duration::from_mins(2);

/// The nodes' container runtimes, which need no API server.
pub(crate) async fn start_runtimes(state: &State) -> Result<Vec<Node<'_>>> {
    // Images with no registry in their name come from ours too.
    pull_plainly(state, "docker.io", REGISTRY)?;
    pull_plainly(state, REGISTRY, REGISTRY)?;
    // Names such as `main.default.svc` are short for names in the cluster's domain.
    let names = format!("nameserver {NODE_ADDRESS}\nsearch cluster.local\noptions ndots:5\n");
    write(&state.path("node-resolv.conf"), &names)?;
    write(&state.path("resolv.conf"), &format!("nameserver {DNS_ADDRESS}\n"))?;
    let mut nodes = Vec::new();
    for place in &NODES {
        configure(state, place)?;
        let node = Node::hold(state, place).await?;
        node.containerd().await?;
        nodes.push(node);
    }
    Ok(nodes)
}

/// Lets nodes join the cluster; returns when they are ready for pods.
pub(crate) async fn join(state: &State, nodes: &[Node<'_>]) -> Result<()> {
    for node in nodes {
        node.kubelet()?;
        node.kube_proxy()?;
    }
    until("the nodes", PATIENCE, async || {
        let mut wait = kubectl(state)?;
        wait.args(["wait", "--for=condition=Ready", "--timeout=60s"]);
        wait.args(nodes.iter().map(|node| format!("node/{}", node.place.name)));
        succeed(&mut wait).await.map(Some)
    })
    .await?;
    until("the default service account", PATIENCE, async || {
        succeed(kubectl(state)?.args(["get", "serviceaccount", "default"])).await.map(Some)
    })
    .await
    .map(drop)
}

/// A node's mount namespace.
pub(crate) struct Node<'a> {
    state: &'a State,
    place: &'static Place,
    holder: Process,
}

impl<'a> Node<'a> {
    async fn hold(state: &'a State, place: &'static Place) -> Result<Self> {
        let folder = state.path(place.name);
        let mut unshare = command("nsenter");
        unshare
            .arg(format!("--net={}", network::path(state, place).display()))
            .args(["--", "unshare", "--mount", "--propagation", "private", "sh"])
            .arg(folder.join("mounts.sh"))
            .arg(&folder)
            .arg(state.root());
        let holder = Process::start(state, &called(place, HOLDER), &unshare)?;
        let ready = folder.join("mounts-ready");
        until("the node's mount namespace", PATIENCE, async || Ok(ready.exists().then_some(()))).await?;
        Ok(Self { state, place, holder })
    }

    async fn containerd(&self) -> Result<()> {
        let mut containerd = enter(&self.holder, &tool("containerd")?);
        containerd.arg("--config").arg(self.path("containerd.toml"));
        self.start("containerd", &containerd)?;
        let socket = format!("/proc/{}/root/run/containerd/containerd.sock", self.holder.pid);
        let socket = PathBuf::from(socket);
        until("containerd", PATIENCE, async || Ok(socket.exists().then_some(()))).await
    }

    fn kubelet(&self) -> Result<()> {
        let Place { name, address, .. } = self.place;
        let mut kubelet = enter(&self.holder, &tool("kubelet")?);
        kubelet
            .arg("--config")
            .arg(self.path("kubelet.yaml"))
            .arg("--kubeconfig")
            .arg(self.state.path(&format!("pki/{name}.kubeconfig")))
            .arg("--root-dir")
            .arg(self.path("kubelet"))
            .args(["--hostname-override", name, "--node-ip", address]);
        self.start("kubelet", &kubelet)
    }

    fn kube_proxy(&self) -> Result<()> {
        let mut proxy = enter(&self.holder, &tool("kube-proxy")?);
        proxy.arg("--config").arg(self.path("kube-proxy.yaml"));
        self.start("kube-proxy", &proxy)
    }

    fn start(&self, part: &str, command: &Command) -> Result<()> {
        Process::start(self.state, &called(self.place, part), command).map(drop)
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.state.path(self.place.name).join(relative)
    }
}

/// What a part of a node is called in the record of processes.
fn called(place: &Place, part: &str) -> String {
    format!("{}/{part}", place.name)
}

/// A command on the first node, where the names of the cluster can be resolved.
pub(crate) fn on_node(state: &State, program: &Path) -> Result<Command> {
    let recorded = Process::recorded(state)?;
    let holder = called(&NODES[0], HOLDER);
    let mut holders = recorded.iter().filter(|process| process.name == holder);
    let holder = holders.next_back().context("the cluster has no node")?;
    Ok(enter(holder, program))
}

/// A command in the namespaces of a node.
fn enter(holder: &Process, program: &Path) -> Command {
    let mut nsenter = command("nsenter");
    nsenter.arg(format!("--target={}", holder.pid)).args(["--mount", "--net", "--"]).arg(program);
    nsenter
}

fn configure(state: &State, place: &Place) -> Result<()> {
    let (folder, cgroup) = (state.path(place.name), Cgroup::of(state)?.path(place));
    let folder = folder.to_string_lossy();
    let blanks = [
        ("@NODE@", &*folder),
        ("@NAME@", place.name),
        ("@PODS@", place.pods),
        ("@REGISTRY@", REGISTRY),
        ("@CGROUP@", &cgroup),
    ];
    for (file, template) in [
        ("containerd.toml", include_str!("../cluster/containerd.toml")),
        ("kubelet.yaml", include_str!("../cluster/kubelet.yaml")),
        ("kube-proxy.yaml", include_str!("../cluster/kube-proxy.yaml")),
        ("cni/pods.conflist", include_str!("../cluster/cni.conflist")),
        ("mounts.sh", include_str!("../cluster/mounts.sh")),
    ] {
        fill(state, &format!("{}/{file}", place.name), template, &blanks)?;
    }
    Ok(())
}

/// Makes the nodes pull images of `registry` (`host:port`, as pods name it) from `address`, without TLS.
pub(crate) fn pull_plainly(state: &State, registry: &str, address: &str) -> Result<()> {
    pull_by(state, registry, &format!("server = \"http://{address}\"\n"))
}

/// Tells the nodes where to ask for images of `registry`, as a `hosts.toml` of containerd does. Takes effect with the
/// next pull.
pub(crate) fn pull_by(state: &State, registry: &str, hosts: &str) -> Result<()> {
    write(&state.path(&format!("certs.d/{registry}/hosts.toml")), hosts)
}
