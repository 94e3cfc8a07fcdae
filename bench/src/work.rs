// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The work: which content there is, and what a client does with it.
//!
//! The content is made from numbers, so it is the same in every run; its fingerprint names it. What is pushed
//! while the clock runs is new every time, since a registry that knows a blob has nothing to store.

use std::cell::Cell;
use std::fmt;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::header::{ACCEPT as ACCEPT_HEADER, CONTENT_TYPE};
use hyper::{Method, StatusCode};
use serde_json::json;
use stowage_oci::{Algorithm, Digest, Hasher};

use crate::load::{Client, Connection, Header, NOTHING, Pieces};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Raised whenever the content or the way it is worked with changes: figures cannot be compared across it.
const EDITION: u32 = 1;
const REPOSITORIES: u64 = 8;
const TAGS: u64 = 4;
const SMALL_LAYER: usize = 4 * KIB;
const BLOB_SIZES: [usize; 4] = [4 * KIB, MIB, 8 * MIB, 64 * MIB];
const LAYER_SIZES: [usize; 2] = [8 * MIB, 64 * MIB];
/// The end of a pushed layer, which makes it one of its own.
const TAIL: usize = 64;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What clients that pull say they understand.
const ACCEPT: Header = Some((
    ACCEPT_HEADER,
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json",
));
const OCTETS: Header = Some((CONTENT_TYPE, "application/octet-stream"));
const BLOBS: &str = "bench/blobs";
const PUSHES: &str = "bench/pushes";

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    ManifestByTag,
    ManifestByDigest,
    BlobHead,
    BlobGet(usize),
    PushImage,
    PushLayer(usize),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManifestByTag => f.write_str("manifest-by-tag"),
            Self::ManifestByDigest => f.write_str("manifest-by-digest"),
            Self::BlobHead => f.write_str("blob-head"),
            Self::BlobGet(size) => write!(f, "blob-get-{}", Size(*size)),
            Self::PushImage => f.write_str("push-image"),
            Self::PushLayer(size) => write!(f, "push-layer-{}", Size(*size)),
        }
    }
}

struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < MIB { write!(f, "{}KiB", self.0 / KIB) } else { write!(f, "{}MiB", self.0 / MIB) }
    }
}

impl Task {
    /// Whether the task leaves something behind.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::PushImage | Self::PushLayer(_))
    }

    /// The content that one unit of the task moves, where that is what it is about.
    pub(crate) fn bytes(self) -> Option<u64> {
        match self {
            Self::BlobGet(size) | Self::PushLayer(size) => Some(size as u64),
            _ => None,
        }
    }

    /// Does the task once.
    pub(crate) async fn once(self, data: &Data, client: &mut Client) -> Result<()> {
        let turn = data.next_turn();
        match self {
            Self::ManifestByTag => data.image(turn).get(client, false).await,
            Self::ManifestByDigest => data.image(turn).get(client, true).await,
            Self::BlobHead => {
                let answer = client.send(Method::HEAD, &data.blob(MIB)?.path()).await?;
                answer.expect(StatusCode::OK).map(drop)
            }
            Self::BlobGet(size) => {
                let answer = client.send(Method::GET, &data.blob(size)?.path()).await?;
                answer.expect(StatusCode::OK)?.of_length(size as u64).map(drop)
            }
            Self::PushImage => Image::new(PUSHES, turn).push(client).await,
            Self::PushLayer(size) => data.layer(size)?.push(client, turn).await,
        }
    }
}

/// A task and how many clients do it at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) task: Task,
    pub(crate) clients: usize,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x{}", self.task, self.clients)
    }
}

/// All the work there is, in the order of the report.
pub(crate) fn all() -> Vec<Work> {
    let work = |task, clients: &[usize]| -> Vec<Work> {
        clients.iter().map(|&clients| Work { task, clients }).collect()
    };
    [
        work(Task::ManifestByTag, &[1, 8, 64]),
        work(Task::ManifestByDigest, &[1, 8, 64]),
        work(Task::BlobHead, &[8]),
        work(Task::BlobGet(4 * KIB), &[8]),
        work(Task::BlobGet(MIB), &[8]),
        work(Task::BlobGet(8 * MIB), &[4]),
        work(Task::BlobGet(64 * MIB), &[2]),
        work(Task::PushImage, &[1, 8]),
        work(Task::PushLayer(8 * MIB), &[1]),
        work(Task::PushLayer(64 * MIB), &[1]),
    ]
    .concat()
}

/// The tasks whose requests to the storage are counted.
pub(crate) const COUNTED: [Task; 4] =
    [Task::PushImage, Task::ManifestByTag, Task::ManifestByDigest, Task::BlobGet(MIB)];

