// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reads that answer requests: one prepared statement each, on a connection that reads.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::values::{
    digest as digest_column, digest_hex, from_json, location, micros, parsed, to_json, unreadable,
};
use crate::key::Generation;
use crate::meta::{BlobRow, Epoch, Error, LinkId, ManifestId, ManifestRow, ReferrerRow, Resolve};

#[derive(sqlx::FromRow)]
struct ManifestColumns {
    id: i64,
    digest: Vec<u8>,
    media_type: String,
    size: u32,
    r#gen: Uuid,
    /// By tag.
    #[sqlx(default)]
    tag_generation: Option<Uuid>,
    lease_is_old: bool,
    body: Option<Vec<u8>>,
}

impl ManifestColumns {
    fn into_row(self) -> Result<ManifestRow, Error> {
        Ok(ManifestRow {
            id: ManifestId(self.id),
            digest: digest_column("manifests", &self.digest)?,
            media_type: self.media_type,
            size: self.size,
            generation: Generation::from_uuid(self.r#gen),
            tag: self.tag_generation.map(Generation::from_uuid),
            body: self.body.map(Bytes::from),
            lease_is_old: self.lease_is_old,
        })
    }
}

/// One of many, and at which place it was asked for.
#[derive(sqlx::FromRow)]
struct Placed<C> {
    place: i64,
    #[sqlx(flatten)]
    row: C,
}

/// What was found, at its place among `count`.
fn in_place<C, R>(
    found: Vec<Placed<C>>,
    count: usize,
    read: impl Fn(C) -> Result<R, Error>,
) -> Result<Vec<Option<R>>, Error> {
    let mut rows: Vec<Option<R>> = std::iter::repeat_with(|| None).take(count).collect();
    for Placed { place, row } in found {
        let place = usize::try_from(place).map_err(|error| unreadable("json_each", error))?;
        rows[place] = Some(read(row)?);
    }
    Ok(rows)
}

/// A question as a list to bind; of a digest, as `unhex` gives what columns hold.
fn list(wanted: &[(Name, Digest)]) -> String {
    let pairs = wanted.iter().map(|(repository, digest)| (repository.as_str(), digest_hex(digest)));
    to_json(&pairs.collect::<Vec<_>>())
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    id: i64,
    r#gen: Option<Uuid>,
    form: i64,
    tail: Option<u32>,
    size: i64,
    lease_is_old: bool,
}

impl BlobColumns {
    fn into_row(self) -> Result<BlobRow, Error> {
        let size = u64::try_from(self.size).map_err(|error| unreadable("blobs", error))?;
        let location = location(self.r#gen, self.form, self.tail, size)?
            .ok_or_else(|| unreadable("blobs", "absent data among stored"))?;
        Ok(BlobRow { link: LinkId(self.id), location, lease_is_old: self.lease_is_old })
    }
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
        if let [(repository, tag)] = wanted {
            let query = sqlx::query_as(include_str!("sql/manifest_by_tag.sql"))
                .bind(repository.as_str())
                .bind(tag.as_str())
                .bind(self.half_grace())
                .bind(epoch.0)
                .bind(self.lock.fence);
            let found: Option<InEpoch<ManifestColumns>> = self.readers.one(query).await?;
            return Ok(vec![of_epoch(found)?.pop().map(ManifestColumns::into_row).transpose()?]);
        }
        let pairs: Vec<_> = wanted.iter().map(|(name, tag)| (name.as_str(), tag.as_str())).collect();
        let query = sqlx::query_as(include_str!("sql/manifests_by_tag.sql"))
            .bind(to_json(&pairs))
            .bind(self.half_grace())
            .bind(epoch.0)
            .bind(self.lock.fence);
        in_place(of_epoch(self.readers.all(query).await?)?, wanted.len(), ManifestColumns::into_row)
    }

    async fn manifests(
        &self,
        epoch: Epoch,
        wanted: &[(Name, Digest)],
    ) -> Result<Vec<Option<ManifestRow>>, Error> {
        if let [(repository, digest)] = wanted {
            let query = sqlx::query_as(include_str!("sql/manifest_by_digest.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
                .bind(self.half_grace())
                .bind(epoch.0)
                .bind(self.lock.fence);
            let found: Option<InEpoch<ManifestColumns>> = self.readers.one(query).await?;
            return Ok(vec![of_epoch(found)?.pop().map(ManifestColumns::into_row).transpose()?]);
        }
        let query = sqlx::query_as(include_str!("sql/manifests_by_digest.sql"))
            .bind(list(wanted))
            .bind(self.half_grace())
            .bind(epoch.0)
            .bind(self.lock.fence);
        in_place(of_epoch(self.readers.all(query).await?)?, wanted.len(), ManifestColumns::into_row)
    }

    async fn blobs(&self, epoch: Epoch, wanted: &[(Name, Digest)]) -> Result<Vec<Option<BlobRow>>, Error> {
        if let [(repository, digest)] = wanted {
            let query = sqlx::query_as(include_str!("sql/blob.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
                .bind(self.half_grace())
                .bind(epoch.0)
                .bind(self.lock.fence);
            let found: Option<InEpoch<BlobColumns>> = self.readers.one(query).await?;
            return Ok(vec![of_epoch(found)?.pop().map(BlobColumns::into_row).transpose()?]);
        }
        let query = sqlx::query_as(include_str!("sql/blobs.sql"))
            .bind(list(wanted))
            .bind(self.half_grace())
            .bind(epoch.0)
            .bind(self.lock.fence);
        in_place(of_epoch(self.readers.all(query).await?)?, wanted.len(), BlobColumns::into_row)
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
