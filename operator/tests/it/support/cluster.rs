// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager. No nodes.
//!
//! Started by the first test that asks and ended when the last one lets go. The binaries are looked for in
//! `STOWAGE_TOOLS`, else in `target/tools/bin`; without them a test fails, unless `STOWAGE_E2E=off`.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::Value;
use stowage_crds::{Kind, crd};
use tempfile::TempDir;
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

const ADMIN: &str = "admin-token";
const OPERATOR: &str = "operator-token";
const PATIENCE: Duration = Duration::from_mins(1);

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// A control plane.
#[derive(Debug)]
pub(crate) struct Cluster {
    url: String,
    // In the order in which they must end: the API server before etcd.
    processes: Mutex<Vec<Child>>,
    folder: TempDir,
}

/// The control plane, or nothing when it was switched off by hand.
pub(crate) async fn shared() -> Option<Arc<Cluster>> {
    if std::env::var("STOWAGE_E2E").is_ok_and(|value| value == "off") {
        return None;
    }
    let (cluster, is_new) = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            (running, false)
        } else {
            let started = Arc::new(Cluster::start());
            *shared = Arc::downgrade(&started);
            (started, true)
        }
    };
    timeout(PATIENCE, cluster.ready(is_new))
        .await
        .unwrap_or_else(|_| panic!("no API server: {}", cluster.log()));
    Some(cluster)
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(
            at("tokens.csv"),
            format!("{ADMIN},admin,1,system:masters\n{OPERATOR},system:serviceaccount:stowage-system:stowage-operator,2\n"),
        )
        .unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(at("sa.pem"), key.serialize_pem()).unwrap();
        fs::write(at("sa.pub"), key.public_key_pem()).unwrap();
        let [etcd, peer, api] = free_ports();
        let url = format!("https://127.0.0.1:{api}");
        fs::write(at("kubeconfig"), kubeconfig(&url, ADMIN)).unwrap();
        fs::write(at("operator.kubeconfig"), kubeconfig(&url, OPERATOR)).unwrap();
        let etcd_url = format!("http://127.0.0.1:{etcd}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let etcd = spawn(
            folder.path(),
            "etcd",
            &[
                "--unsafe-no-fsync".into(),
                format!("--data-dir={}", at("etcd-data").display()),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster=default={peer_url}"),
                "--log-level=error".into(),
            ],
        );
        let api = spawn(
            folder.path(),
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd_url}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                "--endpoint-reconciler-type=none".into(),
                format!("--secure-port={api}"),
                format!("--cert-dir={}", at("certs").display()),
                format!("--token-auth-file={}", at("tokens.csv").display()),
                "--authorization-mode=RBAC".into(),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                "--service-account-issuer=https://127.0.0.1".into(),
                format!("--service-account-key-file={}", at("sa.pub").display()),
                format!("--service-account-signing-key-file={}", at("sa.pem").display()),
                "--disable-admission-plugins=ServiceAccount".into(),
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
            ],
        );
        Self { url, processes: Mutex::new(vec![api, etcd]), folder }
    }

    /// A client with every right.
    pub(crate) fn admin(&self) -> Client {
        Client::try_from(self.config(ADMIN)).unwrap()
    }

    /// How the operator's own `ServiceAccount` connects, with the rights that ship.
    pub(crate) fn operator(&self) -> Config {
        self.config(OPERATOR)
    }

    /// A client of somebody who has the rights that are given to this name, and no other.
    pub(crate) fn user(&self, name: &str) -> Client {
        let mut config = self.config(ADMIN);
        config.auth_info.impersonate = Some(name.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
        Client::try_from(config).unwrap()
    }

    /// `kubectl` with every right.
    pub(crate) fn kubectl(&self, args: &[&str]) -> std::process::Output {
        Command::new(tools().join("kubectl"))
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(args)
            .output()
            .unwrap()
    }

    /// How the operator connects, as a file for a process.
    pub(crate) fn operator_kubeconfig(&self) -> PathBuf {
        self.folder.path().join("operator.kubeconfig")
    }

    fn config(&self, token: &str) -> Config {
        // Many crates of a test binary may bring a provider; the first one stays.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut config = Config::new(self.url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(token.to_owned().into());
        config
    }

    async fn ready(&self, is_new: bool) {
        let client = self.admin();
        while client.apiserver_version().await.is_err() {
            sleep(Duration::from_millis(200)).await;
        }
        if is_new {
            install(&client).await;
            self.start_controllers();
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for kind in Kind::ALL {
            let name = crd(kind).name_any();
            while !established(definitions.get_opt(&name).await.unwrap()) {
                sleep(Duration::from_millis(100)).await;
            }
        }
        let roles = object_api(&client, "rbac.authorization.k8s.io", "RoleBinding", Some("stowage-system"));
        while roles.get_opt("stowage-operator-lease").await.unwrap().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        // The binding is in force a moment after it exists.
        let operator: Api<stowage_crds::Registry> = Api::all(Client::try_from(self.operator()).unwrap());
        while operator.list(&kube::api::ListParams::default().limit(1)).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Later than the server: they give up on one that is not there yet.
    fn start_controllers(&self) {
        let folder = self.folder.path();
        let controllers = spawn(
            folder,
            "kube-controller-manager",
            &[
                format!("--kubeconfig={}", folder.join("kubeconfig").display()),
                "--leader-elect=false".into(),
                "--secure-port=0".into(),
                format!(
                    "--controllers={}",
                    "deployment-controller,replicaset-controller,job-controller,cronjob-controller,\
                 garbage-collector-controller,namespace-controller,horizontal-pod-autoscaler-controller,\
                 clusterrole-aggregation-controller"
                ),
            ],
        );
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).insert(0, controllers);
    }

    fn log(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            text.lines().rev().take(15).collect::<Vec<_>>().join("\n")
        };
        format!("etcd:\n{}\nkube-apiserver:\n{}", tail("etcd.log"), tail("kube-apiserver.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.get_mut().unwrap_or_else(PoisonError::into_inner) {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn established(definition: Option<CustomResourceDefinition>) -> bool {
    let conditions = definition.and_then(|definition| definition.status).and_then(|status| status.conditions);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// The definitions and the roles, as they ship.
async fn install(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in Kind::ALL {
        let definition = crd(kind);
        let apply = PatchParams::apply("test").force();
        definitions.patch(&definition.name_any(), &apply, &Patch::Apply(&definition)).await.unwrap();
    }
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    for file in [
        "manager/namespace.yaml",
        "rbac/operator.yaml",
        "rbac/usage.yaml",
        "rbac/users.yaml",
        "admission/secret-references.yaml",
        "admission/promotions.yaml",
    ] {
        let text = fs::read_to_string(config.join(file)).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for document in documents.iter().filter(|document| !document.is_null()) {
            let of = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
            let group = of("/apiVersion").unwrap().split_once('/').map_or("", |(group, _)| group);
            let api = object_api(client, group, of("/kind").unwrap(), of("/metadata/namespace"));
            let apply = PatchParams::apply("test").force();
            api.patch(of("/metadata/name").unwrap(), &apply, &Patch::Apply(document)).await.unwrap();
        }
    }
}

/// Objects of a kind whose version is `v1` and whose plural is regular.
pub(crate) fn object_api(
    client: &Client,
    group: &str,
    kind: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn kubeconfig(url: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters:\n- name: t\n  cluster: {{server: '{url}', \
         insecure-skip-tls-verify: true}}\nusers:\n- name: t\n  user: {{token: {token}}}\ncontexts:\n- name: t\n  \
         context: {{cluster: t, user: t}}\n"
    )
}

/// Ports for what is started: as long as this process runs, the system gives them to nobody who asks for any port.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    static KEPT: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    [(); COUNT].map(|()| {
        let socket = TcpSocket::new_v4().unwrap();
        // Two may be bound to a port where both say so and one of them does not listen.
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        KEPT.lock().unwrap().push(socket);
        port
    })
}

fn spawn(folder: &Path, name: &str, args: &[String]) -> Child {
    let log = File::create(folder.join(format!("{name}.log"))).unwrap();
    let program = tools().join(name);
    Command::new(&program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; build the tools, or switch these tests off with STOWAGE_E2E=off",
                program.display()
            )
        })
}

fn tools() -> PathBuf {
    if let Some(folder) = std::env::var_os("STOWAGE_TOOLS") {
        return folder.into();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(|target| PathBuf::from(target).join("tools/bin"));
    target.filter(|folder| folder.exists()).unwrap_or(here)
}
