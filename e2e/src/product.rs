// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The product on a cluster, installed as its users install it: `kubectl apply -k config`, and the sample registry.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::image::Image;
use crate::services::{Postgres, S3};
use crate::tools::{binary, repository};
use crate::wait::until;

/// The binaries and the names that `config/` and the chart call their images by.
const IMAGES: [(&str, &str); 2] =
    [("stowage-operator", "stowage/operator"), ("stowage-registry", "stowage/registry")];
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PATIENCE: Duration = Duration::from_mins(3);

/// Installs the operator from `config/`, with images of the release binaries; returns when it is available. The tests
/// of a process install it once.
pub async fn install(cluster: &Cluster) -> Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_try_init(|| install_anew(cluster)).await.map(|&()| ())
}

/// Publishes the images of the product, by the names that `config/` and the chart call them by.
pub async fn publish_product(cluster: &Cluster) -> Result<()> {
    for (name, image) in IMAGES {
        let layout = cluster.state().path(&format!("layouts/{name}"));
        Image::of_product(&binary(name)?)?.write_layout(&layout)?;
        cluster.publish(&layout, &format!("{image}:{VERSION}")).await?;
    }
    Ok(())
}

async fn install_anew(cluster: &Cluster) -> Result<()> {
    publish_product(cluster).await?;
    let config = repository().join("config");
    cluster.kubectl(["apply", "--server-side", "--kustomize", &config.to_string_lossy()]).await?;
    let deployment = ["--namespace=stowage-system", "deployment/stowage-operator"];
    cluster.kubectl(["rollout", "status", deployment[0], deployment[1], "--timeout=120s"]).await.map(drop)
}

/// The registry of `config/samples/registry-s3.yaml` in a namespace, with what it asks for: a bucket, a database and
/// two Secrets, all of its own.
#[derive(Debug)]
pub struct Sample<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Sample<'a> {
    /// Applies the sample; returns when the registry is ready.
    pub async fn apply(cluster: &'a Cluster, namespace: &str) -> Result<Self> {
        Self::apply_over(cluster, namespace, &cluster.postgres(), &cluster.s3()).await
    }

    /// The same with its database and its bucket on certain servers.
    pub async fn apply_over(
        cluster: &'a Cluster,
        namespace: &str,
        postgres: &Postgres<'_>,
        s3: &S3<'_>,
    ) -> Result<Self> {
        let registry = Self { cluster, namespace: namespace.to_owned() };
        s3.create_bucket(&registry.bucket())?;
        postgres.create_database(&registry.database()).await?;
        registry
            .secret("s3-creds", [("accessKeyId", S3::ACCESS_KEY), ("secretAccessKey", S3::SECRET_KEY)])
            .await?;
        let uri = postgres.url(&registry.database());
        registry.secret("registry-pg-app", [("uri", &uri)]).await?;
        cluster.apply_in(namespace, &registry.manifest(s3)?).await?;
        registry.wait_until_ready().await?;
        cluster.pull_plainly(&registry.host(), &registry.host())?;
        Ok(registry)
    }

    /// Returns when the registry is as its spec asks.
    pub async fn wait_until_ready(&self) -> Result<()> {
        let namespace = format!("--namespace={}", self.namespace);
        let ready = "--for=condition=Ready";
        self.cluster.kubectl(["wait", &namespace, ready, "registry/main", "--timeout=180s"]).await.map(drop)
    }

    /// The same, when the replicas that were as the spec asked before have gone, too. Those that end serve on for a
    /// while, as they were configured.
    pub async fn wait_until_replaced(&self) -> Result<()> {
        self.wait_until_ready().await?;
        let namespace = format!("--namespace={}", self.namespace);
        let replicas = ["pods", &namespace, "--selector=app.kubernetes.io/component=registry"];
        until("the replaced replicas to be gone", PATIENCE, async || {
            let list = self.cluster.get(replicas).await?;
            let replicas = list["items"].as_array().context("a list has items")?;
            let ending = |replica: &Value| !replica["metadata"]["deletionTimestamp"].is_null();
            Ok((!replicas.iter().any(ending)).then_some(()))
        })
        .await
    }

    /// Returns when the registry has so many replicas, and says so.
    pub async fn scale(&self, replicas: usize) -> Result<()> {
        let inside = format!("--namespace={}", self.namespace);
        let wanted = format!("--replicas={replicas}");
        self.cluster.kubectl(["scale", &inside, "registry/main", &wanted]).await?;
        let summary = format!("--for=jsonpath={{.status.replicaSummary}}={replicas}/{replicas}");
        self.cluster.kubectl(["wait", &inside, &summary, "registry/main", "--timeout=180s"]).await?;
        self.wait_until_ready().await
    }

    /// The host that images of the registry are named by, in pods and by clients.
    #[must_use]
    pub fn host(&self) -> String {
        format!("main.{}.svc:5000", self.namespace)
    }

    /// The bucket that is the registry's own.
    #[must_use]
    pub fn bucket(&self) -> String {
        format!("blobs-{}", self.namespace)
    }

    /// The database that is the registry's own.
    #[must_use]
    pub fn database(&self) -> String {
        format!("registry-{}", self.namespace)
    }

    /// The sample as it is shipped, but for the names that would be somebody else's.
    fn manifest(&self, s3: &S3<'_>) -> Result<String> {
        let path = repository().join("config/samples/registry-s3.yaml");
        let mut text = fs::read_to_string(path).context("read the sample")?;
        let own_bucket = format!("bucket: {}", self.bucket());
        for (shipped, own) in [
            ("main.default.svc:5000", self.host()),
            ("bucket: blobs", own_bucket),
            ("http://s3.default.svc:9000", s3.endpoint()),
        ] {
            ensure!(text.contains(shipped), "the sample no longer says {shipped:?}");
            text = text.replace(shipped, &own);
        }
        Ok(text)
    }

    async fn secret<const N: usize>(&self, name: &str, entries: [(&str, &str); N]) -> Result<()> {
        let entries: BTreeMap<&str, &str> = entries.into();
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries});
        self.cluster.apply_in(&self.namespace, &secret.to_string()).await.map(drop)
    }
}
