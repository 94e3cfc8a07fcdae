// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Candidates`].

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::tx::{read, write};
use super::{PostgresStore, row, seconds};
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
    waiting: f64,
    tries: i32,
}

impl Columns {
    fn read(self) -> Result<TakenCandidate, Error> {
        let candidate = PromotionCandidate {
            policy: self.policy,
            repository: row::parsed(TABLE, &self.repository)?,
            tag: row::parsed(TABLE, &self.tag)?,
            digest: row::digest(TABLE, &self.digest)?,
            hash: self.hash,
        };
        let waiting = row::duration(self.waiting);
        Ok(TakenCandidate { id: self.id, candidate, waiting, tries: row::number(TABLE, self.tries)? })
    }
}

#[async_trait]
impl Candidates for PostgresStore {
    async fn await_promotion(&self, candidate: &PromotionCandidate) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/await_promotion.sql"))
                .bind(candidate.policy.as_str())
                .bind(candidate.repository.as_str())
                .bind(candidate.tag.as_str())
                .bind(candidate.digest.to_bytes())
                .bind(candidate.hash.as_str())
        })
        .await
    }

    async fn hasten_promotions(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/hasten_promotions.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
        })
        .await
    }

    async fn take_candidate(
        &self,
        policies: &[String],
        lease: Duration,
    ) -> Result<Option<TakenCandidate>, Error> {
        let taken: Option<Columns> = write(async || {
            let take = sqlx::query_as(include_str!("sql/take_candidate.sql"));
            self.row(take.bind(policies).bind(seconds(lease))).await
        })
        .await?;
        taken.map(Columns::read).transpose()
    }

    async fn next_candidate(&self, policies: &[String]) -> Result<Option<Duration>, Error> {
        let select = sqlx::query_as(include_str!("sql/next_candidate.sql")).bind(policies);
        let next: Option<(f64,)> = read(self.row(select)).await?;
        Ok(next.map(|(wait,)| row::duration(wait)))
    }

    async fn postpone_candidate(&self, taken: &TakenCandidate, after: Duration) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/postpone_candidate.sql"))
                .bind(taken.id)
                .bind(taken.candidate.digest.to_bytes())
                .bind(seconds(after))
        })
        .await
    }

    async fn end_candidate(&self, taken: &TakenCandidate) -> Result<(), Error> {
        let end = "DELETE FROM promotion_candidates WHERE id = $1 AND digest = $2";
        self.run(|| sqlx::query(end).bind(taken.id).bind(taken.candidate.digest.to_bytes())).await
    }

    async fn keep_requested(&self, requested: &RequestedPromotion<'_>, most: Duration) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/keep_requested.sql"))
                .bind(requested.policy)
                .bind(requested.repository.as_str())
                .bind(requested.tag.map(Tag::as_str).unwrap_or_default())
                .bind(requested.digest.to_bytes())
                .bind(requested.hash)
                .bind(requested.id)
                .bind(seconds(most))
        })
        .await
    }

    async fn end_requested(&self, id: &str) -> Result<(), Error> {
        let end = "DELETE FROM promotion_candidates WHERE request <> '' AND request = $1";
        self.run(|| sqlx::query(end).bind(id)).await
    }

    async fn forget_candidates(&self, policies: &[String]) -> Result<(), Error> {
        self.run(|| sqlx::query(include_str!("sql/forget_candidates.sql")).bind(policies)).await
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
            .bind(i64::from(limit));
        let found: Vec<(String, Vec<u8>)> = read(self.rows(select)).await?;
        let tag = |(name, digest): (String, Vec<u8>)| {
            Ok((row::parsed("tags", &name)?, row::digest("manifests", &digest)?))
        };
        found.into_iter().map(tag).collect()
    }
}
