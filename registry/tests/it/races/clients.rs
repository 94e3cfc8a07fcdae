// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Clients: they push, tag, delete and pull what others push, tag and delete.
//!
//! Every operation on a tag goes into the history; every read is judged by it at once. What is pulled by a tag
//! must be whole, or the tag has moved.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::join_all;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest, Name, Reference, Tag};
use stowage_registry::domain::{Chunk, Domain, Error, PutManifest};
use stowage_registry::meta::TrashItem;

use super::check::references;
use super::history::{Begun, Change, History};
use super::trash::Deleted;
use super::world::{Actor, LOOSE, PROD, STRICT, STRICTS, World};
use super::{promotions, releases, trash};

/// What clients know of each other's deeds.
pub(super) struct Shelf {
    blobs: u32,
    recent: Mutex<VecDeque<(Name, Bytes)>>,
    deleted: Mutex<VecDeque<Deleted>>,
    /// When a client last began to delete a blob by its digest.
    by_hand: Mutex<HashMap<(Name, Digest), Instant>>,
}

const TAGS: [&str; 4] = ["latest", "1", "1.0", "edge"];
const RECENT: usize = 24;
pub(super) const PRINCIPAL: &str = "model";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Shelf {
    /// Of so many different blobs.
    pub(super) fn new(blobs: u32) -> Arc<Self> {
        Arc::new(Self {
            blobs,
            recent: Mutex::default(),
            deleted: Mutex::default(),
            by_hand: Mutex::default(),
        })
    }

    /// Few are asked for often.
    fn blob(&self, actor: &mut Actor) -> Bytes {
        let skewed = actor.random.random::<f64>().powi(2);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below the number of blobs"
        )]
        let number = (skewed * f64::from(self.blobs)) as u32;
        content(number)
    }

    pub(super) fn remember(&self, repository: &Name, body: &Bytes) {
        let mut recent = self.recent.lock().unwrap();
        recent.push_back((repository.clone(), body.clone()));
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    pub(super) fn recent(&self, actor: &mut Actor, repository: &Name) -> Option<Bytes> {
        let recent = self.recent.lock().unwrap();
        let of: Vec<&Bytes> =
            recent.iter().filter(|(name, _)| name == repository).map(|(_, body)| body).collect();
        of.choose(&mut actor.random).map(|body| (*body).clone())
    }

    fn remember_deleted(&self, deleted: Deleted) {
        const MOST: usize = 8;
        let mut all = self.deleted.lock().unwrap();
        if all.len() == MOST {
            all.pop_front();
        }
        all.push_back(deleted);
    }

    /// Something that was deleted lately, mostly the last, for the caller alone.
    pub(super) fn take_deleted(&self, actor: &mut Actor) -> Option<Deleted> {
        let mut all = self.deleted.lock().unwrap();
        let last = all.len().checked_sub(1)?;
        let index = if actor.chance(0.7) { last } else { actor.random.random_range(0..=last) };
        all.remove(index)
    }

    /// Whether a client may have deleted the blob since then.
    fn was_deleted_by_hand(&self, repository: &Name, digest: Digest, since: Instant) -> bool {
        /// What crashed may take effect a little later.
        const LONGEST: Duration = Duration::from_secs(10);
        let by_hand = self.by_hand.lock().unwrap();
        by_hand.get(&(repository.clone(), digest)).is_some_and(|began| *began + LONGEST >= since)
    }
}

pub(super) fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(super) fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

/// A blob of one part or of several.
fn content(number: u32) -> Bytes {
    Bytes::from(format!("blob {number:04} ").repeat(1 + number as usize % 3))
}

/// An operation on tags that is in the history until it is dropped: unless it was acknowledged before, it ended
/// in the middle.
pub(super) struct Recorded<'a> {
    history: &'a History,
    begun: Vec<Begun>,
}

impl<'a> Recorded<'a> {
    pub(super) fn begin(history: &'a History, repository: &Name, tags: &[Tag], change: Change) -> Self {
        let begun = tags.iter().map(|tag| history.begin(&(repository.clone(), tag.clone()), change));
        Self { history, begun: begun.collect() }
    }

    pub(super) fn acknowledged(self) {
        self.acknowledged_but(&[]);
    }

