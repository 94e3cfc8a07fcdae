// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lists of a virtual repository: those of its members, joined page by page.
//!
//! A page of each member begins at the same place. What comes after the end of the shortest of them is left for the next.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use stowage_oci::{Digest, Name, Reference, Tag};

use super::super::lists::{TAGS, cut, fitting};
use super::super::mirror::Asking;
use super::super::reconcile::Unit;
use super::super::{Domain, Error, ReferrerList, TagList};
use super::{Combined, Joined, Listing, Search, Source};
use crate::key::Generation;
use crate::meta::ReferrerRow;
use crate::operation::Page;

/// Rows that are looked up at the same time.
const AT_ONCE: usize = 32;

impl Domain {
    /// A page of the tags, those that are pinned among them. Those of mirrors are the ones that are here.
    pub async fn virtual_tags(&self, at: &Combined, page: &Page) -> Joined<TagList> {
        let mut search = Search::new();
        let mut lists = Vec::new();
        let mut are_mirrors_asked = None;
        for source in &at.sources {
            if let Source::Copied(_) | Source::Mirror(_) = source {
                let asked = match are_mirrors_asked {
                    Some(known) => known,
                    None => *are_mirrors_asked.insert(self.asks_mirrors(at, &mut search).await),
                };
                if !asked {
                    continue;
                }
            }
            match self.tags(source.stored(), page).await {
                Ok(list) => lists.push(list),
                Err(error) => {
                    search.take(Err(error));
                }
            }
            if at.settings.listing == Listing::FirstMember && !lists.is_empty() {
                break;
            }
        }
        if !lists.is_empty() || !at.sources.is_empty() && !at.pins.is_empty() {
            lists.push(pinned_tags(at, page));
            search.take(Ok(merged_tags(lists, page.limit.unwrap_or(TAGS).min(TAGS))));
        }
        search.end(Error::NameUnknown)
    }

    /// A page of the manifests whose subject is `subject`, each once. Never an error for what is not there.
    pub async fn virtual_referrers(
        &self,
        at: &Combined,
        subject: &Digest,
        artifact_types: &[String],
        page: &Page,
        asking: Asking,
    ) -> Joined<ReferrerList> {
        let mut search = Search::new();
        let mut lists = Vec::new();
        for source in &at.sources {
            let list = match source {
                Source::Local(name) | Source::Copied(name) => {
                    self.referrers(name, subject, artifact_types, page).await
                }
                Source::Mirror(at_mirror) => {
                    let asking = at.asking(asking);
                    let (list, result) =
                        self.mirrored_referrers(at_mirror, subject, artifact_types, page, asking).await;
                    search.mirrors.push((Arc::clone(&at_mirror.mirror), result));
                    list
                }
            };
            match list {
                Ok(list) => lists.push(list),
                Err(error) => {
                    search.take(Err(error));
                }
            }
        }
        if !lists.is_empty() || at.sources.is_empty() {
            let mut list = merged_referrers(lists);
            if let Some(after) = page.after.as_deref().and_then(|text| text.parse().ok()) {
                list.manifests = self.not_shown(at, list.manifests, after).await;
            }
            search.take(Ok(list));
        }
        search.end(Error::NameUnknown)
    }

    /// Leaves out what an earlier page had, where another member's record of it is newer.
    async fn not_shown(&self, at: &Combined, rows: Vec<ReferrerRow>, after: Generation) -> Vec<ReferrerRow> {
        let looked_up = stream::iter(rows).map(|row| async move {
            for source in &at.sources {
                if self.record(source.stored(), &row.digest).await.is_some_and(|record| record >= after) {
                    return None;
                }
            }
            Some(row)
        });
        looked_up.buffered(AT_ONCE).filter_map(|row| async move { row }).collect().await
    }

    /// The record of a manifest, if the repository has it and the database knows.
    async fn record(&self, repository: &Name, digest: &Digest) -> Option<Generation> {
        let reference = Reference::Digest(*digest);
        let unit = [Unit::Manifest(repository.clone(), *digest)];
        let row = self.ask(&unit, |epoch| self.lookups.manifest(epoch, repository, &reference)).await;
        row.ok()??.map(|row| row.generation)
    }
}

