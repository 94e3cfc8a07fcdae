// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Comparing one name: list, read the row, look for what the listing lacks, settle; again while the row moves.

use std::collections::{BTreeSet, HashMap};

use futures::future::BoxFuture;
use stowage_oci::{Digest, Name, Tag};

use super::compare::{Listed, at_once};
use super::join::Seen;
use super::{Broken, Comparer, Unit, Work};
use crate::blobs;
use crate::domain::Error;
use crate::key::Key;
use crate::meta::{Difference, DigestSpan, ManifestClaim, ManifestFound, Mode, TagEntry, TagSpan};

/// How often a name that others change is compared again before the caller is told to come back.
const ATTEMPTS: u32 = 20;
/// Objects asked for at once.
const PAGE: usize = 1000;
/// Rows asked for at once.
const ROWS: u32 = 1000;

impl Comparer {
    /// A small object as a whole.
    pub(in crate::domain) async fn read_whole(
        &self,
        key: &Key,
    ) -> Result<Option<bytes::Bytes>, blobs::Error> {
        blobs::whole(&*self.store, &key.to_string()).await
    }
}

impl Work {
    pub(super) async fn unit(&self, unit: &Unit) -> Result<(), Broken> {
        match unit {
            Unit::Blob(digest) => self.blob(*digest).await,
            Unit::Link(repository, digest) => self.link(repository, *digest, false).await,
            Unit::Manifest(repository, digest) => self.manifest(repository, *digest).await,
            Unit::Tag(repository, tag) => self.tag(repository, tag).await,
            Unit::Referrers(repository, subject) => self.referrers(repository, *subject).await,
            Unit::Tags(repository) => self.tags(repository).await,
        }
    }

