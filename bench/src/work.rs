// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The work: which content there is, and what a client does with it.
//!
//! The content is made from numbers, so it is the same in every run; its fingerprint names it. What is pushed
//! while the clock runs is new every time, since a registry that knows a blob has nothing to store.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::header::{ACCEPT as ACCEPT_HEADER, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::json;
use stowage_oci::{Algorithm, Digest, Hasher};

use crate::lists;
use crate::load::{Answer, Client, Connection, Header, Pieces};
use crate::scene::Ground;
use crate::servers::Kind;
use crate::tls::Tls;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
/// What makes a layer large.
const LARGE: usize = 64 * MIB;

/// Raised whenever the content or the way it is worked with changes: figures cannot be compared across it.
const EDITION: u32 = 2;
const REPOSITORIES: u64 = 8;
const TAGS: u64 = 4;
const SMALL_LAYER: usize = 4 * KIB;
const BLOB_SIZES: [usize; 5] = [4 * KIB, MIB, 8 * MIB, 64 * MIB, GIB];
/// What a blob repeats when it is longer.
const LONGEST_NOISE: usize = 64 * MIB;
const LAYER_SIZES: [usize; 2] = [8 * MIB, 64 * MIB];
/// The end of a pushed layer, which makes it one of its own.
const TAIL: usize = 64;
/// The blob that ranges are read of, and how long they are.
const RANGED: usize = 64 * MIB;
const RANGE_SIZE: usize = 64 * KIB;
/// The pieces of a layer whose length is not told: what programs in Go copy at once.
const CHUNK: usize = 32 * KIB;
/// The pieces of a layer that is sent in several requests.
const PATCH: usize = 8 * MIB;

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
    ManifestHead,
    ManifestByTag,
    ManifestByDigest,
    BlobHead,
    BlobGet(usize),
    BlobRange,
    Mount,
    PushImage,
    PushLayer(usize, Manner),
    /// Of everything something, as a cluster at work does.
    Mixed,
    /// A page of the tags of a repository that has so many.
    Tags(u32),
    Referrers,
    Catalog,
}

/// How a layer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All in one `PATCH`.
    Patch,
    /// The same, but nobody knows the length or the digest before the end.
    Chunked,
    /// In several `PATCH`es.
    Patches,
    /// With the `PUT` that finishes it.
    Put,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManifestHead => f.write_str("manifest-head-by-tag"),
            Self::ManifestByTag => f.write_str("manifest-by-tag"),
            Self::ManifestByDigest => f.write_str("manifest-by-digest"),
            Self::BlobHead => f.write_str("blob-head"),
            Self::BlobGet(size) => write!(f, "blob-get-{}", Size(*size)),
            Self::BlobRange => write!(f, "blob-get-{}-of-{}", Size(RANGE_SIZE), Size(RANGED)),
            Self::Mount => f.write_str("mount"),
            Self::PushImage => f.write_str("push-image"),
            Self::PushLayer(size, manner) => write!(f, "push-layer-{}{manner}", Size(*size)),
            Self::Mixed => f.write_str("mixed-over-tls"),
            Self::Tags(count) => write!(f, "tags-page-of-{}", Count(*count)),
            Self::Referrers => write!(f, "referrers-page-of-{}", Count(lists::REFERRERS)),
            Self::Catalog => write!(f, "catalog-page-of-{}", Count(lists::REPOSITORIES)),
        }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patch => "",
            Self::Chunked => "-chunked",
            Self::Patches => "-patches",
            Self::Put => "-monolithic",
        })
    }
}

struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..MIB => write!(f, "{}KiB", self.0 / KIB),
            MIB..GIB => write!(f, "{}MiB", self.0 / MIB),
            GIB.. => write!(f, "{}GiB", self.0 / GIB),
        }
    }
}

struct Count(u32);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..1_000 => write!(f, "{}", self.0),
            1_000..1_000_000 => write!(f, "{}k", self.0 / 1_000),
            1_000_000.. => write!(f, "{}M", self.0 / 1_000_000),
        }
    }
}

/// Where a task is done: what would disturb other work has registries of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Plain,
    Tls,
    /// Where lists are long.
    Lists,
}

