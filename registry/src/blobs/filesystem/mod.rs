// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The bucket as a folder of files.
//!
//! The path of an object is its key. An object appears under its key when all of its bytes are on the disk,
//! and a write is acknowledged when its name is on the disk too. Files that are no objects yet lie in `tmp/`.
//! Several processes may use one folder at the same time; if one of them dies while it makes a folder, what
//! others put there is safe from a crash of the machine once the store is opened again.
//!
//! Assumes: a local file system whose rename is atomic and whose fsync is honest.

mod folders;
mod multipart;
mod names;
mod reading;
mod walk;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;

use self::folders::Folders;
use self::multipart::Uploads;
use self::reading::Reading;
use super::{
    Content, Error, MultipartId, Object, OpenMultipart, Part, Read, Request, Store, Sweep, Write, content_of,
};
use crate::ops::clock;

/// After this time a file that was on its way to an object has no writer any more.
const ABANDONED: Duration = Duration::from_hours(24);
/// The beginning of the names of such files.
const UNFINISHED: &str = "put-";

/// Objects as files below a folder.
#[derive(Clone, Debug)]
pub struct Filesystem {
    inner: Arc<Inner>,
    part_size: u64,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    temporary: PathBuf,
    folders: Folders,
    uploads: Uploads,
}

impl Filesystem {
    /// Opens the store in `root`, which is made if it is missing.
    pub async fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let opening = tokio::task::spawn_blocking(move || Inner::open(&root));
        let inner = opening.await.map_err(io::Error::other)??;
        Ok(Self { inner: Arc::new(inner), part_size: super::PART_SIZE })
    }

    /// With another part size, so that small content takes the way of large content.
    #[must_use]
    pub fn with_part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// One trip to the pool of threads that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        request: Request,
        key: &str,
        work: impl FnOnce(&Inner, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        let owned = key.to_owned();
        let done = tokio::task::spawn_blocking(move || work(&inner, &owned)).await;
        done.unwrap_or_else(|error| Err(request.unavailable(key, error)))
    }
}

/// What an error of the operating system means for the caller.
fn classify(request: Request, key: &str, error: io::Error) -> Error {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => request.full(key, error),
        Kind::PermissionDenied
        | Kind::ReadOnlyFilesystem
        | Kind::InvalidFilename
        | Kind::InvalidInput
        | Kind::IsADirectory
        | Kind::NotADirectory => request.refused(key, error),
        _ => request.unavailable(key, error),
    }
}

/// Makes what was written below `root` durable.
fn sync(root: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(root)?)?;
    // Others know no such call for one file system.
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}

impl Inner {
    fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = fs::canonicalize(root)?;
        let temporary = root.join(names::TEMPORARY);
        fs::create_dir_all(&temporary)?;
        remove_abandoned(&temporary)?;
        // An earlier process may have made folders and have died before it synced them.
        sync(&root)?;
        let uploads = Uploads::new(temporary.clone());
        Ok(Self { root, temporary, folders: Folders::default(), uploads })
    }

    fn path(&self, request: Request, key: &str) -> Result<PathBuf, Error> {
        names::path(&self.root, key).map_err(|error| request.refused(key, error))
    }

    fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        let path = self.path(Request::Head, key)?;
        match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(classify(Request::Head, key, error)),
        }
    }

    fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Reading>, Error> {
        let path = self.path(Request::Get, key)?;
        let failed = |error| classify(Request::Get, key, error);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let size = metadata.len();
        let range = content_of(key, size, range)?;
        Reading::begin(file, size, range).map(Some).map_err(failed)
    }

    fn put(&self, key: &str, segments: &[Bytes]) -> Result<(), Error> {
        let target = self.path(Request::Put, key)?;
        let stored = if super::total(segments) == 0 {
            self.put_empty(&target)
        } else {
            self.put_content(&target, segments)
        };
        stored.map_err(|error| classify(Request::Put, key, error))
    }

    /// An object without content is whole as soon as it exists: it needs no rename, and one sync less.
    fn put_empty(&self, target: &Path) -> io::Result<()> {
        self.folders.publish(target, || {
            OpenOptions::new().write(true).create(true).truncate(true).open(target)?.sync_all()
        })
    }

    fn put_content(&self, target: &Path, segments: &[Bytes]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.temporary)?;
        for segment in segments {
            file.write_all(segment)?;
        }
        file.as_file().sync_data()?;
        let mut unfinished = Some(file.into_temp_path());
        self.folders.publish(target, || match unfinished.take() {
            Some(path) => path.persist(target).map_err(|failed| {
                unfinished = Some(failed.path);
                failed.error
            }),
            None => Ok(()),
        })
    }

    fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let mut folders = Vec::new();
        for key in keys {
            let path = self.path(Request::Delete, key)?;
            match fs::remove_file(&path) {
                Err(error) if !is_missing(&error) => return Err(classify(Request::Delete, key, error)),
                // Also when it is gone: an earlier attempt may have ended before the sync.
                _ => folders.extend(path.parent().map(Path::to_owned)),
            }
        }
        folders.sort_unstable();
        folders.dedup();
        let tidied = self.folders.tidy(&self.root, &folders);
        tidied.map_err(|error| classify(Request::Delete, keys.first().map_or("", String::as_str), error))?;
        Ok(())
    }
}

