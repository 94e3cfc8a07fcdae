// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What goes out: segments as a request body that can be sent again, without a copy.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use http_body::{Body, Frame, SizeHint};
use stowage_oci::{Algorithm, Hasher};

use crate::blobs::total;

/// What is hashed on the spot; more goes to a thread that may block.
const SMALL: u64 = 64 << 10;

/// What protects content on its way to the service: the request takes it along as an interceptor.
#[derive(Debug)]
pub(super) enum Seal {
    /// The connection, which is encrypted: anything else would be a second pass over all content, for nothing.
    Connection,
    /// A checksum (CRC-64/NVME, base64) that the service looks at; ten times as fast as a hash.
    Checksum(String),
    /// The signature of the request, which has this hash of the content.
    Signature(String),
}

impl Seal {
    pub(super) fn checksum(segments: &[Bytes]) -> Self {
        let mut sum = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        for segment in segments {
            sum.update(segment);
        }
        Self::Checksum(BASE64_STANDARD.encode(sum.finalize().to_be_bytes()))
    }

    pub(super) async fn signature(segments: &[Bytes]) -> Self {
        Self::Signature(hash(segments.to_vec()).await)
    }
}

impl Intercept for Seal {
    fn name(&self) -> &'static str {
        "Seal"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Self::Checksum(sum) = self {
            context.request_mut().headers_mut().try_insert("x-amz-checksum-crc64nvme", sum.clone())?;
        }
        config.interceptor_state().store_put(match self {
            Self::Connection | Self::Checksum(_) => PayloadSigningOverride::UnsignedPayload,
            Self::Signature(hash) => PayloadSigningOverride::Precomputed(hash.clone()),
        });
        Ok(())
    }
}

/// The body of these segments.
pub(super) fn of(segments: Vec<Bytes>) -> ByteStream {
    let body = SdkBody::retryable(move || SdkBody::from_body_1_x(Segments::new(segments.clone())));
    ByteStream::new(body)
}

async fn hash(segments: Vec<Bytes>) -> String {
    let small = total(&segments) <= SMALL;
    let work = move || {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for segment in &segments {
            hasher.update(segment);
        }
        hasher.finish().hex()
    };
    if small {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("hashing does not panic, and nobody cancels it")
}

/// The segments that are left to send.
struct Segments {
    left: VecDeque<Bytes>,
}

impl Segments {
    fn new(segments: Vec<Bytes>) -> Self {
        Self { left: segments.into_iter().filter(|segment| !segment.is_empty()).collect() }
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop_front().map(|segment| Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.iter().map(|segment| segment.len() as u64).sum())
    }
}