impl Stage {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Lists];
}

impl Task {
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Mixed => Stage::Tls,
            Self::Tags(_) | Self::Referrers | Self::Catalog => Stage::Lists,
            _ => Stage::Plain,
        }
    }

    /// Whether a registry that the benchmark starts can do the task. distribution has no API for referrers; its longest
    /// lists on S3 are millions of objects, which take longer to make than all else to measure. Its older release has
    /// no pages of tags.
    pub(crate) fn suits(self, kind: Kind, ground: Ground) -> bool {
        match (kind, self) {
            (Kind::Distribution, Self::Referrers) => false,
            (Kind::DockerRegistry, Self::BlobGet(GIB) | Self::PushLayer(LARGE.., _)) => {
                kind.takes_large(ground)
            }
            (Kind::DockerRegistry, _) => self.stage() != Stage::Lists,
            (Kind::Distribution, Self::Tags(1_000_000..) | Self::Catalog) => ground == Ground::Filesystem,
            (Kind::Stowage | Kind::Distribution, _) => true,
        }
    }

    /// Whether the task leaves something behind.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Mount | Self::PushImage | Self::PushLayer(..) | Self::Mixed)
    }

    /// The content that one unit of the task moves, where that is what it is about.
    pub(crate) fn bytes(self) -> Option<u64> {
        match self {
            Self::BlobGet(size) | Self::PushLayer(size, _) => Some(size as u64),
            Self::BlobRange => Some(RANGE_SIZE as u64),
            _ => None,
        }
    }

    /// Whether the task reads the blob of this size.
    fn reads(self, size: usize) -> bool {
        match self {
            Self::BlobHead => size == MIB,
            Self::BlobGet(its) => size == its,
            Self::BlobRange => size == RANGED,
            Self::Mixed => [4 * KIB, MIB].contains(&size),
            _ => false,
        }
    }

    /// What is done in this turn. A mixture is what a cluster asks for: far more manifests than blobs, as most nodes
    /// have those, more blobs than pushes.
    fn part(self, turn: u64) -> Self {
        if self != Self::Mixed {
            return self;
        }
        match turn % 20 {
            0..8 => Self::ManifestHead,
            8..13 => Self::ManifestByTag,
            13..16 => Self::BlobGet(4 * KIB),
            16..19 => Self::BlobGet(MIB),
            _ => Self::PushImage,
        }
    }

    /// Does the task once.
    pub(crate) async fn once(self, data: &Data, client: &mut Client) -> Result<()> {
        let turn = data.next_turn();
        match self.part(turn) {
            Self::ManifestHead => data.image(turn).head(client).await,
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
            Self::BlobRange => data.blob(RANGED)?.get_range(client, turn).await,
            Self::Mount => data.mount(client, turn).await,
            Self::PushImage => Image::new(PUSHES, turn).push(client).await,
            Self::PushLayer(size, manner) => data.layer(size)?.push(client, turn, manner).await,
            Self::Mixed => unreachable!("a part of a mixture is no mixture"),
            Self::Tags(count) => lists::tags(client, turn, count).await,
            Self::Referrers => lists::referrers(client, &data.referred).await,
            Self::Catalog => lists::catalog(client, turn).await,
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
        work(Task::ManifestHead, &[8]),
        work(Task::ManifestByTag, &[1, 8, 64]),
        work(Task::ManifestByDigest, &[1, 8, 64]),
        work(Task::BlobHead, &[8]),
        work(Task::BlobGet(4 * KIB), &[8]),
        work(Task::BlobGet(MIB), &[8]),
        work(Task::BlobGet(8 * MIB), &[4]),
        work(Task::BlobGet(64 * MIB), &[2]),
        work(Task::BlobGet(GIB), &[1]),
        work(Task::BlobRange, &[8]),
        work(Task::Mount, &[8]),
        work(Task::PushImage, &[1, 8, 32]),
        work(Task::PushLayer(8 * MIB, Manner::Patch), &[1]),
        work(Task::PushLayer(LARGE, Manner::Patch), &[1, 8]),
        work(Task::PushLayer(LARGE, Manner::Chunked), &[1]),
        work(Task::PushLayer(LARGE, Manner::Patches), &[1]),
        work(Task::PushLayer(LARGE, Manner::Put), &[1]),
        work(Task::Mixed, &[16]),
        lists::TAGS.map(|count| Work { task: Task::Tags(count), clients: 1 }).to_vec(),
        work(Task::Referrers, &[1]),
        work(Task::Catalog, &[1]),
    ]
    .concat()
}

