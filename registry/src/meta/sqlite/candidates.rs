// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Candidates`].

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::SqliteStore;
use super::values::{digest as digest_column, duration, micros, parsed, to_json};
use crate::meta::{Candidates, Error, PromotionCandidate, RequestedPromotion, TakenCandidate, Unpromoted};

const TABLE: &str = "promotion_candidates";

#[derive(sqlx::FromRow)]
struct Columns {
    id: i64,
    policy: String,
    repository: String,
    tag: String,
    digest: Vec<u8>,
    hash: String,
    waiting: i64,
    tries: u32,
}

impl Columns {
    fn read(self) -> Result<TakenCandidate, Error> {
        let candidate = PromotionCandidate {
            policy: self.policy,
            repository: parsed(TABLE, &self.repository)?,
            tag: parsed(TABLE, &self.tag)?,
            digest: digest_column(TABLE, &self.digest)?,
            hash: self.hash,
        };
        Ok(TakenCandidate { id: self.id, candidate, waiting: duration(self.waiting), tries: self.tries })
    }
}

#[async_trait]
impl Candidates for SqliteStore {
    async fn await_promotion(&self, candidate: &PromotionCandidate) -> Result<(), Error> {
        let insert = sqlx::query(include_str!("sql/await_promotion.sql"))
            .bind(candidate.policy.as_str())
            .bind(candidate.repository.as_str())
            .bind(candidate.tag.as_str())
            .bind(candidate.digest.to_bytes())
            .bind(candidate.hash.as_str());
        self.writer.note(insert).await.map(drop)
    }

    async fn hasten_promotions(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let hasten = sqlx::query(include_str!("sql/hasten_promotions.sql"))
            .bind(repository.as_str())
            .bind(digest.to_bytes());
        self.writer.note(hasten).await.map(drop)
    }

    async fn take_candidate(
        &self,
        policies: &[String],
        lease: Duration,
    ) -> Result<Option<TakenCandidate>, Error> {
        let mut tx = self.writer.begin().await?;
        let select = sqlx::query_as(include_str!("sql/due_candidate.sql")).bind(to_json(policies));
        let due: Option<Columns> = tx.one(select).await?;
        let Some(due) = due else {
            tx.rollback().await?;
            return Ok(None);
        };
        let lease_it = sqlx::query(include_str!("sql/lease_candidate.sql"));
        tx.run(lease_it.bind(due.id).bind(micros(lease))).await?;
        tx.commit_unflushed().await?;
        due.read().map(Some)
    }

    async fn next_candidate(&self, policies: &[String]) -> Result<Option<Duration>, Error> {
        let select = sqlx::query_as(include_str!("sql/next_candidate.sql")).bind(to_json(policies));
        let next: Option<(i64,)> = self.readers.one(select).await?;
        Ok(next.map(|(wait,)| duration(wait)))
    }

    async fn postpone_candidate(&self, taken: &TakenCandidate, after: Duration) -> Result<(), Error> {
        let postpone = sqlx::query(include_str!("sql/postpone_candidate.sql"))
            .bind(taken.id)
            .bind(taken.candidate.digest.to_bytes())
            .bind(micros(after));
        self.writer.note(postpone).await.map(drop)
    }

    async fn end_candidate(&self, taken: &TakenCandidate) -> Result<(), Error> {
        let end = "DELETE FROM promotion_candidates WHERE id = ?1 AND digest = ?2";
        let end = sqlx::query(end).bind(taken.id).bind(taken.candidate.digest.to_bytes());
        self.writer.note(end).await.map(drop)
    }

    async fn keep_requested(&self, requested: &RequestedPromotion<'_>, most: Duration) -> Result<(), Error> {
        let keep = sqlx::query(include_str!("sql/keep_requested.sql"))
            .bind(requested.policy)
            .bind(requested.repository.as_str())
            .bind(requested.tag.map(Tag::as_str).unwrap_or_default())
            .bind(requested.digest.to_bytes())
            .bind(requested.hash)
            .bind(requested.id)
            .bind(micros(most));
        self.writer.note(keep).await.map(drop)
    }

    async fn end_requested(&self, id: &str) -> Result<(), Error> {
        let end = "DELETE FROM promotion_candidates WHERE request <> '' AND request = ?1";
        self.writer.note(sqlx::query(end).bind(id)).await.map(drop)
    }

    async fn forget_candidates(&self, policies: &[String]) -> Result<(), Error> {
        let forget = sqlx::query(include_str!("sql/forget_candidates.sql"));
        self.writer.note(forget.bind(to_json(policies))).await.map(drop)
    }

    async fn unpromoted(
        &self,
        wanted: &Unpromoted<'_>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Tag, Digest)>, Error> {
        let select = sqlx::query_as(include_str!("sql/unpromoted.sql"))
            .bind(wanted.repository.as_str())
            .bind(wanted.policy)
            .bind(wanted.hash)
            .bind(wanted.target.as_str())
            .bind(after.unwrap_or_default())
            .bind(limit);
        let found: Vec<(String, Vec<u8>)> = self.readers.all(select).await?;
        let tag = |(name, digest): (String, Vec<u8>)| {
            Ok((parsed("tags", &name)?, digest_column("manifests", &digest)?))
        };
        found.into_iter().map(tag).collect()
    }
}
