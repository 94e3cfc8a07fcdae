// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! When commits reach the disk.
//!
//! SQLite appends commits to its write-ahead log and leaves the flushing to us: a flush is only owed before
//! something is promised to somebody, and one flush serves all commits before it. Nobody holds the writer
//! while waiting for the disk.
//!
//! Guarantees: after `flush` everything committed before it survives a power cut. Commits reach the disk in
//! their order, so what survives is a state that was.
//! Caveat: after a failed flush nobody knows what is on the disk, and the next flush may wrongly succeed; so
//! none is tried again, and the process must be started anew.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::meta::Error;

/// The write-ahead log of the database.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Flushes that were asked for; each is numbered when its commit is done.
    asked: AtomicU64,
    /// Up to which number the disk has them; `None` after a failure.
    flushed: Arc<Mutex<Option<u64>>>,
}

impl Journal {
    /// The log of the database in the file `database`.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), asked: AtomicU64::new(0), flushed: Arc::new(Mutex::new(Some(0))) }
    }

    /// Waits until everything committed so far is on the disk.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        let ours = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut flushed = Arc::clone(&self.flushed).lock_owned().await;
        match *flushed {
            Some(number) if number >= ours => return Ok(()),
            Some(_) => {}
            None => return Err(broken(io::Error::other("an earlier flush failed; start the process anew"))),
        }
        let all = self.asked.load(Ordering::SeqCst);
        let path = self.path.clone();
        // A flush that has begun is seen to its end, also when nobody waits for it any more.
        let flush = tokio::task::spawn_blocking(move || {
            let outcome = File::open(path).and_then(|log| log.sync_data());
            *flushed = outcome.is_ok().then_some(all);
            outcome
        });
        flush.await.map_err(io::Error::other).flatten().map_err(broken)
    }
}

fn broken(error: io::Error) -> Error {
    Error::Unavailable(sqlx::Error::Io(error))
}
