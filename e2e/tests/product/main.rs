// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The product as its users install it, on a real cluster.

#[path = "../support/clients.rs"]
mod clients;
mod copies;
mod disturbances;
mod mirrors;
mod policies;
mod storm;
mod uploads;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clients::Site;
use serde_json::{Value, json};
use stowage_e2e::{Cluster, Image, Sample, install, on_cluster, soak_length, succeed, until};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const CLIENTS: usize = 8;

#[test]
fn a_registry_of_the_sample_takes_a_push_and_a_pod_on_each_node_runs_from_it() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "ship").await?;
        let image = format!("{}/test/echo:1", registry.host());
        let layout = cluster.state().path("layouts/echo");
        Image::new("/bin/echo", "/main").write_layout(&layout)?;
        push(cluster, &layout, &image).await?;
        for node in cluster.nodes() {
            let said = run(cluster, &namespace, node, node, &image).await?;
            ensure!(said == format!("{node}\n"), "the pod on {node} said {said:?}");
        }
        Ok(())
    });
}

#[test]
fn f38f_replicas_run_on_different_nodes_even_where_one_has_more_room() {
    on_cluster(async |cluster| {
        let [full, _] = cluster.nodes();
        let namespace = cluster.namespace("spread").await?;
        let inside = format!("--namespace={namespace}");
        cluster.apply_in(&namespace, &ballast(cluster, full).await?).await?;
        cluster.kubectl(["wait", &inside, "--for=condition=Ready", "pod/ballast", "--timeout=120s"]).await?;
        install(cluster).await?;
        let registry = Sample::apply(cluster, &namespace).await?;
        are_apart(cluster, &namespace).await?;
        cluster.kubectl(["rollout", "restart", &inside, "deployment/main"]).await?;
        cluster.kubectl(["rollout", "status", &inside, "deployment/main", "--timeout=180s"]).await?;
        registry.wait_until_ready().await?;
        are_apart(cluster, &namespace).await?;
        cluster.kubectl(["delete", &inside, "pod/ballast", "--now"]).await.map(drop)
    });
}

/// A pod that asks for half of a node's memory, and uses none.
async fn ballast(cluster: &Cluster, node: &str) -> Result<String> {
    let allocatable = cluster.get(["node", node]).await?["status"]["allocatable"]["memory"].clone();
    let kibibytes = allocatable.as_str().and_then(|memory| memory.strip_suffix("Ki")?.parse::<u64>().ok());
    let half = kibibytes.with_context(|| format!("{node} has memory {allocatable}"))? / 2;
    let container = json!({
        "name": "main", "image": format!("{}/pause:latest", cluster.images()),
        "resources": { "requests": { "memory": format!("{half}Ki") } },
    });
    let spec = json!({ "nodeName": node, "containers": [container] });
    Ok(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "ballast" }, "spec": spec })
        .to_string())
}

/// That the two replicas are on different nodes, once those of the last rollout have gone.
async fn are_apart(cluster: &Cluster, namespace: &str) -> Result<()> {
    let mut nodes: Vec<String> =
        replicas(cluster, namespace).await?.into_iter().map(|replica| replica.node).collect();
    nodes.sort();
    ensure!(nodes == cluster.nodes(), "the replicas are on {nodes:?}");
    Ok(())
}

#[test]
fn w473_f38f_no_client_notices_a_rollout_over_two_nodes() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "roll").await?;
        are_apart(cluster, &namespace).await?;
        under_load(cluster, &registry, async || {
            roll_for(cluster, &registry, &namespace, soak_length(Duration::from_mins(1))?).await
        })
        .await?;
        are_apart(cluster, &namespace).await
    });
}

#[test]
fn no_client_notices_that_three_replicas_become_one_and_three_again() {
    on_cluster(async |cluster| {
        let (_, registry) = registry(cluster, "scale").await?;
        registry.scale(3).await?;
        under_load(cluster, &registry, async || {
            registry.scale(1).await?;
            // What the one that stays can do, it does for a while.
            sleep(Duration::from_secs(10)).await;
            registry.scale(3).await
        })
        .await
    });
}

#[test]
fn w680_a_kubelet_pulls_with_the_secret_of_its_pod_and_not_without() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "secret").await?;
        let image = format!("{}/test/closed:1", registry.host());
        let layout = cluster.state().path("layouts/closed");
        Image::new("/bin/true", "/main").write_layout(&layout)?;
        push(cluster, &layout, &image).await?;

        cluster.apply_in(&namespace, &closed(&registry.host())).await?;
        let inside = format!("--namespace={namespace}");
        let patch = r#"{"spec":{"auth":{"anonymous":"None","htpasswd":{"secretRef":{"name":"users","key":"htpasswd"}}}}}"#;
        cluster.kubectl(["patch", &inside, "registry/main", "--type=merge", "--patch", patch]).await?;
        registry.wait_until_replaced().await?;
        ensure!(digest_of(cluster, &image).await.is_err(), "anybody can pull");

        for (name, secrets) in [("without", "[]"), ("with", "[{name: other}, {name: alice}]")] {
            let pod = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
                 spec:\n  restartPolicy: Never\n  imagePullSecrets: {secrets}\n  \
                 containers: [{{name: main, image: \"{image}\", imagePullPolicy: Always}}]\n"
            );
            cluster.apply_in(&namespace, &pod).await?;
        }
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        cluster.kubectl(["wait", &inside, done, "pod/with", "--timeout=120s"]).await?;
        let waiting = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff";
        cluster.kubectl(["wait", &inside, waiting, "pod/without", "--timeout=120s"]).await.map(drop)
    });
}

