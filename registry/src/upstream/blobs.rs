// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Blobs of an upstream: a stream that goes on where it broke off.
//!
//! Guarantees: the bytes of the span asked for, each once and in order, then the end; or an error. A body that breaks
//! off, stalls or is short is asked for again from the byte that was reached, a few times without progress between.
//! A server that ignores ranges is listened to from the beginning. A length that changes on the way is an error.
//! Never: limits the whole time, or checks the digest (whoever has all the bytes does).

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use stowage_oci::{Digest, Name};
use tokio::sync::OwnedSemaphorePermit;

use super::error::{Error, Kind};
use super::exchange::{self, Answer, Ask, Broken};
use super::manifests::{CONTENT_DIGEST, pull};
use super::{Answered, Upstream};

/// Attempts in a row that do not get on.
const ATTEMPTS: u32 = 5;
/// So much is getting on.
const PROGRESS: u64 = 1 << 20;
/// Before the first of several attempts; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// Some bytes of a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub first: u64,
    /// The last one; without it, the last of the blob.
    pub last: Option<u64>,
}

/// A blob that is being read.
#[derive(Debug)]
pub struct Blob {
    /// The length of the whole blob, if the upstream said so.
    pub size: Option<u64>,
    /// The bytes that were asked for.
    pub body: Body,
}

/// The bytes of a blob as they come.
#[derive(Debug)]
pub struct Body {
    upstream: Upstream,
    ask: Ask,
    span: Span,
    /// The next byte to be given out.
    reached: u64,
    /// Known at the first answer, or never.
    size: Option<u64>,
    /// None while there is no connection.
    open: Option<Open>,
    /// How far it had come when it broke, and how often it broke since.
    broke: (u64, u32),
    is_over: bool,
    _place: Option<OwnedSemaphorePermit>,
}

/// An answer that is being read.
#[derive(Debug)]
struct Open {
    body: Incoming,
    /// Bytes before those that are wanted.
    skip: u64,
}

/// Where the body of an answer lies in the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    first: u64,
    size: Option<u64>,
}

impl Upstream {
    /// The length of a blob, if the upstream has it and says so.
    pub async fn blob_head(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> Result<Answered<Option<u64>>, Error> {
        let ask = Ask { method: Method::HEAD, ..self.ask_blob(repository, digest) };
        let answer = self.0.ask(&ask).await?;
        self.check_blob(&answer, digest)?;
        let size = answer.header(&CONTENT_LENGTH).and_then(|length| length.parse().ok());
        Ok(Answered { value: size, budget: answer.budget })
    }

    /// A blob, or a span of it. The stream lasts as long as its bytes take.
    pub async fn blob(
        &self,
        repository: &Name,
        digest: &Digest,
        span: Span,
    ) -> Result<Answered<Blob>, Error> {
        let mut ask = self.ask_blob(repository, digest);
        ask.range = range(span, span.first);
        let mut answer = self.0.ask(&ask).await?;
        self.check_blob(&answer, digest)?;
        let (place, budget) = (answer.place.take(), answer.budget.clone());
        let mut body = Body {
            upstream: self.clone(),
            ask,
            span,
            reached: span.first,
            size: None,
            open: None,
            broke: (span.first, 0),
            is_over: false,
            _place: place,
        };
        body.open(answer)?;
        Ok(Answered { value: Blob { size: body.size, body }, budget })
    }

    fn ask_blob(&self, repository: &Name, digest: &Digest) -> Ask {
        let repository = self.repository(repository);
        let url = self.0.settings.origin.at(&format!("/v2/{repository}/blobs/{digest}"));
        Ask { what: format!("blob {digest} of {repository}"), ..Ask::get(url, pull(&repository)) }
    }

    fn check_blob(&self, answer: &Answer, digest: &Digest) -> Result<(), Error> {
        self.refuse_page(answer)?;
        let said = answer.header(&CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        if let Some(said) = said.filter(|said| said.algorithm() == digest.algorithm() && said != digest) {
            let cause = format!("answered with {said} to {digest}");
            return Err(self.0.error(Kind::WrongContent, cause).with(&answer.budget));
        }
        Ok(())
    }
}

impl Body {
    /// The next bytes; none at the end. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.is_over {
            return None;
        }
        let next = self.advance().await.transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        if self.is_over {
            self.open = None;
        }
        next
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        futures::stream::unfold(self, |mut body| async move {
            let next = body.next().await?;
            Some((next, body))
        })
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let left = self.end().map(|end| end.saturating_sub(self.reached));
            if left == Some(0) {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                self.reopen().await?;
                continue;
            };
            match exchange::data(&mut open.body, self.upstream.0.settings.patience.idle).await {
                Ok(Some(bytes)) => {
                    let bytes = wanted(bytes, &mut open.skip, left);
                    if bytes.is_empty() {
                        continue;
                    }
                    self.reached += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                // The end of a body whose length nobody knew.
                Ok(None) if left.is_none() && open.skip == 0 => return Ok(None),
                Ok(None) => self.broken("ended before its end", None)?,
                Err(broken) => self.broken("", Some(&broken))?,
            }
        }
    }

    /// The byte after the last one that is wanted.
    fn end(&self) -> Option<u64> {
        let wanted = self.span.last.map(|last| last.saturating_add(1));
        match (wanted, self.size) {
            (Some(wanted), Some(size)) => Some(wanted.min(size)),
            (one, other) => one.or(other),
        }
    }

