// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Receiving bytes: hash them, cut them into parts, keep no more in memory than one part that fills and one
//! that flies.
//!
//! What is durable is a prefix of what was received: acknowledged parts, then staged tails, with the state of
//! the hash at its end. A request that ends early stores that prefix, and the client goes on from there, on
//! any replica.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use stowage_oci::{Algorithm, Hasher};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::super::{Domain, Error};
use super::Chunk;
use super::session::Held;
use crate::blobs::{self, MultipartId, Part};
use crate::key::{Generation, Key};
use crate::meta::{LeasedUpload, Multipart, Progress, Tail, UploadKey};
use crate::ops::clock;

/// What an upload may hold in memory without asking, in bytes.
const UNRESERVED: u64 = 256 << 10;
const MIB: u64 = 1 << 20;
/// The most parts of an object (S3).
const MOST_PARTS: u64 = 10_000;
/// Parts to aim at when the length is known; leaves room for an upload that grows.
const PLANNED_PARTS: u64 = 9_000;

/// A request's work on an upload.
pub(super) struct Receiver {
    pub(super) domain: Domain,
    pub(super) held: Held,
    /// What is stored and acknowledged.
    pub(super) durable: Progress,
    pub(super) hasher: Hasher,
    /// Everything received so far, in bytes.
    pub(super) offset: u64,
    /// Bytes of the part that fills, new in this request.
    pub(super) segments: Vec<Bytes>,
    filled: u64,
    /// Bytes of the part that fills, staged by earlier requests.
    pub(super) staged: u64,
    /// Whether the bytes are stored at all: content that is stored already is only hashed.
    pub(super) stores: bool,
    part_size: u64,
    /// How many bytes this request brings, if the client said so.
    announced: Option<u64>,
    memory: Option<OwnedSemaphorePermit>,
    flight: Option<Flight>,
}

/// A part on its way to the store.
struct Flight {
    part: JoinHandle<Result<Part, blobs::Error>>,
    /// The end of the part in the upload.
    offset: u64,
    /// The state of the hash there.
    hash: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Domain {
    /// Adds a chunk to an upload; returns the offset that is durable then.
    pub async fn append(&self, key: &UploadKey, chunk: Chunk) -> Result<u64, Error> {
        let _slot = self.running_uploads.try_one().ok_or(Error::TooManyUploads)?;
        let held = self.hold(key).await?;
        let offset = held.upload.progress.offset;
        if held.upload.plan.is_some() || chunk.start.is_some_and(|start| start != offset) {
            self.let_go(&held).await;
            return Err(Error::NotAtOffset { offset });
        }
        let algorithm = held.upload.algorithm;
        let mut receiver = Receiver::begin(self.clone(), held, algorithm, chunk.length).await?;
        match receiver.receive(chunk).await {
            Ok(()) => {
                let upload = receiver.pause().await?;
                let offset = upload.progress.offset;
                self.paused.put(key, upload);
                Ok(offset)
            }
            Err(error) => Err(receiver.fail(error).await),
        }
    }
}

impl Receiver {
    /// Goes on where the upload ends. `algorithm` counts only at its beginning.
    pub(super) async fn begin(
        domain: Domain,
        mut held: Held,
        algorithm: Algorithm,
        announced: Option<u64>,
    ) -> Result<Self, Error> {
        let staged_before = if held.upload.restored {
            leave_generation(&domain, &mut held).await?
        } else {
            if held.upload.progress.offset == 0 && held.upload.multipart.is_some() {
                begin_anew(&domain, &mut held).await?;
            }
            Vec::new()
        };
        let mut durable = held.upload.progress.clone();
        let hasher = if durable.hash.is_empty() {
            Hasher::new(algorithm)
        } else {
            Hasher::restore(&durable.hash).map_err(|error| Error::Internal(Box::new(error)))?
        };
        let staged = durable.tails.iter().map(|tail| tail.size).sum();
        let part_size = match &held.upload.multipart {
            Some(multipart) => multipart.part_size,
            None => {
                part_size(domain.store.part_size(), staged, announced.map(|length| length + durable.offset))
            }
        };
        let (offset, mut filled, mut staged) = (durable.offset, 0, staged);
        if !staged_before.is_empty() {
            // Nothing of it is durable under the new generation yet.
            (filled, staged, durable) = (staged, 0, Progress::default());
        }
        let mut receiver = Self {
            offset,
            domain,
            held,
            durable,
            hasher,
            segments: staged_before,
            filled,
            staged,
            stores: true,
            part_size,
            announced,
            memory: None,
            flight: None,
        };
        receiver.reserve().await;
        Ok(receiver)
    }

