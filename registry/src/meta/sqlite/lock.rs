// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who serves from a data folder, and since when.
//!
//! The holder of the operating system's lock on `<data-dir>/lock` writes a random id into it, the *fence*. So
//! every start is a new incarnation, and a database file that was restored from a copy is noticed.
//!
//! A holder that ends in order hands the folder over: its last commit is a random *mark*, which it then writes below
//! the fence. The next holder takes the mark away from both. So where both have the same one, the database is as it
//! was left: an older copy of it has another mark or none, and so has one whose last holder was killed.
//! Guarantees: one holder at a time; the lock goes with its process, however that ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use uuid::Uuid;

use super::error::OpenError;

/// The lock, as long as it lives; or what its holder wrote.
#[derive(Debug, Default)]
pub(super) struct FolderLock {
    /// This start of the process that holds it.
    pub(super) fence: Uuid,
    /// What the last holder left when it ended in order.
    pub(super) mark: Option<Uuid>,
    /// `None`: another process holds it, or nobody.
    file: Option<File>,
}

/// Fence and mark, as the file has them.
fn read(text: &str) -> (Option<Uuid>, Option<Uuid>) {
    let mut lines = text.lines().map(|line| line.parse().ok());
    (lines.next().flatten(), lines.next().flatten())
}

impl FolderLock {
    /// Takes the lock of `folder`, which is made if need be.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            |source| OpenError::Folder { path, source }
        };
        fs::create_dir_all(folder).map_err(unusable(folder))?;
        let path = folder.join("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false) // another process may hold it
            .read(true)
            .write(true)
            .open(&path)
            .map_err(unusable(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Folder { path, source }),
        }
        let mut text = String::new();
        // What is no text was not written by us.
        let (_, mark) = file.read_to_string(&mut text).map_or((None, None), |_| read(&text));
        let fence = Uuid::new_v4();
        write(&file, &format!("{fence}\n")).map_err(unusable(&path))?;
        Ok(Self { fence, mark, file: Some(file) })
    }

    /// Leaves `mark` to the next holder. Until this one is dropped nobody sees it.
    pub(super) fn leave(&self, mark: Uuid) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        write(file, &format!("{}\n{mark}\n", self.fence))
    }

    /// The same; or, if another process holds it, the fence of that one.
    pub(super) fn take_or_find(folder: &Path) -> Result<Self, OpenError> {
        match Self::take(folder) {
            Err(OpenError::InUse { path }) => match Self::find(folder) {
                Some(found) => Ok(found),
                // It is just starting.
                None => Err(OpenError::InUse { path }),
            },
            taken => taken,
        }
    }

    /// The fence that the last holder wrote.
    pub(super) fn find(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("lock")).ok()?;
        let (fence, mark) = read(&text);
        Some(Self { fence: fence?, mark, file: None })
    }

    /// For a job beside whoever serves, or while nobody does: in the incarnation of the last holder, which it does
    /// not end. Nobody begins to serve until it is dropped, if nobody did.
    pub(super) fn join(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("lock");
        let unusable = |source| OpenError::Folder { path: path.clone(), source };
        let file = File::options().read(true).write(true).open(&path).map_err(unusable)?;
        let file = match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        };
        let text = fs::read_to_string(&path).map_err(unusable)?;
        // Without one nobody has ever served, or somebody is just starting: then the database is not trusted.
        let (fence, mark) = read(&text);
        Ok(Self { fence: fence.unwrap_or_default(), mark, file })
    }

    /// Whether we hold it.
    pub(super) const fn is_ours(&self) -> bool {
        self.file.is_some()
    }
}

/// Writes this and nothing else, durably.
fn write(mut file: &File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_data()
}