    /// Notes that it broke; an error if that was once too often.
    fn broken(&mut self, cause: &str, broken: Option<&Broken>) -> Result<(), Error> {
        self.open = None;
        let (since, times) = self.broke;
        self.broke = if self.reached >= since + PROGRESS { (self.reached, 1) } else { (since, times + 1) };
        if self.broke.1 < ATTEMPTS {
            return Ok(());
        }
        let what = format!("{} broke off at byte {}", self.ask.what, self.reached);
        let inner = &self.upstream.0;
        Err(match broken {
            Some(broken) => inner.broken(broken, &what),
            None => inner.error(Kind::UNAVAILABLE, format!("{what}: {cause}")),
        })
    }

    /// Asks again, from the byte that was reached.
    async fn reopen(&mut self) -> Result<(), Error> {
        tokio::time::sleep(PAUSE * 2_u32.pow(self.broke.1.saturating_sub(1).min(ATTEMPTS))).await;
        self.ask.range = range(self.span, self.reached);
        let upstream = self.upstream.clone();
        match upstream.0.ask_in_place(&self.ask).await {
            Ok(answer) => self.open(answer),
            Err(error) if matches!(error.kind, Kind::Unavailable { .. }) => {
                self.broken(error.cause(), None).map_err(|_told| error)
            }
            Err(error) => Err(error),
        }
    }

    fn open(&mut self, answer: Answer) -> Result<(), Error> {
        let inner = &self.upstream.0;
        let wrong = |cause: String| {
            Err(inner.error(Kind::WrongContent, format!("{} {cause}", self.ask.what)).with(&answer.budget))
        };
        if answer.header(&CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return wrong("came compressed, though that was not asked for".to_owned());
        }
        let Some(place) = lies(&answer) else { return wrong("came with a range that is none".to_owned()) };
        if place.first > self.reached || place.first != 0 && place.first != self.reached {
            return wrong(format!("came from byte {}, and not from {}", place.first, self.reached));
        }
        if let (Some(before), Some(now)) = (self.size, place.size)
            && before != now
        {
            return wrong(format!("has {now} bytes now, and had {before}"));
        }
        self.size = self.size.or(place.size);
        if self.size.is_some_and(|size| self.reached > size || self.span.first >= size && size > 0) {
            return wrong(format!("has no byte {}", self.reached));
        }
        self.open = Some(Open { skip: self.reached - place.first, body: answer.body });
        Ok(())
    }
}

/// The header of a request for what is wanted and not there yet; none for a whole blob.
fn range(span: Span, reached: u64) -> Option<String> {
    match (reached, span.last) {
        (0, None) => None,
        (first, None) => Some(format!("bytes={first}-")),
        (first, Some(last)) => Some(format!("bytes={first}-{last}")),
    }
}

/// Where the body of an answer lies.
fn lies(answer: &Answer) -> Option<Place> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Some(Place {
            first: 0,
            size: answer.header(&CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        });
    }
    lies_at(answer.header(&CONTENT_RANGE)?)
}

/// `bytes 0-99/200`, or `bytes 0-99/*`.
fn lies_at(range: &str) -> Option<Place> {
    let (range, size) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
    let size = if size == "*" { None } else { Some(size.trim().parse::<u64>().ok()?) };
    let is_possible = first <= last && size.is_none_or(|size| last < size);
    is_possible.then_some(Place { first, size })
}

/// `bytes` without what comes before what is wanted, and after it.
fn wanted(mut bytes: Bytes, skip: &mut u64, left: Option<u64>) -> Bytes {
    let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len());
    bytes.advance(skipped);
    *skip -= skipped as u64;
    if let Some(left) = left {
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_asked_for_from_the_byte_that_was_reached() {
        let span = |first, last| Span { first, last };
        assert_eq!(range(span(0, None), 0), None);
        assert_eq!(range(span(0, None), 7).as_deref(), Some("bytes=7-"));
        assert_eq!(range(span(5, Some(9)), 5).as_deref(), Some("bytes=5-9"));
        assert_eq!(range(span(5, Some(9)), 8).as_deref(), Some("bytes=8-9"));
        assert_eq!(range(span(0, Some(9)), 0).as_deref(), Some("bytes=0-9"));
    }

    #[test]
    fn where_a_body_lies_is_read_from_its_range() {
        assert_eq!(lies_at("bytes 5-9/10"), Some(Place { first: 5, size: Some(10) }));
        assert_eq!(lies_at("bytes 5-9/*"), Some(Place { first: 5, size: None }));
        for none in
            ["", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "5-9/10", "bytes -5/10", "bytes 5-/10"]
        {
            assert_eq!(lies_at(none), None, "{none}");
        }
    }

    #[test]
    fn bytes_before_and_after_what_is_wanted_are_left_out() {
        let cut = |skip: u64, left| {
            let mut skip = skip;
            let bytes = wanted(Bytes::from_static(b"abcdef"), &mut skip, left);
            (bytes, skip)
        };
        assert_eq!(cut(0, None), (Bytes::from_static(b"abcdef"), 0));
        assert_eq!(cut(2, Some(3)), (Bytes::from_static(b"cde"), 0));
        assert_eq!(cut(9, Some(3)), (Bytes::new(), 3));
    }
}
