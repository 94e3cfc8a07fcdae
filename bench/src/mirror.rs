// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mirrors in figures: how soon the first byte of a blob arrives that only the upstream has, and how fast the rest,
//! beside a download from the upstream itself; and the same once it is here, beside a blob that was pushed.
//!
//! The upstream is distribution on a folder, as it is and over a line of a certain pace. Every download from it is of
//! another blob.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, StatusCode};
use serde_json::json;
use stowage_oci::{Algorithm, Digest};

use crate::large::{Layer, REPOSITORY, begin};
use crate::load::{Connection, Download, NOTHING, Pieces};
use crate::measure::{Memory, cpu_of};
use crate::pace::Paced;
use crate::progress;
use crate::report::{MirrorRow, Results};
use crate::scene::{Backing, Ground};
use crate::servers::{Kind, Programs, Registry, Storage};
use crate::stowage::Stowage;
use crate::work::closing;

/// What `--only` knows this work by.
pub(crate) const NAME: &str = "mirror";
const MIB: u64 = 1 << 20;
/// The blob that comes as fast as it can.
const LARGE: u64 = 1024 * MIB;
/// The one that comes over the slow line.
const SMALL: u64 = 128 * MIB;
/// The slow line, in bytes a second.
const PACE: u64 = 40 * MIB;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &[u8] = b"{}";

/// The measurements on one kind of storage.
pub(crate) struct Mirrors<'a> {
    pub(crate) ground: Ground,
    pub(crate) programs: &'a Programs,
    pub(crate) rounds: usize,
    pub(crate) scratch: PathBuf,
}

/// How the upstream is reached, and what is fetched from it.
struct Line {
    name: &'static str,
    address: String,
    bytes: u64,
}

impl Mirrors<'_> {
    /// Measures; what it finds out is added to `results`.
    pub(crate) async fn play(&self, results: &mut Results) -> Result<()> {
        let upstream = self.upstream().await?;
        let paced = Paced::listen(&upstream.address, PACE).await?;
        let lines = [
            Line { name: "as it is", address: upstream.address.clone(), bytes: LARGE },
            Line { name: "40 MiB/s", address: paced.address()?, bytes: SMALL },
        ];
        let backing = Backing::start(self.ground, &[Kind::Stowage], self.programs, &self.scratch).await?;
        let storage = backing.storage(Kind::Stowage, &self.scratch, None)?;
        let urls = lines.each_ref().map(|line| format!("http://{}", line.address));
        let home = self.scratch.join(Kind::Stowage.name());
        let stowage = Stowage::mirroring(self.programs, &storage, backing.database(), &home, &urls)?;
        if self.ground == Ground::S3 {
            stowage.run(&["migrate"])?;
        }
        let registry = stowage.start().await?;
        let measured = async {
            for (mirror, line) in lines.iter().enumerate() {
                let path = Stowage::mirror_path(mirror);
                results.mirrors.extend(self.through(line, &path, &upstream, &registry).await?);
            }
            Ok(())
        };
        paced.during(measured).await?;
        results.mirrors.push(self.pushed(&registry).await?);
        Ok(())
    }

    async fn upstream(&self) -> Result<Registry> {
        let home = self.scratch.join("upstream");
        let storage = Storage::Filesystem(home.join("data"));
        Registry::start(Kind::Distribution, self.programs, &storage, None, &home).await
    }

    /// A download from the upstream, one through the mirror, and one more, in every round.
    async fn through(
        &self,
        line: &Line,
        path: &str,
        upstream: &Registry,
        registry: &Registry,
    ) -> Result<[MirrorRow; 3]> {
        let row = |work| self.row(line.name, work, line.bytes);
        let mut rows = [row("from the upstream"), row("first pull"), row("second pull")];
        for round in 0..self.rounds {
            self.tell(&format!("upstream {}, round {}", line.name, round + 1));
            let tag = format!("{}-{round}", line.bytes);
            let blob = push(&upstream.address, &tag, line.bytes).await?;
            rustix::fs::sync();
            let manifest = format!("/v2/{path}/{REPOSITORY}/manifests/{tag}");
            let theirs = format!("/v2/{REPOSITORY}/blobs/{blob}");
            let ours = format!("/v2/{path}/{REPOSITORY}/blobs/{blob}");
            let [direct, cold, warm] = &mut rows;
            // It is in the memory of the machine for both.
            direct.add(download(&line.address, &theirs, line.bytes).await?, None);
            fetch(&registry.address, &manifest).await?;
            cold.measured(registry, &ours, line.bytes).await?;
            rustix::fs::sync();
            warm.measured(registry, &ours, line.bytes).await?;
        }
        Ok(rows)
    }

    /// The same of a blob that was pushed here.
    async fn pushed(&self, registry: &Registry) -> Result<MirrorRow> {
        self.tell("what was pushed");
        let blob = push(&registry.address, "pushed", LARGE).await?;
        rustix::fs::sync();
        let mut row = self.row("none: it was pushed", "pull", LARGE);
        for _ in 0..self.rounds {
            row.measured(registry, &format!("/v2/{REPOSITORY}/blobs/{blob}"), LARGE).await?;
        }
        Ok(row)
    }

    fn row(&self, upstream: &str, work: &str, bytes: u64) -> MirrorRow {
        MirrorRow {
            storage: self.ground.name().to_owned(),
            upstream: upstream.to_owned(),
            work: work.to_owned(),
            bytes,
            first_byte: Vec::new(),
            seconds: Vec::new(),
            cpu: Vec::new(),
            peak: None,
        }
    }

    fn tell(&self, what: &str) {
        progress(&format!("{}, {NAME}: {what}", self.ground.name()));
    }
}

