// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reads that answer requests: one prepared statement each. A look-up alone has a simpler one than many.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::tx::read;
use super::{PostgresStore, row};
use crate::key::Generation;
use crate::meta::{
    Annotations, BlobRow, Epoch, Error, LinkId, ManifestId, ManifestRow, ReferrerRow, Resolve,
};

#[derive(sqlx::FromRow)]
struct ManifestColumns {
    id: i64,
    digest: Vec<u8>,
    media_type: String,
    size: i32,
    generation: Uuid,
    /// By tag.
    #[sqlx(default)]
    tag_generation: Option<Uuid>,
    body: Option<Vec<u8>>,
    lease_is_old: bool,
}

impl ManifestColumns {
    fn read(self) -> Result<ManifestRow, Error> {
        Ok(ManifestRow {
            id: ManifestId(self.id),
            digest: row::digest("manifests", &self.digest)?,
            media_type: self.media_type,
            size: row::number("manifests", self.size)?,
            generation: Generation::from_uuid(self.generation),
            tag: self.tag_generation.map(Generation::from_uuid),
            body: self.body.map(Bytes::from),
            lease_is_old: self.lease_is_old,
        })
    }
}

/// One of many, and at which place it was asked for, from 1.
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
        let place: usize = row::number("unnest", place - 1)?;
        rows[place] = Some(read(row)?);
    }
    Ok(rows)
}

/// The repositories and the digests of a question.
fn lists(wanted: &[(Name, Digest)]) -> (Vec<&str>, Vec<Vec<u8>>) {
    wanted.iter().map(|(repository, digest)| (repository.as_str(), digest.to_bytes())).unzip()
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    link: i64,
    generation: Option<Uuid>,
    form: i16,
    tail: Option<i32>,
    size: i64,
    lease_is_old: bool,
}

impl BlobColumns {
    fn read(self) -> Result<BlobRow, Error> {
        Ok(BlobRow {
            link: LinkId(self.link),
            location: row::location(self.generation, self.form, self.tail, self.size)?,
            lease_is_old: self.lease_is_old,
        })
    }
}

#[derive(sqlx::FromRow)]
struct ReferrerColumns {
    r#gen: Uuid,
    digest: Vec<u8>,
    media_type: String,
    size: i32,
    artifact_type: Option<String>,
    annotations: Option<Json<Annotations>>,
}

impl ReferrerColumns {
    fn read(self) -> Result<ReferrerRow, Error> {
        Ok(ReferrerRow {
            generation: Generation::from_uuid(self.r#gen),
            digest: row::digest("manifests", &self.digest)?,
            media_type: self.media_type,
            size: row::number("manifests", self.size)?,
            artifact_type: self.artifact_type,
            annotations: self.annotations.map(|Json(annotations)| annotations),
        })
    }
}

/// A row of an answer that holds only in the epoch that was asked for.
struct InEpoch<T> {
    ours: bool,
    found: Option<T>,
}

impl<'r, T: FromRow<'r, PgRow>> FromRow<'r, PgRow> for InEpoch<T> {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
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

fn names(rows: &[(String,)]) -> Result<Vec<Name>, Error> {
    rows.iter().map(|(text,)| row::parsed("repositories", text)).collect()
}

#[async_trait]
impl Resolve for PostgresStore {
    async fn tagged(&self, epoch: Epoch, wanted: &[(Name, Tag)]) -> Result<Vec<Option<ManifestRow>>, Error> {
        if let [(repository, tag)] = wanted {
            let statement = sqlx::query_as(include_str!("sql/manifest_by_tag.sql"))
                .bind(repository.as_str())
                .bind(tag.as_str())
                .bind(self.half_lease())
                .bind(i64::from(epoch.0));
            let found: Option<InEpoch<ManifestColumns>> = read(self.row(statement)).await?;
            return Ok(vec![of_epoch(found)?.pop().map(ManifestColumns::read).transpose()?]);
        }
        let (repositories, tags): (Vec<&str>, Vec<&str>) =
            wanted.iter().map(|(repository, tag)| (repository.as_str(), tag.as_str())).unzip();
        let statement = sqlx::query_as(include_str!("sql/manifests_by_tag.sql"))
            .bind(repositories)
            .bind(tags)
            .bind(self.half_lease())
            .bind(i64::from(epoch.0));
        in_place(of_epoch(read(self.rows(statement)).await?)?, wanted.len(), ManifestColumns::read)
    }