    /// Of these tags it is told that they were left as they are.
    fn acknowledged_but(mut self, refused: &[Tag]) {
        for begun in self.begun.drain(..) {
            self.history.end(&begun, !refused.contains(begun.tag()));
        }
    }

    pub(super) fn restored(mut self, digest: Digest) {
        for begun in self.begun.drain(..) {
            self.history.restored(&begun, digest);
        }
    }

    /// Of its first tag.
    pub(super) fn first(&self) -> &Begun {
        &self.begun[0]
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        for begun in &self.begun {
            self.history.end(begun, false);
        }
    }
}

/// What a client does next.
pub(super) async fn step(world: &World, shelf: &Shelf, actor: &mut Actor) {
    /// To the last one promotions go, too.
    const REPOSITORIES: [&str; 5] = [STRICT, LOOSE, STRICT, LOOSE, PROD];
    let wire = actor.wire.clone();
    let repository: Name = REPOSITORIES.choose(&mut actor.random).unwrap().parse().unwrap();
    let dice: f64 = actor.random.random();
    let done = wire.guard(async {
        match dice {
            ..0.40 => push(world, shelf, actor, &repository).await,
            ..0.46 => delete_tag(world, shelf, actor, &repository).await,
            ..0.52 => delete_manifest(world, shelf, actor, &repository).await,
            ..0.58 => delete_blob(world, shelf, actor, &repository).await,
            ..0.66 => trash::restore(world, shelf, actor).await,
            ..0.72 => Box::pin(promotions::promote(world, shelf, actor)).await,
            ..0.74 => releases::retire(world, actor, &repository).await,
            ..0.75 => releases::delete_in_vain(world, actor, &repository).await,
            _ => pull(world, actor, &repository).await,
        }
    });
    if done.await.is_none() {
        world.count("crashes");
        actor.reborn = actor.chance(0.3);
    }
}

/// Counts what was refused or failed; what must never happen is a violation.
pub(super) fn judge(world: &World, what: &str, error: &Error) {
    match error {
        Error::Internal(cause) => world.violation(format!("{what}: internal error: {cause:?}")),
        Error::ReferencesMissing(_) => world.count("pushes refused"),
        Error::ManifestUnknown | Error::BlobUnknown | Error::NameUnknown => world.count("unknown"),
        Error::Referenced => world.count("deletes refused"),
        // A manifest that such a tag names.
        Error::TagImmutable { .. } => world.count("refused as immutable"),
        Error::DatabaseAway(_) => world.count("database away"),
        Error::StoreAway(_) => world.count("bucket away"),
        Error::UploadUnknown => world.count("uploads gone"),
        Error::Overtaken => world.count("overtaken"),
        other => {
            world.count(&format!("failed: {other}"));
        }
    }
}

pub(super) fn tag(actor: &mut Actor) -> Tag {
    TAGS.choose(&mut actor.random).unwrap().parse().unwrap()
}

/// Under which tags something is pushed: none, some, an immutable one.
fn tags_to_set(world: &World, actor: &mut Actor, repository: &Name) -> Vec<Tag> {
    let mut tags = Vec::new();
    if actor.chance(0.65) {
        tags.push(tag(actor));
        if actor.chance(0.1) {
            tags.push(tag(actor));
        }
    }
    if actor.chance(0.2) {
        tags.push(world.releases.to_push(actor, repository));
    }
    tags.sort();
    tags.dedup();
    tags
}

async fn push(world: &World, shelf: &Shelf, actor: &mut Actor, repository: &Name) {
    let began = Instant::now();
    let Some(body) = prepare(world, shelf, actor, repository).await else { return };
    actor.think(Duration::from_millis(20)).await;
    let tags = tags_to_set(world, actor, repository);
    let digest = digest(&body);
    let known = world.releases.named(repository, &tags);
    let recorded = Recorded::begin(&world.history, repository, &tags, Change::Set(digest));
    // By a single tag, or by digest: then it takes those that it can have.
    let by_tag = if let [tag] = &tags[..] { Some(tag.clone()).filter(|_| actor.chance(0.5)) } else { None };
    let put = PutManifest {
        repository: repository.clone(),
        claimed: None,
        tags: if by_tag.is_some() { Vec::new() } else { tags.clone() },
        reference: by_tag.map_or(Reference::Digest(digest), Reference::Tag),
        content_type: None,
        body: body.clone(),
    };
    match actor.domain.put_manifest(put).await {
        Ok(pushed) => {
            recorded.acknowledged_but(&pushed.refused);
            world.count("pushes");
            releases::judge_push(world, repository, (&tags, &pushed.refused), digest, &known);
            shelf.remember(repository, &body);
        }
        Err(Error::TagImmutable { tag, .. }) => {
            drop(recorded);
            let refused = std::slice::from_ref(&tag);
            releases::judge_push(world, repository, (refused, refused), digest, &known);
        }
        Err(Error::ReferencesMissing(missing)) => {
            drop(recorded);
            world.count("pushes refused");
            judge_missing(world, shelf, repository, (&body, &missing), began);
        }
        Err(error) => judge(world, "push", &error),
    }
}

