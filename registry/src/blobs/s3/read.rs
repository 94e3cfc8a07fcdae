// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reads that go on where a connection broke.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::client::attempt;
use super::error::{classify, is_missing};
use super::{CONTROL, S3};
use crate::blobs::{Content, Error, Request, Source, content_of};

/// How long content may stop flowing while somebody waits for it.
const IDLE: Duration = Duration::from_mins(1);
/// How often a read goes on without having come any further.
const ATTEMPTS: u32 = 3;

/// An answer whose content has begun.
struct Answer {
    length: u64,
    size: u64,
    body: ByteStream,
}

/// The content of an object, or of a range of it that is not empty.
pub(super) async fn open(s3: &S3, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error> {
    let Some(answer) = ask(s3, key, range.clone()).await? else { return Ok(None) };
    let range = content_of(key, answer.size, range)?;
    let (length, size) = (answer.length, answer.size);
    let reading =
        Reading { s3: s3.clone(), key: key.to_owned(), left: range, body: Some(answer.body), failures: 0 };
    let stream = stream::try_unfold(reading, Reading::next).boxed();
    Ok(Some(Content { length, size, stream }))
}

/// A range of no bytes.
pub(super) fn nothing(key: &str, size: u64, range: Range<u64>) -> Result<Content, Error> {
    content_of(key, size, Some(range))?;
    Ok(Content { length: 0, size, stream: stream::empty().boxed() })
}

async fn ask(s3: &S3, key: &str, range: Option<Range<u64>>) -> Result<Option<Answer>, Error> {
    let request = s3.client.get_object().bucket(&*s3.bucket).key(s3.full_key(key));
    let request = match &range {
        Some(range) => request.range(format!("bytes={}-{}", range.start, range.end - 1)),
        None => request,
    };
    let answer = match request.customize().config_override(attempt(CONTROL)).send().await {
        Ok(answer) => answer,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(classify(Request::Get, key, error)),
    };
    let length = answer.content_length().and_then(|length| length.try_into().ok());
    let size = match &range {
        // `bytes 0-6/7`
        Some(_) => answer.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok()),
        None => length,
    };
    let (Some(length), Some(size)) = (length, size) else {
        return Err(Request::Get.refused(key, "the answer does not tell its length or ignores the range"));
    };
    let expected = range.map_or(size, |range| range.end - range.start);
    if length != expected {
        return Err(Request::Get.refused(key, format!("{length} bytes of {size} instead of {expected}")));
    }
    Ok(Some(Answer { length, size, body: answer.body }))
}

/// A read under way.
struct Reading {
    s3: S3,
    key: String,
    left: Range<u64>,
    /// `None` after it broke.
    body: Option<ByteStream>,
    /// How often it broke since there was progress.
    failures: u32,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        while !self.left.is_empty() {
            let source = match self.piece().await? {
                Ok(piece) if piece.is_empty() => continue,
                Ok(piece) => {
                    self.failures = 0;
                    self.left.start += piece.len() as u64;
                    return Ok(Some((piece, self)));
                }
                Err(source) => source,
            };
            self.body = None;
            self.failures += 1;
            if self.failures > ATTEMPTS {
                return Err(Request::Get.unavailable(&self.key, source));
            }
            tracing::debug!(object.key = self.key, attempt = self.failures, error = %source, "read resumed");
        }
        Ok(None)
    }

    /// The next bytes, or why the connection is of no use any more.
    async fn piece(&mut self) -> Result<Result<Bytes, Source>, Error> {
        let body = match &mut self.body {
            Some(body) => body,
            None => match ask(&self.s3, &self.key, Some(self.left.clone())).await {
                Ok(Some(answer)) => self.body.insert(answer.body),
                Ok(None) => return Ok(Err("the object is gone".into())),
                Err(Error::Unavailable { source, .. }) => return Ok(Err(source)),
                Err(error) => return Err(error),
            },
        };
        // Time passes only while somebody waits for the bytes: a slow reader costs nothing.
        Ok(match tokio::time::timeout(IDLE, body.next()).await {
            Ok(Some(Ok(piece))) => Ok(piece),
            Ok(Some(Err(error))) => Err(error.into()),
            Ok(None) => Err("the content ended early".into()),
            Err(elapsed) => Err(elapsed.into()),
        })
    }
}
