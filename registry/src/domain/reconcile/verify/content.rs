// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reading content and hashing it. What has another digest is read once more before it is believed to be wrong:
//! the network may have been.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use stowage_oci::{Digest, Name};

use super::super::compare::Asked;
use super::super::{Broken, Work};
use crate::key::{Generation, Key};
use crate::meta::{BlobFound, Damage, Difference, Location, ManifestClaim, ManifestFound};

/// Objects of one batch that are read at the same time.
const AT_ONCE: usize = 4;

/// What reading an object came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Right,
    Wrong,
    Gone,
}

impl Work {
    fn is_deep(&self) -> bool {
        self.findings.as_ref().is_some_and(|findings| findings.deep)
    }

    /// Reads the data of the rows that were found to be right.
    pub(in crate::domain::reconcile) async fn rehash_blobs(
        &self,
        claims: &[(Digest, Location)],
        found: &[BlobFound],
    ) -> Result<(), Broken> {
        if !self.is_deep() {
            return Ok(());
        }
        let listed: HashMap<Digest, &BlobFound> = found.iter().map(|found| (found.digest, found)).collect();
        let stands = |(digest, location): &&(Digest, Location)| {
            listed.get(digest).is_some_and(|found| found.listed.contains(location))
        };
        let look = |(digest, location): &(Digest, Location)| -> Asked<'_, ()> {
            let (digest, location) = (*digest, *location);
            Box::pin(self.rehash_blob(digest, location))
        };
        let looks: Vec<Asked<'_, ()>> = claims.iter().filter(stands).map(look).collect();
        stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn rehash_blob(&self, digest: Digest, location: Location) -> Result<(), Broken> {
        match self.read(digest, &location.data_key(digest)).await? {
            Read::Right => Ok(()),
            // It was removed, or lost, just now: which of both the row tells.
            Read::Gone => self.blob(digest).await,
            Read::Wrong => {
                let damaged = vec![(location, Damage::Content)];
                let found = BlobFound { digest, listed: Vec::new(), gone: vec![location], damaged };
                // A row that has changed does not claim it any more.
                self.settle(Difference::Blobs(&[found])).await.map(drop)
            }
        }
    }

    /// Reads the records of live manifests that were found to be there.
    pub(in crate::domain::reconcile) async fn rehash_manifests(
        &self,
        repository: &Name,
        claims: &[ManifestClaim],
        found: &[ManifestFound],
    ) -> Result<(), Broken> {
        if !self.is_deep() {
            return Ok(());
        }
        let listed: HashMap<Digest, &ManifestFound> =
            found.iter().map(|found| (found.digest, found)).collect();
        let live = claims.iter().filter(|claim| claim.live);
        let live = live.filter_map(|claim| Some((claim.digest, claim.generation?)));
        let stands = |(digest, generation): &(Digest, Generation)| {
            listed.get(digest).is_some_and(|found| found.records.contains(generation))
        };
        let look = |(digest, generation)| -> Asked<'_, ()> {
            Box::pin(self.rehash_manifest(repository, digest, generation))
        };
        let looks: Vec<Asked<'_, ()>> = live.filter(stands).map(look).collect();
        stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn rehash_manifest(
        &self,
        repository: &Name,
        digest: Digest,
        generation: Generation,
    ) -> Result<(), Broken> {
        let key = Key::Manifest { repository: repository.clone(), digest, generation };
        match self.read(digest, &key).await? {
            Read::Right => Ok(()),
            Read::Gone => self.manifest(repository, digest).await,
            Read::Wrong => {
                let found = ManifestFound {
                    digest,
                    records: Vec::new(),
                    markers: Vec::new(),
                    gone: vec![generation],
                    damaged: vec![(generation, Damage::Content)],
                    facts: None,
                    owes_referrer: false,
                };
                self.settle(Difference::Manifests(repository, &[found])).await.map(drop)
            }
        }
    }

    async fn read(&self, digest: Digest, key: &Key) -> Result<Read, Broken> {
        match self.read_once(digest, key).await? {
            Read::Wrong => self.read_once(digest, key).await,
            read => Ok(read),
        }
    }

    async fn read_once(&self, digest: Digest, key: &Key) -> Result<Read, Broken> {
        let _turn = self.pace.bucket().await;
        let Some(content) = self.comparer.store.get(&key.to_string(), None).await? else {
            return Ok(Read::Gone);
        };
        let mut stream = content.stream;
        let mut hash = stowage_oci::Hasher::new(digest.algorithm());
        while let Some(chunk) = stream.try_next().await? {
            self.pace.read(chunk.len()).await;
            if let Some(findings) = &self.findings {
                findings.shared.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            hash.update(&chunk);
        }
        Ok(if hash.finish() == digest { Read::Right } else { Read::Wrong })
    }
}
