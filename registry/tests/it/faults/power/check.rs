// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What must hold after a power cut. What does not is noted in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::StreamExt as _;
use futures::stream;
use http::Method;
use serde_json::Value;
use sqlx::Connection as _;
use stowage_oci::Digest;

use super::super::client::{Broken, Client, sha256};
use super::disk::Disk;
use super::ledger::{Ledger, Repository, Wish};

/// How many ask at the same time.
const CROWD: usize = 4;
/// Of what was asked for in earlier rounds, one in so many is looked at.
const SAMPLE: u64 = 16;

/// What was read: right bytes.
pub(super) struct Found {
    digest: Digest,
    manifest: Value,
}

/// A blob or manifest; `None`: it is not there.
pub(super) async fn read(
    client: &Client,
    ledger: &Ledger,
    kind: &str,
    repository: &str,
    reference: &str,
) -> Result<Option<Found>, Broken> {
    let target = format!("/v2/{repository}/{kind}/{reference}");
    let answer = client.ask(Method::GET, &target).await?;
    let digest = sha256(&answer.body);
    match answer.status {
        200 if answer.header("docker-content-digest") != digest.to_string()
            || (reference.contains(':') && reference != digest.to_string()) =>
        {
            ledger.violation(format!("wrong bytes: {target} has those of {digest}"));
            Ok(None)
        }
        200 => {
            let manifest = serde_json::from_slice(&answer.body).unwrap_or_default();
            Ok(Some(Found { digest, manifest }))
        }
        404 => Ok(None),
        status => {
            ledger.violation(format!("failed: {target} answers {status}: {:?}", answer.body));
            Ok(None)
        }
    }
}

/// That everything a visible manifest names is there.
pub(super) async fn parts(
    client: &Client,
    ledger: &Ledger,
    repository: &str,
    found: &Found,
) -> Result<(), Broken> {
    let children = |field: &str| found.manifest[field].as_array().cloned().unwrap_or_default();
    let mut named: Vec<(&str, Value)> = vec![("blobs", found.manifest["config"].clone())];
    named.extend(children("layers").into_iter().map(|layer| ("blobs", layer)));
    named.extend(children("manifests").into_iter().map(|child| ("manifests", child)));
    for (kind, descriptor) in named {
        let Some(digest) = descriptor["digest"].as_str() else { continue };
        if read(client, ledger, kind, repository, digest).await?.is_none() {
            ledger.violation(format!("half visible: {repository} {} without {kind} {digest}", found.digest));
        }
    }
    Ok(())
}

/// Reads what clients were told, and sees unfinished uploads to their end.
pub(super) async fn everything(client: &Client, ledger: &Ledger, sample: bool) -> Result<(), Broken> {
    tags(client, ledger).await?;
    manifests(client, ledger, sample).await?;
    blobs(client, ledger, sample).await?;
    uploads(client, ledger).await
}

