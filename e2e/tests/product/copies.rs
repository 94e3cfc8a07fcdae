// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A Mirror that copies by Jobs, and nodes that run what it copied.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stowage_e2e::{Cluster, on_cluster, until};

use crate::mirrors::publish;
use crate::{registry, run};

const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn f34_f38e_nodes_run_what_a_job_copied_when_the_upstream_and_the_mirror_have_gone() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "copies").await?;
        let inside = format!("--namespace={namespace}");
        let upstream = cluster.own_distribution("copies", 5051);
        upstream.start().await?;
        let theirs = publish(cluster, &upstream.address(), "library/copied", "copied").await?;
        cluster.apply_in(&namespace, &mirror(&upstream.address())).await?;
        cluster.kubectl(["wait", &inside, "--for=condition=Ready", "mirror/base", "--timeout=120s"]).await?;
        let status = asked_to_run(cluster, &inside, "one").await?;
        ensure!(synced(&status) == Some("True"), "{status}");
        let counts = &status["lastResult"]["counts"];
        ensure!((&counts["copied"], &counts["failed"]) == (&json!(1), &json!(0)), "{status}");
        ensure!(status["lastSuccessfulSyncTime"] == status["lastSyncTime"], "{status}");
        let status = asked_to_run(cluster, &inside, "two").await?;
        ensure!(status["lastResult"]["counts"]["fetchedBytes"] == 0, "it was all here: {status}");

        upstream.crash().await?;
        cluster.kubectl(["delete", &inside, "mirror/base"]).await?;
        let image = format!("{}/base/library/copied@{theirs}", registry.host());
        for node in cluster.nodes() {
            run(cluster, &namespace, node, node, &image).await?;
        }
        Ok(())
    });
}

/// The status of the mirror after one more run.
async fn asked_to_run(cluster: &Cluster, inside: &str, with: &str) -> Result<Value> {
    let status =
        async || Ok::<_, anyhow::Error>(cluster.get(["mirror", inside, "base"]).await?["status"].clone());
    let before = status().await?["lastResult"]["startTime"].clone();
    let request = format!("stowage.dev/run-requested-at={with}");
    cluster.kubectl(["annotate", inside, "--overwrite", "mirror/base", &request]).await?;
    until("a run of the mirror", PATIENCE, async || {
        let now = status().await?;
        let ended = now["lastHandledRunAt"] == with && now["lastResult"]["startTime"] != before;
        Ok(ended.then_some(now))
    })
    .await
}

/// Whether the mirror says that it has copied everything.
fn synced(status: &Value) -> Option<&str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|found| found["type"] == "Synced")?["status"].as_str()
}

/// Copies when it is asked to.
fn mirror(upstream: &str) -> String {
    json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Mirror", "metadata": { "name": "base" },
        "spec": {
            "registryRef": { "name": "main" }, "path": "base", "mode": "Replicate",
            "upstream": { "url": format!("http://{upstream}"), "network": "Any" },
            "artifacts": [{ "repository": "library/copied" }],
        },
    })
    .to_string()
}
