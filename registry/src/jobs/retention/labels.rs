// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the images of a repository say of themselves. What cannot be read is unknown, and keeps.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use stowage_oci::{Digest, Manifest, Name};

use super::{Pass, RetentionError};
use crate::config::explained;
use crate::key::Key;
use crate::labels::{self, LONGEST_CONFIG, Labels};
use crate::meta::ManifestRow;

/// Images read at the same time.
const AT_ONCE: usize = 16;

/// A repository, as a run reads it.
struct Reading<'a> {
    pass: &'a Pass<'a>,
    repository: &'a Name,
}

impl Pass<'_> {
    /// What these images say of themselves.
    pub(super) async fn labels(
        &self,
        repository: &Name,
        wanted: HashSet<Digest>,
    ) -> Result<HashMap<Digest, Labels>, RetentionError> {
        let reads: Vec<BoxFuture<'_, (Digest, Labels)>> = wanted
            .into_iter()
            .map(|digest| -> BoxFuture<'_, _> {
                Box::pin(async move { (digest, self.read(repository, digest).await) })
            })
            .collect();
        Ok(stream::iter(reads).buffer_unordered(AT_ONCE).collect().await)
    }

    async fn read(&self, repository: &Name, digest: Digest) -> Labels {
        let reading = Reading { pass: self, repository };
        labels::labels(&reading, digest).await.unwrap_or_else(|error| {
            tracing::warn!(
                repo.name = %repository,
                manifest.digest = %digest,
                error = explained(&error),
                "labels cannot be read, which keeps"
            );
            Labels::Unknown
        })
    }

    async fn object(&self, key: &Key, longest: u64) -> Result<Option<Bytes>, RetentionError> {
        let Some(content) = self.retainer.store.get(&key.to_string(), None).await? else { return Ok(None) };
        if content.length > longest {
            return Ok(None);
        }
        let parts: Vec<Bytes> = content.stream.try_collect().await?;
        Ok(Some(Bytes::from(parts.concat())))
    }
}

#[async_trait]
impl labels::Source for Reading<'_> {
    type Error = RetentionError;

    async fn manifest(&self, digest: Digest) -> Result<Option<(String, Bytes)>, RetentionError> {
        let (pass, wanted) = (self.pass, [(self.repository.clone(), digest)]);
        let found = pass.retainer.meta.manifests(pass.epoch, &wanted).await?.pop().flatten();
        let Some(ManifestRow { generation, media_type, body, .. }) = found else { return Ok(None) };
        let body = if body.is_some() {
            body
        } else {
            let key = Key::Manifest { repository: self.repository.clone(), digest, generation };
            pass.object(&key, u64::try_from(Manifest::MAX_SIZE).unwrap_or(u64::MAX)).await?
        };
        Ok(body.map(|body| (media_type, body)))
    }

    async fn config(&self, digest: Digest) -> Result<Option<Bytes>, RetentionError> {
        let (pass, wanted) = (self.pass, [(self.repository.clone(), digest)]);
        let found = pass.retainer.meta.blobs(pass.epoch, &wanted).await?.pop().flatten();
        let Some(found) = found else { return Ok(None) };
        pass.object(&found.location.data_key(digest), LONGEST_CONFIG).await
    }
}
