// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A store in memory: for fast tests and for models. Nothing survives the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use uuid::Uuid;

use super::{
    Content, Error, MultipartId, Object, OpenMultipart, Part, Read, Request, Store, Sweep, Write, content_of,
};

/// Objects and multipart uploads in memory.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    part_size: u64,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Vec<Bytes>>,
    uploads: HashMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    parts: BTreeMap<u16, Sent>,
}

#[derive(Debug)]
struct Sent {
    part: Part,
    offset: u64,
    segments: Vec<Bytes>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), part_size: super::PART_SIZE }
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With another part size, so that small content takes the way of large content.
    #[must_use]
    pub fn with_part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// How many multipart uploads are open.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Poisoned or not: each change is a single step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn upload(&mut self, request: Request, key: &str, id: &MultipartId) -> Result<&mut Upload, Error> {
        let upload = self.uploads.get_mut(&id.0).filter(|upload| upload.key == key);
        upload.ok_or_else(|| request.unknown_upload(key))
    }
}

impl Upload {
    fn content(&self, parts: &[Part]) -> Result<Vec<Bytes>, String> {
        if parts.is_empty() {
            return Err("no parts".to_owned());
        }
        let mut content = Vec::new();
        let mut length = 0;
        for part in parts {
            let sent = self.parts.get(&part.number);
            let sent = sent.filter(|sent| sent.part == *part && sent.offset == length);
            let sent = sent.ok_or_else(|| format!("part {} is not the last", part.number))?;
            content.extend_from_slice(&sent.segments);
            length += part.size;
        }
        Ok(content)
    }
}

/// The bytes of `range`, without a copy.
fn cut(segments: &[Bytes], range: &Range<u64>) -> Vec<Bytes> {
    let mut offset = 0;
    let mut found = Vec::new();
    for segment in segments {
        let end = offset + segment.len() as u64;
        let from = range.start.clamp(offset, end) - offset;
        let to = range.end.clamp(offset, end) - offset;
        if from < to {
            let index = |at| usize::try_from(at).expect("lies within a segment");
            found.push(segment.slice(index(from)..index(to)));
        }
        offset = end;
    }
    found
}

#[async_trait]
impl Read for Memory {
    async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        Ok(self.state().objects.get(key).map(|segments| super::total(segments)))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error> {
        let Some(segments) = self.state().objects.get(key).cloned() else { return Ok(None) };
        let size = super::total(&segments);
        let range = content_of(key, size, range)?;
        let stream = stream::iter(cut(&segments, &range).into_iter().map(Ok)).boxed();
        Ok(Some(Content { length: range.end - range.start, size, stream }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error> {
        let state = self.state();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let objects = state.objects.range::<str, _>((start, Bound::Unbounded));
        let found = objects.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(found.map(|(key, segments)| Object { key: key.clone(), size: super::total(segments) }).collect())
    }
}

#[async_trait]
impl Write for Memory {
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error> {
        self.state().objects.insert(key.to_owned(), segments);
        Ok(())
    }

    async fn create_multipart(&self, key: &str) -> Result<MultipartId, Error> {
        let id = Uuid::new_v4().to_string();
        let upload = Upload { key: key.to_owned(), parts: BTreeMap::new() };
        self.state().uploads.insert(id.clone(), upload);
        Ok(MultipartId(id))
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        let mut state = self.state();
        let upload = state.upload(Request::UploadPart, key, id)?;
        let etag = Uuid::new_v4().simple().to_string();
        let part = Part { number, size: super::total(&segments), etag };
        upload.parts.insert(number, Sent { part: part.clone(), offset, segments });
        Ok(part)
    }

    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), Error> {
        let mut state = self.state();
        let upload = state.upload(Request::Complete, key, id)?;
        let content = upload.content(parts).map_err(|why| Request::Complete.refused(key, why))?;
        state.uploads.remove(&id.0);
        state.objects.insert(key.to_owned(), content);
        Ok(())
    }

    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Error> {
        let mut state = self.state();
        if state.upload(Request::Abort, key, id).is_ok() {
            state.uploads.remove(&id.0);
        }
        Ok(())
    }

    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, Error> {
        let state = self.state();
        let ours = state.uploads.iter().filter(|(_, upload)| upload.key.starts_with("v1/"));
        let open = |(id, upload): (&String, &Upload)| OpenMultipart {
            key: upload.key.clone(),
            id: MultipartId(id.clone()),
        };
        Ok(ours.map(open).collect())
    }

    fn part_size(&self) -> u64 {
        self.part_size
    }

    fn prefers_large_chunks(&self) -> bool {
        false
    }
}

#[async_trait]
impl Sweep for Memory {
    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let mut state = self.state();
        for key in keys {
            state.objects.remove(key);
        }
        Ok(())
    }
}

impl Store for Memory {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn start() -> futures::future::Ready<(Arc<dyn Store>, ())> {
        futures::future::ready((Arc::new(Memory::new()), ()))
    }

    crate::blobs_conformance!(memory, start());
}
