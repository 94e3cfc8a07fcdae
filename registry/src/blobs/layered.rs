// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One place where every request to a store passes: what faults and observation share.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Content, Error, MultipartId, Object, OpenMultipart, Part, Presign, Read, Request, Store, Sweep, Write,
};

/// What a layer does around a request.
pub trait Around: Send + Sync {
    /// Carries the request out, or not, and answers. A delete of several objects has the first as its key.
    fn around<T: Send>(
        &self,
        request: Request,
        key: &str,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> impl Future<Output = Result<T, Error>> + Send;

    /// Sees the content that a `get` has found.
    fn content(&self, _key: &str, content: Content) -> Content {
        content
    }
}

/// A store with a layer around it.
#[derive(Clone)]
pub struct Layered<A> {
    inner: Arc<dyn Store>,
    layer: A,
}

impl<A: Around> Layered<A> {
    pub(super) fn new(inner: Arc<dyn Store>, layer: A) -> Self {
        Self { inner, layer }
    }
}

#[async_trait]
impl<A: Around> Read for Layered<A> {
    async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        self.layer.around(Request::Head, key, self.inner.head(key)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error> {
        let found = self.layer.around(Request::Get, key, self.inner.get(key, range)).await?;
        Ok(found.map(|content| self.layer.content(key, content)))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error> {
        self.layer.around(Request::List, prefix, self.inner.list(prefix, after, limit)).await
    }
}

#[async_trait]
impl<A: Around> Write for Layered<A> {
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error> {
        self.layer.around(Request::Put, key, self.inner.put(key, segments)).await
    }

    async fn create_multipart(&self, key: &str) -> Result<MultipartId, Error> {
        self.layer.around(Request::CreateMultipart, key, self.inner.create_multipart(key)).await
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        let call = self.inner.upload_part(key, id, number, offset, segments);
        self.layer.around(Request::UploadPart, key, call).await
    }

    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), Error> {
        self.layer.around(Request::Complete, key, self.inner.complete(key, id, parts)).await
    }

    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Error> {
        self.layer.around(Request::Abort, key, self.inner.abort(key, id)).await
    }

    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, Error> {
        self.layer.around(Request::ListMultiparts, "v1/", self.inner.open_multiparts()).await
    }

    fn part_size(&self) -> u64 {
        self.inner.part_size()
    }

    fn prefers_large_chunks(&self) -> bool {
        self.inner.prefers_large_chunks()
    }

    async fn explore(&self, key: &str) -> Result<(), Error> {
        self.layer.around(Request::Put, key, self.inner.explore(key)).await
    }
}

#[async_trait]
impl<A: Around> Sweep for Layered<A> {
    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let first = keys.first().map_or("", String::as_str);
        self.layer.around(Request::Delete, first, self.inner.delete(keys)).await
    }
}

impl<A: Around> Store for Layered<A> {
    fn presigner(&self) -> Option<&dyn Presign> {
        self.inner.presigner()
    }
}
