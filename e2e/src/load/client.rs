// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One client: asks a replica by chance, and tries again elsewhere until it knows or its patience ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use stowage_oci::{Algorithm, Digest};
use tokio::time::{Instant, sleep};

use super::Load;
use super::content::{self, Blob, Manifest};
use super::http::{Answer, Ask, Broke, Connections};
use crate::history::{Action, Cause, Fate, Moment, Outcome, Recorder, Reference, Running, Setback};

const OCTETS: &str = "application/octet-stream";
/// How large a piece of a blob is that is sent in pieces.
const PIECE: usize = 9 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An attempt that came to nothing.
struct Trouble {
    replica: usize,
    cause: Cause,
    fate: Fate,
    invoked: Moment,
}

/// The answer that decides, or what came in between.
type Attempt = Result<Answer, Trouble>;

/// What a client tries until it is done.
enum Task<'a> {
    /// One request, which may have this fate if it is not answered.
    Request(Ask, Fate),
    /// All requests of an upload, from the first one on.
    Upload { repository: &'a str, blob: &'a Blob, other: &'a str },
}

pub(super) struct Client {
    pub(super) load: Arc<Load>,
    pub(super) number: u32,
    pub(super) rng: StdRng,
    /// How the names of some repositories begin in what is recorded, and how where they are asked for.
    pub(super) elsewhere: Option<(String, String)>,
    connections: Connections,
}

impl Client {
    pub(super) fn new(number: u32, load: Arc<Load>, rng: StdRng) -> Self {
        Self { connections: Connections::of(&load), load, number, rng, elsewhere: None }
    }

    /// What a repository is called where it is asked for.
    fn place(&self, repository: &str) -> String {
        let elsewhere = self.elsewhere.as_ref();
        let moved = elsewhere.and_then(|(from, to)| Some(format!("{to}{}", repository.strip_prefix(from)?)));
        moved.unwrap_or_else(|| repository.to_owned())
    }

    /// Breaks off whatever it was doing.
    pub(super) fn hang_up(&mut self) {
        self.connections.close();
    }

    /// Pushes a blob, unless it is there, or mounts it from `other`. Whether it is there now.
    pub(super) async fn push_blob(
        &mut self,
        recorder: &Recorder,
        repository: &str,
        blob: &Blob,
        other: &str,
    ) -> bool {
        let action = Action::PushBlob { repository: repository.to_owned(), digest: blob.digest };
        let running = recorder.begin(self.number, action);
        let task = Task::Upload { repository, blob, other };
        self.finish(recorder, running, task, acknowledged).await == Some(Outcome::Acknowledged)
    }

    /// Puts a manifest, whose blobs are there. Whether it was taken.
    pub(super) async fn push_manifest(
        &mut self,
        recorder: &Recorder,
        repository: &str,
        tag: Option<&str>,
        manifest: &Manifest,
    ) -> bool {
        let Manifest { digest, blobs, children, .. } = manifest.clone();
        let (repository, tag) = (repository.to_owned(), tag.map(str::to_owned));
        let reference = tag.clone().unwrap_or_else(|| digest.to_string());
        let ask = Ask::new(Method::PUT, format!("/v2/{}/manifests/{reference}", self.place(&repository)))
            .with_header(CONTENT_TYPE, manifest.media_type)
            .with_body(manifest.body.clone());
        let running =
            recorder.begin(self.number, Action::PushManifest { repository, digest, tag, blobs, children });
        let outcome = self.finish(recorder, running, Task::Request(ask, Fate::Unknown), acknowledged).await;
        outcome == Some(Outcome::Acknowledged)
    }

