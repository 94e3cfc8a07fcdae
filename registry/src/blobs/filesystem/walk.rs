// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Listing a tree of files as a bucket lists its keys.
//!
//! A folder sorts as if its name ended in `/`, so reading the tree in order gives the byte order of the keys,
//! and folders that lie wholly outside of what is asked for are not opened.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use super::names;
use crate::blobs::Object;

/// Up to `limit` objects below `root` whose keys begin with `prefix`, after `after`.
pub(super) fn list(root: &Path, prefix: &str, after: &str, limit: usize) -> io::Result<Vec<Object>> {
    let mut walk = Walk { prefix, after, limit, found: Vec::new() };
    let (folder, key) = match prefix.rsplit_once('/') {
        Some((folder, _)) => match names::path(root, folder) {
            Ok(path) => (path, format!("{folder}/")),
            // Nothing can lie there.
            Err(names::NotAPath) => return Ok(Vec::new()),
        },
        None => (root.to_owned(), String::new()),
    };
    walk.folder(&folder, &key)?;
    Ok(walk.found)
}

struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<Object>,
}

impl Walk<'_> {
    /// Adds what lies in the folder, whose objects' keys begin with `key`.
    fn folder(&mut self, path: &Path, key: &str) -> io::Result<()> {
        for (key, entry) in self.entries(path, key)? {
            if self.found.len() == self.limit {
                break;
            }
            if key.ends_with('/') {
                self.folder(&entry.path(), &key)?;
            } else if let Some(metadata) = existing(entry.metadata())? {
                self.found.push(Object { key, size: metadata.len() });
            }
        }
        Ok(())
    }

    /// The files and folders in which something that is asked for can lie, in order.
    fn entries(&self, path: &Path, key: &str) -> io::Result<Vec<(String, DirEntry)>> {
        let Some(folder) = existing(fs::read_dir(path))? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for entry in folder {
            let entry = entry?;
            let Some(kind) = existing(entry.file_type())? else { continue };
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(names::decode) else { continue };
            let of_objects = !(key.is_empty() && name == names::TEMPORARY);
            let key = if kind.is_dir() { format!("{key}{name}/") } else { format!("{key}{name}") };
            if of_objects && self.wants(&key) {
                entries.push((key, entry));
            }
        }
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// Whether the object, or anything in the folder, can be asked for.
    fn wants(&self, key: &str) -> bool {
        let folder = key.ends_with('/');
        let begins = key.starts_with(self.prefix) || (folder && self.prefix.starts_with(key));
        let follows = key > self.after || (folder && self.after.starts_with(key));
        begins && follows
    }
}

/// What is gone by now was never there.
fn existing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
