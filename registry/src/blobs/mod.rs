// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The bucket: objects under write-once keys.
//!
//! Relied upon: a new key is seen by `get`, `head` and `list` at once, and `complete` refuses a part whose
//! tag is not the one named. Nothing else: no conditional request, no copy, no user metadata.
//!
//! Every request but `create_multipart` may be repeated, and may be executed late or twice, without harm,
//! because a key never gets two contents and never returns. After a timeout the outcome is *unknown*: the
//! caller asks with `head`.
//!
//! Never: knows what a tag is, decides what may go.

pub mod conformance;
mod faulty;
pub mod filesystem;
mod layered;
mod memory;
mod observed;
mod request;
pub mod s3;
pub mod selftest;
mod traced;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, TryStreamExt as _};

pub use self::faulty::{Effect, Failure, Fault, Faults, Faulty, Gate, Occasion};
pub use self::filesystem::Filesystem;
pub use self::layered::Layered;
pub use self::memory::Memory;
pub use self::observed::{Counts, Observed, Observer, Outcome, Recorder};
pub use self::request::Request;
pub use self::s3::S3;
pub use self::traced::{Spans, Traced};
pub use crate::key::Part;

/// The size of all parts but the last, and the limit below which content is stored with one `put`.
pub const PART_SIZE: u64 = 16 << 20;

/// Content as it comes from the store. Ends in an error when it cannot be completed, never short.
pub type ByteStream = BoxStream<'static, Result<Bytes, Error>>;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store is away, too slow or overloaded; retries are used up. Whether the request took effect is
    /// unknown.
    #[error("{operation} {key}: the object store is not available")]
    Unavailable {
        /// The request: `put`, `get`, …
        operation: &'static str,
        /// The object.
        key: String,
        /// What the client library said.
        #[source]
        source: Source,
    },
    /// The store has no room.
    #[error("{operation} {key}: the object store is full")]
    Full {
        /// The request.
        operation: &'static str,
        /// The object.
        key: String,
        /// What the client library said.
        #[source]
        source: Source,
    },
    /// The store refused for a reason that a repeat will not change (credentials, bucket, a malformed request).
    #[error("{operation} {key}: the object store refused the request")]
    Refused {
        /// The request.
        operation: &'static str,
        /// The object.
        key: String,
        /// What the client library said.
        #[source]
        source: Source,
    },
    /// The multipart upload does not exist (any more).
    #[error("{operation} {key}: the multipart upload is unknown to the object store")]
    UnknownUpload {
        /// The request.
        operation: &'static str,
        /// The object.
        key: String,
    },
}

/// The cause below an [`Error`].
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key below the storage prefix.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
}

/// An object's content, or a part of it.
pub struct Content {
    /// How many bytes `stream` gives.
    pub length: u64,
    /// The whole object's length.
    pub size: u64,
    /// The bytes.
    pub stream: ByteStream,
}

/// The store's name of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartId(pub String);

/// A multipart upload that is neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMultipart {
    /// The object that it would become.
    pub key: String,
    /// The store's name of it.
    pub id: MultipartId,
}

/// Reads. A missing object is `None`, never an error.
#[async_trait]
pub trait Read: Send + Sync {
    /// The object's length in bytes.
    async fn head(&self, key: &str) -> Result<Option<u64>, Error>;

    /// The object's content, or the bytes of `range`, which must lie within the object. The stream resumes
    /// by itself after a broken connection; dropping it cancels the read.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error>;

    /// Up to `limit` objects whose keys begin with `prefix`, in byte order of their keys, after `after`.
    /// Fewer than `limit` means that there are no more.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error>;
}

/// Writes. When a call returns `Ok`, the object survives a crash of the process and of the machine.
#[async_trait]
pub trait Write: Send + Sync {
    /// Stores `segments`, one after the other, as one object.
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error>;

    /// Begins a multipart upload to `key`. Not repeatable: a lost answer leaks an upload that only the
    /// store's own expiry removes.
    async fn create_multipart(&self, key: &str) -> Result<MultipartId, Error>;

    /// Stores the part that begins at byte `offset` of the object. A number may be sent again, with the same
    /// bytes or others; the last acknowledged one counts.
    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error>;

    /// Makes the object of exactly these parts; refuses if one of them is not the last of its number.
    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), Error>;

    /// Gives up a multipart upload and its parts. Unknown uploads are fine.
    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Error>;

    /// All multipart uploads below `v1/` that are open. Some services list only those that they list under the
    /// full key, or none at all.
    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, Error>;

    /// The size all parts but the last should have, in bytes. Also the limit up to which a blob is kept in
    /// memory and stored with one `put`.
    fn part_size(&self) -> u64;

    /// Whether clients should be told to send chunks of at least [`part_size`](Self::part_size) (S3).
    fn prefers_large_chunks(&self) -> bool;

    /// Finds out what this store can do and others cannot, by requests about `key`, an object that nobody needs.
    /// Until then only what all can do is used.
    async fn explore(&self, _key: &str) -> Result<(), Error> {
        Ok(())
    }
}

/// Deletes. Handed to `outbox` alone.
#[async_trait]
pub trait Sweep: Send + Sync {
    /// Removes the objects; those that do not exist are fine.
    async fn delete(&self, keys: &[String]) -> Result<(), Error>;
}

/// Addresses that let a client read an object directly from the store.
#[async_trait]
pub trait Presign: Send + Sync {
    /// A GET-only URL of the object, valid for at least 15 minutes, the same for 5 minutes. Makes no request
    /// to the store; it may wait for credentials to be renewed.
    async fn presign(&self, key: &str) -> Result<String, Error>;
}

/// The whole bucket, as the wiring knows it; rooms are given the role they need.
pub trait Store: Read + Write + Sweep {
    /// Direct reads, where the store offers them.
    fn presigner(&self) -> Option<&dyn Presign> {
        None
    }
}

/// A small object as a whole.
pub async fn whole(store: &(impl Read + ?Sized), key: &str) -> Result<Option<Bytes>, Error> {
    let Some(content) = store.get(key, None).await? else { return Ok(None) };
    let mut chunks: Vec<Bytes> = content.stream.try_collect().await?;
    Ok(Some(if chunks.len() == 1 { chunks.remove(0) } else { Bytes::from(chunks.concat()) }))
}

/// How many bytes there are in all segments together.
fn total(segments: &[Bytes]) -> u64 {
    segments.iter().map(|segment| segment.len() as u64).sum()
}

/// The range that was asked for, or all of the object; refused if it does not lie within it.
fn content_of(key: &str, size: u64, range: Option<Range<u64>>) -> Result<Range<u64>, Error> {
    let range = range.unwrap_or(0..size);
    if range.start <= range.end && range.end <= size {
        return Ok(range);
    }
    Err(Request::Get.refused(key, format!("bytes {range:?} of an object of {size} bytes")))
}