    /// Gets a manifest; its bytes if it is there.
    pub(super) async fn pull_manifest(
        &mut self,
        recorder: &Recorder,
        repository: &str,
        reference: Reference,
    ) -> Option<Bytes> {
        let place = self.place(repository);
        let target = match &reference {
            Reference::Tag(tag) => format!("/v2/{place}/manifests/{tag}"),
            Reference::Digest(digest) => format!("/v2/{place}/manifests/{digest}"),
        };
        let ask = Ask::new(Method::GET, target).with_header(ACCEPT, content::ACCEPT);
        let action = Action::PullManifest { repository: repository.to_owned(), reference };
        let running = recorder.begin(self.number, action);
        let mut body = None;
        self.finish(recorder, running, Task::Request(ask, Fate::NoEffect), |answer| {
            body = Some(answer.body.clone());
            found(answer)
        })
        .await;
        body
    }

    /// Gets a blob.
    pub(super) async fn pull_blob(&mut self, recorder: &Recorder, repository: &str, digest: Digest) {
        let ask = Ask::new(Method::GET, format!("/v2/{}/blobs/{digest}", self.place(repository)));
        let action = Action::PullBlob { repository: repository.to_owned(), digest };
        let running = recorder.begin(self.number, action);
        self.finish(recorder, running, Task::Request(ask, Fate::NoEffect), found).await;
    }

    /// Deletes what `action` says lies at `target`.
    pub(super) async fn delete(&mut self, recorder: &Recorder, action: Action, target: String) {
        let running = recorder.begin(self.number, action);
        let ask = Ask::new(Method::DELETE, target);
        self.finish(recorder, running, Task::Request(ask, Fate::Unknown), acknowledged).await;
    }

    /// Lists all tags, in one answer.
    pub(super) async fn list_tags(&mut self, recorder: &Recorder, repository: &str) {
        let action = Action::ListTags { repository: repository.to_owned() };
        let running = recorder.begin(self.number, action);
        let ask = Ask::new(Method::GET, format!("/v2/{repository}/tags/list?n=1000"));
        self.finish(recorder, running, Task::Request(ask, Fate::NoEffect), |answer| {
            let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let names = document["tags"].as_array().into_iter().flatten();
            Outcome::Listed { tags: names.filter_map(Value::as_str).map(str::to_owned).collect() }
        })
        .await;
    }

