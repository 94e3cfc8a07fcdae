// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a cluster does to a registry that did nothing to deserve it: replicas are evicted, the operator is killed or
//! away, and the servers behind it come and go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stowage_e2e::{Cluster, Sample, install, on_cluster, until};

use crate::{registry, replicas, under_load};

const PATIENCE: Duration = Duration::from_mins(3);
const OPERATOR: [&str; 2] = ["--namespace=stowage-system", "deployment/stowage-operator"];

#[test]
fn no_client_notices_that_replicas_are_evicted_and_never_are_both() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "evict").await?;
        under_load(cluster, &registry, async || {
            let [first, second] = names(cluster, &namespace).await?;
            evict(cluster, &namespace, &first).await?;
            let refused =
                evict(cluster, &namespace, &second).await.err().context("both were evicted at once")?;
            ensure!(format!("{refused:#}").contains("disruption budget"), "{refused:#}");
            until("the second replica's turn", PATIENCE, async || {
                evict(cluster, &namespace, &second).await.map(Some)
            })
            .await?;
            let now = names(cluster, &namespace).await?;
            ensure!(!now.contains(&first) && !now.contains(&second), "{first} or {second} is among {now:?}");
            registry.wait_until_ready().await
        })
        .await
    });
}

/// What draining a node does to a pod on it.
async fn evict(cluster: &Cluster, namespace: &str, pod: &str) -> Result<()> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": namespace },
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    cluster.post(&path, &eviction.to_string()).await.map(drop)
}

async fn names(cluster: &Cluster, namespace: &str) -> Result<[String; 2]> {
    let names: Vec<_> = replicas(cluster, namespace).await?.into_iter().map(|replica| replica.name).collect();
    names.try_into().ok().context("there are not two replicas")
}

#[test]
fn a_rollout_ends_though_the_operator_is_killed_in_it_and_pods_come_back_without_one() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "headless").await?;
        let inside = format!("--namespace={namespace}");
        under_load(cluster, &registry, async || {
            let before = names(cluster, &namespace).await?;
            let patch = r#"{"spec":{"template":{"metadata":{"labels":{"round":"killed"}}}}}"#;
            cluster.kubectl(["patch", &inside, "registry/main", "--type=merge", "--patch", patch]).await?;
            kill_operator(cluster).await?;
            // With the operator away, `Ready` is what it last said.
            until("the rollout", PATIENCE, async || {
                let after = names(cluster, &namespace).await?;
                Ok(after.iter().all(|name| !before.contains(name)).then_some(()))
            })
            .await?;
            cluster.kubectl(["rollout", "status", &inside, "deployment/main", "--timeout=180s"]).await?;

            cluster.kubectl(["scale", OPERATOR[0], OPERATOR[1], "--replicas=0"]).await?;
            let lost = pod_comes_back(cluster, &namespace).await;
            cluster.kubectl(["scale", OPERATOR[0], OPERATOR[1], "--replicas=2"]).await?;
            cluster.kubectl(["rollout", "status", OPERATOR[0], OPERATOR[1], "--timeout=180s"]).await?;
            lost?;
            registry.wait_until_ready().await
        })
        .await
    });
}

/// Kills every process of the operator at once.
async fn kill_operator(cluster: &Cluster) -> Result<()> {
    let pods = "--selector=app.kubernetes.io/name=stowage-operator";
    let now = ["--grace-period=0", "--force"];
    cluster.kubectl(["delete", "pods", OPERATOR[0], pods, now[0], now[1]]).await.map(drop)
}

async fn pod_comes_back(cluster: &Cluster, namespace: &str) -> Result<()> {
    let [lost, _] = names(cluster, namespace).await?;
    let inside = format!("--namespace={namespace}");
    cluster.kubectl(["delete", &inside, "pod", &lost]).await?;
    until("another replica", PATIENCE, async || {
        let now = names(cluster, namespace).await?;
        Ok((!now.contains(&lost)).then_some(()))
    })
    .await?;
    cluster.kubectl(["rollout", "status", &inside, "deployment/main", "--timeout=180s"]).await.map(drop)
}

#[test]
fn conditions_tell_of_a_database_and_a_bucket_that_are_away_and_no_replica_is_restarted() {
    on_cluster(async |cluster| {
        install(cluster).await?;
        let namespace = cluster.namespace("away").await?;
        let (postgres, s3) = (cluster.own_postgres("away", 5434), cluster.own_s3("away", 9001));
        tokio::try_join!(postgres.start(), s3.start())?;
        let registry = Sample::apply_over(cluster, &namespace, &postgres, &s3).await?;
        let before = restarts(cluster, &namespace).await?;
        let reached = async |condition: &str, verdict: &str| {
            let condition = format!("--for=condition={condition}={verdict}");
            let inside = format!("--namespace={namespace}");
            cluster.kubectl(["wait", &inside, &condition, "registry/main", "--timeout=180s"]).await
        };

        postgres.crash().await?;
        reached("DatabaseReachable", "False").await?;
        postgres.start().await?;
        reached("DatabaseReachable", "True").await?;

        s3.crash().await?;
        reached("StorageReachable", "False").await?;
        s3.start().await?;
        reached("StorageReachable", "True").await?;

        registry.wait_until_ready().await?;
        let after = restarts(cluster, &namespace).await?;
        ensure!(before == after, "replicas were {before:?} and are {after:?}");
        Ok(())
    });
}

/// The replicas by name, and how often each was started anew.
async fn restarts(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let each = "--output=jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let replica = "--selector=app.kubernetes.io/component=registry";
    let printed =
        cluster.kubectl(["get", "pods", &format!("--namespace={namespace}"), replica, each]).await?;
    Ok(printed.lines().map(str::to_owned).collect())
}
