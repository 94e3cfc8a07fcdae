// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploads: tiny parts, stolen leases, and writers who send other bytes of the same length into the sessions of
//! others.
//!
//! What may come of it: a clean refusal, or a blob whose bytes are those of its digest. What was acknowledged
//! is there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use stowage_oci::{Algorithm, Digest, Name};
use stowage_registry::domain::{Chunk, Error};
use stowage_registry::meta::UploadKey;

use super::clients::digest;
use super::world::{Actor, LOOSE, STRICT, World};

const PRINCIPAL: &str = "model";

/// What clients know of each other's uploads.
#[derive(Default)]
pub(super) struct Sessions {
    running: Mutex<Vec<(UploadKey, Bytes)>>,
    acknowledged: Mutex<BTreeSet<(String, Digest)>>,
}

impl Sessions {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn acknowledge(&self, world: &World, repository: &Name, digest: &Digest) {
        world.count("uploads closed");
        self.acknowledged.lock().unwrap().insert((repository.to_string(), *digest));
    }

    fn any(&self, actor: &mut Actor) -> Option<(UploadKey, Bytes)> {
        self.running.lock().unwrap().choose(&mut actor.random).cloned()
    }

    fn remember(&self, key: &UploadKey, content: &Bytes) {
        const MOST: usize = 8;
        let mut running = self.running.lock().unwrap();
        if running.len() == MOST {
            running.remove(0);
        }
        running.push((key.clone(), content.clone()));
    }

    /// Whether everything that was acknowledged can be read, and is what it was.
    pub(super) async fn verify(&self, world: &World) {
        let actor = world.somebody().await;
        let all = self.acknowledged.lock().unwrap().clone();
        for (repository, wanted) in all {
            let read = async {
                let blob = actor.domain.blob(&repository.parse().unwrap(), &wanted, false).await?;
                let pieces: Vec<Bytes> = actor.domain.read_blob(&blob, None).await?.try_collect().await?;
                Ok::<_, Error>(pieces.concat())
            };
            match read.await {
                Ok(bytes) if digest(&bytes) == wanted => {}
                Ok(_) => world.violation(format!("{wanted} of {repository} has other bytes")),
                Err(error) => world.violation(format!("{wanted} of {repository} is lost: {error:?}")),
            }
        }
    }
}

/// Of a few contents, so that writers of the same digest meet.
fn content(actor: &mut Actor) -> Bytes {
    let number: u32 = actor.random.random_range(0..40);
    Bytes::from(format!("{number:02}").repeat(1 + number as usize / 3))
}

/// The bytes in pieces, with pauses that outlast a lease now and then.
fn slow(actor: &mut Actor, start: Option<u64>, bytes: Bytes) -> Chunk {
    let length = Some(bytes.len() as u64);
    let pauses: Vec<Duration> = (0..bytes.len())
        .map(|_| Duration::from_millis(if actor.chance(0.03) { 60 } else { actor.random.random_range(0..4) }))
        .collect();
    let pieces = (0..bytes.len()).map(move |index| bytes.slice(index..=index)).zip(pauses);
    let body = futures::stream::iter(pieces).then(async |(piece, pause)| {
        tokio::time::sleep(pause).await;
        Ok(piece)
    });
    Chunk { start, length, body: body.boxed() }
}

fn judge(world: &World, what: &str, error: &Error) {
    match error {
        Error::Internal(cause) => world.violation(format!("{what}: internal error: {cause:?}")),
        Error::NotAtOffset { .. } => world.count("not at offset"),
        Error::DigestMismatch { .. } => world.count("digests refused"),
        other => super::clients::judge(world, what, other),
    }
}