/// Blobs that a client brought, or was told of, since `began` are kept for half a lease at least, unless another client
/// deletes them. A database that lost rows gives other promises.
fn judge_missing(
    world: &World,
    shelf: &Shelf,
    repository: &Name,
    (body, missing): (&Bytes, &[Digest]),
    began: Instant,
) {
    let age = began.elapsed();
    if world.setting.loses_rows || age >= world.setting.promised / 2 {
        return;
    }
    let blobs = references(body).blobs;
    let is_broken =
        |blob: &&Digest| blobs.contains(*blob) && !shelf.was_deleted_by_hand(repository, **blob, began);
    if let Some(blob) = missing.iter().find(is_broken) {
        world.violation(format!("push to {repository} refused within its lease, after {age:?}: {blob}"));
    }
}

/// Brings all that a manifest refers to. The manifest, unless that failed.
async fn prepare(world: &World, shelf: &Shelf, actor: &mut Actor, repository: &Name) -> Option<Bytes> {
    let dice: f64 = actor.random.random();
    if dice < 0.15 {
        // Again what somebody has pushed.
        let body = shelf.recent(actor, repository)?;
        let blobs = references(&body).blobs;
        let known: Vec<Bytes> =
            (0..shelf.blobs).map(content).filter(|content| blobs.contains(&digest(content))).collect();
        return bring(world, actor, repository, &known).await.then_some(body);
    }
    if dice < 0.35 {
        return index(world, shelf, actor, repository).await;
    }
    let blobs: Vec<Bytes> = (0..actor.random.random_range(1..=3)).map(|_| shelf.blob(actor)).collect();
    let subject = match dice {
        ..0.5 => shelf.recent(actor, repository),
        _ => None,
    };
    let descriptors: Vec<Value> =
        blobs.iter().map(|blob| descriptor("application/octet-stream", &digest(blob), blob.len())).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptors[0],
        "layers": descriptors,
        "annotations": { "n": actor.random.random_range(0..40_u32).to_string() },
    });
    if let Some(subject) = subject {
        manifest["subject"] = descriptor(IMAGE, &digest(&subject), subject.len());
    }
    bring(world, actor, repository, &blobs).await.then(|| Bytes::from(manifest.to_string()))
}

