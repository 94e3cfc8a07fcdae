// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reads that answer requests: one prepared statement each, on a connection that reads. What pulls ask for is looked
//! up by the thread that asks.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Row, ToSql, params};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::values::{digest as digest_column, from_json, location, micros, parsed, to_json, unreadable};
use crate::key::Generation;
use crate::meta::{BlobRow, Epoch, Error, LinkId, ManifestId, ManifestRow, ReferrerRow, Resolve};

/// A live manifest.
fn manifest(row: &Row<'_>) -> Result<ManifestRow, Error> {
    Ok(ManifestRow {
        id: ManifestId(row.get("id")?),
        digest: digest_column("manifests", &row.get::<_, Vec<u8>>("digest")?)?,
        media_type: row.get("media_type")?,
        size: row.get("size")?,
        generation: Generation::from_uuid(row.get("gen")?),
        tag: row.get::<_, Option<Uuid>>("tag_generation")?.map(Generation::from_uuid),
        body: row.get::<_, Option<Vec<u8>>>("body")?.map(Bytes::from),
        lease_is_old: row.get("lease_is_old")?,
    })
}

/// A blob whose data is stored, and the link that shows it.
fn blob(row: &Row<'_>) -> Result<BlobRow, Error> {
    let size = row.get::<_, i64>("size")?;
    let size = u64::try_from(size).map_err(|error| unreadable("blobs", error))?;
    let location = location(row.get("gen")?, row.get("form")?, row.get("tail")?, size)?
        .ok_or_else(|| unreadable("blobs", "absent data among stored"))?;
    Ok(BlobRow { link: LinkId(row.get("id")?), location, lease_is_old: row.get("lease_is_old")? })
}

#[derive(sqlx::FromRow)]
struct ReferrerColumns {
    r#gen: Uuid,
    digest: Vec<u8>,
    media_type: String,
    size: u32,
    artifact_type: Option<String>,
    annotations: Option<String>,
}

impl ReferrerColumns {
    fn into_row(self) -> Result<ReferrerRow, Error> {
        let annotations = self.annotations.as_deref().map(|text| from_json("manifests", text));
        Ok(ReferrerRow {
            generation: Generation::from_uuid(self.r#gen),
            digest: digest_column("manifests", &self.digest)?,
            media_type: self.media_type,
            size: self.size,
            artifact_type: self.artifact_type,
            annotations: annotations.transpose()?,
        })
    }
}

/// A row of an answer that holds only in the epoch that was asked for.
struct InEpoch<T> {
    ours: bool,
    found: Option<T>,
}

impl<'r, T: FromRow<'r, SqliteRow>> FromRow<'r, SqliteRow> for InEpoch<T> {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let found: bool = row.try_get("found")?;
        Ok(Self { ours: row.try_get("ours")?, found: found.then(|| T::from_row(row)).transpose()? })
    }
}

/// A database without the epoch, or without any, has no answer.
fn of_epoch<T>(rows: impl IntoIterator<Item = InEpoch<T>>) -> Result<Vec<T>, Error> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none_or(|row| !row.ours) {
        return Err(Error::Superseded);
    }
    Ok(rows.filter_map(|row| row.found).collect())
}

#[derive(sqlx::FromRow)]
struct NameColumn {
    name: String,
}

#[derive(sqlx::FromRow)]
struct TagColumn {
    name: Option<String>,
}

impl SqliteStore {
    /// Leases are renewed at half time.
    fn half_grace(&self) -> i64 {
        micros(self.timings.lease / 2)
    }

    /// What a name in a repository stands for, in `epoch`.
    fn look_up<T>(
        &self,
        epoch: Epoch,
        statement: &str,
        (repository, name): (&str, impl ToSql),
        read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let parameters = params![repository, name, self.half_grace(), epoch.0, self.lock.fence];
        self.lookups.one(statement, parameters, read)
    }

    /// Touches a row if nobody did lately; whether there is one.
    async fn renew(&self, touch: &'static str, exists: &'static str, id: i64) -> Result<bool, Error> {
        let mut tx = self.writer.begin().await?;
        let renewed = tx.run(sqlx::query(touch).bind(id).bind(self.half_grace())).await? > 0;
        let there = renewed || tx.one::<(i64,)>(sqlx::query_as(exists).bind(id)).await?.is_some();
        tx.commit_unflushed().await?;
        Ok(there)
    }
}

#[async_trait]
impl Resolve for SqliteStore {
    async fn tagged(&self, epoch: Epoch, wanted: &[(Name, Tag)]) -> Result<Vec<Option<ManifestRow>>, Error> {
        let statement = include_str!("sql/manifest_by_tag.sql");
        let look = |(repository, tag): &(Name, Tag)| {
            self.look_up(epoch, statement, (repository.as_str(), tag.as_str()), manifest)
        };
        wanted.iter().map(look).collect()
    }

