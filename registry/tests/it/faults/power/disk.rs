// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A file system on a disk with a volatile cache, as a value: what is there now, and what a power cut leaves.
//!
//! Durable is what POSIX promises, and no more:
//! - the bytes and the length of a file, up to the last fsync or fdatasync *of that file*. Of what was written
//!   since, each sector (of 512 or 4096 bytes) is left as it was after some of the writes to it: a prefix of the
//!   writes with the last one torn, any subset, none, all. The length is that after some of the writes.
//! - the entries of a folder (create, mkdir, rename, unlink, rmdir), up to the last fsync *of that folder*. Of
//!   the changes since, any may be lost, but those of one folder in their order: none is left without those
//!   before it. A rename is one change of two folders, as in the journal of ext4 and XFS.
//!
//! So it is harder than ext4 and XFS, whose journal keeps the order across folders and takes a new file's entry
//! along with its fsync. Not modelled: a sector that cannot be read any more, hard links, `O_DIRECT`,
//! `sync_file_range` (nothing uses them), and `syncfs`, which the kernel does not tell to file systems in user space.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::Errno;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stowage_registry::ops::clock;

pub(super) const ROOT: u64 = 1;

/// What the disk does when it is asked to make something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Honesty {
    Honest,
    /// Says that the write-ahead log of the database is durable, and does nothing.
    LiesAboutJournal,
    /// Says that the bytes of a file that is not the database's are durable, and does nothing.
    LiesAboutContent,
    /// Says that the entries of a folder are durable, and does nothing.
    LiesAboutFolders,
}

#[derive(Debug)]
pub(super) struct Disk {
    nodes: HashMap<u64, Node>,
    next: u64,
    honesty: Honesty,
    /// Changes of folders that are not durable, in their order.
    changes: Vec<Change>,
}

#[derive(Debug)]
pub(super) enum Node {
    File(File),
    Folder(Folder),
}

/// What a file is for, by the name it is made with.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// The write-ahead log of the database.
    Journal,
    Database,
    Content,
}

#[derive(Debug)]
pub(super) struct File {
    purpose: Purpose,
    pub(super) bytes: Vec<u8>,
    pub(super) modified: SystemTime,
    durable: Vec<u8>,
    /// What happened since it was durable.
    writes: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) entries: Entries,
    durable: Entries,
}

type Entries = BTreeMap<OsString, u64>;

/// One change, of one or two folders.
#[derive(Debug)]
struct Change(Vec<Edit>);

#[derive(Debug)]
struct Edit {
    folder: u64,
    name: OsString,
    /// `None`: the name goes.
    node: Option<u64>,
}

impl Change {
    fn touches(&self, folders: &HashSet<u64>) -> bool {
        self.0.iter().any(|edit| folders.contains(&edit.folder))
    }

    fn folders(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|edit| edit.folder)
    }
}

impl Edit {
    fn apply(&self, entries: &mut Entries) {
        match self.node {
            Some(node) => entries.insert(self.name.clone(), node),
            None => entries.remove(&self.name),
        };
    }
}

impl File {
    fn of(bytes: Vec<u8>, purpose: Purpose) -> Self {
        Self { purpose, durable: bytes.clone(), bytes, modified: now(), writes: Vec::new() }
    }

    fn note(&mut self, write: Write) {
        write.apply(&mut self.bytes);
        self.modified = now();
        self.writes.push(write);
    }

    fn sync(&mut self) {
        for write in self.writes.drain(..) {
            write.apply(&mut self.durable);
        }
    }