/// The content that every registry is given before the clock runs.
pub(crate) struct Data {
    images: Vec<Image>,
    blobs: Vec<Blob>,
    layers: Vec<Layer>,
    turn: Cell<u64>,
}

impl Data {
    /// Makes the content. What is pushed while the clock runs is counted on from `first_turn`, which tells it
    /// from what other runs have pushed to the same peer.
    pub(crate) fn make(first_turn: u64) -> Self {
        let images = (0..REPOSITORIES * TAGS)
            .map(|number| Image::new(&format!("bench/images-{}", number % REPOSITORIES), number))
            .collect();
        let blobs =
            BLOB_SIZES.iter().map(|&size| Blob::new(BLOBS, noise(size as u64, size))).collect::<Vec<_>>();
        let longest = noise(0, LAYER_SIZES.into_iter().max().unwrap_or_default());
        let layers = LAYER_SIZES.iter().map(|&size| Layer::new(longest.slice(..size - TAIL))).collect();
        Self { images, blobs, layers, turn: Cell::new(first_turn) }
    }

    /// Names the content and the way it is worked with.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&EDITION.to_be_bytes());
        for digest in
            self.images.iter().map(|image| &image.digest).chain(self.blobs.iter().map(|b| &b.digest))
        {
            hasher.update(&digest.to_bytes());
        }
        for layer in &self.layers {
            hasher.update(&layer.prefix_hash.clone().finish().to_bytes());
        }
        hasher.finish().to_string()
    }

    /// Gives a registry the content, and sees that it returns the very same bytes.
    pub(crate) async fn give(&self, address: &str) -> Result<()> {
        let mut connection = Connection::open(address).await?;
        connection.with(async |client| self.push_and_check(client).await).await
    }

    async fn push_and_check(&self, client: &mut Client) -> Result<()> {
        for image in &self.images {
            image.give(client).await.context("push an image")?;
            for path in [image.path(&image.tag), image.path(&image.digest.to_string())] {
                ensure!(client.fetch(&path, ACCEPT).await? == image.manifest, "{path} returns other bytes");
            }
        }
        for blob in &self.blobs {
            blob.give(client).await.context("push a blob")?;
            ensure!(
                client.fetch(&blob.path(), NOTHING).await? == blob.content,
                "{} returns other bytes",
                blob.path()
            );
        }
        Ok(())
    }

    fn next_turn(&self) -> u64 {
        self.turn.replace(self.turn.get() + 1)
    }

    fn image(&self, turn: u64) -> &Image {
        let index = usize::try_from(turn % self.images.len() as u64);
        &self.images[index.expect("a remainder of a usize is a usize")]
    }

    fn blob(&self, size: usize) -> Result<&Blob> {
        self.blobs.iter().find(|blob| blob.content.len() == size).context("no blob of this size")
    }

    fn layer(&self, size: usize) -> Result<&Layer> {
        self.layers.iter().find(|layer| layer.prefix.len() + TAIL == size).context("no layer of this size")
    }
}

/// A small image: a config, two layers and the manifest that names them.
struct Image {
    repository: String,
    tag: String,
    manifest: Bytes,
    digest: Digest,
    blobs: [Blob; 3],
}

impl Image {
    fn new(repository: &str, number: u64) -> Self {
        let layers = [2 * number, 2 * number + 1].map(|n| Blob::new(repository, noise(n, SMALL_LAYER)));
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": format!("image {number}"),
            "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": layers.each_ref().map(|layer| layer.digest.to_string()) },
        });
        let config = Blob::new(repository, Bytes::from(config.to_string()));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": layers.each_ref().map(|layer| layer.descriptor(LAYER)),
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = Digest::of(Algorithm::Sha256, &manifest);
        let [first, second] = layers;
        Self {
            repository: repository.to_owned(),
            tag: format!("v{number}"),
            manifest,
            digest,
            blobs: [config, first, second],
        }
    }

    fn path(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository)
    }

    async fn get(&self, client: &mut Client, by_digest: bool) -> Result<()> {
        let path = if by_digest { self.path(&self.digest.to_string()) } else { self.path(&self.tag) };
        let answer = client.send_with(Method::GET, &path, ACCEPT, Pieces::default()).await?;
        answer.expect(StatusCode::OK)?.of_length(self.manifest.len() as u64).map(drop)
    }

    async fn push(&self, client: &mut Client) -> Result<()> {
        for blob in &self.blobs {
            blob.push(client).await?;
        }
        self.put_manifest(client).await
    }

    async fn give(&self, client: &mut Client) -> Result<()> {
        for blob in &self.blobs {
            blob.give(client).await?;
        }
        self.put_manifest(client).await
    }

    async fn put_manifest(&self, client: &mut Client) -> Result<()> {
        let body = Pieces::from([self.manifest.clone()]);
        let answer = client
            .send_with(Method::PUT, &self.path(&self.tag), Some((CONTENT_TYPE, MANIFEST)), body)
            .await?;
        answer.expect(StatusCode::CREATED).map(drop).context("put the manifest")
    }
}

