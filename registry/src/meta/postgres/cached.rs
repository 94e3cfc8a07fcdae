// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Cached`].

use async_trait::async_trait;
use stowage_oci::Name;

use super::tx::read;
use super::{PostgresStore, row};
use crate::key::Day;
use crate::meta::{Cached, CachedManifest, Error, ManifestId};

#[derive(sqlx::FromRow)]
struct Columns {
    id: i64,
    repository: String,
    digest: Vec<u8>,
    age: f64,
    pulled: Option<i32>,
    today: i32,
    is_promoted: bool,
    subject: Option<Vec<u8>>,
    children: Vec<Vec<u8>>,
    tags: Vec<String>,
    digests: Vec<Vec<u8>>,
    sizes: Vec<i64>,
}

fn day(days: i32) -> Result<Day, Error> {
    Day::since_1970(days).ok_or_else(|| row::unreadable("pulls", &days))
}

impl Columns {
    fn read(self) -> Result<CachedManifest, Error> {
        let digest = |bytes: &Vec<u8>| row::digest("manifests", bytes);
        let blob = |(bytes, size): (&Vec<u8>, &i64)| Ok((digest(bytes)?, row::number("blobs", *size)?));
        Ok(CachedManifest {
            id: ManifestId(self.id),
            repository: row::parsed("repositories", &self.repository)?,
            digest: digest(&self.digest)?,
            age: row::duration(self.age),
            pulled: self.pulled.map(day).transpose()?,
            today: day(self.today)?,
            is_promoted: self.is_promoted,
            subject: self.subject.as_ref().map(digest).transpose()?,
            children: self.children.iter().map(digest).collect::<Result<_, _>>()?,
            tags: self.tags.iter().map(|tag| row::parsed("tags", tag)).collect::<Result<_, _>>()?,
            blobs: self.digests.iter().zip(&self.sizes).map(blob).collect::<Result<_, Error>>()?,
        })
    }
}

#[async_trait]
impl Cached for PostgresStore {
    async fn cached_manifests(
        &self,
        path: &Name,
        after: Option<ManifestId>,
        limit: u32,
    ) -> Result<Vec<CachedManifest>, Error> {
        let select = sqlx::query_as(include_str!("sql/cached_manifests.sql"))
            .bind(path.as_str())
            .bind(after.map_or(0, |ManifestId(id)| id))
            .bind(i64::from(limit));
        let rows: Vec<Columns> = read(self.rows(select)).await?;
        rows.into_iter().map(Columns::read).collect()
    }
}
