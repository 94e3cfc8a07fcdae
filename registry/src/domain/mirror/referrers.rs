// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What refers to a manifest of a mirror: what the upstream lists, and what is stored here.
//!
//! The upstream is asked when somebody asks us, by its API or by the tag in its place, and for `tag_ttl` what it listed
//! is remembered: descriptors alone. What one names is fetched by its digest, as any manifest, when it is asked for.
//! Order: newest first. What is stored has the generation of its record; what the upstream alone has, one of what it
//! says of itself and of its digest, which is the same on each replica and each page.
//! Guarantees: what the upstream does not say is no error: what is known is listed, and told to be stale. Not more is
//! remembered than so many bytes.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::{Cache as Kept, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};
use stowage_oci::{Digest, Name};

use super::super::lists::{fitting, row_bytes};
use super::super::{Domain, Error, ReferrerList};
use super::manifests::{HELD_PATIENCE, is_fresh, may_be_stale};
use super::names::Mirrored;
use super::{Asking, Cache, MirrorResult};
use crate::key::Generation;
use crate::meta::ReferrerRow;
use crate::operation::Page;
use crate::upstream::Referrer;

/// Bytes of lists that a mirror remembers.
const BYTES: u64 = 16 << 20;
/// Lists that it is made for: so few that any of them may take all of the bytes.
const LISTS: usize = 32;
/// By which most of what refers to something says when it was made.
const CREATED: &str = "org.opencontainers.image.created";

/// What upstreams listed.
pub(super) type Memory = Kept<(Name, Digest), Known, Bytes>;

/// What an upstream listed of what refers to a manifest.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    rows: Arc<[ReferrerRow]>,
    /// How long they are: counted once, as it takes long.
    bytes: u64,
    /// When it did; `None`: never.
    listed: Option<Instant>,
    /// When it was asked since, and said what will be the same if it is asked again.
    refused: Option<Instant>,
}

/// The weight of a list.
#[derive(Clone)]
pub(super) struct Bytes;

impl Weighter<(Name, Digest), Known> for Bytes {
    fn weight(&self, _: &(Name, Digest), known: &Known) -> u64 {
        // Names and the cache's own bookkeeping come to about this much.
        const OVERHEAD: u64 = 512;
        OVERHEAD + known.bytes
    }
}

