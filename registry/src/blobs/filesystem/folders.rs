// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Folders that survive a crash of the machine together with what is put into them.
//!
//! A new folder is *fresh* until the folder above it is synced. Whoever has put a file below a fresh folder,
//! also one that somebody else has just made, syncs what is needed before it reports success. What an earlier
//! process left unsynced is synced when the store is opened.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// How often a folder is made again when a deletion takes it away at the same moment.
const ATTEMPTS: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Folders {
    fresh: Mutex<Fresh>,
}

/// Fresh folders. Each has a number of its own, as one may be removed and made again.
#[derive(Debug, Default)]
struct Fresh {
    folders: HashMap<PathBuf, u64>,
    made: u64,
}

impl Folders {
    /// Runs `publish`, which makes `target` appear in its folder, and makes it durable.
    pub(super) fn publish(
        &self,
        target: &Path,
        mut publish: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let folder = above(target);
        for _ in 1..ATTEMPTS {
            match publish() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(folder)?,
                done => {
                    done?;
                    return self.settle(folder);
                }
            }
        }
        publish()?;
        self.settle(folder)
    }

    /// Makes the folder and those above it that are missing.
    fn make(&self, folder: &Path) -> io::Result<()> {
        let mut fresh = self.fresh();
        let mut missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
        while let Some(folder) = missing.pop() {
            match fs::create_dir(folder) {
                Ok(()) => fresh.add(folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Syncs the folder, and the way to it as far as it is fresh. Looked up after the file is in its place, so
    /// that a folder which was removed and made again in the meantime is seen.
    fn settle(&self, folder: &Path) -> io::Result<()> {
        sync(folder)?;
        let fresh: Vec<_> = {
            let fresh = self.fresh();
            let above = folder.ancestors();
            above.filter_map(|folder| Some((folder, *fresh.folders.get(folder)?))).collect()
        };
        for (folder, number) in fresh {
            sync(above(folder))?;
            self.fresh().settled(folder, number);
        }
        Ok(())
    }

    /// Removes the folders and those above them as far as they are empty, below `root`, and syncs where that ends:
    /// many folders that end in one are one sync. `folders` are in order.
    pub(super) fn tidy(&self, root: &Path, folders: &[PathBuf]) -> io::Result<()> {
        // The lowest first, so that what they leave empty goes with them.
        let mut kept: Vec<&Path> = folders.iter().rev().map(|folder| self.prune(root, folder)).collect();
        kept.sort_unstable();
        kept.dedup();
        sync_all(&kept)
    }

    fn prune<'a>(&self, root: &Path, folder: &'a Path) -> &'a Path {
        let mut fresh = self.fresh();
        let mut kept = folder;
        while kept != root {
            match fs::remove_dir(kept) {
                Ok(()) => {
                    fresh.folders.remove(kept);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Not empty, or not ours to remove: it stays.
                Err(_) => break,
            }
            kept = above(kept);
        }
        kept
    }

    #[cfg(test)]
    pub(super) fn fresh_count(&self) -> usize {
        self.fresh().folders.len()
    }

    /// Poisoned or not: each change is a single step.
    fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fresh {
    fn add(&mut self, folder: &Path) {
        self.made += 1;
        self.folders.insert(folder.to_owned(), self.made);
    }

    fn settled(&mut self, folder: &Path, number: u64) {
        if self.folders.get(folder) == Some(&number) {
            self.folders.remove(folder);
        }
    }
}

fn above(path: &Path) -> &Path {
    path.parent().expect("every path of the store lies below its root")
}

/// Syncs folders, some at a time: each waits for the disk, which writes for all of them at once.
fn sync_all(folders: &[&Path]) -> io::Result<()> {
    const AT_ONCE: usize = 8;
    let share = folders.len().div_ceil(AT_ONCE).max(1);
    thread::scope(|scope| {
        let mut shares = folders.chunks(share);
        let own = shares.next().unwrap_or_default();
        let sync_share = |share: &[&Path]| share.iter().try_for_each(|folder| sync(folder));
        let others: Vec<_> = shares.map(|share| scope.spawn(move || sync_share(share))).collect();
        let done = sync_share(own);
        others.into_iter().fold(done, |done, other| {
            let other = other.join().unwrap_or_else(|_panic| Err(io::Error::other("a sync panicked")));
            done.and(other)
        })
    })
}

/// A folder that is gone has nothing to lose: a deletion was faster.
fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