    /// Tries until there is an answer, and records what it means; `None` if there never was one.
    async fn finish(
        &mut self,
        recorder: &Recorder,
        mut running: Running<'_>,
        task: Task<'_>,
        outcome: impl FnOnce(&Answer) -> Outcome,
    ) -> Option<Outcome> {
        let deadline = Instant::now() + self.load.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = match &task {
                Task::Request(ask, fate) => self.ask(recorder, ask, *fate).await,
                Task::Upload { repository, blob, other } => {
                    self.upload(recorder, repository, blob, other).await
                }
            };
            let trouble = match attempt {
                Ok(answer) => {
                    let outcome = if answer.status < 300 { outcome(&answer) } else { refusal(&answer) };
                    running.end(outcome.clone());
                    return Some(outcome);
                }
                Err(trouble) => trouble,
            };
            let Trouble { replica, cause, fate, invoked } = trouble;
            let told = match cause {
                Cause::Unavailable { retry_after: Some(seconds), .. } => Duration::from_secs(seconds),
                _ => pause,
            };
            running.setback(Setback { invoked, ended: recorder.now(), replica, cause, fate });
            if Instant::now() + told > deadline {
                running.end(Outcome::Failed);
                return None;
            }
            sleep(told).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One request to a replica by chance.
    async fn ask(&mut self, recorder: &Recorder, ask: &Ask, fate: Fate) -> Attempt {
        let replicas = self.load.in_service();
        let replica = replicas[self.rng.random_range(0..replicas.len())];
        let invoked = recorder.now();
        let answered = self.connections.ask(&self.load.replicas[replica], ask).await;
        let trouble = |cause, fate| Err(Trouble { replica, cause, fate, invoked });
        match answered {
            Err(Broke::Unreachable) => trouble(Cause::Unreachable, Fate::NoEffect),
            Err(Broke::Midway) => trouble(Cause::Broken, fate),
            Ok(answer) if matches!(answer.status, 429 | 503) => {
                let retry_after = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
                trouble(Cause::Unavailable { status: answer.status, retry_after }, fate)
            }
            Ok(answer) if answer.status >= 500 => trouble(Cause::Faulty { status: answer.status }, fate),
            Ok(answer) => Ok(answer),
        }
    }

    /// Uploads a blob in one of the ways that clients have.
    async fn upload(&mut self, recorder: &Recorder, repository: &str, blob: &Blob, other: &str) -> Attempt {
        let Blob { digest, content, is_shared } = blob;
        let (repository, other) = (self.place(repository), self.place(other));
        let head = Ask::new(Method::HEAD, format!("/v2/{repository}/blobs/{digest}"));
        let seen = self.ask(recorder, &head, Fate::Unknown).await?;
        if seen.status != 404 {
            return Ok(seen);
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let style = self.rng.random_range(0..3);
        let begin = match style {
            _ if *is_shared => Ask::new(Method::POST, format!("{uploads}?mount={digest}&from={other}")),
            0 => Ask::new(Method::POST, format!("{uploads}?digest={digest}"))
                .with_header(CONTENT_TYPE, OCTETS)
                .with_body(content.clone()),
            _ => Ask::new(Method::POST, uploads),
        };
        let begun = self.ask(recorder, &begin, Fate::Unknown).await?;
        let (202, Some(mut location)) = (begun.status, location(&begun)) else {
            return Ok(begun); // mounted, or all in one request, or refused
        };
        let in_pieces = style == 2;
        let pieces: Vec<Bytes> =
            if in_pieces { content.chunks(PIECE).map(Bytes::copy_from_slice).collect() } else { Vec::new() };
        for piece in pieces {
            let patch = Ask::new(Method::PATCH, location).with_header(CONTENT_TYPE, OCTETS).with_body(piece);
            let patched = self.within_session(recorder, &patch).await?;
            let (202, Some(next)) = (patched.status, self::location(&patched)) else { return Ok(patched) };
            location = next;
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        let close = Ask::new(Method::PUT, format!("{location}{joint}digest={digest}"));
        let rest = if in_pieces { Bytes::new() } else { content.clone() };
        self.within_session(recorder, &close.with_header(CONTENT_TYPE, OCTETS).with_body(rest)).await
    }

    /// A request of an upload that has begun, whichever replica gets it.
    async fn within_session(&mut self, recorder: &Recorder, ask: &Ask) -> Attempt {
        let invoked = recorder.now();
        let answer = self.ask(recorder, ask, Fate::Unknown).await?;
        if !matches!(answer.status, 404 | 416) {
            return Ok(answer);
        }
        // Any replica that answered so says the same of the database; which one it was does not matter.
        let cause = Cause::UploadGone { status: answer.status };
        Err(Trouble { replica: 0, cause, fate: Fate::Unknown, invoked })
    }
}

fn acknowledged(_: &Answer) -> Outcome {
    Outcome::Acknowledged
}

fn found(answer: &Answer) -> Outcome {
    let digest = Digest::of(Algorithm::Sha256, &answer.body);
    let named = answer.header("docker-content-digest").and_then(|named| named.parse::<Digest>().ok());
    Outcome::Found { digest, claimed: named.filter(|named| *named != digest) }
}

fn refusal(answer: &Answer) -> Outcome {
    if answer.status == 404 {
        return Outcome::Absent;
    }
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let errors = document["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing =
        errors.iter().filter_map(|error| error["detail"]["digest"].as_str()?.parse().ok()).collect();
    let code = errors.first().and_then(|error| error["code"].as_str()).unwrap_or_default().to_owned();
    Outcome::Refused { status: answer.status, code, missing }
}

/// Where to go on, as path and query.
fn location(answer: &Answer) -> Option<String> {
    let location = answer.header("location")?;
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.get(rest.find('/')?..)?,
        None => location,
    };
    Some(path.to_owned())
}
