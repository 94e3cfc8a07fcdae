// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The body of a request, as the domain reads it.
//!
//! Guarantees: nothing is read before the domain asks for it, so that a client that sent `Expect` learns a
//! refusal first. A body that nobody reads to its end is drained for a while in the background: a client that
//! is reset while it writes loses the answer. A body that makes no progress ends with an error; time in which
//! we do not read does not count. Never: decodes anything, the digest is over the bytes as they come.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body as _;
use tokio::time::{Instant, timeout};

use super::error::Failure;
use crate::domain::{self, BodyError};
use crate::ops::tasks::Tasks;

/// The longest manifest we take, in bytes.
const MAX_MANIFEST: u64 = stowage_oci::Manifest::MAX_SIZE as u64;
/// How much more than that is read before the answer: a client may be about to end.
const MANIFEST_SLACK: u64 = 64 << 10;
/// What is discarded of a body that was refused.
const DRAINED_BYTES: u64 = 64 << 20;
/// How long it is discarded.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The least progress: so many bytes in so much time of waiting.
#[derive(Clone, Copy, Debug)]
struct Pace {
    bytes: u64,
    window: Duration,
}

/// Some clients open the request long before they have data.
const PACE: Pace = Pace { bytes: 300 << 10, window: Duration::from_mins(5) };

/// The body of a request that has not been read.
pub(super) struct RequestBody {
    unread: Unread,
    length: Option<u64>,
    pace: Pace,
}

impl RequestBody {
    pub(super) fn new(body: Body, headers: &HeaderMap, tasks: Tasks) -> Self {
        let length = body.size_hint().exact();
        let finished = body.is_end_stream();
        let awaits_continue = headers.contains_key(EXPECT);
        let unread =
            Unread { stream: body.into_data_stream(), finished, awaits_continue, tasks: Some(tasks) };
        Self { unread, length, pace: PACE }
    }

    /// How long the client says it is.
    pub(super) const fn length(&self) -> Option<u64> {
        self.length
    }

    /// The bytes as the domain takes them. `seen` is told of each piece.
    pub(super) fn into_stream(self, seen: impl Fn(u64) + Send + 'static) -> domain::Body {
        self.pieces().inspect(move |piece| seen(piece.as_ref().map_or(0, |bytes| bytes.len() as u64))).boxed()
    }

    /// All of it, as a manifest.
    pub(super) async fn read_manifest(self) -> Result<Bytes, Failure> {
        let mut read = 0_u64;
        let mut kept: Vec<Bytes> = Vec::new();
        let mut pieces = Box::pin(self.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(domain::Error::from)?;
            read += piece.len() as u64;
            if read > MAX_MANIFEST + MANIFEST_SLACK {
                return Err(Failure::ManifestTooLarge);
            }
            kept.push(piece);
        }
        if read > MAX_MANIFEST {
            return Err(Failure::ManifestTooLarge);
        }
        Ok(joined(kept))
    }

    fn pieces(self) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
        let reading = Reading { unread: self.unread, pace: self.pace, waited: Duration::ZERO, received: 0 };
        stream::try_unfold(reading, |mut reading| async move {
            let piece = reading.next().await?;
            Ok(piece.map(|piece| (piece, reading)))
        })
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}

/// A body that is being read, and how it gets on.
struct Reading {
    unread: Unread,
    pace: Pace,
    /// Time spent waiting since the window began.
    waited: Duration,
    /// Bytes received in it.
    received: u64,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let begun = Instant::now();
        let left = self.pace.window.saturating_sub(self.waited);
        let piece = timeout(left, self.unread.next()).await.map_err(|_elapsed| BodyError::Stalled)?;
        self.waited += begun.elapsed();
        if let Some(Ok(bytes)) = &piece {
            self.received += bytes.len() as u64;
        }
        if self.received >= self.pace.bytes {
            (self.received, self.waited) = (0, Duration::ZERO);
        }
        piece.transpose().map_err(|error| BodyError::Broken(error.into()))
    }
}

/// What is left of a body. Dropped before its end, it is drained in the background.
struct Unread {
    stream: BodyDataStream,
    finished: bool,
    /// The client sends nothing before we ask for it; reading is asking.
    awaits_continue: bool,
    /// Taken when the rest is drained.
    tasks: Option<Tasks>,
}