    /// Takes the whole body.
    pub(super) async fn receive(&mut self, chunk: Chunk) -> Result<(), Error> {
        let Chunk { mut body, length, .. } = chunk;
        let begin = self.offset;
        let (lost, stopping) = (self.held.lost.clone(), self.domain.tasks.stopping());
        loop {
            let piece = tokio::select! {
                biased;
                () = lost.cancelled() => return Err(Error::Overtaken),
                () = stopping.cancelled() => return Err(Error::Stopping),
                piece = body.next() => piece,
            };
            let Some(piece) = piece else { break };
            self.take(piece?).await?;
            self.check_length(begin, length, |actual, announced| actual <= announced)?;
        }
        self.check_length(begin, length, |actual, announced| actual == announced)
    }

    fn check_length(
        &self,
        begin: u64,
        length: Option<u64>,
        holds: impl Fn(u64, u64) -> bool,
    ) -> Result<(), Error> {
        let actual = self.offset - begin;
        match length {
            Some(announced) if !holds(actual, announced) => Err(Error::LengthMismatch { announced, actual }),
            _ => Ok(()),
        }
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        if let Some(limit) = self.domain.limits.load().max_blob_size
            && self.offset + bytes.len() as u64 > limit
        {
            return Err(Error::BlobTooLarge { limit });
        }
        while !bytes.is_empty() {
            if self.room() == 0 {
                self.launch().await?;
            }
            let fits = usize::try_from(self.room()).unwrap_or(usize::MAX).min(bytes.len());
            let piece = bytes.split_to(fits);
            self.hasher.update(&piece);
            self.offset += piece.len() as u64;
            if self.stores {
                self.filled += piece.len() as u64;
                self.reserve().await;
                self.segments.push(piece);
            }
        }
        Ok(())
    }

    /// How much the part that fills can still take.
    const fn room(&self) -> u64 {
        self.part_size - self.staged - self.filled
    }

    /// Waits for memory for the whole part before it grows. A part that has its memory always ends, so nobody
    /// waits for ever.
    async fn reserve(&mut self) {
        if self.memory.is_some() || self.filled <= UNRESERVED {
            return;
        }
        let part = self.announced.map_or(self.part_size, |announced| announced.min(self.part_size));
        let wanted = part.min(self.domain.limits.load().upload_memory) >> 10;
        let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.memory = self.domain.upload_memory.many(permits).await;
    }

    /// Sends the full part on its way. At most one flies while the next one fills.
    async fn launch(&mut self) -> Result<(), Error> {
        self.land().await?;
        let multipart = self.multipart().await?;
        let number = self.next_part_number()?;
        let mut segments = self.staged_bytes().await?;
        segments.append(&mut self.segments);
        let (store, key, part_size) = (Arc::clone(&self.domain.store), self.upload_key(), self.part_size);
        let flight = async move {
            let offset = u64::from(number - 1) * part_size;
            store.upload_part(&key, &MultipartId(multipart.id), number, offset, segments).await
        };
        let part = self.domain.tasks.spawn(flight.in_current_span());
        let (offset, hash) = (self.offset, self.hasher.save());
        self.flight = Some(Flight { part, offset, hash, _memory: self.memory.take() });
        (self.filled, self.staged) = (0, 0);
        Ok(())
    }

    /// Waits for the part that flies; then it is durable, and with it everything before it.
    pub(super) async fn land(&mut self) -> Result<(), Error> {
        let Some(flight) = self.flight.take() else { return Ok(()) };
        let part = flight.part.await.map_err(|error| Error::Internal(Box::new(error)))??;
        self.durable.parts.push(part);
        self.durable.offset = flight.offset;
        self.durable.hash = flight.hash;
        self.durable.tails.clear();
        self.durable.spec = None;
        Ok(())
    }