impl MirrorRow {
    fn add(&mut self, download: Download, cpu: Option<f64>) {
        self.first_byte.push(download.first.as_secs_f64());
        self.seconds.push(download.all.as_secs_f64());
        self.cpu.extend(cpu);
    }

    /// A download from a process of which is known what it takes.
    async fn measured(&mut self, registry: &Registry, path: &str, bytes: u64) -> Result<()> {
        let pid = registry.process.pid();
        Memory::forget_peak(pid)?;
        let before = cpu_of(&[pid])?;
        let downloaded = download(&registry.address, path, bytes).await?;
        let cpu = cpu_of(&[pid])?.saturating_sub(before);
        self.add(downloaded, Some(cpu.as_secs_f64()));
        self.peak = self.peak.max(Some(Memory::of(pid)?.peak));
        Ok(())
    }
}

async fn download(address: &str, path: &str, bytes: u64) -> Result<Download> {
    let mut connection = Connection::open(address).await?;
    let download = connection.with(async |client| client.download(path, bytes).await).await;
    download.with_context(|| format!("GET {path}"))
}

async fn fetch(address: &str, path: &str) -> Result<Bytes> {
    let mut connection = Connection::open(address).await?;
    connection.with(async |client| client.fetch(path, Some((ACCEPT, MANIFEST))).await).await
}

/// Pushes an image with one layer of this size, like no other; the digest of the layer.
async fn push(address: &str, tag: &str, bytes: u64) -> Result<Digest> {
    let (layer, config) = (Layer::new(tag, bytes), Digest::of(Algorithm::Sha256, CONFIG));
    push_config(address, &config).await?;
    layer.push(address).await?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": CONFIG.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest.to_string(), "size": bytes,
        }],
    });
    let body = Pieces::from([Bytes::from(manifest.to_string())]);
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    let mut connection = Connection::open(address).await?;
    let put = async |client: &mut crate::load::Client| {
        client.send_with(Method::PUT, &path, Some((CONTENT_TYPE, MANIFEST)), body).await
    };
    connection.with(put).await?.expect(StatusCode::CREATED)?;
    Ok(layer.digest)
}

async fn push_config(address: &str, digest: &Digest) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let location = begin(&mut connection).await?;
    let path = closing(&location, digest);
    let body = Pieces::from([Bytes::from_static(CONFIG)]);
    let put =
        async |client: &mut crate::load::Client| client.send_with(Method::PUT, &path, NOTHING, body).await;
    connection.with(put).await?.expect(StatusCode::CREATED).map(drop).context("push the config")
}