/// The tasks whose requests to the storage are counted.
pub(crate) const COUNTED: [Task; 6] = [
    Task::PushImage,
    Task::Mount,
    Task::ManifestByTag,
    Task::ManifestByDigest,
    Task::BlobGet(MIB),
    Task::BlobRange,
];

/// The content that every registry is given before the clock runs.
pub(crate) struct Data {
    images: Vec<Image>,
    blobs: Vec<Blob>,
    layers: Vec<Layer>,
    referred: Digest,
    turn: Cell<u64>,
}

impl Data {
    /// Makes the content. What is pushed while the clock runs is counted on from `first_turn`, which tells it
    /// from what other runs have pushed to the same peer.
    pub(crate) fn make(first_turn: u64) -> Self {
        let images = (0..REPOSITORIES * TAGS)
            .map(|number| Image::new(&format!("bench/images-{}", number % REPOSITORIES), number))
            .collect();
        let blobs = BLOB_SIZES.iter().map(|&size| Blob::repeating(BLOBS, size)).collect();
        let longest = noise(0, LAYER_SIZES.into_iter().max().unwrap_or_default());
        let layers = LAYER_SIZES.iter().map(|&size| Layer::new(longest.slice(..size - TAIL))).collect();
        let referred = lists::referred().digest;
        Self { images, blobs, layers, referred, turn: Cell::new(first_turn) }
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

    /// Gives a registry the content that these tasks read, and sees that it returns the very same bytes.
    pub(crate) async fn give(&self, tls: Option<&Tls>, address: &str, tasks: &[Task]) -> Result<()> {
        let mut connection = Connection::open_over(tls, address).await?;
        connection.with(async |client| self.push_and_check(client, tasks).await).await
    }

    async fn push_and_check(&self, client: &mut Client, tasks: &[Task]) -> Result<()> {
        for image in &self.images {
            image.give(client).await.context("push an image")?;
            for path in [image.path(&image.tag), image.path(&image.digest.to_string())] {
                ensure!(client.fetch(&path, ACCEPT).await? == image.manifest, "{path} returns other bytes");
            }
        }
        for blob in &self.blobs {
            if !tasks.iter().any(|task| task.reads(blob.size)) {
                continue;
            }
            blob.give(client).await.context("push a blob")?;
            ensure!(client.digest(&blob.path()).await? == blob.digest, "{} returns other bytes", blob.path());
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
        self.blobs.iter().find(|blob| blob.size == size).context("no blob of this size")
    }

    fn layer(&self, size: usize) -> Result<&Layer> {
        self.layers.iter().find(|layer| layer.prefix.len() + TAIL == size).context("no layer of this size")
    }

    /// Mounts a blob that the repository does not have: once a repository has all of them, it is the next one's turn.
    async fn mount(&self, client: &mut Client, turn: u64) -> Result<()> {
        let all = self.images.len() as u64;
        let image = self.image(turn);
        let [config, first, second] = &image.blobs;
        let blob = match turn / all % 3 {
            0 => config,
            1 => first,
            _ => second,
        };
        let target = format!("bench/mounts-{}", turn / (3 * all));
        let (digest, source) = (&blob.digest, &image.repository);
        let mount = format!("/v2/{target}/blobs/uploads/?mount={digest}&from={source}");
        client.send(Method::POST, &mount).await?.expect(StatusCode::CREATED).map(drop)
    }
}

/// A small image: a config, two layers and the manifest that names them.
pub(crate) struct Image {
    repository: String,
    tag: String,
    manifest: Bytes,
    digest: Digest,
    blobs: [Blob; 3],
}

impl Image {
    pub(crate) fn new(repository: &str, number: u64) -> Self {
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

    async fn head(&self, client: &mut Client) -> Result<()> {
        let answer = client.send_with(Method::HEAD, &self.path(&self.tag), ACCEPT, Pieces::default()).await?;
        answer.expect(StatusCode::OK)?.of_length(0).map(drop)
    }

    async fn get(&self, client: &mut Client, by_digest: bool) -> Result<()> {
        let path = if by_digest { self.path(&self.digest.to_string()) } else { self.path(&self.tag) };
        let answer = client.send_with(Method::GET, &path, ACCEPT, Pieces::default()).await?;
        answer.expect(StatusCode::OK)?.of_length(self.manifest.len() as u64).map(drop)
    }

    pub(crate) fn descriptor(&self) -> serde_json::Value {
        json!({ "mediaType": MANIFEST, "digest": self.digest.to_string(), "size": self.manifest.len() })
    }

    /// The descriptor of its config.
    pub(crate) fn config(&self) -> serde_json::Value {
        self.blobs[0].descriptor(CONFIG)
    }

    pub(crate) async fn push(&self, client: &mut Client) -> Result<()> {
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
    pieces: Vec<Bytes>,
    size: usize,
    digest: Digest,
}

impl Blob {
    fn new(repository: &str, content: Bytes) -> Self {
        Self::of(repository, vec![content])
    }

    /// Noise, or the same noise again and again where it is long.
    fn repeating(repository: &str, size: usize) -> Self {
        let block = noise(size as u64, size.min(LONGEST_NOISE));
        Self::of(repository, vec![block.clone(); size / block.len()])
    }

    fn of(repository: &str, pieces: Vec<Bytes>) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for piece in &pieces {
            hasher.update(piece);
        }
        let size = pieces.iter().map(Bytes::len).sum();
        Self { repository: repository.to_owned(), pieces, size, digest: hasher.finish() }
    }

    fn path(&self) -> String {
        format!("/v2/{}/blobs/{}", self.repository, self.digest)
    }

    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": self.digest.to_string(), "size": self.size })
    }

    /// Pushes the blob unless it is there: a peer keeps its content from run to run.
    async fn give(&self, client: &mut Client) -> Result<()> {
        if client.send(Method::HEAD, &self.path()).await?.status().is_success() {
            return Ok(());
        }
        self.push(client).await
    }

    async fn push(&self, client: &mut Client) -> Result<()> {
        expect_absence(client, &self.repository, &self.digest).await?;
        let upload = Upload::begin(client, &self.repository).await?;
        let sent = upload.patch(client, self.pieces.iter().cloned().collect()).await?;
        sent.finish(client, &self.digest, Pieces::default()).await
    }

    /// Reads one of all ranges there are, going through them by leaps.
    async fn get_range(&self, client: &mut Client, turn: u64) -> Result<()> {
        let [content] = self.pieces.as_slice() else { bail!("ranges are read of what does not repeat") };
        let ranges = self.size / RANGE_SIZE;
        let first = RANGE_SIZE * usize::try_from(leap(turn, ranges as u64))?;
        let range = first..first + RANGE_SIZE;
        let read = client.fetch_range(&self.path(), range.clone()).await?;
        ensure!(read == content[range], "{} returns other bytes from {first} on", self.path());
        Ok(())
    }
}

/// Where an upload that is at `location` is closed.
pub(crate) fn closing(location: &str, digest: &Digest) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={digest}")
}

/// A number below `count`, far from that of the turn before; `count` turns go through all if it is not a multiple of
/// this prime.
pub(crate) fn leap(turn: u64, count: u64) -> u64 {
    const PRIME: u64 = 7919;
    turn % count * PRIME % count
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

    async fn push(&self, client: &mut Client, turn: u64, manner: Manner) -> Result<()> {
        let tail = noise(turn, TAIL);
        let mut hash = self.prefix_hash.clone();
        hash.update(&tail);
        let digest = hash.finish();
        let whole = Pieces::from([self.prefix.clone(), tail.clone()]);
        if manner != Manner::Chunked {
            expect_absence(client, PUSHES, &digest).await?;
        }
        let mut upload = Upload::begin(client, PUSHES).await?;
        let mut last = Pieces::default();
        match manner {
            Manner::Patch => upload = upload.patch(client, whole).await?,
            Manner::Chunked => {
                let starts = (0..self.prefix.len()).step_by(CHUNK);
                let chunks =
                    starts.map(|start| self.prefix.slice(start..self.prefix.len().min(start + CHUNK)));
                let body: Pieces = chunks.chain([tail]).collect();
                upload = upload.patch(client, body.of_unknown_length()).await?;
            }
            Manner::Patches => {
                let size = self.prefix.len() + TAIL;
                for first in (0..size).step_by(PATCH) {
                    let end = size.min(first + PATCH);
                    let piece = self.prefix.slice(first..end.min(self.prefix.len()));
                    let rest = if end == size { tail.clone() } else { Bytes::new() };
                    upload = upload.patch_range(client, first..end, Pieces::from([piece, rest])).await?;
                }
            }
            Manner::Put => last = whole,
        }
        upload.finish(client, &digest, last).await
    }
}

/// Asks for a blob before it is pushed, as Docker, crane and podman do.
async fn expect_absence(client: &mut Client, repository: &str, digest: &Digest) -> Result<()> {
    let seen = client.send(Method::HEAD, &format!("/v2/{repository}/blobs/{digest}")).await?;
    seen.expect(StatusCode::NOT_FOUND).map(drop).context("look for the blob")
}

/// An upload that goes on where the last answer said.
struct Upload(Answer);

impl Upload {
    async fn begin(client: &mut Client, repository: &str) -> Result<Self> {
        let begun = client.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/")).await?;
        begun.expect(StatusCode::ACCEPTED).map(Self).context("begin the upload")
    }

