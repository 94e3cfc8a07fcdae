// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A cluster as a test sees it.
//!
//! The cluster belongs to a keeper process (`stowage-cluster hold`) that takes it down when its standard input closes:
//! so it goes when the test process ends, by whatever end.

use std::cell::RefCell;
use std::env;
use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::control_plane;
use crate::lifecycle::push;
use crate::network::{NODES, within};
use crate::node::{on_node, pull_by, pull_plainly};
use crate::process::{command, succeed};
use crate::services::{Distribution, Postgres, REGISTRY, S3};
use crate::state::State;
use crate::tools::{repository, tool};

/// What the keeper prints when the cluster is up.
pub(crate) const READY: &str = "ready";

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    state: State,
    keeper: Option<Child>,
}

tokio::task_local! {
    /// The namespaces that a claim has made.
    static MADE: RefCell<Vec<String>>;
}

/// Runs a claim about a real cluster, on threads that are in its network. The tests of one process share one cluster,
/// or the one whose state folder `$STOWAGE_CLUSTER` names; when a claim fails, what the cluster knows is printed. The
/// namespaces of one that holds are deleted, since nodes have room for a few registries only.
pub fn on_cluster<F>(claim: impl FnOnce(&'static Cluster) -> F + Send)
where
    F: Future<Output = Result<()>>,
{
    let outcome = Cluster::shared().and_then(|cluster| {
        let outcome = within(&cluster.state, || {
            MADE.scope(RefCell::default(), async {
                claim(cluster).await?;
                for namespace in MADE.with(RefCell::take) {
                    cluster.kubectl(["delete", "namespace", &namespace, "--wait=false"]).await?;
                }
                Ok(())
            })
        });
        outcome.with_context(|| cluster.diagnosis())
    });
    if let Err(error) = outcome {
        panic_with(&error);
    }
}

#[expect(clippy::panic, reason = "this is how a test fails")]
fn panic_with(error: &anyhow::Error) -> ! {
    panic!("{error:?}")
}

impl Cluster {
    /// Starts a cluster of its own for the caller, with its state in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let state = State::at(folder)?;
        let mut keeper = std::process::Command::new(keeper_program()?)
            .args(["hold", "--state"])
            .arg(state.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the keeper of the cluster")?;
        let mut said = String::new();
        let answers = keeper.stdout.take().context("listen to the keeper")?;
        BufReader::new(answers).read_line(&mut said).context("listen to the keeper")?;
        if said.trim_end() != READY {
            let mut reason = String::new();
            let errors = keeper.stderr.as_mut().context("listen to the keeper")?;
            errors.read_to_string(&mut reason).context("listen to the keeper")?;
            keeper.wait().context("wait for the keeper")?;
            bail!("the cluster did not come up: {reason}");
        }
        Ok(Self { state, keeper: Some(keeper) })
    }

    /// The cluster that the tests of this process share.
    fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            if let Some(folder) = env::var_os("STOWAGE_CLUSTER") {
                return Self::attach(Path::new(&folder));
            }
            let states = repository().join(".state");
            forget_ended_tests(&states);
            Self::start(&states.join(format!("test-{}", std::process::id())))
        });
        shared.as_ref().map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    /// The cluster that runs in `folder`, which somebody else takes down.
    pub fn attach(folder: &Path) -> Result<Self> {
        let state = State::at(folder)?;
        if !state.kubeconfig().exists() {
            bail!("no cluster runs in {}", folder.display());
        }
        Ok(Self { state, keeper: None })
    }

    /// Kills the keeper, as the machine might: the cluster runs on, and `stowage-cluster down` takes it down.
    pub fn kill_keeper(mut self) -> Result<()> {
        let Some(mut keeper) = self.keeper.take() else {
            return Ok(());
        };
        keeper.kill().context("kill the keeper")?;
        keeper.wait().context("wait for the keeper").map(drop)
    }

    /// Takes the cluster down and waits for that; an error tells what could not be undone.
    pub fn down(mut self) -> Result<()> {
        self.dismiss()
    }

    fn dismiss(&mut self) -> Result<()> {
        let Some(mut keeper) = self.keeper.take() else {
            return Ok(());
        };
        drop(keeper.stdin.take());
        let mut reason = String::new();
        if let Some(errors) = keeper.stderr.as_mut() {
            errors.read_to_string(&mut reason).context("listen to the keeper")?;
        }
        if !keeper.wait().context("wait for the keeper")?.success() {
            bail!("the cluster was not taken down: {reason}");
        }
        Ok(())
    }

    /// Where everything of the cluster is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its Postgres server.
    #[must_use]
    pub fn postgres(&self) -> Postgres<'_> {
        Postgres::of(&self.state)
    }

    /// A Postgres server that a test may crash, on a port of its own. The test starts it.
    #[must_use]
    pub fn own_postgres(&self, owner: &'static str, port: u16) -> Postgres<'_> {
        Postgres::of_a_test(&self.state, owner, port)
    }

    /// An S3 server that a test may crash, on a port of its own. The test starts it.
    #[must_use]
    pub fn own_s3(&self, owner: &str, port: u16) -> S3<'_> {
        S3::of_a_test(&self.state, owner, port)
    }

    /// A registry that is not ours, and that a test may crash, on a port of its own. The test starts it.
    #[must_use]
    pub fn own_distribution(&self, owner: &'static str, port: u16) -> Distribution<'_> {
        Distribution::of_a_test(&self.state, owner, port)
    }

    /// Its S3 server.
    #[must_use]
    pub fn s3(&self) -> S3<'_> {
        S3::of(&self.state)
    }

    /// Runs `kubectl` as the administrator and returns what it prints.
    pub async fn kubectl<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        succeed(control_plane::kubectl(&self.state)?.args(arguments)).await
    }

    /// Runs `helm` as the administrator and returns what it prints.
    pub async fn helm<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        succeed(control_plane::helm(&self.state)?.args(arguments)).await
    }

    /// Asks `kubectl` for objects as JSON.
    pub async fn get<const N: usize>(&self, arguments: [&str; N]) -> Result<Value> {
        let mut get = control_plane::kubectl(&self.state)?;
        let printed = succeed(get.args(["get", "--output=json"]).args(arguments)).await?;
        serde_json::from_str(&printed).context("read what kubectl printed")
    }

    /// Applies a manifest, given as text, in a namespace.
    pub async fn apply_in(&self, namespace: &str, manifest: &str) -> Result<String> {
        let file = tempfile(&self.state, manifest)?;
        let path = file.to_string_lossy();
        let applied = self.kubectl(["apply", "--namespace", namespace, "--filename", &path]).await;
        std::fs::remove_file(&file).context("remove the manifest")?;
        applied
    }

    /// Makes a namespace that no other test has. That of a claim goes with it.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let manifest =
            format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"generateName":"{prefix}-"}}}}"#);
        let name = self.create(&["--output=jsonpath={.metadata.name}"], &manifest).await?;
        let _there_is_no_claim_to_go_with = MADE.try_with(|made| made.borrow_mut().push(name.clone()));
        Ok(name)
    }

    /// Posts an object to a path of the API, as to a subresource; what the server answers.
    pub async fn post(&self, path: &str, object: &str) -> Result<String> {
        self.create(&["--raw", path], object).await
    }

    async fn create(&self, options: &[&str], object: &str) -> Result<String> {
        let file = tempfile(&self.state, object)?;
        let mut create = control_plane::kubectl(&self.state)?;
        let answer = succeed(create.arg("create").args(options).arg("--filename").arg(&file)).await;
        std::fs::remove_file(&file).context("remove the manifest")?;
        answer
    }

    /// Pushes an image layout to the registry that nodes pull from; returns the reference a pod names it by.
    pub async fn publish(&self, layout: &Path, name: &str) -> Result<String> {
        let reference = format!("{REGISTRY}/{name}");
        push(layout, &reference).await?;
        Ok(reference)
    }

    /// A command that can resolve the names of the cluster, as a node can.
    pub fn command(&self, program: &Path) -> Result<Command> {
        on_node(&self.state, program)
    }

    /// The same with a pinned tool as its program.
    pub fn client(&self, name: &str) -> Result<Command> {
        self.command(&tool(name)?)
    }

    /// Makes the nodes pull images of `registry` (`host:port`, as pods name it) from `address`, without TLS.
    pub fn pull_plainly(&self, registry: &str, address: &str) -> Result<()> {
        pull_plainly(&self.state, registry, address)
    }

    /// Lets the nodes ask others for images of `registry`, as a `hosts.toml` says.
    pub fn pull_by(&self, registry: &str, hosts: &str) -> Result<()> {
        pull_by(&self.state, registry, hosts)
    }

    /// The address of the registry that nodes pull their first images from.
    #[must_use]
    pub fn images(&self) -> &'static str {
        REGISTRY
    }

    /// The names of its nodes.
    #[must_use]
    pub fn nodes(&self) -> [&'static str; NODES.len()] {
        NODES.each_ref().map(|node| node.name)
    }

    /// What to read when a test failed: pods, events, and the ends of logs.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let questions: [&[&str]; 3] = [
            &["get", "pods", "--all-namespaces", "--output=wide"],
            &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
            &["get", "deployments,jobs,services", "--all-namespaces"],
        ];
        let answers = within(&self.state, || async {
            let mut parts = Vec::new();
            for question in questions {
                let answer = succeed(control_plane::kubectl(&self.state)?.args(question)).await;
                parts.push(section(&format!("kubectl {}", question.join(" ")), answer));
            }
            parts.extend(self.pod_logs().await);
            Ok(parts.concat())
        });
        answers.unwrap_or_else(|error| format!("no diagnosis: {error:#}"))
    }

    async fn pod_logs(&self) -> Vec<String> {
        let mut find = command("find");
        find.args(NODES.iter().map(|node| self.state.path(node.name).join("pods")));
        find.args(["-name", "*.log", "-size", "+0"]);
        let files = succeed(&mut find).await.unwrap_or_default();
        let mut parts = Vec::new();
        for file in files.lines() {
            parts.push(section(file, succeed(command("tail").args(["-n", "30", file])).await));
        }
        parts
    }
}

