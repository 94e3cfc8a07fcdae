// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! An upload belongs to the registry, not to the replica that happened to take its first byte.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use stowage_e2e::{Cluster, Sample, command, on_cluster, succeed};

use crate::{Replica, registry, replicas};

#[test]
fn an_upload_goes_on_at_another_replica_between_any_two_requests() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "two").await?;
        let upload = Upload::begin(cluster, &namespace, &registry).await?;
        upload.patch(0, "first, ").await?;
        upload.patch(1, "second").await?;
        upload.commit(0, "first, second").await
    });
}

#[test]
fn what_a_killed_replica_acknowledged_is_not_lost() {
    on_cluster(async |cluster| {
        let (namespace, registry) = registry(cluster, "kill").await?;
        let upload = Upload::begin(cluster, &namespace, &registry).await?;
        upload.patch(0, "kept, ").await?;
        let victim = upload.replicas[0].name.as_str();
        let namespace = format!("--namespace={namespace}");
        cluster.kubectl(["delete", &namespace, "pod", victim, "--force", "--grace-period=0"]).await?;
        upload.patch(1, "continued").await?;
        upload.commit(1, "kept, continued").await
    });
}

/// An upload, and the replicas that may be asked to go on with it.
struct Upload {
    replicas: Vec<Replica>,
    host: String,
    token: String,
    location: String,
    folder: PathBuf,
}

impl Upload {
    /// Opens an upload at the first replica.
    async fn begin(cluster: &Cluster, namespace: &str, registry: &Sample<'_>) -> Result<Self> {
        let folder = cluster.state().path(&format!("uploads/{namespace}"));
        fs::create_dir_all(&folder).context("make a folder")?;
        let mut upload = Self {
            replicas: replicas(cluster, namespace).await?,
            host: registry.host(),
            token: String::new(),
            location: "/v2/two/replicas/blobs/uploads/".to_owned(),
            folder,
        };
        let answer = upload.ask(0, "GET", &upload.token_path(), None).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let token: serde_json::Value = serde_json::from_str(body).context("read the token")?;
        upload.token = token["token"].as_str().context("no token was given")?.to_owned();
        let answer = upload.ask(0, "POST", &upload.location, None).await?;
        ensure!(answer.contains(" 202"), "the upload was not opened: {answer}");
        upload.location = header(&answer, "location").context("the upload has no place")?;
        Ok(upload)
    }

    fn token_path(&self) -> String {
        format!("/token?service={}&scope=repository:two/replicas:pull,push", self.host)
    }

    /// Sends the next part to a replica.
    async fn patch(&self, replica: usize, part: &str) -> Result<()> {
        let answer = self.ask(replica, "PATCH", &self.location, Some(part)).await?;
        ensure!(answer.contains(" 202"), "replica {replica} did not take {part:?}: {answer}");
        Ok(())
    }

    /// Ends the upload at a replica, and reads at every replica that is left what was sent to any.
    async fn commit(&self, replica: usize, whole: &str) -> Result<()> {
        let digest = format!("sha256:{}", sha256(whole).await?);
        let separator = if self.location.contains('?') { '&' } else { '?' };
        let place = format!("{}{separator}digest={digest}", self.location);
        let answer = self.ask(replica, "PUT", &place, None).await?;
        ensure!(answer.contains(" 201"), "the upload was not committed: {answer}");
        let blob = format!("/v2/two/replicas/blobs/{digest}");
        let answer = self.ask(1, "GET", &blob, None).await?;
        ensure!(answer.ends_with(&format!("\r\n\r\n{whole}")), "what came back is {answer}");
        Ok(())
    }

    /// Asks one replica; the answer with its head. A replica that does not answer is asked again: clients do.
    async fn ask(&self, replica: usize, method: &str, place: &str, body: Option<&str>) -> Result<String> {
        let address = &self.replicas[replica].address;
        let mut curl = command("curl");
        curl.args(["--silent", "--show-error", "--include", "--request", method, "--max-time", "20"]);
        curl.args(["--header", &format!("Host: {}", self.host)]);
        if !self.token.is_empty() {
            curl.args(["--header", &format!("Authorization: Bearer {}", self.token)]);
        }
        if let Some(body) = body {
            let file = self.folder.join("part");
            fs::write(&file, body).context("write a part")?;
            curl.args(["--header", "Content-Type: application/octet-stream", "--data-binary"]);
            curl.arg(format!("@{}", file.display()));
        }
        succeed(curl.arg(format!("http://{address}:5000{place}"))).await
    }
}

fn header(answer: &str, name: &str) -> Option<String> {
    let mut fields = answer.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
    Some(value.trim().to_owned())
}

async fn sha256(text: &str) -> Result<String> {
    let sum = succeed(command("sh").args(["-c", "printf %s \"$0\" | sha256sum", text])).await?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}
