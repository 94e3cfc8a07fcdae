// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Comparing one part of the bucket, section by section: each a merge join of its listing with its rows, some
//! batches of it at the same time.

use std::collections::{BTreeMap, HashSet};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use stowage_oci::{Algorithm, Digest, Name, Tag};
use tokio::task::JoinSet;

use super::super::compare::{Asked, Listed};
use super::super::join::{Batch, Group, Listing};
use super::super::{Broken, Work};
use super::{PAGE, finished};
use crate::domain::Error;
use crate::key::{Generation, Key};
use crate::meta::{
    self, Difference, DigestSpan, LedgerClaim, LinkFound, Location, ManifestClaim, MetaStore, Mode,
    ReferrersFound, TagEntry, TagSpan, UploadFound,
};

/// Names of one transaction.
const BATCH: usize = 500;
/// Rows read for it. When there are more, the rest is for the next one.
const ROWS: u32 = 1000;
/// As many rows as were asked for.
const FULL: usize = ROWS as usize;
/// Batches of a section under way at the same time.
const BATCHES: usize = 4;
/// Repositories of a part under way at the same time.
const REPOSITORIES: usize = 4;

/// What lies below one prefix.
#[derive(Clone, Copy)]
enum Section<'a> {
    /// Data, of a part of all digests.
    Blobs(&'a str),
    /// Records of a repository.
    Links(&'a Name),
    Manifests(&'a Name),
    Ledger(&'a Name),
    Referrers(&'a Name),
    Tags(&'a Name),
}

/// Rows of a section.
enum Claims {
    Blobs(Vec<(Digest, Location)>),
    Links(Vec<(Digest, Generation)>),
    Manifests(Vec<ManifestClaim>),
    Ledger(Vec<LedgerClaim>),
    Referrers(Vec<(Digest, Digest, Generation)>),
    Tags(Vec<(Tag, TagEntry)>),
}

impl Section<'_> {
    fn prefix(self) -> String {
        let record = |name: &Name, kind: char| format!("{}{name}/~{kind}/", Key::REPOSITORIES);
        match self {
            Self::Blobs(prefix) => prefix.to_owned(),
            Self::Links(name) => record(name, 'b'),
            Self::Manifests(name) => record(name, 'm'),
            Self::Ledger(name) => record(name, 'p'),
            Self::Referrers(name) => record(name, 's'),
            Self::Tags(name) => record(name, 't'),
        }
    }

    /// Up to [`ROWS`] rows after one place and up to another.
    async fn claims(
        self,
        meta: &dyn MetaStore,
        after: Option<&str>,
        through: Option<&str>,
    ) -> Result<Claims, meta::Error> {
        let all = || span(DigestSpan::all(), after, through);
        Ok(match self {
            Self::Blobs(prefix) => {
                Claims::Blobs(meta.blob_claims(&span(shard_span(prefix), after, through), ROWS).await?)
            }
            Self::Links(name) => Claims::Links(meta.link_claims(name, &all(), ROWS).await?),
            Self::Manifests(name) => Claims::Manifests(meta.manifest_claims(name, &all(), ROWS).await?),
            Self::Ledger(name) => Claims::Ledger(meta.ledger_claims(name, &all(), ROWS).await?),
            Self::Referrers(name) => Claims::Referrers(meta.referrer_claims(name, &all(), ROWS).await?),
            Self::Tags(name) => Claims::Tags(meta.tag_claims(name, &tag_span(after, through), ROWS).await?),
        })
    }

    /// The places of rows, in order.
    fn places(self, claims: &Claims) -> Vec<String> {
        match (self, claims) {
            (_, Claims::Blobs(all)) => all.iter().map(|(digest, _)| Key::blob_prefix(digest)).collect(),
            (Self::Links(name), Claims::Links(all)) => {
                all.iter().map(|(digest, _)| Key::link_prefix(name, digest)).collect()
            }
            (Self::Manifests(name), Claims::Manifests(all)) => {
                all.iter().map(|claim| Key::manifest_prefix(name, &claim.digest)).collect()
            }
            (Self::Ledger(name), Claims::Ledger(all)) => {
                all.iter().map(|claim| Key::ledger_prefix(name, &claim.digest)).collect()
            }
            (Self::Referrers(name), Claims::Referrers(all)) => {
                all.iter().map(|(subject, ..)| Key::referrer_prefix(name, subject)).collect()
            }
            (Self::Tags(name), Claims::Tags(all)) => {
                all.iter().map(|(tag, _)| Key::tag_prefix(name, tag)).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Claims {
    fn len(&self) -> usize {
        match self {
            Self::Blobs(all) => all.len(),
            Self::Links(all) => all.len(),
            Self::Manifests(all) => all.len(),
            Self::Ledger(all) => all.len(),
            Self::Referrers(all) => all.len(),
            Self::Tags(all) => all.len(),
        }
    }

    fn truncate(&mut self, length: usize) {
        match self {
            Self::Blobs(all) => all.truncate(length),
            Self::Links(all) => all.truncate(length),
            Self::Manifests(all) => all.truncate(length),
            Self::Ledger(all) => all.truncate(length),
            Self::Referrers(all) => all.truncate(length),
            Self::Tags(all) => all.truncate(length),
        }
    }
}

fn digest_of(group: &Group) -> Option<Digest> {
    group.objects.first().and_then(|object| match &object.key {
        Key::Blob { digest, .. }
        | Key::Link { digest, .. }
        | Key::Manifest { digest, .. }
        | Key::ManifestDeleted { digest, .. } => Some(*digest),
        Key::Referrer { subject, .. } => Some(*subject),
        _ => None,
    })
}

fn tag_of(group: &Group) -> Option<Tag> {
    group.objects.first().and_then(|object| match &object.key {
        Key::Tag { tag, .. } | Key::TagWithdrawn { tag, .. } => Some(tag.clone()),
        _ => None,
    })
}

fn by_name<N>(groups: Vec<Group>, name: impl Fn(&Group) -> Option<N>) -> Vec<Listed<N>> {
    let named =
        groups.into_iter().filter_map(|group| Some(Listed { name: name(&group)?, objects: group.objects }));
    named.collect()
}

/// The digest at a place: its last component, `<alg>-<hex>` or, for data, `<hex>`.
fn digest_at(place: &str) -> Option<Digest> {
    let mut parts = place.trim_end_matches('/').rsplit('/');
    let last = parts.next()?;
    match last.split_once('-') {
        Some((algorithm, hex)) => format!("{algorithm}:{hex}").parse().ok(),
        None => format!("{}:{last}", parts.nth(1)?).parse().ok(),
    }
}

fn tag_at(place: &str) -> Option<Tag> {
    place.trim_end_matches('/').rsplit('/').next()?.parse().ok()
}

/// The rows after one place and up to another.
fn span(whole: DigestSpan, after: Option<&str>, through: Option<&str>) -> DigestSpan {
    let span = match after.and_then(digest_at) {
        Some(digest) => whole.after(&digest),
        None => whole,
    };
    match through.and_then(digest_at) {
        Some(digest) => span.through(&digest),
        None => span,
    }
}

fn tag_span(after: Option<&str>, through: Option<&str>) -> TagSpan {
    let span = match after.and_then(tag_at) {
        Some(tag) => TagSpan::all().after(&tag),
        None => TagSpan::all(),
    };
    match through.and_then(tag_at) {
        Some(tag) => span.through(&tag),
        None => span,
    }
}

/// The digests of a part of the data.
fn shard_span(prefix: &str) -> DigestSpan {
    let parts = prefix.strip_prefix(Key::BLOBS).unwrap_or_default();
    let mut parts = parts.split('/').filter(|part| !part.is_empty());
    let algorithm = parts.next().and_then(|text| text.parse::<Algorithm>().ok());
    let begins = parts.next().and_then(|text| Some((text.len(), u8::from_str_radix(text, 16).ok()?)));
    match (algorithm, begins) {
        (Some(algorithm), Some((1, digit))) => DigestSpan::shards(algorithm, digit << 4, digit << 4 | 0xf),
        (Some(algorithm), Some((_, byte))) => DigestSpan::shards(algorithm, byte, byte),
        (Some(algorithm), None) => DigestSpan::of(algorithm),
        (None, _) => DigestSpan::all(),
    }
}

impl Work {
    /// Compares a part of the bucket with its rows.
    pub(in crate::domain::reconcile) async fn shard(&self, prefix: &str) -> Result<(), Broken> {
        if prefix.starts_with(Key::BLOBS) {
            self.section(&mut Listing::of(self, prefix), Section::Blobs(prefix)).await.map(drop)
        } else if prefix.starts_with(Key::UPLOADS) {
            self.uploads(prefix).await
        } else {
            self.repositories(prefix).await
        }
    }

    /// Compares a section; the names of links that wait for their manifests. What comes next is listed while
    /// batches are compared: none of them waits, with a transaction open, for the bucket.
    async fn section(&self, listing: &mut Listing, section: Section<'_>) -> Result<Vec<Digest>, Broken> {
        let mut running: Running<'_> = FuturesUnordered::new();
        let mut waiting = Vec::new();
        let (prefix, mut after, mut ended) = (section.prefix(), None::<String>, false);
        while !ended {
            let next = self.joined(listing, section, &prefix, after.as_deref());
            let (batch, claims) = beside(&mut running, &mut waiting, next).await?;
            ended = batch.through.is_none();
            after = batch.through;
            if running.len() == BATCHES
                && let Some(done) = running.next().await
            {
                waiting.extend(done?);
            }
            running.push(Box::pin(self.compare(section, batch.groups, claims)));
        }
        while let Some(done) = running.next().await {
            waiting.extend(done?);
        }
        Ok(waiting)
    }

    /// The next batch of a section, with the rows that lie between its groups.
    async fn joined(
        &self,
        listing: &mut Listing,
        section: Section<'_>,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Batch, Claims), Broken> {
        let mut batch = listing.batch(prefix, BATCH).await?;
        let mut claims = {
            let _turn = self.pace.database().await;
            section.claims(&*self.comparer.meta, after, batch.through.as_deref()).await?
        };
        if claims.len() >= FULL {
            let places = section.places(&claims);
            // Several rows can be of one name: the last one may not be whole.
            let whole = places.partition_point(|place| Some(place) != places.last());
            let through = match whole.checked_sub(1).and_then(|at| places.get(at)) {
                Some(through) => {
                    claims.truncate(whole);
                    Some(through)
                }
                // All are of one name.
                None => places.last(),
            };
            if let Some(through) = through {
                listing.shorten(&mut batch, through.clone());
            }
        }
        Ok((batch, claims))
    }

    /// Compares a batch; the names of links that wait for their manifests.
    async fn compare(
        &self,
        section: Section<'_>,
        groups: Vec<Group>,
        claims: Claims,
    ) -> Result<Vec<Digest>, Broken> {
        if groups.is_empty() && claims.len() == 0 {
            return Ok(Vec::new());
        }
        match (section, claims) {
            (_, Claims::Blobs(claims)) => {
                let thorough = self.scope.mode.verifies();
                let found = self.find_blobs(by_name(groups, digest_of), &claims, thorough).await?;
                for at in self.settle(Difference::Blobs(&found)).await?.again {
                    self.again(self.blob(found[at].digest)).await?;
                }
                self.rehash_blobs(&claims, &found).await?;
            }
            (Section::Links(name), Claims::Links(claims)) => {
                let found = self.find_links(name, by_name(groups, digest_of), &claims, false).await?;
                // What refers to a link does not matter to a verification.
                let waits = |found: &LinkFound| !found.gone.is_empty() && !self.scope.mode.verifies();
                let (unshown, shown): (Vec<_>, Vec<_>) = found.into_iter().partition(waits);
                for at in self.settle(Difference::Links(name, &shown)).await?.again {
                    self.again(self.link(name, shown[at].digest, false)).await?;
                }
                return Ok(unshown.iter().map(|found| found.digest).collect());
            }
            (Section::Manifests(name), Claims::Manifests(claims)) => {
                let found = self.find_manifests(name, by_name(groups, digest_of), &claims).await?;
                for at in self.settle(Difference::Manifests(name, &found)).await?.again {
                    self.again(self.manifest(name, found[at].digest)).await?;
                }
                self.rehash_manifests(name, &claims, &found).await?;
            }
            (Section::Ledger(name), Claims::Ledger(claims)) => {
                let found = self.find_ledger(name, groups, &claims).await?;
                self.settle(Difference::Ledger(name, &found)).await?;
            }
            (Section::Referrers(name), Claims::Referrers(claims)) => {
                let mut found = referrers(groups, &claims);
                if self.scope.mode.verifies() {
                    self.confirm_missing(name, &mut found).await?;
                }
                self.settle(Difference::Referrers(name, &found)).await?;
            }
            (Section::Tags(name), Claims::Tags(claims)) => {
                let found = self.find_tags(name, by_name(groups, tag_of), &claims).await?;
                for at in self.settle(Difference::Tags(name, &found)).await?.again {
                    self.again(self.tag(name, &found[at].tag)).await?;
                }
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// A name that others change is compared by itself. A dry run has seen it once, which is enough.
    async fn again(&self, unit: impl Future<Output = Result<(), Broken>> + Send) -> Result<(), Broken> {
        if self.scope.mode == Mode::DryRun { Ok(()) } else { unit.await }
    }

    async fn uploads(&self, prefix: &str) -> Result<(), Broken> {
        let mut listing = Listing::of(self, prefix);
        loop {
            let mut found = Vec::with_capacity(BATCH);
            while found.len() < BATCH
                && let Some((_, object)) = listing.take().await?
            {
                found.extend(match object.key {
                    Key::Upload { generation } => Some(UploadFound { generation, lease: None }),
                    Key::UploadTail { generation, lease } => {
                        Some(UploadFound { generation, lease: Some(lease) })
                    }
                    _ => None,
                });
            }
            if found.is_empty() {
                return Ok(());
            }
            self.settle(Difference::Uploads(&found)).await?;
        }
    }

    /// All repositories below a prefix, some at the same time: those the listing shows, then those of rows alone.
    ///
    /// A page shows whole repositories and the beginning of one, whose own listing goes on behind it, while this
    /// one leaps to the next: no request more than one listing of all takes, but one for each leap.
    async fn repositories(&self, prefix: &str) -> Result<(), Broken> {
        let mut running: JoinSet<Result<(), Broken>> = JoinSet::new();
        let mut seen: HashSet<Name> = HashSet::new();
        let mut listing = Listing::of(self, prefix);
        while let Some((name, own)) = listing.repository().await? {
            if !seen.insert(name.clone()) {
                let fault = format!("the object store lists {name} twice: not in byte order");
                return Err(Error::Internal(fault.into()).into());
            }
            self.begin(&mut running, name, own).await?;
        }
        let below = prefix.strip_prefix(Key::REPOSITORIES).unwrap_or_default();
        let own = below.trim_end_matches('/');
        let mut after: Option<String> = None;
        loop {
            let page = self.comparer.meta.repositories_below(own, after.as_deref(), ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.to_string());
            for name in page {
                let is_ours = own.is_empty() || name.components().next() == Some(own);
                if is_ours && !seen.contains(&name) {
                    self.begin(&mut running, name, Listing::empty(self)).await?;
                }
            }
        }
        while let Some(ended) = running.join_next().await {
            finished(ended)?;
        }
        Ok(())
    }

    /// Begins to compare a repository, when there are not too many under way. They end with the set.
    async fn begin(
        &self,
        running: &mut JoinSet<Result<(), Broken>>,
        name: Name,
        mut listing: Listing,
    ) -> Result<(), Broken> {
        if running.len() == REPOSITORIES
            && let Some(ended) = running.join_next().await
        {
            finished(ended)?;
        }
        let work = self.clone();
        let compare: BoxFuture<'static, _> =
            Box::pin(async move { work.repository(&mut listing, &name).await });
        running.spawn(compare);
        Ok(())
    }

    async fn repository(&self, listing: &mut Listing, name: &Name) -> Result<(), Broken> {
        let waiting = self.section(listing, Section::Links(name)).await?;
        self.section(listing, Section::Manifests(name)).await?;
        // What refers to them is known now.
        for digest in waiting {
            self.again(self.link(name, digest, true)).await?;
        }
        self.section(listing, Section::Ledger(name)).await?;
        self.section(listing, Section::Referrers(name)).await?;
        self.section(listing, Section::Tags(name)).await?;
        match listing.peek().await? {
            None => Ok(()),
            Some((key, _)) => {
                let fault = format!("the object store lists {key} late: not in byte order");
                Err(Error::Internal(fault.into()).into())
            }
        }
    }
}

/// Batches under way, each with the names of links that wait for their manifests.
type Running<'a> = FuturesUnordered<Asked<'a, Vec<Digest>>>;

/// What `next` comes to. Batches under way go on meanwhile.
async fn beside<T>(
    running: &mut Running<'_>,
    waiting: &mut Vec<Digest>,
    next: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    let mut next = std::pin::pin!(next);
    loop {
        tokio::select! {
            biased;
            Some(done) = running.next() => waiting.extend(done?),
            done = &mut next => return done,
        }
    }
}

/// Listed entries and claimed ones, by subject.
fn referrers(groups: Vec<Group>, claims: &[(Digest, Digest, Generation)]) -> Vec<ReferrersFound> {
    let mut all: BTreeMap<Digest, ReferrersFound> = BTreeMap::new();
    let nothing = |subject| ReferrersFound { subject, listed: Vec::new(), missing: Vec::new() };
    for object in groups.into_iter().flat_map(|group| group.objects) {
        if let Key::Referrer { subject, digest, generation, .. } = object.key {
            all.entry(subject).or_insert_with(|| nothing(subject)).listed.push((digest, generation));
        }
    }
    for (subject, digest, generation) in claims {
        let found = all.entry(*subject).or_insert_with(|| nothing(*subject));
        if !found.listed.contains(&(*digest, *generation)) {
            found.missing.push((*digest, *generation));
        }
    }
    all.into_values().collect()
}

// A page of keys must hold more than one batch, or the shards of a small bucket are not seen to be small.
const _: () = assert!(PAGE > BATCH);

#[cfg(test)]
mod tests {
    use super::super::super::join::Seen;
    use super::*;

    #[test]
    fn places_read_back_as_the_names_they_are_of() {
        let repository: Name = "a/b".parse().unwrap();
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, b"x");
            assert_eq!(digest_at(&Key::blob_prefix(&digest)), Some(digest));
            assert_eq!(digest_at(&Key::link_prefix(&repository, &digest)), Some(digest));
            assert_eq!(digest_at(&Key::referrer_prefix(&repository, &digest)), Some(digest));
        }
        let tag: Tag = "V1.0-rc".parse().unwrap();
        assert_eq!(tag_at(&Key::tag_prefix(&repository, &tag)), Some(tag));
    }

    #[test]
    fn a_part_of_the_data_is_a_span_of_digests() {
        assert_eq!(shard_span("v1/blob/"), DigestSpan::all());
        assert_eq!(shard_span("v1/blob/sha512/"), DigestSpan::of(Algorithm::Sha512));
        assert_eq!(shard_span("v1/blob/sha256/0f/"), DigestSpan::shards(Algorithm::Sha256, 0x0f, 0x0f));
        assert_eq!(shard_span("v1/blob/sha256/f"), DigestSpan::shards(Algorithm::Sha256, 0xf0, 0xff));
    }

    #[test]
    fn a_claimed_entry_that_is_not_listed_is_missing() {
        let digest = |n: u8| Digest::of(Algorithm::Sha256, &[n]);
        let at = |n: u128| Generation::from_uuid(uuid::Uuid::from_u128(n));
        let key = Key::Referrer {
            repository: "a".parse().unwrap(),
            subject: digest(1),
            digest: digest(2),
            generation: at(1),
        };
        let group = Group { place: String::new(), objects: vec![Seen { key, size: 0 }] };
        let claims =
            [(digest(1), digest(2), at(1)), (digest(1), digest(3), at(2)), (digest(4), digest(5), at(3))];
        let found = referrers(vec![group], &claims);
        let of = |subject: Digest| found.iter().find(|found| found.subject == subject).unwrap();
        assert_eq!((found.len(), of(digest(1)).listed.len()), (2, 1));
        assert_eq!(of(digest(1)).missing, [(digest(3), at(2))]);
        assert_eq!(of(digest(4)).missing, [(digest(5), at(3))]);
    }
}