    async fn manifests(
        &self,
        epoch: Epoch,
        wanted: &[(Name, Digest)],
    ) -> Result<Vec<Option<ManifestRow>>, Error> {
        if let [(repository, digest)] = wanted {
            let statement = sqlx::query_as(include_str!("sql/manifest_by_digest.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
                .bind(self.half_lease())
                .bind(i64::from(epoch.0));
            let found: Option<InEpoch<ManifestColumns>> = read(self.row(statement)).await?;
            return Ok(vec![of_epoch(found)?.pop().map(ManifestColumns::read).transpose()?]);
        }
        let (repositories, digests) = lists(wanted);
        let statement = sqlx::query_as(include_str!("sql/manifests_by_digest.sql"))
            .bind(repositories)
            .bind(digests)
            .bind(self.half_lease())
            .bind(i64::from(epoch.0));
        in_place(of_epoch(read(self.rows(statement)).await?)?, wanted.len(), ManifestColumns::read)
    }

    async fn blobs(&self, epoch: Epoch, wanted: &[(Name, Digest)]) -> Result<Vec<Option<BlobRow>>, Error> {
        if let [(repository, digest)] = wanted {
            let statement = sqlx::query_as(include_str!("sql/blob.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
                .bind(self.half_lease())
                .bind(i64::from(epoch.0));
            let found: Option<InEpoch<BlobColumns>> = read(self.row(statement)).await?;
            return Ok(vec![of_epoch(found)?.pop().map(BlobColumns::read).transpose()?]);
        }
        let (repositories, digests) = lists(wanted);
        let statement = sqlx::query_as(include_str!("sql/blobs.sql"))
            .bind(repositories)
            .bind(digests)
            .bind(self.half_lease())
            .bind(i64::from(epoch.0));
        in_place(of_epoch(read(self.rows(statement)).await?)?, wanted.len(), BlobColumns::read)
    }

    async fn renew_link(&self, link: LinkId) -> Result<bool, Error> {
        self.write_one(|| {
            sqlx::query(include_str!("sql/renew_link.sql")).bind(link.0).bind(self.half_lease())
        })
        .await
    }

    async fn renew_manifest(&self, manifest: ManifestId) -> Result<bool, Error> {
        self.write_one(|| {
            sqlx::query(include_str!("sql/renew_manifest.sql")).bind(manifest.0).bind(self.half_lease())
        })
        .await
    }

    async fn tags(
        &self,
        epoch: Epoch,
        repository: &Name,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>, Error> {
        let statement = sqlx::query_as(include_str!("sql/tags.sql"))
            .bind(repository.as_str())
            .bind(after.unwrap_or_default())
            .bind(i64::from(limit))
            .bind(i64::from(epoch.0));
        let found: Vec<TagColumn> = of_epoch(read(self.rows(statement)).await?)?;
        if found.is_empty() {
            return Ok(None);
        }
        let tags = found.iter().filter_map(|row| row.name.as_deref()).map(|text| row::parsed("tags", text));
        tags.collect::<Result<_, _>>().map(Some)
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
        let statement = sqlx::query_as(include_str!("sql/referrers.sql"))
            .bind(repository.as_str())
            .bind(subject.to_bytes())
            .bind(artifact_types)
            .bind(after.map_or(Uuid::max(), Generation::to_uuid))
            .bind(i64::from(limit))
            .bind(i64::from(epoch.0));
        let found: Vec<ReferrerColumns> = of_epoch(read(self.rows(statement)).await?)?;
        found.into_iter().map(ReferrerColumns::read).collect()
    }

    async fn repositories(&self, epoch: Epoch, after: Option<&str>, limit: u32) -> Result<Vec<Name>, Error> {
        let statement = sqlx::query_as(include_str!("sql/repositories.sql"))
            .bind(after.unwrap_or_default())
            .bind(i64::from(limit))
            .bind(i64::from(epoch.0));
        let found: Vec<NameColumn> = of_epoch(read(self.rows(statement)).await?)?;
        found.iter().map(|row| row::parsed("repositories", &row.name)).collect()
    }

    async fn takes_referrer(&self, repository: &Name, subject: &Digest, limit: u32) -> Result<bool, Error> {
        let statement = sqlx::query_as(include_str!("sql/takes_referrer.sql"))
            .bind(repository.as_str())
            .bind(subject.to_bytes())
            .bind(i64::from(limit));
        let takes: Option<(bool,)> = read(self.row(statement)).await?;
        Ok(takes.is_some_and(|(takes,)| takes))
    }

    async fn repositories_with(&self, digest: &Digest, limit: u32) -> Result<Vec<Name>, Error> {
        let statement = sqlx::query_as(include_str!("sql/repositories_with.sql"))
            .bind(digest.to_bytes())
            .bind(i64::from(limit));
        let found: Vec<(String,)> = read(self.rows(statement)).await?;
        names(&found)
    }

    async fn indexes_with(
        &self,
        repository: &Name,
        child: &Digest,
        limit: u32,
    ) -> Result<Vec<Digest>, Error> {
        let statement = sqlx::query_as(include_str!("sql/indexes_with.sql"))
            .bind(repository.as_str())
            .bind(child.to_bytes())
            .bind(i64::from(limit));
        let found: Vec<(Vec<u8>,)> = read(self.rows(statement)).await?;
        found.iter().map(|(bytes,)| row::digest("manifests", bytes)).collect()
    }

    async fn mark_absent(&self, digest: &Digest, generation: Generation) -> Result<(), Error> {
        let statement = "UPDATE blobs SET form = 0 WHERE digest = $1 AND gen = $2 AND form <> 0";
        self.run(|| sqlx::query(statement).bind(digest.to_bytes()).bind(generation.to_uuid())).await
    }
}
