// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a tar file has, and where: read once from head to head, without the bytes between.
//!
//! POSIX ustar and pax, and what GNU tar adds for long names and large files. Lengths are what the file says, so each
//! is held against the length of the file before it is believed.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::error::Trouble;

const BLOCK: u64 = 512;
/// The longest extended head, in bytes: it holds names and numbers.
const LONGEST_HEAD: u64 = 64 << 10;
/// How many bytes of names, and what keeping them costs, are kept in mind.
const MOST_NAMES: usize = 64 << 20;
/// What keeping a name costs beside its bytes.
const COST: usize = 128;
/// How many links are followed one after the other.
const LONGEST_CHAIN: usize = 8;

/// Where in the file the bytes of a member are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The first of them.
    pub offset: u64,
    /// How many.
    pub size: u64,
}

enum Member {
    File(Place),
    /// To another member.
    Link(String),
}

/// The members, by their names.
pub(super) struct Contents(BTreeMap<String, Member>);

impl Contents {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The bytes that a name leads to, over links.
    pub(super) fn find(&self, name: &str) -> Result<Option<Place>, Trouble> {
        let mut at = inside(name)?;
        for _ in 0..LONGEST_CHAIN {
            match self.0.get(&at) {
                None if at == name => return Ok(None),
                None => return Err(Trouble::DeadLink(name.to_owned())),
                Some(Member::File(place)) => return Ok(Some(*place)),
                Some(Member::Link(target)) => at.clone_from(target),
            }
        }
        Err(Trouble::DeadLink(name.to_owned()))
    }
}

/// What is said of the next member before its head.
#[derive(Default)]
struct Ahead {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

/// Reads the heads of a file of `length` bytes.
pub(super) fn contents<R: Read + Seek>(file: &mut R, length: u64) -> Result<Contents, Trouble> {
    let mut members = BTreeMap::new();
    let (mut at, mut ahead, mut cost) = (0, Ahead::default(), 0);
    loop {
        let Some(head) = head(file, at, length)? else { return Ok(Contents(members)) };
        let size = ahead.size.filter(|_| !head.is_extension()).map_or_else(|| head.size(at), Ok)?;
        let offset = at + BLOCK;
        let end = offset.checked_add(size).filter(|end| *end <= length);
        let name = ahead.name.clone().unwrap_or_else(|| head.name());
        let end = end.ok_or_else(|| Trouble::Truncated(Some(name.clone())))?;
        let place = Place { offset, size };
        match head.kind() {
            b'L' | b'K' | b'x' => ahead.read(file, head.kind(), place)?,
            // What holds for all members is nothing that we need.
            b'g' => {}
            kind => {
                let link = ahead.link.take().unwrap_or_else(|| head.link());
                cost += name.len() + link.len() + COST;
                if cost > MOST_NAMES {
                    return Err(Trouble::TooMany);
                }
                let own = inside(&name)?;
                match kind {
                    b'0' | b'7' | 0 => drop(members.insert(own, Member::File(place))),
                    b'1' => drop(members.insert(own, Member::Link(inside(&link)?))),
                    b'2' => {
                        let target = beside(&own, &link).ok_or(Trouble::Escape(name))?;
                        members.insert(own, Member::Link(target));
                    }
                    // Folders, and what has no bytes.
                    _ => {}
                }
                ahead = Ahead::default();
            }
        }
        at = end.next_multiple_of(BLOCK);
    }
}

impl Ahead {
    fn read<R: Read + Seek>(&mut self, file: &mut R, kind: u8, place: Place) -> Result<(), Trouble> {
        if place.size > LONGEST_HEAD {
            return Err(Trouble::TooLong {
                name: "the head of a member".to_owned(),
                size: place.size,
                longest: LONGEST_HEAD,
            });
        }
        let damaged = || Trouble::Damaged(place.offset);
        let mut bytes = Vec::new();
        file.take(place.size).read_to_end(&mut bytes).map_err(Trouble::Io)?;
        match kind {
            b'L' => self.name = Some(text(&bytes)),
            b'K' => self.link = Some(text(&bytes)),
            _ => {
                for (key, value) in records(&bytes).ok_or_else(damaged)? {
                    match key {
                        b"path" => self.name = Some(text(value)),
                        b"linkpath" => self.link = Some(text(value)),
                        b"size" => self.size = Some(text(value).parse().map_err(|_no_number| damaged())?),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

/// Records of pax: `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length.checked_sub(1)?)?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        found.push((record.get(..equals)?, record.get(equals + 1..)?));
        bytes = bytes.get(length..)?;
    }
    Some(found)
}

struct Head([u8; 512]);

/// The head at this place; `None` at the end that the format has.
fn head<R: Read + Seek>(file: &mut R, at: u64, length: u64) -> Result<Option<Head>, Trouble> {
    file.seek(SeekFrom::Start(at)).map_err(Trouble::Io)?;
    let mut block = [0; 512];
    if at + BLOCK > length {
        if at > 0 {
            return Err(Trouble::Truncated(None));
        }
        let mut first = Vec::new();
        file.take(BLOCK).read_to_end(&mut first).map_err(Trouble::Io)?;
        return Err(packed(&first).map_or(Trouble::NotTar, Trouble::Compressed));
    }
    file.read_exact(&mut block).map_err(Trouble::Io)?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let head = Head(block);
    match (head.is_sound(), at) {
        (true, _) => Ok(Some(head)),
        (false, 0) => Err(packed(&head.0).map_or(Trouble::NotTar, Trouble::Compressed)),
        (false, at) => Err(Trouble::Damaged(at)),
    }
}

fn packed(first: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], _); 4] =
        [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz")];
    known.into_iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, name)| name)
}

impl Head {
    fn field(&self, from: usize, length: usize) -> &[u8] {
        &self.0[from..from + length]
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn is_extension(&self) -> bool {
        matches!(self.kind(), b'L' | b'K' | b'x' | b'g')
    }

    /// The sum over all bytes, its own field taken for spaces, is as it says. Some have added bytes with a sign.
    fn is_sound(&self) -> bool {
        let Some(said) = octal(self.field(148, 8)) else { return false };
        let bytes = || {
            self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte })
        };
        let plain: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        said == plain || i64::try_from(said) == Ok(signed)
    }

