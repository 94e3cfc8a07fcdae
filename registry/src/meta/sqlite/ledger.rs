// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Ledger`], and the rows of promotions that a push carries out.

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::SqliteStore;
use super::tx::Tx;
use super::values::{from_json, integer, to_json, unreadable};
use crate::key::{Generation, Version};
use crate::meta::{Error, Ledger, LedgerEntry, LedgerFilter, LedgerPlace, LedgerRecord, PROMOTED};

impl Tx<'_> {
    /// Inserts the row of a promotion that took effect, unless it is there.
    pub(super) async fn insert_promotion(
        &mut self,
        version: Version,
        generation: Generation,
        record: &LedgerRecord,
    ) -> Result<(), Error> {
        let insert = sqlx::query(include_str!("sql/insert_promotion.sql"))
            .bind(record.digest.to_bytes())
            .bind(record.source.repository.as_str())
            .bind(record.source.tag.as_ref().map(Tag::as_str))
            .bind(record.target.repository.as_str())
            .bind(record.target.tag.as_str())
            .bind(record.policy.name.as_str())
            .bind(PROMOTED)
            .bind(record.actor.as_str())
            .bind(integer(generation.milliseconds() * 1000))
            .bind(to_json(record))
            .bind(version.epoch)
            .bind(integer(version.seq))
            .bind(generation.to_uuid());
        self.run(insert).await.map(drop)
    }

    /// Whether the tag that is to be set names what it named when the promotion was decided, and nobody else is about
    /// to set it.
    pub(super) async fn is_as_decided(
        &mut self,
        repository_id: i32,
        record: &LedgerRecord,
    ) -> Result<bool, Error> {
        let tag = &record.target.tag;
        let now = self.tag(repository_id, tag).await?.filter(|row| !row.is_trashed()).map(|row| row.digest);
        let rivals = self.rivals(repository_id, tag).await?;
        Ok(rivals.is_empty() && now == record.target.previous_digest)
    }
}

#[async_trait]
impl Ledger for SqliteStore {
    async fn promotions_into(
        &self,
        target: &Name,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, Error> {
        let select = sqlx::query_as(include_str!("sql/promotions_into.sql"))
            .bind(target.as_str())
            .bind(digest.to_bytes())
            .bind(limit);
        let found: Vec<(i64, String, String)> = self.readers.all(select).await?;
        let entry = |(at, outcome, record): (i64, String, String)| {
            let at = u64::try_from(at).map_err(|error| unreadable("promotions", error))?;
            Ok(LedgerEntry { at, outcome, record: from_json("promotions", &record)? })
        };
        found.into_iter().map(entry).collect()
    }

    async fn list_promotions(
        &self,
        filter: &LedgerFilter,
        after: LedgerPlace,
        limit: u32,
    ) -> Result<Vec<(LedgerPlace, LedgerEntry)>, Error> {
        let select = sqlx::query_as(include_str!("sql/list_promotions.sql"))
            .bind(filter.repository.as_ref().map(Name::as_str))
            .bind(filter.policy.as_deref())
            .bind(filter.digest.as_ref().map(Digest::to_bytes))
            .bind(after.at)
            .bind(after.id)
            .bind(limit);
        let found: Vec<(i64, i64, String, String)> = self.readers.all(select).await?;
        let entry = |(at, id, outcome, record): (i64, i64, String, String)| {
            let milliseconds = u64::try_from(at / 1000).map_err(|error| unreadable("promotions", error))?;
            let record = from_json("promotions", &record)?;
            Ok((LedgerPlace { at, id }, LedgerEntry { at: milliseconds, outcome, record }))
        };
        found.into_iter().map(entry).collect()
    }

    async fn note_promotion(&self, record: &LedgerRecord, outcome: &str) -> Result<(), Error> {
        let note = sqlx::query(include_str!("sql/note_promotion.sql"))
            .bind(record.digest.to_bytes())
            .bind(record.source.repository.as_str())
            .bind(record.source.tag.as_ref().map(Tag::as_str))
            .bind(record.target.repository.as_str())
            .bind(record.target.tag.as_str())
            .bind(record.policy.name.as_str())
            .bind(outcome)
            .bind(record.actor.as_str())
            .bind(to_json(record));
        self.writer.run(note).await.map(drop)
    }
}
