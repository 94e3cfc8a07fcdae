// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The ledger of promotions, as it is read.

use stowage_oci::Name;

use super::super::{Domain, Error};
use crate::meta::{LedgerEntry, LedgerFilter, LedgerPlace};

/// A page of the ledger.
#[derive(Clone, Debug)]
pub struct LedgerPage {
    /// Newest first. Fewer than were asked for where some may not be seen.
    pub entries: Vec<LedgerEntry>,
    /// What to ask the next page after, unless this is the last.
    pub next: Option<LedgerPlace>,
}

impl Domain {
    /// Those of the up to `limit` ended promotions after `after` whose repositories are both `visible`.
    pub async fn ledger(
        &self,
        filter: &LedgerFilter,
        after: LedgerPlace,
        limit: u32,
        visible: impl Fn(&Name) -> bool,
    ) -> Result<LedgerPage, Error> {
        // A promotion whose record was not compared yet is not known yet.
        self.trust.trusted().await?;
        let read = self.meta.list_promotions(filter, after, limit).await?;
        let is_full = read.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let next = read.last().filter(|_| is_full).map(|(place, _)| *place);
        let is_seen = |entry: &LedgerEntry| {
            visible(&entry.record.source.repository) && visible(&entry.record.target.repository)
        };
        let entries = read.into_iter().map(|(_, entry)| entry).filter(is_seen).collect();
        Ok(LedgerPage { entries, next })
    }
}
