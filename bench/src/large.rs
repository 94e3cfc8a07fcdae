// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Layers of any size: a mebibyte, again and again, so that they take no memory.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use stowage_oci::{Algorithm, Digest, Hasher};

use crate::load::{Connection, Pieces};
use crate::raw;
use crate::work::closing;

/// Where they are pushed to.
pub(crate) const REPOSITORY: &str = "bench/large";
const PIECE: usize = 1 << 20;

/// A layer like no other.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pieces: Vec<Bytes>,
}

impl Layer {
    /// A layer of whole mebibytes; the same for the same name.
    pub(crate) fn new(name: &str, bytes: u64) -> Self {
        let seed = Digest::of(Algorithm::Sha256, name.as_bytes());
        let piece: Vec<u8> = seed.hash().iter().copied().cycle().take(PIECE).collect();
        let piece = Bytes::from(piece);
        let pieces: Vec<Bytes> = (0..bytes / PIECE as u64).map(|_| piece.clone()).collect();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for piece in &pieces {
            hasher.update(piece);
        }
        Self { digest: hasher.finish(), pieces }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    pub(crate) fn body(&self) -> Pieces {
        self.pieces.iter().cloned().collect()
    }

    pub(crate) fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }

    /// Pushes the layer in one `PUT`; how long after its last byte was given to the kernel the answer came.
    pub(crate) async fn push(&self, address: &str) -> Result<Duration> {
        let location = begin(&mut Connection::open(address).await?).await?;
        let target = closing(&location, &self.digest);
        let (layer, address) = (self.clone(), address.to_owned());
        tokio::task::spawn_blocking(move || layer.put(&address, &target)).await?
    }

    fn put(&self, address: &str, target: &str) -> Result<Duration> {
        let mut socket = raw::request(address, "PUT", target, self.bytes())?;
        for piece in &self.pieces {
            socket.write_all(piece)?;
        }
        let sent = Instant::now();
        raw::expect(&mut socket, 201)?;
        Ok(sent.elapsed())
    }
}

/// Begins an upload; where it goes on.
pub(crate) async fn begin(connection: &mut Connection) -> Result<String> {
    let begun = connection
        .with(async |client| client.send(Method::POST, &format!("/v2/{REPOSITORY}/blobs/uploads/")).await)
        .await?;
    let begun = begun.expect(StatusCode::ACCEPTED).context("begin the upload")?;
    Ok(begun.location()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_its_digest_and_no_other_has() {
        let layer = Layer::new("a", 2 << 20);
        let content = layer.pieces.concat();
        assert_eq!((layer.bytes(), &layer.digest), (2 << 20, &Digest::of(Algorithm::Sha256, &content)));
        assert_ne!(layer.digest, Layer::new("b", 2 << 20).digest);
    }
}
