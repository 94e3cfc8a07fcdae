// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program itself: its exit codes, its probes, its lease.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::support::{
    cluster::{Cluster, free_ports},
    scene::Scene,
    scene::wait,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stowage-operator");

fn run(args: &[&str], input: &str) -> Output {
    run_with(&[], args, input)
}

fn run_with(variables: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut child = Command::new(PROGRAM)
        .envs(variables.iter().copied())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_definitions_are_printed_as_they_ship() {
    let output = run(&["crds"], "");
    assert!(output.status.success());
    let printed: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    assert_eq!(printed.len(), stowage_crds::Kind::ALL.len());
}

#[test]
fn render_prints_objects_and_names_what_is_wrong() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shared/in.yaml");
    let good = std::fs::read_to_string(case).unwrap();
    let output = run(&["render", "-f", "-"], &good);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("kind: Deployment"));

    let output = run(&["render", "-f", "-"], &good.replace("bucket: blobs", "bucket: blobs\n      buket: x"));
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("document 1") && said.contains("spec.storage.s3.buket"), "{said}");
}

#[test]
fn what_to_render_can_be_said_by_the_environment() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/full/in.yaml");
    let file = case.to_str().unwrap();
    let by_flags = run(&["render", "--file", file, "--apis", "gateway,monitoring"], "");
    let variables = [("STOWAGE_FILE", file), ("STOWAGE_APIS", "gateway,monitoring")];
    let by_variables = run_with(&variables, &["render"], "");
    assert!(by_variables.status.success(), "{by_variables:?}");
    assert!(String::from_utf8_lossy(&by_variables.stdout).contains("kind: ServiceMonitor"));
    assert_eq!(by_variables.stdout, by_flags.stdout);
}

#[test]
fn o27_a_filter_of_the_log_that_says_nothing_is_refused() {
    for (filter, named) in [("warning", "warning"), ("info,stowage_operator=loud", "loud")] {
        let output = run_with(&[("STOWAGE_LOG", filter)], &["crds"], "");
        assert_eq!(output.status.code(), Some(2), "{filter}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(named), "{filter}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn bad_usage_is_exit_two() {
    for args in [&["run"][..], &["run", "--registry-image", "a b"], &["render"], &["sail"]] {
        assert_eq!(run(args, "").status.code(), Some(2), "{args:?}");
    }
    assert!(run(&["--version"], "").status.success());
    assert!(run(&["--help"], "").status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ships_is_accepted_by_a_server_and_asks_for_the_restricted_standard() {
    let Some(scene) = Scene::set().await else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = root.join("config");
    for apply in [&["apply", "--server-side", "--force-conflicts"][..], &["apply"]] {
        let args = [apply, &["--dry-run=server", "-k", config.to_str().unwrap()]].concat();
        let output = scene.cluster.kubectl(&args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("would violate PodSecurity"), "{said}");
    }
    for sample in [
        "registry-s3.yaml",
        "registry-filesystem.yaml",
        "accesspolicy.yaml",
        "mirror-dockerhub.yaml",
        "mirror-replicate.yaml",
        "virtualrepository.yaml",
    ] {
        let file = config.join("samples").join(sample);
        let args = ["apply", "--dry-run=server", "-n", &scene.namespace, "-f", file.to_str().unwrap()];
        let output = scene.cluster.kubectl(&args);
        assert!(output.status.success(), "{sample}: {}", String::from_utf8(output.stderr).unwrap());
    }
}

struct Operator {
    child: Child,
    port: u16,
}

impl Operator {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let [port] = free_ports();
        let child = Command::new(PROGRAM)
            .args(["run", "--leader-elect", "--watch-namespaces", "none", "--registry-image", "a/b:1"])
            .arg(format!("--ops-listen=127.0.0.1:{port}"))
            .env("KUBECONFIG", cluster.operator_kubeconfig())
            .env("POD_NAME", name)
            .env("STOWAGE_LOG", "warn")
            .spawn()
            .unwrap();
        Self { child, port }
    }

    async fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn is_ready(&self) -> bool {
        self.get("/readyz").await.contains("200 OK")
    }

    fn leads(metrics: &str) -> bool {
        metrics.contains("stowage_operator_leader 1")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_and_takes_over_when_the_leader_is_told_to_end() {
    let Some(scene) = Scene::set().await else { return };
    let mut first = Operator::start(&scene.cluster, "first");
    assert!(wait(async || Operator::leads(&first.get("/metrics").await)).await);
    assert!(wait(async || first.is_ready().await).await);
    let mut second = Operator::start(&scene.cluster, "second");
    assert!(wait(async || second.is_ready().await).await);
    sleep(Duration::from_secs(3)).await;
    assert!(!Operator::leads(&second.get("/metrics").await), "only one leads");

    let pid = first.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(wait(async || first.child.try_wait().unwrap().is_some()).await);
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
    assert!(wait(async || Operator::leads(&second.get("/metrics").await)).await);
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), "stowage-system");
    let holder = leases.get("stowage-operator").await.unwrap().spec.unwrap().holder_identity.unwrap();
    assert!(holder.starts_with("second_"), "{holder}");

    // A leader that finds another name in the lease ends, and says so with its exit code.
    let patch = serde_json::json!({ "spec": { "holderIdentity": "thief" } });
    let params = kube::api::PatchParams::default();
    leases.patch("stowage-operator", &params, &kube::api::Patch::Merge(patch)).await.unwrap();
    assert!(wait(async || second.child.try_wait().unwrap().is_some()).await);
    assert_eq!(second.child.wait().unwrap().code(), Some(1));
}