    /// All keys below a prefix. What this layout does not know is left alone.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Seen>, Broken> {
        let (mut found, mut after): (Vec<Seen>, Option<String>) = (Vec::new(), None);
        loop {
            let page = {
                let _turn = self.pace.bucket().await;
                self.comparer.store.list(prefix, after.as_deref(), PAGE).await?
            };
            let seen =
                |object: &blobs::Object| Some(Seen { key: object.key.parse().ok()?, size: object.size });
            found.extend(page.iter().filter_map(seen));
            if page.len() < PAGE {
                return Ok(found);
            }
            after = page.into_iter().next_back().map(|object| object.key);
        }
    }

    pub(super) async fn blob(&self, digest: Digest) -> Result<(), Broken> {
        for _ in 0..ATTEMPTS {
            let objects = self.list(&Key::blob_prefix(&digest)).await?;
            let claims = self.comparer.meta.blob_claims(&DigestSpan::one(&digest), 1).await?;
            let found = self.find_blobs(vec![Listed { name: digest, objects }], &claims, true).await?;
            if self.settle(Difference::Blobs(&found)).await?.again.is_empty() {
                return Ok(());
            }
        }
        Err(Error::Overtaken.into())
    }

    /// `manifests_compared`: what refers to it was compared, or is being.
    pub(super) async fn link(
        &self,
        repository: &Name,
        digest: Digest,
        manifests_compared: bool,
    ) -> Result<(), Broken> {
        if !self.scope.mode.verifies() {
            self.blob(digest).await?;
        }
        let mut manifests_compared = manifests_compared;
        for _ in 0..ATTEMPTS {
            let objects = self.list(&Key::link_prefix(repository, &digest)).await?;
            let span = DigestSpan::one(&digest);
            let claims = self.comparer.meta.link_claims(repository, &span, 1).await?;
            let listed = vec![Listed { name: digest, objects }];
            let found = self.find_links(repository, listed, &claims, manifests_compared).await?;
            let settled = self.settle(Difference::Links(repository, &found)).await?;
            if settled.again.is_empty() && settled.after.is_empty() {
                return Ok(());
            }
            // Whether it is needed is known when those who refer to it are.
            let holders: BTreeSet<Digest> = settled.after.into_iter().flat_map(|(_, all)| all).collect();
            if !holders.is_empty() {
                for manifest in holders {
                    self.manifest_boxed(repository, manifest).await?;
                }
                manifests_compared = true;
            }
            if self.scope.mode == Mode::DryRun {
                return Ok(());
            }
        }
        Err(Error::Overtaken.into())
    }

    fn manifest_boxed<'a>(
        &'a self,
        repository: &'a Name,
        digest: Digest,
    ) -> BoxFuture<'a, Result<(), Broken>> {
        Box::pin(self.manifest(repository, digest))
    }

    pub(super) async fn manifest(&self, repository: &Name, digest: Digest) -> Result<(), Broken> {
        for _ in 0..ATTEMPTS {
            let objects = self.list(&Key::manifest_prefix(repository, &digest)).await?;
            let span = DigestSpan::one(&digest);
            let claims = self.comparer.meta.manifest_claims(repository, &span, ROWS).await?;
            let listed = vec![Listed { name: digest, objects }];
            let mut found = self.find_manifests(repository, listed, &claims).await?;
            for found in &mut found {
                self.prepare(repository, found, &claims).await?;
            }
            if self.settle(Difference::Manifests(repository, &found)).await?.again.is_empty() {
                return Ok(());
            }
        }
        Err(Error::Overtaken.into())
    }

    /// Before a manifest is adopted: its links are compared, and the entry below its subject is looked for.
    async fn prepare(
        &self,
        repository: &Name,
        found: &mut ManifestFound,
        claims: &[ManifestClaim],
    ) -> Result<(), Broken> {
        let Some(facts) = found.facts.as_ref().filter(|_| !self.scope.mode.verifies()) else { return Ok(()) };
        at_once(facts.blobs.iter().map(|blob| self.link_boxed(repository, *blob)).collect()).await?;
        let is_known =
            |one: &&crate::key::Generation| claims.iter().any(|claim| claim.generation == Some(**one));
        let unknown = found.records.iter().filter(|one| !is_known(one) && !found.markers.contains(one));
        // The one that would be adopted.
        if let (Some(subject), Some(generation)) = (facts.subject, unknown.max().copied()) {
            let digest = found.digest;
            let entry = Key::Referrer { repository: repository.clone(), subject, digest, generation };
            found.owes_referrer = !self.head(&entry).await?;
        }
        Ok(())
    }

    fn link_boxed<'a>(&'a self, repository: &'a Name, digest: Digest) -> BoxFuture<'a, Result<(), Broken>> {
        Box::pin(self.link(repository, digest, true))
    }

    pub(super) async fn tag(&self, repository: &Name, tag: &Tag) -> Result<(), Broken> {
        for _ in 0..ATTEMPTS {
            let objects = self.list(&Key::tag_prefix(repository, tag)).await?;
            let claims = self.comparer.meta.tag_claims(repository, &TagSpan::one(tag), 1).await?;
            let listed = vec![Listed { name: tag.clone(), objects }];
            let found = self.find_tags(repository, listed, &claims).await?;
            let named = found.iter().flat_map(|found| found.records.iter().filter_map(|entry| entry.target));
            let named: BTreeSet<Digest> =
                if self.scope.mode.verifies() { BTreeSet::new() } else { named.collect() };
            at_once(named.into_iter().map(|digest| self.manifest_boxed(repository, digest)).collect())
                .await?;
            if self.settle(Difference::Tags(repository, &found)).await?.again.is_empty() {
                return Ok(());
            }
        }
        Err(Error::Overtaken.into())
    }

    async fn referrers(&self, repository: &Name, subject: Digest) -> Result<(), Broken> {
        let objects = self.list(&Key::referrer_prefix(repository, &subject)).await?;
        let listed = objects.iter().filter_map(|object| match &object.key {
            Key::Referrer { digest, .. } => Some(*digest),
            _ => None,
        });
        let span = DigestSpan::one(&subject);
        let claims = self.comparer.meta.referrer_claims(repository, &span, u32::MAX >> 1).await?;
        let all: BTreeSet<Digest> = listed.chain(claims.iter().map(|(_, digest, _)| *digest)).collect();
        at_once(all.into_iter().map(|digest| self.manifest_boxed(repository, digest)).collect())
            .await
            .map(drop)
    }

    /// Every tag whose highest record is not what its row says.
    async fn tags(&self, repository: &Name) -> Result<(), Broken> {
        let mut highest: HashMap<Tag, Option<TagEntry>> = HashMap::new();
        for object in self.list(&Key::tags_prefix(repository)).await? {
            match object.key {
                Key::Tag { tag, version, generation, target, .. } => {
                    let entry = Some(TagEntry { version, generation, target });
                    let slot = highest.entry(tag).or_default();
                    *slot = (*slot).max(entry);
                }
                // A marker is looked at closely.
                Key::TagWithdrawn { tag, .. } => {
                    highest.entry(tag).or_default();
                }
                _ => {}
            }
        }
        let (mut rows, mut span) = (HashMap::new(), TagSpan::all());
        loop {
            let page = self.comparer.meta.tag_claims(repository, &span, ROWS).await?;
            let Some((last, _)) = page.last() else { break };
            span = TagSpan::all().after(last);
            rows.extend(page);
        }
        let names: BTreeSet<&Tag> = highest.keys().chain(rows.keys()).collect();
        let differs = |tag: &&&Tag| highest.get(**tag).copied().flatten() != rows.get(**tag).copied();
        let differing: Vec<&Tag> = names.iter().filter(differs).copied().collect();
        let compare = |tag| -> BoxFuture<'_, Result<(), Broken>> { Box::pin(self.tag(repository, tag)) };
        at_once(differing.into_iter().map(compare).collect()).await.map(drop)
    }
}
