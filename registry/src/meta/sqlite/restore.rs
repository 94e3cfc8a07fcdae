// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Trash`]: what may come back.

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Digest, Name, Reference, Tag};
use uuid::Uuid;

use super::SqliteStore;
use super::values::{digest as digest_column, parsed, unreadable};
use crate::key::Generation;
use crate::meta::{Epoch, Error, Mount, Restorable, Trash, TrashItem, Trashed};

#[derive(sqlx::FromRow)]
struct TrashedColumns {
    repository: String,
    tag: Option<String>,
    digest: Vec<u8>,
    media_type: String,
    size: u32,
    until: i64,
}

impl TrashedColumns {
    fn into_entry(self) -> Result<Trashed, Error> {
        let digest = digest_column("manifests", &self.digest)?;
        let reference = match &self.tag {
            Some(tag) => Reference::Tag(parsed::<Tag>("tags", tag)?),
            None => Reference::Digest(digest),
        };
        Ok(Trashed {
            item: TrashItem { repository: parsed("repositories", &self.repository)?, reference },
            digest,
            media_type: self.media_type,
            size: self.size,
            until: u64::try_from(self.until).map_err(|error| unreadable("tags", error))?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct RestorableColumns {
    digest: Vec<u8>,
    media_type: String,
    generation: Uuid,
    body: Option<Vec<u8>>,
    tombstone: Option<Uuid>,
}

impl RestorableColumns {
    fn into_manifest(self) -> Result<Restorable, Error> {
        Ok(Restorable {
            digest: digest_column("manifests", &self.digest)?,
            media_type: self.media_type,
            generation: Generation::from_uuid(self.generation),
            body: self.body.map(Bytes::from),
            tombstone: self.tombstone.map(Generation::from_uuid),
        })
    }
}

#[async_trait]
impl Trash for SqliteStore {
    async fn trash(
        &self,
        epoch: Epoch,
        repository: Option<&Name>,
        after: Option<&TrashItem>,
        limit: u32,
    ) -> Result<Vec<Trashed>, Error> {
        let select = sqlx::query_as(include_str!("sql/trash.sql"))
            .bind(repository.map(Name::as_str))
            .bind(after.map_or("", |after| after.repository.as_str()))
            .bind(after.map(TrashItem::place).unwrap_or_default())
            .bind(limit);
        let mut tx = self.writer.begin_in(epoch).await?;
        let found: Vec<TrashedColumns> = tx.all(select).await?;
        tx.rollback().await?;
        found.into_iter().map(TrashedColumns::into_entry).collect()
    }

    async fn trashed(&self, epoch: Epoch, item: &TrashItem) -> Result<Option<Restorable>, Error> {
        let repository = item.repository.as_str();
        let select = match &item.reference {
            Reference::Tag(tag) => {
                sqlx::query_as(include_str!("sql/restorable_tag.sql")).bind(repository).bind(tag.as_str())
            }
            Reference::Digest(digest) => sqlx::query_as(include_str!("sql/restorable_manifest.sql"))
                .bind(repository)
                .bind(digest.to_bytes()),
        };
        let mut tx = self.writer.begin_in(epoch).await?;
        let found: Option<RestorableColumns> = tx.one(select).await?;
        tx.rollback().await?;
        found.map(RestorableColumns::into_manifest).transpose()
    }

    async fn trashed_referrers(
        &self,
        epoch: Epoch,
        repository: &Name,
        subject: &Digest,
    ) -> Result<Vec<Digest>, Error> {
        let select = sqlx::query_as(include_str!("sql/trashed_referrers.sql"))
            .bind(repository.as_str())
            .bind(subject.to_bytes());
        let mut tx = self.writer.begin_in(epoch).await?;
        let found: Vec<(Vec<u8>,)> = tx.all(select).await?;
        tx.rollback().await?;
        found.iter().map(|(bytes,)| digest_column("manifests", bytes)).collect()
    }

    async fn begin_showing(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error> {
        self.intend_link(epoch, None, repository, digest, generation).await
    }
}
