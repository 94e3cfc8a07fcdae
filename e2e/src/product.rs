// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The product on a cluster, installed as its users install it: `kubectl apply -k config`, and the sample registry.

use std::fs;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::image::Image;
use crate::services::S3;
use crate::tools::{binary, repository};

/// The binaries and the names that `config/` calls their images by.
const IMAGES: [(&str, &str); 2] =
    [("stowage-operator", "stowage/operator"), ("stowage-registry", "stowage/registry")];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Installs the operator from `config/`, with images of the release binaries; returns when it is available.
pub async fn install(cluster: &Cluster) -> Result<()> {
    for (name, image) in IMAGES {
        let layout = cluster.state().path(&format!("layouts/{name}"));
        Image::of_product(&binary(name)?)?.write_layout(&layout)?;
        cluster.publish(&layout, &format!("{image}:{VERSION}")).await?;
    }
    let config = repository().join("config");
    cluster.kubectl(["apply", "--server-side", "--kustomize", &config.to_string_lossy()]).await?;
    let deployment = ["--namespace=stowage-system", "deployment/stowage-operator"];
    cluster.kubectl(["rollout", "status", deployment[0], deployment[1], "--timeout=120s"]).await.map(drop)
}

/// The registry of `config/samples/registry-s3.yaml`, with what it asks for: a bucket, a database, two Secrets.
#[derive(Debug)]
pub struct Sample<'a> {
    cluster: &'a Cluster,
}

impl<'a> Sample<'a> {
    /// The host that images of the registry are named by.
    pub const HOST: &'static str = "main.default.svc:5000";

    /// Applies the sample; returns when the registry is ready.
    pub async fn apply(cluster: &'a Cluster) -> Result<Self> {
        cluster.s3().create_bucket("blobs")?;
        cluster.postgres().create_database("registry").await?;
        secret(cluster, "s3-creds", [("accessKeyId", S3::ACCESS_KEY), ("secretAccessKey", S3::SECRET_KEY)])
            .await?;
        let uri = cluster.postgres().url("registry");
        secret(cluster, "registry-pg-app", [("uri", &uri)]).await?;
        let sample = repository().join("config/samples/registry-s3.yaml");
        let sample = fs::read_to_string(sample).context("read the sample")?;
        cluster.apply_in("default", &sample).await?;
        cluster.kubectl(["wait", "--for=condition=Ready", "registry/main", "--timeout=180s"]).await?;
        let registry = Self { cluster };
        cluster.pull_plainly(Self::HOST, &registry.address().await?)?;
        Ok(registry)
    }

    /// Where the registry answers in the cluster's network.
    pub async fn address(&self) -> Result<String> {
        let address = "--output=jsonpath={.spec.clusterIP}";
        let ip = self.cluster.kubectl(["get", "service", "main", address]).await?;
        Ok(format!("{ip}:5000"))
    }
}

async fn secret<const N: usize>(cluster: &Cluster, name: &str, entries: [(&str, &str); N]) -> Result<()> {
    let entries = entries.map(|(key, value)| format!("\"{key}\":\"{value}\"")).join(",");
    let manifest = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}"}},"stringData":{{{entries}}}}}"#
    );
    cluster.apply_in("default", &manifest).await.map(drop)
}
