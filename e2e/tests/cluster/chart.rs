// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The chart, as Helm installs, upgrades, rolls back and uninstalls it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stowage_e2e::{Cluster, Image, Sample, on_cluster, publish_product, repository, succeed};

const NAMESPACE: &str = "--namespace=stowage-system";
/// Every option that has another value than the shipped one, but the image that the operator runs from.
const OPTIONS: &str = r#"
image: {pullSecrets: [{name: pull}]}
replicas: 1
watchNamespaces: [stowage-system, NAMESPACE]
log: {format: text, filter: "info,stowage_operator=debug"}
resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 128Mi}}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: example.com/any, operator: Exists}]
podAnnotations: {example.com/note: "1"}
userRoles: false
usageProtection: true
admissionPolicies: false
"#;

#[test]
fn p34_o18_helm_installs_upgrades_and_rolls_back_and_what_it_uninstalls_leaves_its_registries() {
    on_cluster(async |cluster| {
        publish_product(cluster).await?;
        let chart = &chart();
        let install =
            ["install", "stowage", chart, NAMESPACE, "--create-namespace", "--wait", "--timeout=3m"];
        cluster.helm(install).await?;
        ensure!(replicas(cluster).await? == 2, "the shipped values want two");

        let namespace = cluster.namespace("chart").await?;
        // Another test crashes the servers that are everybody's.
        let (postgres, s3) = (cluster.own_postgres("chart", 5434), cluster.own_s3("chart", 9002));
        postgres.start().await?;
        s3.start().await?;
        let registry = Sample::apply_over(cluster, &namespace, &postgres, &s3).await?;
        let layout = cluster.state().path("layouts/chart");
        Image::new("/bin/true", "/main").write_layout(&layout)?;
        let image = format!("{}/test/chart:1", registry.host());
        let mut push = cluster.client("crane")?;
        succeed(push.args(["push", "--insecure"]).arg(&layout).arg(&image)).await?;

        let values = cluster.state().path("chart.yaml");
        std::fs::write(&values, OPTIONS.replace("NAMESPACE", &namespace)).context("write the values")?;
        let values = format!("--values={}", values.display());
        cluster.helm(["upgrade", "stowage", chart, NAMESPACE, &values, "--wait", "--timeout=3m"]).await?;
        ensure!(replicas(cluster).await? == 1, "the options want one");
        registry.scale(3).await.context("with all options")?;
        cluster.helm(["rollback", "stowage", "1", NAMESPACE, "--wait", "--timeout=3m"]).await?;
        ensure!(replicas(cluster).await? == 2, "the first revision wants two");
        registry.scale(2).await.context("rolled back")?;

        cluster.helm(["uninstall", "stowage", NAMESPACE, "--wait", "--timeout=3m"]).await?;
        ensure!(deployments(cluster).await?.is_empty(), "the operator goes");
        ready(cluster, &namespace, 2).await.context("without an operator")?;
        succeed(cluster.client("crane")?.args(["digest", "--insecure", &image])).await?;
        cluster.helm(install).await?;
        registry.scale(1).await.context("by the next operator")
    });
}

#[test]
fn o18_the_chart_has_no_lint_and_can_be_monitored() {
    on_cluster(async |cluster| {
        let chart = &chart();
        cluster.helm(["lint", "--strict", chart]).await?;
        let options = ["--set=podMonitor.enabled=true", "--set=podMonitor.labels.release=prometheus"];
        let made = cluster.helm(["template", "stowage", chart, options[0], options[1]]).await?;
        let monitor = made.split("\n---\n").find(|object| object.contains("\nkind: PodMonitor\n"));
        let monitor = monitor.context("no PodMonitor")?;
        ensure!(monitor.contains("release: prometheus"), "a Prometheus would not select it: {monitor}");
        Ok(())
    });
}

fn chart() -> String {
    repository().join("charts/stowage").display().to_string()
}

async fn ready(cluster: &Cluster, namespace: &str, replicas: u64) -> Result<()> {
    let inside = format!("--namespace={namespace}");
    let wanted = format!("--for=jsonpath={{.status.readyReplicas}}={replicas}");
    cluster.kubectl(["wait", &inside, &wanted, "deployment/main", "--timeout=180s"]).await.map(drop)
}

/// How many replicas of the operator are ready.
async fn replicas(cluster: &Cluster) -> Result<u64> {
    let deployments = deployments(cluster).await?;
    let [operator] = &deployments[..] else { anyhow::bail!("there are {}", deployments.len()) };
    operator["status"]["readyReplicas"].as_u64().context("none is ready")
}

async fn deployments(cluster: &Cluster) -> Result<Vec<Value>> {
    let list = cluster.get(["deployments", NAMESPACE]).await?;
    list["items"].as_array().cloned().context("no list")
}