pub(super) fn memory() -> Memory {
    Kept::with(LISTS, BYTES, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

impl Known {
    /// What was listed at that time.
    fn of(rows: Arc<[ReferrerRow]>, listed: Instant) -> Self {
        let bytes = rows.iter().map(|row| row_bytes(row) as u64).sum();
        Self { rows, bytes, listed: Some(listed), refused: None }
    }

    fn age(&self) -> Option<Duration> {
        self.listed.map(|listed| listed.elapsed())
    }

    fn is_refused(&self, cache: &Cache) -> bool {
        self.refused.is_some_and(|refused| refused.elapsed() < cache.negative_ttl)
    }

    /// What of it is answered though it should be listed anew.
    fn stale(self, cache: &Cache) -> (Arc<[ReferrerRow]>, MirrorResult) {
        let rows = if may_be_stale(self.age(), cache) { self.rows } else { Arc::default() };
        (rows, MirrorResult::Stale)
    }
}

impl Domain {
    /// A page of the manifests whose subject is `subject`, here or at the upstream. Never an error for what is not
    /// there.
    pub async fn mirrored_referrers(
        &self,
        at: &Mirrored,
        subject: &Digest,
        artifact_types: &[String],
        page: &Page,
        asking: Asking,
    ) -> (Result<ReferrerList, Error>, MirrorResult) {
        let (theirs, result) = self.listed(at, subject, asking).await;
        let list = if theirs.is_empty() {
            self.referrers(&at.stored, subject, artifact_types, page).await
        } else {
            self.joined_referrers(&at.stored, subject, &theirs, artifact_types, page).await
        };
        match list {
            Ok(list) => (Ok(ReferrerList { stale: result == MirrorResult::Stale, ..list }), result),
            Err(error) => {
                let result = MirrorResult::of_error(&error);
                (Err(error), result)
            }
        }
    }

    /// What the upstream lists, as far as it may be asked.
    async fn listed(
        &self,
        at: &Mirrored,
        subject: &Digest,
        asking: Asking,
    ) -> (Arc<[ReferrerRow]>, MirrorResult) {
        let (mirror, cache) = (&at.mirror, &at.mirror.settings.cache);
        if !mirror.settings.with_referrers || !at.may_ask(asking) {
            return (Arc::default(), MirrorResult::Hit);
        }
        let known = mirror.referrers.get(&at.about(subject)).unwrap_or_default();
        let is_fresh_where = |is_scarce| is_fresh(known.age(), cache, is_scarce);
        if is_fresh_where(false) || is_fresh_where(true) && mirror.rate.is_scarce().await {
            return (known.rows, MirrorResult::Hit);
        }
        if known.is_refused(cache) || mirror.pulse.trouble().is_some() {
            return known.stale(cache);
        }
        let asked = self.asked_for_referrers(at, subject);
        // Who has nothing waits as for a manifest: that there is no signature is more than to know of none.
        let listed = match known.listed {
            None => asked.await,
            Some(_) => tokio::time::timeout(HELD_PATIENCE, asked).await.unwrap_or_default(),
        };
        listed.map_or_else(|| known.stale(cache), |listed| (listed.rows, MirrorResult::Miss))
    }

    /// Asks the upstream, together with all who want to know. `None`: it did not say.
    async fn asked_for_referrers(&self, at: &Mirrored, subject: &Digest) -> Option<Known> {
        let (domain, place, about) = (self.clone(), at.clone(), *subject);
        let work = || async move { domain.list_referrers(&place, &about).await };
        self.shelf.referrers.join(&self.tasks, at.about(subject), work).await.flatten()
    }

    async fn list_referrers(&self, at: &Mirrored, subject: &Digest) -> Option<Known> {
        let (mirror, key) = (&at.mirror, at.about(subject));
        let begun = Instant::now();
        let asked = mirror.upstream.referrers(&at.upstream, subject, None);
        match self.ask_upstream(mirror, asked).await {
            Ok(found) => {
                mirror.pulse.answered(begun);
                let known = Known::of(found.manifests.into_iter().map(row).collect(), begun);
                mirror.referrers.insert(key, known.clone());
                Some(known)
            }
            Err(error) => {
                tracing::debug!(repo.name = %at.stored, manifest.digest = %subject, %error, "referrers were not listed");
                mirror.note_pulse(begun, &error);
                if !error.is_passing() {
                    let before = mirror.referrers.get(&key).unwrap_or_default();
                    mirror.referrers.insert(key, Known { refused: Some(begun), ..before });
                }
                None
            }
        }
    }

    async fn joined_referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        theirs: &[ReferrerRow],
        artifact_types: &[String],
        page: &Page,
    ) -> Result<ReferrerList, Error> {
        let (mut stored, mut degraded, mut from) = (Vec::new(), false, Page::default());
        loop {
            let list = self.referrers(repository, subject, &[], &from).await?;
            stored.extend(list.manifests);
            degraded |= list.degraded;
            match list.next {
                None => break,
                next => from.after = next,
            }
        }
        let after = page.after.as_deref().and_then(|text| text.parse().ok());
        let (manifests, next) = joined(stored, theirs, artifact_types, after);
        Ok(ReferrerList { manifests, next, degraded, stale: false })
    }
}

impl Mirrored {
    fn about(&self, subject: &Digest) -> (Name, Digest) {
        (self.stored.clone(), *subject)
    }
}

/// A descriptor of the upstream's, at its place among ours.
fn row(referrer: Referrer) -> ReferrerRow {
    let Referrer { media_type, digest, size, artifact_type, annotations } = referrer;
    let created = annotations.get(CREATED).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let made = created.and_then(|created| u64::try_from(created.as_millisecond()).ok());
    ReferrerRow {
        generation: Generation::of_content(made.unwrap_or_default(), &digest),
        digest,
        media_type,
        size: u32::try_from(size).unwrap_or(u32::MAX),
        artifact_type,
        annotations: (!annotations.is_empty()).then_some(annotations),
    }
}

/// A page of what is stored here and what the upstream lists, each once, and what to ask the next one after.
fn joined(
    stored: Vec<ReferrerRow>,
    theirs: &[ReferrerRow],
    artifact_types: &[String],
    after: Option<Generation>,
) -> (Vec<ReferrerRow>, Option<String>) {
    let mut known = HashSet::new();
    let is_wanted = |row: &ReferrerRow| {
        let is_of_type = || row.artifact_type.as_ref().is_some_and(|own| artifact_types.contains(own));
        (artifact_types.is_empty() || is_of_type()) && after.is_none_or(|after| row.generation < after)
    };
    let once = stored.into_iter().chain(theirs.iter().cloned()).filter(|row| known.insert(row.digest));
    let mut rows: Vec<ReferrerRow> = once.filter(is_wanted).collect();
    rows.sort_by_key(|row| Reverse(row.generation));
    let all = rows.len();
    let manifests = fitting(rows);
    let next = manifests.last().filter(|_| manifests.len() < all).map(|last| last.generation.to_string());
    (manifests, next)
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn referrer(content: &str, created: Option<&str>) -> Referrer {
        let created = created.map(|created| (CREATED.to_owned(), created.to_owned()));
        Referrer {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: Digest::of(Algorithm::Sha256, content.as_bytes()),
            size: content.len() as u64,
            artifact_type: Some(format!("text/{content}")),
            annotations: created.into_iter().collect(),
        }
    }

    fn stored(content: &str, made: u64) -> ReferrerRow {
        ReferrerRow { generation: Generation::at(made), ..row(referrer(content, None)) }
    }

    fn shown(rows: &[ReferrerRow]) -> Vec<&str> {
        rows.iter().filter_map(|row| row.artifact_type.as_deref()?.strip_prefix("text/")).collect()
    }

    #[test]
    fn w399_what_is_stored_and_what_is_listed_come_newest_first_and_once_each() {
        let theirs = [
            row(referrer("both", Some("2026-01-01T00:00:00Z"))),
            row(referrer("theirs", Some("2001-09-09T01:46:40Z"))),
            row(referrer("undated", None)),
        ];
        let ours = vec![stored("ours", 1_700_000_000_000), stored("both", 1_600_000_000_000)];
        let (rows, next) = joined(ours.clone(), &theirs, &[], None);
        assert_eq!((shown(&rows), next), (vec!["ours", "both", "theirs", "undated"], None));
        assert_eq!(rows[2].generation.milliseconds(), 1_000_000_000_000);
        let (rows, _) =
            joined(ours.clone(), &theirs, &["text/theirs".to_owned(), "text/ours".to_owned()], None);
        assert_eq!(shown(&rows), ["ours", "theirs"]);
        let (rows, _) = joined(ours.clone(), &theirs, &[], Some(ours[1].generation));
        assert_eq!(shown(&rows), ["theirs", "undated"]);
    }

    #[test]
    fn w399_a_list_too_long_for_a_page_goes_on_where_it_ended() {
        let long = |number: u32| {
            let mut long = referrer(&number.to_string(), None);
            long.annotations.insert("long".to_owned(), "x".repeat(1 << 20));
            row(long)
        };
        let theirs: Vec<ReferrerRow> = (0..7).map(long).collect();
        let (mut after, mut pages, mut seen) = (None, 0, HashSet::new());
        loop {
            let (rows, next) = joined(Vec::new(), &theirs, &[], after);
            assert!(rows.iter().all(|row| seen.insert(row.digest)), "none twice");
            pages += 1;
            let Some(next) = next else { break };
            after = Some(next.parse().unwrap());
        }
        assert_eq!((pages, seen.len()), (3, 7));
    }

    #[test]
    fn what_is_remembered_has_the_weight_of_what_it_says() {
        let (memory, one) = (memory(), referrer("one", None));
        let key = ("hub/app".parse().unwrap(), one.digest);
        let known = Known::of([row(one.clone()), row(one)].into(), Instant::now());
        assert_eq!(known.bytes, 2 * row_bytes(&known.rows[0]) as u64);
        let puts = |bytes| {
            memory.insert(key.clone(), Known { bytes, ..known.clone() });
            memory.get(&key).is_some()
        };
        assert!(puts(known.bytes) && memory.weight() > known.bytes);
        assert!(puts(BYTES / 2), "half of what all may have");
        assert!(!puts(BYTES), "more than all may have");
        assert!(memory.weight() <= BYTES);
    }
}
