// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reading an object: a little when it is opened, the rest piece by piece as it is asked for.

use std::fs::File;
use std::io;
use std::mem;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rustix::buffer::spare_capacity;

use super::classify;
use crate::blobs::{ByteStream, Content, Request};

/// What one trip to the disk brings.
const PIECE: u64 = 512 << 10;
/// What is read at once when an object is opened.
const FIRST_PIECE: u64 = 64 << 10;

/// An object that is being read.
pub(super) struct Reading {
    size: u64,
    length: u64,
    first: Bytes,
    rest: Rest,
}

impl Reading {
    /// Reads the beginning of `range` of an object of `size` bytes.
    pub(super) fn begin(file: File, size: u64, range: Range<u64>) -> io::Result<Self> {
        let length = range.end - range.start;
        let mut rest = Rest { file, range, buffers: Buffers::default() };
        let beginning = rest.take(FIRST_PIECE);
        let first = read_exactly(&rest.file, &beginning, Vec::new())?;
        Ok(Self { size, length, first, rest })
    }

    pub(super) fn into_content(self, key: &str) -> Content {
        let first = stream::iter((!self.first.is_empty()).then_some(Ok(self.first)));
        let stream = if self.rest.range.is_empty() {
            first.boxed()
        } else {
            first.chain(self.rest.into_stream(key.to_owned())).boxed()
        };
        Content { length: self.length, size: self.size, stream }
    }
}

/// What is left of an object.
struct Rest {
    file: File,
    range: Range<u64>,
    buffers: Buffers,
}

impl Rest {
    /// Where the next piece is, of at most `length` bytes.
    fn take(&mut self, length: u64) -> Range<u64> {
        let begin = self.range.start;
        self.range.start = self.range.end.min(begin + length);
        begin..self.range.start
    }

    /// Reads the next piece.
    fn next(mut self) -> io::Result<(Bytes, Self)> {
        let range = self.take(PIECE);
        let piece = read_exactly(&self.file, &range, self.buffers.take())?;
        self.buffers.keep(piece.clone());
        Ok((piece, self))
    }

    fn into_stream(self, key: String) -> ByteStream {
        let pieces = stream::try_unfold(self, |rest| async move {
            if rest.range.is_empty() {
                return Ok(None);
            }
            tokio::task::spawn_blocking(|| rest.next()).await.map_err(io::Error::other)?.map(Some)
        });
        pieces.map_err(move |error| classify(Request::Get, &key, error)).boxed()
    }
}

/// The memory of the last two pieces, which take turns: when a piece is asked for, the one before it may still be on its
/// way, and the one before that has been sent. So a pull holds two pieces however many threads read for it.
#[derive(Default)]
struct Buffers {
    last: Bytes,
    before: Bytes,
}

impl Buffers {
    /// Memory that nobody reads any more.
    fn take(&mut self) -> Vec<u8> {
        let mut sent = mem::take(&mut self.before).try_into_mut().unwrap_or_default();
        // It is not to be copied.
        sent.clear();
        sent.into()
    }

    fn keep(&mut self, piece: Bytes) {
        self.before = mem::replace(&mut self.last, piece);
    }
}

/// The bytes in `range` of the file, in the memory of `buffer`.
fn read_exactly(file: &File, range: &Range<u64>, mut buffer: Vec<u8>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).expect("a piece fits into memory");
    buffer.clear();
    buffer.reserve_exact(length);
    while buffer.len() < length {
        let at = range.start + buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // There may be more room than was asked for.
    buffer.truncate(length);
    Ok(Bytes::from(buffer))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_pull_holds_two_pieces_and_no_memory_for_each() {
        const PIECES: usize = 8;
        let mut file = tempfile::tempfile().unwrap();
        let size = FIRST_PIECE + PIECES as u64 * PIECE;
        let content: Vec<u8> = (0..size).map(|at| u8::try_from(at / 1000 % 251).unwrap()).collect();
        file.write_all(&content).unwrap();
        let mut stream = Reading::begin(file, size, 0..size).unwrap().into_content("key").stream;
        let mut read = Vec::new();
        let mut places = BTreeSet::new();
        let mut on_its_way = stream.try_next().await.unwrap().unwrap();
        read.extend_from_slice(&on_its_way);
        while let Some(piece) = stream.try_next().await.unwrap() {
            places.insert(piece.as_ptr().addr());
            read.extend_from_slice(&piece);
            on_its_way = piece;
        }
        drop(on_its_way);
        assert!(read == content);
        assert_eq!(places.len(), 2);
    }

    #[tokio::test]
    async fn pieces_that_nobody_lets_go_stay_as_they_are() {
        let mut file = tempfile::tempfile().unwrap();
        let size = 4 * PIECE + 1;
        let content: Vec<u8> = (0..size).map(|at| u8::try_from(at / 1000 % 251).unwrap()).collect();
        file.write_all(&content).unwrap();
        let range = 10..size - 10;
        let found = Reading::begin(file, size, range).unwrap().into_content("key");
        assert_eq!(found.length, size - 20);
        let pieces: Vec<Bytes> = found.stream.try_collect().await.unwrap();
        assert!(pieces.concat() == content[10..content.len() - 10]);
    }
}
