// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where one HTTP/1 request ends and the next begins: a connection on which two parsers might disagree is ended.
//!
//! A proxy before us decides by its own parser which bytes are one request. Where it reads `Content-Length` and
//! hyper reads `Transfer-Encoding`, or it does not know a bare line feed for the end of a line, a client can hide
//! a request in the body of another. Hyper takes some of these; here they become bytes that it refuses, so that
//! the answer is its 400 and the connection ends.
//! Refused: both lengths at once, more than one transfer coding or another than `chunked`, lines that end without
//! a carriage return, lines that continue the one before. Hyper itself refuses the rest.
//! Never: reads a body; its bytes are counted and passed on. HTTP/2 is passed on as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What of a line is kept: more than the fields that matter can have.
const KEPT: usize = 64;
/// In no place of a head can hyper take it.
const SPOILER: u8 = 0;

/// Follows the bytes of a connection.
#[derive(Debug)]
struct Framing {
    place: Place,
    line: Line,
    lengths: Lengths,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The first line of the connection, which may be that of HTTP/2.
    Opening,
    /// The line that begins a request, and empty ones before it.
    RequestLine,
    Field,
    /// So many bytes that nobody here reads.
    Body(u64),
    ChunkSize,
    /// So many bytes, with the line break after them.
    ChunkData(u64),
    Trailer,
    /// Not HTTP/1, or nothing that will be answered.
    Opaque,
}

/// The line that is being read.
#[derive(Debug, Default)]
struct Line {
    start: Vec<u8>,
    length: usize,
    last: u8,
}

/// What a head says of the length of its body.
#[derive(Debug, Default)]
struct Lengths {
    content_length: Option<u64>,
    codings: Vec<Vec<u8>>,
}

/// The head can be understood in two ways.
#[derive(Debug)]
struct Ambiguous;

impl Framing {
    fn new() -> Self {
        Self { place: Place::Opening, line: Line::default(), lengths: Lengths::default() }
    }

    /// Looks at bytes on their way to hyper; spoils what must not get there.
    fn pass(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Opaque => return,
                Place::Body(left) | Place::ChunkData(left) => at += self.skip(left, bytes.len() - at),
                _ => {
                    if self.take(bytes[at]).is_err() {
                        bytes[at] = SPOILER;
                        self.place = Place::Opaque;
                    }
                    at += 1;
                }
            }
        }
    }

    /// Passes over content; how much of what is there.
    fn skip(&mut self, left: u64, there: usize) -> usize {
        let skipped = usize::try_from(left).map_or(there, |left| left.min(there));
        let left = left - skipped as u64;
        self.place = match self.place {
            Place::ChunkData(_) if left == 0 => Place::ChunkSize,
            Place::ChunkData(_) => Place::ChunkData(left),
            _ if left == 0 => Place::RequestLine,
            _ => Place::Body(left),
        };
        skipped
    }

    fn take(&mut self, byte: u8) -> Result<(), Ambiguous> {
        if byte != b'\n' {
            self.line.push(byte);
            return Ok(());
        }
        // Within a chunked body hyper asks for the carriage return itself.
        if self.line.last != b'\r' {
            return Err(Ambiguous);
        }
        let line = std::mem::take(&mut self.line);
        self.end_of(&line.without_return())
    }

    fn end_of(&mut self, line: &Ended<'_>) -> Result<(), Ambiguous> {
        self.place = match self.place {
            Place::Opening if line.is(b"PRI * HTTP/2.0") => Place::Opaque,
            // Empty lines before a request are skipped by everybody.
            Place::Opening | Place::RequestLine if line.is(b"") => self.place,
            Place::Opening | Place::RequestLine => Place::Field,
            Place::Field if line.is(b"") => std::mem::take(&mut self.lengths).body()?,
            Place::Field => {
                self.lengths.note(line)?;
                Place::Field
            }
            Place::ChunkSize => line.chunk(),
            Place::Trailer if line.is(b"") => Place::RequestLine,
            other => other,
        };
        Ok(())
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        if self.start.len() < KEPT {
            self.start.push(byte);
        }
        self.length += 1;
        self.last = byte;
    }

    fn without_return(&self) -> Ended<'_> {
        let length = self.length - 1;
        Ended { start: &self.start[..length.min(self.start.len())], is_whole: length <= KEPT }
    }
}

/// A line without its end.
struct Ended<'a> {
    start: &'a [u8],
    is_whole: bool,
}

impl Ended<'_> {
    fn is(&self, text: &[u8]) -> bool {
        self.is_whole && self.start == text
    }

    /// What follows the line that says how long a chunk is. What is no number hyper refuses.
    fn chunk(&self) -> Place {
        let digits = self.start.split(|byte| !byte.is_ascii_hexdigit()).next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match size {
            None => Place::Opaque,
            Some(0) => Place::Trailer,
            Some(size) => size.checked_add(2).map_or(Place::Opaque, Place::ChunkData),
        }
    }
}