/// A blob of a repository.
struct Blob {
    repository: String,
    content: Bytes,
    digest: Digest,
}

impl Blob {
    fn new(repository: &str, content: Bytes) -> Self {
        let digest = Digest::of(Algorithm::Sha256, &content);
        Self { repository: repository.to_owned(), content, digest }
    }

    fn path(&self) -> String {
        format!("/v2/{}/blobs/{}", self.repository, self.digest)
    }

    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": self.digest.to_string(), "size": self.content.len() })
    }

    /// Pushes the blob unless it is there: a peer keeps its content from run to run.
    async fn give(&self, client: &mut Client) -> Result<()> {
        if client.send(Method::HEAD, &self.path()).await?.status().is_success() {
            return Ok(());
        }
        self.push(client).await
    }

    async fn push(&self, client: &mut Client) -> Result<()> {
        upload(client, &self.repository, &self.digest, Pieces::from([self.content.clone()])).await
    }
}

/// A layer to push, but for its end: each push has an end of its own.
struct Layer {
    prefix: Bytes,
    prefix_hash: Hasher,
}

impl Layer {
    fn new(prefix: Bytes) -> Self {
        let mut prefix_hash = Hasher::new(Algorithm::Sha256);
        prefix_hash.update(&prefix);
        Self { prefix, prefix_hash }
    }

    async fn push(&self, client: &mut Client, turn: u64) -> Result<()> {
        let tail = noise(turn, TAIL);
        let mut hash = self.prefix_hash.clone();
        hash.update(&tail);
        upload(client, PUSHES, &hash.finish(), Pieces::from([self.prefix.clone(), tail])).await
    }
}

/// Uploads as Docker, crane and podman do: is it there, begin, send, finish.
async fn upload(client: &mut Client, repository: &str, digest: &Digest, body: Pieces) -> Result<()> {
    let blob = format!("/v2/{repository}/blobs/{digest}");
    let seen = client.send(Method::HEAD, &blob).await?;
    seen.expect(StatusCode::NOT_FOUND).context("look for the blob")?;
    let begin = format!("/v2/{repository}/blobs/uploads/");
    let begun = client.send(Method::POST, &begin).await?;
    let begun = begun.expect(StatusCode::ACCEPTED).context("begin the upload")?;
    let sent = client
        .send_with(Method::PATCH, begun.location()?, OCTETS, body)
        .await?
        .expect(StatusCode::ACCEPTED)
        .context("send the content")?;
    let location = sent.location()?;
    let joint = if location.contains('?') { '&' } else { '?' };
    let finish = format!("{location}{joint}digest={digest}");
    let finished = client.send(Method::PUT, &finish).await?;
    finished.expect(StatusCode::CREATED).map(drop).context("finish the upload")
}

/// Bytes that do not compress, the same for the same seed (xorshift64*).
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut content = Vec::with_capacity(length + 8);
    while content.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        content.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    content.truncate(length);
    Bytes::from(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_the_same_in_every_run() {
        let (first, second) = (Image::new("a", 7), Image::new("a", 7));
        assert_eq!(first.manifest, second.manifest);
        assert_ne!(first.manifest, Image::new("a", 8).manifest);
        assert_eq!(noise(3, 13).len(), 13);
        assert_ne!(noise(3, 64), noise(4, 64));
    }

    #[test]
    fn a_layer_has_the_digest_of_its_prefix_and_its_end() {
        let layer = Layer::new(noise(1, 1000));
        let mut hash = layer.prefix_hash.clone();
        hash.update(&noise(9, TAIL));
        let whole = [noise(1, 1000), noise(9, TAIL)].concat();
        assert_eq!(hash.finish(), Digest::of(Algorithm::Sha256, &whole));
    }

    #[test]
    fn work_has_names_that_say_size_and_clients() {
        let names: Vec<String> = all().iter().map(ToString::to_string).collect();
        assert!(names.contains(&"blob-get-4KiB x8".to_owned()), "{names:?}");
        assert!(names.contains(&"push-layer-64MiB x1".to_owned()), "{names:?}");
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