    fn next_part_number(&self) -> Result<u16, Error> {
        let number = self.durable.parts.len() as u64 + 1;
        match u16::try_from(number) {
            Ok(number) if u64::from(number) <= MOST_PARTS => Ok(number),
            _ => Err(Error::BlobTooLarge { limit: MOST_PARTS * self.part_size }),
        }
    }

    /// The multipart upload; begun, and recorded before its first part, if there is none yet.
    async fn multipart(&mut self) -> Result<Multipart, Error> {
        if let Some(multipart) = &self.held.upload.multipart {
            return Ok(multipart.clone());
        }
        let MultipartId(id) = self.domain.store.create_multipart(&self.upload_key()).await?;
        let multipart = Multipart { id, part_size: self.part_size };
        let (id, token) = (self.held.upload.id, self.held.token);
        let meta = &self.domain.meta;
        if !self.domain.write(|_| meta.record_multipart(id, token, &multipart)).await? {
            self.domain.abort(self.held.upload.generation, multipart).await;
            return Err(Error::Overtaken);
        }
        self.held.upload.multipart = Some(multipart.clone());
        Ok(multipart)
    }

    /// What earlier requests staged of the part that fills.
    pub(super) async fn staged_bytes(&self) -> Result<Vec<Bytes>, Error> {
        let mut staged = Vec::new();
        if self.staged == 0 {
            return Ok(staged);
        }
        for tail in &self.durable.tails {
            staged.push(read_tail(&self.domain, self.held.upload.generation, tail).await?);
        }
        Ok(staged)
    }

    /// Ends the request with the upload open: makes everything received durable. Returns the upload as it is then.
    pub(super) async fn pause(mut self) -> Result<LeasedUpload, Error> {
        match self.settle().await {
            Ok(()) => {
                self.store_progress().await?;
                Ok(LeasedUpload { progress: self.durable, ..self.held.upload })
            }
            Err(error) => {
                // What had landed before is still worth keeping.
                if let Err(later) = self.store_progress().await {
                    tracing::warn!(upload.id = %self.held.upload.id, error = %later, "progress not stored");
                }
                Err(error)
            }
        }
    }

    async fn settle(&mut self) -> Result<(), Error> {
        if self.filled > 0 && self.room() == 0 {
            self.launch().await?;
        }
        self.land().await?;
        if self.filled > 0 { self.stage().await } else { Ok(()) }
    }

    /// Stages the part that is not full. When nothing else is staged the same bytes are also sent as the next
    /// part: if nothing more comes, closing has nothing left to send.
    async fn stage(&mut self) -> Result<(), Error> {
        let (generation, lease) = (self.held.upload.generation, self.held.upload.lease);
        let tail = Key::UploadTail { generation, lease }.to_string();
        let put = self.domain.store.put(&tail, self.segments.clone());
        let (stored, spec) = futures::join!(put, self.send_ahead());
        stored?;
        self.durable.tails.push(Tail { lease, size: self.filled });
        self.durable.spec = spec;
        self.durable.offset = self.offset;
        self.durable.hash = self.hasher.save();
        Ok(())
    }

    async fn send_ahead(&self) -> Option<Part> {
        let multipart = self.held.upload.multipart.as_ref().filter(|_| self.staged == 0)?;
        let number = self.next_part_number().ok()?;
        let offset = u64::from(number - 1) * self.part_size;
        let id = MultipartId(multipart.id.clone());
        self.domain
            .store
            .upload_part(&self.upload_key(), &id, number, offset, self.segments.clone())
            .await
            .ok()
    }

    async fn store_progress(&self) -> Result<(), Error> {
        let (id, token) = (self.held.upload.id, self.held.token);
        let meta = &self.domain.meta;
        if self.domain.write(|_| meta.store_progress(id, token, &self.durable)).await? {
            Ok(())
        } else {
            Err(Error::Overtaken)
        }
    }

    /// Ends the request after `error`; keeps what the client may go on from. Returns the error.
    pub(super) async fn fail(self, error: Error) -> Error {
        match error {
            // The client was wrong about its own bytes: none of them count.
            Error::LengthMismatch { .. } => self.domain.let_go(&self.held).await,
            Error::BlobTooLarge { .. } => self.discard().await,
            // The lease is somebody else's.
            Error::Overtaken => {}
            _ => {
                if let Err(later) = self.pause().await {
                    tracing::debug!(error = %later, "progress not stored");
                }
            }
        }
        error
    }

