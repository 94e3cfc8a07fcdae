// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Policies over a registry whose images run: what they take, what they leave, and what goes on by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stowage_e2e::{Cluster, Image, Sample, on_cluster, repository, until};

use crate::{asked_to_run, digest_of, push, registry, run};

const PATIENCE: Duration = Duration::from_mins(2);
/// Tags of what workloads name, and of what nobody does.
const USED: [&str; 4] = ["asleep", "deployed", "pod", "scheduled"];
const UNUSED: [&str; 3] = ["idle-1", "idle-2", "idle-3"];

#[test]
fn n4_a_hostile_policy_deletes_nothing_that_runs_or_would_run_again() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "hostile").await?;
        let inside = format!("--namespace={namespace}");
        protect(cluster, &inside, &registry).await?;
        for tag in USED.iter().chain(&UNUSED) {
            publish(cluster, &registry, "hostile/app", tag).await?;
        }
        let [node, _] = cluster.nodes();
        let image = |tag: &str| format!("{}/hostile/app:{tag}", registry.host());
        cluster.apply_in(&namespace, &workloads(node, image)).await?;
        cluster.kubectl(["wait", &inside, "--for=condition=Ready", "pod/pod", "--timeout=120s"]).await?;
        let available = ["--for=condition=Available", "deployment/deployed", "--timeout=120s"];
        cluster.kubectl(["wait", &inside, available[0], available[1], available[2]]).await?;
        let before = digest_of(cluster, &image("asleep")).await?;

        cluster.apply_in(&namespace, &hostile()).await?;
        let first = run_again(cluster, &inside, "one").await?;
        ensure!(
            first["counts"]["wouldDeleteTags"] == 3,
            "it only tells what rules that are new would do: {first}"
        );
        let second = run_again(cluster, &inside, "two").await?;
        let counts = (&second["counts"]["deletedTags"], &second["counts"]["guardedTags"]);
        ensure!(counts == (&json!(3), &json!(4)), "{second}");

        let left = tags(cluster, &format!("{}/hostile/app", registry.host())).await?;
        ensure!(left == USED, "{left:?}");
        ensure!(digest_of(cluster, &image("asleep")).await? == before, "it is another one");
        cluster.kubectl(["scale", &inside, "deployment/asleep", "--replicas=1"]).await?;
        let available = ["--for=condition=Available", "deployment/asleep", "--timeout=120s"];
        cluster.kubectl(["wait", &inside, available[0], available[1], available[2]]).await?;
        let all = ["deployment,cronjob,pod", "--all", "--now", "--cascade=foreground"];
        cluster.kubectl(["delete", &inside, all[0], all[1], all[2], all[3]]).await?;
        let third = run_again(cluster, &inside, "three").await?;
        ensure!(third["counts"]["deletedTags"] == 4, "nothing runs any more: {third}");
        Ok(())
    });
}

/// Lets the operator see what runs, and runs ask it.
async fn protect(cluster: &Cluster, inside: &str, registry: &Sample<'_>) -> Result<()> {
    let rights = repository().join("config/rbac/usage.yaml");
    cluster.kubectl(["apply", "--filename", &rights.to_string_lossy()]).await?;
    let patch = r#"{"spec":{"usageProtection":{"scope":"Cluster"}}}"#;
    cluster.kubectl(["patch", inside, "registry/main", "--type=merge", "--patch", patch]).await?;
    cluster
        .kubectl(["wait", inside, "--for=condition=UsageProtected", "registry/main", "--timeout=120s"])
        .await?;
    registry.wait_until_ready().await
}

/// Pushes an image of its own; it waits for as many seconds as it is told.
async fn publish(cluster: &Cluster, registry: &Sample<'_>, name: &str, tag: &str) -> Result<String> {
    let layout = cluster.state().path(&format!("layouts/{}-{}", name.replace('/', "-"), tag));
    Image::new("/bin/sleep", "/main").label("org.example.tag", tag).write_layout(&layout)?;
    let image = format!("{}/{name}:{tag}", registry.host());
    push(cluster, &layout, &image).await?;
    digest_of(cluster, &image).await
}

/// A pod, a deployment, one that is scaled to zero, and a schedule that is suspended.
fn workloads(node: &str, image: impl Fn(&str) -> String) -> String {
    let pod = |tag: &str, restarts: &str| {
        let container = json!({
            "name": "main", "image": image(tag), "args": ["3600"],
        });
        json!({
            "nodeName": node, "restartPolicy": restarts, "terminationGracePeriodSeconds": 0, "containers": [container],
        })
    };
    let deployment = |tag: &str, replicas: u32| {
        let labels = json!({ "app": tag });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": tag },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod(tag, "Always") },
            },
        })
    };
    let job = json!({ "template": { "spec": pod("scheduled", "Never") } });
    let items = [
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "pod" }, "spec": pod("pod", "Always") }),
        deployment("deployed", 1),
        deployment("asleep", 0),
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "scheduled" },
            "spec": { "schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": { "spec": job } },
        }),
    ];
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// Keeps what is not there, and nothing else.
fn hostile() -> String {
    json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "RetentionPolicy", "metadata": { "name": "hostile" },
        "spec": {
            "registryRef": { "name": "main" }, "repositories": { "include": ["**"] },
            "mode": "Enforce", "schedule": "0 0 1 1 *", "minAge": "0s",
            "keep": [{ "name": "nothing", "tags": { "exact": ["absent"] } }],
            "limits": { "maxDeletionsPerRun": 1000, "maxDeletePercent": 100 },
        },
    })
    .to_string()
}

