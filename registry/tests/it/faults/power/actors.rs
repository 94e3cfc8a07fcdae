// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The load: clients that go on until the connection breaks. Each has repositories of its own.
//!
//! A new kind of load (a collector, a rebuild) is a new actor in [`ACTORS`].

use bytes::Bytes;
use http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use stowage_oci::Digest;

use super::super::client::{Answer, Broken, Client, Failed, IMAGE, image, noise, sha256};
use super::check;
use super::ledger::{Ledger, Repository, Upload, Wish};

const KIB: usize = 1 << 10;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Larger than a part, so that it takes a multipart upload.
const LARGE: usize = 17 << 20;

/// Who may be at work at the same time.
const ACTORS: [Actor; 10] = [
    Actor::Images("images/one"),
    Actor::Images("images/two"),
    Actor::Tags("tags/one"),
    Actor::Tags("tags/two"),
    Actor::Deletes("deletes/one"),
    Actor::Deletes("deletes/two"),
    Actor::Uploads("uploads/small"),
    Actor::LargeUploads("uploads/large"),
    Actor::Mounts { from: "images/one", to: "mounts" },
    Actor::Reads,
];

#[derive(Clone, Copy, Debug)]
pub(super) enum Actor {
    /// Pushes images, referrers and indexes of them.
    Images(&'static str),
    /// Moves a few tags.
    Tags(&'static str),
    /// Pushes, and deletes tags, manifests, blobs.
    Deletes(&'static str),
    /// Pushes blobs in several requests.
    Uploads(&'static str),
    /// The same with blobs of more than a part.
    LargeUploads(&'static str),
    /// Mounts what another has pushed.
    Mounts { from: &'static str, to: &'static str },
    /// Pulls what is certain to be there.
    Reads,
}

/// Who is at work until the next cut. Large uploads leave the others little of the machine, so they come now
/// and then.
pub(super) fn at_work(rng: &mut StdRng) -> Vec<Actor> {
    let large = rng.random_bool(0.3);
    ACTORS.into_iter().filter(|actor| large || !matches!(actor, Actor::LargeUploads(_))).collect()
}

/// An actor at work.
struct Work<'a> {
    client: &'a Client,
    ledger: &'a Ledger,
    rng: StdRng,
}

impl Actor {
    /// Whether it changes nothing.
    pub(super) const fn only_reads(self) -> bool {
        matches!(self, Self::Reads)
    }

    /// Works until the connection breaks, or something is refused.
    pub(super) async fn run(self, client: &Client, ledger: &Ledger, seed: u64) {
        let mut work = Work { client, ledger, rng: StdRng::seed_from_u64(seed) };
        while self.step(&mut work).await.is_ok() {}
    }

    async fn step(self, work: &mut Work<'_>) -> Result<(), Broken> {
        match self {
            Self::Images(repository) => work.push_image(repository).await,
            Self::Tags(repository) => work.move_tag(repository).await,
            Self::Deletes(repository) => work.push_and_delete(repository).await,
            Self::Uploads(repository) => work.push_in_pieces(repository, 60 * KIB, 0).await,
            Self::LargeUploads(repository) => work.push_in_pieces(repository, LARGE + 500 * KIB, LARGE).await,
            Self::Mounts { from, to } => work.mount(from, to).await,
            Self::Reads => work.read().await,
        }
    }
}

/// A step that is done when it is answered with `status`.
fn accepted(step: &'static str, status: u16, answer: Result<Answer, Broken>) -> Result<(), Failed> {
    match answer {
        Ok(answer) if answer.status == status => Ok(()),
        answer => Err(Failed { step, answer: answer.ok().map(Box::new) }),
    }
}

impl Work<'_> {
    /// Bytes that nobody pushed before.
    fn content(&mut self, length: usize) -> Vec<u8> {
        noise(self.ledger.number(), length)
    }

    async fn push_blob(&mut self, repository: Repository, content: &[u8]) -> Result<Digest, Broken> {
        let wish = Wish::Blob(repository, sha256(content), true);
        self.ledger.ask(&[wish], self.client.push_blob(repository, content)).await
    }

    /// Pushes a manifest whose blobs are there; under a tag, or by digest.
    async fn put(
        &self,
        repository: Repository,
        tag: Option<&str>,
        manifest: &Value,
    ) -> Result<Digest, Broken> {
        let digest = sha256(manifest.to_string().as_bytes());
        let mut wishes = vec![Wish::Manifest(repository, digest, true)];
        wishes.extend(tag.map(|tag| Wish::Tag(repository, tag.to_owned(), Some(digest))));
        let reference = tag.map_or_else(|| digest.to_string(), str::to_owned);
        self.ledger.ask(&wishes, self.client.put_manifest(repository, &reference, manifest)).await?;
        Ok(digest)
    }

    /// A small image that nobody pushed before; not tagged yet.
    async fn image(&mut self, repository: Repository) -> Result<Value, Broken> {
        let length = self.rng.random_range(1..40 * KIB);
        let layer = self.content(length);
        self.push_blob(repository, b"{}").await?;
        self.push_blob(repository, &layer).await?;
        Ok(image(&[&layer]))
    }

    async fn push_image(&mut self, repository: Repository) -> Result<(), Broken> {
        let tag = format!("v{}", self.rng.random_range(0..6));
        let manifest = self.image(repository).await?;
        let digest = self.put(repository, Some(&tag), &manifest).await?;
        let size = manifest.to_string().len();
        let described = json!({ "digest": digest, "size": size, "mediaType": IMAGE });
        if self.rng.random_bool(0.3) {
            let mut referrer = self.image(repository).await?;
            referrer["subject"] = described.clone();
            self.put(repository, None, &referrer).await?;
        }
        if self.rng.random_bool(0.3) {
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [described] });
            self.put(repository, Some("index"), &index).await?;
        }
        Ok(())
    }

    async fn move_tag(&mut self, repository: Repository) -> Result<(), Broken> {
        let manifest = self.image(repository).await?;
        for tag in ["latest", "stable", "edge"] {
            if self.rng.random_bool(0.7) {
                self.put(repository, Some(tag), &manifest).await?;
            }
        }
        if self.rng.random_bool(0.3) {
            self.delete_tag(repository, "edge").await?;
        }
        Ok(())
    }

    async fn delete_tag(&self, repository: Repository, tag: &str) -> Result<(), Broken> {
        let name = (repository, tag.to_owned());
        if !self.ledger.tagged().contains(&name) {
            return Ok(());
        }
        let wish = Wish::Tag(repository, tag.to_owned(), None);
        self.delete(&[wish], format!("/v2/{repository}/manifests/{tag}")).await
    }

    async fn delete(&self, wishes: &[Wish], target: String) -> Result<(), Broken> {
        let delete = async { accepted("delete", 202, self.client.ask(Method::DELETE, &target).await) };
        self.ledger.ask(wishes, delete).await
    }

    async fn push_and_delete(&mut self, repository: Repository) -> Result<(), Broken> {
        let number = self.rng.random_range(0..6);
        let tag = format!("d{number}");
        match self.rng.random_range(0..3) {
            0 => {
                let manifest = self.image(repository).await?;
                self.put(repository, Some(&tag), &manifest).await?;
                self.delete_tag(repository, &tag).await
            }
            1 => {
                let manifest = self.image(repository).await?;
                let digest = self.put(repository, Some(&tag), &manifest).await?;
                let target = format!("/v2/{repository}/manifests/{digest}");
                let gone = [Wish::Manifest(repository, digest, false), Wish::Tag(repository, tag, None)];
                self.delete(&gone, target).await
            }
            _ => {
                let content = self.content(10 * KIB);
                let digest = self.push_blob(repository, &content).await?;
                let target = format!("/v2/{repository}/blobs/{digest}");
                self.delete(&[Wish::Blob(repository, digest, false)], target).await
            }
        }
    }

    /// The first piece is at least `first` long.
    async fn push_in_pieces(&mut self, to: Repository, length: usize, first: usize) -> Result<(), Broken> {
        let content = Bytes::from(self.content(length));
        let path = self.ledger.told(self.client.open_upload(to)).await?;
        let number = self.ledger.number();
        let (repository, acknowledged) = (to, 0);
        let upload = Upload { repository, path, content, acknowledged, sent: 0, closing: false };
        self.ledger.books().uploads.insert(number, upload);
        let pieces = self.rng.random_range(1..4);
        for piece in 1..=pieces {
            let end = first + (length - first) * piece / (pieces + self.rng.random_range(0..2));
            patch(self.client, self.ledger, number, end).await?;
        }
        close(self.client, self.ledger, number).await
    }

    async fn mount(&mut self, from: Repository, to: Repository) -> Result<(), Broken> {
        let stored = self.ledger.stored(from);
        let Some(digest) = stored.choose(&mut self.rng) else {
            self.push_blob(to, b"{}").await?;
            return Ok(());
        };
        let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        let mount = async { accepted("mount", 201, self.client.ask(Method::POST, &target).await) };
        self.ledger.ask(&[Wish::Blob(to, *digest, true)], mount).await
    }

    async fn read(&mut self) -> Result<(), Broken> {
        let tagged = self.ledger.tagged();
        let Some((repository, tag)) = tagged.choose(&mut self.rng) else {
            return self.client.ask(Method::GET, "/v2/").await.map(drop);
        };
        // It may be moved or deleted meanwhile; what is read is whole all the same.
        if let Some(manifest) = check::read(self.client, self.ledger, "manifests", repository, tag).await? {
            check::parts(self.client, self.ledger, repository, &manifest).await?;
        }
        Ok(())
    }
}

/// Sends an upload's content up to `end`.
async fn patch(client: &Client, ledger: &Ledger, number: u64, end: usize) -> Result<(), Broken> {
    let mut piece = None;
    ledger.upload(number, |upload| {
        piece = Some((upload.path.clone(), upload.content.slice(upload.acknowledged..end)));
        upload.sent = end;
    });
    let (path, content) = piece.expect("the upload is open");
    ledger.told(client.patch(&path, &content)).await?;
    ledger.upload(number, |upload| upload.acknowledged = end);
    Ok(())
}

/// Sends what is left of an upload's content and makes it a blob.
async fn close(client: &Client, ledger: &Ledger, number: u64) -> Result<(), Broken> {
    let mut state = None;
    ledger.upload(number, |upload| {
        upload.sent = upload.content.len();
        upload.closing = true;
        state = Some(upload.clone());
    });
    let upload = state.expect("the upload is open");
    let digest = sha256(&upload.content);
    let rest = &upload.content[upload.acknowledged..];
    let wish = Wish::Blob(upload.repository, digest, true);
    ledger.ask(&[wish], client.close(&upload.path, &digest, rest)).await?;
    ledger.forget(number);
    Ok(())
}
