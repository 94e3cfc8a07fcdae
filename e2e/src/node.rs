// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The node: containerd, kubelet and kube-proxy, in a mount namespace of their own.
//!
//! The namespace is held open by one sleeping process. `/run` and the folders under `/var` that they write to are in
//! memory there, so the machine's own container runtime, if it has one, is never met.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::cgroup::Cgroup;
use crate::control_plane::kubectl;
use crate::files::{fill, write};
use crate::network::{DNS_ADDRESS, NODE_ADDRESS};
use crate::process::{Process, command, succeed};
use crate::services::REGISTRY;
use crate::state::State;
use crate::tools::tool;
use crate::wait::until;

/// The process that holds the node's mount namespace open.
const HOLDER: &str = "mounts";

const PATIENCE: Duration = Duration::from_mins(2);

/// The node's container runtime, which needs no API server.
pub(crate) async fn start_runtime(state: &State) -> Result<Node<'_>> {
    configure(state)?;
    let node = Node::hold(state).await?;
    node.containerd().await?;
    Ok(node)
}

/// The node's mount namespace.
pub(crate) struct Node<'a> {
    state: &'a State,
    holder: Process,
}

impl<'a> Node<'a> {
    async fn hold(state: &'a State) -> Result<Self> {
        let mut unshare = command("unshare");
        unshare
            .args(["--mount", "--propagation", "private", "sh"])
            .arg(state.path("mounts.sh"))
            .arg(state.root());
        let holder = Process::start(state, HOLDER, &unshare)?;
        let ready = state.path("mounts-ready");
        until("the node's mount namespace", PATIENCE, async || Ok(ready.exists().then_some(()))).await?;
        Ok(Self { state, holder })
    }

    async fn containerd(&self) -> Result<()> {
        let mut containerd = self.enter(&tool("containerd")?);
        containerd.arg("--config").arg(self.state.path("containerd.toml"));
        Process::start(self.state, "containerd", &containerd)?;
        let socket = format!("/proc/{}/root/run/containerd/containerd.sock", self.holder.pid);
        let socket = PathBuf::from(socket);
        until("containerd", PATIENCE, async || Ok(socket.exists().then_some(()))).await
    }

    /// Joins the cluster; returns when the node is ready for pods.
    pub(crate) async fn join(&self) -> Result<()> {
        self.kubelet()?;
        self.kube_proxy()?;
        until("the node", PATIENCE, async || {
            let mut wait = kubectl(self.state)?;
            wait.args(["wait", "--for=condition=Ready", "node/node", "--timeout=60s"]);
            succeed(&mut wait).await.map(Some)
        })
        .await?;
        until("the default service account", PATIENCE, async || {
            succeed(kubectl(self.state)?.args(["get", "serviceaccount", "default"])).await.map(Some)
        })
        .await
        .map(drop)
    }

    fn kubelet(&self) -> Result<()> {
        let mut kubelet = self.enter(&tool("kubelet")?);
        kubelet
            .arg("--config")
            .arg(self.state.path("kubelet.yaml"))
            .arg("--kubeconfig")
            .arg(self.state.path("pki/node.kubeconfig"))
            .arg("--root-dir")
            .arg(self.state.path("kubelet"))
            .args(["--hostname-override=node", "--node-ip", NODE_ADDRESS]);
        Process::start(self.state, "kubelet", &kubelet).map(drop)
    }

    fn kube_proxy(&self) -> Result<()> {
        let mut proxy = self.enter(&tool("kube-proxy")?);
        proxy.arg("--config").arg(self.state.path("kube-proxy.yaml"));
        Process::start(self.state, "kube-proxy", &proxy).map(drop)
    }

    /// A command in the node's mount namespace; the network is that of the calling thread.
    fn enter(&self, program: &Path) -> Command {
        enter(&self.holder, program)
    }
}

/// A command in the node's mount namespace, where the names of the cluster can be resolved.
pub(crate) fn on_node(state: &State, program: &Path) -> Result<Command> {
    let recorded = Process::recorded(state)?;
    let mut holders = recorded.iter().filter(|process| process.name == HOLDER);
    let holder = holders.next_back().context("the cluster has no node")?;
    Ok(enter(holder, program))
}

fn enter(holder: &Process, program: &Path) -> Command {
    let mut nsenter = command("nsenter");
    nsenter.arg(format!("--target={}", holder.pid)).arg("--mount").arg("--").arg(program);
    nsenter
}

fn configure(state: &State) -> Result<()> {
    let cgroup = Cgroup::of(state)?.path();
    let blanks = [("@REGISTRY@", REGISTRY), ("@CGROUP@", cgroup.as_str())];
    for (file, template) in [
        ("containerd.toml", include_str!("../cluster/containerd.toml")),
        ("kubelet.yaml", include_str!("../cluster/kubelet.yaml")),
        ("kube-proxy.yaml", include_str!("../cluster/kube-proxy.yaml")),
        ("cni/pods.conflist", include_str!("../cluster/cni.conflist")),
        ("mounts.sh", include_str!("../cluster/mounts.sh")),
    ] {
        fill(state, file, template, &blanks)?;
    }
    write(&state.path("resolv.conf"), &format!("nameserver {DNS_ADDRESS}\n"))?;
    // Names such as `main.default.svc` are short for names in the cluster's domain.
    let names = format!("nameserver {NODE_ADDRESS}\nsearch cluster.local\noptions ndots:5\n");
    write(&state.path("node-resolv.conf"), &names)?;
    // Images with no registry in their name come from ours too.
    pull_plainly(state, "docker.io", REGISTRY)?;
    pull_plainly(state, REGISTRY, REGISTRY)
}

/// Makes the node pull images of `registry` (`host:port`, as pods name it) from `address`, without TLS. Takes effect
/// with the next pull.
pub(crate) fn pull_plainly(state: &State, registry: &str, address: &str) -> Result<()> {
    let hosts = format!("server = \"http://{address}\"\n");
    write(&state.path(&format!("certs.d/{registry}/hosts.toml")), &hosts)
}