    async fn patch(&self, client: &mut Client, body: Pieces) -> Result<Self> {
        let sent = client.send_with(Method::PATCH, self.0.location()?, OCTETS, body).await?;
        sent.expect(StatusCode::ACCEPTED).map(Self).context("send the content")
    }

    async fn patch_range(&self, client: &mut Client, range: Range<usize>, body: Pieces) -> Result<Self> {
        let range = format!("{}-{}", range.start, range.end - 1);
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_RANGE, HeaderValue::try_from(range)?),
        ];
        let sent = client.send_headers(Method::PATCH, self.0.location()?, headers, body).await?;
        sent.expect(StatusCode::ACCEPTED).map(Self).context("send a part of the content")
    }

    /// Ends the upload, with what was not sent before.
    async fn finish(self, client: &mut Client, digest: &Digest, rest: Pieces) -> Result<()> {
        let location = self.0.location()?;
        let path = closing(location, digest);
        let finished = client.send_with(Method::PUT, &path, OCTETS, rest).await?;
        finished.expect(StatusCode::CREATED).map(drop).context("finish the upload")
    }
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
        for name in
            ["push-layer-64MiB x8", "push-layer-64MiB-chunked x1", "blob-get-1GiB x1", "tags-page-of-1M x1"]
        {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn a_mixture_has_every_part_in_twenty_turns() {
        let parts: Vec<Task> = (100..120).map(|turn| Task::Mixed.part(turn)).collect();
        let count = |part| parts.iter().filter(|&&other| other == part).count();
        let counted =
            [Task::ManifestHead, Task::ManifestByTag, Task::BlobGet(MIB), Task::PushImage].map(count);
        assert_eq!(counted, [8, 5, 3, 1]);
        assert!(
            BLOB_SIZES.iter().all(|&size| Task::Mixed.reads(size) == parts.contains(&Task::BlobGet(size)))
        );
    }

    #[test]
    fn leaps_go_through_all_there_is() {
        let seen: std::collections::BTreeSet<_> = (1000..2024).map(|turn| leap(turn, 1024)).collect();
        assert_eq!(seen.len(), 1024);
    }

    #[test]
    fn a_long_blob_repeats_and_has_the_digest_of_all_of_it() {
        let blob = Blob::of("a", vec![noise(1, 10); 3]);
        let whole = [noise(1, 10), noise(1, 10), noise(1, 10)].concat();
        assert_eq!((blob.size, blob.digest), (30, Digest::of(Algorithm::Sha256, &whole)));
    }
}