impl Unread {
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        if self.finished {
            return None;
        }
        self.awaits_continue = false;
        let piece = self.stream.next().await;
        self.finished = !matches!(piece, Some(Ok(_)));
        piece
    }

    async fn drain(mut self) {
        let mut discarded = 0;
        while discarded < DRAINED_BYTES
            && let Some(Ok(piece)) = self.next().await
        {
            discarded += piece.len() as u64;
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(tasks) = self.tasks.take() else { return };
        let in_runtime = tokio::runtime::Handle::try_current().is_ok();
        if self.finished || self.awaits_continue || !in_runtime {
            return;
        }
        let stream = std::mem::replace(&mut self.stream, Body::empty().into_data_stream());
        let rest = Self { stream, finished: false, awaits_continue: false, tasks: None };
        let stopping = tasks.stopping();
        // Whether it came to the end does not matter: then the connection is closed with the body.
        drop(tasks.spawn(stopping.run_until_cancelled_owned(timeout(DRAIN_TIME, rest.drain()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: Vec<Bytes>) -> RequestBody {
        let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        RequestBody::new(Body::from_stream(pieces), &HeaderMap::new(), Tasks::new())
    }

    fn kib(count: usize) -> Bytes {
        Bytes::from(vec![b' '; count << 10])
    }

    #[tokio::test]
    async fn w101_w547_w901_a_manifest_of_four_mebibytes_is_taken_and_one_byte_more_is_not() {
        let pieces = |last: usize| [vec![kib(1024); 4], vec![Bytes::from(vec![b' '; last])]].concat();
        assert_eq!(body(pieces(0)).read_manifest().await.unwrap().len(), 4_194_304);
        assert!(matches!(body(pieces(1)).read_manifest().await, Err(Failure::ManifestTooLarge)));
    }

    #[tokio::test]
    async fn w101_w772_of_an_endless_manifest_little_more_than_the_limit_is_read() {
        let read = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = std::sync::Arc::clone(&read);
        let endless = stream::repeat_with(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(kib(32))
        });
        let mut endless = RequestBody::new(Body::from_stream(endless), &HeaderMap::new(), Tasks::new());
        // Without tasks the rest is not drained, which would read on.
        endless.unread.tasks = None;
        assert!(matches!(endless.read_manifest().await, Err(Failure::ManifestTooLarge)));
        assert_eq!(read.load(std::sync::atomic::Ordering::Relaxed), 4 * 32 + 3);
    }

    #[tokio::test]
    async fn w226_a_body_that_stops_is_stalled() {
        let pieces = stream::iter([Ok::<_, std::io::Error>(kib(1))]).chain(stream::pending());
        let mut body = RequestBody::new(Body::from_stream(pieces), &HeaderMap::new(), Tasks::new());
        body.pace = Pace { bytes: 2 << 10, window: Duration::from_millis(20) };
        let mut stream = body.into_stream(|_| {});
        assert!(stream.next().await.unwrap().is_ok());
        assert!(matches!(stream.next().await, Some(Err(BodyError::Stalled))));
    }

    #[tokio::test]
    async fn w226_time_in_which_we_do_not_read_does_not_count() {
        let mut body = body(vec![kib(1); 3]);
        body.pace = Pace { bytes: 2 << 10, window: Duration::from_millis(20) };
        let mut stream = body.into_stream(|_| {});
        while let Some(piece) = stream.next().await {
            piece.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    #[tokio::test]
    async fn w224_what_nobody_read_is_drained() {
        let tasks = Tasks::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let pieces = stream::iter(0..3).map(move |piece| {
            if piece == 2
                && let Some(sender) = sender.take()
            {
                sender.send(()).unwrap();
            }
            Ok::<_, std::io::Error>(kib(1))
        });
        drop(RequestBody::new(Body::from_stream(pieces), &HeaderMap::new(), tasks.clone()));
        receiver.await.unwrap();
        assert!(tasks.wait(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn w225_a_body_that_waits_for_a_continue_is_not_asked_for_by_a_refusal() {
        let pieces = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, std::io::Error>>> {
            panic!("the body was read")
        });
        let headers = HeaderMap::from_iter([(EXPECT, http::HeaderValue::from_static("100-continue"))]);
        let tasks = Tasks::new();
        drop(RequestBody::new(Body::from_stream(pieces), &headers, tasks.clone()));
        assert!(tasks.wait(Duration::from_secs(1)).await);
    }
}