    async fn manifests(
        &self,
        epoch: Epoch,
        wanted: &[(Name, Digest)],
    ) -> Result<Vec<Option<ManifestRow>>, Error> {
        let statement = include_str!("sql/manifest_by_digest.sql");
        let look = |(repository, digest): &(Name, Digest)| {
            self.look_up(epoch, statement, (repository.as_str(), digest.to_bytes()), manifest)
        };
        wanted.iter().map(look).collect()
    }

    async fn blobs(&self, epoch: Epoch, wanted: &[(Name, Digest)]) -> Result<Vec<Option<BlobRow>>, Error> {
        let statement = include_str!("sql/blob.sql");
        let look = |(repository, digest): &(Name, Digest)| {
            self.look_up(epoch, statement, (repository.as_str(), digest.to_bytes()), blob)
        };
        wanted.iter().map(look).collect()
    }

    async fn renew_link(&self, link: LinkId) -> Result<bool, Error> {
        self.renew(
            "UPDATE repo_blobs SET touched = (SELECT now FROM clock)
             WHERE id = ?1 AND gen IS NOT NULL AND touched < (SELECT now FROM clock) - ?2",
            "SELECT 1 FROM repo_blobs WHERE id = ?1 AND gen IS NOT NULL",
            link.0,
        )
        .await
    }

    async fn renew_manifest(&self, manifest: ManifestId) -> Result<bool, Error> {
        self.renew(
            "UPDATE manifests SET touched = (SELECT now FROM clock)
             WHERE id = ?1 AND state = 1 AND touched < (SELECT now FROM clock) - ?2",
            "SELECT 1 FROM manifests WHERE id = ?1 AND state = 1",
            manifest.0,
        )
        .await
    }

    async fn tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>, Error> {
        let query = sqlx::query_as(include_str!("sql/tags.sql"))
            .bind(repository.as_str())
            .bind(after)
            .bind(limit.max(1)) // one row is needed to see that the repository exists
            .bind(epoch.0)
            .bind(self.lock.fence);
        let rows: Vec<TagColumn> = of_epoch(self.readers.all(query).await?)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let names = rows.into_iter().filter_map(|row| row.name).take(limit as usize);
        names.map(|name| parsed("tags", &name)).collect::<Result<_, _>>().map(Some)
    }

    async fn referrers(
        &self,
        epoch: Epoch,
        repository: &Name,
        subject: &Digest,
        artifact_types: &[String],
        after: Option<Generation>,
        limit: u32,
    ) -> Result<Vec<ReferrerRow>, Error> {
        let query = sqlx::query_as(include_str!("sql/referrers.sql"))
            .bind(repository.as_str())
            .bind(subject.to_bytes())
            .bind(to_json(artifact_types))
            .bind(after.map_or(Uuid::max(), Generation::to_uuid))
            .bind(limit)
            .bind(epoch.0)
            .bind(self.lock.fence);
        let found = of_epoch(self.readers.all(query).await?)?;
        found.into_iter().map(ReferrerColumns::into_row).collect()
    }

    async fn repositories(&self, epoch: Epoch, after: Option<&str>, limit: u32) -> Result<Vec<Name>, Error> {
        let query = sqlx::query_as(include_str!("sql/repositories.sql"))
            .bind(after.unwrap_or_default())
            .bind(limit.max(1)) // one row is needed to see whether the epoch is ours
            .bind(epoch.0)
            .bind(self.lock.fence);
        let rows: Vec<NameColumn> = of_epoch(self.readers.all(query).await?)?;
        rows.iter().take(limit as usize).map(|row| parsed("repositories", &row.name)).collect()
    }

    async fn takes_referrer(&self, repository: &Name, subject: &Digest, limit: u32) -> Result<bool, Error> {
        let query = sqlx::query_as(include_str!("sql/takes_referrer.sql"))
            .bind(repository.as_str())
            .bind(subject.to_bytes())
            .bind(limit);
        Ok(self.readers.one::<(bool,)>(query).await?.is_some_and(|(takes,)| takes))
    }

    async fn repositories_with(&self, digest: &Digest, limit: u32) -> Result<Vec<Name>, Error> {
        let query =
            sqlx::query_as(include_str!("sql/repositories_with.sql")).bind(digest.to_bytes()).bind(limit);
        let rows: Vec<(String,)> = self.readers.all(query).await?;
        rows.iter().map(|(name,)| parsed("repositories", name)).collect()
    }

    async fn indexes_with(
        &self,
        repository: &Name,
        child: &Digest,
        limit: u32,
    ) -> Result<Vec<Digest>, Error> {
        let query = sqlx::query_as(include_str!("sql/indexes_with.sql"))
            .bind(repository.as_str())
            .bind(child.to_bytes())
            .bind(limit);
        let rows: Vec<(Vec<u8>,)> = self.readers.all(query).await?;
        rows.iter().map(|(bytes,)| digest_column("manifests", bytes)).collect()
    }

    async fn mark_absent(&self, digest: &Digest, generation: Generation) -> Result<(), Error> {
        let update = "UPDATE blobs SET form = 0 WHERE digest = ?1 AND gen = ?2";
        let query = sqlx::query(update).bind(digest.to_bytes()).bind(generation.to_uuid());
        self.writer.run(query).await?;
        Ok(())
    }
}