/// What one more run of the policy came to.
async fn run_again(cluster: &Cluster, inside: &str, with: &str) -> Result<Value> {
    Ok(asked_to_run(cluster, inside, "retentionpolicy/hostile", with).await?["lastResult"].clone())
}

async fn tags(cluster: &Cluster, repository: &str) -> Result<Vec<String>> {
    let list = stowage_e2e::succeed(cluster.client("crane")?.args(["ls", "--insecure", repository])).await?;
    Ok(list.lines().map(str::to_owned).collect())
}

#[test]
fn n5_what_is_pushed_to_dev_is_in_prod_by_the_sample_policies_alone() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "flow").await?;
        let inside = format!("--namespace={namespace}");
        let sample = repository().join("config/samples/promotionpolicy.yaml");
        cluster.kubectl(["apply", &inside, "--filename", &sample.to_string_lossy()]).await?;
        for policy in ["promotionpolicy/dev-to-staging", "promotionpolicy/staging-to-prod"] {
            cluster.kubectl(["wait", &inside, "--for=condition=Ready", policy, "--timeout=120s"]).await?;
        }
        let pushed = publish(cluster, &registry, "dev/app", "1.0.0").await?;
        let image = |stage: &str| format!("{}/{stage}/app:1.0.0", registry.host());
        becomes(cluster, &image("staging"), &pushed).await?;
        ensure!(digest_of(cluster, &image("prod")).await.is_err(), "two days are not over");

        // They are now.
        let soaked = r#"[{"op": "replace", "path": "/spec/gates/1/minimumAge/duration", "value": "1s"}]"#;
        let policy = "promotionpolicy/staging-to-prod";
        cluster.kubectl(["patch", &inside, policy, "--type=json", "--patch", soaked]).await?;
        becomes(cluster, &image("prod"), &pushed).await?;
        let last = until("the policy to tell", PATIENCE, async || {
            let last = cluster.get(["promotionpolicy", &inside, "staging-to-prod"]).await?;
            let last = last["status"]["lastPromotion"].clone();
            Ok((!last.is_null()).then_some(last))
        })
        .await?;
        ensure!(
            (&last["source"], &last["target"], &last["digest"])
                == (&json!("staging/app:1.0.0"), &json!("prod/app:1.0.0"), &json!(pushed)),
            "{last}"
        );
        let [node, _] = cluster.nodes();
        run(cluster, &namespace, "0", node, &image("prod")).await.map(drop)
    });
}

#[test]
fn n5_a_promotion_that_is_asked_for_and_approved_by_somebody_else_is_carried_out_by_a_job() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "asked").await?;
        let inside = format!("--namespace={namespace}");
        cluster.apply_in(&namespace, &with_approval()).await?;
        let policy = ["wait", &inside, "--for=condition=Ready", "promotionpolicy/to-prod", "--timeout=120s"];
        cluster.kubectl(policy).await?;
        let may =
            ["create", "rolebinding", "alice", &inside, "--clusterrole=stowage-approver", "--user=alice"];
        cluster.kubectl(may).await?;
        let pushed = publish(cluster, &registry, "staging/app", "1.0").await?;
        cluster.apply_in(&namespace, &asked()).await?;
        until("the promotion to wait for its gates", PATIENCE, async || {
            let status = cluster.get(["promotion", &inside, "app-1-0"]).await?["status"].clone();
            Ok((status["artifact"]["digest"] == json!(pushed)).then_some(()))
        })
        .await?;
        let prod = format!("{}/prod/app:1.0", registry.host());
        ensure!(digest_of(cluster, &prod).await.is_err(), "nobody has approved it");

        let approval =
            json!({ "spec": { "approvals": [{ "user": "alice", "digest": pushed }] } }).to_string();
        let approve = async |user: &str| {
            let name = format!("--as={user}");
            let patch = ["patch", &name, &inside, "promotion/app-1-0", "--type=merge", "--patch", &approval];
            cluster.kubectl(patch).await
        };
        ensure!(approve("mallory").await.is_err(), "anybody may approve");
        approve("alice").await?;
        let succeeded = ["wait", &inside, "--for=condition=Succeeded", "promotion/app-1-0", "--timeout=180s"];
        cluster.kubectl(succeeded).await?;
        ensure!(digest_of(cluster, &prod).await? == pushed, "it is another one");
        let [node, _] = cluster.nodes();
        run(cluster, &namespace, "0", node, &prod).await.map(drop)
    });
}

fn with_approval() -> String {
    json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "PromotionPolicy", "metadata": { "name": "to-prod" },
        "spec": {
            "registryRef": { "name": "main" }, "from": { "repositories": ["staging/**"] },
            "to": { "repository": "prod/{path}" },
            "gates": [{ "name": "approved", "approval": { "required": 1 } }],
        },
    })
    .to_string()
}

/// In the name of who asks here.
fn asked() -> String {
    json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Promotion", "metadata": { "name": "app-1-0" },
        "spec": {
            "policyRef": { "name": "to-prod" }, "requestedBy": "admin", "reason": "CHG-1",
            "artifact": { "repository": "staging/app", "tag": "1.0" },
        },
    })
    .to_string()
}

async fn becomes(cluster: &Cluster, image: &str, digest: &str) -> Result<()> {
    until("a promotion", PATIENCE, async || {
        let found = digest_of(cluster, image).await.ok();
        Ok(found.filter(|found| found == digest).map(drop))
    })
    .await
}
