// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The ground the other tests stand on: the cluster runs pods, and goes without a trace. And the chart, which wants a
//! cluster without an operator.

mod chart;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use stowage_e2e::{Cluster, Image, on_cluster, repository};

/// A pod that runs to its end.
fn pod(name: &str, image: &str, arguments: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: {name}}}\n\
         spec:\n  \
           restartPolicy: Never\n  \
           containers: [{{name: main, image: \"{image}\", args: {arguments}}}]\n"
    )
}

async fn publish(cluster: &Cluster, program: &str) -> Result<String> {
    let name = program.replace('/', "-");
    let layout = cluster.state().path(&format!("layout{name}"));
    Image::new(program, "/main").furnished().write_layout(&layout)?;
    cluster.publish(&layout, &format!("test{name}:1")).await
}

#[test]
fn a_pod_runs_an_image_that_a_local_registry_serves() {
    on_cluster(async |cluster| {
        let namespace = cluster.namespace("pull").await?;
        let image = publish(cluster, "/bin/echo").await?;
        let pod = pod("echo", &image, "[\"all\", \"is\", \"well\"]");
        cluster.apply_in(&namespace, &pod).await?;
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        cluster.kubectl(["wait", "--namespace", &namespace, done, "pod/echo", "--timeout=120s"]).await?;
        let said = cluster.kubectl(["logs", "--namespace", &namespace, "echo"]).await?;
        ensure!(said == "all is well\n", "the pod said {said:?}");
        Ok(())
    });
}

#[test]
fn a_pod_finds_a_service_by_its_name() {
    on_cluster(async |cluster| {
        let namespace = cluster.namespace("names").await?;
        let image = publish(cluster, "/usr/bin/getent").await?;
        let name = "kubernetes.default.svc.cluster.local";
        let pod = pod("ask", &image, &format!("[\"ahostsv4\", \"{name}\"]"));
        cluster.apply_in(&namespace, &pod).await?;
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        cluster.kubectl(["wait", "--namespace", &namespace, done, "pod/ask", "--timeout=120s"]).await?;
        let said = cluster.kubectl(["logs", "--namespace", &namespace, "ask"]).await?;
        ensure!(said.starts_with("10.96.0.1 "), "the pod heard {said:?}");
        Ok(())
    });
}

#[test]
fn postgres_and_s3_answer_in_the_clusters_network_and_again_after_a_crash() {
    on_cluster(async |cluster| {
        let (postgres, s3) = (cluster.postgres(), cluster.s3());
        postgres.create_database("before").await?;
        postgres.crash().await?;
        ensure!(postgres.create_database("never").await.is_err(), "it runs after its crash");
        postgres.start().await?;
        postgres.create_database("after").await?;
        s3.create_bucket("blobs")?;
        s3.crash().await?;
        s3.start().await?;
        ensure!(s3.bucket("blobs").is_dir(), "the bucket went with the crash");
        Ok(())
    });
}

#[test]
fn a_cluster_whose_keeper_was_killed_is_taken_down_without_a_trace() -> Result<()> {
    let folder = repository().join(format!(".state/test-trace-{}", std::process::id()));
    let cluster = Cluster::start(&folder)?;
    let state = cluster.state().clone();
    stowage_e2e::within(&state, || async {
        let image = publish(&cluster, "/bin/sleep").await?;
        cluster.apply_in("default", &pod("sleep", &image, "[\"600\"]")).await?;
        let ready = "--for=condition=Ready";
        cluster.kubectl(["wait", ready, "pod/sleep", "--timeout=120s"]).await
    })?;
    ensure!(!traces(&state.name(), &folder)?.is_empty(), "this test would see no trace");

    cluster.kill_keeper()?;
    let down = Command::new(env!("CARGO_BIN_EXE_stowage-cluster"))
        .args(["down", "--state"])
        .arg(&folder)
        .status()
        .context("take the cluster down")?;
    ensure!(down.success(), "{down}");

    let traces = traces(&state.name(), &folder)?;
    ensure!(traces.is_empty(), "left behind: {traces:#?}");
    fs::remove_dir_all(&folder).context("remove the logs")
}

/// Whatever of a cluster can be seen on the machine: processes, mounts, network namespace, cgroups.
fn traces(name: &str, folder: &Path) -> Result<Vec<String>> {
    let folder = folder.to_string_lossy();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").context("list the processes")?.filter_map(Result::ok) {
        let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        let cgroups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let is_dead = stat.contains(") Z "); // it waits for init to notice
        if !is_dead && (line.contains(&*folder) || cgroups.contains(name)) {
            found.push(format!("process {}", line.replace('\0', " ")));
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").context("read the mounts")?;
    let ours = mounts.lines().filter(|line| line.contains(&*folder) || line.contains(name));
    found.extend(ours.map(|line| format!("mount {line}")));
    let places = ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/tmp"];
    for place in places {
        let Ok(entries) = fs::read_dir(place) else { continue };
        let names = entries.filter_map(Result::ok).map(|entry| entry.path().display().to_string());
        found.extend(names.filter(|path| path.contains(name)));
    }
    Ok(found)
}
