// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Cached`].

use async_trait::async_trait;
use stowage_oci::Name;

use super::SqliteStore;
use super::values::{digest as digest_column, digest_of_hex, duration, from_json, parsed, unreadable};
use crate::key::Day;
use crate::meta::{Cached, CachedManifest, Error, ManifestId};

#[derive(sqlx::FromRow)]
struct Columns {
    id: i64,
    repository: String,
    digest: Vec<u8>,
    age: i64,
    pulled: Option<i64>,
    today: i64,
    is_promoted: bool,
    subject: Option<Vec<u8>>,
    children: String,
    tags: String,
    blobs: String,
}

fn day(days: i64) -> Result<Day, Error> {
    let day = i32::try_from(days).ok().and_then(Day::since_1970);
    day.ok_or_else(|| unreadable("pulls", format_args!("day {days}")))
}

impl Columns {
    fn read(self) -> Result<CachedManifest, Error> {
        let children: Vec<String> = from_json("manifest_children", &self.children)?;
        let tags: Vec<String> = from_json("tags", &self.tags)?;
        let blobs: Vec<(String, u64)> = from_json("manifest_blobs", &self.blobs)?;
        let blob = |(digest, size): &(String, u64)| Ok((digest_of_hex("manifests", digest)?, *size));
        Ok(CachedManifest {
            id: ManifestId(self.id),
            repository: parsed("repositories", &self.repository)?,
            digest: digest_column("manifests", &self.digest)?,
            // A clock that was set back.
            age: duration(self.age),
            pulled: self.pulled.map(day).transpose()?,
            today: day(self.today)?,
            is_promoted: self.is_promoted,
            subject: self.subject.map(|bytes| digest_column("manifests", &bytes)).transpose()?,
            children: children
                .iter()
                .map(|text| digest_of_hex("manifests", text))
                .collect::<Result<_, _>>()?,
            tags: tags.iter().map(|tag| parsed("tags", tag)).collect::<Result<_, _>>()?,
            blobs: blobs.iter().map(blob).collect::<Result<_, Error>>()?,
        })
    }
}

#[async_trait]
impl Cached for SqliteStore {
    async fn cached_manifests(
        &self,
        path: &Name,
        after: Option<ManifestId>,
        limit: u32,
    ) -> Result<Vec<CachedManifest>, Error> {
        let select = sqlx::query_as(include_str!("sql/cached_manifests.sql"))
            .bind(path.as_str())
            .bind(after.map_or(0, |ManifestId(id)| id))
            .bind(limit);
        let rows: Vec<Columns> = self.readers.all(select).await?;
        rows.into_iter().map(Columns::read).collect()
    }
}
