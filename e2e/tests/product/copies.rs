// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A Mirror that copies by Jobs, and nodes that run what it copied.

use anyhow::ensure;
use serde_json::{Value, json};
use stowage_e2e::on_cluster;

use crate::mirrors::publish;
use crate::{asked_to_run, registry, run};

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
        let status = asked_to_run(cluster, &inside, "mirror/base", "one").await?;
        ensure!(synced(&status) == Some("True"), "{status}");
        let counts = &status["lastResult"]["counts"];
        ensure!((&counts["copied"], &counts["failed"]) == (&json!(1), &json!(0)), "{status}");
        ensure!(status["lastSuccessfulSyncTime"] == status["lastSyncTime"], "{status}");
        let status = asked_to_run(cluster, &inside, "mirror/base", "two").await?;
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
