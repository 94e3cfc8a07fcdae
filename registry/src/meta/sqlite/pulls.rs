// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Pulls`].

use async_trait::async_trait;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::SqliteStore;
use super::values::{
    digest as digest_column, digest_hex, digests_json, duration, generation_hex, parsed, to_json, unreadable,
};
use crate::key::{Day, Generation};
use crate::meta::{Epoch, Error, ManifestId, Pulls, Stamp, Today};

const MICROS_OF_A_DAY: i64 = 86_400_000_000;

fn day(table: &'static str, days: i64) -> Result<Day, Error> {
    let day = i32::try_from(days).ok().and_then(Day::since_1970);
    day.ok_or_else(|| unreadable(table, format_args!("day {days}")))
}

/// The day, and what of it is left, at a time in microseconds since 1970.
fn today(now: i64) -> Result<Today, Error> {
    let left = MICROS_OF_A_DAY - now.rem_euclid(MICROS_OF_A_DAY);
    let left = duration(left);
    Ok(Today { day: day("clock", now.div_euclid(MICROS_OF_A_DAY))?, left })
}

#[async_trait]
impl Pulls for SqliteStore {
    async fn record_pulls(&self, pulled: &[(Name, Digest)]) -> Result<Today, Error> {
        let now = sqlx::query_as("SELECT now FROM clock");
        if pulled.is_empty() {
            let now: Option<(i64,)> = self.readers.one(now).await?;
            return today(now.map_or(0, |(now,)| now));
        }
        let pairs: Vec<(&str, String)> =
            pulled.iter().map(|(repository, digest)| (repository.as_str(), digest_hex(digest))).collect();
        let mut tx = self.writer.begin().await?;
        let (now,): (i64,) = tx.single(now).await?;
        tx.run(sqlx::query(include_str!("sql/record_pulls.sql")).bind(to_json(&pairs))).await?;
        tx.commit_unflushed().await?;
        today(now)
    }

    async fn restore_pulls(&self, epoch: Epoch, stamps: &[Stamp]) -> Result<(), Error> {
        let told: Vec<(&str, String, i32)> = stamps
            .iter()
            .map(|stamp| (stamp.repository.as_str(), digest_hex(&stamp.digest), stamp.day.days_since_1970()))
            .collect();
        let mut tx = self.writer.begin_in(epoch).await?;
        tx.run(sqlx::query(include_str!("sql/restore_pulls.sql")).bind(to_json(&told))).await?;
        tx.commit().await
    }

    async fn pull_stamps(
        &self,
        after: Option<ManifestId>,
        limit: u32,
    ) -> Result<Vec<(ManifestId, Stamp)>, Error> {
        let select = sqlx::query_as(include_str!("sql/pull_stamps.sql"))
            .bind(after.map_or(0, |ManifestId(id)| id))
            .bind(limit);
        let rows: Vec<(i64, String, Vec<u8>, i64)> = self.readers.all(select).await?;
        let stamp = |(id, repository, digest, days): (i64, String, Vec<u8>, i64)| {
            let repository = parsed("repositories", &repository)?;
            let digest = digest_column("manifests", &digest)?;
            Ok((ManifestId(id), Stamp { repository, digest, day: day("pulls", days)? }))
        };
        rows.into_iter().map(stamp).collect()
    }

    async fn last_pulls(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<Option<Day>>, Error> {
        let select = sqlx::query_as(include_str!("sql/last_pulls.sql"))
            .bind(repository.as_str())
            .bind(digests_json(digests));
        let rows: Vec<(i64, i64)> = self.readers.all(select).await?;
        let mut found = vec![None; digests.len()];
        for (place, days) in rows {
            let place = usize::try_from(place).ok().and_then(|place| found.get_mut(place));
            *place.ok_or_else(|| unreadable("pulls", "place"))? = Some(day("pulls", days)?);
        }
        Ok(found)
    }

    async fn note_pull_writers(&self, epoch: Epoch, writers: &[(Generation, Day)]) -> Result<(), Error> {
        let told: Vec<(String, i32)> =
            writers.iter().map(|(writer, day)| (generation_hex(*writer), day.days_since_1970())).collect();
        let mut tx = self.writer.begin_in(epoch).await?;
        tx.run(sqlx::query(include_str!("sql/note_pull_writers.sql")).bind(to_json(&told))).await?;
        tx.commit().await
    }

    async fn forget_pull_writer(&self, epoch: Epoch, writer: Generation) -> Result<(), Error> {
        let mut tx = self.writer.begin_in(epoch).await?;
        let forget = sqlx::query("DELETE FROM pull_writers WHERE incarnation = ?1").bind(writer.to_uuid());
        tx.run(forget).await?;
        tx.commit().await
    }

    async fn pull_writers(&self) -> Result<Vec<(Generation, Day)>, Error> {
        let select = sqlx::query_as("SELECT incarnation, day FROM pull_writers ORDER BY incarnation");
        let rows: Vec<(Uuid, i64)> = self.readers.all(select).await?;
        let writer = |(writer, days)| Ok((Generation::from_uuid(writer), day("pull_writers", days)?));
        rows.into_iter().map(writer).collect()
    }

    async fn pull_gap(&self) -> Result<Option<Day>, Error> {
        let newest = sqlx::query_as("SELECT max(day) FROM pull_writers");
        let newest: Option<(Option<i64>,)> = self.readers.one(newest).await?;
        newest.and_then(|(days,)| days).map(|days| day("pull_writers", days)).transpose()
    }
}
