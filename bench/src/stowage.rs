// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Stowage: what it is told of where its storage is, how it is started, and how its commands are run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use serde_json::{Map, Value, json};

use crate::measure::Memory;
use crate::servers::{
    ACCESS_KEY, Programs, Registry, SECRET_KEY, Storage, folder, free_address, guarded, write,
};
use crate::tls::Tls;

/// The name of the resource.
const REGISTRY: &str = "bench";
/// How often it is looked at how much memory a command has.
const LOOK: Duration = Duration::from_millis(20);

/// Stowage as it comes, access log off, on some storage: any of its commands can be run.
#[derive(Clone, Debug)]
pub(crate) struct Stowage {
    program: PathBuf,
    flags: Vec<PathBuf>,
    home: PathBuf,
    address: String,
}

impl Stowage {
    pub(crate) fn prepare(
        tls: Option<&Tls>,
        programs: &Programs,
        storage: &Storage,
        database: Option<&str>,
        home: &Path,
        address: &str,
        more: Option<&More>,
    ) -> Result<Self> {
        let data = match storage {
            Storage::Filesystem(folder) => folder.clone(),
            Storage::S3 { .. } => home.join("data"),
        };
        let mut flags = vec!["--data-dir".into(), data];
        // Plain HTTP on files is what it does without being told.
        if tls.is_some() || matches!(storage, Storage::S3 { .. }) || more.is_some() {
            let (config, secrets) = stowage_resources(tls, storage, database, home, address, more)?;
            flags.extend(["--config".into(), config, "--secrets-dir".into(), secrets]);
        }
        let (program, home, address) = (programs.stowage.clone(), home.to_owned(), address.to_owned());
        Ok(Self { program, flags, home, address })
    }

    /// On a free port, with a mirror of each of these upstreams.
    pub(crate) fn mirroring(
        programs: &Programs,
        storage: &Storage,
        database: Option<&str>,
        home: &Path,
        upstreams: &[String],
    ) -> Result<Self> {
        let mirrors = upstreams.iter().enumerate().map(|(number, url)| {
            let path = Self::mirror_path(number);
            let spec = json!({
                "path": path, "mode": "PullThrough", "upstream": { "url": url, "network": "Any" },
            });
            resource("Mirror", &path, spec)
        });
        let more = More { resources: mirrors.collect(), ..More::default() };
        Self::with(programs, storage, database, home, Some(&more))
    }

    /// Where the repositories of the upstream of this number are.
    pub(crate) fn mirror_path(number: usize) -> String {
        format!("upstream-{number}")
    }

    /// On a free port.
    pub(crate) fn on(
        programs: &Programs,
        storage: &Storage,
        database: Option<&str>,
        home: &Path,
    ) -> Result<Self> {
        Self::with(programs, storage, database, home, None)
    }

    /// The same, told more.
    pub(crate) fn with(
        programs: &Programs,
        storage: &Storage,
        database: Option<&str>,
        home: &Path,
        more: Option<&More>,
    ) -> Result<Self> {
        Self::prepare(None, programs, storage, database, &folder(home.to_owned())?, &free_address()?, more)
    }

    pub(crate) fn serve(&self) -> Result<Command> {
        let mut serve = guarded(&self.program, None);
        serve.env("STOWAGE_LOG", "warn").arg("serve").args(&self.flags);
        serve.args(["--listen", &self.address]);
        serve.args(["--ops-listen", &free_address()?, "--admin-listen", &free_address()?]);
        Ok(serve)
    }

    /// Starts to serve; returns when it answers.
    pub(crate) async fn start(&self) -> Result<Registry> {
        Registry::from_command(None, self.serve()?, &self.home, self.address.clone()).await
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Done> {
        let mut command = guarded(&self.program, None);
        command
            .args(words)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("run {words:?}"))?;
        let (pid, mut peak) = (Pid::from_child(&child), 0);
        let (ended, end) = mpsc::channel();
        // Nobody is left to be told when the benchmark ends first.
        thread::spawn(move || drop(ended.send(child.wait_with_output())));
        let output = loop {
            match end.recv_timeout(LOOK) {
                Ok(output) => break output.with_context(|| format!("run {words:?}"))?,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    peak = Memory::of(pid).map_or(peak, |memory| peak.max(memory.peak));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{words:?}: nobody waits for it"),
            }
        };
        if !output.status.success() {
            bail!("{words:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Done { printed: String::from_utf8_lossy(&output.stdout).into_owned(), peak })
    }
}

/// A command that has ended.
pub(crate) struct Done {
    pub(crate) printed: String,
    /// The most memory that was resident in it, in bytes; 0 of one that ended too soon to be looked at.
    pub(crate) peak: u64,
}

/// What a registry is told beside what its storage is.
#[derive(Clone, Debug, Default)]
pub(crate) struct More {
    /// Fields of the specification of its `Registry`.
    pub(crate) spec: Map<String, Value>,
    pub(crate) resources: Vec<Value>,
}

/// A resource of the registry.
pub(crate) fn resource(kind: &str, name: &str, mut spec: Value) -> Value {
    spec["registryRef"] = json!({ "name": REGISTRY });
    json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    })
}

/// The `Registry` resource and its Secrets, as files.
fn stowage_resources(
    tls: Option<&Tls>,
    storage: &Storage,
    database: Option<&str>,
    home: &Path,
    address: &str,
    more: Option<&More>,
) -> Result<(PathBuf, PathBuf)> {
    let secrets = folder(home.join("secrets"))?;
    let More { spec, resources } = more.cloned().unwrap_or_default();
    // Without `auth` a registry that listens on this machine alone is open to all, its catalog too.
    let mut spec = Value::Object(spec);
    match storage {
        Storage::Filesystem(_) => {
            spec["storage"] = json!({ "filesystem": {} });
            spec["database"] = json!({ "sqlite": {} });
        }
        Storage::S3 { endpoint, bucket } => {
            let database = database.context("Stowage on S3 needs a Postgres")?;
            let s3 = folder(secrets.join("s3"))?;
            write(s3.join("accessKeyId"), ACCESS_KEY)?;
            write(s3.join("secretAccessKey"), SECRET_KEY)?;
            write(folder(secrets.join("postgres"))?.join("uri"), database)?;
            spec["storage"] = json!({ "s3": {
                "bucket": bucket, "endpoint": format!("http://{endpoint}"), "forcePathStyle": true,
                "credentialsSecretRef": { "name": "s3" },
            } });
            spec["database"] =
                json!({ "postgres": { "urlSecretRef": { "name": "postgres", "key": "uri" } } });
        }
    }
    let mut scheme = "http";
    if let Some(tls) = tls {
        let secret = folder(secrets.join("tls"))?;
        write(secret.join("tls.crt"), &tls.certificate)?;
        write(secret.join("tls.key"), &tls.key)?;
        spec["tls"] = json!({ "secretRef": { "name": "tls" } });
        scheme = "https";
    }
    spec["externalURL"] = format!("{scheme}://{address}").into();
    let registry = json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Registry", "metadata": { "name": REGISTRY }, "spec": spec,
    });
    let documents: Vec<String> = [registry].iter().chain(&resources).map(ToString::to_string).collect();
    Ok((write(home.join("registry.yaml"), &documents.join("\n---\n"))?, secrets))
}
