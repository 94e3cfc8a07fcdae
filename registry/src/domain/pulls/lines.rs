// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How pulls are written into objects: compressed lines. Pure.
//!
//! Of a process: `repository digest`, its day in the key. Of a snapshot: `repository digest day`, and for each
//! process whose last pulls may be missing `~ process day`; no name of a repository is `~`.

use std::io::{self, BufRead as _, BufReader, Write as _};

use stowage_oci::{Digest, Name};
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use crate::key::{Day, Generation};
use crate::meta::Stamp;

/// Digests do not compress, names do at any level.
const LEVEL: i32 = 1;
/// What stands for a repository in lines about processes.
const WRITER: &str = "~";

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A manifest was pulled.
    Pulled(Stamp),
    /// Pulls of a process, up to this day, may be missing.
    Writer(Generation, Day),
}

/// An object in the making.
pub struct Lines(Encoder<'static, Vec<u8>>);

impl Default for Lines {
    fn default() -> Self {
        Self(Encoder::new(Vec::new(), LEVEL).expect("the level is one of zstd's"))
    }
}

impl Lines {
    /// A manifest was pulled, on the day of the object.
    pub fn pulled(&mut self, repository: &Name, digest: &Digest) -> io::Result<()> {
        writeln!(self.0, "{repository} {digest}")
    }

    /// A line of a snapshot.
    pub fn push(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Pulled(Stamp { repository, digest, day }) => {
                writeln!(self.0, "{repository} {digest} {day}")
            }
            Line::Writer(writer, day) => writeln!(self.0, "{WRITER} {writer} {day}"),
        }
    }

    /// The object.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

/// The lines of an object of that day. What is not a line of ours is an error in its place; where the object cannot be
/// read any further, the last.
pub fn read(object: &[u8], day: Day) -> impl Iterator<Item = io::Result<Line>> {
    let mut lines = Decoder::new(object).map(|decoder| BufReader::new(decoder).lines()).map_err(Some);
    std::iter::from_fn(move || {
        let next = match &mut lines {
            Ok(lines) => lines.next()?,
            Err(why) => Err(why.take()?),
        };
        if next.is_err() {
            // It would fail again and again.
            lines = Err(None);
        }
        Some(next.and_then(|line| parse(&line, day).ok_or_else(not_ours)))
    })
}

fn not_ours() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a line about a pull")
}

fn parse(line: &str, day: Day) -> Option<Line> {
    let mut words = line.split(' ');
    let (first, second) = (words.next()?, words.next()?);
    let day = words.next().map_or(Ok(day), str::parse).ok()?;
    if first == WRITER {
        return Some(Line::Writer(second.parse().ok()?, day));
    }
    Some(Line::Pulled(Stamp { repository: first.parse().ok()?, digest: second.parse().ok()?, day }))
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn day(days: i32) -> Day {
        Day::since_1970(days).unwrap()
    }

    #[test]
    fn what_was_written_reads_back() {
        let stamp = |content: &str, days| Stamp {
            repository: "a/b".parse().unwrap(),
            digest: Digest::of(Algorithm::Sha512, content.as_bytes()),
            day: day(days),
        };
        let (known, today) = (stamp("known", 3), stamp("today", 9));
        let written = [Line::Pulled(known), Line::Writer(Generation::at(5), day(7))];
        let mut lines = Lines::default();
        written.iter().try_for_each(|line| lines.push(line)).unwrap();
        lines.pulled(&today.repository, &today.digest).unwrap();
        let object = lines.finish().unwrap();
        let found: Vec<Line> = read(&object, day(9)).collect::<io::Result<_>>().unwrap();
        assert_eq!(found[..2], written);
        assert_eq!(found[2..], [Line::Pulled(today)]);
    }

    #[test]
    fn what_is_damaged_is_an_error_and_the_rest_is_read() {
        let mut lines = Lines::default();
        lines.push(&Line::Writer(Generation::at(5), day(7))).unwrap();
        lines.0.write_all(b"nothing of ours\n").unwrap();
        let object = lines.finish().unwrap();
        let found: Vec<bool> = read(&object, day(1)).map(|line| line.is_ok()).collect();
        assert_eq!(found, [true, false]);
        let cut: Vec<bool> = read(&object[..object.len() / 2], day(1)).map(|line| line.is_ok()).collect();
        assert_eq!(cut.last(), Some(&false), "a cut object does not pass for a whole one");
        assert!(read(b"not compressed", day(1)).next().is_some_and(|line| line.is_err()));
    }
}