/// A user, what she may do, her credential as a kubelet takes it, and one that is for elsewhere.
fn closed(host: &str) -> String {
    let credential = |name: &str, server: &str, password: &str| {
        let config = json!({ "auths": { server: { "username": "alice", "password": password } } });
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "kubernetes.io/dockerconfigjson",
            "stringData": { ".dockerconfigjson": config.to_string() },
        })
    };
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "users" },
            // The password is the word "secret".
            "stringData": { "htpasswd": "alice:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n" },
        }),
        credential("other", &format!("{host}/elsewhere"), "wrong"),
        credential("alice", host, "secret"),
        json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "AccessPolicy", "metadata": { "name": "alice" },
            "spec": {
                "registryRef": { "name": "main" }, "repositories": ["test/**"],
                "subjects": [{ "user": "alice" }], "actions": ["Pull"],
            },
        }),
    ];
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

#[test]
fn the_common_clients_work_with_s3_and_postgres_behind_them() {
    on_cluster(async |cluster| {
        let (_, registry) = registry(cluster, "meet").await?;
        let site = Site { host: registry.host(), start: &|program| cluster.command(program) };
        clients::crane(&site).await?;
        clients::regctl(&site, false).await?;
        clients::skopeo(&site).await?;
        clients::podman(&site).await?;
        clients::oras(&site).await?;
        clients::helm(&site).await
    });
}

#[test]
fn an_operator_with_nothing_to_do_writes_nothing() {
    on_cluster(async |cluster| {
        let (namespace, _registry) = registry(cluster, "quiet").await?;
        let before = versions(cluster, &namespace).await?;
        ensure!(before.contains("Registry/main"), "this test would see no change: {before}");
        sleep(Duration::from_mins(1)).await;
        let after = versions(cluster, &namespace).await?;
        ensure!(before == after, "written meanwhile:\n{before}\n{after}");
        Ok(())
    });
}

/// Every object that the operator writes in a namespace, with the version it is at.
async fn versions(cluster: &Cluster, namespace: &str) -> Result<String> {
    let kinds = "registries,accesspolicies,deployments,services,configmaps,secrets,serviceaccounts,jobs,cronjobs,\
                 poddisruptionbudgets,networkpolicies,roles,rolebindings";
    let list = "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
    cluster.kubectl(["get", &format!("--namespace={namespace}"), kinds, list]).await
}

#[test]
fn a_deleted_registry_leaves_its_bucket_and_its_database() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "keep").await?;
        let layout = cluster.state().path("layouts/kept");
        Image::new("/bin/true", "/main").write_layout(&layout)?;
        push(cluster, &layout, &format!("{}/test/kept:1", registry.host())).await?;
        let inside = format!("--namespace={namespace}");
        cluster.kubectl(["delete", &inside, "registry/main", "--timeout=120s"]).await?;
        let bucket = cluster.s3().bucket(&registry.bucket());
        let objects = fs::read_dir(&bucket).context("list the bucket")?.count();
        ensure!(objects > 0, "the bucket is empty");
        let again = cluster.postgres().create_database(&registry.database()).await;
        ensure!(again.is_err(), "the database is gone");
        Ok(())
    });
}

/// Lets clients push and pull while something happens: none of them may notice, and what was pushed must be there.
async fn under_load(
    cluster: &'static Cluster,
    registry: &Sample<'_>,
    happens: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let enough = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (host, enough) = (registry.host(), Arc::clone(&enough));
        let folder = cluster.state().path(&format!("layouts/{host}-client-{number}"));
        clients.spawn(async move { push_and_pull(cluster, &folder, &host, number, &enough).await });
    }
    let happened = happens().await;
    enough.store(true, Ordering::Relaxed);
    let mut pushed = Vec::new();
    while let Some(client) = clients.join_next().await {
        pushed.extend(client.context("join a client")??);
    }
    happened?;
    ensure!(pushed.len() >= CLIENTS, "only {} pushes in all that time", pushed.len());
    for (image, digest) in &pushed {
        ensure!(digest_of(cluster, image).await? == *digest, "{image} is no longer what was pushed");
    }
    Ok(())
}

