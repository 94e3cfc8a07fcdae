// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Multipart uploads in files.
//!
//! An upload is one file, into which parts are written where they belong, so that completing it is a rename;
//! and a record beside it that knows the last acknowledged write of each part. A part is on the disk before it
//! is acknowledged, and its entry is wiped from the disk before its bytes are touched again: a part that the
//! record knows has exactly the bytes of its tag.
//!
//! The record is the key, padded, then a slot for each part.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use uuid::Uuid;

use super::folders::Folders;
use crate::blobs::{Error, MultipartId, OpenMultipart, Part, Request, total};

/// Longer than any key.
const HEADER: usize = 1024;
/// Divides every sector size, so that a slot is never written by half.
const SLOT: usize = 64;
/// The first byte of a slot that is in use.
const IN_USE: u8 = 1;

/// The beginning of the names of both files.
const CONTENT: &str = "upload-";
/// The end of the name of the record.
const RECORD: &str = ".parts";

/// The open uploads of a store.
#[derive(Debug)]
pub(super) struct Uploads {
    folder: PathBuf,
    locks: Mutex<HashMap<Uuid, Weak<Mutex<()>>>>,
}

/// Why an upload could not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("unknown upload")]
    Unknown,
    #[error("part {0} is not the last of its number, or not where it belongs")]
    NotTheLast(u16),
    #[error("no parts")]
    Empty,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failed {
    pub(super) fn into_error(self, request: Request, key: &str) -> Error {
        match self {
            Self::Unknown => request.unknown_upload(key),
            Self::NotTheLast(_) | Self::Empty => request.refused(key, self),
            Self::Io(error) => super::classify(request, key, error),
        }
    }
}

/// What the record knows of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    offset: u64,
    size: u64,
    tag: Uuid,
}

impl Entry {
    fn to_slot(self) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        let (head, rest) = slot.split_at_mut(8);
        let (offset, rest) = rest.split_at_mut(8);
        let (size, rest) = rest.split_at_mut(8);
        let (tag, _) = rest.split_at_mut(16);
        head.fill(IN_USE);
        offset.copy_from_slice(&self.offset.to_be_bytes());
        size.copy_from_slice(&self.size.to_be_bytes());
        tag.copy_from_slice(self.tag.as_bytes());
        slot
    }

    fn from_slot(slot: &[u8; SLOT]) -> Option<Self> {
        let words = slot.as_chunks::<8>().0;
        let &[[IN_USE, ..], offset, size, ..] = words else { return None };
        let tag = slot.as_chunks::<4>().0;
        let tag: Vec<u8> = tag.iter().skip(6).take(4).flatten().copied().collect();
        Some(Self {
            offset: u64::from_be_bytes(offset),
            size: u64::from_be_bytes(size),
            tag: Uuid::from_slice(&tag).ok()?,
        })
    }

    fn is(&self, part: &Part) -> bool {
        self.size == part.size && self.tag.simple().to_string() == part.etag
    }
}

/// The two files of an upload. Used under its lock.
struct Upload {
    content: File,
    record: File,
}

impl Upload {
    fn slot(number: u16) -> u64 {
        (HEADER + usize::from(number) * SLOT) as u64
    }