    fn name(&self) -> String {
        let (name, prefix) = (text(self.field(0, 100)), text(self.field(345, 155)));
        let is_ustar = self.field(257, 6) == b"ustar\0";
        if is_ustar && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
    }

    fn link(&self) -> String {
        text(self.field(157, 100))
    }

    fn size(&self, at: u64) -> Result<u64, Trouble> {
        let field = self.field(124, 12);
        let size = if field[0] & 0x80 == 0 {
            octal(field)
        } else {
            // GNU: a number of 95 bits; ours are 64.
            let (high, low) = field.split_at(4);
            let is_small = high == [0x80, 0, 0, 0];
            low.try_into().ok().map(u64::from_be_bytes).filter(|_| is_small)
        };
        size.ok_or(Trouble::Damaged(at))
    }
}

/// A number in octal digits, ended by a space or a zero.
fn octal(field: &[u8]) -> Option<u64> {
    let text =
        field.split(|byte| *byte == 0).next().and_then(|field| std::str::from_utf8(field).ok())?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Up to the first zero. What is not UTF-8 cannot be a name that we look for.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// A name as the parts that it has. It must not lead out of the archive.
fn inside(name: &str) -> Result<String, Trouble> {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return Err(Trouble::Escape(name.to_owned()));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(parts.join("/"))
}

/// Where a link that stands at `own` leads; `None`: out of the archive.
fn beside(own: &str, link: &str) -> Option<String> {
    if link.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = own.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_inside() {
        assert_eq!(beside("a/layer.tar", "../b.tar").as_deref(), Some("b.tar"));
        assert_eq!(beside("a/layer.tar", "./c/../d").as_deref(), Some("a/d"));
        assert_eq!(beside("layer.tar", "../b.tar"), None);
        assert_eq!(beside("a/b", "/etc/passwd"), None);
        assert_eq!(inside("./a//b/").unwrap(), "a/b");
        for name in ["../a", "a/../../b", "/a"] {
            assert!(matches!(inside(name), Err(Trouble::Escape(_))), "{name}");
        }
    }

    #[test]
    fn records_are_as_long_as_they_say() {
        let found = records(b"12 path=abc\n11 size=10\n").unwrap();
        assert_eq!(found, [(&b"path"[..], &b"abc"[..]), (b"size", b"10")]);
        for broken in [&b"99 path=abc\n"[..], b"path=abc\n", b"0 a=b\n", b"5 abc\n", b"-1 a=b\n"] {
            assert_eq!(records(broken), None, "{:?}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn numbers_are_octal_or_of_gnu() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"  644 \0"), Some(0o644));
        assert_eq!(octal(b"8\0"), None);
        let mut head = Head([0; 512]);
        head.0[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\x02\0\0\0\0");
        assert_eq!(head.size(0).unwrap(), 8 << 30);
        head.0[125] = 1;
        assert!(head.size(0).is_err(), "more than any file has");
    }
}