    /// What a power cut leaves of it.
    fn survivor(mut self, rng: &mut StdRng) -> Vec<u8> {
        let all = self.writes.len();
        let sector = if rng.random() { 512 } else { 4096 };
        // How many of the writes a sector has seen.
        let (prefix, torn) = (rng.random_range(0..=all), rng.random_range(0..64) * sector);
        let (salt, share) = (rng.random::<u64>(), rng.random_range(0..=100));
        let scattered = rng.random_bool(0.5);
        let seen = |at: usize| match (scattered, at < torn) {
            (false, early) => prefix + usize::from(early),
            (true, _) => match mixed(salt ^ (at / sector) as u64) {
                dice if dice % 100 < share => all,
                dice => usize::try_from(dice >> 8).unwrap() % (all + 1),
            },
        };
        let length = if scattered { rng.random_range(0..=all) } else { prefix };
        let length = self.writes[..length].iter().fold(self.durable.len(), |length, write| match write {
            Write::Bytes { at, bytes } => length.max(at + bytes.len()),
            Write::Length(length) => *length,
        });
        for (number, write) in self.writes.iter().enumerate() {
            write.apply_sectors(&mut self.durable, sector, |at| number < seen(at));
        }
        self.durable.resize(length, 0);
        self.durable
    }
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Bytes { at, bytes } => {
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// Applies what falls into the sectors that have seen it; `seen` takes where a sector begins.
    fn apply_sectors(&self, content: &mut Vec<u8>, sector: usize, seen: impl Fn(usize) -> bool) {
        let (begin, end) = match self {
            Self::Bytes { at, bytes } => (*at, at + bytes.len()),
            Self::Length(length) => (*length, content.len()),
        };
        content.resize(content.len().max(end), 0);
        let mut at = begin;
        while at < end {
            let next = (at / sector + 1) * sector;
            let piece = at..next.min(end);
            if seen(at / sector * sector) {
                match self {
                    Self::Bytes { bytes, .. } => {
                        content[piece.clone()]
                            .copy_from_slice(&bytes[piece.start - begin..piece.end - begin]);
                    }
                    Self::Length(_) => content[piece].fill(0),
                }
            }
            at = next;
        }
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(clock::seconds())
}

/// A number that looks random.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

impl Disk {
    /// An empty one.
    pub(super) fn new(honesty: Honesty) -> Self {
        let nodes = HashMap::from([(ROOT, Node::Folder(Folder::default()))]);
        Self { nodes, next: ROOT + 1, honesty, changes: Vec::new() }
    }

    /// One with an empty folder, which is durable.
    pub(super) fn with_folder(honesty: Honesty, name: &OsStr) -> Self {
        let mut disk = Self::new(Honesty::Honest);
        disk.make_folder(ROOT, name).and_then(|_| disk.sync_folder(ROOT)).expect("the disk is empty");
        Self { honesty, ..disk }
    }

    pub(super) fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::ENOENT)
    }