    fn entry(&self, number: u16) -> io::Result<Option<Entry>> {
        let mut slot = [0; SLOT];
        match self.record.read_exact_at(&mut slot, Self::slot(number)) {
            Ok(()) => Ok(Entry::from_slot(&slot)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn record(&self, number: u16, slot: &[u8; SLOT]) -> io::Result<()> {
        self.record.write_all_at(slot, Self::slot(number))?;
        self.record.sync_data()
    }

    /// Writes and acknowledges a part.
    fn write(&self, number: u16, offset: u64, segments: &[Bytes]) -> io::Result<Entry> {
        if self.entry(number)?.is_some() {
            self.record(number, &[0; SLOT])?;
        }
        let mut at = offset;
        for segment in segments {
            self.content.write_all_at(segment, at)?;
            at += segment.len() as u64;
        }
        self.content.sync_data()?;
        let entry = Entry { offset, size: at - offset, tag: Uuid::new_v4() };
        self.record(number, &entry.to_slot())?;
        Ok(entry)
    }

    /// The length of the object that the parts make.
    fn length(&self, parts: &[Part]) -> Result<u64, Failed> {
        let mut length = 0;
        for part in parts {
            let entry = self.entry(part.number)?;
            let entry = entry.filter(|entry| entry.is(part) && entry.offset == length);
            length += entry.ok_or(Failed::NotTheLast(part.number))?.size;
        }
        if parts.is_empty() { Err(Failed::Empty) } else { Ok(length) }
    }
}

impl Uploads {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, locks: Mutex::default() }
    }

    pub(super) fn create(&self, key: &str) -> Result<MultipartId, Failed> {
        let id = Uuid::new_v4();
        let made = self.make(key, id);
        if made.is_err() {
            self.remove(id)?;
        }
        made?;
        Ok(MultipartId(id.to_string()))
    }

    fn make(&self, key: &str, id: Uuid) -> io::Result<()> {
        let mut header = key.as_bytes().to_vec();
        header.resize(HEADER, 0);
        let new = |path: PathBuf| OpenOptions::new().write(true).create_new(true).open(path);
        new(self.content(id))?;
        let record = new(self.record(id))?;
        record.write_all_at(&header, 0)?;
        record.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    pub(super) fn write(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: &[Bytes],
    ) -> Result<Part, Failed> {
        let id = parse(id)?;
        let lock = self.lock(id);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = self.open(key, id)?.write(number, offset, segments)?;
        debug_assert_eq!(entry.size, total(segments));
        Ok(Part { number, size: entry.size, etag: entry.tag.simple().to_string() })
    }

    /// Moves the content to `target`.
    pub(super) fn complete(
        &self,
        folders: &Folders,
        key: &str,
        id: &MultipartId,
        parts: &[Part],
        target: &Path,
    ) -> Result<(), Failed> {
        let id = parse(id)?;
        let lock = self.lock(id);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = self.open(key, id)?;
        let length = upload.length(parts)?;
        // A part that was sent but is not named lies behind the others.
        upload.content.set_len(length)?;
        upload.content.sync_all()?;
        let content = self.content(id);
        folders.publish(target, || fs::rename(&content, target))?;
        remove(&self.record(id))?;
        Ok(())
    }

    pub(super) fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Failed> {
        let Ok(id) = parse(id) else { return Ok(()) };
        let lock = self.lock(id);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        match self.open(key, id) {
            Ok(_) => Ok(self.remove(id)?),
            Err(Failed::Unknown) => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    /// All of them, whose keys begin with `v1/`.
    pub(super) fn open_ones(&self) -> io::Result<Vec<OpenMultipart>> {
        let mut open = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = name.strip_prefix(CONTENT).and_then(|name| name.strip_suffix(RECORD));
            let Some(id) = id else { continue };
            let mut header = vec![0; HEADER];
            match File::open(&path).and_then(|mut record| record.read_exact(&mut header)) {
                // Completed or aborted meanwhile, or just being made.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) =>
                {
                    continue;
                }
                read => read?,
            }
            let key = String::from_utf8_lossy(&header).trim_end_matches('\0').to_owned();
            if key.starts_with("v1/") {
                open.push(OpenMultipart { key, id: MultipartId(id.to_owned()) });
            }
        }
        Ok(open)
    }

    fn remove(&self, id: Uuid) -> io::Result<()> {
        remove(&self.content(id))?;
        remove(&self.record(id))
    }

    fn content(&self, id: Uuid) -> PathBuf {
        self.folder.join(format!("{CONTENT}{id}"))
    }

    fn record(&self, id: Uuid) -> PathBuf {
        self.folder.join(format!("{CONTENT}{id}{RECORD}"))
    }

    fn open(&self, key: &str, id: Uuid) -> Result<Upload, Failed> {
        let content = existing(&self.content(id))?;
        let mut record = existing(&self.record(id))?;
        let mut header = vec![0; HEADER];
        record.read_exact(&mut header)?;
        let owner = header.strip_prefix(key.as_bytes());
        let ours = owner.is_some_and(|padding| padding.iter().all(|byte| *byte == 0));
        if ours { Ok(Upload { content, record }) } else { Err(Failed::Unknown) }
    }

    /// One writer at a time: a part that comes twice at once would be mixed.
    fn lock(&self, id: Uuid) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(&id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::new(Mutex::new(()));
            locks.insert(id, Arc::downgrade(&lock));
            lock
        })
    }
}

/// Whether the file belongs to an upload that a crash has left with one file, at its beginning or its end.
pub(super) fn is_half(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let other = match name.strip_suffix(RECORD) {
        Some(content) => content.to_owned(),
        None => format!("{name}{RECORD}"),
    };
    name.starts_with(CONTENT) && !path.with_file_name(other).exists()
}

fn parse(id: &MultipartId) -> Result<Uuid, Failed> {
    // Also keeps what is no id of ours out of paths.
    Uuid::try_parse(&id.0).ok().ok_or(Failed::Unknown)
}

fn existing(path: &Path) -> Result<File, Failed> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failed::Unknown),
        opened => Ok(opened?),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_from_its_slot() {
        let entry = Entry { offset: 16 << 20, size: 5, tag: Uuid::new_v4() };
        assert_eq!(Entry::from_slot(&entry.to_slot()), Some(entry));
        assert_eq!(Entry::from_slot(&[0; SLOT]), None);
    }
}