/// An index of what was pushed lately, of blobs, and, where that is allowed, of what is not there.
async fn index(world: &World, shelf: &Shelf, actor: &mut Actor, repository: &Name) -> Option<Bytes> {
    let mut children = Vec::new();
    for _ in 0..2 {
        let child = shelf.recent(actor, repository)?;
        let reference = Reference::Digest(digest(&child));
        // What a client sees it relies upon.
        match actor.domain.manifest(repository, &reference, true).await {
            Ok(_) => children.push(descriptor(IMAGE, &digest(&child), child.len())),
            Err(error) => return judge_none(world, "head of a child", &error),
        }
    }
    if actor.chance(0.3) {
        let blob = shelf.blob(actor);
        if !bring(world, actor, repository, std::slice::from_ref(&blob)).await {
            return None;
        }
        children.push(descriptor("application/octet-stream", &digest(&blob), blob.len()));
    }
    if repository.as_str() == LOOSE && actor.chance(0.3) {
        let sparse = format!("sparse {}", actor.random.random_range(0..100_u32));
        children.push(descriptor(IMAGE, &digest(sparse.as_bytes()), sparse.len()));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    Some(Bytes::from(index.to_string()))
}

pub(super) fn judge_none<T>(world: &World, what: &str, error: &Error) -> Option<T> {
    judge(world, what, error);
    None
}

/// Whether all blobs are in the repository now.
async fn bring(world: &World, actor: &mut Actor, repository: &Name, blobs: &[Bytes]) -> bool {
    let ways: Vec<(bool, bool)> = blobs.iter().map(|_| (actor.chance(0.85), actor.chance(0.3))).collect();
    let brought = blobs
        .iter()
        .zip(ways)
        .map(|(blob, (asks, mounts))| bring_one(&actor.domain, repository, blob, asks, mounts));
    let mut all = true;
    for outcome in join_all(brought).await {
        if let Err(error) = outcome {
            judge(world, "blob", &error);
            all = false;
        }
    }
    all
}

async fn bring_one(
    domain: &Domain,
    repository: &Name,
    blob: &Bytes,
    asks: bool,
    mounts: bool,
) -> Result<(), Error> {
    let digest = digest(blob);
    if asks {
        match domain.blob(repository, &digest, true).await {
            Err(Error::BlobUnknown) => {}
            outcome => return outcome.map(drop),
        }
    }
    let other = if repository.as_str() == LOOSE { STRICT } else { LOOSE };
    if mounts && domain.mount(repository, &digest, &[other.parse().unwrap()]).await? {
        return Ok(());
    }
    domain.push_blob(repository, PRINCIPAL, &digest, chunk(blob)).await
}

/// Pushes an image of one blob.
pub(super) async fn push_image(
    actor: &Actor,
    repository: &Name,
    tag: &Tag,
    content: &'static str,
) -> Result<Digest, Error> {
    let blob = Bytes::from_static(content.as_bytes());
    actor.domain.push_blob(repository, PRINCIPAL, &digest(&blob), chunk(&blob)).await?;
    put_image(actor, repository, tag, content).await
}

/// The same, of a blob that is there.
pub(super) async fn put_image(
    actor: &Actor,
    repository: &Name,
    tag: &Tag,
    content: &'static str,
) -> Result<Digest, Error> {
    let blob = content.as_bytes();
    let layer = descriptor("application/octet-stream", &digest(blob), blob.len());
    let body = json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": layer, "layers": [layer] });
    let put = PutManifest {
        repository: repository.clone(),
        reference: Reference::Tag(tag.clone()),
        claimed: None,
        tags: Vec::new(),
        content_type: None,
        body: Bytes::from(body.to_string()),
    };
    Ok(actor.domain.put_manifest(put).await?.digest)
}

pub(super) fn chunk(bytes: &Bytes) -> Chunk {
    let bytes = bytes.clone();
    let length = Some(bytes.len() as u64);
    Chunk { start: None, length, body: Box::pin(futures::stream::once(async move { Ok(bytes) })) }
}

async fn delete_tag(world: &World, shelf: &Shelf, actor: &mut Actor, repository: &Name) {
    let tag = tag(actor);
    let began = Instant::now();
    let recorded = Recorded::begin(&world.history, repository, std::slice::from_ref(&tag), Change::Delete);
    match actor.domain.delete_tag(repository, &tag).await {
        Ok(()) => {
            let by = Some(recorded.first().clone());
            recorded.acknowledged();
            world.count("tags deleted");
            let item = TrashItem { repository: repository.clone(), reference: Reference::Tag(tag) };
            shelf.remember_deleted(Deleted { item, by, at: began });
        }
        Err(Error::ManifestUnknown | Error::NameUnknown) => {
            drop(recorded);
            saw(world, repository, &tag, None, began);
        }
        Err(error) => judge(world, "delete of a tag", &error),
    }
}

async fn delete_manifest(world: &World, shelf: &Shelf, actor: &mut Actor, repository: &Name) {
    let Some(body) = shelf.recent(actor, repository) else { return };
    let digest = digest(&body);
    let began = Instant::now();
    let tags = TAGS.map(|tag| tag.parse().unwrap());
    let recorded = Recorded::begin(&world.history, repository, &tags, Change::DeleteIf(digest));
    match actor.domain.delete_manifest(repository, &digest).await {
        Ok(()) => {
            recorded.acknowledged();
            world.count("manifests deleted");
            let item = TrashItem { repository: repository.clone(), reference: Reference::Digest(digest) };
            shelf.remember_deleted(Deleted { item, by: None, at: began });
        }
        Err(error) => judge(world, "delete of a manifest", &error),
    }
}

async fn delete_blob(world: &World, shelf: &Shelf, actor: &mut Actor, repository: &Name) {
    let digest = digest(&shelf.blob(actor));
    shelf.by_hand.lock().unwrap().insert((repository.clone(), digest), Instant::now());
    match actor.domain.delete_blob(repository, &digest).await {
        Ok(()) => world.count("blobs deleted"),
        Err(error) => judge(world, "delete of a blob", &error),
    }
}

/// Somebody was told what the tag names, at some moment since `began`.
pub(super) fn saw(world: &World, repository: &Name, tag: &Tag, value: Option<Digest>, began: Instant) {
    let which = (repository.clone(), tag.clone());
    if world.releases.is_retired(&which) {
        return;
    }
    let explained = world.history.check(&which, value, began);
    let same = value.map_or(Ok(()), |digest| world.releases.names(&which, digest));
    // It may have been retired meanwhile.
    if let Err(why) = explained.and(same)
        && !world.releases.is_retired(&which)
    {
        world.violation(format!("read of {repository}:{tag}: {why}"));
    }
}

async fn pull(world: &World, actor: &mut Actor, repository: &Name) {
    let once = if actor.chance(0.25) { world.releases.to_pull(actor, repository) } else { None };
    let tag = once.unwrap_or_else(|| tag(actor));
    pull_tag(world, actor, repository, &tag).await;
}

pub(super) async fn pull_tag(world: &World, actor: &Actor, repository: &Name, tag: &Tag) {
    /// A tag may move while it is pulled, and back again.
    const ATTEMPTS: u32 = 6;
    let mut missing = Vec::new();
    for _ in 0..ATTEMPTS {
        let began = Instant::now();
        let answer = actor.domain.manifest(repository, &Reference::Tag(tag.clone()), false).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Error::ManifestUnknown | Error::NameUnknown) => {
                saw(world, repository, tag, None, began);
                return world.count("reads of no tag");
            }
            Err(error) => return judge(world, "read of a tag", &error),
        };
        saw(world, repository, tag, Some(answer.digest), began);
        world.count(if answer.degraded { "degraded reads" } else { "reads" });
        let body = answer.body.expect("it was asked for");
        if digest(&body) != answer.digest {
            return world.violation(format!("{repository}:{tag}: other bytes than {}", answer.digest));
        }
        match pull_content(world, &actor.domain, repository, &body).await {
            Ok(()) => return world.count("pulls"),
            Err(Some(what)) => missing.push(format!("{} lacks {what}", answer.digest)),
            Err(None) => return,
        }
        world.count("pulls repeated");
    }
    world.violation(format!("pull of {repository}:{tag}: {missing:?}"));
}

