// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! All at once: replicas are rolled, collections run as Jobs, the database is restarted, while clients push, pull and
//! delete. What they saw is judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stowage_e2e::history::{Part, Policy, Recorder, Verdict};
use stowage_e2e::load::{Load, Odds};
use stowage_e2e::{Cluster, Postgres, Sample, install, on_cluster, soak_length, until};
use tokio::time::{Instant, sleep};

use crate::roll_for;

/// A busy machine is no broken promise.
const PATIENCE: Duration = Duration::from_mins(4);
/// A blip is what an outage leaves behind: a pool that fills up again, a collection that is in the middle.
const RECOVERY: Duration = Duration::from_secs(10);
/// Collections done to their end, at least.
const COLLECTIONS: usize = 3;
/// Half the grace period of the registry.
const GRACE: Duration = Duration::from_secs(10);

#[test]
fn w473_h5_l_07_l_63_rollouts_collections_and_restarts_of_the_database_at_once_break_no_promise() {
    on_cluster(async |cluster| {
        install(cluster).await?;
        let namespace = cluster.namespace("storm").await?;
        // Other tests go on while this one's server is down.
        let postgres = cluster.own_postgres("storm", 5433);
        postgres.start().await?;
        let registry = Sample::apply_over(cluster, &namespace, &postgres, &cluster.s3()).await?;
        let inside = format!("--namespace={namespace}");
        cluster.apply_in(&namespace, &users()).await?;
        let patch = json!({ "spec": {
            "auth": { "anonymous": "None", "htpasswd": { "secretRef": { "name": "users", "key": "htpasswd" } } },
            "garbageCollection": { "gracePeriod": "20s" },
            "trash": { "retainFor": "5s" },
        } });
        cluster
            .kubectl(["patch", &inside, "registry/main", "--type=merge", "--patch", &patch.to_string()])
            .await?;
        registry.wait_until_replaced().await?;

        let policy = Policy { recovery: RECOVERY, blob_grace: Some(GRACE), mirror: None };
        let recorder = Arc::new(Recorder::start(policy));
        let seed = rand::random_range(0..1_000_000);
        let clients = load(cluster, &inside, seed).await?.start(&recorder);
        let end = Instant::now() + soak_length(Duration::from_secs(40))?;
        let collections = AtomicUsize::new(0);
        // A connection that rested may be closed while a request is on its way; whoever asks again is answered.
        let replaced = recorder.outage(Part::Replica(0), "replicas are replaced");
        tokio::try_join!(
            roll_until(cluster, &registry, &namespace, end),
            collect_until(cluster, &inside, end, &collections),
            restart_until(&postgres, &registry, &recorder, end),
        )?;
        compared(&postgres, &registry).await?;
        recorder.over(replaced);
        let verdict = clients.judge().await?;
        println!("storm of seed {seed}, {} collections\n{verdict}", collections.load(Ordering::Relaxed));
        judged(cluster, &recorder, &verdict)?;
        verified(cluster, &inside).await
    });
}

/// A user who may do everything.
fn users() -> String {
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "users" },
            // The password is the word "secret", with little work: it is looked up on every request.
            "stringData": { "htpasswd": "alice:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n" },
        }),
        json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "AccessPolicy", "metadata": { "name": "alice" },
            "spec": {
                "registryRef": { "name": "main" }, "repositories": ["**"],
                "subjects": [{ "user": "alice" }], "actions": ["Pull", "Push", "Delete"],
            },
        }),
    ];
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

/// Clients that know the Service alone.
async fn load(cluster: &Cluster, inside: &str, seed: u64) -> Result<Load> {
    let service = cluster.get(["service", inside, "main"]).await?;
    let address = service["spec"]["clusterIP"].as_str().context("the Service has no address")?;
    Ok(Load {
        seed,
        clients: 6,
        repositories: ["app", "team/web"].map(str::to_owned).to_vec(),
        tags: 8,
        replicas: vec![format!("{address}:5000")],
        login: Some(("alice".to_owned(), "secret".to_owned())),
        patience: Duration::from_mins(2),
        timeout: Duration::from_secs(45),
        odds: Odds { large_layer: 0.01, crash: 0.02 },
        out_of_service: Arc::default(),
        upstream: None,
    })
}

async fn roll_until(cluster: &Cluster, registry: &Sample<'_>, namespace: &str, end: Instant) -> Result<()> {
    roll_for(cluster, registry, namespace, end.saturating_duration_since(Instant::now())).await
}

/// Starts Jobs of the registry's own schedule, each when the one before has ended, however it has; goes on beside the
/// clients alone until some were done to their end.
async fn collect_until(cluster: &Cluster, inside: &str, end: Instant, done: &AtomicUsize) -> Result<()> {
    for number in 0.. {
        if Instant::now() >= end && done.load(Ordering::Relaxed) >= COLLECTIONS {
            break;
        }
        let job = format!("storm-{number}");
        cluster.kubectl(["create", "job", inside, &job, "--from=cronjob/main-gc"]).await?;
        let ended = until("a collection", PATIENCE, async || {
            let status = cluster.get(["job", inside, &job]).await?["status"].clone();
            Ok(["Complete", "Failed"].into_iter().find(|end| holds(&status, end)))
        });
        // One that meets the database as it goes is tried again; one that finds it not yet compared is refused, and the
        // next goes on.
        if ended.await? == "Complete" {
            done.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

fn holds(status: &Value, condition: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|it| it["type"] == condition && it["status"] == "True")
}

async fn restart_until(
    postgres: &Postgres<'_>,
    registry: &Sample<'_>,
    recorder: &Recorder,
    end: Instant,
) -> Result<()> {
    while Instant::now() + Duration::from_secs(5) < end {
        sleep(Duration::from_secs(10)).await;
        let outages =
            [Part::References, Part::Database].map(|part| recorder.outage(part, "the server crashes"));
        postgres.crash().await?;
        postgres.start().await?;
        recorder.over(outages[1]);
        compared(postgres, registry).await?;
        recorder.over(outages[0]);
    }
    Ok(())
}

/// Returns when the database was compared with all of the bucket.
async fn compared(postgres: &Postgres<'_>, registry: &Sample<'_>) -> Result<()> {
    let question = "SELECT reconciled = epoch AND fence = pg_postmaster_start_time() FROM meta";
    until("the comparison of the database with the bucket", PATIENCE, async || {
        let answer = postgres.ask(&registry.database(), question).await?;
        Ok((answer.trim() == "t").then_some(()))
    })
    .await
}

/// A history that is not legal is kept beside the logs of the cluster.
fn judged(cluster: &Cluster, recorder: &Recorder, verdict: &Verdict) -> Result<()> {
    let count = |wanted| -> usize {
        verdict.counts.iter().filter(|((_, outcome), _)| *outcome == wanted).map(|(_, count)| count).sum()
    };
    ensure!(count("found") > 100, "nothing was shown:\n{verdict}");
    if !verdict.is_legal() || count("failed") > 0 {
        let file = cluster.state().path("logs/history.jsonl");
        recorder.history().keep(&file).context("keep the history")?;
        anyhow::bail!("not legal, see {}:\n{verdict}", file.display());
    }
    Ok(())
}

/// That database and bucket agree, object by object.
async fn verified(cluster: &Cluster, inside: &str) -> Result<()> {
    let program = "/usr/local/bin/stowage-registry";
    let (config, secrets) = ("--config=/etc/stowage/config", "--secrets-dir=/etc/stowage/secrets");
    let verify = ["exec", inside, "deployment/main", "--", program, "verify", config, secrets];
    cluster.kubectl(verify).await.map(drop)
}