/// A page of the tags that are pinned.
fn pinned_tags(at: &Combined, page: &Page) -> TagList {
    let is_after = |tag: &&Tag| page.after.as_deref().is_none_or(|after| tag.as_str() > after);
    let tags = at.pins.keys().filter(is_after).cloned().collect();
    let (tags, more) = cut(tags, page.limit.unwrap_or(TAGS).min(TAGS));
    TagList { tags, more }
}

/// The first `limit` of what the lists have together.
fn merged_tags(lists: Vec<TagList>, limit: u32) -> TagList {
    let more = lists.iter().any(|list| list.more);
    let tags: BTreeSet<_> = lists.into_iter().flat_map(|list| list.tags).collect();
    let (tags, is_cut) = cut(tags.into_iter().collect(), limit);
    TagList { tags, more: (more || is_cut) && limit > 0 }
}

/// What the lists have together, newest first, as far as each of them goes.
fn merged_referrers(lists: Vec<ReferrerList>) -> ReferrerList {
    let degraded = lists.iter().any(|list| list.degraded);
    let stale = lists.iter().any(|list| list.stale);
    let ends = lists.iter().filter(|list| list.next.is_some()).filter_map(|list| list.manifests.last());
    let end = ends.map(|last| last.generation).max();
    let mut rows: Vec<_> = lists.into_iter().flat_map(|list| list.manifests).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.generation));
    let all = rows.len();
    rows.retain(|row| end.is_none_or(|end| row.generation >= end));
    let mut known = HashSet::new();
    let within = rows.len();
    rows.retain(|row| known.insert(row.digest));
    let unique = rows.len();
    let manifests = fitting(rows);
    let more = end.is_some() || within < all || manifests.len() < unique;
    let next = manifests.last().filter(|_| more).map(|last| last.generation.to_string());
    ReferrerList { manifests, next, degraded, stale }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn tags(text: &str, more: bool) -> TagList {
        TagList { tags: text.split_whitespace().map(|tag| tag.parse().unwrap()).collect(), more }
    }

    #[test]
    fn w451_tags_are_merged_in_byte_order_once_each_and_page_by_page() {
        let merged = |lists, limit| {
            let list = merged_tags(lists, limit);
            (list.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), list.more)
        };
        assert_eq!(merged(vec![tags("1.0 b", false), tags("A b c", false)], 10), ("1.0 A b c".into(), false));
        assert_eq!(merged(vec![tags("a c", true), tags("b d", false)], 2), ("a b".into(), true));
        assert_eq!(merged(vec![tags("a c", false), tags("b", false)], 2), ("a b".into(), true));
        assert_eq!(merged(vec![tags("a c", true)], 2), ("a c".into(), true));
        assert_eq!(merged(vec![tags("", false)], 0), (String::new(), false));
    }

    fn row(made: u64, content: &[u8]) -> ReferrerRow {
        ReferrerRow {
            generation: Generation::at(made),
            digest: Digest::of(Algorithm::Sha256, content),
            media_type: String::new(),
            size: 1,
            artifact_type: None,
            annotations: None,
        }
    }

    fn referrers(rows: Vec<ReferrerRow>, more: bool) -> ReferrerList {
        let next = rows.last().filter(|_| more).map(|row| row.generation.to_string());
        ReferrerList { manifests: rows, next, degraded: false, stale: false }
    }

    #[test]
    fn w451_referrers_are_merged_newest_first_and_once_each() {
        let one = referrers(vec![row(9, b"a"), row(5, b"b")], false);
        let other = referrers(vec![row(7, b"c"), row(6, b"a")], false);
        let merged = merged_referrers(vec![one, other]);
        let made: Vec<u64> = merged.manifests.iter().map(|row| row.generation.milliseconds()).collect();
        assert_eq!((made, merged.next), (vec![9, 7, 5], None));
    }

    #[test]
    fn w451_what_is_older_than_the_end_of_a_members_page_is_left_for_the_next() {
        let one = referrers(vec![row(9, b"a"), row(5, b"b")], true);
        let other = referrers(vec![row(7, b"c"), row(3, b"d")], true);
        let merged = merged_referrers(vec![one, other]);
        let made: Vec<u64> = merged.manifests.iter().map(|row| row.generation.milliseconds()).collect();
        assert_eq!(made, [9, 7, 5]);
        assert_eq!(merged.next, merged.manifests.last().map(|row| row.generation.to_string()));
    }
}
