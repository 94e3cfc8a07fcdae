// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Ledger`], and the rows of promotions that a push carries out.

use async_trait::async_trait;
use sqlx::types::Json;
use stowage_oci::{Digest, Name};

use super::error::Fault;
use super::tags::{self, order};
use super::tx::{Connection, read};
use super::{PostgresStore, row};
use crate::key::{Generation, Version};
use crate::meta::{
    Error, Ledger, LedgerEntry, LedgerFilter, LedgerPlace, LedgerRecord, PROMOTED, RepositoryId,
};

/// Inserts the row of a promotion that took effect, unless it is there.
pub(super) async fn insert_promotion(
    tx: &mut Connection,
    version: Version,
    generation: Generation,
    record: &LedgerRecord,
) -> Result<(), Fault> {
    let (epoch, seq) = order(version)?;
    sqlx::query(include_str!("sql/insert_promotion.sql"))
        .bind(record.digest.to_bytes())
        .bind(record.source.repository.as_str())
        .bind(record.source.tag.as_ref().map(stowage_oci::Tag::as_str))
        .bind(record.target.repository.as_str())
        .bind(record.target.tag.as_str())
        .bind(record.policy.name.as_str())
        .bind(PROMOTED)
        .bind(record.actor.as_str())
        .bind(row::stored(generation.milliseconds())?)
        .bind(Json(record))
        .bind(epoch)
        .bind(seq)
        .bind(generation.to_uuid())
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether the tag that is to be set names what it named when the promotion was decided, and nobody else is about to
/// set it. In a statement after pins are barred.
pub(super) async fn is_as_decided(
    tx: &mut Connection,
    repo_id: RepositoryId,
    record: &LedgerRecord,
) -> Result<bool, Fault> {
    let tag = &record.target.tag;
    // Locked: a deletion that has begun is waited for.
    sqlx::query("SELECT 1 FROM tags WHERE repo_id = $1 AND name = $2 FOR UPDATE")
        .bind(repo_id)
        .bind(tag.as_str())
        .execute(&mut *tx)
        .await?;
    let now: Option<Vec<u8>> = sqlx::query_scalar(include_str!("sql/tag_to_promote_to.sql"))
        .bind(repo_id)
        .bind(tag.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let now = now.map(|bytes| row::digest("manifests", &bytes)).transpose()?;
    let rivals = tags::rivals(tx, repo_id, tag).await?;
    Ok(rivals.is_empty() && now == record.target.previous_digest)
}

#[async_trait]
impl Ledger for PostgresStore {
    async fn promotions_into(
        &self,
        target: &Name,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, Error> {
        let select = sqlx::query_as(include_str!("sql/promotions_into.sql"))
            .bind(target.as_str())
            .bind(digest.to_bytes())
            .bind(i64::from(limit));
        let found: Vec<(i64, String, Json<LedgerRecord>)> = read(self.rows(select)).await?;
        let entry = |(at, outcome, Json(record))| {
            Ok(LedgerEntry { at: row::number("promotions", at)?, outcome, record })
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
            .bind(i64::from(limit));
        let found: Vec<(i64, i64, String, Json<LedgerRecord>)> = read(self.rows(select)).await?;
        let entry = |(at, id, outcome, Json(record))| {
            let milliseconds = row::number("promotions", at / 1000)?;
            Ok((LedgerPlace { at, id }, LedgerEntry { at: milliseconds, outcome, record }))
        };
        found.into_iter().map(entry).collect()
    }

    async fn note_promotion(&self, record: &LedgerRecord, outcome: &str) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/note_promotion.sql"))
                .bind(record.digest.to_bytes())
                .bind(record.source.repository.as_str())
                .bind(record.source.tag.as_ref().map(stowage_oci::Tag::as_str))
                .bind(record.target.repository.as_str())
                .bind(record.target.tag.as_str())
                .bind(record.policy.name.as_str())
                .bind(outcome)
                .bind(record.actor.as_str())
                .bind(Json(record))
        })
        .await
    }
}