    pub(super) fn file(&mut self, node: u64) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub(super) fn folder(&self, node: u64) -> Result<&Folder, Errno> {
        match self.nodes.get(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn folder_mut(&mut self, node: u64) -> &mut Folder {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => folder,
            _ => panic!("{node} is a folder"),
        }
    }

    pub(super) fn look_up(&self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.folder(folder)?.entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn create(&mut self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        let purpose = match name.to_string_lossy().split_once(".sqlite") {
            Some((_, "-wal")) => Purpose::Journal,
            Some(_) => Purpose::Database,
            None => Purpose::Content,
        };
        self.add(folder, name, Node::File(File::of(Vec::new(), purpose)))
    }

    pub(super) fn make_folder(&mut self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.add(folder, name, Node::Folder(Folder::default()))
    }

    fn add(&mut self, folder: u64, name: &OsStr, node: Node) -> Result<u64, Errno> {
        if self.folder(folder)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.change(vec![Edit { folder, name: name.to_owned(), node: Some(number) }]);
        Ok(number)
    }

    pub(super) fn remove_file(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        let node = self.look_up(folder, name)?;
        self.file(node)?;
        self.change(vec![Edit { folder, name: name.to_owned(), node: None }]);
        Ok(())
    }

    pub(super) fn remove_folder(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        let node = self.look_up(folder, name)?;
        if !self.folder(node)?.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.change(vec![Edit { folder, name: name.to_owned(), node: None }]);
        Ok(())
    }

    /// Only of files.
    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let node = self.look_up(from.0, from.1)?;
        self.file(node)?;
        self.folder(to.0)?;
        let gone = Edit { folder: from.0, name: from.1.to_owned(), node: None };
        let come = Edit { folder: to.0, name: to.1.to_owned(), node: Some(node) };
        self.change(vec![gone, come]);
        Ok(())
    }

    fn change(&mut self, edits: Vec<Edit>) {
        for edit in &edits {
            edit.apply(&mut self.folder_mut(edit.folder).entries);
        }
        self.changes.push(Change(edits));
    }

    pub(super) fn write(&mut self, node: u64, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let at = usize::try_from(at).unwrap();
        self.file(node)?.note(Write::Bytes { at, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(super) fn set_length(&mut self, node: u64, length: u64) -> Result<(), Errno> {
        let length = usize::try_from(length).unwrap();
        self.file(node)?.note(Write::Length(length));
        Ok(())
    }

    pub(super) fn sync_file(&mut self, node: u64) -> Result<(), Errno> {
        let honesty = self.honesty;
        let file = self.file(node)?;
        match (honesty, file.purpose) {
            (Honesty::LiesAboutJournal, Purpose::Journal) | (Honesty::LiesAboutContent, Purpose::Content) => {
            }
            _ => file.sync(),
        }
        Ok(())
    }

    /// Makes the changes of the folder durable, and what they cannot be without: the earlier ones of each
    /// folder that one of them touches.
    pub(super) fn sync_folder(&mut self, folder: u64) -> Result<(), Errno> {
        self.folder(folder)?;
        if self.honesty == Honesty::LiesAboutFolders {
            return Ok(());
        }
        let mut needed = HashSet::from([folder]);
        let mut durable = Vec::new();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if change.touches(&needed) {
                needed.extend(change.folders());
                durable.push(change);
            } else {
                left.push(change);
            }
        }
        self.changes = left.into_iter().rev().collect();
        durable.into_iter().rev().for_each(|change| self.make_durable(&change));
        Ok(())
    }

    fn make_durable(&mut self, change: &Change) {
        for edit in &change.0 {
            edit.apply(&mut self.folder_mut(edit.folder).durable);
        }
    }

    /// The disk after a power cut that lost everything it may lose.
    pub(super) fn cut_to_the_bone(mut self) -> Self {
        self.changes.clear();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.writes.clear();
            }
        }
        self.cut(0)
    }

    /// The disk after a power cut; which of the possible ones, `seed` decides.
    pub(super) fn cut(mut self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let kept = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
        // Folders of which a change is lost: they lose all later ones.
        let mut behind = HashSet::new();
        for change in std::mem::take(&mut self.changes) {
            if change.touches(&behind) || !rng.random_bool(kept) {
                behind.extend(change.folders());
            } else {
                self.make_durable(&change);
            }
        }
        let mut after = Self { next: self.next, ..Self::new(self.honesty) };
        after.nodes.clear();
        after.take_over(&mut self, ROOT, &mut rng);
        after
    }

    /// Moves what a cut leaves of `node`, and of all below it, to this disk.
    fn take_over(&mut self, before: &mut Self, node: u64, rng: &mut StdRng) {
        match before.nodes.remove(&node) {
            Some(Node::File(file)) => {
                let purpose = file.purpose;
                self.nodes.insert(node, Node::File(File::of(file.survivor(rng), purpose)));
            }
            Some(Node::Folder(Folder { durable, .. })) => {
                for below in durable.values() {
                    self.take_over(before, *below, rng);
                }
                self.nodes.insert(node, Node::Folder(Folder { entries: durable.clone(), durable }));
            }
            None => panic!("{node} has two names"),
        }
    }

    /// Whether a file whose path is `wanted` would survive any cut.
    pub(super) fn survives(&self, wanted: impl Fn(&Path) -> bool) -> bool {
        let mut folders = vec![(PathBuf::new(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            let Some(Node::Folder(Folder { durable, .. })) = self.nodes.get(&folder) else { continue };
            for (name, node) in durable {
                let path = path.join(name);
                match self.nodes.get(node) {
                    Some(Node::Folder(_)) => folders.push((path, *node)),
                    Some(Node::File(_)) if wanted(&path) => return true,
                    _ => {}
                }
            }
        }
        false
    }

    /// The bytes of the file at `path`, if there is one.
    pub(super) fn read(&self, path: &Path) -> Option<&[u8]> {
        let mut node = ROOT;
        for name in path {
            node = self.look_up(node, name).ok()?;
        }
        match self.nodes.get(&node)? {
            Node::File(file) => Some(&file.bytes),
            Node::Folder(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