impl Lengths {
    fn note(&mut self, line: &Ended<'_>) -> Result<(), Ambiguous> {
        if line.start.first().is_some_and(|byte| b" \t".contains(byte)) {
            return Err(Ambiguous);
        }
        let Some(colon) = line.start.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let (name, value) = (&line.start[..colon], line.start[colon + 1..].trim_ascii());
        let is_coding = name.eq_ignore_ascii_case(b"transfer-encoding");
        let is_length = name.eq_ignore_ascii_case(b"content-length");
        if (is_coding || is_length) && !line.is_whole {
            return Err(Ambiguous);
        }
        if is_coding {
            self.codings.push(value.to_ascii_lowercase());
        } else if is_length {
            // What is no number, or another number than before, hyper refuses.
            let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            self.content_length = Some(number.unwrap_or_default());
        }
        Ok(())
    }

    /// What follows the head.
    fn body(self) -> Result<Place, Ambiguous> {
        match (self.codings.as_slice(), self.content_length) {
            ([], None | Some(0)) => Ok(Place::RequestLine),
            ([], Some(length)) => Ok(Place::Body(length)),
            ([coding], None) if coding == b"chunked" => Ok(Place::ChunkSize),
            _ => Err(Ambiguous),
        }
    }
}

/// A connection whose requests have one end each.
pub(super) struct Framed<I> {
    io: I,
    framing: Framing,
}

impl<I> Framed<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, framing: Framing::new() }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Framed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.framing.pass(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Framed<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEXT: &str = "GET / HTTP/1.1\r\n";

    /// What reaches hyper when the text comes in pieces of this size.
    fn passed(text: &str, piece: usize) -> (Vec<u8>, Place) {
        let mut framing = Framing::new();
        let mut bytes = text.as_bytes().to_vec();
        bytes.chunks_mut(piece).for_each(|piece| framing.pass(piece));
        (bytes, framing.place)
    }

    fn request(fields: &str, body: &str) -> String {
        format!("\r\nPOST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}{NEXT}")
    }

    const PLAIN: [(&str, &str); 7] = [
        ("", ""),
        ("Content-Length: 0\r\n", ""),
        ("content-length:5\r\n", "a\nb\r\n"),
        ("Transfer-Encoding: Chunked\r\n", "3\r\n\n\n\n\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"),
        ("TRANSFER-ENCODING:chunked\r\n", "0\r\nTrailer: x\r\n\r\n"),
        ("X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", ""),
        ("X-Content-Length: 7\r\n", ""),
    ];

    #[test]
    fn w726_a_request_with_one_meaning_passes_and_the_next_begins_behind_it() {
        for (fields, body) in PLAIN {
            let text = request(fields, body);
            for piece in [1, 2, 7, text.len()] {
                let (bytes, place) = passed(&text, piece);
                assert_eq!((bytes, place), (text.clone().into_bytes(), Place::Field), "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn w726_a_request_with_two_meanings_is_spoiled() {
        for fields in [
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\ntransfer-encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding:\r\n",
            "X: y\nContent-Length: 3\r\n",
            "X: y\n",
            "X: y\r\n more\r\n",
            "X: y\r\n\tmore\r\n",
            &format!("Content-Length:{}3\r\n", " ".repeat(KEPT)),
            &format!("Transfer-Encoding:{}chunked\r\n", " ".repeat(KEPT)),
        ] {
            let text = request(fields, "");
            for piece in [1, 3, text.len()] {
                let (bytes, place) = passed(&text, piece);
                assert_eq!(place, Place::Opaque, "{text:?}");
                let changed: Vec<usize> =
                    (0..bytes.len()).filter(|at| bytes[*at] != text.as_bytes()[*at]).collect();
                assert!(matches!(changed[..], [at] if bytes[at] == SPOILER), "{text:?}: {changed:?}");
                assert!(changed[0] < text.len() - NEXT.len(), "{text:?}: spoiled too late");
            }
        }
    }

    #[test]
    fn http_2_passes_as_it_is() {
        let text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n";
        assert_eq!(passed(text, 5), (text.as_bytes().to_vec(), Place::Opaque));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_bytes_come(
            parts in proptest::collection::vec(0..PLAIN.len(), 1..5),
            piece in 1_usize..40,
        ) {
            let text: String = parts.iter().map(|at| {
                let whole = request(PLAIN[*at].0, PLAIN[*at].1);
                whole.trim_end_matches(NEXT).to_owned()
            }).collect();
            prop_assert_eq!(passed(&text, piece), (text.clone().into_bytes(), Place::RequestLine));
        }
    }
}
