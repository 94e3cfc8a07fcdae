// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Pulls`].

use async_trait::async_trait;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::error::Fault;
use super::tx::{read, write};
use super::{PostgresStore, row};
use crate::key::{Day, Generation};
use crate::meta::{Epoch, Error, ManifestId, Pulls, Stamp, Today};

const NEWEST: &str = "SELECT max(day) - DATE '1970-01-01' FROM pull_writers";

fn day(table: &'static str, days: i32) -> Result<Day, Error> {
    Day::since_1970(days).ok_or_else(|| row::unreadable(table, &days))
}

impl PostgresStore {
    async fn try_record_pulls(
        &self,
        repositories: &[&str],
        digests: &[Vec<u8>],
    ) -> Result<(i32, f64), Fault> {
        let record = sqlx::query_as(include_str!("sql/record_pulls.sql")).bind(repositories).bind(digests);
        Ok(self.row(record).await?.unwrap_or_default())
    }

    async fn try_restore_pulls(&self, epoch: Epoch, stamps: &[Stamp]) -> Result<(), Fault> {
        let repositories: Vec<&str> = stamps.iter().map(|stamp| stamp.repository.as_str()).collect();
        let digests: Vec<Vec<u8>> = stamps.iter().map(|stamp| stamp.digest.to_bytes()).collect();
        let days: Vec<i32> = stamps.iter().map(|stamp| stamp.day.days_since_1970()).collect();
        let mut tx = self.begin_in(epoch).await?;
        sqlx::query(include_str!("sql/restore_pulls.sql"))
            .bind(repositories)
            .bind(digests)
            .bind(days)
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    async fn try_note_pull_writers(&self, epoch: Epoch, writers: &[(Generation, Day)]) -> Result<(), Fault> {
        let (writers, days): (Vec<Uuid>, Vec<i32>) =
            writers.iter().map(|(writer, day)| (writer.to_uuid(), day.days_since_1970())).unzip();
        let mut tx = self.begin_in(epoch).await?;
        let note = sqlx::query(include_str!("sql/note_pull_writers.sql")).bind(writers).bind(days);
        note.execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn try_forget_pull_writer(&self, epoch: Epoch, writer: Generation) -> Result<(), Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let forget = sqlx::query("DELETE FROM pull_writers WHERE incarnation = $1").bind(writer.to_uuid());
        forget.execute(&mut *tx).await?;
        tx.commit().await
    }
}

#[async_trait]
impl Pulls for PostgresStore {
    async fn record_pulls(&self, pulled: &[(Name, Digest)]) -> Result<Today, Error> {
        let repositories: Vec<&str> = pulled.iter().map(|(repository, _)| repository.as_str()).collect();
        let digests: Vec<Vec<u8>> = pulled.iter().map(|(_, digest)| digest.to_bytes()).collect();
        let (days, left) = write(|| self.try_record_pulls(&repositories, &digests)).await?;
        Ok(Today { day: day("pulls", days)?, left: row::duration(left) })
    }

    async fn restore_pulls(&self, epoch: Epoch, stamps: &[Stamp]) -> Result<(), Error> {
        write(|| self.try_restore_pulls(epoch, stamps)).await
    }

    async fn pull_stamps(
        &self,
        after: Option<ManifestId>,
        limit: u32,
    ) -> Result<Vec<(ManifestId, Stamp)>, Error> {
        let select = sqlx::query_as(include_str!("sql/pull_stamps.sql"))
            .bind(after.map_or(0, |ManifestId(id)| id))
            .bind(i64::from(limit));
        let rows: Vec<(i64, String, Vec<u8>, i32)> = read(self.rows(select)).await?;
        let stamp = |(id, repository, digest, days): (i64, String, Vec<u8>, i32)| {
            let repository = row::parsed("repositories", &repository)?;
            let digest = row::digest("manifests", &digest)?;
            Ok((ManifestId(id), Stamp { repository, digest, day: day("pulls", days)? }))
        };
        rows.into_iter().map(stamp).collect()
    }

    async fn last_pulls(&self, repository: &Name, digests: &[Digest]) -> Result<Vec<Option<Day>>, Error> {
        let select = sqlx::query_as(include_str!("sql/last_pulls.sql"))
            .bind(repository.as_str())
            .bind(row::digests(digests));
        let rows: Vec<(i64, i32)> = read(self.rows(select)).await?;
        let mut found = vec![None; digests.len()];
        for (place, days) in rows {
            let place = usize::try_from(place - 1).ok().and_then(|place| found.get_mut(place));
            *place.ok_or_else(|| row::unreadable("pulls", "place"))? = Some(day("pulls", days)?);
        }
        Ok(found)
    }

    async fn note_pull_writers(&self, epoch: Epoch, writers: &[(Generation, Day)]) -> Result<(), Error> {
        write(|| self.try_note_pull_writers(epoch, writers)).await
    }

    async fn forget_pull_writer(&self, epoch: Epoch, writer: Generation) -> Result<(), Error> {
        write(|| self.try_forget_pull_writer(epoch, writer)).await
    }

    async fn pull_writers(&self) -> Result<Vec<(Generation, Day)>, Error> {
        let select = sqlx::query_as(
            "SELECT incarnation, day - DATE '1970-01-01' FROM pull_writers ORDER BY incarnation",
        );
        let rows: Vec<(Uuid, i32)> = read(self.rows(select)).await?;
        let writer = |(writer, days)| Ok((Generation::from_uuid(writer), day("pull_writers", days)?));
        rows.into_iter().map(writer).collect()
    }

    async fn pull_gap(&self) -> Result<Option<Day>, Error> {
        let newest: Option<(Option<i32>,)> = read(self.row(sqlx::query_as(NEWEST))).await?;
        newest.and_then(|(days,)| days).map(|days| day("pull_writers", days)).transpose()
    }
}