/// Removes what writers that died have left, as long as no other process can still be writing it.
fn remove_abandoned(folder: &Path) -> io::Result<()> {
    let now = Duration::from_secs(clock::seconds());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        if !unfinished && !multipart::is_half(&entry.path()) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.saturating_sub(changed) > ABANDONED {
            match fs::remove_file(entry.path()) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A path that leads through a file is as missing as one that leads nowhere.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[async_trait]
impl Read for Filesystem {
    async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        self.blocking(Request::Head, key, Inner::head).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error> {
        let reading = self.blocking(Request::Get, key, |inner, key| inner.get(key, range)).await?;
        Ok(reading.map(|reading| reading.into_content(key)))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error> {
        let after = after.unwrap_or_default().to_owned();
        self.blocking(Request::List, prefix, move |inner, prefix| {
            walk::list(&inner.root, prefix, &after, limit)
                .map_err(|error| classify(Request::List, prefix, error))
        })
        .await
    }
}

#[async_trait]
impl Write for Filesystem {
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error> {
        self.blocking(Request::Put, key, move |inner, key| inner.put(key, &segments)).await
    }

    async fn create_multipart(&self, key: &str) -> Result<MultipartId, Error> {
        const REQUEST: Request = Request::CreateMultipart;
        self.blocking(REQUEST, key, |inner, key| {
            inner.path(REQUEST, key)?;
            inner.uploads.create(key).map_err(|failed| failed.into_error(REQUEST, key))
        })
        .await
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        const REQUEST: Request = Request::UploadPart;
        let id = id.clone();
        self.blocking(REQUEST, key, move |inner, key| {
            let written = inner.uploads.write(key, &id, number, offset, &segments);
            written.map_err(|failed| failed.into_error(REQUEST, key))
        })
        .await
    }

    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), Error> {
        const REQUEST: Request = Request::Complete;
        let (id, parts) = (id.clone(), parts.to_vec());
        self.blocking(REQUEST, key, move |inner, key| {
            let target = inner.path(REQUEST, key)?;
            let completed = inner.uploads.complete(&inner.folders, key, &id, &parts, &target);
            completed.map_err(|failed| failed.into_error(REQUEST, key))
        })
        .await
    }

    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Error> {
        const REQUEST: Request = Request::Abort;
        let id = id.clone();
        self.blocking(REQUEST, key, move |inner, key| {
            inner.uploads.abort(key, &id).map_err(|failed| failed.into_error(REQUEST, key))
        })
        .await
    }

    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, Error> {
        const REQUEST: Request = Request::ListMultiparts;
        self.blocking(REQUEST, "v1/", |inner, key| {
            inner.uploads.open_ones().map_err(|error| classify(REQUEST, key, error))
        })
        .await
    }

    fn part_size(&self) -> u64 {
        self.part_size
    }

    fn prefers_large_chunks(&self) -> bool {
        false
    }
}

#[async_trait]
impl Sweep for Filesystem {
    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let first = keys.first().map_or("", String::as_str);
        let keys = keys.to_vec();
        self.blocking(Request::Delete, first, move |inner, _| inner.delete(&keys)).await
    }
}

impl Store for Filesystem {}

#[cfg(test)]
mod tests;