/// `Err(Some)`: what is missing. `Err(None)`: it failed otherwise.
pub(super) async fn pull_content(
    world: &World,
    domain: &Domain,
    repository: &Name,
    body: &Bytes,
) -> Result<(), Option<String>> {
    let references = references(body);
    for blob in references.blobs {
        if !pull_blob(world, domain, repository, &blob).await? {
            return Err(Some(format!("blob {blob}")));
        }
    }
    if !STRICTS.contains(&repository.as_str()) {
        return Ok(());
    }
    for child in references.children {
        let found = domain.manifest(repository, &Reference::Digest(child), false).await;
        match found {
            Ok(_) => {}
            Err(Error::ManifestUnknown) => {
                if !pull_blob(world, domain, repository, &child).await? {
                    return Err(Some(format!("child {child}")));
                }
            }
            Err(error) => {
                judge(world, "read of a child", &error);
                return Err(None);
            }
        }
    }
    Ok(())
}

async fn pull_blob(
    world: &World,
    domain: &Domain,
    repository: &Name,
    wanted: &Digest,
) -> Result<bool, Option<String>> {
    let content = async {
        let blob = domain.blob(repository, wanted, false).await?;
        let pieces: Vec<Bytes> = domain.read_blob(&blob, None).await?.try_collect().await?;
        Ok::<_, Error>(pieces.concat())
    };
    match content.await {
        Ok(bytes) if digest(&bytes) == *wanted => Ok(true),
        Ok(_) => {
            world.violation(format!("blob {wanted} of {repository} has other bytes"));
            Err(None)
        }
        Err(Error::BlobUnknown) => Ok(false),
        Err(error) => {
            judge(world, "read of a blob", &error);
            Err(None)
        }
    }
}
