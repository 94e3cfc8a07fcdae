// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who serves from a data folder, and since when.
//!
//! The holder of the operating system's lock on `<data-dir>/lock` writes a random id into it, the *fence*. So
//! every start is a new incarnation, and a database file that was restored from a copy is noticed.
//! Guarantees: one holder at a time; the lock goes with its process, however that ends.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;

use uuid::Uuid;

use super::error::OpenError;

/// The lock, as long as it lives.
#[derive(Debug)]
pub(super) struct FolderLock {
    /// This start of the process.
    pub(super) fence: Uuid,
    _file: File,
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
            .write(true)
            .open(&path)
            .map_err(unusable(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Folder { path, source }),
        }
        let fence = Uuid::new_v4();
        file.set_len(0).and_then(|()| writeln!(file, "{fence}")).map_err(unusable(&path))?;
        Ok(Self { fence, _file: file })
    }
}