/// Runs a pod to its end on a node; it is called so, and is told its name. What it said.
async fn run(cluster: &Cluster, namespace: &str, name: &str, node: &str, image: &str) -> Result<String> {
    let container = json!({ "name": "main", "image": image, "imagePullPolicy": "Always", "args": [name] });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "nodeName": node, "restartPolicy": "Never", "containers": [container] },
    });
    cluster.apply_in(namespace, &pod.to_string()).await?;
    let (inside, pod) = (format!("--namespace={namespace}"), format!("pod/{name}"));
    let done = "--for=jsonpath={.status.phase}=Succeeded";
    cluster.kubectl(["wait", &inside, done, &pod, "--timeout=120s"]).await?;
    cluster.kubectl(["logs", &inside, &pod]).await
}

struct Replica {
    name: String,
    address: String,
    node: String,
}

/// The replicas of the registry, when there are two and those before them have gone.
async fn replicas(cluster: &Cluster, namespace: &str) -> Result<Vec<Replica>> {
    let inside = format!("--namespace={namespace}");
    let replica = "--selector=app.kubernetes.io/component=registry";
    until("two replicas", Duration::from_mins(3), async || {
        let pods = cluster.get(["pods", &inside, replica]).await?;
        let pods = pods["items"].as_array().context("no list of pods")?;
        let found: Vec<Replica> = pods
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| {
                Some(Replica {
                    name: pod["metadata"]["name"].as_str()?.to_owned(),
                    address: pod["status"]["podIP"].as_str()?.to_owned(),
                    node: pod["spec"]["nodeName"].as_str()?.to_owned(),
                })
            })
            .collect();
        Ok((found.len() == 2).then_some(found))
    })
    .await
}

/// The status of a resource after one more of its runs, which is asked for by this word.
async fn asked_to_run(cluster: &Cluster, inside: &str, resource: &str, with: &str) -> Result<Value> {
    let status = async || Ok::<_, anyhow::Error>(cluster.get([resource, inside]).await?["status"].clone());
    let before = status().await?["lastResult"]["startTime"].clone();
    let request = format!("stowage.dev/run-requested-at={with}");
    cluster.kubectl(["annotate", inside, "--overwrite", resource, &request]).await?;
    until(&format!("a run of {resource}"), Duration::from_mins(2), async || {
        let now = status().await?;
        let ended = now["lastHandledRunAt"] == with && now["lastResult"]["startTime"] != before;
        Ok(ended.then_some(now))
    })
    .await
}

/// A registry of the test's own, and its namespace.
async fn registry<'a>(cluster: &'a Cluster, prefix: &str) -> Result<(String, Sample<'a>)> {
    install(cluster).await?;
    let namespace = cluster.namespace(prefix).await?;
    let registry = Sample::apply(cluster, &namespace).await?;
    Ok((namespace, registry))
}

/// Changes the spec and restarts the replicas, again and again.
async fn roll_for(cluster: &Cluster, registry: &Sample<'_>, namespace: &str, length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    let namespace = format!("--namespace={namespace}");
    for round in 1.. {
        let patch =
            format!(r#"{{"spec":{{"template":{{"metadata":{{"labels":{{"round":"r{round}"}}}}}}}}}}"#);
        let patch = ["patch", &namespace, "registry/main", "--type=merge", "--patch", &patch];
        cluster.kubectl(patch).await?;
        cluster.kubectl(["rollout", "restart", &namespace, "deployment/main"]).await?;
        cluster.kubectl(["rollout", "status", &namespace, "deployment/main", "--timeout=180s"]).await?;
        registry.wait_until_ready().await?;
        if Instant::now() >= end {
            break;
        }
        sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// Pushes images with layers of their own and pulls them, until told that it is enough; the first failure ends it.
async fn push_and_pull(
    cluster: &Cluster,
    folder: &Path,
    host: &str,
    number: usize,
    enough: &AtomicBool,
) -> Result<Vec<(String, String)>> {
    fs::create_dir_all(folder).context("make the client's folder")?;
    let mut pushed = Vec::new();
    for round in 0.. {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let (file, layout) = (folder.join("file"), folder.join(format!("{round}")));
        fs::write(&file, vec![u8::try_from(number)?; 65536 + round]).context("write a file")?;
        Image::new(&file, "/file").write_layout(&layout)?;
        let image = format!("{host}/client-{number}/image:{round}");
        push(cluster, &layout, &image).await?;
        pull(cluster, &image, &folder.join("back")).await?;
        pushed.push((image.clone(), digest_of(cluster, &image).await?));
        fs::remove_dir_all(&layout).context("remove what was pushed")?;
    }
    Ok(pushed)
}

async fn push(cluster: &Cluster, layout: &Path, image: &str) -> Result<()> {
    let mut push = cluster.client("crane")?;
    succeed(push.args(["push", "--insecure"]).arg(layout).arg(image)).await.map(drop)
}

async fn pull(cluster: &Cluster, image: &str, to: &Path) -> Result<()> {
    let mut pull = cluster.client("crane")?;
    succeed(pull.args(["pull", "--insecure", "--format=oci", image]).arg(to)).await?;
    fs::remove_dir_all(to).context("remove what was pulled")
}

async fn digest_of(cluster: &Cluster, image: &str) -> Result<String> {
    let digest = succeed(cluster.client("crane")?.args(["digest", "--insecure", image])).await?;
    Ok(digest.trim().to_owned())
}
