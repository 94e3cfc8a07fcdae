// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Nodes that pull another registry's images through a mirror, as `hosts.toml` tells containerd.

use anyhow::{Result, ensure};
use serde_json::json;
use stowage_e2e::{Cluster, Image, command, on_cluster, succeed};

use crate::{digest_of, push, registry, replicas, run};

/// The registry that is mirrored, as pods name it. No name server knows it: whoever pulls from it does so elsewhere.
const UPSTREAM: &str = "hub.test";
/// One that is not.
const OTHER: &str = "other.test";

#[test]
fn w445_w447_o23_p40_nodes_pull_through_two_replicas_and_go_on_when_the_upstream_has_gone() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "mirror").await?;
        let (host, helper, upstream) =
            (registry.host(), cluster.images(), cluster.own_distribution("mirror", 5050));
        upstream.start().await?;
        let origin = upstream.address();
        let theirs = publish(cluster, &origin, "library/echo", "theirs").await?;
        let others = publish(cluster, &origin, "library/other", "others").await?;
        // What has the same name here is not meant.
        for name in ["library/echo", "library/other"] {
            publish(cluster, &host, name, "ours").await?;
        }
        cluster.apply_in(&namespace, &mirror(&origin)).await?;
        let inside = format!("--namespace={namespace}");
        cluster.kubectl(["wait", &inside, "--for=condition=Ready", "mirror/hub", "--timeout=120s"]).await?;
        // Before us stands who has nothing of it, as a peer-to-peer helper may.
        cluster.pull_by(UPSTREAM, &asking([helper, &host]))?;
        // After us who knows no hosts but answers by name alone.
        cluster.pull_by(OTHER, &asking([&host, &origin]))?;

        let [first, second] = cluster.nodes();
        let pulls = async |name: &str, node, image: &str, digest: &str| {
            run(cluster, &namespace, name, node, image).await?;
            let pod = cluster.get(["pod", &inside, name]).await?;
            let id = pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default().to_owned();
            ensure!(id.ends_with(digest), "{name} runs {id}, and {digest} is meant");
            Ok(())
        };
        let image = format!("{UPSTREAM}/library/echo:1");
        pulls("first", first, &image, &theirs).await?;
        pulls("other", first, &format!("{OTHER}/library/other:1"), &others).await?;

        upstream.crash().await?;
        pulls("second", second, &image, &theirs).await?;
        // Which replica a node asks is up to chance.
        for round in 0..30 {
            if all_have_answered(cluster, &namespace).await? {
                return Ok(());
            }
            pulls(&format!("again-{round}"), [first, second][round % 2], &image, &theirs).await?;
        }
        anyhow::bail!("one replica answers all that nodes ask")
    });
}

/// Pushes an image like no other to a registry; its digest.
pub(crate) async fn publish(cluster: &Cluster, host: &str, name: &str, label: &str) -> Result<String> {
    let layout = cluster.state().path(&format!("layouts/mirrored-{label}"));
    Image::new("/bin/echo", "/main").label("whose", label).write_layout(&layout)?;
    let image = format!("{host}/{name}:1");
    push(cluster, &layout, &image).await?;
    digest_of(cluster, &image).await
}

/// Compares each tag that is asked for, so that each pull shows whether the upstream is there.
fn mirror(upstream: &str) -> String {
    let upstream = json!({ "url": format!("http://{upstream}"), "hosts": [UPSTREAM], "network": "Any" });
    let mirror = json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Mirror", "metadata": { "name": "hub" },
        "spec": {
            "registryRef": { "name": "main" }, "path": "hub", "mode": "PullThrough", "upstream": upstream,
            "cache": { "tagTTL": "0s" },
        },
    });
    mirror.to_string()
}

/// A `hosts.toml` that names whom to ask, in this order.
fn asking(hosts: [&str; 2]) -> String {
    let host = |host| format!("[host.\"http://{host}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
    hosts.map(host).concat()
}

/// Whether each replica has answered a request for the mirror without its upstream.
async fn all_have_answered(cluster: &Cluster, namespace: &str) -> Result<bool> {
    for replica in replicas(cluster, namespace).await? {
        let mut ask = command("curl");
        ask.args(["--silent", "--show-error", "--fail", "--max-time", "20"]);
        let metrics = succeed(ask.arg(format!("http://{}:5001/metrics", replica.address))).await?;
        let answered = |line: &str| -> Option<f64> {
            let (series, count) = line.strip_prefix("stowage_mirror_requests_total{")?.rsplit_once(' ')?;
            series.contains("result=\"stale\"").then(|| count.parse().ok())?
        };
        ensure!(metrics.contains("stowage_http_requests_total"), "{} counts nothing", replica.name);
        if metrics.lines().filter_map(answered).sum::<f64>() == 0.0 {
            return Ok(false);
        }
    }
    Ok(true)
}
