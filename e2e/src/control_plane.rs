// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! etcd, the API server, the controllers and the scheduler.

use std::time::Duration;

use anyhow::Result;
use tokio::process::Command;

use crate::network::NODE_ADDRESS;
use crate::process::{Process, command, succeed};
use crate::state::State;
use crate::tools::tool;
use crate::wait::until;

/// Where the API server listens.
pub(crate) const ADDRESS: &str = "10.200.0.1:16443";
/// The same for its clients.
pub(crate) const SERVER: &str = "https://10.200.0.1:16443";

const SERVICES: &str = "10.96.0.0/16";
const PODS: &str = "10.244.0.0/16";

/// Starts the control plane; returns when the API server is ready and the others run.
pub(crate) async fn start(state: &State) -> Result<()> {
    etcd(state)?;
    apiserver(state)?;
    until("the API server", Duration::from_mins(4), async || {
        succeed(kubectl(state)?.args(["get", "--raw", "/readyz"])).await.map(Some)
    })
    .await?;
    controller_manager(state)?;
    scheduler(state)
}

/// `kubectl` as the cluster's administrator.
pub(crate) fn kubectl(state: &State) -> Result<Command> {
    let mut kubectl = command(tool("kubectl")?);
    kubectl.env("KUBECONFIG", state.kubeconfig());
    Ok(kubectl)
}

/// `helm` as the cluster's administrator.
pub(crate) fn helm(state: &State) -> Result<Command> {
    let mut helm = command(tool("helm")?);
    helm.env("KUBECONFIG", state.kubeconfig());
    for (variable, folder) in [("CACHE", "cache"), ("CONFIG", "config"), ("DATA", "data")] {
        helm.env(format!("HELM_{variable}_HOME"), state.path(&format!("helm/{folder}")));
    }
    Ok(helm)
}

fn etcd(state: &State) -> Result<()> {
    let mut etcd = command(tool("etcd")?);
    etcd.arg("--data-dir").arg(state.path("etcd")).args([
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ]);
    Process::start(state, "etcd", &etcd).map(drop)
}

fn apiserver(state: &State) -> Result<()> {
    let pki = |file: &str| state.path("pki").join(file).display().to_string();
    let mut apiserver = command(tool("kube-apiserver")?);
    apiserver.args([
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={NODE_ADDRESS}"),
        "--secure-port=16443".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("admin.crt")),
        format!("--kubelet-client-key={}", pki("admin.key")),
        // Without it `kubectl logs` and `exec` look the node up by its host name.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", pki("accounts.pub")),
        format!("--service-account-signing-key-file={}", pki("accounts.key")),
    ]);
    Process::start(state, "kube-apiserver", &apiserver).map(drop)
}

fn controller_manager(state: &State) -> Result<()> {
    let pki = |file: &str| state.path("pki").join(file).display().to_string();
    let mut manager = command(tool("kube-controller-manager")?);
    manager.args([
        format!("--kubeconfig={}", pki("kube-controller-manager.kubeconfig")),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials".to_owned(),
        "--allocate-node-cidrs".to_owned(),
        format!("--cluster-cidr={PODS}"),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("accounts.key")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
    ]);
    Process::start(state, "kube-controller-manager", &manager).map(drop)
}

fn scheduler(state: &State) -> Result<()> {
    let mut scheduler = command(tool("kube-scheduler")?);
    scheduler
        .arg("--kubeconfig")
        .arg(state.path("pki/kube-scheduler.kubeconfig"))
        .arg("--leader-elect=false");
    Process::start(state, "kube-scheduler", &scheduler).map(drop)
}