async fn tags(client: &Client, ledger: &Ledger) -> Result<(), Broken> {
    let names: Vec<_> = ledger.books().tags.keys().cloned().collect();
    let mut live: BTreeMap<Repository, BTreeSet<String>> = BTreeMap::new();
    for (repository, tag) in names {
        let listed = live.entry(repository).or_default();
        let found = read(client, ledger, "manifests", repository, &tag).await?;
        if let Some(found) = &found {
            listed.insert(tag.clone());
            parts(client, ledger, repository, found).await?;
        }
        let found = found.map(|found| found.digest);
        let mut books = ledger.books();
        let register = books.tags.get_mut(&(repository, tag.clone())).expect("tags stay in the books");
        if !register.settle(&found) {
            let what = format!("tag: {repository}:{tag} is {found:?} instead of {register:?}");
            books.violations.push(what);
        }
    }
    for (repository, live) in live {
        let answer = client.ask(Method::GET, &format!("/v2/{repository}/tags/list")).await?;
        let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let listed = list["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let listed: BTreeSet<String> = listed.map(str::to_owned).collect();
        if listed != live {
            ledger.violation(format!("tags: {repository} lists {listed:?}, but has {live:?}"));
        }
    }
    Ok(())
}

/// Whether something is looked at in this round.
fn is_due(digest: &Digest, changed: u64, round: u64, sample: bool) -> bool {
    let dice = digest.to_bytes().last().copied().map_or(0, u64::from);
    !sample || changed + 1 >= round || dice % SAMPLE == round % SAMPLE
}

async fn manifests(client: &Client, ledger: &Ledger, sample: bool) -> Result<(), Broken> {
    let due: Vec<_> = {
        let books = ledger.books();
        let due = books
            .manifests
            .iter()
            .filter(|(key, manifest)| is_due(&key.1, manifest.round, books.round, sample));
        due.map(|(key, _)| *key).collect()
    };
    let checks = stream::iter(due).map(|(repository, digest)| async move {
        let found = read(client, ledger, "manifests", repository, &digest.to_string()).await?;
        if let Some(found) = &found {
            parts(client, ledger, repository, found).await?;
            referrer(client, ledger, repository, found).await?;
        }
        let mut books = ledger.books();
        let register = books.manifests.get_mut(&(repository, digest)).expect("it stays in the books");
        if !register.settle(&found.is_some()) {
            let what = format!("manifest: {repository}@{digest} there: {} {register:?}", found.is_some());
            books.violations.push(what);
        }
        Ok(())
    });
    checks.buffer_unordered(CROWD).collect::<Vec<_>>().await.into_iter().collect()
}

/// That a visible manifest with a subject is listed as its referrer.
async fn referrer(client: &Client, ledger: &Ledger, repository: &str, found: &Found) -> Result<(), Broken> {
    let Some(subject) = found.manifest["subject"]["digest"].as_str() else { return Ok(()) };
    let answer = client.ask(Method::GET, &format!("/v2/{repository}/referrers/{subject}")).await?;
    let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut listed = list["manifests"].as_array().into_iter().flatten();
    if !listed.any(|listed| listed["digest"] == found.digest.to_string()) {
        ledger.violation(format!("referrer: {repository} {} of {subject} is not listed", found.digest));
    }
    Ok(())
}

async fn blobs(client: &Client, ledger: &Ledger, sample: bool) -> Result<(), Broken> {
    let due: Vec<_> = {
        let books = ledger.books();
        let due = books.blobs.iter().filter(|(key, blob)| is_due(&key.1, blob.round, books.round, sample));
        due.map(|(key, _)| *key).collect()
    };
    let checks = stream::iter(due).map(|(repository, digest)| async move {
        let found = read(client, ledger, "blobs", repository, &digest.to_string()).await?.is_some();
        let mut books = ledger.books();
        let register = books.blobs.get_mut(&(repository, digest)).expect("it stays in the books");
        if !register.settle(&found) {
            let what = format!("blob: {repository}@{digest} there: {found} {register:?}");
            books.violations.push(what);
        }
        Ok(())
    });
    checks.buffer_unordered(CROWD).collect::<Vec<_>>().await.into_iter().collect()
}

/// Uploads go on where they were acknowledged, and end with the right digest.
async fn uploads(client: &Client, ledger: &Ledger) -> Result<(), Broken> {
    let numbers: Vec<u64> = ledger.books().uploads.keys().copied().collect();
    for number in numbers {
        go_on(client, ledger, number).await?;
    }
    Ok(())
}

/// What a client does when the connection broke in the middle: it asks how far the upload came, and goes on.
async fn go_on(client: &Client, ledger: &Ledger, number: u64) -> Result<(), Broken> {
    let upload = ledger.books().uploads[&number].clone();
    let digest = sha256(&upload.content);
    let Some(offset) = client.offset(&upload.path).await else {
        let blob = read(client, ledger, "blobs", upload.repository, &digest.to_string()).await?;
        // Before anything was acknowledged it may be forgotten; when it was to be closed it may be done.
        if upload.acknowledged > 0 && blob.is_none() && (!upload.closing || upload.is_large()) {
            ledger.violation(format!("upload: gone, acknowledged to {}", upload.acknowledged));
        }
        ledger.forget(number);
        return Ok(());
    };
    if offset < upload.acknowledged || offset > upload.sent {
        let (least, most) = (upload.acknowledged, upload.sent);
        ledger.violation(format!("upload: durable to {offset}, but acknowledged to {least}, sent to {most}"));
    }
    *ledger.books().acknowledged.entry("uploads gone on").or_default() += 1;
    let closed = client.close(&upload.path, &digest, &upload.content[offset..]).await;
    if closed.as_ref().is_err_and(|failed| failed.status() == 404) && upload.closing && !upload.is_large() {
        // What was in memory only when it was closed is to be sent again.
        ledger.forget(number);
        return Ok(());
    }
    let wish = Wish::Blob(upload.repository, digest, true);
    ledger.ask(&[wish], async { closed }).await?;
    ledger.forget(number);
    if read(client, ledger, "blobs", upload.repository, &digest.to_string()).await?.is_none() {
        ledger.violation(format!("upload: went on at {offset}, closed, and {digest} is not there"));
    }
    Ok(())
}

/// That the database on the disk opens and is in order.
pub(super) async fn database(disk: &Disk, data: &Path, ledger: &Ledger) {
    if let Err(error) = examine(disk, data).await {
        ledger.violation(format!("database: {error}"));
    }
}

async fn examine(disk: &Disk, data: &Path) -> Result<(), String> {
    let Some(database) = disk.read(&data.join("meta.sqlite")) else {
        return Ok(());
    };
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("meta.sqlite");
    std::fs::write(&path, database).unwrap();
    if let Some(journal) = disk.read(&data.join("meta.sqlite-wal")) {
        std::fs::write(copy.path().join("meta.sqlite-wal"), journal).unwrap();
    }
    if let Some(journal) = disk.read(&data.join("meta.sqlite-journal")) {
        std::fs::write(copy.path().join("meta.sqlite-journal"), journal).unwrap();
    }
    let failed = |error: sqlx::Error| error.to_string();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let check = sqlx::query_as("PRAGMA integrity_check");
    let found: Vec<(String,)> = check.fetch_all(&mut connection).await.map_err(failed)?;
    if found != [("ok".to_owned(),)] {
        return Err(format!("integrity_check: {found:?}"));
    }
    let check = sqlx::query("PRAGMA foreign_key_check");
    let dangling = check.fetch_all(&mut connection).await.map_err(failed)?;
    if dangling.is_empty() { Ok(()) } else { Err(format!("{} rows refer to nothing", dangling.len())) }
}
