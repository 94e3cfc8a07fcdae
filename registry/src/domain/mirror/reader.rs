// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A blob that is being fetched, as one client reads it.
//!
//! From the window, as long as the client keeps up. Who falls out of it waits for the end of a fetch that ends soon and
//! reads on from the store; else it reads on from the upstream by itself.
//! Guarantees: a whole blob ends only when its digest was found to be right, whatever it was read from. Of a range that
//! was read from the upstream by itself nobody can say so: its client has to compare the whole.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use stowage_oci::Hasher;
use tokio::sync::watch;

use super::super::{BlobHead, Domain, Error};
use super::fetch::{Fetch, Phase, Reading};
use super::window::{Read, Window};
use crate::blobs::ByteStream;
use crate::upstream::{self, Span};

/// How long a client that fell out waits for the end of the fetch, if that is to come by then. One that reads on by
/// itself costs the upstream another download.
const WORTH_WAITING: Duration = Duration::from_secs(30);

/// One that reads a blob while it is fetched.
pub struct Reader {
    domain: Domain,
    reading: Reading,
    window: Arc<Window>,
}

/// Where the next bytes come from.
enum Source {
    Window,
    Store(ByteStream),
    Upstream(Box<upstream::Body>),
}

struct Course {
    reader: Reader,
    source: Source,
    /// The next byte to be read, and the one after the last.
    at: u64,
    end: u64,
    /// Of all that was read, if that is all from the first byte on.
    hasher: Option<Hasher>,
    /// Read, and not to be given out before the digest is right.
    held: VecDeque<Bytes>,
}

impl Reader {
    pub(super) fn new(domain: &Domain, reading: Reading, window: Arc<Window>) -> Self {
        Self { domain: domain.clone(), reading, window }
    }

    pub(super) fn fetch(&self) -> &Fetch {
        &self.reading.0
    }

    pub(super) const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What is known of the blob.
    #[must_use]
    pub fn head(&self) -> BlobHead {
        BlobHead { digest: self.reading.0.digest, size: self.window.size(), degraded: false }
    }

    /// Its bytes, or those of `range`.
    #[must_use]
    pub fn into_stream(self, range: Option<Range<u64>>) -> BoxStream<'static, Result<Bytes, Error>> {
        let digest = self.reading.0.digest;
        let is_whole = range.is_none();
        let Range { start, end } = range.unwrap_or(0..self.window.size());
        let course = Course {
            reader: self,
            source: Source::Window,
            at: start,
            end,
            hasher: is_whole.then(|| Hasher::new(digest.algorithm())),
            held: VecDeque::new(),
        };
        let next = |mut course: Course| async move {
            let bytes = course.next().await?;
            Ok(bytes.map(|bytes| (bytes, course)))
        };
        stream::try_unfold(course, next).boxed()
    }
}

/// Waits until the fetch is over.
async fn end(phases: &mut watch::Receiver<Phase>) -> Result<(), Error> {
    let ended = phases.wait_for(|phase| !matches!(phase, Phase::Running(_))).await;
    ended.map(drop).map_err(|_gone| Error::Stopping)
}

impl Course {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.at == self.end {
                return Ok(self.held.pop_front());
            }
            let bytes = match &mut self.source {
                Source::Window => self.window_bytes().await?,
                Source::Store(stream) => match stream.next().await {
                    Some(bytes) => {
                        let bytes = bytes?;
                        self.at += bytes.len() as u64;
                        Some(bytes)
                    }
                    None => return Err(self.broken("the store ended a blob before its end")),
                },
                Source::Upstream(body) => match body.next().await {
                    Some(Ok(bytes)) => self.shown(bytes)?,
                    Some(Err(error)) => {
                        let mirror = &self.reader.reading.0.at.mirror;
                        mirror.rate.note_error(&error).await;
                        return Err(Error::Upstream(error));
                    }
                    None => return Err(self.broken("the upstream ended a blob before its end")),
                },
            };
            if bytes.is_some() {
                return Ok(bytes);
            }
        }
    }

    /// The next bytes of the window; none if they come from elsewhere from now on.
    async fn window_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        let window = Arc::clone(&self.reader.window);
        let mut phases = self.reader.reading.0.phase();
        let mut changes = window.changes();
        loop {
            match window.read(self.at) {
                Read::Piece(mut piece) => {
                    let wanted = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                    piece.bytes.truncate(wanted);
                    self.at += piece.bytes.len() as u64;
                    if let Some(hasher) = &mut self.hasher {
                        *hasher = piece.hasher;
                    }
                    return Ok(Some(piece.bytes));
                }
                Read::Passed => {
                    if window.left() <= WORTH_WAITING {
                        // Later, it reads on by itself.
                        drop(tokio::time::timeout(WORTH_WAITING, end(&mut phases)).await);
                    }
                    self.read_on().await?;
                    return Ok(None);
                }
                Read::Over => {
                    end(&mut phases).await?;
                    self.read_on().await?;
                    return Ok(None);
                }
                Read::Wait => {
                    tokio::select! {
                        _ = changes.changed() => {}
                        ended = end(&mut phases) => {
                            ended?;
                            // What came last may be there now.
                            if matches!(window.read(self.at), Read::Wait | Read::Over) {
                                self.read_on().await?;
                                return Ok(None);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Goes on where the fetch does not help any more.
    async fn read_on(&mut self) -> Result<(), Error> {
        let fetch = &self.reader.reading.0;
        let domain = &self.reader.domain;
        // Perhaps by another replica, though not by this fetch.
        if let Ok(blob) = domain.blob(&fetch.at.stored, &fetch.digest, false).await {
            self.source = Source::Store(domain.read_blob(&blob, Some(self.at..self.end)).await?);
            return Ok(());
        }
        self.source = match fetch.now() {
            Phase::Ended(Some(failure), _) => return Err(failure.into()),
            Phase::Waiting | Phase::Running(_) | Phase::Stored | Phase::Ended(None, _) => {
                let span = Span { first: self.at, last: Some(self.end - 1) };
                let mirror = &fetch.at.mirror;
                let blob = mirror.upstream.blob(&fetch.at.upstream, &fetch.digest, span);
                let blob = domain.ask_upstream(mirror, blob).await.map_err(Error::Upstream)?;
                Source::Upstream(Box::new(blob.body))
            }
        };
        Ok(())
    }

    /// What of bytes from the upstream may be given out now.
    fn shown(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let fetch = &self.reader.reading.0;
        let mirror = &fetch.at.mirror;
        self.reader.domain.shelf.metrics.received(&mirror.settings.name, bytes.len() as u64);
        self.at += bytes.len() as u64;
        let Some(hasher) = &mut self.hasher else { return Ok(Some(bytes)) };
        hasher.update(&bytes);
        if self.at <= self.reader.window.held_back() {
            return Ok(Some(bytes));
        }
        self.held.push_back(bytes);
        if self.at == self.end {
            let found = hasher.clone().finish();
            if found != fetch.digest {
                let cause = format!("blob {} came with the digest {found}", fetch.digest);
                return Err(Error::Upstream(mirror.upstream.wrong(cause)));
            }
        }
        Ok(None)
    }

    fn broken(&self, cause: &'static str) -> Error {
        Error::Upstream(self.reader.reading.0.at.mirror.upstream.wrong(cause.to_owned()))
    }
}