/// A part of the diagnosis. What could not be found out is part of it.
fn section(title: &str, text: Result<String>) -> String {
    format!("--- {title}\n{}", text.unwrap_or_else(|error| format!("{error:#}\n")))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _said_by_the_keeper = self.dismiss();
    }
}

/// The binary beside the test's own.
fn keeper_program() -> Result<PathBuf> {
    let own = env::current_exe().context("find the running program")?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("stowage-cluster"));
    let mut found = beside.filter(|path| path.is_file());
    found.next().context("stowage-cluster is not built: `cargo build -p stowage-e2e` builds it")
}

/// Removes what earlier tests left of their clusters: the logs of those that are down.
fn forget_ended_tests(states: &Path) {
    for entry in std::fs::read_dir(states).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What stands between is what the test's own cluster is for.
        let Some(pid) = name.strip_prefix("test-").and_then(|rest| rest.rsplit('-').next()) else { continue };
        let runs = Path::new("/proc").join(pid).exists() || entry.path().join("processes").exists();
        if !runs {
            let _another_run_may_be_faster = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A file of the state folder that no other test writes to.
fn tempfile(state: &State, text: &str) -> Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = state.path(&format!("manifests/{}-{number}.yaml", std::process::id()));
    crate::files::write(&path, text)?;
    Ok(path)
}
