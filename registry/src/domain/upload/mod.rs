// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploads: bytes become a blob, in one request or in many, on one replica or on several.
//!
//! All state is in the database and the bucket. A request takes the upload for itself with a lease, and every
//! change it makes names the lease's token, so that a request that lost it can do no harm.
//!
//! Before an upload is closed, how it is closed is recorded; from then on it can only be closed that way, by
//! whoever.

mod close;
mod paused;
mod receive;
mod session;

use bytes::Bytes;
use futures::stream::BoxStream;

pub(super) use paused::Paused;

/// The body of a request, piece by piece.
pub type Body = BoxStream<'static, Result<Bytes, BodyError>>;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Too little came for too long.
    #[error("the body made no progress")]
    Stalled,
    /// The connection broke, or the framing was wrong.
    #[error("the body broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<BodyError> for super::Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Stalled => Self::BodyStalled,
            BodyError::Broken(source) => Self::BodyBroken(source),
        }
    }
}

/// Some bytes for an upload.
pub struct Chunk {
    /// The offset that the client says they begin at; `None`: where the upload ends.
    pub start: Option<u64>,
    /// How many the client says there are.
    pub length: Option<u64>,
    /// The bytes.
    pub body: Body,
}

impl Chunk {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { start: None, length: Some(0), body: Box::pin(futures::stream::empty()) }
    }
}