    /// Ends the upload.
    pub(super) async fn discard(mut self) {
        if let Err(error) = self.land().await {
            tracing::debug!(%error, "last part of a discarded upload failed");
        }
        let (id, token) = (self.held.upload.id, self.held.token);
        let meta = &self.domain.meta;
        if let Err(error) = self.domain.write(|_| meta.drop_upload(id, token)).await {
            tracing::debug!(upload.id = %id, %error, "upload not dropped; it expires");
        }
    }

    pub(super) fn upload_key(&self) -> String {
        Key::Upload { generation: self.held.upload.generation }.to_string()
    }

    /// Sends what is left as the last part, unless it was sent ahead.
    pub(super) async fn finish_parts(&mut self) -> Result<(), Error> {
        self.land().await?;
        if self.filled == 0
            && let Some(part) = self.durable.spec.take()
        {
            self.durable.parts.push(part);
        } else if self.filled + self.staged > 0 {
            self.launch().await?;
            self.land().await?;
        }
        Ok(())
    }

    /// Whether all of the upload is in memory or staged, so that it needs no multipart upload.
    pub(super) const fn is_small(&self) -> bool {
        self.held.upload.multipart.is_none()
    }
}

/// Another attempt may have left parts: theirs and ours must not meet under one key.
async fn begin_anew(domain: &Domain, held: &mut Held) -> Result<(), Error> {
    let generation = Generation::at(clock::milliseconds());
    let (id, token) = (held.upload.id, held.token);
    if !domain.write(|_| domain.meta.restart_upload(id, token, generation)).await? {
        return Err(Error::Overtaken);
    }
    held.upload.multipart = None;
    held.upload.generation = generation;
    Ok(())
}

/// An upload of an earlier incarnation may have become a blob that its row knows nothing of: nothing is written
/// under its generation any more. What was staged goes on in memory. A multipart upload that is still open has
/// become nothing; one that is not has its object, and then the client begins anew.
async fn leave_generation(domain: &Domain, held: &mut Held) -> Result<Vec<Bytes>, Error> {
    let mut staged = Vec::new();
    if held.upload.multipart.is_some() && held.upload.progress.offset > 0 {
        let key = Key::Upload { generation: held.upload.generation }.to_string();
        if domain.store.head(&key).await?.is_none() {
            return Ok(staged);
        }
        begin_anew(domain, held).await?;
        domain.let_go(held).await;
        return Err(Error::NotAtOffset { offset: 0 });
    }
    for tail in &held.upload.progress.tails {
        staged.push(read_tail(domain, held.upload.generation, tail).await?);
    }
    begin_anew(domain, held).await?;
    Ok(staged)
}

async fn read_tail(domain: &Domain, generation: Generation, tail: &Tail) -> Result<Bytes, Error> {
    let key = Key::UploadTail { generation, lease: tail.lease };
    let bytes = domain.read_whole(&key).await?.filter(|bytes| bytes.len() as u64 == tail.size);
    bytes.ok_or(Error::UploadUnknown)
}

/// The part size of an upload of `total` bytes, if that is known, of which `staged` wait in tails.
fn part_size(standard: u64, staged: u64, total: Option<u64>) -> u64 {
    // Whole MiB, where the store's parts are not smaller.
    let unit = standard.min(MIB);
    let planned = match total {
        Some(total) => standard.max(total.div_ceil(PLANNED_PARTS).next_multiple_of(unit)),
        None => 2 * standard,
    };
    planned.max((staged + 1).next_multiple_of(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w230_w903_parts_grow_with_the_length_so_that_ten_thousand_suffice() {
        const STANDARD: u64 = 16 * MIB;
        assert_eq!(part_size(STANDARD, 0, Some(5)), STANDARD);
        assert_eq!(part_size(STANDARD, 0, None), 32 * MIB);
        assert_eq!(part_size(STANDARD, 20 * MIB, Some(21 * MIB)), 21 * MIB);
        let terabyte = 1 << 40;
        assert!(terabyte / part_size(STANDARD, 0, Some(terabyte)) < MOST_PARTS);
    }
}