/// What a client does next.
pub(super) async fn step(world: &World, sessions: &Sessions, actor: &mut Actor) {
    let wire = actor.wire.clone();
    let repository: Name = [STRICT, LOOSE].choose(&mut actor.random).unwrap().parse().unwrap();
    let dice: f64 = actor.random.random();
    // A third of the clients are of the other sort.
    let intrudes = actor.number.is_multiple_of(3) && dice < 0.7;
    let done = wire.guard(async {
        match dice {
            _ if intrudes => intrude(world, sessions, actor).await,
            ..0.8 => session(world, sessions, actor, &repository).await,
            _ => at_once(world, sessions, actor, &repository).await,
        }
    });
    if done.await.is_none() {
        world.count("crashes");
        actor.reborn = actor.chance(0.3);
    }
}

async fn at_once(world: &World, sessions: &Sessions, actor: &mut Actor, repository: &Name) {
    let content = content(actor);
    let digest = digest(&content);
    let chunk = slow(actor, None, content);
    match actor.domain.push_blob(repository, PRINCIPAL, &digest, chunk).await {
        Ok(()) => sessions.acknowledge(world, repository, &digest),
        Err(error) => judge(world, "upload at once", &error),
    }
}

async fn session(world: &World, sessions: &Sessions, actor: &mut Actor, repository: &Name) {
    let content = content(actor);
    let id = match actor.domain.open_upload(repository, PRINCIPAL, Algorithm::Sha256).await {
        Ok(id) => id,
        Err(error) => return judge(world, "open", &error),
    };
    let key = UploadKey { id, repository: repository.clone(), principal: PRINCIPAL.to_owned() };
    sessions.remember(&key, &content);
    go_on(world, sessions, actor, &key, &content, 0).await;
}

/// Sends what is missing of `content`, a few bytes at a time, and closes.
async fn go_on(
    world: &World,
    sessions: &Sessions,
    actor: &mut Actor,
    key: &UploadKey,
    content: &Bytes,
    mut offset: usize,
) {
    /// Until a client gives up.
    const ATTEMPTS: u32 = 4;
    let digest = digest(content);
    let in_last_request = actor.chance(0.3);
    let mut failures = 0;
    loop {
        let left = content.len() - offset;
        let chunk = actor.random.random_range(1..=5).min(left);
        let closes = left == 0 || in_last_request && chunk == left;
        let bytes = content.slice(offset..offset + chunk);
        let start = Some(offset as u64);
        let outcome = if closes {
            let last = if left == 0 { Chunk::empty() } else { slow(actor, start, bytes) };
            actor.domain.close(key, &digest, last).await.map(|()| None)
        } else {
            let chunk = slow(actor, start, bytes);
            actor.domain.append(key, chunk).await.map(Some)
        };
        match outcome {
            Ok(None) => return sessions.acknowledge(world, &key.repository, &digest),
            Ok(Some(durable)) => offset = usize::try_from(durable).unwrap().min(content.len()),
            Err(error) => {
                judge(world, "upload", &error);
                failures += 1;
                let ends = matches!(error, Error::UploadUnknown | Error::DigestMismatch { .. });
                if ends || failures == ATTEMPTS {
                    return;
                }
                match actor.domain.upload_offset(key).await {
                    Ok(durable) => offset = usize::try_from(durable).unwrap().min(content.len()),
                    Err(error) => return judge(world, "offset", &error),
                }
            }
        }
    }
}

/// Takes part in the upload of another: with its bytes, or with others of the same length.
async fn intrude(world: &World, sessions: &Sessions, actor: &mut Actor) {
    let Some((key, content)) = sessions.any(actor) else { return };
    let Ok(offset) = actor.domain.upload_offset(&key).await else { return };
    let offset = usize::try_from(offset).unwrap().min(content.len());
    world.count("intrusions");
    if actor.chance(0.2) {
        return go_on(world, sessions, actor, &key, &content, offset).await;
    }
    let mut other = content[..offset].to_vec();
    other.resize(content.len(), b'x');
    let other = Bytes::from(other);
    if actor.chance(0.5) {
        return go_on(world, sessions, actor, &key, &other, offset).await;
    }
    let end = (offset + actor.random.random_range(1..=5)).min(other.len());
    let chunk = slow(actor, Some(offset as u64), other.slice(offset..end));
    if let Err(error) = actor.domain.append(&key, chunk).await {
        judge(world, "intrusion", &error);
    }
}
